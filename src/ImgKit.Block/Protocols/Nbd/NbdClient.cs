using System.Diagnostics;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>How a client reaches its export.</summary>
internal sealed record NbdClientSettings
{
    public required NbdAddress Address { get; init; }

    public string Export { get; init; } = "";

    public NbdTls? Tls { get; init; }

    /// <summary>The name that the server's certificate must have.</summary>
    public string TlsHost { get; init; } = "";

    /// <summary>How long requests wait for a lost connection to come back.</summary>
    public TimeSpan ReconnectDelay { get; init; }

    /// <summary>How long opening keeps trying to connect.</summary>
    public TimeSpan OpenTimeout { get; init; }

    /// <summary>The context that tells where data is.</summary>
    public string AllocationContext { get; init; } = NbdWire.BaseAllocation;
}

/// <summary>
/// The connections to one export: one, or as many as are useful where the server allows it. Lost ones are replaced, and the
/// request is made again: all of NBD's requests may be.
/// </summary>
internal sealed class NbdClient : IDisposable
{
    private const int MaxConnections = 4;

    /// <summary>Requests on every connection there is, from which on another is opened.</summary>
    private const int BusyDepth = 4;

    private readonly NbdClientSettings _settings;
    private readonly Lock _gate = new();
    private readonly List<NbdConnection> _connections = [];
    private readonly bool _multi;

    /// <summary>Connections whose handshake goes on; its own lock. Whoever closes the client ends them.</summary>
    private readonly List<StreamTransport> _handshakes = [];
    private bool _connecting;
    private bool _noMore;
    private volatile bool _closed;

    public NbdClient(NbdClientSettings settings)
    {
        _settings = settings;
        var first = ConnectWithin(settings.OpenTimeout, null);
        Agreement = first.Agreement;
        _multi = (Agreement.Export.Flags & NbdExportFlags.CanMultiConnect) != 0;
        _connections.Add(first);
    }

    /// <summary>What was agreed on at first; later connections must agree on the same.</summary>
    public NbdAgreement Agreement { get; }

    /// <summary>Carries a request out.</summary>
    /// <returns>0 or the server's error number.</returns>
    /// <exception cref="ImageException">there is no connection.</exception>
    public int Execute(scoped in NbdConnection.Request request)
    {
        long lostAt = 0;
        while (true)
        {
            var connection = Choose(lostAt);
            try
            {
                return connection.Execute(request);
            }
            catch (NbdConnectionLostException e)
            {
                Drop(connection);
                if (lostAt == 0)
                    lostAt = Stopwatch.GetTimestamp();
                if (_settings.ReconnectDelay == TimeSpan.Zero)
                    throw Lost(e);
                request.Extents?.Clear();
            }
        }
    }

    /// <summary>The connection with least to do.</summary>
    private NbdConnection Choose(long lostAt)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_closed, this);
            NbdConnection? best = null;
            for (int i = _connections.Count - 1; i >= 0; i--)
            {
                var c = _connections[i];
                if (c.IsBroken)
                    continue;
                if (best is null || c.InFlight < best.InFlight)
                    best = c;
            }
            if (best is null)
            {
                var left = lostAt == 0 ? _settings.ReconnectDelay : _settings.ReconnectDelay - Stopwatch.GetElapsedTime(lostAt);
                best = Connect(left);
            }
            else if (_multi && !_noMore && !_connecting && best.InFlight >= BusyDepth && _connections.Count < MaxConnections)
            {
                _connecting = true;
                new Thread(ConnectAnother, 256 << 10) { IsBackground = true, Name = "nbd connect" }.Start();
            }
            return best;
        }
    }

    private NbdConnection Connect(TimeSpan limit)
    {
        try
        {
            var c = ConnectWithin(limit, Agreement);
            _connections.Add(c);
            return c;
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            throw Lost(e);
        }
    }

    /// <summary>A server that has enough clients may leave one more waiting for its greeting for ever: no request waits with it.</summary>
    private void ConnectAnother()
    {
        NbdConnection? another = null;
        try
        {
            another = Connect(Agreement);
        }
        catch (Exception)
        {
            // The server has enough of us: one connection does, too.
        }
        lock (_gate)
        {
            _connecting = false;
            _noMore |= another is null;
            if (another is not null && !_closed)
            {
                _connections.Add(another);
                return;
            }
        }
        another?.Dispose();
    }

    private void Drop(NbdConnection connection)
    {
        lock (_gate)
        {
            // Its other users find it broken by themselves, and come here, too; with the last one its memory goes.
            _connections.Remove(connection);
            if (connection.InFlight == 0)
                connection.Dispose();
        }
    }

    private NbdConnection ConnectWithin(TimeSpan limit, NbdAgreement? expected)
    {
        long start = Stopwatch.GetTimestamp();
        int pause = 10;
        while (true)
        {
            try
            {
                return Connect(expected);
            }
            catch (Exception e) when (e is ImageException or IOException && !_closed && Stopwatch.GetElapsedTime(start) < limit)
            {
                Thread.Sleep(pause);
                pause = Math.Min(pause * 2, 1000);
            }
        }
    }

    private NbdConnection Connect(NbdAgreement? expected)
    {
        var transport = new StreamTransport(_settings.Address.Connect());
        lock (_handshakes)
        {
            _handshakes.Add(transport);
            if (_closed)
                transport.Shutdown();
        }
        bool done = false;
        try
        {
            var agreement = new NbdHandshake(transport, _settings.Tls, _settings.TlsHost).Open(_settings.Export, _settings.AllocationContext);
            if (expected is not null && (agreement.Export.Size != expected.Export.Size || agreement.Export.Flags != expected.Export.Flags
                || agreement.AllocationContext.HasValue != expected.AllocationContext.HasValue || agreement.Export.MinBlock != expected.Export.MinBlock))
                throw new ImageException(ImageErrorKind.Io, "the NBD server came back with another export") { Errno = 5 };
            done = true;
            return new NbdConnection(transport, agreement);
        }
        catch (EndOfStreamException e)
        {
            throw new ImageException(ImageErrorKind.Io, "Failed to read data: Unexpected end-of-file before all data were read", inner: e) { Errno = 5 };
        }
        finally
        {
            lock (_handshakes)
                _handshakes.Remove(transport);
            if (!done)
                transport.Dispose();
        }
    }

    private static ImageException Lost(Exception e) => new(ImageErrorKind.Io, "Input/output error", inner: e)
    {
        Errno = 5,
        Operation = $"the connection to the NBD server is lost: {e.Message}",
    };

    public void Dispose()
    {
        _closed = true;
        // Who connects may hold the gate for as long as that takes.
        lock (_handshakes)
            foreach (var t in _handshakes)
                t.Shutdown();
        lock (_gate)
        {
            foreach (var c in _connections)
                c.Dispose();
            _connections.Clear();
        }
    }
}
