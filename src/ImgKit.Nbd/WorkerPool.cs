namespace ImgKit.Nbd;

/// <summary>Threads that serve connections. One that has nothing to do waits a while for the next, then ends.</summary>
internal sealed class WorkerPool
{
    private const int IdleMilliseconds = 5000;

    private readonly Stack<Worker> _idle = new();

    /// <summary>Has a thread run something.</summary>
    public void Start(Action work)
    {
        Worker? worker;
        lock (_idle)
        {
            if (_idle.TryPop(out worker))
                worker.Next = work;
        }
        if (worker is null)
        {
            worker = new Worker { Next = work };
            new Thread(() => Run(worker), 512 << 10) { IsBackground = true, Name = "nbd worker" }.Start();
            return;
        }
        lock (worker)
            Monitor.Pulse(worker);
    }

    private void Run(Worker worker)
    {
        while (true)
        {
            var work = worker.Next;
            worker.Next = null;
            work!();
            lock (worker)
            {
                lock (_idle)
                    _idle.Push(worker);
                while (worker.Next is null)
                    if (!Monitor.Wait(worker, IdleMilliseconds) && Leave(worker))
                        return;
            }
        }
    }

    /// <summary>Takes an idle thread off the list; false: it has just been given work.</summary>
    private bool Leave(Worker worker)
    {
        lock (_idle)
        {
            if (worker.Next is not null)
                return false;
            var others = _idle.ToArray();
            _idle.Clear();
            for (int i = others.Length - 1; i >= 0; i--)
                if (!ReferenceEquals(others[i], worker))
                    _idle.Push(others[i]);
            return true;
        }
    }

    private sealed class Worker
    {
        public volatile Action? Next;
    }
}
