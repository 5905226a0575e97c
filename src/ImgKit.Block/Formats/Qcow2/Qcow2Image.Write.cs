using System.Buffers;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    private const int MaxAllocation = 64 << 20;

    /// <summary>Guest clusters that a request is giving (other) space: nobody else changes their entries.</summary>
    private readonly List<(long First, long Last)> _inFlight = [];

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckWritable();
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, source.Length);
            BeforeGuestWrite(offset, source.Length);
            WriteGuest(offset, source);
        }
        finally
        {
            _gate.Exit(ticket);
        }
        if (_settings.WriteThrough)
            Flush();
    }

    /// <inheritdoc/>
    public override void WriteVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        long total = 0;
        foreach (var b in buffers)
            total += b.Length;
        CheckWritable();
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, total);
            BeforeGuestWrite(offset, total);
            if (total > 0 && LookupWritable(offset, total) is var (host, length) && length == total)
            {
                CheckOverlap(host, total);
                _data.WriteVector(host, buffers);
            }
            else
            {
                foreach (var b in buffers)
                {
                    WriteGuest(offset, b.Span);
                    offset += b.Length;
                }
            }
        }
        finally
        {
            _gate.Exit(ticket);
        }
        if (_settings.WriteThrough)
            Flush();
    }

    /// <summary>Writes content. The caller is counted.</summary>
    private void WriteGuest(long offset, ReadOnlySpan<byte> source)
    {
        while (!source.IsEmpty)
        {
            var (host, length) = LookupWritable(offset, source.Length);
            int n = (int)length;
            // Data, then space that is kept for zeroes: one request to the file.
            int joined = n > 0 && n < source.Length && GoesOnInKept(offset + n, host + n) ? WriteAllocating(offset, source) : 0;
            if (joined > 0)
            {
                n = joined;
            }
            else if (n > 0)
            {
                CheckOverlap(host, n);
                _file.DebugEvent(BlockDebugEvent.WriteAio);
                _data.Write(host, source[..n]);
            }
            else
            {
                n = WriteAllocating(offset, source);
            }
            source = source[n..];
            offset += n;
        }
    }

    /// <summary>The cluster that begins at a guest offset has space of its own, at this place, that holds no data yet.</summary>
    private bool GoesOnInKept(long guest, long host)
    {
        if (_extended || (guest & _clusterMask) != 0 || SliceFor(guest) is not { } slice)
            return false;
        ulong entry = slice.Entry((int)(guest >> _clusterBits) & ((1 << _sliceBits) - 1));
        return CanKeep(entry) && (entry & ZeroFlag) != 0 && (long)(entry & OffsetMask) == host;
    }

    /// <summary>What a write does to clusters that need space.</summary>
    private struct Allocation
    {
        public long FirstCluster;
        public long Clusters;
        public long Host;
        public bool KeepsHost;      // the space was there already
        public bool IsVirgin;       // the file was never written there: it reads as zeroes
        public long CopyFrom;       // guest range that is written: the request's part, and what must be copied around it
        public long CopyTo;
    }

    /// <summary>Writes the first part of a request to clusters that need space, or space of their own.</summary>
    /// <returns>bytes of the request done; 0 when it must look again.</returns>
    private int WriteAllocating(long offset, ReadOnlySpan<byte> source)
    {
        Allocation a;
        lock (_meta)
        {
            if (!PlanAllocation(offset, source.Length, out a))
                return 0;
            _inFlight.Add((a.FirstCluster, a.FirstCluster + a.Clusters - 1));
        }
        int n = (int)Math.Min(source.Length, ((a.FirstCluster + a.Clusters) << _clusterBits) - offset);
        bool written = false;
        try
        {
            WriteWithEdges(a, offset, source[..n]);
            written = true;
        }
        finally
        {
            lock (_meta)
            {
                try
                {
                    if (written)
                        Link(a, offset, n);
                    else if (!a.KeepsHost && !_hasDataFile)
                        _refcounts.Decrement(a.Host >> _clusterBits, a.Clusters, FreeReason.Other);
                }
                finally
                {
                    EndFlight(a.FirstCluster);
                }
            }
        }
        return n;
    }

    private void EndFlight(long first)
    {
        _inFlight.RemoveAt(_inFlight.FindIndex(f => f.First == first));
        Monitor.PulseAll(_meta);
    }

    /// <summary>Waits when the cluster is in flight; else says how many from it on are not. Under the metadata lock.</summary>
    /// <returns>0 after a wait.</returns>
    private long NotInFlight(long first, long count)
    {
        foreach (var (f, l) in _inFlight)
        {
            if (f <= first && first <= l)
            {
                Monitor.Wait(_meta);
                return 0;
            }
            if (f > first)
                count = Math.Min(count, f - first);
        }
        return count;
    }

    private bool PlanAllocation(long offset, long bytes, out Allocation a)
    {
        a = default;
        long first = offset >> _clusterBits;
        bytes = Math.Min(bytes, MaxAllocation);
        long clusters = ((offset + bytes - 1) >> _clusterBits) - first + 1;
        clusters = Math.Min(clusters, (1L << _sliceBits) - (first & ((1 << _sliceBits) - 1)));
        clusters = NotInFlight(first, clusters);
        if (clusters == 0)
            return false;
        BeforeMetadataChange();
        var slice = SliceForWrite(offset);
        int index = (int)first & ((1 << _sliceBits) - 1);
        var (entry, bitmap) = EntryAt(slice, index);
        a.FirstCluster = first;
        a.KeepsHost = CanKeep(entry);
        if (a.KeepsHost)
        {
            a.Host = (long)(entry & OffsetMask);
            CheckEntry(slice, index, _extended ? ClusterKind.ZeroKept : KindOf(entry), a.Host, first << _clusterBits);
            // Clusters that hold data come along where they lie in a row.
            bool needed = LookupWritable(offset, 1).Length == 0;
            long n = 1;
            while (n < clusters && EntryAt(slice, index + (int)n).Entry is var e && CanKeep(e) && (long)(e & OffsetMask) == a.Host + (n << _clusterBits))
            {
                needed |= LookupWritable((first + n) << _clusterBits, 1).Length == 0;
                n++;
            }
            if (!needed)
                return false;       // somebody was faster
            a.Clusters = n;
        }
        else
        {
            long n = 1;
            while (n < clusters && !CanKeep(EntryAt(slice, index + (int)n).Entry) && LookupWritable((first + n) << _clusterBits, 1).Length == 0)
                n++;
            if (_hasDataFile)
            {
                (a.Host, a.Clusters) = (first << _clusterBits, n);
            }
            else
            {
                // The host's end before the allocation: behind it nothing was ever written.
                long end = _file.Length;
                (a.Host, a.Clusters) = _refcounts.AllocateRun(n);
                a.IsVirgin = a.Host >= Math.Max(end, _usedEnd);
                try
                {
                    EnsureFileLength(a.Host + (a.Clusters << _clusterBits));
                    CheckOverlap(a.Host, a.Clusters << _clusterBits);
                }
                catch
                {
                    _refcounts.Decrement(a.Host >> _clusterBits, a.Clusters, FreeReason.Other);
                    throw;
                }
            }
        }
        PlanEdges(ref a, offset, Math.Min(bytes, ((first + a.Clusters) << _clusterBits) - offset), slice, index);
        return true;
    }

    /// <summary>The cluster's space is its own: what is written goes there.</summary>
    private bool CanKeep(ulong entry) => (entry & Copied) != 0 && (entry & Compressed) == 0 && HasHost(entry);

    private (ulong Entry, ulong Bitmap) EntryAt(L2Slice slice, int index) => _extended ? slice.ExtendedEntry(index) : (slice.Entry(index), 0);

    /// <summary>How far before and behind the request content must be copied.</summary>
    private void PlanEdges(ref Allocation a, long offset, long bytes, L2Slice slice, int index)
    {
        long start = a.FirstCluster << _clusterBits;
        long end = offset + bytes;
        long lastStart = (end - 1) & ~_clusterMask;
        long mask = (1L << _subclusterBits) - 1;
        long from = offset & ~mask, to = (end + mask) & ~mask;
        if (a.KeepsHost)
        {
            // (Sub)clusters that hold data already are written in part.
            if (LookupWritable(from, 1).Length > 0)
                from = offset;
            if (to > end && LookupWritable(to - 1, 1).Length > 0)
                to = end;
        }
        else if (_extended)
        {
            // Data of the old cluster moves along.
            var (entry, bitmap) = slice.ExtendedEntry(index);
            if ((entry & Compressed) != 0)
                from = start;
            else if ((uint)bitmap != 0)
                from = Math.Min(from, start + ((long)System.Numerics.BitOperations.TrailingZeroCount((uint)bitmap) << _subclusterBits));
            (entry, bitmap) = slice.ExtendedEntry(index + (int)((lastStart - start) >> _clusterBits));
            if ((entry & Compressed) != 0)
                to = lastStart + _clusterSize;
            else if ((uint)bitmap != 0)
                to = Math.Max(to, lastStart + ((long)(32 - System.Numerics.BitOperations.LeadingZeroCount((uint)bitmap)) << _subclusterBits));
        }
        a.CopyFrom = from;
        a.CopyTo = to;
    }

    private void WriteWithEdges(in Allocation a, long offset, ReadOnlySpan<byte> source)
    {
        long start = a.FirstCluster << _clusterBits;
        long head = offset - a.CopyFrom, tail = a.CopyTo - (offset + source.Length);
        _file.DebugEvent(BlockDebugEvent.WriteAio);
        if (head + tail == 0)
        {
            _data.Write(a.Host + offset - start, source);
            return;
        }
        bool headZero = head == 0 || ReadsAsZero(a.CopyFrom, head);
        bool tailZero = tail == 0 || ReadsAsZero(offset + source.Length, tail);
        if (headZero && tailZero && a.IsVirgin)
        {
            _data.Write(a.Host + offset - start, source);
            return;
        }
        if (headZero && tailZero && head + tail > 128 << 10)
        {
            if (head > 0)
                _data.WriteZeroes(a.Host + a.CopyFrom - start, head);
            if (tail > 0)
                _data.WriteZeroes(a.Host + offset + source.Length - start, tail);
            _data.Write(a.Host + offset - start, source);
            return;
        }
        byte[] edges = ArrayPool<byte>.Shared.Rent((int)(head + tail));
        try
        {
            var before = edges.AsSpan(0, (int)head);
            var behind = edges.AsSpan((int)head, (int)tail);
            if (!headZero || !tailZero)
                _file.DebugEvent(BlockDebugEvent.CowRead);
            ReadGuest(a.CopyFrom, before);
            ReadGuest(offset + source.Length, behind);
            _file.DebugEvent(BlockDebugEvent.CowWrite);
            WriteThree(a.Host + a.CopyFrom - start, before, source, behind);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(edges);
        }
    }

    private unsafe void WriteThree(long host, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second, ReadOnlySpan<byte> third)
    {
        fixed (byte* a = first, b = second, c = third)
        {
            Span<IoBuffer> parts = stackalloc IoBuffer[3];
            int n = 0;
            if (!first.IsEmpty)
                parts[n++] = new IoBuffer(a, first.Length);
            parts[n++] = new IoBuffer(b, second.Length);
            if (!third.IsEmpty)
                parts[n++] = new IoBuffer(c, third.Length);
            _data.WriteVector(host, parts[..n]);
        }
    }

    /// <summary>Tables alone say that a range is zero.</summary>
    private bool ReadsAsZero(long offset, long count)
    {
        while (count > 0)
        {
            var run = Lookup(offset, count);
            bool zero = run.Kind is ClusterKind.Zero or ClusterKind.ZeroKept
                || (run.Kind is ClusterKind.Unallocated or ClusterKind.UnallocatedKept
                    && (_backing is not { } backing || offset >= Math.Min(backing.Length, _length)));
            if (!zero)
                return false;
            offset += run.Length;
            count -= run.Length;
        }
        return true;
    }

    /// <summary>Makes the table say what was written. Under the metadata lock.</summary>
    private void Link(in Allocation a, long offset, long bytes)
    {
        var slice = SliceForWrite(a.FirstCluster << _clusterBits);
        int index = (int)a.FirstCluster & ((1 << _sliceBits) - 1);
        for (int i = 0; i < a.Clusters; i++)
        {
            var (old, bitmap) = EntryAt(slice, index + i);
            ulong entry = (ulong)(a.Host + ((long)i << _clusterBits)) | Copied;
            if (_extended)
            {
                if ((old & Compressed) != 0)
                    bitmap = 0;
                long start = (a.FirstCluster + i) << _clusterBits;
                int from = (int)(Math.Max(a.CopyFrom - start, 0) >> _subclusterBits);
                int to = (int)((Math.Min(a.CopyTo - start, _clusterSize) + (1L << _subclusterBits) - 1) >> _subclusterBits);
                ulong touched = to <= from ? 0 : (to - from == 32 ? uint.MaxValue : (1u << (to - from)) - 1u) << from & uint.MaxValue;
                slice.SetExtendedEntry(index + i, entry, (bitmap | touched) & ~(touched << 32));
            }
            else
            {
                slice.SetEntry(index + i, entry);
            }
            if (!a.KeepsHost)
                FreeEntry(old, FreeReason.Request);
        }
    }

    /// <summary>Queues the space of an entry that was replaced. Under the metadata lock.</summary>
    private void FreeEntry(ulong entry, FreeReason reason)
    {
        if ((entry & Compressed) != 0)
        {
            var (at, length) = ParseCompressed(entry);
            long from = at & ~_clusterMask, to = (at + length - 1) & ~_clusterMask;
            _refcounts.Free(from, ((to - from) >> _clusterBits) + 1, reason);
        }
        else if ((entry & OffsetMask) != 0 && !_hasDataFile)
        {
            _refcounts.Free((long)(entry & OffsetMask), 1, reason);
        }
    }

    /// <summary>Makes a file that does not grow by itself long enough.</summary>
    internal void EnsureFileLength(long length)
    {
        if (_file is not Protocols.File.FileDevice && length > _file.Length && _file.Storage is not null)
            _file.Resize(length);
    }

    /// <summary>The slice that maps a guest offset, to be changed: in a table that is the active image's alone. Under the metadata lock.</summary>
    private L2Slice SliceForWrite(long guest)
    {
        long l1Index = guest >> L1Shift;
        ulong l1Entry = _l1[l1Index];
        if ((l1Entry & OffsetMask) == 0 || (l1Entry & Copied) == 0)
            NewL2Table(l1Index);
        long key = guest >> SliceShift;
        for (; ; )
        {
            if (_l2.FindForWrite(key) is { } slice)
                return slice;
            LoadSlice(key, stays: true);
        }
    }

    /// <summary>Gives an L1 entry a table of its own, empty or a copy of the shared one. Under the metadata lock.</summary>
    private void NewL2Table(long l1Index)
    {
        long old = (long)(_l1[l1Index] & OffsetMask);
        if ((old & _clusterMask) != 0)
            throw SignalCorruption(true, old, $"L2 table offset {Hex(old)} unaligned (L1 index: {Hex(l1Index)})");
        int sliceBytes = EntryBytes << _sliceBits;
        byte[]? content = null;
        if (old != 0)
        {
            content = GC.AllocateUninitializedArray<byte>(_clusterSize);
            ReadHost(_file, old, content);
            // The file may be behind what is in memory.
            for (long s = 0; s < SlicesPerTable; s++)
                if (_l2.Find(l1Index * SlicesPerTable + s) is { } present)
                    present.Data.CopyTo(content, (int)s * sliceBytes);
        }
        long offset = _refcounts.Allocate(1, "L2 table");
        _file.DebugEvent(BlockDebugEvent.L2AllocWrite);
        CheckOverlap(offset, _clusterSize);
        EnsureFileLength(offset + _clusterSize);
        lock (_l2.LoadLock(l1Index))
        {
            for (long s = 0; s < SlicesPerTable; s++)
            {
                byte[] data = new byte[sliceBytes];
                content?.AsSpan((int)s * sliceBytes, sliceBytes).CopyTo(data);
                var slice = new L2Slice(l1Index * SlicesPerTable + s, offset + s * sliceBytes, data);
                slice.TouchAll();
                _l2.Insert(slice);
            }
            _l1[l1Index] = (ulong)offset | Copied;
        }
        TableCached();
        _dirtyL1.Add(l1Index);
        Metadata.Add(offset >> _clusterBits, 1);
        if (_lazyRefcounts)
            _refcounts.Write();     // counts of tables are not put off
        if (old != 0)
            _refcounts.Free(old, 1, FreeReason.Other);
    }
}
