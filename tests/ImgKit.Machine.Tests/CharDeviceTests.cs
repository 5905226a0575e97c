using System.Net;
using System.Net.Sockets;
using System.Text;
using ImgKit.Machine.CharDevices;
using ImgKit.Machine.Devices.Serial;

namespace ImgKit.Machine.Tests;

/// <summary>Character devices whose other end is slow, or not there.</summary>
public sealed class CharDeviceTests : IDisposable
{
    private readonly TestBoard _board = new();
    private readonly EventLoop _loop;
    private readonly Lock _lock = new();
    private readonly string _folder = Directory.CreateTempSubdirectory("chardev").FullName;
    private readonly List<CharDevice> _devices = [];

    public CharDeviceTests()
    {
        _loop = new EventLoop(_lock);
        _loop.Start();
    }

    public void Dispose()
    {
        // As in a machine: the loop that calls them goes first.
        _loop.Dispose();
        _devices.ForEach(d => d.Dispose());
        _board.Dispose();
        Directory.Delete(_folder, true);
    }

    private static void WaitFor(Func<bool> condition)
    {
        for (int i = 0; !condition(); i++)
        {
            Assert.True(i < 2000, "it did not come");
            Thread.Sleep(5);
        }
    }

    private T Own<T>(T device) where T : CharDevice
    {
        _devices.Add(device);
        return device;
    }

    private (SocketCharDevice Device, Socket Peer) Pair()
    {
        string path = Path.Combine(_folder, "socket");
        var device = Own(new SocketCharDevice(_loop, "test", new UnixDomainSocketEndPoint(path), new SocketUse(true)));
        lock (_lock)
            device.Start();
        var peer = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        peer.Connect(new UnixDomainSocketEndPoint(path));
        WaitFor(() => device.IsConnected);
        return (device, peer);
    }

    [Fact]
    public void What_a_slow_reader_does_not_take_is_kept_in_order()
    {
        var (device, peer) = Pair();
        using var _ = peer;
        int drained = 0;
        device.OutputDrained = () => drained++;
        byte[] sent = new byte[1 << 20];
        new Random(1).NextBytes(sent);
        for (int at = 0; at < sent.Length; at += 4096)
            lock (_lock)
                device.Write(sent.AsSpan(at, 4096));
        Assert.True(device.IsCongested);
        byte[] got = new byte[sent.Length];
        for (int at = 0; at < got.Length;)
            at += peer.Receive(got.AsSpan(at));
        Assert.Equal(sent, got);
        WaitFor(() => drained == 1);
        Assert.False(device.IsCongested);
    }

    [Fact]
    public void A_reader_that_goes_away_takes_what_waits_with_it()
    {
        var (device, peer) = Pair();
        lock (_lock)
            device.Write(new byte[1 << 20]);
        Assert.True(device.IsCongested);
        peer.Dispose();
        WaitFor(() => !device.IsConnected && !device.IsCongested);
    }

    [Fact]
    public void Serial_and_parallel_port_are_busy_while_nobody_reads()
    {
        var back = new SlowDevice();
        _ = new Uart16550(_board.Services, 0x3F8, 4, back);
        _board.Out(0x3F9, 2);
        Assert.Equal(2u, _board.In(0x3FA));
        back.IsSlow = true;
        _board.Out(0x3F8, 'a');
        Assert.Equal(0u, _board.In(0x3FD) & 0x60);
        Assert.False(_board.Lines.Level[4]);
        back.Take();
        Assert.Equal(0x60u, _board.In(0x3FD));
        Assert.True(_board.Lines.Level[4]);

        back = new SlowDevice();
        _ = new ParallelPort(_board.Services, 0x378, 7, back);
        back.IsSlow = true;
        _board.Out(0x378, 'b');
        _board.Out(0x37A, 0x1D);
        _board.Out(0x37A, 0x1C);
        Assert.Equal(0u, _board.In(0x379) & 0x80);
        Assert.Equal(0, _board.Lines.Rises[7]);
        back.Take();
        Assert.Equal(0x80u, _board.In(0x379) & 0x80);
        Assert.Equal(1, _board.Lines.Rises[7]);
        Assert.Equal("b", back.Sent);
        // The data lines can be turned round.
        _board.Out(0x37A, 0x2C);
        _board.Out(0x378, 0x55);
        Assert.Equal(0xFFu, _board.In(0x378));
        _board.Out(0x37A, 0x0C);
        Assert.Equal(0x55u, _board.In(0x378));
    }

