using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>
/// An image that is being written: takes its blocks from front to back, each once; what is passed over is zeroes. The image is complete
/// only when it is closed after a <see cref="Flush"/> that followed the last write; until then its header says that it is unfinished,
/// and nobody takes it for an image.
/// </summary>
internal sealed class CloopBuilder : BlockDevice, ICompressingDevice, IImageDetails
{
    private readonly BlockDevice _file;
    private readonly CloopOptions _options;
    private readonly ulong[] _words;
    private readonly byte[] _partial;
    private readonly Lock _lock = new();
    private byte[]? _zeroBlock;
    private int _block;
    private int _filled;
    private long _position;
    private bool _flushed;
    private bool _disposed;

    public CloopBuilder(BlockDevice file, CloopOptions options, int blocks)
    {
        _file = file;
        _options = options;
        _words = new ulong[blocks + 1];
        _partial = new byte[options.BlockSize];
        _position = CloopHeader.Size + 8L * (blocks + 1);
        Limits = new BlockLimits(1, 2 << 20, options.BlockSize, options.BlockSize);
    }

    private int Blocks => _words.Length - 1;

    public override string DriverName => "cloop";

    public override long Length => (long)Blocks * _options.BlockSize;

    public override BlockLimits Limits { get; }

    public override BlockDevice Storage => _file;

    public int ClusterSize => 0;

    public bool IsDirty => true;

    bool IImageDetails.IsCompressed => false;

    public InfoObject? FormatSpecific => null;

    public int CompressionUnit => _options.BlockSize;

    public int MaxCompressedLength => _options.Room;

    public bool CompressedOnly => true;

    public int Compress(ReadOnlySpan<byte> unit, Span<byte> destination) => _options.Pack(unit, destination);

    /// <summary>Makes the file, marked as unfinished.</summary>
    public static void Create(CreateContext context)
    {
        var options = CloopOptions.Take(context.Options, streaming: false);
        long blocks = options.CountBlocks(context.Size);
        using var file = context.CreateStorage();
        byte[] header = new byte[CloopHeader.Size];
        new CloopHeader(CloopHeader.PreambleUnfinished + options, (uint)options.BlockSize, (uint)blocks).WriteTo(header);
        file.Write(0, header);
        file.Flush();
    }

    /// <summary>Opens such a file to fill it, from the start.</summary>
    public static CloopBuilder Open(BlockDevice file, CloopHeader header)
    {
        string text = header.Preamble[CloopHeader.PreambleUnfinished.Length..].TrimEnd('\0');
        var options = CloopOptions.Restore(text, (int)header.BlockSize);
        if (header.Blocks > (512 << 20) / 8 - 1)
            throw CloopHeader.Bad(file.FileName, "image requires too many offsets, try increasing block size", 132);
        return new CloopBuilder(file, options, (int)header.Blocks);
    }

    /// <summary>What has been written cannot be read before the image is complete; the rest is zeroes.</summary>
    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        lock (_lock)
        {
            if (offset < (long)_block * _options.BlockSize + _filled && destination.Length > 0)
                throw new ImageException(ImageErrorKind.Unsupported, "a cloop image can be read only when it is complete", FileName, offset) { Errno = 95 };
        }
        destination.Clear();
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        lock (_lock)
        {
            long end = (long)_block * _options.BlockSize + _filled;
            return offset >= end ? new(count, ExtentKind.Zero | ExtentKind.Allocated, 0)
                : new(Math.Min(count, end - offset), ExtentKind.Data | ExtentKind.Allocated | ExtentKind.Compressed, 0);
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckRange(offset, source.Length);
        lock (_lock)
        {
            if (source.IsEmpty)
                return;
            Advance(offset);
            while (source.Length > 0)
            {
                int n = Math.Min(_options.BlockSize - _filled, source.Length);
                source[..n].CopyTo(_partial.AsSpan(_filled));
                _filled += n;
                source = source[n..];
                if (_filled == _options.BlockSize)
                    StorePartial();
            }
        }
    }

