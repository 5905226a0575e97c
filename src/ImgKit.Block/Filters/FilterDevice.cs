namespace ImgKit.Block.Filters;

/// <summary>A device around a device: passes everything on. Filters override what they are for.</summary>
public abstract class FilterDevice : BlockDevice
{
    /// <param name="inner">the device around which this is; owned.</param>
    protected FilterDevice(BlockDevice inner)
    {
        Inner = inner;
    }

    /// <summary>The image that filters are around.</summary>
    public static BlockDevice ImageBelow(BlockDevice device)
    {
        while (device is FilterDevice f)
            device = f.Inner;
        return device;
    }

    /// <summary>The device around which this is.</summary>
    protected BlockDevice Inner { get; }

    /// <inheritdoc/>
    public override long Length => Inner.Length;

    /// <inheritdoc/>
    public override bool IsReadOnly => Inner.IsReadOnly;

    /// <inheritdoc/>
    public override BlockLimits Limits => Inner.Limits;

    /// <inheritdoc/>
    public override BlockDevice? Backing => Inner.Backing;

    /// <inheritdoc/>
    public override BlockDevice Storage => Inner;

    /// <inheritdoc/>
    public override void DebugEvent(BlockDebugEvent debugEvent) => Inner.DebugEvent(debugEvent);

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination) => Inner.Read(offset, destination);

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source) => Inner.Write(offset, source);

    /// <inheritdoc/>
    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None) => Inner.WriteZeroes(offset, count, options);

    /// <inheritdoc/>
    public override void Discard(long offset, long count) => Inner.Discard(offset, count);

    /// <inheritdoc/>
    public override void Flush() => Inner.Flush();

    /// <inheritdoc/>
    public override BlockExtent GetExtent(long offset, long count)
    {
        var e = Inner.GetExtent(offset, count);
        return (e.Kind & ExtentKind.OffsetValid) != 0 ? e with { HostDevice = e.HostDevice ?? Inner.Storage ?? Inner } : e;
    }

    /// <inheritdoc/>
    public override void Resize(long length, ResizeOptions options = default) => Inner.Resize(length, options);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing) => Inner.Dispose();
}