    [Fact]
    public void A_lost_connection_is_made_again()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var address = (IPEndPoint)listener.LocalEndPoint!;
        // Nobody listens yet.
        var device = Own(new SocketCharDevice(_loop, "test", address, new SocketUse(false, ReconnectSeconds: 1)));
        lock (_lock)
            device.Start();
        listener.Listen();
        for (int i = 0; i < 2; i++)
        {
            using var peer = listener.Accept();
            WaitFor(() => device.IsConnected);
            lock (_lock)
                device.Write("hello"u8);
            byte[] got = new byte[5];
            for (int at = 0; at < 5;)
                at += peer.Receive(got.AsSpan(at));
            Assert.Equal("hello"u8.ToArray(), got);
        }
    }

    [Theory]
    [InlineData("unix:/x,server,colour=red", "Invalid parameter 'colour'")]
    [InlineData("unix:/x,wait=off", "'wait' option is incompatible with socket in client connect mode")]
    [InlineData("tcp::1,server,reconnect=1", "'reconnect' option is incompatible with socket in server listen mode")]
    [InlineData("tcp::99999", "'")]
    [InlineData("carrier-pigeon", "'carrier-pigeon' is not a valid char driver")]
    public void A_wrong_word_is_refused_before_anything_is_made(string word, string message)
    {
        var factory = new CharDeviceFactory(_loop, _ => { }) { Quit = () => { } };
        Assert.StartsWith(message, Assert.Throws<MachineException>(() => factory.Make(word, "test")).Message);
        Assert.Empty(factory.All);
    }

    [Theory]
    [InlineData("null", "Parameter 'id' is missing")]
    [InlineData("null id=a colour=red", "Invalid parameter 'colour'")]
    [InlineData("file id=a", "chardev: file: no filename given")]
    [InlineData("socket id=a", "chardev: socket: no port given")]
    [InlineData("socket id=a path=/x server=perhaps", "Parameter 'server' expects 'on' or 'off'")]
    [InlineData("pigeon id=a", "'pigeon' is not a valid char driver name")]
    public void A_wrong_description_is_refused(string words, string message)
    {
        var factory = new CharDeviceFactory(_loop, _ => { }) { Quit = () => { } };
        string[] parts = words.Split(' ');
        List<KeyValuePair<string, string>> values = [new("backend", parts[0]), .. parts[1..].Select(p => new KeyValuePair<string, string>(p.Split('=')[0], p.Split('=')[1]))];
        Assert.Equal(message, Assert.Throws<MachineException>(() => factory.AddNamed(values)).Message);
        Assert.Empty(factory.All);
    }

    [Fact]
    public void A_file_is_made_anew_or_appended_to()
    {
        string path = Path.Combine(_folder, "log");
        foreach (string append in (string[])["on", "on", "off"])
        {
            var factory = new CharDeviceFactory(_loop, _ => { }) { Quit = () => { } };
            factory.AddNamed([new("backend", "file"), new("id", "f"), new("path", path), new("append", append)]);
            lock (_lock)
                factory.Start();
            factory.Named("f").Write(Encoding.ASCII.GetBytes(append));
            factory.Dispose();
            Assert.EndsWith(append, File.ReadAllText(path));
        }
        Assert.Equal("off", File.ReadAllText(path));
    }

    private sealed class SlowDevice : CharDevice
    {
        private readonly StringBuilder _sent = new();

        internal bool IsSlow { get; set; }

        internal string Sent => _sent.ToString();

        public override string Description => "slow";

        public override bool IsCongested => IsSlow;

        public override void Write(ReadOnlySpan<byte> data) => _sent.Append(Encoding.ASCII.GetString(data));

        internal void Take()
        {
            IsSlow = false;
            OutputDrained?.Invoke();
        }
    }
}
