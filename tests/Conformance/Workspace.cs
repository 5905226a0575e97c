using System.Diagnostics;
using System.Globalization;

namespace ImgKit.Conformance;

/// <summary>A folder for a test, and servers that end with it.</summary>
internal sealed class Workspace : IDisposable
{
    private readonly List<Process> _servers = [];

    public string Folder { get; } = Directory.CreateTempSubdirectory("imgkit-").FullName;

    public string this[string name] => Path.Combine(Folder, name);

    /// <summary>A file of bytes that do not compress, with a hole in the middle.</summary>
    public string MakeDisk(string name, int length, int seed = 1)
    {
        byte[] data = new byte[length];
        new Random(seed).NextBytes(data);
        data.AsSpan(length / 4, length / 4).Clear();
        using var f = File.Create(this[name]);
        f.Write(data.AsSpan(0, length / 4));
        f.Position = length / 2;
        f.Write(data.AsSpan(length / 2));
        return this[name];
    }

    /// <summary>Starts kvm-nbd on a Unix socket.</summary>
    /// <returns>the URI of its export.</returns>
    public string Serve(params string[] arguments) => Start(Programs.Ours("kvm-nbd"), ["-t", "-e", "0", "-k", this["s"], .. arguments]);

    /// <summary>Starts a server that will listen on the socket <c>s</c>.</summary>
    public string Start(string program, params string[] arguments)
    {
        var p = Programs.Start(program, arguments);
        _servers.Add(p);
        for (int i = 0; i < 600 && !File.Exists(this["s"]); i++)
        {
            Assert.False(p.HasExited, p.HasExited ? p.StandardError.ReadToEnd() : "");
            Thread.Sleep(50);
        }
        // The file is there a moment before somebody listens.
        Thread.Sleep(100);
        return $"nbd+unix:///?socket={this["s"]}";
    }

    /// <summary>Ends the servers; another may take their socket's place.</summary>
    public void StopServers()
    {
        foreach (var p in _servers)
        {
            // They are asked to end, for they may have to bring their image into order.
            if (!p.HasExited)
                Programs.Run("/bin/sh", "-c", string.Create(CultureInfo.InvariantCulture, $"kill {p.Id}"));
            if (!p.WaitForExit(30_000))
                p.Kill();
            p.WaitForExit();
            p.Dispose();
        }
        _servers.Clear();
        File.Delete(this["s"]);
    }

    public void Dispose()
    {
        StopServers();
        Directory.Delete(Folder, true);
    }
}
