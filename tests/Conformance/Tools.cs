using System.Diagnostics;
using System.Text;

namespace ImgKit.Conformance;

/// <summary>What a program printed, and how it ended.</summary>
public sealed record Outcome(int ExitCode, string Output, string Error)
{
    /// <summary>All of it, for comparing.</summary>
    public override string ToString() => $"exit {ExitCode}\n--- stdout\n{Output}--- stderr\n{Error}";
}

/// <summary>The peer and our program in its place: in folders of their own, called by the same name.</summary>
public sealed class Tools : IDisposable
{
    private static readonly string Program = FindProgram();

    private readonly string _root = Directory.CreateTempSubdirectory("imgkit-conformance-").FullName;

    public Tools()
    {
        Directory.CreateDirectory(PeerFolder);
        Directory.CreateDirectory(OurFolder);
    }

    /// <summary>Where the peer runs.</summary>
    public string PeerFolder => Path.Combine(_root, "peer");

    /// <summary>Where our program runs.</summary>
    public string OurFolder => Path.Combine(_root, "ours");

    /// <summary>Runs one after the other with the same arguments.</summary>
    public (Outcome Peer, Outcome Ours) Both(params string[] arguments) => (Peer(arguments), Ours(arguments));

    /// <summary>Runs the peer.</summary>
    public Outcome Peer(params string[] arguments) => Run("qemu-img", PeerFolder, arguments);

    /// <summary>Runs ours under the peer's name.</summary>
    public Outcome Ours(params string[] arguments) => Run(Program, OurFolder, arguments);

    public void Dispose() => Directory.Delete(_root, true);

    private static Outcome Run(string program, string folder, string[] arguments)
    {
        var start = new ProcessStartInfo("bash")
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
            StandardOutputEncoding = Encoding.UTF8,
            Environment = { ["LC_ALL"] = "C", ["TZ"] = "UTC" },
        };
        start.ArgumentList.Add("-c");
        start.ArgumentList.Add("exec -a qemu-img \"$0\" \"$@\"");
        start.ArgumentList.Add(program == "qemu-img" ? "/usr/bin/qemu-img" : program);
        foreach (string a in arguments)
            start.ArgumentList.Add(a);
        using var p = Process.Start(start)!;
        p.StandardInput.Close();
        var error = p.StandardError.ReadToEndAsync();
        string output = p.StandardOutput.ReadToEnd();
        p.WaitForExit();
        return new Outcome(p.ExitCode, output, error.Result);
    }

    /// <summary>The program as built beside this test, or as <c>KVM_IMG</c> says.</summary>
    private static string FindProgram()
    {
        if (Environment.GetEnvironmentVariable("KVM_IMG") is { Length: > 0 } given)
            return given;
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "src/kvm-img/kvm-img.csproj")))
            folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException("the source tree was not found");
        // scripts/test publishes before it tests.
        string published = Path.Combine(folder, "out/bin/kvm-img");
        if (AppContext.BaseDirectory.Contains("/Release/", StringComparison.Ordinal) && File.Exists(published))
            return published;
        string configuration = AppContext.BaseDirectory.Contains("/Release/", StringComparison.Ordinal) ? "Release" : "Debug";
        return Path.Combine(folder, "src/kvm-img/bin", configuration, "net10.0/linux-x64/kvm-img");
    }
}
