namespace ImgKit.Block.Formats.Qcow2;

/// <summary>
/// Tables that nobody used for a while leave memory (<c>cache-clean-interval</c>). A timer runs while there is something to drop, and
/// only then; where the interval is not asked for, a few tables are not worth one.
/// </summary>
internal sealed partial class Qcow2Image
{
    private const int NotWorthCleaning = 16;
    private Timer? _cleaner;
    private int _cleanerArmed;

    /// <summary>A table came into memory.</summary>
    internal void TableCached()
    {
        long wait = _options.CleanInterval * 1000L;
        if (_disposed || wait is 0 or >= uint.MaxValue || Volatile.Read(ref _cleanerArmed) != 0 || (!_options.CleanIntervalGiven && _l2.Count <= NotWorthCleaning))
            return;
        if (Interlocked.Exchange(ref _cleanerArmed, 1) != 0)
            return;
        // Two of them can only meet here after the first has run out.
        _cleaner ??= new Timer(static image => ((Qcow2Image)image!).CleanCaches(), this, Timeout.Infinite, Timeout.Infinite);
        _cleaner.Change(wait, Timeout.Infinite);
    }

    /// <summary>Drops what was not used since the last time.</summary>
    private void CleanCaches()
    {
        lock (_meta)
        {
            if (_disposed)
                return;
            _l2.DropUnused();
            _refcounts.DropUnused();
        }
        // What came in meanwhile found the timer in use.
        Interlocked.Exchange(ref _cleanerArmed, 0);
        if (_l2.Count + _refcounts.CachedBlocks > 0)
            TableCached();
    }

    private void StopCleaning()
    {
        // Who holds the lock sees that the image is closed, or has ended before.
        lock (_meta)
            _cleaner?.Dispose();
    }
}
