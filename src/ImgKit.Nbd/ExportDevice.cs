using ImgKit.Block;

namespace ImgKit.Nbd;

/// <summary>
/// A disk as it is exported: from an offset on, and in whole sectors. A device that ends within a sector reads as zeroes
/// behind its end, and grows when something is written there.
/// </summary>
public sealed class ExportDevice : BlockDevice
{
    private const int Sector = 512;

    private readonly BlockDevice _device;
    private readonly long _start;
    private readonly Lock _growing = new();

    private ExportDevice(BlockDevice device, long start)
    {
        _device = device;
        _start = start;
        long length = device.Length - start;
        Length = checked(length + Sector - 1) / Sector * Sector;
        FileName = device.FileName;
    }

    /// <summary>The device itself where it can be exported as it is.</summary>
    /// <param name="device">owned.</param>
    /// <param name="start">bytes to leave out.</param>
    public static BlockDevice Of(BlockDevice device, long start)
    {
        if (start > device.Length)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                $"Offset ({start}) cannot be greater than size of the containing file ({device.Length})", device.FileName);
        return start == 0 && device.Length % Sector == 0 ? device : new ExportDevice(device, start);
    }

    /// <inheritdoc/>
    public override long Length { get; }

    /// <inheritdoc/>
    public override bool IsReadOnly => _device.IsReadOnly;

    /// <inheritdoc/>
    public override BlockLimits Limits => _device.Limits;

    /// <inheritdoc/>
    public override string DriverName => _device.DriverName;

    /// <inheritdoc/>
    public override BlockDevice? Backing => _start == 0 ? _device.Backing : null;

    /// <inheritdoc/>
    public override BlockDevice Storage => _device;

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        long left = Math.Max(0, _device.Length - _start - offset);
        int n = (int)Math.Min(destination.Length, left);
        if (n > 0)
            _device.Read(_start + offset, destination[..n]);
        destination[n..].Clear();
    }

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckRange(offset, source.Length);
        GrowFor(offset + source.Length);
        _device.Write(_start + offset, source);
    }

    /// <inheritdoc/>
    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckRange(offset, count);
        GrowFor(offset + count);
        _device.WriteZeroes(_start + offset, count, options);
    }

    /// <inheritdoc/>
    public override void Discard(long offset, long count)
    {
        CheckRange(offset, count);
        count = Math.Min(count, _device.Length - _start - offset);
        if (count > 0)
            _device.Discard(_start + offset, count);
    }

    /// <inheritdoc/>
    public override void Flush() => _device.Flush();

    /// <inheritdoc/>
    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        long left = _device.Length - _start - offset;
        if (left <= 0)
            return new(count, ExtentKind.Zero | ExtentKind.Allocated, 0);
        if (_start == 0)
            return Rounded(_device.GetExtent(offset, Math.Min(count, left)), count);
        var (e, _, _) = BlockExtents.GetExtentAbove(_device, _start + offset, Math.Min(count, left));
        return e with { Kind = e.Kind & ~ExtentKind.OffsetValid };
    }

    /// <summary>Where requests are of whole sectors, a last sector that is not full is what its first part is.</summary>
    private BlockExtent Rounded(BlockExtent e, long count)
    {
        int align = _device.Limits.RequestAlignment;
        return align == 1 ? e : e with { Length = Math.Min(count, (e.Length + align - 1) / align * align) };
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing) => _device.Dispose();

    private void GrowFor(long end)
    {
        if (_start + end <= _device.Length)
            return;
        lock (_growing)
        {
            if (_start + end > _device.Length)
                _device.Resize(_start + Length, default);
        }
    }
}
