namespace ImgKit.Nbd;

/// <summary>
/// A thread that carries out a fast request itself does not hand its connection to another first: waking one costs more than
/// the request. This thread looks after connections whose request turns out not to be fast, and has another thread receive the
/// next one meanwhile. It sleeps while nothing happens.
/// </summary>
internal sealed class NbdWatcher : IDisposable
{
    private const int Tick = 1;
    private const int QuietTicks = 200;

    private readonly NbdServer _server;
    private readonly object _monitor = new();
    private volatile bool _asleep;
    private bool _started;
    private bool _stopped;
    private bool _busy;

    public NbdWatcher(NbdServer server)
    {
        _server = server;
    }

    /// <summary>A request is being carried out by the thread that received it.</summary>
    public void Notice()
    {
        if (Volatile.Read(ref _started) && !_asleep)
            return;
        lock (_monitor)
        {
            if (!_started && !_stopped)
            {
                _started = true;
                new Thread(Run, 128 << 10) { IsBackground = true, Name = "nbd watcher" }.Start();
            }
            _asleep = false;
            Monitor.Pulse(_monitor);
        }
    }

    private void Run()
    {
        int quiet = 0;
        while (true)
        {
            Thread.Sleep(Tick);
            _busy = false;
            _server.ForEachConnection(c => _busy |= c.Watch());
            quiet = _busy ? 0 : quiet + 1;
            if (quiet < QuietTicks && !_stopped)
                continue;
            lock (_monitor)
            {
                _asleep = true;
                // One more look: a request that began just before was told that somebody watches.
                Interlocked.MemoryBarrier();
                _busy = false;
                _server.ForEachConnection(c => _busy |= c.Watch());
                if (_busy)
                    _asleep = false;
                while (_asleep && !_stopped)
                    Monitor.Wait(_monitor);
                if (_stopped)
                    return;
            }
            quiet = 0;
        }
    }

    public void Dispose()
    {
        lock (_monitor)
        {
            _stopped = true;
            Monitor.Pulse(_monitor);
        }
    }
}
