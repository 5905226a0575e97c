using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>Why a cluster is given up: decides whether the discard is passed on to the file.</summary>
internal enum FreeReason
{
    /// <summary>The guest discarded, or overwrote, it.</summary>
    Request,

    /// <summary>A snapshot went.</summary>
    Snapshot,

    /// <summary>Anything else.</summary>
    Other,
}

/// <summary>
/// The reference counts of host clusters, and with them the allocator. All under the image's metadata lock.
/// </summary>
/// <remarks>Counts go up in memory at once and reach the file before anything that refers to the clusters. They go down late: a
/// cluster given up is queued, and its count is lowered when the file no longer refers to it and no request uses it.</remarks>
internal sealed partial class RefcountStore
{
    private readonly Qcow2Image _image;
    private readonly BlockDevice _file;
    private readonly int _clusterBits;
    private readonly Dictionary<long, RefcountBlock> _blocks = [];
    private readonly SortedSet<long> _dirtyTableEntries = [];
    private int _order;
    private ulong[] _table = [];
    private long _freeHint;
    private long _byteOffset;       // where compressed data goes on, or 0

    public RefcountStore(Qcow2Image image, BlockDevice file, int clusterBits, int order, int blockLimit)
    {
        _image = image;
        _file = file;
        _clusterBits = clusterBits;
        _order = order;
        BlockLimit = Math.Max(blockLimit, 4);
    }

    /// <summary>Blocks to keep in memory.</summary>
    public int BlockLimit { get; set; }

    /// <summary>log2 of the bits a count has.</summary>
    public int Order => _order;

    /// <summary>Counts a block has.</summary>
    public long EntriesPerBlock => 1L << (_clusterBits + 3 - _order);

    /// <summary>The largest count.</summary>
    public ulong MaxCount => RefcountCodec.Max(_order);

    /// <summary>Where each block lies (and reserved bits, as read).</summary>
    public ulong[] Table => _table;

    /// <summary>Something waits to be written.</summary>
    public bool IsDirty { get; private set; }

    private long ClusterSize => 1L << _clusterBits;

    /// <summary>Takes a table in place of the present one.</summary>
    public void Load(ulong[] table, int order)
    {
        _table = table;
        _order = order;
        _blocks.Clear();
        _dirtyTableEntries.Clear();
        _pending.Clear();
        _durable.Clear();
        IsDirty = false;
        _freeHint = 0;
        _byteOffset = 0;
        PendingClusters = 0;
    }

    /// <summary>The count of a cluster; 0 where no block covers it.</summary>
    public ulong Get(long cluster)
    {
        long index = cluster / EntriesPerBlock;
        return BlockAt(index) is { } b ? RefcountCodec.Get(b.Data, _order, (int)(cluster % EntriesPerBlock)) : 0;
    }

    /// <summary>Raises the count of a range of clusters by one.</summary>
    public void Increment(long cluster, long count)
    {
        EnsureBlocks(cluster, count);
        for (long c = cluster; c < cluster + count; c++)
        {
            ulong n = Get(c);
            if (n >= MaxCount)
                throw new ImageException(ImageErrorKind.Unsupported, "Numerical result out of range", _image.FileName, c << _clusterBits)
                {
                    Errno = 34,
                    Operation = $"reference count of the cluster at {Hex(c << _clusterBits)} would exceed {MaxCount}",
                };
            Set(c, n + 1);
        }
    }

    /// <summary>Lowers the count of a range by one. Only for what nothing on disk refers to; else see <see cref="Free"/>.</summary>
    public void Decrement(long cluster, long count, FreeReason reason)
    {
        long start = -1;
        for (long c = cluster; c <= cluster + count; c++)
        {
            bool zero = false;
            if (c < cluster + count)
            {
                ulong n = Get(c);
                if (n == 0)
                    throw new ImageException(ImageErrorKind.Corrupt, "Invalid argument", _image.FileName, c << _clusterBits)
                    {
                        Errno = 22,
                        Operation = $"the cluster at {Hex(c << _clusterBits)} is free already",
                    };
                Set(c, n - 1);
                zero = n == 1;
            }
            if (zero && start < 0)
                start = c;
            if (zero && _byteOffset >> _clusterBits == c)
                _byteOffset = 0;
            if (!zero && start >= 0)
            {
                _freeHint = Math.Min(_freeHint, start);
                _image.Metadata.Remove(start, c - start);
                _image.ClustersFreed(start << _clusterBits, (c - start) << _clusterBits, reason);
                start = -1;
            }
        }
    }

