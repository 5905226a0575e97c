using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>What an L2 entry (or a subcluster of one) says.</summary>
internal enum ClusterKind : byte
{
    /// <summary>Nothing here: the backing file shows.</summary>
    Unallocated,

    /// <summary>A subcluster of an allocated cluster that the backing file shows through.</summary>
    UnallocatedKept,

    /// <summary>Zeroes, no space.</summary>
    Zero,

    /// <summary>Zeroes, space kept.</summary>
    ZeroKept,

    /// <summary>Data.</summary>
    Normal,

    /// <summary>Compressed data.</summary>
    Compressed,
}

/// <summary>A range of guest bytes with one status.</summary>
/// <param name="Kind">the status.</param>
/// <param name="Host">offset in the file of the first byte, where there is one (not for compressed clusters).</param>
/// <param name="Length">bytes.</param>
/// <param name="Entry">the first L2 entry.</param>
internal readonly record struct ClusterRun(ClusterKind Kind, long Host, long Length, ulong Entry);

internal sealed partial class Qcow2Image
{
    /// <summary>The slice that maps a guest offset, read when it is not in memory; null when there is no L2 table.</summary>
    private L2Slice? SliceFor(long guest)
    {
        long key = guest >> SliceShift;
        return _l2.Find(key) ?? LoadSlice(key);
    }

    /// <param name="key">of the slice.</param>
    /// <param name="stays">it is to be changed: it comes in as dirty, so that nothing drops it before (under the metadata lock).</param>
    private L2Slice? LoadSlice(long key, bool stays = false)
    {
        long l1Index = key / SlicesPerTable;
        lock (_l2.LoadLock(l1Index))
        {
            if (_l2.Find(key) is { } present)
                return present;
            if (l1Index >= _l1.Length)
                return null;
            long table = (long)(_l1[l1Index] & OffsetMask);
            if (table == 0)
                return null;
            if ((table & _clusterMask) != 0)
                throw SignalCorruption(true, table, $"L2 table offset {Hex(table)} unaligned (L1 index: {Hex(l1Index)})");
            int bytes = EntryBytes << _sliceBits;
            long offset = table + key % SlicesPerTable * bytes;
            byte[] data = GC.AllocateUninitializedArray<byte>(bytes);
            _file.DebugEvent(BlockDebugEvent.L2Load);
            ReadHost(_file, offset, data);
            var slice = new L2Slice(key, offset, data) { IsDirty = stays };
            _l2.Insert(slice);
            TableCached();
            return slice;
        }
    }

    /// <summary>The status of a guest range: of its first byte, and how far it stays the same (with host offsets in a row).</summary>
    internal ClusterRun Lookup(long guest, long count)
    {
        var slice = SliceFor(guest);
        if (slice is null)
        {
            long end = ((guest >> L1Shift) + 1) << L1Shift;
            return new ClusterRun(ClusterKind.Unallocated, 0, end > 0 ? Math.Min(count, end - guest) : count, 0);
        }
        long sliceEnd = ((guest >> SliceShift) + 1) << SliceShift;
        if (sliceEnd > 0)
            count = Math.Min(count, sliceEnd - guest);
        return _extended ? LookupExtended(slice, guest, count) : LookupStandard(slice, guest, count);
    }

    private ClusterRun LookupStandard(L2Slice slice, long guest, long count)
    {
        int index = (int)(guest >> _clusterBits) & ((1 << _sliceBits) - 1);
        long inside = guest & _clusterMask;
        ulong entry = slice.Entry(index);
        var kind = KindOf(entry);
        long host = (long)(entry & OffsetMask);
        CheckEntry(slice, index, kind, host, guest);
        long length = _clusterSize - inside;
        if (kind == ClusterKind.Compressed)
            return new ClusterRun(kind, 0, Math.Min(length, count), entry);
        long next = host;
        while (length < count)
        {
            ulong e = slice.Entry(++index);
            if (KindOf(e) != kind)
                break;
            next += _clusterSize;
            if (kind is ClusterKind.Normal or ClusterKind.ZeroKept && (long)(e & OffsetMask) != next)
                break;
            length += _clusterSize;
        }
        return new ClusterRun(kind, host + inside, Math.Min(length, count), entry);
    }

