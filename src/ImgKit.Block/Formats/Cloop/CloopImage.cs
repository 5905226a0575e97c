using System.Buffers;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>A complete compressed loop image: read-only. Blocks are read and decompressed by any number of threads.</summary>
internal sealed class CloopImage : BlockDevice, IImageDetails
{
    private const int ReadAhead = 256 << 10;
    private const int CacheBytes = 2 << 20;

    private readonly BlockDevice _file;
    private readonly CloopIndex _index;
    private readonly UnitCache _cache;
    private readonly int _blockSize;

    public CloopImage(BlockDevice file, CloopHeader header, CloopIndex index)
    {
        _file = file;
        _index = index;
        _blockSize = (int)header.BlockSize;
        _cache = new UnitCache(_blockSize, Math.Max(2, CacheBytes / _blockSize));
        Length = (long)index.Count * _blockSize;
        Limits = new BlockLimits(1, 2 << 20, 0, _blockSize);
    }

    public override string DriverName => "cloop";

    public override long Length { get; }

    public override bool IsReadOnly => true;

    public override BlockLimits Limits { get; }

    public override BlockDevice Storage => _file;

    public int ClusterSize => 0;

    public bool IsDirty => false;

    bool IImageDetails.IsCompressed => false;

    public InfoObject FormatSpecific => new()
    {
        { "layout", _index.Layout },
        { "block-size", (long)_blockSize },
        { "blocks", (long)_index.Count },
    };

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        while (destination.Length > 0)
        {
            var (block, skip) = Math.DivRem(offset, _blockSize);
            int n;
            if (skip == 0 && destination.Length >= _blockSize)
            {
                n = ReadWhole(block, destination);
            }
            else
            {
                n = (int)Math.Min(_blockSize - skip, destination.Length);
                ReadPart(block, (int)skip, destination[..n]);
            }
            destination = destination[n..];
            offset += n;
        }
    }

    /// <summary>Reads as many whole blocks as lie one behind the other, with one read, and decompresses each to its place.</summary>
    private int ReadWhole(long block, Span<byte> destination)
    {
        var first = _index[block];
        if (first.Offset < 0)
        {
            destination[.._blockSize].Clear();
            return _blockSize;
        }
        if (first.Compressor == CloopCompressor.None && first.Length == _blockSize)
        {
            _file.Read(first.Offset, destination[.._blockSize]);
            return _blockSize;
        }
        int count = 1, length = first.Length;
        while (length < ReadAhead && (count + 1) * (long)_blockSize <= destination.Length)
        {
            var next = _index[block + count];
            if (next.Offset != first.Offset + length)
                break;
            length += next.Length;
            count++;
        }
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            var data = buffer.AsSpan(0, length);
            _file.Read(first.Offset, data);
            int at = 0;
            for (int i = 0; i < count; i++)
            {
                var b = _index[block + i];
                Decompress(block + i, b, data.Slice(at, b.Length), destination.Slice(i * _blockSize, _blockSize));
                at += b.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        return count * _blockSize;
    }

    private void ReadPart(long block, int skip, Span<byte> destination)
    {
        var b = _index[block];
        if (b.Offset < 0)
        {
            destination.Clear();
            return;
        }
        if (b.Compressor == CloopCompressor.None && b.Length == _blockSize)
        {
            _file.Read(b.Offset + skip, destination);
            return;
        }
        if (_cache.TryRead(block, skip, destination))
            return;
        byte[] content = _cache.Rent();
        byte[] buffer = ArrayPool<byte>.Shared.Rent(b.Length);
        try
        {
            _file.Read(b.Offset, buffer.AsSpan(0, b.Length));
            Decompress(block, b, buffer.AsSpan(0, b.Length), content.AsSpan(0, _blockSize));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        content.AsSpan(skip, destination.Length).CopyTo(destination);
        _cache.Add(block, content);
    }

    private void Decompress(long block, in CloopBlock b, ReadOnlySpan<byte> data, Span<byte> destination)
    {
        if (!CloopCodec.TryDecompress(b.Compressor, data, destination))
            throw new ImageException(ImageErrorKind.Corrupt,
                $"block {block} ({b.Length} bytes of {CloopCodec.Name(b.Compressor)} at offset {b.Offset} of '{_file.FileName}') is damaged", _file.FileName,
                b.Offset)
            {
                Errno = 5,
            };
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) => throw ReadOnly();

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None) => throw ReadOnly();

    private ImageException ReadOnly() => new(ImageErrorKind.ReadOnly, "Block node is read-only", FileName) { Errno = 30 };

    public override void Flush() { }

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        var (block, skip) = Math.DivRem(offset, _blockSize);
        bool zero = _index[block].Offset < 0;
        long n = _blockSize - skip;
        while (n < count && _index[(offset + n) / _blockSize].Offset < 0 == zero)
            n += _blockSize;
        return new(Math.Min(n, count), ExtentKind.Allocated | (zero ? ExtentKind.Zero : ExtentKind.Data | ExtentKind.Compressed), 0);
    }

    protected override void Dispose(bool disposing) => _file.Dispose();
}
