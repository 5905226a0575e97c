using System.Collections.Concurrent;
using ImgKit.Host;

namespace ImgKit.Machine;

/// <summary>
/// The machine's one event loop: timers, sockets, terminals. Its callbacks run on its thread under the machine lock.
/// Members may be called from any thread.
/// </summary>
public sealed class EventLoop : IDisposable
{
    private readonly Lock _machineLock;
    private readonly Epoll _epoll = new();
    private readonly EventFd _wake = new();
    private readonly TimerFd _timer = new();
    private readonly ConcurrentQueue<Action> _posted = new();
    private readonly ConcurrentDictionary<int, Action<EpollEvents>> _watched = new();
    private readonly Lock _timerLock = new();
    private long _timerAt = long.MaxValue;
    private volatile bool _stopping, _disposed;
    private Thread? _thread;

    /// <summary>Makes a loop that does not run yet.</summary>
    public EventLoop(Lock machineLock)
    {
        _machineLock = machineLock;
        _epoll.Add(_wake.Descriptor, EpollEvents.In);
        _epoll.Add(_timer.Descriptor, EpollEvents.In);
    }

    /// <summary>What runs when the time of <see cref="WakeAt"/> has come, under the machine lock.</summary>
    public Action? TimersDue { get; set; }

    /// <summary>Receives an exception that a callback threw; the loop goes on.</summary>
    public Action<Exception>? Failed { get; set; }

    /// <summary>Starts the thread.</summary>
    public void Start()
    {
        _thread = new Thread(Run) { IsBackground = true, Name = "events" };
        _thread.Start();
    }

    /// <summary>Runs an action on the loop's thread under the machine lock.</summary>
    public void Post(Action action)
    {
        _posted.Enqueue(action);
        _wake.Signal();
    }

    /// <summary>Runs an action after some time of the host, on the loop's thread under the machine lock.</summary>
    public void After(int milliseconds, Action action) => _ = Task.Delay(milliseconds).ContinueWith(_ => Post(action), TaskScheduler.Default);

    /// <summary>Calls back when a descriptor is ready, until <see cref="Unwatch"/>.</summary>
    public void Watch(int descriptor, EpollEvents events, Action<EpollEvents> ready)
    {
        if (_disposed)
            return;
        bool known = _watched.ContainsKey(descriptor);
        _watched[descriptor] = ready;
        if (known)
            _epoll.Modify(descriptor, events);
        else
            _epoll.Add(descriptor, events);
    }

    /// <summary>Forgets a descriptor; before it is closed.</summary>
    public void Unwatch(int descriptor)
    {
        if (_watched.TryRemove(descriptor, out _) && !_disposed)
            _epoll.Remove(descriptor);
    }

    /// <summary>Asks for <see cref="TimersDue"/> at a host monotonic time in nanoseconds, or earlier.</summary>
    public void WakeAt(long hostTime)
    {
        lock (_timerLock)
        {
            if (hostTime >= _timerAt)
                return;
            _timerAt = hostTime;
            _timer.SetAbsolute(Math.Max(hostTime, 1));
        }
    }

    /// <summary>Ends the thread; callbacks in progress finish first (unless called from one).</summary>
    public void Stop()
    {
        _stopping = true;
        _wake.Signal();
        if (_thread != null && Thread.CurrentThread != _thread)
            _thread.Join();
    }

    private void Run()
    {
        Span<EpollReady> ready = stackalloc EpollReady[32];
        while (!_stopping)
        {
            int n = _epoll.Wait(ready, -1);
            for (int i = 0; i < n && !_stopping; i++)
            {
                int fd = ready[i].Descriptor;
                if (fd == _wake.Descriptor)
                    _wake.Clear();
                else if (fd == _timer.Descriptor)
                {
                    _timer.Clear();
                    lock (_timerLock)
                        _timerAt = long.MaxValue;
                    if (TimersDue != null)
                        Guarded(TimersDue);
                }
                else
                {
                    var events = ready[i].Events;
                    // Under the lock: whoever held it may just have forgotten the descriptor.
                    Guarded(() =>
                    {
                        if (_watched.TryGetValue(fd, out var callback))
                            callback(events);
                    });
                }
            }
            while (!_stopping && _posted.TryDequeue(out var action))
                Guarded(action);
        }
        // What monitors are told of the end is still to be sent.
        while (_posted.TryDequeue(out var last))
            Guarded(last);
    }

    private void Guarded(Action action)
    {
        try
        {
            lock (_machineLock)
                action();
        }
        catch (Exception e) when (Failed != null)
        {
            Failed(e);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        _disposed = true;
        _epoll.Dispose();
        _wake.Dispose();
        _timer.Dispose();
    }
}
