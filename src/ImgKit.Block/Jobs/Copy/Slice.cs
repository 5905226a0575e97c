namespace ImgKit.Block.Jobs.Copy;

/// <summary>A part of a device as a device of its own. Read-only; does not own the device.</summary>
public sealed class Slice : BlockDevice
{
    private readonly BlockDevice _device;
    private readonly long _start;

    /// <summary>The bytes from <paramref name="start"/> on.</summary>
    public Slice(BlockDevice device, long start, long length)
    {
        _device = device;
        _start = start;
        Length = length;
        FileName = device.FileName;
    }

    /// <inheritdoc/>
    public override long Length { get; }

    /// <inheritdoc/>
    public override bool IsReadOnly => true;

    /// <inheritdoc/>
    public override string DriverName => _device.DriverName;

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        _device.Read(_start + offset, destination);
    }

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "a part of a disk cannot be written", FileName);

    /// <inheritdoc/>
    public override void Flush() { }

    /// <inheritdoc/>
    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        var (e, _, _) = BlockExtents.GetExtentAbove(_device, _start + offset, count);
        return e with { Kind = e.Kind & ~ExtentKind.OffsetValid };
    }
}
