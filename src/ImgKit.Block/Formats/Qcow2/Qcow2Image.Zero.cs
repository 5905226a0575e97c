using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    /// <inheritdoc/>
    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckWritable();
        if (!_settings.Unmap)
            options &= ~ZeroOptions.MayUnmap;
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, count);
            BeforeGuestWrite(offset, count);
            ZeroGuest(offset, count, options);
        }
        finally
        {
            _gate.Exit(ticket);
        }
        if (_settings.WriteThrough)
            Flush();
    }

    private void ZeroGuest(long offset, long count, ZeroOptions options)
    {
        long unit = 1L << _subclusterBits;
        long end = offset + count;
        while (offset < end)
        {
            long inside = offset & (unit - 1);
            long n = Math.Min(unit - inside, end - offset);
            bool whole = inside == 0 && (n == unit || offset + n == _length);
            if (whole)
            {
                n = end == _length ? end - offset : (end - offset) & ~(unit - 1);
                n = n == 0 ? end - offset : n;
                long done = ZeroUnits(offset, n, options);
                if (done < 0)
                {
                    // A part of a compressed cluster: writing zeroes gives it space of its own.
                    if (options.HasFlag(ZeroOptions.NoFallback))
                        throw new NotSupportedException("a part of a compressed cluster cannot be zeroed without writing it");
                    done = Math.Min(n, _clusterSize - (offset & _clusterMask));
                    WriteZeroBytes(offset, done);
                }
                n = done;
            }
            else if (TryZeroAround(offset, n, options) is var done && done != false)
            {
                if (done is null)
                    continue;       // after a wait
            }
            else
            {
                if (options.HasFlag(ZeroOptions.NoFallback))
                    throw new NotSupportedException("a part of a cluster cannot be zeroed without writing it");
                WriteZeroBytes(offset, n);
            }
            offset += n;
        }
    }

    /// <summary>Where the rest of the unit around a range is zero, too, all of it is said to be. Nobody writes to the rest meanwhile:
    /// that would need space, and thus the metadata lock.</summary>
    /// <returns>false: the rest has content; null: look again after a wait.</returns>
    private bool? TryZeroAround(long offset, long count, ZeroOptions options)
    {
        lock (_meta)
        {
            if (NotInFlight(offset >> _clusterBits, 1) == 0)
                return null;
            if (!RestReadsAsZero(offset, count))
                return false;
            long start = offset & ~((1L << _subclusterBits) - 1);
            ZeroUnits(start, Math.Min(1L << _subclusterBits, _length - start), options);
            return true;
        }
    }

    private void WriteZeroBytes(long offset, long count)
    {
        while (count > 0)
        {
            int n = (int)Math.Min(count, 1 << 20);
            WriteGuest(offset, ZeroBuffer.Span(n));
            offset += n;
            count -= n;
        }
    }

    /// <summary>The bytes of the unit of allocation around a range read as zeroes.</summary>
    private bool RestReadsAsZero(long offset, long count)
    {
        if (Header.Version < 3)
            return false;
        long start = offset & ~((1L << _subclusterBits) - 1);
        long end = Math.Min(start + (1L << _subclusterBits), _length);
        return ShowsZero(start, offset - start) && ShowsZero(offset + count, end - offset - count);
    }

    /// <summary>Tables, here and below, say that a range is zero.</summary>
    private bool ShowsZero(long offset, long count)
    {
        while (count > 0)
        {
            var run = Lookup(offset, count);
            long n = run.Length;
            if (run.Kind is ClusterKind.Normal or ClusterKind.Compressed)
                return false;
            if (run.Kind is ClusterKind.Unallocated or ClusterKind.UnallocatedKept && _backing is { } backing
                && offset < Math.Min(backing.Length, _length))
            {
                n = Math.Min(n, backing.Length - offset);
                var (e, _, _) = BlockExtents.GetExtentAbove(backing, offset, n);
                if (!e.IsZero)
                    return false;
                n = e.Length;
            }
            offset += n;
            count -= n;
        }
        return true;
    }

    /// <summary>Marks whole units as zero, as far as one slice goes.</summary>
    /// <returns>bytes done; 0: look again after waiting; -1: a part of a compressed cluster is first.</returns>
    private long ZeroUnits(long offset, long count, ZeroOptions options)
    {
        if (Header.Version < 3)
        {
            // Version 2 cannot say zero, but where no backing file shows, nothing at all reads as zeroes, too.
            if (_backing is null)
            {
                DiscardClusters(offset, AlignUp(offset + count, _clusterSize), FreeReason.Request, full: false);
                return count;
            }
            if (options.HasFlag(ZeroOptions.NoFallback))
                throw new NotSupportedException("version 2 images have no zero clusters");
            WriteZeroBytes(offset, count);
            return count;
        }
        if (_hasDataFile && (Header.Autoclear & AutoclearDataFileRaw) != 0)
            _data.WriteZeroes(offset, count, options);
        lock (_meta)
        {
            long first = offset >> _clusterBits;
            long clusters = ((offset + count - 1) >> _clusterBits) - first + 1;
            clusters = Math.Min(clusters, (1L << _sliceBits) - (first & ((1 << _sliceBits) - 1)));
            clusters = NotInFlight(first, clusters);
            if (clusters == 0)
                return 0;
            BeforeMetadataChange();
            var slice = SliceForWrite(offset);
            int index = (int)first & ((1 << _sliceBits) - 1);
            bool unmap = options.HasFlag(ZeroOptions.MayUnmap);
            long end = Math.Min(offset + count, (first + clusters) << _clusterBits);
            for (long at = offset; at < end; index++)
            {
                long next = Math.Min((at & ~_clusterMask) + _clusterSize, end);
                if (!_extended)
                    ZeroStandard(slice, index, unmap);
                else if (!ZeroExtended(slice, index, at, next, unmap))
                    return at > offset ? at - offset : -1;
                at = next;
            }
            return end - offset;
        }
    }

    private void ZeroStandard(L2Slice slice, int index, bool unmap)
    {
        ulong old = slice.Entry(index);
        var kind = KindOf(old);
        bool release = kind == ClusterKind.Compressed || (unmap && kind is ClusterKind.Normal or ClusterKind.ZeroKept);
        if (_options.DiscardNoUnref && kind != ClusterKind.Compressed)
            release = false;
        ulong entry = (release ? 0 : old) | ZeroFlag;
        if (release && _hasDataFile)
            _data.Discard((long)(old & OffsetMask), _clusterSize);
        if (entry == old)
            return;
        slice.SetEntry(index, entry);
        if (release)
            FreeEntry(old, FreeReason.Request);
    }

    private bool ZeroExtended(L2Slice slice, int index, long from, long to, bool unmap)
    {
        var (old, bitmap) = slice.ExtendedEntry(index);
        bool whole = (from & _clusterMask) == 0 && (to - from == _clusterSize || to == _length);
        bool compressed = (old & Compressed) != 0;
        if (whole)
        {
            bool release = compressed || (unmap && HasHost(old) && !_options.DiscardNoUnref);
            ulong entry = release ? 0 : old;
            if (entry == old && bitmap == (ulong)uint.MaxValue << 32)
                return true;
            slice.SetExtendedEntry(index, entry, (ulong)uint.MaxValue << 32);
            if (release)
                FreeEntry(old, FreeReason.Request);
            return true;
        }
        if (compressed)
            return false;
        int first = (int)((from & _clusterMask) >> _subclusterBits);
        int last = (int)(((to - 1) & _clusterMask) >> _subclusterBits);
        ulong bits = (last - first == 31 ? uint.MaxValue : (1u << (last - first + 1)) - 1u) << first & uint.MaxValue;
        ulong changed = (bitmap & ~bits) | bits << 32;
        if (changed != bitmap)
            slice.SetExtendedEntry(index, old, changed);
        return true;
    }

    /// <inheritdoc/>
    public override void Discard(long offset, long count)
    {
        CheckWritable();
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, count);
            // Version 2 cannot keep the backing file from showing.
            if (!_settings.Unmap || (Header.Version < 3 && _backing is not null))
                return;
            long end = offset + count;
            long from = AlignUp(offset, _clusterSize), to = end == _length ? AlignUp(end, _clusterSize) : end & ~_clusterMask;
            if (from >= to)
                return;
            BeforeGuestWrite(from, Math.Min(to, _length) - from);
            DiscardClusters(from, to, FreeReason.Request, full: false);
        }
        finally
        {
            _gate.Exit(ticket);
        }
        if (_settings.WriteThrough)
            Flush();
    }

    /// <summary>Gives clusters up.</summary>
    /// <param name="from">guest offset, aligned.</param>
    /// <param name="to">guest offset, aligned.</param>
    /// <param name="reason">for passing the discard on.</param>
    /// <param name="full">become unallocated rather than zero.</param>
    private void DiscardClusters(long from, long to, FreeReason reason, bool full)
    {
        while (from < to)
        {
            lock (_meta)
            {
                long i = from >> L1Shift;
                if (i >= _l1.Length)
                    return;
                // Nothing here, and nothing below shows: the whole reach of the L1 entry at once.
                if ((_l1[i] & OffsetMask) == 0 && (full || _backing is null))
                {
                    from = (i + 1) << L1Shift;
                    continue;
                }
                long first = from >> _clusterBits;
                long clusters = Math.Min((to - from) >> _clusterBits, (1L << _sliceBits) - (first & ((1 << _sliceBits) - 1)));
                clusters = NotInFlight(first, clusters);
                if (clusters == 0)
                    continue;
                BeforeMetadataChange();
                var slice = SliceForWrite(from);
                int index = (int)first & ((1 << _sliceBits) - 1);
                for (long c = 0; c < clusters; c++)
                    DiscardEntry(slice, index + (int)c, reason, full);
                from += clusters << _clusterBits;
            }
        }
    }

    private void DiscardEntry(L2Slice slice, int index, FreeReason reason, bool full)
    {
        var (old, bitmap) = EntryAt(slice, index);
        bool allocated = (old & Compressed) != 0 || HasHost(old);
        ulong entry = old, changed = bitmap;
        bool keep = _options.DiscardNoUnref && allocated && (old & Compressed) == 0 && !full;
        if (full)
        {
            (entry, changed) = (0, 0);
        }
        else if (_backing is not null || allocated)
        {
            if (_extended)
                (entry, changed) = (keep ? old : 0, (ulong)uint.MaxValue << 32);
            else
                entry = keep ? old | ZeroFlag : Header.Version >= 3 ? ZeroFlag : 0;
        }
        if (entry == old && changed == bitmap)
            return;
        if (_extended)
            slice.SetExtendedEntry(index, entry, changed);
        else
            slice.SetEntry(index, entry);
        if (keep)
            return;
        if (_hasDataFile && allocated && _options.DiscardRequest)
            _data.Discard((long)(old & OffsetMask), _clusterSize);
        FreeEntry(old, reason);
    }
}
