using System.Buffers;
using System.Buffers.Binary;
using ImgKit.Host.Compression;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// A sparse extent whose grains are zlib streams: <c>streamOptimized</c>, in both forms. Grains are read and inflated by any number of
/// threads; new ones are appended, each once.
/// </summary>
internal sealed class CompressedExtent : VmdkExtent
{
    /// <summary>Larger grains are refused: a whole one must fit into memory.</summary>
    public const int MaxGrainSize = 64 << 20;

    private const int ReadAhead = 256 << 10;
    private const int CacheBytes = 2 << 20;

    private readonly BlockDevice _file;
    private readonly GrainTables _tables;
    private readonly long _sectors;
    private readonly bool _hasMarkers;
    private readonly bool _zeroedGrains;
    private readonly bool _directoryAtEnd;
    private readonly long _firstDataSector;
    private readonly UnitCache _cache;
    private long _nextSector;
    private bool _appended;

    public CompressedExtent(BlockDevice file, SparseHeader header, GrainTables tables, bool directoryAtEnd)
    {
        _file = file;
        _tables = tables;
        _sectors = (long)header.Capacity;
        GrainSize = (int)header.GrainSize * 512;
        _hasMarkers = (header.Flags & SparseHeader.MarkersFlag) != 0;
        _zeroedGrains = (header.Flags & SparseHeader.ZeroedGrainFlag) != 0;
        _directoryAtEnd = directoryAtEnd;
        _firstDataSector = (long)header.Overhead;
        _cache = new UnitCache(GrainSize, Math.Max(2, CacheBytes / GrainSize));
        _nextSector = -1;
    }

    public override long Length => _sectors * 512;

    public override BlockDevice File => _file;

    public override int GrainSize { get; }

    public override bool IsCompressed => true;

    public override bool IsPristine => (_file.Length + 511) / 512 <= _firstDataSector;

    private object Sync => _tables.SyncRoot;

    private bool IsStored(uint entry) => entry > 1 || (entry == 1 && !_zeroedGrains);

    public override void Read(long offset, Span<byte> destination)
    {
        while (destination.Length > 0)
        {
            var (grain, skip) = Math.DivRem(offset, GrainSize);
            uint entry = _tables[grain];
            int n = (int)Math.Min(GrainSize - skip, destination.Length);
            if (!IsStored(entry))
            {
                if (entry == 0)
                    Image.ReadBacking(Start + offset, destination[..n]);
                else
                    destination[..n].Clear();
            }
            else if (skip == 0 && n == ContentLength(grain))
            {
                n = ReadWhole(grain, entry, destination);
            }
            else
            {
                ReadPart(grain, entry, (int)skip, destination[..n]);
            }
            destination = destination[n..];
            offset += n;
        }
    }

    /// <summary>Bytes of the disk that a grain holds: the last may be short.</summary>
    private int ContentLength(long grain) => (int)Math.Min(GrainSize, Length - grain * GrainSize);

