using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>The list of snapshots in the file: read, written, checked and repaired.</summary>
internal sealed partial class Qcow2Image
{
    private List<Qcow2Snapshot> _snapshots = [];
    private long _snapshotTableBytes;

    /// <summary>What a repair left out of a table.</summary>
    /// <param name="Entries">at its end.</param>
    /// <param name="ExtraData">entries that lost extra data.</param>
    private readonly record struct DroppedSnapshots(uint Entries, int ExtraData);

    private void LoadSnapshots(OpenSettings settings)
    {
        _snapshots = [];
        _snapshotTableBytes = 0;
        // A check reads the list itself, and says what is wrong with it.
        if (!settings.ForCheck)
            ReadSnapshotTable(null);
    }

    /// <summary>Reads the list.</summary>
    /// <param name="repair">null: what is too much is an error; else it is left out, and told here.</param>
    private DroppedSnapshots ReadSnapshotTable(Action<string>? repair)
    {
        var list = new List<Qcow2Snapshot>();
        uint count = Header.SnapshotCount, overhanging = 0;
        int dropped = 0;
        long bytes = 0;
        var reader = new SnapshotTableReader(_file, (long)Header.SnapshotsOffset);
        long stored = 0;
        for (uint i = 0; i < count; i++)
        {
            reader.Align();
            var s = Qcow2Snapshot.Read(reader, Header.Size, out uint extra);
            if (extra > MaxSnapshotExtraData)
            {
                if (repair is null)
                    throw TableTooLarge($"Too much extra metadata in snapshot table entry {i}\n"
                        + "You can force-remove this extra metadata with qemu-img check -r all");
                repair($"Discarding too much extra metadata in snapshot table entry {i} ({extra} > {MaxSnapshotExtraData})");
                dropped++;
            }
            stored = AlignUp(stored, 8) + s.StoredBytes;
            if (stored > MaxSnapshotTableBytes || reader.Position > int.MaxValue)
            {
                if (repair is null)
                    throw TableTooLarge("Snapshot table is too big\n"
                        + $"You can force-remove all {count - i} overhanging snapshots with qemu-img check -r all");
                repair($"Discarding {count - i} overhanging snapshots (snapshot table is too big)");
                overhanging = count - i;
                break;
            }
            bytes = reader.Position;
            list.Add(s);
        }
        (_snapshots, _snapshotTableBytes) = (list, bytes);
        return new DroppedSnapshots(overhanging, dropped);
    }

    private ImageException TableTooLarge(string message) => new(ImageErrorKind.Unsupported, message, FileName, (long)Header.SnapshotsOffset) { Errno = 27 };

    /// <summary>Writes the list to a new place and makes the header name it; then the old place is free. Under the metadata lock, alone.</summary>
    private void WriteSnapshotTable(List<Qcow2Snapshot> list)
    {
        using var bytes = new MemoryStream();
        foreach (var s in list)
            bytes.Write(s.ToBytes());
        if (bytes.Length > MaxSnapshotTableBytes)
            throw new ImageException(ImageErrorKind.Unsupported, "File too large", FileName) { Errno = 27 };
        long oldOffset = (long)Header.SnapshotsOffset, oldBytes = _snapshotTableBytes;
        long offset = 0;
        if (list.Count > 0)
        {
            offset = AllocateTable(bytes.Length);
            _refcounts.Write();
            _file.Write(offset, bytes.ToArray());
        }
        _file.Flush();
        Span<byte> pointer = stackalloc byte[12];
        BinaryPrimitives.WriteUInt32BigEndian(pointer, (uint)list.Count);
        BinaryPrimitives.WriteUInt64BigEndian(pointer[4..], (ulong)offset);
        WritePointer(60, pointer);
        // From here on this is the list that the file names, whether or not that is on stable storage yet.
        (Header.SnapshotCount, Header.SnapshotsOffset, _snapshotTableBytes) = ((uint)list.Count, (ulong)offset, bytes.Length);
        _snapshots = list;
        _file.Flush();
        if (oldBytes <= 0)
            return;
        try
        {
            _file.DebugEvent(BlockDebugEvent.ClusterFree);
            _refcounts.Decrement(oldOffset >> _clusterBits, DivUp(oldBytes, _clusterSize), FreeReason.Snapshot);
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            // Space is lost, nothing else.
            _print($"qcow2_free_clusters failed: {HostErrors.Text(HostErrors.NumberOf(e))}");
        }
    }

    /// <summary>The first part of a check: the list is read anew, and ends, in a repair, before what cannot be kept.</summary>
    /// <returns>entries that <see cref="CheckSnapshotEntries"/> must write anew.</returns>
    /// <exception cref="ImageException">the list cannot be read; why has been told.</exception>
    private int CheckSnapshotTable(CheckResult result, bool fix, Action<string> report)
    {
        (_snapshots, _snapshotTableBytes) = ([], 0);
        uint beyond = Header.SnapshotCount > MaxSnapshots ? Header.SnapshotCount - MaxSnapshots : 0;
        if (beyond > 0 && fix)
        {
            report($"Discarding {beyond} overhanging snapshots");
            Header.SnapshotCount = MaxSnapshots;
        }
        DroppedSnapshots dropped;
        string what = "ERROR ";
        try
        {
            CheckTable(Header, (long)Header.SnapshotsOffset, Header.SnapshotCount * (ulong)MinSnapshotBytes, MaxSnapshots * MinSnapshotBytes,
                "snapshot table", FileName);
            what = "ERROR failed to read the snapshot table: ";
            dropped = ReadSnapshotTable(fix ? report : null);
        }
        catch (ImageException e)
        {
            result.CheckErrors++;
            _warn(what + e.Message);
            if (Header.SnapshotCount > MaxSnapshots)
                report($"You can force-remove all {beyond} overhanging snapshots with qemu-img check -r all");
            throw new ImageException(e.Kind, HostErrors.Text(HostErrors.NumberOf(e)), FileName, e.Offset, e) { Errno = e.Errno };
        }
        uint removed = beyond + dropped.Entries;
        if (fix && removed > 0)
        {
            Header.SnapshotCount = (uint)_snapshots.Count;
            Span<byte> count = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32BigEndian(count, Header.SnapshotCount);
            _file.Write(60, count);
            _file.Flush();
            result.CorruptionsFixed += removed;
        }
        return dropped.ExtraData;
    }

    /// <summary>The last part of a check: entries that are not what they should be are written anew.</summary>
    private void CheckSnapshotEntries(CheckResult result, int shortened, bool fix, Action<string> report)
    {
        int wrong = shortened;
        for (int i = 0; i < _snapshots.Count && Header.Version >= 3; i++)
        {
            if (!_snapshots[i].IsIncomplete)
                continue;
            report($"{(fix ? "Repairing" : "ERROR")} snapshot table entry {i} is incomplete");
            wrong++;
        }
        if (wrong == 0)
            return;
        if (!fix)
        {
            result.Corruptions += wrong;
            return;
        }
        WriteSnapshotTable(_snapshots);
        foreach (var s in _snapshots)
            s.IsIncomplete = false;
        _refcounts.Write();
        result.CorruptionsFixed += wrong;
    }
}