    /// <summary>Sets a count that a check found to be wrong.</summary>
    public void Repair(long cluster, ulong value)
    {
        EnsureBlocks(cluster, 1);
        Set(cluster, value);
        if (value == 0)
            _freeHint = Math.Min(_freeHint, cluster);
    }

    /// <summary>Allocates exactly <paramref name="count"/> clusters in a row (metadata).</summary>
    /// <returns>offset in bytes.</returns>
    public long Allocate(long count, string what = "data cluster")
    {
        var (offset, _) = AllocateRun(count, true, what);
        return offset;
    }

    /// <summary>Allocates clusters in a row, 1 to <paramref name="count"/> as they are free.</summary>
    public (long Offset, long Count) AllocateRun(long count, bool exact = false, string what = "data cluster")
    {
        _image.BeforeAllocation();
        _file.DebugEvent(BlockDebugEvent.ClusterAlloc);
        for (; ; )
        {
            long first = NextFree(_freeHint);
            long at = first;
            long got = FreeRun(at, count);
            while (exact && got < count)
            {
                at = NextFree(at + got);
                got = FreeRun(at, count);
            }
            CheckReach(at, got);
            if (EnsureBlocks(at, got))
                continue;       // a block may have taken what was found
            if (at == 0)
                throw _image.SignalCorruption(true, 0, $"Preventing invalid allocation of {what} at offset 0");
            for (long c = at; c < at + got; c++)
                Set(c, 1);
            _freeHint = at == first ? at + got : first;
            return (at << _clusterBits, got);
        }
    }

    /// <summary>Allocates the clusters from <paramref name="offset"/> on, as many (0 to <paramref name="count"/>) as are free.</summary>
    public long AllocateAt(long offset, long count)
    {
        long at = offset >> _clusterBits;
        long got;
        do
        {
            got = FreeRun(at, count);
            if (got == 0)
                return 0;
            CheckReach(at, got);
        }
        while (EnsureBlocks(at, got));
        for (long c = at; c < at + got; c++)
            Set(c, 1);
        return got;
    }

    /// <summary>Allocates bytes for compressed data, right behind the last: clusters are shared.</summary>
    /// <returns>offset in bytes.</returns>
    public long AllocateBytes(int size)
    {
        _image.BeforeAllocation();
        _file.DebugEvent(BlockDebugEvent.ClusterAllocBytes);
        long at = _byteOffset;
        if (at != 0)
        {
            long left = ClusterSize - (at & (ClusterSize - 1));
            long more = DivUp(Math.Max(size - left, 0), ClusterSize);
            bool fits = Get(at >> _clusterBits) < MaxCount;
            if (fits && more > 0)
            {
                long next = (at | (ClusterSize - 1)) + 1;
                long got = AllocateAt(next, more);
                fits = got == more;
                if (!fits && got > 0)
                    Decrement(next >> _clusterBits, got, FreeReason.Other);
            }
            if (fits)
                Increment(at >> _clusterBits, 1);
            else
                at = 0;
        }
        if (at == 0)
            at = Allocate(DivUp(size, ClusterSize), "compressed cluster");
        // An entry for compressed data has fewer bits for the place than others have.
        if (at + size > 1L << (62 - (_clusterBits - 8)))
        {
            Decrement(at >> _clusterBits, ((at + size - 1) >> _clusterBits) - (at >> _clusterBits) + 1, FreeReason.Other);
            _byteOffset = 0;
            throw new ImageException(ImageErrorKind.Unsupported, "File too large", _image.FileName, at) { Errno = 27 };
        }
        _byteOffset = ((at + size) & (ClusterSize - 1)) == 0 ? 0 : at + size;
        return at;
    }

    /// <summary>Somebody changed counts of freed clusters elsewhere: look from here on.</summary>
    public void LookFrom(long cluster) => _freeHint = Math.Min(_freeHint, cluster);

    /// <summary>Clusters in use, counted up to <paramref name="limit"/>.</summary>
    public long CountUsed(long limit)
    {
        long n = 0;
        for (long i = 0; i < _table.Length && n < limit; i++)
        {
            if (BlockAt(i) is not { } b)
                continue;
            for (int k = 0; k < EntriesPerBlock; k++)
            {
                int zero = RefcountCodec.IndexOfZero(b.Data, _order, k, (int)EntriesPerBlock);
                n += zero - k;
                k = zero;
            }
        }
        return n;
    }

    private void CheckReach(long cluster, long count)
    {
        if (cluster + count > 1L << (56 - _clusterBits))
            throw new ImageException(ImageErrorKind.Unsupported, "File too large", _image.FileName) { Errno = 27 };
    }