    private ClusterRun LookupExtended(L2Slice slice, long guest, long count)
    {
        int index = (int)(guest >> _clusterBits) & ((1 << _sliceBits) - 1);
        long inside = guest & _clusterMask;
        var (entry, bitmap) = slice.ExtendedEntry(index);
        int sub = (int)(inside >> _subclusterBits);
        var kind = KindOf(entry, bitmap, sub, slice, index);
        long host = (long)(entry & OffsetMask);
        CheckEntry(slice, index, kind, host, guest);
        if (kind == ClusterKind.Compressed)
            return new ClusterRun(kind, 0, Math.Min(_clusterSize - inside, count), entry);
        ulong first = entry;
        long length = ((sub + 1L) << _subclusterBits) - inside;
        long next = host;
        while (length < count)
        {
            if (++sub == SubclustersPerCluster)
            {
                sub = 0;
                (entry, bitmap) = slice.ExtendedEntry(++index);
                next += _clusterSize;
            }
            if (KindOf(entry, bitmap, sub, slice, index) != kind)
                break;
            bool hasHost = kind is ClusterKind.Normal or ClusterKind.ZeroKept or ClusterKind.UnallocatedKept;
            if (sub == 0 && hasHost && (long)(entry & OffsetMask) != next)
                break;
            length += 1L << _subclusterBits;
        }
        return new ClusterRun(kind, host + inside, Math.Min(length, count), first);
    }

    /// <summary>The status that a standard entry says.</summary>
    private ClusterKind KindOf(ulong entry)
    {
        if ((entry & Compressed) != 0)
            return ClusterKind.Compressed;
        bool allocated = HasHost(entry);
        if ((entry & ZeroFlag) != 0)
            return allocated ? ClusterKind.ZeroKept : ClusterKind.Zero;
        return allocated ? ClusterKind.Normal : ClusterKind.Unallocated;
    }

    /// <summary>In an external data file the first cluster is at 0, and only the copied flag tells that it is there.</summary>
    private bool HasHost(ulong entry) => (entry & OffsetMask) != 0 || (_hasDataFile && (entry & Copied) != 0);

    private ClusterKind KindOf(ulong entry, ulong bitmap, int sub, L2Slice slice, int index)
    {
        if ((entry & Compressed) != 0)
            return ClusterKind.Compressed;
        bool data = (bitmap >> sub & 1) != 0, zero = (bitmap >> (sub + 32) & 1) != 0;
        bool host = HasHost(entry);
        if ((data && zero) || (data && !host))
            throw SignalCorruption(true, -1, $"Invalid cluster entry found (L2 offset: {Hex(TableOf(slice))}, L2 index: {Hex(IndexInTable(slice, index))})");
        if (data)
            return ClusterKind.Normal;
        if (zero)
            return host ? ClusterKind.ZeroKept : ClusterKind.Zero;
        return host ? ClusterKind.UnallocatedKept : ClusterKind.Unallocated;
    }

    private void CheckEntry(L2Slice slice, int index, ClusterKind kind, long host, long guest)
    {
        if (kind is ClusterKind.Zero or ClusterKind.ZeroKept && Header.Version < 3)
            throw SignalCorruption(true, -1,
                $"Zero cluster entry found in pre-v3 image (L2 offset: {Hex(TableOf(slice))}, L2 index: {Hex(IndexInTable(slice, index))})");
        if (kind == ClusterKind.Compressed)
        {
            if (_hasDataFile)
                throw SignalCorruption(true, -1, "Compressed cluster entry found in image with external data file "
                    + $"(L2 offset: {Hex(TableOf(slice))}, L2 index: {Hex(IndexInTable(slice, index))})");
            return;
        }
        if (kind is ClusterKind.Unallocated or ClusterKind.Zero)
            return;
        if ((host & _clusterMask) != 0)
            throw SignalCorruption(true, host, (kind == ClusterKind.Normal ? "Cluster allocation" : "Preallocated zero cluster")
                + $" offset {Hex(host)} unaligned (L2 offset: {Hex(TableOf(slice))}, L2 index: {Hex(IndexInTable(slice, index))})");
        if (_hasDataFile && host != (guest & ~_clusterMask))
            throw SignalCorruption(true, host, $"External data file host cluster offset {Hex(host)} does not match guest cluster offset: "
                + $"{Hex(guest & ~_clusterMask)}, L2 index: {Hex(IndexInTable(slice, index))})");
    }

    private long TableOf(L2Slice slice) => slice.FileOffset & ~_clusterMask;

    private long IndexInTable(L2Slice slice, int index) => (slice.FileOffset & _clusterMask) / EntryBytes + index;

