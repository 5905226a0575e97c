using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>
/// An NBD server: exports, the clients that are connected, and what they share. Clients do not see each other: one that stalls
/// or breaks the rules loses its own connection and nothing else.
/// </summary>
public sealed class NbdServer : IDisposable
{
    private readonly Lock _gate = new();
    private readonly List<NbdServerConnection> _connections = [];
    private readonly NbdWatcher _watcher;
    private bool _stopped;

    /// <summary>With these exports.</summary>
    public NbdServer(IReadOnlyList<NbdExport> exports)
    {
        Exports = exports;
        _watcher = new NbdWatcher(this);
    }

    /// <summary>What is offered.</summary>
    public IReadOnlyList<NbdExport> Exports { get; }

    /// <summary>Clients must use TLS with these credentials; null: no TLS.</summary>
    public NbdTls? Tls { get; init; }

    /// <summary>Decides by the name in its certificate whether a client may go on; null: all may.</summary>
    public Func<string?, bool>? Authorize { get; init; }

    /// <summary>The limit for the whole handshake of a client.</summary>
    public TimeSpan HandshakeLimit { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Told why a client was dropped; any thread. Null: nobody wants to know.</summary>
    public Action<string>? Log { get; init; }

    /// <summary>Called when a client has left, with the number of those that remain, and whether it had opened an export.</summary>
    public Action<int, bool>? ClientLeft { get; set; }

    internal NativeBufferPool Buffers { get; } = new();

    internal WorkerPool Workers { get; } = new();

    internal NbdWatcher Watcher => _watcher;

    /// <summary>Clients connected.</summary>
    public int ClientCount
    {
        get
        {
            lock (_gate)
                return _connections.Count;
        }
    }

    /// <summary>Serves a client, on other threads; the socket is the server's from here on.</summary>
    public void Serve(HostSocket socket)
    {
        var connection = new NbdServerConnection(this, socket);
        lock (_gate)
        {
            if (_stopped)
            {
                socket.Dispose();
                return;
            }
            _connections.Add(connection);
        }
        Workers.Start(connection.Run);
    }

    /// <summary>Ends all connections and waits until their requests are done.</summary>
    public void Stop()
    {
        NbdServerConnection[] all;
        lock (_gate)
        {
            _stopped = true;
            all = [.. _connections];
        }
        foreach (var c in all)
            c.Shutdown();
        lock (_connections)
        {
            while (ClientCount > 0)
                Monitor.Wait(_connections, 100);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        _watcher.Dispose();
    }

    internal NbdExport? Find(string name)
    {
        foreach (var e in Exports)
            if (e.Name == name)
                return e;
        return null;
    }

    internal void Left(NbdServerConnection connection)
    {
        int remaining;
        lock (_gate)
        {
            _connections.Remove(connection);
            remaining = _connections.Count;
        }
        lock (_connections)
            Monitor.PulseAll(_connections);
        ClientLeft?.Invoke(remaining, connection.Session.Export is not null);
    }

    /// <summary>Calls something for every connection.</summary>
    internal void ForEachConnection(Action<NbdServerConnection> action)
    {
        lock (_gate)
            foreach (var c in _connections)
                action(c);
    }
}
