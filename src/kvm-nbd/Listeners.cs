using ImgKit.Host;
using ImgKit.Nbd;

namespace ImgKit.Programs.Nbd;

/// <summary>Accepts clients, no more at a time than allowed: further ones wait in the socket's queue.</summary>
internal sealed class Listeners : IDisposable
{
    private const int Backlog = 128;

    private readonly List<HostSocket> _sockets = [];
    private readonly int _limit;
    private readonly object _monitor = new();
    private string? _path;
    private bool _stopped;
    private int _clients;

    /// <param name="limit">clients at a time; 0: any number.</param>
    public Listeners(int limit)
    {
        _limit = limit;
    }

    /// <summary>Listens as the options say.</summary>
    public void Listen(ServerOptions options, IReadOnlyList<int> activated)
    {
        foreach (int fd in activated)
            _sockets.Add(HostSocket.FromDescriptor(fd));
        if (activated.Count > 0)
            return;
        if (options.Socket is { } path)
        {
            ListenUnix(path);
            return;
        }
        string bind = options.Bind ?? "0.0.0.0", port = options.Port ?? "10809";
        try
        {
            _sockets.Add(HostSocket.ListenTcp(bind, port, Backlog));
        }
        catch (HostException e)
        {
            throw new ProgramException(e.Errno == 98 ? $"Failed to find an available port: {e.Message}" : $"Failed to bind to {bind}:{port}: {e.Message}");
        }
    }

    private void ListenUnix(string path)
    {
        try
        {
            File.Delete(path);
            _sockets.Add(HostSocket.ListenUnix(path, Backlog));
            _path = path;
        }
        catch (Exception e) when (e is HostException or UnauthorizedAccessException)
        {
            throw new ProgramException($"Failed to bind socket to {path}: {e.Message}");
        }
    }

    /// <summary>Accepts clients, whom a server serves, until <see cref="Stop"/>.</summary>
    public void Run(NbdServer server)
    {
        for (int i = 1; i < _sockets.Count; i++)
        {
            var socket = _sockets[i];
            new Thread(() => Accept(server, socket), 256 << 10) { IsBackground = true }.Start();
        }
        Accept(server, _sockets[0]);
        lock (_monitor)
        {
            while (!_stopped)
                Monitor.Wait(_monitor);
        }
    }

    private void Accept(NbdServer server, HostSocket listener)
    {
        while (true)
        {
            lock (_monitor)
            {
                while (_limit > 0 && _clients >= _limit && !_stopped)
                    Monitor.Wait(_monitor);
                if (_stopped)
                    return;
            }
            HostSocket? client;
            try
            {
                client = listener.Accept();
            }
            catch (HostException)
            {
                // Out of descriptors or memory: those who are connected go on, and when one leaves there is room again.
                Thread.Sleep(100);
                continue;
            }
            if (client is null)
            {
                if (_stopped)
                    return;
                continue;
            }
            lock (_monitor)
                _clients++;
            server.Serve(client);
        }
    }

    /// <summary>A client has left.</summary>
    public void ClientLeft()
    {
        lock (_monitor)
        {
            _clients--;
            Monitor.PulseAll(_monitor);
        }
    }

    /// <summary>Accepts no more.</summary>
    public void Stop()
    {
        lock (_monitor)
        {
            _stopped = true;
            Monitor.PulseAll(_monitor);
        }
        foreach (var s in _sockets)
            s.Shutdown();
    }

    public void Dispose()
    {
        foreach (var s in _sockets)
            s.Dispose();
        try
        {
            if (_path is not null)
                File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The folder is gone, and the socket with it.
            _path = null;
        }
    }
}
