using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>A piece of an L2 table in memory, as it is on disk (big-endian). Entries are read by any number of threads
/// and changed by one at a time (under the metadata lock).</summary>
internal sealed class L2Slice(long key, long fileOffset, byte[] data)
{
    private int _version;

    /// <summary>Number of the slice, counted over the whole L1 table.</summary>
    public long Key { get; } = key;

    /// <summary>Where it lies in the file, in bytes.</summary>
    public long FileOffset { get; } = fileOffset;

    /// <summary>Its bytes.</summary>
    public byte[] Data { get; } = data;

    /// <summary>Read since the last look for something to drop.</summary>
    public bool Used;

    /// <summary>Changed bytes, not yet written: from (inclusive).</summary>
    public int DirtyFrom { get; private set; } = int.MaxValue;

    /// <summary>Changed bytes, not yet written: to (exclusive).</summary>
    public int DirtyTo { get; private set; }

    /// <summary>Has changes (or is about to): must stay in memory.</summary>
    public bool IsDirty { get; set; }

    /// <summary>Position in the cache's list.</summary>
    public int ListIndex { get; set; } = -1;

    /// <summary>The standard entry, or the first half of an extended one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong Entry(int word) =>
        BinaryPrimitives.ReverseEndianness(Volatile.Read(ref Unsafe.As<byte, ulong>(ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(Data), word * 8))));

    /// <summary>Both halves of an extended entry, as they belong together.</summary>
    public (ulong Entry, ulong Bitmap) ExtendedEntry(int index)
    {
        var spin = new SpinWait();
        for (; ; )
        {
            int before = Volatile.Read(ref _version);
            ulong entry = Entry(index * 2), bitmap = Entry(index * 2 + 1);
            Interlocked.MemoryBarrier();
            if ((before & 1) == 0 && Volatile.Read(ref _version) == before)
                return (entry, bitmap);
            spin.SpinOnce();
        }
    }

    /// <summary>Changes a standard entry.</summary>
    public void SetEntry(int index, ulong entry)
    {
        Put(index, entry);
        Touch(index * 8, 8);
    }

    /// <summary>Changes an extended entry.</summary>
    public void SetExtendedEntry(int index, ulong entry, ulong bitmap)
    {
        Interlocked.Increment(ref _version);
        Put(index * 2, entry);
        Put(index * 2 + 1, bitmap);
        Interlocked.Increment(ref _version);
        Touch(index * 16, 16);
    }

    /// <summary>All of it must be written.</summary>
    public void TouchAll() => Touch(0, Data.Length);

    /// <summary>Nothing is left to write.</summary>
    public void Clean()
    {
        DirtyFrom = int.MaxValue;
        DirtyTo = 0;
        IsDirty = false;
    }

    private void Put(int word, ulong value) =>
        Volatile.Write(ref Unsafe.As<byte, ulong>(ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(Data), word * 8)),
            BinaryPrimitives.ReverseEndianness(value));

    private void Touch(int at, int count)
    {
        DirtyFrom = Math.Min(DirtyFrom, at);
        DirtyTo = Math.Max(DirtyTo, at + count);
        IsDirty = true;
    }
}

/// <summary>
/// The slices of L2 tables that are in memory. Found by guest address without a lock; loaded under one of several locks (that of
/// their L1 entry); dropped, oldest unused first, when there are more than the limit. What is dirty is never dropped.
/// </summary>
internal sealed class L2Cache
{
    private const int PageBits = 9;
    private readonly Lock[] _loadLocks = new Lock[16];
    private readonly Lock _listLock = new();
    private readonly List<L2Slice> _list = [];
    private L2Slice?[]?[] _pages;
    private int _hand;

    /// <param name="slices">slices in the L1 table's reach.</param>
    /// <param name="limit">slices to keep in memory.</param>
    public L2Cache(long slices, int limit)
    {
        for (int i = 0; i < _loadLocks.Length; i++)
            _loadLocks[i] = new Lock();
        _pages = new L2Slice?[]?[PagesFor(slices)];
        Limit = Math.Max(limit, 2);
    }

    /// <summary>Slices to keep.</summary>
    public int Limit { get; set; }

    /// <summary>Slices with changes. Changes under the metadata lock only.</summary>
    public int DirtyCount { get; private set; }

    /// <summary>The lock under which slices of an L1 entry come and go.</summary>
    public Lock LoadLock(long l1Index) => _loadLocks[l1Index & 15];

