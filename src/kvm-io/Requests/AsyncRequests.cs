using System.Diagnostics;

namespace ImgKit.Programs.Io;

/// <summary>Requests that run beside the commands, each on a thread of its own; what they have to say is printed by the
/// command thread, in the order in which they end.</summary>
internal sealed class AsyncRequests
{
    private readonly Queue<Action> _done = new();
    private int _running;

    /// <summary>Starts a request.</summary>
    /// <param name="request">what to do; any thread.</param>
    /// <param name="print">prints the result (an error, or null) and the time it took; the command thread.</param>
    public void Start(Action request, Action<Exception?, TimeSpan> print)
    {
        lock (_done)
            _running++;
        new Thread(() => Run(request, print), 256 << 10) { IsBackground = true }.Start();
    }

    private void Run(Action request, Action<Exception?, TimeSpan> print)
    {
        long start = Stopwatch.GetTimestamp();
        Exception? error = null;
        try
        {
            request();
        }
        catch (Exception e) when (IoError.IsRequestError(e))
        {
            error = e;
        }
        var time = Stopwatch.GetElapsedTime(start);
        lock (_done)
        {
            _running--;
            _done.Enqueue(() => print(error, time));
            Monitor.PulseAll(_done);
        }
    }

    /// <summary>Prints what has ended so far.</summary>
    public void PrintDone()
    {
        while (TakeDone() is { } print)
            print();
    }

    /// <summary>Waits until nothing is in flight, printing on the way.</summary>
    public void WaitForAll()
    {
        while (true)
        {
            PrintDone();
            lock (_done)
            {
                if (_done.Count > 0)
                    continue;
                if (_running == 0)
                    return;
                Monitor.Wait(_done);
            }
        }
    }

    /// <summary>Lets time go by, printing what ends meanwhile.</summary>
    /// <param name="milliseconds">how long.</param>
    /// <param name="until">ends the wait earlier; asked about every 2 ms when given.</param>
    public void Wait(long milliseconds, Func<bool>? until = null)
    {
        long start = Stopwatch.GetTimestamp();
        while (until is null || !until())
        {
            PrintDone();
            long left = milliseconds - (long)Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            if (left <= 0)
                break;
            lock (_done)
            {
                if (_done.Count == 0)
                    Monitor.Wait(_done, (int)Math.Min(left, until is null ? 60_000 : 2));
            }
        }
        PrintDone();
    }

    private Action? TakeDone()
    {
        lock (_done)
            return _done.TryDequeue(out var print) ? print : null;
    }
}