    private long NextFree(long cluster)
    {
        long per = EntriesPerBlock;
        for (; ; )
        {
            long index = cluster / per;
            if (BlockAt(index) is not { } b)
                return cluster;
            int at = RefcountCodec.IndexOfZero(b.Data, _order, (int)(cluster % per), (int)per);
            cluster = index * per + at;
            if (at < per)
                return cluster;
        }
    }

    private long FreeRun(long cluster, long want)
    {
        long per = EntriesPerBlock;
        long n = 0;
        while (n < want)
        {
            long c = cluster + n;
            if (BlockAt(c / per) is not { } b)
            {
                n += Math.Min(want - n, per - c % per);
                continue;
            }
            if (RefcountCodec.Get(b.Data, _order, (int)(c % per)) != 0)
                break;
            n++;
        }
        return n;
    }

    private void Set(long cluster, ulong value)
    {
        long index = cluster / EntriesPerBlock;
        int i = (int)(cluster % EntriesPerBlock);
        var b = BlockAt(index) ?? throw new InvalidOperationException("no refcount block");
        RefcountCodec.Set(b.Data, _order, i, value);
        int bit = i << _order;
        b.Touch(bit >> 3, (bit + (1 << _order) + 7) >> 3);
        IsDirty = true;
    }

    /// <summary>The block of that number, read when it is not in memory; null when there is none.</summary>
    private RefcountBlock? BlockAt(long index)
    {
        if (_blocks.TryGetValue(index, out var b))
        {
            b.Used = true;
            return b;
        }
        if (index >= _table.Length)
            return null;
        long offset = (long)(_table[index] & ~RefcountTableReserved);
        if (offset == 0)
            return null;
        if ((offset & (ClusterSize - 1)) != 0)
            throw _image.SignalCorruption(true, offset, $"Refblock offset {Hex(offset)} unaligned (reftable index: {Hex(index)})");
        if (offset < 0)
            throw new ImageException(ImageErrorKind.Corrupt, "Invalid argument", _image.FileName)
            {
                Errno = 22,
                Operation = $"refcount block {index} is said to lie at {Hex(offset)}",
            };
        byte[] data = GC.AllocateUninitializedArray<byte>((int)ClusterSize);
        _file.Read(offset, data);
        b = new RefcountBlock((int)index, offset, data) { Used = true };
        Keep(b);
        return b;
    }

    private void Keep(RefcountBlock block)
    {
        if (_blocks.Count >= BlockLimit)
            DropUnused();
        _blocks[block.Index] = block;
        _image.TableCached();
    }

    /// <summary>Blocks in memory.</summary>
    public int CachedBlocks => _blocks.Count;

    /// <summary>Drops blocks that have no changes and were not looked at since the last time.</summary>
    public void DropUnused()
    {
        var idle = new List<long>();
        foreach (var (i, b) in _blocks)
        {
            if (b.IsDirty || _dirtyTableEntries.Contains(i))
                continue;
            if (!b.Used)
                idle.Add(i);
            b.Used = false;
        }
        foreach (long i in idle)
            _blocks.Remove(i);
    }

    /// <summary>Makes sure that blocks cover a range. New ones come to lie behind it, so that the range stays in a row.</summary>
    /// <returns>true when one had to be allocated.</returns>
    private bool EnsureBlocks(long cluster, long count)
    {
        bool made = false;
        for (long i = cluster / EntriesPerBlock; i <= (cluster + count - 1) / EntriesPerBlock; i++)
        {
            _file.DebugEvent(BlockDebugEvent.RefBlockAlloc);
            if (BlockAt(i) is not null)
            {
                _file.DebugEvent(BlockDebugEvent.RefBlockLoad);
                continue;
            }
            AllocateBlock(i, cluster + count);
            made = true;
        }
        return made;
    }

    private void AllocateBlock(long index, long from)
    {
        if (index >= _table.Length)
            GrowTable(index);
        while (BlockAt(index) is null)
        {
            long cluster = NextFree(from);
            if (cluster == 0)
                throw _image.SignalCorruption(true, 0, "Preventing invalid allocation of refcount block at offset 0");
            long describes = cluster / EntriesPerBlock;
            if (describes != index && BlockAt(describes) is null)
            {
                AllocateBlock(describes, from); // describes itself
                continue;
            }
            _image.CheckOverlap(cluster << _clusterBits, ClusterSize);
            var block = new RefcountBlock((int)index, cluster << _clusterBits, new byte[ClusterSize]);
            block.Touch(0, block.Data.Length);
            _table[index] = (ulong)block.Offset;
            _dirtyTableEntries.Add(index);
            Keep(block);
            Set(cluster, 1);
            _image.Metadata.Add(cluster, 1);
        }
    }

