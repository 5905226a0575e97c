using System.Buffers.Binary;

namespace ImgKit.Block.Formats.Bochs;

/// <summary>An open image: see <see cref="BochsFormat"/>. Nothing in it changes, so any number of threads may read.</summary>
internal sealed class BochsImage : BlockDevice
{
    private const uint NotAllocated = 0xFFFFFFFF;
    private const int Sector = 512;

    private readonly BlockDevice _file;
    private readonly byte[] _catalogue;
    private readonly long _dataStart;
    private readonly int _extentSize;
    private readonly long _bitmapSize;

    public BochsImage(BlockDevice file, byte[] catalogue, long dataStart, long length, int extentSize, long bitmapSize)
    {
        _file = file;
        _catalogue = catalogue;
        _dataStart = dataStart;
        Length = length;
        _extentSize = extentSize;
        _bitmapSize = bitmapSize;
    }

    public override long Length { get; }

    public override bool IsReadOnly => true;

    public override string DriverName => "bochs";

    public override BlockDevice Storage => _file;

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        while (destination.Length > 0)
        {
            var e = GetExtent(offset, destination.Length);
            var part = destination[..(int)e.Length];
            if (e.IsData)
                _file.Read(e.HostOffset, part);
            else
                part.Clear();
            destination = destination[part.Length..];
            offset += part.Length;
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "Image is read-only", FileName) { Errno = 30 };

    public override void Flush() { }

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        const ExtentKind data = ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid;
        int inExtent = (int)(offset % _extentSize);
        count = Math.Min(count, _extentSize - inExtent);
        uint entry = BinaryPrimitives.ReadUInt32LittleEndian(_catalogue.AsSpan((int)(offset / _extentSize) * 4));
        if (entry == NotAllocated)
            return new(count, ExtentKind.Zero, 0);
        long extent = _dataStart + entry * (_bitmapSize + _extentSize);
        int first = inExtent / Sector, last = (int)((inExtent + count - 1) / Sector);
        Span<byte> bits = stackalloc byte[512];
        // At most so many sectors at a time; more would only be more of the same.
        last = Math.Min(last, first / 8 * 8 + bits.Length * 8 - 1);
        bits = bits[..(last / 8 - first / 8 + 1)];
        if (extent + _bitmapSize + _extentSize > _file.Length + _extentSize || extent + first / 8 + bits.Length > _file.Length)
            throw new ImageException(ImageErrorKind.Corrupt, $"extent {entry} lies behind the end of the file", FileName, extent) { Errno = 5 };
        _file.Read(extent + first / 8, bits);
        bool stored = IsSet(bits, first, first);
        int end = first + 1;
        while (end <= last && IsSet(bits, first, end) == stored)
            end++;
        long length = Math.Min(count, (long)end * Sector - inExtent);
        return stored ? new(length, data, extent + _bitmapSize + inExtent) : new(length, ExtentKind.Zero, 0);
    }

    protected override void Dispose(bool disposing) => _file.Dispose();

    private static bool IsSet(ReadOnlySpan<byte> bits, int first, int sector) => (bits[sector / 8 - first / 8] >> (sector % 8) & 1) != 0;
}
