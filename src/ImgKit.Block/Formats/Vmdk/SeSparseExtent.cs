using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>A space-efficient sparse extent (VMFS 6), read-only.</summary>
internal sealed class SeSparseExtent : VmdkExtent
{
    private const int CachedTables = 64;
    private const ulong TableAllocated = 0x10000000;

    private readonly BlockDevice _file;
    private readonly SeSparseHeaders _headers;
    private readonly int _directoryEntries;
    private readonly Dictionary<int, ulong[]> _tables = [];
    private readonly Queue<int> _order = new();
    private readonly Lock _lock = new();

    public SeSparseExtent(BlockDevice file)
    {
        _file = file;
        _headers = SeSparseHeaders.Read(file);
        if (_headers.Capacity > long.MaxValue / 512 || _headers.GrainDirectorySize > GrainTables.MaxDirectoryEntries * 8 / 512)
            throw new ImageException(ImageErrorKind.Corrupt, "L1 size too big", file.FileName, 136) { Errno = 27 };
        ulong fileSectors = (ulong)file.Length / 512;
        if (_headers.GrainDirectory > fileSectors || _headers.GrainDirectorySize > fileSectors - _headers.GrainDirectory)
            throw new ImageException(ImageErrorKind.Corrupt, $"Could not read l1 table from extent '{file.FileName}'", file.FileName, 128);
        if (_headers.GrainTables > fileSectors || _headers.Grains > fileSectors)
            throw new ImageException(ImageErrorKind.Corrupt, $"tables or grains lie behind the end of '{file.FileName}'", file.FileName, 144);
        _directoryEntries = (int)(_headers.GrainDirectorySize * 512 / 8);
    }

    public override long Length => (long)_headers.Capacity * 512;

    public override BlockDevice File => _file;

    public override int GrainSize => SeSparseHeaders.GrainSectors * 512;

    public override void Read(long offset, Span<byte> destination)
    {
        while (destination.Length > 0)
        {
            var e = GetExtent(offset, destination.Length);
            var part = destination[..(int)e.Length];
            if (e.IsData)
                _file.Read(e.HostOffset, part);
            else if (e.IsZero)
                part.Clear();
            else
                Image.ReadBacking(Start + offset, part);
            destination = destination[part.Length..];
            offset += part.Length;
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) => throw ReadOnly();

    public override void WriteZeroes(long offset, long count, ZeroOptions options) => throw ReadOnly();

    private ImageException ReadOnly() =>
        new(ImageErrorKind.ReadOnly, "No write support for seSparse images available", _file.FileName) { Errno = 95 };

    public override BlockExtent GetExtent(long offset, long count)
    {
        var (kind, place) = Lookup(offset / GrainSize);
        long skip = offset % GrainSize;
        long n = GrainSize - skip;
        while (n < count)
        {
            long grain = (offset + n) / GrainSize;
            var (k, p) = Lookup(grain);
            if (k != kind || ((k & ExtentKind.Data) != 0 && p != place + skip + n))
                break;
            n += GrainSize;
        }
        return new(Math.Min(n, count), kind, place + skip, _file);
    }

    private (ExtentKind Kind, long Place) Lookup(long grain)
    {
        long index = grain / SeSparseHeaders.EntriesPerTable;
        if (index >= _directoryEntries)
            throw Damaged(grain, "it lies behind the end of the grain directory");
        ulong[]? table = GetTable((int)index);
        ulong e = table is null ? 0 : table[grain % SeSparseHeaders.EntriesPerTable];
        switch (e >> 60)
        {
            case 0 when e == 0:
                return (ExtentKind.None, 0);
            case 1:      // unmapped by the guest
            case 2:      // zeroes
                return (ExtentKind.Zero | ExtentKind.Allocated, 0);
            case 3:
                // The number is stored turned: its low 12 bits stand above its high 48.
                ulong number = ((e & 0x0FFF000000000000) >> 48) | ((e & 0x0000FFFFFFFFFFFF) << 12);
                ulong grains = ((ulong)_file.Length / 512 - _headers.Grains) / SeSparseHeaders.GrainSectors;
                if (number >= grains)
                    throw Damaged(grain, $"it points after EOF (entry 0x{e:x16})");
                return (ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid,
                    (long)(_headers.Grains + number * SeSparseHeaders.GrainSectors) * 512);
            default:
                throw Damaged(grain, $"its entry is 0x{e:x16}");
        }
    }

    private ulong[]? GetTable(int index)
    {
        lock (_lock)
        {
            if (_tables.TryGetValue(index, out var table))
                return table;
        }
        Span<byte> b = stackalloc byte[8];
        _file.Read((long)_headers.GrainDirectory * 512 + index * 8L, b);
        ulong entry = BitConverter.ToUInt64(b);
        if (entry == 0)
            return null;
        ulong offset = (_headers.GrainTables + (uint)entry * (ulong)SeSparseHeaders.TableSectors) * 512;
        if (entry >> 32 != TableAllocated || offset + SeSparseHeaders.TableSectors * 512 > (ulong)_file.Length)
            throw Damaged((long)index * SeSparseHeaders.EntriesPerTable, $"its grain directory entry is 0x{entry:x16}");
        var fresh = new ulong[SeSparseHeaders.EntriesPerTable];
        _file.Read((long)offset, MemoryMarshal.AsBytes(fresh.AsSpan()));
        lock (_lock)
        {
            if (_tables.TryAdd(index, fresh))
                _order.Enqueue(index);
            if (_order.Count > CachedTables)
                _tables.Remove(_order.Dequeue());
        }
        return fresh;
    }

    private ImageException Damaged(long grain, string why) =>
        new(ImageErrorKind.Corrupt, $"grain {grain} of '{_file.FileName}' cannot be found: {why}", _file.FileName) { Errno = 5 };

    public override void Check(CheckRepair repair, Action<string> report, CheckResult result)
    {
        for (long at = 0; at < Length;)
        {
            try
            {
                at += GetExtent(at, Length - at).Length;
            }
            catch (ImageException e)
            {
                report($"ERROR: could not get cluster_offset for sector {(Start + at) / 512}: {e.Message}");
                result.Corruptions++;
                at += GrainSize;
            }
        }
    }
}
