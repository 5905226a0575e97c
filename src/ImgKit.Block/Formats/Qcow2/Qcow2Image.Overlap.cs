using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    private static readonly (MetadataKind Kind, string Name)[] MetadataNames =
    [
        (MetadataKind.MainHeader, "qcow2_header"),
        (MetadataKind.ActiveL1, "active L1 table"),
        (MetadataKind.ActiveL2, "active L2 table"),
        (MetadataKind.RefcountBlock, "refcount block"),
        (MetadataKind.RefcountTable, "refcount table"),
        (MetadataKind.SnapshotTable, "snapshot table"),
        (MetadataKind.InactiveL1, "inactive L1 table"),
        (MetadataKind.InactiveL2, "inactive L2 table"),
        (MetadataKind.BitmapDirectory, "bitmap directory"),
    ];

    private bool _corrupt;
    private bool _signalled;
    private ImageException? _overlapError;

    /// <summary>Reports damage once, and marks the image when it must not be used any more.</summary>
    /// <returns>the error to throw.</returns>
    internal ImageException SignalCorruption(bool fatal, long offset, string message)
    {
        fatal &= _writable;
        if (!_signalled || fatal)
        {
            if (fatal && !_corrupt)
                _print($"qcow2: Marking image as corrupt: {message}; further corruption events will be suppressed");
            else if (!_signalled)
                _print($"qcow2: Image is corrupt: {message}; further non-fatal corruption events will be suppressed");
            _signalled = true;
        }
        if (fatal && !_corrupt)
        {
            _corrupt = true;
            if (Header.Version >= 3)
            {
                Header.Incompatible |= IncompatCorrupt;
                WriteFeatureBits();
            }
        }
        return new ImageException(ImageErrorKind.Corrupt, "Input/output error", FileName, offset) { Errno = 5, Operation = message };
    }

    /// <summary>Throws, and marks the image corrupt, when a write would hit metadata other than <paramref name="allowed"/>.</summary>
    internal void CheckOverlap(long offset, long count, MetadataKind allowed = MetadataKind.None)
    {
        if (count == 0 || (_hasDataFile && allowed == MetadataKind.None))
            return;
        if (_overlapError is { } error)
            throw new ImageException(error.Kind, HostErrors.Text(error.Errno), FileName, offset, error) { Errno = error.Errno };
        long first = offset >> _clusterBits, last = (offset + count - 1) >> _clusterBits;
        for (long c = first; c <= last; c++)
        {
            if (!Metadata.Contains(c))
                continue;
            var checks = _options.OverlapChecks & ~allowed;
            if (checks == MetadataKind.None)
                return;
            var hit = MetadataAt(offset, count) & checks;
            if (hit == MetadataKind.None)
                return;
            foreach (var (kind, name) in MetadataNames)
                if ((hit & kind) != 0)
                    throw SignalCorruption(true, offset, $"Preventing invalid write on metadata (overlaps with {name})");
        }
    }

    /// <summary>Collects where metadata lies, for <see cref="CheckOverlap"/>.</summary>
    private void MapMetadata()
    {
        Metadata.Clear();
        _overlapError = null;
        if (_options.OverlapChecks == MetadataKind.None)
            return;
        long limit = DivUp(_file.Length, _clusterSize) + 1;
        void Add(long offset, long bytes)
        {
            long first = offset >> _clusterBits;
            if (bytes > 0 && first >= 0 && first < limit)
                Metadata.Add(first, Math.Min(((offset + bytes - 1) >> _clusterBits) - first + 1, limit - first));
        }
        Add(0, _clusterSize);
        Add((long)Header.L1TableOffset, _l1.Length * 8L);
        foreach (ulong e in _l1)
            if ((e & OffsetMask) != 0)
                Add((long)(e & OffsetMask), _clusterSize);
        Add((long)Header.RefcountTableOffset, (long)Header.RefcountTableClusters << _clusterBits);
        foreach (ulong e in _refcounts.Table)
            if (e != 0)
                Add((long)(e & ~RefcountTableReserved), _clusterSize);
        Add((long)Header.SnapshotsOffset, _snapshotTableBytes);
        foreach (var s in _snapshots)
        {
            Add((long)s.L1TableOffset, s.L1Size * 8L);
            if ((_options.OverlapChecks & MetadataKind.InactiveL2) != 0)
                MapInactive(s, Add);
        }
        if (Header.Bitmaps is { } bitmaps)
            Add((long)bitmaps.DirectoryOffset, (long)bitmaps.DirectorySize);
    }

    private void MapInactive(Qcow2Snapshot s, Action<long, long> add)
    {
        try
        {
            foreach (ulong e in ReadSnapshotL1(s))
                if ((e & OffsetMask) != 0)
                    add((long)(e & OffsetMask), _clusterSize);
        }
        catch (ImageException e)
        {
            // Whether a write is safe cannot be told then: none is made.
            _overlapError = e;
        }
    }

    /// <summary>What a range of the file holds.</summary>
    private MetadataKind MetadataAt(long offset, long count)
    {
        // QEMU looks at whole clusters.
        long from = offset & ~_clusterMask, to = AlignUp(offset + count, _clusterSize);
        bool Hits(long at, long bytes) => bytes > 0 && at < to && from < at + bytes;
        bool HitsTable(ulong[] table, ulong mask)
        {
            foreach (ulong e in table)
                if ((e & mask) != 0 && Hits((long)(e & mask), _clusterSize))
                    return true;
            return false;
        }
        var hit = MetadataKind.None;
        if (Hits(0, _clusterSize))
            hit |= MetadataKind.MainHeader;
        if (Hits((long)Header.L1TableOffset, _l1.Length * 8L))
            hit |= MetadataKind.ActiveL1;
        if (HitsTable(_l1, OffsetMask))
            hit |= MetadataKind.ActiveL2;
        if (HitsTable(_refcounts.Table, ~RefcountTableReserved))
            hit |= MetadataKind.RefcountBlock;
        if (Hits((long)Header.RefcountTableOffset, (long)Header.RefcountTableClusters << _clusterBits))
            hit |= MetadataKind.RefcountTable;
        if (Hits((long)Header.SnapshotsOffset, _snapshotTableBytes))
            hit |= MetadataKind.SnapshotTable;
        foreach (var s in _snapshots)
        {
            if (Hits((long)s.L1TableOffset, s.L1Size * 8L))
                hit |= MetadataKind.InactiveL1;
            if ((_options.OverlapChecks & MetadataKind.InactiveL2) != 0 && HitsTable(ReadSnapshotL1(s), OffsetMask))
                hit |= MetadataKind.InactiveL2;
        }
        if (Header.Bitmaps is { } bitmaps && Hits((long)bitmaps.DirectoryOffset, (long)bitmaps.DirectorySize))
            hit |= MetadataKind.BitmapDirectory;
        return hit;
    }

    /// <summary>A cluster's count reached 0: the space may go back to the host.</summary>
    internal void ClustersFreed(long offset, long bytes, FreeReason reason)
    {
        bool discard = reason switch
        {
            FreeReason.Request => _options.DiscardRequest,
            FreeReason.Snapshot => _options.DiscardSnapshot,
            _ => _options.DiscardOther,
        };
        _usedEnd = Math.Max(_usedEnd, offset + bytes);
        if (!discard || offset >= _file.Length)
            return;
        try
        {
            _file.Discard(offset, Math.Min(bytes, _file.Length - offset));
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            // The space is free in the image, whatever becomes of it on the host: no request fails for that.
        }
    }

    /// <summary>Behind this, and behind the end of the file, no cluster was ever in use: the file reads as zeroes there. (The end alone does not say so: a
    /// write that failed half way may have made the file longer without the device's notice.) Under the metadata lock.</summary>
    private long _usedEnd;
}