    /// <summary>The slice when it is in memory.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public L2Slice? Find(long key)
    {
        var pages = Volatile.Read(ref _pages);
        long page = key >> PageBits;
        if (page >= pages.Length)
            return null;
        var p = Volatile.Read(ref pages[page]);
        if (p is null)
            return null;
        var slice = Volatile.Read(ref p[key & ((1 << PageBits) - 1)]);
        if (slice is not null && !slice.Used)
            slice.Used = true;
        return slice;
    }

    /// <summary>Puts a slice in, in place of one that is there. Under its load lock.</summary>
    public void Insert(L2Slice slice)
    {
        lock (_listLock)
        {
            ref var place = ref Place(slice.Key);
            if (place is { } old)
                RemoveFromList(old);
            slice.Used = true;
            slice.ListIndex = _list.Count;
            _list.Add(slice);
            if (slice.IsDirty)
                DirtyCount++;
            Volatile.Write(ref place, slice);
            if (_list.Count > Limit)
                DropOne(slice);
        }
    }

    /// <summary>Takes a slice out, whatever its state. Under its load lock, or alone.</summary>
    public void Remove(long key)
    {
        lock (_listLock)
        {
            if (Find(key) is not { } slice)
                return;
            RemoveFromList(slice);
            Volatile.Write(ref Place(key), null);
        }
    }

    /// <summary>The slice when it is in memory, now marked dirty so that it stays. Under the metadata lock.</summary>
    public L2Slice? FindForWrite(long key)
    {
        lock (_listLock)
        {
            var slice = Find(key);
            if (slice is { IsDirty: false })
            {
                slice.IsDirty = true;
                DirtyCount++;
            }
            return slice;
        }
    }

    /// <summary>What is dirty, in file order. Under the metadata lock.</summary>
    public List<L2Slice> DirtySlices()
    {
        var dirty = new List<L2Slice>(DirtyCount);
        lock (_listLock)
        {
            foreach (var s in _list)
                if (s.IsDirty)
                    dirty.Add(s);
        }
        dirty.Sort((a, b) => a.FileOffset.CompareTo(b.FileOffset));
        return dirty;
    }

    /// <summary>A slice has been written. Under the metadata lock.</summary>
    public void MarkClean(L2Slice slice)
    {
        lock (_listLock)
        {
            if (slice.IsDirty && slice.ListIndex >= 0)
                DirtyCount--;
            slice.Clean();
        }
    }

    /// <summary>Forgets everything, for an L1 table of another size or content. Alone.</summary>
    public void Reset(long slices)
    {
        lock (_listLock)
        {
            _list.Clear();
            DirtyCount = 0;
            _pages = new L2Slice?[]?[PagesFor(slices)];
        }
    }

    /// <summary>Makes room for a longer L1 table. Alone, or under the metadata lock.</summary>
    public void Grow(long slices)
    {
        lock (_listLock)
        {
            long n = PagesFor(slices);
            if (n <= _pages.Length)
                return;
            var pages = new L2Slice?[]?[n];
            _pages.CopyTo(pages, 0);
            Volatile.Write(ref _pages, pages);
        }
    }

    /// <summary>Slices in memory.</summary>
    public int Count => _list.Count;

    /// <summary>Drops what is clean and was not looked at since the last time. Under the metadata lock.</summary>
    public void DropUnused()
    {
        lock (_listLock)
        {
            for (int i = _list.Count - 1; i >= 0; i--)
            {
                var s = _list[i];
                if (!s.IsDirty && !s.Used)
                    Drop(s);
                s.Used = false;
            }
        }
    }

    private static long PagesFor(long slices) => (slices >> PageBits) + 1;

    private ref L2Slice? Place(long key)
    {
        ref var page = ref _pages[key >> PageBits];
        if (page is null)
            Volatile.Write(ref page, new L2Slice?[1 << PageBits]);
        return ref page![key & ((1 << PageBits) - 1)];
    }

    private void RemoveFromList(L2Slice slice)
    {
        if (slice.IsDirty)
            DirtyCount--;
        int i = slice.ListIndex;
        var last = _list[^1];
        _list[i] = last;
        last.ListIndex = i;
        _list.RemoveAt(_list.Count - 1);
        slice.ListIndex = -1;
    }

    private void DropOne(L2Slice justCame)
    {
        for (int tries = 2 * _list.Count; tries > 0; tries--)
        {
            _hand = _hand >= _list.Count - 1 ? 0 : _hand + 1;
            var s = _list[_hand];
            if (s.IsDirty || s == justCame)
                continue;
            if (s.Used)
            {
                s.Used = false;
                continue;
            }
            Drop(s);
            return;
        }
    }

    private void Drop(L2Slice slice)
    {
        RemoveFromList(slice);
        Volatile.Write(ref Place(slice.Key), null);
    }
}
