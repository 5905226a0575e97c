using System.Buffers;
using System.Buffers.Binary;
using System.Numerics;
using ImgKit.Block.Jobs.Streams;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// A stream-optimized image from a pipe: each grain says where in the disk it belongs, so that no table is needed. Source: Virtual Disk Format
/// 5.0, "Stream-Optimized Compressed Sparse Extents".
/// </summary>
internal sealed class StreamOptimizedReader : SequentialImage
{
    private const ulong MaxMetadataSectors = 1 << 21;

    private readonly long _capacity;
    private readonly int _grainSectors;
    private readonly long _overhead;

    /// <summary>Grains that the tables in front name; -1: the tables come at the end.</summary>
    private readonly long _expected;
    private long _seen;
    private long _last = -1;
    private bool _footer;

    private StreamOptimizedReader(PipeReader pipe, SparseHeader header, long expected)
        : base(pipe, (int)header.GrainSize * 512, (long)header.Capacity * 512)
    {
        _capacity = (long)header.Capacity;
        _grainSectors = (int)header.GrainSize;
        _overhead = (long)header.Overhead * 512;
        _expected = expected;
    }

    public override string DriverName => "vmdk";

    /// <summary>Opens what comes, when it is such an image and its grains are in the disk's order.</summary>
    public static BlockDevice? TryOpen(PipeReader pipe)
    {
        var head = pipe.Peek(SparseHeader.Size);
        if (head.Length < SparseHeader.Size || !SparseHeader.HasMagic(head))
            return null;
        var h = SparseHeader.Parse(head);
        const uint needed = SparseHeader.CompressedFlag | SparseHeader.MarkersFlag;
        if (h.Version is < 1 or > 3 || !h.IsCompressed || (h.Flags & needed) != needed || h.Capacity is 0 or > (1UL << 40)
            || h.GrainSize is < 8 or > CompressedExtent.MaxGrainSize / 512 || !BitOperations.IsPow2(h.GrainSize)
            || h.Overhead is 0 or > PipeReader.MaxPeek / 512 || h.EntriesPerTable is 0 or > 512
            || h.DescriptorOffset == 0 || h.DescriptorOffset >= h.Overhead || h.DescriptorSize > h.Overhead - h.DescriptorOffset)
            return null;
        var start = pipe.Peek((int)h.Overhead * 512);
        if (start.Length < (int)h.Overhead * 512)
            return null;
        var descriptor = VmdkDescriptor.Parse(start.Slice((int)h.DescriptorOffset * 512, (int)Math.Min((long)h.DescriptorSize * 512, VmdkDescriptor.MaxSize)));
        if (descriptor.Get("createType") != "streamOptimized" || (descriptor.Get("parentCID") ?? "ffffffff") != "ffffffff")
            return null;
        long expected = -1;
        if (h.GrainDirectory != SparseHeader.DirectoryAtEnd && !CountGrains(start, h, out expected))
            return null;
        return new StreamOptimizedReader(pipe, h, expected);
    }

    /// <summary>Counts the grains in tables that come first; false when these do not lie there, or the grains in another order.</summary>
    private static bool CountGrains(ReadOnlySpan<byte> start, SparseHeader h, out long count)
    {
        count = 0;
        ulong perTable = h.GrainSize * h.EntriesPerTable;
        ulong tables = (h.Capacity + perTable - 1) / perTable;
        uint last = 0;
        if (h.GrainDirectory >= h.Overhead || tables * 4 > (h.Overhead - h.GrainDirectory) * 512)
            return false;
        for (int t = 0; t < (int)tables; t++)
        {
            uint table = BinaryPrimitives.ReadUInt32LittleEndian(start[((int)h.GrainDirectory * 512 + t * 4)..]);
            if (table == 0)
                continue;
            if (table >= h.Overhead || h.EntriesPerTable * 4 > (h.Overhead - table) * 512)
                return false;
            for (int i = 0; i < h.EntriesPerTable; i++)
            {
                uint grain = BinaryPrimitives.ReadUInt32LittleEndian(start[((int)table * 512 + i * 4)..]);
                if (grain <= 1)
                {
                    if (grain == 1 && (h.Flags & SparseHeader.ZeroedGrainFlag) == 0)
                        return false;
                    continue;
                }
                if (grain <= last)
                    return false;
                last = grain;
                count++;
            }
        }
        return true;
    }

    protected override bool TryTakeNext(out long unit, out byte[] data, out int length)
    {
        if (Pipe.Position < _overhead)
            Pipe.Skip(_overhead - Pipe.Position);
        Span<byte> sector = stackalloc byte[512];
        while (true)
        {
            long at = Pipe.Position;
            int got = Pipe.Take(sector);
            ulong value = got == 512 ? BinaryPrimitives.ReadUInt64LittleEndian(sector) : 0;
            uint size = got == 512 ? BinaryPrimitives.ReadUInt32LittleEndian(sector[8..]) : 0;
            if (size != 0)
            {
                TakeGrain(at, value, size, sector, out unit, out data, out length);
                return true;
            }
            uint type = got == 512 ? BinaryPrimitives.ReadUInt32LittleEndian(sector[12..]) : StreamMarker.EndOfStream;
            if (type == StreamMarker.EndOfStream)
            {
                // Where the tables came first, they say whether all has come; else the footer does.
                if (_expected >= 0 ? _seen < _expected : !_footer || got < 512)
                    throw Damaged(at, _expected >= 0 ? $"it ends after {_seen} of {_expected} grains" : "it ends before its footer");
                (unit, data, length) = (0, [], 0);
                return false;
            }
            if (value > MaxMetadataSectors)
                throw Damaged(at, $"a marker of type {type} announces {value} sectors");
            _footer |= type == StreamMarker.Footer;
            Pipe.Skip((long)value * 512);
        }
    }

    private void TakeGrain(long at, ulong first, uint size, ReadOnlySpan<byte> sector, out long unit, out byte[] data, out int length)
    {
        if (first >= (ulong)_capacity || first % (ulong)_grainSectors != 0)
            throw Damaged(at, $"a grain claims to start at sector {first}");
        if (size > GrainStream.MaxStored(UnitSize))
            throw Damaged(at, $"a grain of {size} bytes is impossible");
        unit = (long)first / _grainSectors;
        if (unit <= _last)
            throw new ImageException(ImageErrorKind.Unsupported,
                $"the grain at offset {at} belongs before the one in front of it: such an image cannot be read from a pipe; save it to a file", "-", at) { Errno = 95 };
        _last = unit;
        _seen++;
        length = (int)size;
        data = ArrayPool<byte>.Shared.Rent(length);
        int here = Math.Min(length, 512 - StreamMarker.GrainHeaderSize);
        sector.Slice(StreamMarker.GrainHeaderSize, here).CopyTo(data);
        Pipe.TakeAll(data.AsSpan(here, length - here));
        int padding = -(StreamMarker.GrainHeaderSize + length) & 511;
        if (here < length)
            Pipe.Skip(padding);
    }

    protected override void Decompress(long unit, ReadOnlySpan<byte> data, Span<byte> content)
    {
        if (GrainStream.Inflate(data, content, UnitSize) is { } fault)
            throw new ImageException(ImageErrorKind.Corrupt, $"compressed grain {unit} of '-' is damaged: {fault}", "-") { Errno = 22 };
    }

    private static ImageException Damaged(long at, string why) =>
        new(ImageErrorKind.Corrupt, $"the stream-optimized image is damaged at offset {at} of '-': {why}", "-", at) { Errno = 22 };
}
