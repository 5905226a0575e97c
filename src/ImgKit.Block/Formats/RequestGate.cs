namespace ImgKit.Block.Formats;

/// <summary>
/// Counts the requests that are inside the image, so that (a) work on the whole image can wait until nobody is, and (b) a
/// cluster that was given up is used again only when every request that may still know its old use has left.
/// </summary>
/// <remarks>Requests enter and leave with one atomic addition each, on a counter that mostly belongs to their thread. Requests
/// are counted by epoch (two at a time); the epoch moves on when the one before has nobody left.</remarks>
internal sealed class RequestGate
{
    private const int Stripes = 16;
    private const int Pad = 16;
    private readonly long[] _counts = new long[(Stripes * 2 + 1) * Pad];
    private readonly Lock _exclusiveLock = new();
    private int _epoch;
    private bool _exclusive;

    /// <summary>The present epoch.</summary>
    public int Epoch => Volatile.Read(ref _epoch);

    /// <summary>Waits while someone holds the whole image, then counts the request.</summary>
    /// <returns>for <see cref="Exit"/>.</returns>
    public int Enter()
    {
        int stripe = Environment.CurrentManagedThreadId & (Stripes - 1);
        for (; ; )
        {
            int parity = Volatile.Read(ref _epoch) & 1;
            int ticket = (stripe * 2 + parity + 1) * Pad;
            Interlocked.Increment(ref _counts[ticket]);
            if (!Volatile.Read(ref _exclusive) && (Volatile.Read(ref _epoch) & 1) == parity)
                return ticket;
            Interlocked.Decrement(ref _counts[ticket]);
            if (Volatile.Read(ref _exclusive))
                lock (_exclusiveLock) { }
        }
    }

    /// <summary>The request is done.</summary>
    public void Exit(int ticket) => Interlocked.Decrement(ref _counts[ticket]);

    /// <summary>Begins the next epoch, unless requests of the one before the present are still inside. One caller at a time.</summary>
    public bool TryAdvance()
    {
        if (CountOf((_epoch + 1) & 1) != 0)
            return false;
        Interlocked.Increment(ref _epoch);
        return true;
    }

    /// <summary>Runs alone: no request is inside, and none enters until the result is disposed.</summary>
    public Holder EnterExclusive()
    {
        _exclusiveLock.Enter();
        Volatile.Write(ref _exclusive, true);
        Interlocked.MemoryBarrier();
        var spin = new SpinWait();
        while (CountOf(0) != 0 || CountOf(1) != 0)
            spin.SpinOnce();
        return new Holder(this);
    }

    private long CountOf(int parity)
    {
        long n = 0;
        for (int s = 0; s < Stripes; s++)
            n += Volatile.Read(ref _counts[(s * 2 + parity + 1) * Pad]);
        return n;
    }

    /// <summary>See <see cref="EnterExclusive"/>.</summary>
    public readonly ref struct Holder(RequestGate gate)
    {
        public void Dispose()
        {
            Volatile.Write(ref gate._exclusive, false);
            gate._exclusiveLock.Exit();
        }
    }
}