    /// <summary>Writes what is dirty: blocks first, then, when the blocks are safe, the table's entries for new ones.</summary>
    public void Write()
    {
        if (!IsDirty && _dirtyTableEntries.Count == 0)
            return;
        List<RefcountBlock>? dirty = null;
        foreach (var b in _blocks.Values)
            if (b.IsDirty)
                (dirty ??= []).Add(b);
        dirty?.Sort((a, b) => a.Offset.CompareTo(b.Offset));
        foreach (var b in dirty ?? [])
        {
            // Whole 512-byte pieces: what is written is what a disk can write.
            int from = b.DirtyFrom & -512, to = Math.Min((b.DirtyTo + 511) & -512, b.Data.Length);
            _image.CheckOverlap(b.Offset, ClusterSize, MetadataKind.RefcountBlock);
            _file.DebugEvent(BlockDebugEvent.RefBlockUpdatePart);
            _file.Write(b.Offset + from, b.Data.AsSpan(from, to - from));
            b.Clean();
        }
        IsDirty = false;
        if (_dirtyTableEntries.Count == 0)
            return;
        _file.DebugEvent(BlockDebugEvent.RefBlockAllocWrite);
        _file.Flush();
        _file.DebugEvent(BlockDebugEvent.RefBlockAllocHookup);
        Span<byte> entry = stackalloc byte[8];
        foreach (long i in _dirtyTableEntries)
        {
            BinaryPrimitives.WriteUInt64BigEndian(entry, _table[i]);
            _file.Write((long)_image.Header.RefcountTableOffset + i * 8, entry);
        }
        _dirtyTableEntries.Clear();
    }

    /// <summary>Moves the table to a longer one, behind everything that counts cover now.</summary>
    private void GrowTable(long needed)
    {
        long per = EntriesPerBlock;
        long start = Math.Max(needed, _table.Length) * per;
        long blocks = 1;
        long entries, tableClusters;
        for (; ; )
        {
            entries = Math.Max(Math.Max(needed + 1, _table.Length + _table.Length / 2), start / per + blocks);
            tableClusters = DivUp(entries * 8, ClusterSize);
            entries = tableClusters * ClusterSize / 8;
            long b = DivUp(tableClusters + blocks, per);
            if (b == blocks)
                break;
            blocks = b;
        }
        if (entries * 8 > MaxRefcountTableBytes)
            throw new ImageException(ImageErrorKind.Unsupported, "File too large", _image.FileName)
            {
                Errno = 27,
                Operation = "This operation would make the refcount table grow beyond the maximum size supported by QEMU, aborting",
            };
        CheckReach(start, tableClusters + blocks);
        _file.DebugEvent(BlockDebugEvent.RefTableGrow);
        var table = new ulong[entries];
        _table.CopyTo(table, 0);
        long used = tableClusters + blocks;
        _file.DebugEvent(BlockDebugEvent.RefBlockAllocWriteBlocks);
        for (long i = 0; i < blocks; i++)
        {
            byte[] block = new byte[ClusterSize];
            for (long c = 0; c < Math.Min(per, used - i * per); c++)
                RefcountCodec.Set(block, _order, (int)c, 1);
            long offset = (start + i) << _clusterBits;
            table[start / per + i] = (ulong)offset;
            _file.Write(offset, block);
        }
        Write();        // blocks that the old table does not name yet
        long tableOffset = (start + blocks) << _clusterBits;
        byte[] bytes = new byte[entries * 8];
        for (long i = 0; i < entries; i++)
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan((int)i * 8), table[i]);
        _file.DebugEvent(BlockDebugEvent.RefBlockAllocWriteTable);
        _file.Write(tableOffset, bytes);
        _file.Flush();
        _file.DebugEvent(BlockDebugEvent.RefBlockAllocSwitchTable);
        var header = _image.Header;
        long oldOffset = (long)header.RefcountTableOffset;
        long oldClusters = header.RefcountTableClusters;
        _image.WriteRefcountTablePointer(tableOffset, (uint)tableClusters);
        // From here on this is the table that the file names, whether or not that is on stable storage yet.
        _table = table;
        _image.Metadata.Add(start, used);
        _file.Flush();
        Decrement(oldOffset >> _clusterBits, oldClusters, FreeReason.Other);
    }
}