    /// <summary>The bytes from <paramref name="guest"/> on that can be overwritten where they are: data, referred to once.</summary>
    private (long Host, long Length) LookupWritable(long guest, long count)
    {
        var slice = SliceFor(guest);
        if (slice is null || (_l1[guest >> L1Shift] & Copied) == 0)
            return (0, 0);
        long sliceEnd = ((guest >> SliceShift) + 1) << SliceShift;
        if (sliceEnd > 0)
            count = Math.Min(count, sliceEnd - guest);
        int index = (int)(guest >> _clusterBits) & ((1 << _sliceBits) - 1);
        long inside = guest & _clusterMask;
        long start = 0, length = 0;
        for (; ; index++)
        {
            var (entry, bitmap) = _extended ? slice.ExtendedEntry(index) : (slice.Entry(index), ulong.MaxValue >> 32);
            bool usable = (entry & Copied) != 0 && (entry & Compressed) == 0 && HasHost(entry) && (_extended || (entry & ZeroFlag) == 0);
            if (!usable)
                break;
            long host = (long)(entry & OffsetMask);
            CheckEntry(slice, index, ClusterKind.Normal, host, guest + length);
            if (length == 0)
                start = host + inside;
            else if (host != start + length)
                break;
            int sub = (int)(inside >> _subclusterBits);
            int run = _extended ? System.Numerics.BitOperations.TrailingZeroCount(~(uint)bitmap >> sub | (sub == 0 ? 0 : 1u << (32 - sub))) : 1;
            long end = Math.Min(((long)sub + run) << _subclusterBits, _clusterSize);
            if (_extended && (bitmap & bitmap >> 32 & uint.MaxValue) != 0)
                throw SignalCorruption(true, -1, $"Invalid cluster entry found (L2 offset: {Hex(TableOf(slice))}, L2 index: {Hex(IndexInTable(slice, index))})");
            if (end <= inside)
                break;
            length += end - inside;
            if (length >= count || end < _clusterSize)
                break;
            inside = 0;
        }
        return (start, Math.Min(length, count));
    }

    /// <summary>Place and size in the file of a compressed cluster.</summary>
    internal (long Offset, int Length) ParseCompressed(ulong entry)
    {
        int x = 62 - (_clusterBits - 8);
        long offset = (long)(entry & ((1UL << x) - 1));
        int sectors = (int)((entry & (Compressed - 1)) >> x) + 1;
        return (offset, (int)(sectors * 512L - (offset & 511)));
    }

    /// <summary>Whether many more clusters have a place than the file has blocks: tables were made ahead of data. Found out once.</summary>
    private bool IsPreallocated()
    {
        int known = Volatile.Read(ref _preallocated);
        if (known == 0)
        {
            lock (_meta)
                known = _preallocated == 0 ? (CountsExceedFile() ? 2 : 1) : _preallocated;
            Volatile.Write(ref _preallocated, known);
        }
        return known == 2;
    }

    private bool CountsExceedFile()
    {
        long bytes = _file.AllocatedHostBytes;
        if (bytes < 0 || _hasDataFile)
            return false;
        long clusters = DivUp(bytes, _clusterSize);
        long threshold = Math.Max(clusters * 10 / 9, clusters + 2);
        return _refcounts.CountUsed(threshold + 1) > threshold;
    }

    private int _preallocated;      // 0 not known, 1 no, 2 yes

    /// <inheritdoc/>
    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckUsable();
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, count);
            return ExtentAt(offset, count);
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    private BlockExtent ExtentAt(long offset, long count)
    {
        var run = Lookup(offset, count);
        long length = run.Length;
        // The status goes on over the borders of tables, and of runs in the file where no offset is told.
        while (length < count && run.Kind is ClusterKind.Unallocated or ClusterKind.UnallocatedKept or ClusterKind.Zero or ClusterKind.Compressed)
        {
            var more = Lookup(offset + length, count - length);
            bool same = more.Kind == run.Kind
                || (run.Kind is ClusterKind.Unallocated or ClusterKind.UnallocatedKept && more.Kind is ClusterKind.Unallocated or ClusterKind.UnallocatedKept);
            if (!same)
                break;
            length += more.Length;
        }
        while (length < count && run.Kind is ClusterKind.Normal or ClusterKind.ZeroKept)
        {
            var more = Lookup(offset + length, count - length);
            if (more.Kind != run.Kind || more.Host != run.Host + length)
                break;
            length += more.Length;
        }
        length = Math.Min(length, count);
        if (run.Kind is ClusterKind.Normal or ClusterKind.ZeroKept && IsPreallocated())
        {
            // Space was reserved, and much of it never written: the file's holes tell.
            var below = _data.GetExtent(run.Host, length);
            length = Math.Min(length, below.Length);
            if (below.IsZero && run.Kind == ClusterKind.Normal)
                return new BlockExtent(length, ExtentKind.Data | ExtentKind.Zero | ExtentKind.Allocated | ExtentKind.OffsetValid, run.Host, _data);
        }
        return run.Kind switch
        {
            ClusterKind.Normal => new BlockExtent(length, ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid, run.Host, _data),
            ClusterKind.Compressed => new BlockExtent(length, ExtentKind.Data | ExtentKind.Allocated | ExtentKind.Compressed, 0),
            ClusterKind.ZeroKept => new BlockExtent(length, ExtentKind.Zero | ExtentKind.Allocated | ExtentKind.OffsetValid, run.Host, _data),
            ClusterKind.Zero => new BlockExtent(length, ExtentKind.Zero | ExtentKind.Allocated, 0),
            _ => new BlockExtent(length, ExtentKind.None, 0),
        };
    }
}
