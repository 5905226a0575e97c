using ImgKit.Host;

namespace ImgKit.Block.Filters.Blkdebug;

/// <summary>Injects errors into requests, and stops requests, as rules say: for tests of what is above it.</summary>
internal sealed class BlkdebugDevice : FilterDevice, IBlockDebugger
{
    private readonly BlkdebugRules _rules;
    private readonly UnalignedWrites? _unaligned;
    private long _writes;
    private long _flushed;      // writes before the last flush: without newer ones a flush has nothing to do, and nothing to fail at

    public BlkdebugDevice(BlockDevice inner, BlkdebugRules rules, int align)
        : base(inner)
    {
        _rules = rules;
        _unaligned = align > 1 ? new UnalignedWrites(this, rules, align) : null;
        Limits = align == 0 ? inner.Limits : inner.Limits with { RequestAlignment = Math.Max(align, inner.Limits.RequestAlignment) };
    }

    public override string DriverName => "blkdebug";

    /// <summary>Flushes do nothing (cache mode unsafe): there is nothing to fail at.</summary>
    public bool IgnoresFlushes { get; init; }

    public override BlockLimits Limits { get; }

    public override void DebugEvent(BlockDebugEvent debugEvent) => _rules.Event(debugEvent);

    public override void Read(long offset, Span<byte> destination)
    {
        _rules.Check(BlkdebugRequest.Read, offset, destination.Length, FileName);
        Inner.Read(offset, destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        if (_unaligned is null || _unaligned.IsAligned(offset, source.Length))
        {
            _unaligned?.WaitFor(offset, source.Length);
            WriteBlocks(offset, source);
            return;
        }
        var (start, end) = _unaligned.Take(offset, source.Length);
        try
        {
            using var blocks = new AlignedBuffer(checked((int)(end - start)));
            _unaligned.ReadEnds(blocks, start, offset, source.Length);
            source.CopyTo(blocks.Span[(int)(offset - start)..]);
            WriteBlocks(start, blocks.Span[..(int)(Math.Min(end, Math.Max(Length, offset + source.Length)) - start)]);
        }
        finally
        {
            _unaligned.GiveBack(start, end);
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        if (_unaligned is null)
        {
            ZeroBlocks(offset, count, options);
            return;
        }
        var (start, end) = _unaligned.BlocksInside(offset, count);
        if (end < start)
        {
            ZeroBuffer.WriteTo(this, offset, count);
            return;
        }
        ZeroBuffer.WriteTo(this, offset, start - offset);
        if (end > start)
        {
            _unaligned.WaitFor(start, end - start);
            ZeroBlocks(start, end - start, options);
        }
        ZeroBuffer.WriteTo(this, end, offset + count - end);
    }

    private void WriteBlocks(long offset, ReadOnlySpan<byte> source)
    {
        try
        {
            _rules.Event(BlockDebugEvent.Pwritev);
            _rules.Check(BlkdebugRequest.Write, offset, source.Length, FileName);
            Inner.Write(offset, source);
            _rules.Event(BlockDebugEvent.PwritevDone);
        }
        finally
        {
            Interlocked.Increment(ref _writes);
        }
    }

    private void ZeroBlocks(long offset, long count, ZeroOptions options)
    {
        try
        {
            _rules.Event(BlockDebugEvent.PwritevZero);
            _rules.Check(BlkdebugRequest.WriteZeroes, offset, count, FileName);
            Inner.WriteZeroes(offset, count, options);
            _rules.Event(BlockDebugEvent.PwritevDone);
        }
        finally
        {
            Interlocked.Increment(ref _writes);
        }
    }

    public override void Discard(long offset, long count)
    {
        try
        {
            _rules.Check(BlkdebugRequest.Discard, offset, count, FileName);
            Inner.Discard(offset, count);
        }
        finally
        {
            Interlocked.Increment(ref _writes);
        }
    }

    public override void Flush()
    {
        if (IgnoresFlushes)
        {
            Inner.Flush();
            return;
        }
        long writes = Interlocked.Read(ref _writes);
        if (writes == Interlocked.Read(ref _flushed))
            return;
        _rules.Check(BlkdebugRequest.Flush, 0, 0, FileName);
        Inner.Flush();
        Interlocked.Exchange(ref _flushed, writes);
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        _rules.Check(BlkdebugRequest.BlockStatus, offset, count, FileName);
        return base.GetExtent(offset, count);
    }

    public bool AddBreakpoint(string debugEvent, string tag) => _rules.AddBreakpoint(debugEvent, tag);

    public bool RemoveBreakpoint(string tag) => _rules.RemoveBreakpoint(tag);

    public bool Resume(string tag) => _rules.Resume(tag);

    public bool IsSuspended(string tag) => _rules.IsSuspended(tag);

    protected override void Dispose(bool disposing)
    {
        _rules.Close();
        base.Dispose(disposing);
    }
}
