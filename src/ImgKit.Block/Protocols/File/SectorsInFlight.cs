namespace ImgKit.Block.Protocols.File;

/// <summary>
/// The sectors that direct writes are changing. One that writes a part of a sector reads and writes the whole of it: nobody else may change
/// the sector meanwhile, or what he wrote would be undone.
/// </summary>
internal sealed class SectorsInFlight
{
    private readonly object _sync = new();
    private readonly List<Range> _ranges = [];
    private int _waiting;

    /// <summary>Waits until the sectors may be changed.</summary>
    /// <param name="start">bytes.</param>
    /// <param name="end">bytes, behind the last.</param>
    /// <param name="alone">no other change of one of them may run beside this one.</param>
    public Range Enter(long start, long end, bool alone)
    {
        var range = new Range(start, end, alone);
        lock (_sync)
        {
            while (IsBarred(range))
            {
                _waiting++;
                Monitor.Wait(_sync);
                _waiting--;
            }
            _ranges.Add(range);
        }
        return range;
    }

    /// <summary>The change is done.</summary>
    public void Leave(Range range)
    {
        lock (_sync)
        {
            _ranges.Remove(range);
            if (_waiting > 0)
                Monitor.PulseAll(_sync);
        }
    }

    private bool IsBarred(Range range)
    {
        foreach (var r in _ranges)
            if ((r.Alone || range.Alone) && r.Start < range.End && range.Start < r.End)
                return true;
        return false;
    }

    /// <summary>A change under way.</summary>
    internal readonly record struct Range(long Start, long End, bool Alone);
}
