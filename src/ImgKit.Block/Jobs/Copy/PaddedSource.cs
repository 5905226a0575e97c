namespace ImgKit.Block.Jobs.Copy;

/// <summary>A device whose length is rounded up to whole sectors by zeroes, as images that are made from it must be. Read-only; does
/// not own the device.</summary>
public sealed class PaddedSource : BlockDevice
{
    private const int Sector = 512;

    private readonly BlockDevice _device;

    private PaddedSource(BlockDevice device)
    {
        _device = device;
        Length = checked(device.Length + Sector - 1) / Sector * Sector;
        FileName = device.FileName;
    }

    /// <inheritdoc/>
    public override long Length { get; }

    /// <inheritdoc/>
    public override bool IsReadOnly => true;

    /// <inheritdoc/>
    public override BlockLimits Limits => _device.Limits;

    /// <inheritdoc/>
    public override string DriverName => _device.DriverName;

    /// <inheritdoc/>
    public override BlockDevice? Backing => _device.Backing;

    /// <inheritdoc/>
    public override BlockDevice? Storage => _device.Storage;

    /// <summary>The device itself where its length is whole sectors already.</summary>
    public static BlockDevice Of(BlockDevice device) => device.Length % Sector == 0 ? device : new PaddedSource(device);

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        int n = (int)Math.Min(destination.Length, Math.Max(0, _device.Length - offset));
        _device.Read(offset, destination[..n]);
        destination[n..].Clear();
    }

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "a source cannot be written", FileName);

    /// <inheritdoc/>
    public override void Flush() { }

    /// <inheritdoc/>
    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        long left = _device.Length - offset;
        return left <= 0 ? new(count, ExtentKind.Zero | ExtentKind.Allocated, 0) : _device.GetExtent(offset, Math.Min(count, left));
    }
}
