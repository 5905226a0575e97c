using System.Net;
using System.Net.Sockets;
using ImgKit.Host;

namespace ImgKit.Machine.CharDevices;

/// <summary>How a socket is used.</summary>
/// <param name="Listens">waits for others, one at a time, instead of connecting.</param>
/// <param name="Waits">the first one must come before the machine starts.</param>
/// <param name="Telnet">speaks the Telnet protocol (RFC 854).</param>
/// <param name="ReconnectSeconds">how long after a connection was lost, or not to be had, to try again; 0: never.</param>
/// <param name="Delays">small pieces may be held back to be sent together (Nagle's algorithm).</param>
public sealed record SocketUse(bool Listens, bool Waits = false, bool Telnet = false, int ReconnectSeconds = 0, bool Delays = false);

/// <summary>A stream socket: a listening one that takes a client at a time, or a connection.</summary>
public sealed class SocketCharDevice : HostCharDevice
{
    private readonly EventLoop _loop;
    private readonly EndPoint _address;
    private readonly SocketUse _use;
    private readonly Socket? _listener;
    private Socket? _peer;
    private EpollEvents _watched;
    private bool _reads, _started, _disposed;
    private byte _telnetState;

    /// <summary>Listens or connects. Throws <see cref="MachineException"/>.</summary>
    public SocketCharDevice(EventLoop loop, string description, EndPoint address, SocketUse use)
    {
        _loop = loop;
        _address = address;
        _use = use;
        Description = description;
        if (use is { Listens: false, ReconnectSeconds: > 0 })
            return;
        var socket = New();
        try
        {
            if (!use.Listens)
            {
                socket.Connect(address);
                Take(socket);
                return;
            }
            if (address is UnixDomainSocketEndPoint)
                File.Delete(address.ToString()!);
            else
                socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            socket.Bind(address);
            socket.Listen(1);
            _listener = socket;
            if (use.Waits)
                Take(socket.Accept());
        }
        catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException)
        {
            socket.Dispose();
            // The runtime has no word of its own for a path that is not there.
            bool isMissing = !use.Listens && address is UnixDomainSocketEndPoint && !File.Exists(address.ToString());
            throw new MachineException(use.Listens ? $"Failed to bind socket to {address}: {HostException.TextOf(e)}"
                : $"Failed to connect to '{address}': {(isMissing ? "No such file or directory" : HostException.TextOf(e))}", e);
        }
    }

    private Socket New() => _address is UnixDomainSocketEndPoint ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        : new Socket(_address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override bool IsConnected => _peer != null;

    /// <summary>The port it listens at, for port 0.</summary>
    public int Port => (_listener?.LocalEndPoint as IPEndPoint)?.Port ?? 0;

    /// <inheritdoc/>
    public override void Start()
    {
        _started = true;
        if (_peer != null)
            Read();
        else if (_listener != null)
            _loop.Watch((int)_listener.Handle, EpollEvents.In, _ => Accept());
        else
            Connect();
    }

    // Connecting may take long: it happens on a thread of its own.
    private void Connect() => Task.Run(() =>
    {
        var socket = New();
        try
        {
            socket.Connect(_address);
        }
        catch (SocketException)
        {
            socket.Dispose();
            _loop.After(_use.ReconnectSeconds * 1000, ConnectAgain);
            return;
        }
        _loop.Post(() => Adopt(socket));
    });

    private void ConnectAgain()
    {
        if (!_disposed)
            Connect();
    }

    private void Accept()
    {
        Socket peer;
        try
        {
            peer = _listener!.Accept();
        }
        catch (SocketException)
        {
            // It went before it was taken.
            return;
        }
        _loop.Unwatch((int)_listener.Handle);
        Adopt(peer);
    }

    private void Adopt(Socket peer)
    {
        if (_disposed)
        {
            peer.Dispose();
            return;
        }
        Take(peer);
        Read();
        ConnectionChanged?.Invoke(true);
    }

    private void Take(Socket peer)
    {
        _peer = peer;
        _telnetState = 0;
        peer.Blocking = false;
        if (peer.ProtocolType == ProtocolType.Tcp)
            peer.NoDelay = !_use.Delays;
        // Will echo, will suppress go-ahead, do binary.
        if (_use.Telnet)
            Write([255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0]);
    }

    private void Read()
    {
        _reads = true;
        Rewatch();
    }

    private void Rewatch()
    {
        if (_peer == null || !_started)
            return;
        var events = (_reads ? EpollEvents.In : EpollEvents.None) | (IsCongested ? EpollEvents.Out : EpollEvents.None);
        if (events == _watched)
            return;
        if (events == EpollEvents.None)
            _loop.Unwatch((int)_peer.Handle);
        else
            _loop.Watch((int)_peer.Handle, events, Happened);
        _watched = events;
    }

    /// <inheritdoc/>
    protected override void WatchOutput() => Rewatch();

    private void Happened(EpollEvents events)
    {
        const EpollEvents Over = EpollEvents.HangUp | EpollEvents.Error;
        if (IsCongested && (events & (EpollEvents.Out | Over)) != 0)
            SendWaiting();
        if (_peer != null && (events & (EpollEvents.In | Over)) != 0)
            Receive();
    }

    private void Receive()
    {
        Span<byte> data = stackalloc byte[2048];
        int n = _peer!.Receive(data, SocketFlags.None, out var error);
        if (error is SocketError.WouldBlock or SocketError.Interrupted)
            return;
        if (n == 0 || error != SocketError.Success)
        {
            Disconnect();
            return;
        }
        Receive(_use.Telnet ? data[..Strip(data[..n])] : data[..n]);
        if (IsFull)
        {
            _reads = false;
            Rewatch();
        }
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
        _reads = false;
        Forget();
        Rewatch();
        _peer?.Dispose();
        _peer = null;
        ConnectionChanged?.Invoke(false);
        if (_listener != null)
            _loop.Watch((int)_listener.Handle, EpollEvents.In, _ => Accept());
        else if (_use.ReconnectSeconds > 0)
            _loop.After(_use.ReconnectSeconds * 1000, ConnectAgain);
    }

    /// <inheritdoc/>
    protected override void Drained()
    {
        if (_peer != null && _started)
            Read();
    }

    /// <inheritdoc/>
    protected override int Send(ReadOnlySpan<byte> data)
    {
        // Without a peer, or after it went (which is noticed when it is read), there is nobody to keep anything for.
        if (_peer == null)
            return -1;
        int sent = _peer.Send(data, SocketFlags.None, out var error);
        return error switch
        {
            SocketError.Success => sent,
            SocketError.WouldBlock or SocketError.Interrupted => 0,
            _ => -1,
        };
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_disposed)
            return;
        SayFarewell();
        _disposed = true;
        _reads = false;
        Forget();
        _peer?.Dispose();
        _peer = null;
        if (_listener?.LocalEndPoint is UnixDomainSocketEndPoint path)
        {
            _listener.Dispose();
            File.Delete(path.ToString()!);
        }
        _listener?.Dispose();
        base.Dispose();
    }
}
