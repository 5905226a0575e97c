using ImgKit.Block;
using ImgKit.Host;

namespace ImgKit.Nbd.Tests;

/// <summary>A server in this process on a Unix socket, and clients for it.</summary>
internal sealed class TestServer : IDisposable
{
    private readonly HostSocket _listener;
    private readonly string _folder = Directory.CreateTempSubdirectory("nbd-test").FullName;

    public TestServer(params NbdExport[] exports)
    {
        Server = new NbdServer(exports) { HandshakeLimit = TimeSpan.FromSeconds(2), Log = m => Messages.Add(m) };
        Path = _folder + "/s";
        _listener = HostSocket.ListenUnix(Path, 64);
        new Thread(Accept) { IsBackground = true }.Start();
    }

    public TestServer(BlockDevice disk)
        : this(new NbdExport { Name = "", Device = disk, IsShared = true })
    {
    }

    public NbdServer Server { get; }

    public string Path { get; }

    public string Uri => $"nbd+unix:///?socket={Path}";

    public System.Collections.Concurrent.ConcurrentBag<string> Messages { get; } = [];

    public BlockDevice Open(OpenSettings? settings = null, string? uri = null) =>
        new ImageOpener().Open(uri ?? Uri, "raw", settings ?? new OpenSettings { Unmap = true });

    public HostSocket Connect() => HostSocket.ConnectUnix(Path);

    /// <summary>Waits until no client is left.</summary>
    public void WaitUntilEmpty()
    {
        for (int i = 0; i < 500 && Server.ClientCount > 0; i++)
            Thread.Sleep(10);
        Assert.Equal(0, Server.ClientCount);
    }

    private void Accept()
    {
        while (_listener.Accept() is { } client)
            Server.Serve(client);
    }

    public void Dispose()
    {
        _listener.Shutdown();
        Server.Dispose();
        _listener.Dispose();
        Directory.Delete(_folder, true);
    }
}
