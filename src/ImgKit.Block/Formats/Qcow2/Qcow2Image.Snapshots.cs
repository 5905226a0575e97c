using System.Globalization;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    private List<Qcow2Snapshot> _snapshots = [];
    private long _snapshotTableBytes;

    private void LoadSnapshots(OpenSettings settings)
    {
        _snapshots = [];
        _snapshotTableBytes = 0;
        if (Header.SnapshotCount == 0)
            return;
        byte[] table = ReadSnapshotTable();
        int at = 0;
        for (uint i = 0; i < Header.SnapshotCount; i++)
        {
            int start = at;
            if (!Qcow2Snapshot.TryRead(table, ref at, Header.Size, out var s))
            {
                if (settings.ForCheck)
                    return;     // the check says so
                throw new ImageException(ImageErrorKind.InvalidFormat, "Failed to read snapshot table: Invalid argument", FileName,
                    (long)Header.SnapshotsOffset + start) { Errno = 22 };
            }
            if (s.UnknownExtra.Length + 24 > MaxSnapshotExtraData && !settings.ForCheck)
                throw new ImageException(ImageErrorKind.InvalidFormat, $"Too much extra metadata in snapshot table entry {i}\n"
                    + "You can force-remove this extra metadata with qemu-img check -r all", FileName, (long)Header.SnapshotsOffset + start)
                {
                    Errno = 22,
                };
            _snapshots.Add(s);
        }
        _snapshotTableBytes = at;
    }

    /// <summary>The bytes from the snapshot table on, as many as there can be.</summary>
    private byte[] ReadSnapshotTable()
    {
        long bytes = Math.Clamp(_file.Length - (long)Header.SnapshotsOffset, 0, MaxSnapshotTableBytes);
        bytes = Math.Min(bytes, Header.SnapshotCount * (40L + MaxSnapshotExtraData + 65536 * 2));
        byte[] table = GC.AllocateUninitializedArray<byte>((int)bytes);
        ReadHost(_file, (long)Header.SnapshotsOffset, table);
        return table;
    }

    private ulong[] ReadSnapshotL1(Qcow2Snapshot s)
    {
        CheckSnapshotL1(s);
        return ReadTable((long)s.L1TableOffset, s.L1Size);
    }

    private void CheckSnapshotL1(Qcow2Snapshot s)
    {
        if (s.L1Size * 8L > MaxL1Bytes)
            throw new ImageException(ImageErrorKind.Unsupported, "Snapshot L1 table too large", FileName) { Errno = 27 };
        if ((s.L1TableOffset & (ulong)_clusterMask) != 0 || s.L1TableOffset > long.MaxValue - (ulong)MaxL1Bytes)
            throw new ImageException(ImageErrorKind.InvalidFormat, "Snapshot L1 table offset invalid", FileName) { Errno = 22 };
    }

    private static string NumberText(long n) => n.ToString(CultureInfo.InvariantCulture);
}
