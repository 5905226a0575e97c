namespace ImgKit.Block.Filters.Blkdebug;

/// <summary>Injects errors into requests, and stops requests, as rules say: for tests of what is above it.</summary>
internal sealed class BlkdebugDevice : FilterDevice, IBlockDebugger
{
    private readonly BlkdebugRules _rules;
    private long _writes;
    private long _flushed;      // writes before the last flush: without newer ones a flush has nothing to do, and nothing to fail at

    public BlkdebugDevice(BlockDevice inner, BlkdebugRules rules, int align)
        : base(inner)
    {
        _rules = rules;
        Limits = align == 0 ? inner.Limits : inner.Limits with { RequestAlignment = Math.Max(align, inner.Limits.RequestAlignment) };
    }

    public override string DriverName => "blkdebug";

    public override BlockLimits Limits { get; }

    public override void DebugEvent(BlockDebugEvent debugEvent) => _rules.Event(debugEvent);

    public override void Read(long offset, Span<byte> destination)
    {
        _rules.Check(BlkdebugRequest.Read, offset, destination.Length, FileName);
        Inner.Read(offset, destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        try
        {
            _rules.Check(BlkdebugRequest.Write, offset, source.Length, FileName);
            Inner.Write(offset, source);
        }
        finally
        {
            Interlocked.Increment(ref _writes);
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        try
        {
            _rules.Check(BlkdebugRequest.WriteZeroes, offset, count, FileName);
            Inner.WriteZeroes(offset, count, options);
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