    /// <summary>Reads as many whole grains as lie one behind the other, with one read, and inflates each to its place.</summary>
    private int ReadWhole(long grain, uint entry, Span<byte> destination)
    {
        long at = entry * 512L;
        int count = 1;
        int content = ContentLength(grain);
        long end = EndOf(grain, entry);
        while (end - at < ReadAhead)
        {
            long next = grain + count;
            if (next * GrainSize >= Length || content + ContentLength(next) > destination.Length)
                break;
            uint e = _tables[next];
            if (e * 512L != end || !IsStored(e))
                break;
            end = EndOf(next, e);
            content += ContentLength(next);
            count++;
        }
        int length = (int)(end - at);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            var data = buffer.AsSpan(0, length);
            _file.DebugEvent(BlockDebugEvent.ReadCompressed);
            _file.Read(at, data);
            long from = at;
            int done = 0;
            for (int i = 0; i < count; i++)
            {
                int n = ContentLength(grain + i);
                uint e = i == 0 ? entry : _tables[grain + i];
                Inflate(grain + i, e * 512L, data[(int)(e * 512L - from)..], destination.Slice(done, n));
                done += n;
            }
            return done;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Where a stored grain ends at the latest: where the next grain starts, if that is near, or else as far as one can reach.</summary>
    private long EndOf(long grain, uint entry)
    {
        long at = entry * 512L;
        long end = Math.Min(at + GrainStream.MaxStored(GrainSize), _file.Length);
        if ((grain + 1) * GrainSize < Length)
        {
            long next = _tables[grain + 1] * 512L;
            if (next > at && next < end)
                return next;
        }
        return Math.Max(end, at);
    }

    private void ReadPart(long grain, uint entry, int skip, Span<byte> destination)
    {
        if (_cache.TryRead(grain, skip, destination))
            return;
        byte[] content = _cache.Rent();
        int n = ContentLength(grain);
        long at = entry * 512L;
        int length = (int)(EndOf(grain, entry) - at);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(Math.Max(length, 1));
        try
        {
            _file.DebugEvent(BlockDebugEvent.ReadCompressed);
            _file.Read(at, buffer.AsSpan(0, length));
            Inflate(grain, at, buffer.AsSpan(0, length), content.AsSpan(0, n));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        content.AsSpan(skip, destination.Length).CopyTo(destination);
        _cache.Add(grain, content);
    }

    /// <summary>Inflates one stored grain.</summary>
    /// <param name="grain">its number.</param>
    /// <param name="at">where it lies in the file, for messages.</param>
    /// <param name="stored">its bytes and perhaps some more.</param>
    /// <param name="content">receives the content.</param>
    private void Inflate(long grain, long at, ReadOnlySpan<byte> stored, Span<byte> content)
    {
        if (!TryGetStream(stored, out var stream))
            throw Damaged(grain, at, "its length is impossible");
        if (GrainStream.Inflate(stream, content, GrainSize) is { } fault)
            throw Damaged(grain, at, fault);
    }

    private bool TryGetStream(ReadOnlySpan<byte> stored, out ReadOnlySpan<byte> stream)
    {
        stream = default;
        if (stored.Length < StreamMarker.GrainHeaderSize)
            return false;
        if (_hasMarkers)
        {
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(stored[8..]);
            if (length == 0 || length > stored.Length - StreamMarker.GrainHeaderSize)
                return false;
            stream = stored.Slice(StreamMarker.GrainHeaderSize, (int)length);
            return true;
        }
        // Without markers some writers put the stream's length first, and some nothing at all.
        if ((stored[0] & 0x0F) == 8 && BinaryPrimitives.ReadUInt16BigEndian(stored) % 31 == 0)
        {
            stream = stored;
            return true;
        }
        uint prefix = BinaryPrimitives.ReadUInt32LittleEndian(stored);
        if (prefix == 0 || prefix > stored.Length - 4)
            return false;
        stream = stored.Slice(4, (int)prefix);
        return true;
    }

    private ImageException Damaged(long grain, long at, string why) =>
        new(ImageErrorKind.Corrupt, $"compressed grain {grain} at offset {at} of '{_file.FileName}' is damaged: {why}", _file.FileName, at) { Errno = 22 };

    /// <summary>Room for <see cref="Compress"/>.</summary>
    public int MaxCompressedLength => Deflate.MaxCompressedLength(GrainSize);

    /// <summary>Makes the zlib stream of one grain.</summary>
    public int Compress(ReadOnlySpan<byte> unit, Span<byte> destination, int level)
    {
        // A grain is whole sectors.
        if (unit.Length % 512 != 0)
        {
            byte[] whole = new byte[(unit.Length + 511) & ~511];
            unit.CopyTo(whole);
            unit = whole;
        }
        int n = Deflate.ForLevel(level).Compress(DeflateContainer.Zlib, unit, destination);
        return n > 0 ? n : throw new ArgumentException("too short for a compressed grain", nameof(destination));
    }

    /// <summary>Appends a compressed grain, whole sectors with its marker in front.</summary>
    public void WriteCompressed(long offset, ReadOnlySpan<byte> stream, int unitLength)
    {
        long grain = offset / GrainSize;
        if (offset % GrainSize != 0 || (unitLength != GrainSize && (offset + unitLength <= Length - 512 || offset + unitLength > Length)))
            throw new ImageException(ImageErrorKind.InvalidArgument, "Invalid argument", Image.FileName, offset)
            {
                Errno = 22,
                Operation = "streamOptimized images take whole grains only",
            };
        if (!_hasMarkers || _directoryAtEnd)
            throw new ImageException(ImageErrorKind.Unsupported,
                _directoryAtEnd ? "Cannot add to a stream-optimized image whose directory is at its end" : "Invalid argument", Image.FileName, offset)
            {
                Errno = 22,
            };
        int length = (StreamMarker.GrainHeaderSize + stream.Length + 511) & ~511;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            var b = buffer.AsSpan(0, length);
            StreamMarker.WriteGrainHeader(b, (ulong)(Start + offset) / 512, stream.Length);
            stream.CopyTo(b[StreamMarker.GrainHeaderSize..]);
            b[(StreamMarker.GrainHeaderSize + stream.Length)..].Clear();
            lock (Sync)
            {
                if (IsStored(_tables[grain]))
                    throw new ImageException(ImageErrorKind.Unsupported, "Could not write to allocated cluster for streamOptimized", Image.FileName, offset)
                    {
                        Errno = 5,
                    };
                if (_nextSector < 0)
                    _nextSector = FindEnd();
                if (_nextSector + length / 512 > 1L << 32 || !_tables.HasTable(grain))
                    throw new ImageException(ImageErrorKind.Unsupported, $"'{_file.FileName}' is full", _file.FileName) { Errno = 27 };
                _file.DebugEvent(BlockDebugEvent.WriteCompressed);
                _file.Write(_nextSector * 512, b);
                _tables.Set(grain, (uint)_nextSector);
                _nextSector += length / 512;
                _appended = true;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        _tables.WriteBackIfMuch();
    }

    /// <summary>Behind the last grain: an end-of-stream marker (a sector of zeroes, as no grain ends with) is written over.</summary>
    private long FindEnd()
    {
        long end = (_file.Length + 511) / 512;
        if (end > _firstDataSector)
        {
            Span<byte> last = stackalloc byte[512];
            _file.Read((end - 1) * 512, last);
            if (ZeroBuffer.IsZero(last))
                end--;
        }
        return Math.Max(end, _firstDataSector);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(MaxCompressedLength);
        try
        {
            while (source.Length > 0)
            {
                int n = Math.Min(GrainSize, source.Length);
                int length = offset % GrainSize == 0 ? Compress(source[..n], buffer, Image.CompressionLevel) : 0;
                WriteCompressed(offset, buffer.AsSpan(0, length), n);
                offset += n;
                source = source[n..];
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options)
    {
        if (Image.Backing is not null && options.HasFlag(ZeroOptions.NoFallback))
            throw new NotSupportedException("a compressed vmdk extent cannot zero a range without writing it");
        while (count > 0)
        {
            var (grain, skip) = Math.DivRem(offset, GrainSize);
            int n = (int)Math.Min(GrainSize - skip, count);
            uint entry = _tables[grain];
            if (IsStored(entry) || (entry == 0 && Image.Backing is not null))
                Write(offset, new byte[n]);
            offset += n;
            count -= n;
        }
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        var (grain, skip) = Math.DivRem(offset, GrainSize);
        uint entry = _tables[grain];
        var kind = KindOf(entry);
        long n = GrainSize - skip;
        while (n < count)
        {
            long g = grain + (n + skip) / GrainSize;
            int index = (int)(g / _tables.EntriesPerTable);
            if (entry == 0 && _tables.GetDirectoryEntry(index) == 0)
            {
                n += ((long)_tables.EmptyRun(index) * _tables.EntriesPerTable - g % _tables.EntriesPerTable) * GrainSize;
                continue;
            }
            if (KindOf(_tables[g]) != kind)
                break;
            n += GrainSize;
        }
        return new(Math.Min(n, count), kind, 0, _file);
    }

    private ExtentKind KindOf(uint entry) => IsStored(entry) ? ExtentKind.Data | ExtentKind.Allocated | ExtentKind.Compressed
        : entry == 0 ? ExtentKind.None : ExtentKind.Zero | ExtentKind.Allocated;

    public override void Flush()
    {
        lock (Sync)
        {
            // Readers of streams stop here.
            if (_appended)
                _file.Write(_nextSector * 512, ZeroBuffer.Span(512));
            _appended = false;
        }
        _tables.WriteBack();
    }

    public override void Check(CheckRepair repair, Action<string> report, CheckResult result) =>
        new GrainCheck(_file, _tables, (_sectors * 512 + GrainSize - 1) / GrainSize, GrainSize / 512, _zeroedGrains, _firstDataSector)
        {
            Markers = _hasMarkers,
            FirstSector = Start / 512,
        }.Run(repair, report, result);
}
