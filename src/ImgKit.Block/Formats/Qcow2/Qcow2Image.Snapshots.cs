using System.Globalization;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : ISnapshotImage
{
    /// <inheritdoc/>
    public IReadOnlyList<SnapshotInfo> Snapshots => _snapshots.ConvertAll(s => s.ToInfo());

    /// <inheritdoc/>
    public SnapshotInfo CreateSnapshot(string name, DateTimeOffset date, long vmStateSize = 0, long vmClock = 0, long instructionCount = 0)
    {
        CheckWritable();
        CheckSnapshotsPossible();
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            if (System.Text.Encoding.UTF8.GetByteCount(name) > ushort.MaxValue)
                throw new ImageException(ImageErrorKind.InvalidArgument, "File name too long", FileName) { Errno = 36 };
            if (_snapshots.Count >= MaxSnapshots)
                throw new ImageException(ImageErrorKind.Unsupported, "File too large", FileName) { Errno = 27 };
            CommitAll();
            CheckTree(_l1);
            var s = new Qcow2Snapshot
            {
                Id = NextSnapshotId(),
                Name = name,
                Seconds = (uint)Math.Clamp(date.ToUnixTimeSeconds(), 0, uint.MaxValue),
                Nanoseconds = (uint)(date.UtcTicks % TimeSpan.TicksPerSecond * 100),
                VmClock = (ulong)vmClock,
                VmStateSize = (ulong)vmStateSize,
                DiskSize = (ulong)_length,
                InstructionCount = (ulong)instructionCount,
                L1Size = (uint)_l1.Length,
            };
            BeginUnsafe();
            s.L1TableOffset = (ulong)AllocateTable(_l1.Length * 8L);
            ReferTree(_l1);
            try
            {
                // Counts first: a table must never share what is counted once.
                _refcounts.Write();
                WriteTable((long)s.L1TableOffset, Array.ConvertAll(_l1, e => e & ~Copied));
                _file.Flush();
                FixCopiedFlags();
                WriteSnapshotTable([.. _snapshots, s]);
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                TakeBack(s);
                throw;
            }
            if (vmStateSize > 0)
            {
                // The active image needs the machine's state no more.
                long start = VmStateOffset;
                DiscardClusters(start, AlignUp(start + vmStateSize, _clusterSize), FreeReason.Other, full: true);
                CommitAll();
            }
            EndUnsafe();
            return s.ToInfo();
        }
    }

    /// <summary>Undoes what was counted for a snapshot that could not be written. Where that fails, too, the dirty bit stays, and the counts are set
    /// right by whoever opens the image next.</summary>
    private void TakeBack(Qcow2Snapshot s)
    {
        try
        {
            if (_snapshots.Contains(s))
                WriteSnapshotTable(_snapshots.FindAll(o => o != s));
            FreeTree((ulong[])_l1.Clone(), FreeReason.Snapshot);
            _refcounts.Free((long)s.L1TableOffset, DivUp(Math.Max(s.L1Size * 8L, 1), _clusterSize), FreeReason.Snapshot);
            _refcounts.MarkPendingDurable(_gate.Epoch);
            _refcounts.Reclaim(null);
            FixCopiedFlags();
            _refcounts.Write();
            EndUnsafe();
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            _warn($"Failed to take back the snapshot: {e.Message}");
        }
    }

    /// <inheritdoc/>
    public void ApplySnapshot(string idOrName)
    {
        CheckWritable();
        CheckSnapshotsPossible();
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            var s = FindSnapshot(idOrName);
            if (s.DiskSize > long.MaxValue || L1EntriesFor((long)s.DiskSize) * 8 > MaxL1Bytes)
                throw new ImageException(ImageErrorKind.Unsupported, "File too large", FileName) { Errno = 27 };
            ulong[] theirs;
            try
            {
                theirs = ReadSnapshotL1(s);
            }
            catch (ImageException e)
            {
                _warn(e.Message);
                throw new ImageException(e.Kind, $"Failed to load snapshot: {HostErrors.Text(e.Errno)}", FileName, inner: e) { Errno = e.Errno };
            }
            CommitAll();
            CheckTree(theirs);
            if ((long)s.DiskSize != _length)
                BeforeResizeOfBitmaps();
            if ((long)s.DiskSize > _length)
                ResizeBitmaps((long)s.DiskSize);
            long oldLength = _length;
            BeginUnsafe();
            ReferTree(theirs);
            var l1 = new ulong[Math.Max(theirs.Length, L1EntriesFor((long)s.DiskSize))];
            for (int i = 0; i < theirs.Length; i++)
                l1[i] = theirs[i] & ~Copied;
            var old = _l1;
            ReplaceL1(l1, s.DiskSize);
            if (_length < oldLength)
                ResizeBitmaps(_length);
            FreeTree(old, FreeReason.Snapshot);
            _refcounts.MarkPendingDurable(_gate.Epoch);
            _refcounts.Reclaim(null);
            FixCopiedFlags();
            _refcounts.Write();
            EndUnsafe();
            MapMetadata();
        }
    }

    /// <inheritdoc/>
    public void DeleteSnapshot(string idOrName)
    {
        CheckWritable();
        CheckSnapshotsPossible();
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            var s = FindSnapshot(idOrName);
            var l1 = ReadSnapshotL1(s);
            CommitAll();
            BeginUnsafe();
            // The list first: from then on nothing in the file names the snapshot.
            WriteSnapshotTable(_snapshots.FindAll(o => o != s));
            try
            {
                FreeTree(l1, FreeReason.Snapshot);
                _refcounts.Free((long)s.L1TableOffset, DivUp(Math.Max(s.L1Size * 8L, 1), _clusterSize), FreeReason.Snapshot);
                _refcounts.MarkPendingDurable(_gate.Epoch);
                _refcounts.Reclaim(null);
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                throw Failed("Failed to free the cluster and L1 table", e);
            }
            try
            {
                FixCopiedFlags();
                _refcounts.Write();
                EndUnsafe();
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                throw Failed("Failed to update snapshot status in disk", e);
            }
        }
    }

    private ImageException Failed(string what, Exception why)
    {
        int errno = HostErrors.NumberOf(why);
        return new ImageException(ImageErrorKind.Io, $"{what}: {HostErrors.Text(errno)}", FileName, inner: why) { Errno = errno };
    }

    /// <inheritdoc/>
    public BlockDevice OpenSnapshot(string idOrName)
    {
        CheckUsable();
        var s = FindSnapshot(idOrName);
        var l1 = ReadSnapshotL1(s);
        if (s.DiskSize > long.MaxValue || l1.Length < L1EntriesFor((long)s.DiskSize))
            throw new ImageException(ImageErrorKind.Corrupt, "Snapshot L1 table is too small for its disk size", FileName) { Errno = 22 };
        return new Qcow2Image(this, l1, (long)s.DiskSize);
    }

    /// <summary>A view of a snapshot: same file, other table, never written.</summary>
    private Qcow2Image(Qcow2Image parent, ulong[] l1, long length)
        : this(parent._file, parent.Header, parent._settings with { ReadOnly = true }, parent._options, parent.FileName, parent._warn, parent._print)
    {
        _hasDataFile = parent._hasDataFile;
        _data = parent._data;
        _backing = parent._backing;
        _ownsDevices = false;
        _l1 = l1;
        _length = length;
        _l2.Reset(SlicesFor(l1.Length));
    }

    private void CheckSnapshotsPossible()
    {
        if (_hasDataFile)
            throw new ImageException(ImageErrorKind.Unsupported, "Operation not supported", FileName)
            {
                Errno = 95,
                Operation = "images with an external data file have no internal snapshots",
            };
    }

    private Qcow2Snapshot FindSnapshot(string idOrName) =>
        _snapshots.Find(s => s.Id == idOrName) ?? _snapshots.Find(s => s.Name == idOrName)
            ?? throw new ImageException(ImageErrorKind.NotFound, "Can't find the snapshot", FileName) { Errno = 2 };

    private string NextSnapshotId()
    {
        ulong max = 0;
        foreach (var s in _snapshots)
            if (ulong.TryParse(s.Id, NumberStyles.None, CultureInfo.InvariantCulture, out ulong id))
                max = Math.Max(max, id);
        return (max + 1).ToString(CultureInfo.InvariantCulture);
    }

    private ulong[] ReadSnapshotL1(Qcow2Snapshot s)
    {
        if (s.L1Size * 8L > MaxL1Bytes)
            throw new ImageException(ImageErrorKind.Unsupported, "Snapshot L1 table too large", FileName) { Errno = 27 };
        if ((s.L1TableOffset & (ulong)_clusterMask) != 0 || s.L1TableOffset > long.MaxValue - (ulong)MaxL1Bytes)
            throw new ImageException(ImageErrorKind.InvalidFormat, "Snapshot L1 table offset invalid", FileName) { Errno = 22 };
        return ReadTable((long)s.L1TableOffset, s.L1Size);
    }
}
