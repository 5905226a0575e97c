using ImgKit.Block;
using ImgKit.Host;
using ImgKit.Nbd;

namespace ImgKit.Fuzz.Targets;

/// <summary>A client says anything: the server answers or drops it, and lives.</summary>
internal sealed class NbdServerTarget : IFuzzTarget
{
    private readonly NbdServer _server = new([new NbdExport { Name = "", Device = new ScratchDisk() }]) { HandshakeLimit = TimeSpan.FromSeconds(1) };

    public string Name => "nbd-server";

    public IEnumerable<byte[]> Seeds() => NbdSeeds.Clients();

    public void Run(byte[] input)
    {
        var (ours, theirs) = HostSocket.CreatePair();
        using (ours)
        {
            _server.Serve(theirs);
            try
            {
                ours.Send(input);
            }
            catch (HostException)
            {
                // Dropped before it had said all.
                return;
            }
            // What it says is not of interest, but it must not be kept from saying it.
            byte[] reply = new byte[64 << 10];
            long total = 0;
            while (total < 64 << 20 && ours.WaitReadable(2))
            {
                int n = ours.Receive(reply);
                if (n == 0)
                    break;
                total += n;
            }
        }
        for (int i = 0; _server.ClientCount > 0; i++)
        {
            if (i > 5000)
                throw new InvalidOperationException("the client is gone, but not for the server");
            Thread.Sleep(1);
        }
    }

    private sealed class ScratchDisk : BlockDevice
    {
        private readonly byte[] _bytes = new byte[1 << 20];

        public override string DriverName => "scratch";

        public override long Length => _bytes.Length;

        public override void Read(long offset, Span<byte> destination) => _bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);

        public override void Write(long offset, ReadOnlySpan<byte> source) => source.CopyTo(_bytes.AsSpan((int)offset));

        public override void Flush() { }
    }
}

/// <summary>A server says anything: the client reports an error.</summary>
internal sealed class NbdClientTarget : IFuzzTarget
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), $"fuzz-nbd-{Environment.ProcessId}");
    private HostSocket? _listener;

    public string Name => "nbd-client";

    public IEnumerable<byte[]> Seeds() => NbdSeeds.Servers();

    public void Run(byte[] input)
    {
        if (_listener is null)
        {
            File.Delete(_path);
            _listener = HostSocket.ListenUnix(_path, 16);
        }
        var server = Task.Run(() =>
        {
            using var client = _listener.Accept()!;
            try
            {
                client.Send(input);
                client.WaitReadable(5);
            }
            catch (HostException)
            {
                // The client has heard enough.
                return;
            }
        });
        try
        {
            using var device = new ImageOpener().Open($"nbd+unix:///?socket={_path}", "raw", OpenSettings.ReadOnlyDefault);
            byte[] buffer = new byte[4096];
            if (device.Length >= buffer.Length)
            {
                device.Read(0, buffer);
                device.GetExtent(0, Math.Min(device.Length, 65536));
            }
        }
        catch (ImageException)
        {
            // What a client makes of a server that lies: the right answer, also to a seed that reports an error.
            return;
        }
        finally
        {
            server.Wait();
        }
    }
}