    /// <summary>Zeroes that lie ahead need nothing; those that lie behind are too late.</summary>
    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckRange(offset, count);
        lock (_lock)
        {
            if (count > 0)
                Advance(offset);
        }
    }

    public void WriteCompressed(long offset, ReadOnlySpan<byte> compressed, int unitLength)
    {
        CheckRange(offset, unitLength);
        lock (_lock)
        {
            if (offset % _options.BlockSize != 0 || unitLength > _options.BlockSize)
                throw new ImageException(ImageErrorKind.InvalidArgument, "cloop images take whole blocks only", FileName, offset) { Errno = 22 };
            Advance(offset);
            Append(compressed);
        }
    }

    /// <summary>Fills with zeroes up to <paramref name="offset"/>.</summary>
    private void Advance(long offset)
    {
        _flushed = false;
        long here = (long)_block * _options.BlockSize + _filled;
        if (offset < here)
            throw new ImageException(ImageErrorKind.Unsupported, $"cloop images are written front to back: offset {offset} is behind already", FileName, offset)
            {
                Errno = 95,
            };
        int target = (int)(offset / _options.BlockSize);
        if (_filled > 0 && target > _block)
        {
            _partial.AsSpan(_filled).Clear();
            StorePartial();
        }
        while (_block < target)
            Append(ZeroBlock());
        int skip = (int)(offset % _options.BlockSize);
        _partial.AsSpan(_filled, Math.Max(0, skip - _filled)).Clear();
        _filled = Math.Max(_filled, skip);
    }

    private void StorePartial()
    {
        byte[] packed = ArrayPool<byte>.Shared.Rent(_options.Room);
        int n = _options.Pack(_partial, packed);
        _filled = 0;
        Append(packed.AsSpan(0, n));
        ArrayPool<byte>.Shared.Return(packed);
    }

    private byte[] ZeroBlock()
    {
        if (_zeroBlock is null)
        {
            byte[] packed = new byte[_options.Room];
            int n = _options.Pack(new byte[_options.BlockSize], packed);
            _zeroBlock = packed[..n];
        }
        return _zeroBlock;
    }

    private void Append(ReadOnlySpan<byte> packed)
    {
        _file.Write(_position, packed[1..]);
        _words[_block++] = (ulong)_position | ((ulong)packed[0] << 60);
        _position += packed.Length - 1;
    }

    public override void Flush()
    {
        _file.Flush();
        lock (_lock)
            _flushed = true;
    }

    /// <summary>Rest of the blocks, index, then, when those are on stable storage, the header.</summary>
    private void Finish()
    {
        if (_filled > 0)
        {
            _partial.AsSpan(_filled).Clear();
            StorePartial();
        }
        while (_block < Blocks)
            Append(ZeroBlock());
        _words[Blocks] = (ulong)_position;
        byte[] chunk = new byte[64 << 10];
        for (int i = 0; i < _words.Length;)
        {
            int n = Math.Min(chunk.Length / 8, _words.Length - i);
            var span = MemoryMarshal.Cast<byte, ulong>(chunk.AsSpan(0, n * 8));
            BinaryPrimitives.ReverseEndianness(_words.AsSpan(i, n), span);
            _file.Write(CloopHeader.Size + i * 8L, chunk.AsSpan(0, n * 8));
            i += n;
        }
        _file.Flush();
        byte[] header = new byte[CloopHeader.Size];
        new CloopHeader(_options.IsVersion4 ? CloopHeader.Preamble4 : CloopHeader.Preamble2, (uint)_options.BlockSize, (uint)Blocks).WriteTo(header);
        _file.Write(0, header);
        _file.Flush();
    }

    protected override void Dispose(bool disposing)
    {
        if (_disposed)
            return;
        _disposed = true;
        try
        {
            if (_flushed)
                Finish();
        }
        finally
        {
            _file.Dispose();
        }
    }
}
