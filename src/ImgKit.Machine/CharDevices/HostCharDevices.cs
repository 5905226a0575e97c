using System.Net;
using System.Net.Sockets;
using ImgKit.Host;

namespace ImgKit.Machine.CharDevices;

/// <summary>A pair of descriptors: standard input and output, a pseudo-terminal, a file.</summary>
public sealed class DescriptorCharDevice : CharDevice
{
    private readonly EventLoop _loop;
    private readonly int _in, _out;
    private readonly Action? _closed;
    private bool _watching, _ended;

    /// <summary>Makes one.</summary>
    /// <param name="loop">the machine's event loop.</param>
    /// <param name="description">for <c>info chardev</c>.</param>
    /// <param name="input">descriptor to read, or -1.</param>
    /// <param name="output">descriptor to write.</param>
    /// <param name="closed">run once at the end: restores a terminal, closes descriptors.</param>
    public DescriptorCharDevice(EventLoop loop, string description, int input, int output, Action? closed = null)
    {
        _loop = loop;
        Description = description;
        _in = input;
        _out = output;
        _closed = closed;
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override void Start() => Watch();

    private void Watch()
    {
        if (_watching || _ended || _in < 0)
            return;
        try
        {
            _loop.Watch(_in, EpollEvents.In, Ready);
            _watching = true;
        }
        catch (IOException)
        {
            // A plain file cannot be polled: it is read to its end at once.
            _ended = true;
            byte[] data = new byte[4096];
            while (Descriptors.Read(_in, data) is > 0 and var n)
                Receive(data.AsSpan(0, n));
        }
    }

    private void Ready(EpollEvents events)
    {
        Span<byte> data = stackalloc byte[512];
        int n = Descriptors.Read(_in, data);
        if (n > 0)
            Receive(data[..n]);
        else if (n == 0 || (n < 0 && (events & (EpollEvents.HangUp | EpollEvents.Error)) != 0))
        {
            // The end of input: a pseudo-terminal nobody has open comes back later, all else stays at its end.
            Unwatch();
            if (Description.StartsWith("pty", StringComparison.Ordinal))
                _loop.After(500, Watch);
            else
                _ended = true;
            return;
        }
        if (IsFull)
            Unwatch();
    }

    private void Unwatch()
    {
        if (_watching)
            _loop.Unwatch(_in);
        _watching = false;
    }

    /// <inheritdoc/>
    protected override void Drained() => Watch();

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<byte> data) => Descriptors.WriteAll(_out, data);

    /// <inheritdoc/>
    public override void Dispose()
    {
        Unwatch();
        _closed?.Invoke();
        base.Dispose();
    }
}

/// <summary>A stream socket: a listening one that takes a client at a time, or a connection.</summary>
public sealed class SocketCharDevice : CharDevice
{
    private readonly EventLoop _loop;
    private readonly Socket? _listener;
    private readonly bool _telnet;
    private Socket? _peer;
    private bool _watching;
    private byte _telnetState;

    /// <summary>Listens or connects. Throws <see cref="MachineException"/>.</summary>
    public SocketCharDevice(EventLoop loop, string description, EndPoint address, bool listen, bool wait, bool telnet)
    {
        _loop = loop;
        _telnet = telnet;
        Description = description;
        var family = address is UnixDomainSocketEndPoint ? AddressFamily.Unix : address.AddressFamily;
        var socket = new Socket(family, SocketType.Stream, family == AddressFamily.Unix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            if (!listen)
            {
                socket.Connect(address);
                _peer = socket;
                return;
            }
            if (address is UnixDomainSocketEndPoint)
                File.Delete(address.ToString()!);
            else
                socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            socket.Bind(address);
            socket.Listen(1);
            _listener = socket;
            if (wait)
                Take(socket.Accept());
        }
        catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException)
        {
            socket.Dispose();
            throw new MachineException($"{(listen ? "Failed to bind socket to" : "Failed to connect to")} {address}: {HostException.TextOf(e)}", e);
        }
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override bool IsConnected => _peer != null;

    /// <summary>The port it listens at, for port 0.</summary>
    public int Port => (_listener?.LocalEndPoint as IPEndPoint)?.Port ?? 0;

    /// <inheritdoc/>
    public override void Start()
    {
        if (_peer != null)
            Watch();
        else if (_listener != null)
            _loop.Watch((int)_listener.Handle, EpollEvents.In, _ => Accept());
    }

    private void Accept()
    {
        Take(_listener!.Accept());
        _loop.Unwatch((int)_listener.Handle);
        Watch();
        ConnectionChanged?.Invoke(true);
    }

    private void Take(Socket peer)
    {
        _peer = peer;
        _telnetState = 0;
        if (peer.ProtocolType == ProtocolType.Tcp)
            peer.NoDelay = true;
        // Will echo, will suppress go-ahead, do binary.
        if (_telnet)
            Send([255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0]);
    }

    private void Watch()
    {
        if (_watching || _peer == null)
            return;
        _watching = true;
        _loop.Watch((int)_peer.Handle, EpollEvents.In, _ => Ready());
    }

    private void Unwatch()
    {
        if (_watching && _peer != null)
            _loop.Unwatch((int)_peer.Handle);
        _watching = false;
    }

    private void Ready()
    {
        Span<byte> data = stackalloc byte[2048];
        int n;
        try
        {
            n = _peer!.Receive(data);
        }
        catch (SocketException)
        {
            n = 0;
        }
        if (n == 0)
        {
            Disconnect();
            return;
        }
        Receive(_telnet ? data[..Strip(data[..n])] : data[..n]);
        if (IsFull)
            Unwatch();
    }

    // Takes telnet commands out: IAC and two bytes, or IAC IAC for the byte 255.
    private int Strip(Span<byte> data)
    {
        int to = 0;
        foreach (byte b in data)
        {
            if (_telnetState == 0 && b != 255)
                data[to++] = b;
            else if (_telnetState == 0)
                _telnetState = 1;
            else if (_telnetState == 1)
            {
                if (b == 255)
                    data[to++] = b;
                _telnetState = (byte)(b is >= 251 and <= 254 ? 2 : 0);
            }
            else
                _telnetState = 0;
        }
        return to;
    }

    private void Disconnect()
    {
        Unwatch();
        _peer?.Dispose();
        _peer = null;
        ConnectionChanged?.Invoke(false);
        if (_listener != null)
            _loop.Watch((int)_listener.Handle, EpollEvents.In, _ => Accept());
    }

    /// <inheritdoc/>
    protected override void Drained() => Watch();

    private void Send(ReadOnlySpan<byte> data)
    {
        try
        {
            while (data.Length > 0 && _peer != null)
                data = data[_peer.Send(data)..];
        }
        catch (SocketException)
        {
            // The peer went: its end is noticed when it is read.
        }
    }

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<byte> data) => Send(data);

    /// <inheritdoc/>
    public override void Dispose()
    {
        Unwatch();
        _peer?.Dispose();
        if (_listener?.LocalEndPoint is UnixDomainSocketEndPoint path)
        {
            _listener.Dispose();
            File.Delete(path.ToString()!);
        }
        _listener?.Dispose();
        base.Dispose();
    }
}
