using ImgKit.Host;

namespace ImgKit.Block.Filters.Blkdebug;

/// <summary>
/// Writes of parts of blocks on a device that takes whole ones: the blocks at both ends are read, changed and written. Of writes that
/// share a block one waits for the other. Each step is announced, as QEMU's block layer does it (<c>pwritev_rmw_head</c> ...), so that
/// tests can stop it there.
/// </summary>
internal sealed class UnalignedWrites(BlockDevice device, BlkdebugRules rules, int align)
{
    private readonly object _gate = new();
    private readonly List<(long Start, long End)> _busy = [];

    /// <summary>Whether a range consists of whole blocks.</summary>
    public bool IsAligned(long offset, long count) => (offset | count) % align == 0;

    /// <summary>The whole blocks inside a range; the end is in front of the start when there is not even a border of blocks in it.</summary>
    public (long Start, long End) BlocksInside(long offset, long count) =>
        ((offset + align - 1) / align * align, (offset + count) / align * align);

    /// <summary>Takes the blocks of a range when no other unaligned write has one of them.</summary>
    public (long Start, long End) Take(long offset, long count)
    {
        long start = offset / align * align, end = (offset + count + align - 1) / align * align;
        lock (_gate)
        {
            while (_busy.Exists(b => b.Start < end && b.End > start))
                Monitor.Wait(_gate);
            _busy.Add((start, end));
        }
        return (start, end);
    }

    /// <summary>Lets others have them.</summary>
    public void GiveBack(long start, long end)
    {
        lock (_gate)
        {
            _busy.Remove((start, end));
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits until no unaligned write has a block of the range.</summary>
    public void WaitFor(long offset, long count)
    {
        lock (_gate)
        {
            while (_busy.Exists(b => b.Start < offset + count && b.End > offset))
                Monitor.Wait(_gate);
        }
    }

    /// <summary>Brings the blocks at the ends into a buffer for all blocks of a range.</summary>
    /// <param name="buffer">for the bytes from <paramref name="start"/> on.</param>
    /// <param name="start">of the first block.</param>
    /// <param name="offset">of the write.</param>
    /// <param name="count">of the write, in bytes.</param>
    public void ReadEnds(AlignedBuffer buffer, long start, long offset, long count)
    {
        long end = offset + count, last = end / align * align;
        bool head = offset > start, tail = end > last, one = head && tail && last == start;
        if (head)
            rules.Event(BlockDebugEvent.PwritevRmwHead);
        if (one)
            rules.Event(BlockDebugEvent.PwritevRmwTail);
        if (head)
        {
            Read(buffer, start, start);
            rules.Event(BlockDebugEvent.PwritevRmwAfterHead);
        }
        if (!tail)
            return;
        if (!one)
        {
            rules.Event(BlockDebugEvent.PwritevRmwTail);
            Read(buffer, start, last);
        }
        rules.Event(BlockDebugEvent.PwritevRmwAfterTail);
    }

    private void Read(AlignedBuffer buffer, long start, long block)
    {
        var span = buffer.Span.Slice((int)(block - start), align);
        int n = (int)Math.Clamp(device.Length - block, 0, align);
        device.Read(block, span[..n]);
        span[n..].Clear();
    }
}
