namespace ImgKit.Machine;

/// <summary>A piece of disk work. A device keeps and reuses its items.</summary>
public abstract class DiskWork
{
    /// <summary>Does the work, on a worker, without the machine lock. An exception of the block layer is the item's to catch.</summary>
    public abstract void Execute();

    /// <summary>Tells the guest, on the worker, under the machine lock.</summary>
    public abstract void Complete();
}

/// <summary>The threads that move disk data outside the machine lock. Threads start when there is work for them.</summary>
public sealed class DiskWorkers(Lock machineLock, int threads) : IDisposable
{
    private readonly Queue<DiskWork> _queue = new();
    private readonly object _gate = new();
    private int _started, _idle, _busy;
    private bool _stopping, _held;

    /// <summary>Queues an item. From any thread.</summary>
    public void Submit(DiskWork work)
    {
        lock (_gate)
        {
            _queue.Enqueue(work);
            if (_idle < _queue.Count && _started < threads)
            {
                _started++;
                new Thread(Run) { IsBackground = true, Name = "disk" }.Start();
            }
            else
                Monitor.Pulse(_gate);
        }
    }

    /// <summary>Waits until nothing is queued or under way. Not under the machine lock.</summary>
    public void Drain()
    {
        lock (_gate)
            while (_queue.Count > 0 || _busy > 0)
                Monitor.Wait(_gate, 50);
    }

    /// <summary>Runs something while no work is under way, such as taking a disk away that work may be using; what is queued waits until it is
    /// done. Not under the machine lock, and by one thread at a time.</summary>
    public void RunAlone(Action action)
    {
        lock (_gate)
        {
            _held = true;
            while (_busy > 0)
                Monitor.Wait(_gate, 50);
        }
        try
        {
            action();
        }
        finally
        {
            lock (_gate)
            {
                _held = false;
                Monitor.PulseAll(_gate);
            }
        }
    }

    private void Run()
    {
        while (true)
        {
            DiskWork? work;
            lock (_gate)
            {
                _idle++;
                work = null;
                while ((_held || !_queue.TryDequeue(out work)) && !_stopping)
                    Monitor.Wait(_gate);
                _idle--;
                if (work == null)
                    return;
                _busy++;
            }
            work.Execute();
            lock (machineLock)
                work.Complete();
            lock (_gate)
            {
                if (--_busy == 0 && (_held || _queue.Count == 0))
                    Monitor.PulseAll(_gate);
            }
        }
    }

    /// <summary>Finishes what is queued and lets the threads end.</summary>
    public void Dispose()
    {
        Drain();
        lock (_gate)
        {
            _stopping = true;
            Monitor.PulseAll(_gate);
        }
    }
}
