using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>
/// Counts every reference that the metadata makes, and finds what is wrong in it. Messages and counts are the peer's.
/// </summary>
internal sealed class Qcow2Checker
{
    private readonly Qcow2Image _image;
    private readonly BlockDevice _file;
    private readonly Action<string> _report;
    private readonly CheckResult _result;
    private readonly bool _fixErrors;
    private readonly int _clusterBits;
    private readonly int _clusterSize;
    private readonly bool _extended;
    private readonly bool _hasDataFile;
    private readonly ulong _maxCount;
    private long _next;

    public Qcow2Checker(Qcow2Image image, BlockDevice file, bool hasDataFile, CheckResult result, bool fixErrors, Action<string> report)
    {
        _image = image;
        _file = file;
        _report = report;
        _result = result;
        _fixErrors = fixErrors;
        _clusterBits = image.Header.ClusterBits;
        _clusterSize = 1 << _clusterBits;
        _extended = image.Header.HasFlag(IncompatExtendedL2);
        _hasDataFile = hasDataFile;
        _maxCount = RefcountCodec.Max(image.Header.RefcountOrder);
        Counts = new ReferenceCounts(DivUp(file.Length, _clusterSize));
    }

    public ReferenceCounts Counts { get; }

    /// <summary>Counts of the image cannot be trusted: they must be made anew.</summary>
    public bool MustRebuild { get; set; }

    /// <summary>Counts a range of the file.</summary>
    public void Refer(long offset, long bytes)
    {
        if (bytes <= 0)
            return;
        if (offset < 0 || offset > long.MaxValue - bytes || offset + bytes - _file.Length >= _clusterSize)
        {
            _report("ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                + $"offset 0x{offset:x} size 0x{bytes:x}");
            _result.Corruptions++;
            return;
        }
        long last = (offset + bytes - 1) >> _clusterBits;
        for (long c = offset >> _clusterBits; c <= last; c++)
        {
            ulong n = Counts[c];
            if (n >= _maxCount)
            {
                _report($"ERROR: overflow cluster offset=0x{c << _clusterBits:x}");
                _report("Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy "
                    + "if the image cannot be opened for writing");
                _result.Corruptions++;
                continue;
            }
            Counts.Set(c, n + 1);
        }
    }

    /// <summary>An L1 table, and all below it.</summary>
    /// <param name="l1">its entries.</param>
    /// <param name="offset">where it lies.</param>
    /// <param name="active">the statistics are of this one.</param>
    public void CheckL1(ulong[] l1, long offset, bool active)
    {
        Refer(offset, l1.Length * 8L);
        byte[] buffer = new byte[_clusterSize];
        for (int i = 0; i < l1.Length; i++)
        {
            ulong entry = l1[i];
            if (entry == 0)
                continue;
            if ((entry & L1Reserved) != 0)
            {
                _report($"ERROR found L1 entry with reserved bits set: {entry:x}");
                _result.Corruptions++;
            }
            long table = (long)(entry & OffsetMask);
            Refer(table, _clusterSize);
            if ((table & (_clusterSize - 1)) != 0)
            {
                _report($"ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted");
                _result.Corruptions++;
            }
            if (table >= _file.Length)
                continue;
            ReadAt(table, buffer);
            CheckL2(buffer, table, active);
        }
    }

    private void CheckL2(byte[] table, long tableOffset, bool active)
    {
        int entryBytes = _extended ? 16 : 8;
        _next = 0;      // a table is counted for itself
        // Most tables are mostly empty.
        for (int at = 0; at < table.Length; at += entryBytes)
        {
            int skip = table.AsSpan(at).IndexOfAnyExcept((byte)0);
            if (skip < 0)
                return;
            at += skip / entryBytes * entryBytes;
            ulong entry = BinaryPrimitives.ReadUInt64BigEndian(table.AsSpan(at));
            ulong bitmap = _extended ? BinaryPrimitives.ReadUInt64BigEndian(table.AsSpan(at + 8)) : 0;
            CheckEntry(entry, bitmap, at / entryBytes, tableOffset, active);
        }
    }

    private void CheckEntry(ulong entry, ulong bitmap, int index, long table, bool active)
    {
        uint allocated = (uint)bitmap, zero = (uint)(bitmap >> 32);
        if ((entry & Compressed) == 0 && (entry & (L2StandardReserved | (_extended ? 1UL : 0))) != 0)
        {
            _report($"ERROR found l2 entry with reserved bits set: {entry:x}");
            _result.Corruptions++;
        }
        if ((entry & Compressed) != 0)
        {
            CheckCompressed(entry, bitmap, index, active);
            return;
        }
        long host = (long)(entry & OffsetMask);
        if (host == 0 && !(_hasDataFile && (entry & Copied) != 0))
        {
            if (_extended && allocated != 0)
            {
                _report("ERROR: Unallocated cluster has non-zero subcluster allocation map");
                _result.Corruptions++;
            }
            return;
        }
        bool hasData = _extended ? allocated != 0 : (entry & ZeroFlag) == 0;
        if (_extended && (allocated & zero) != 0)
        {
            _report($"ERROR offset={host:x}: Allocated cluster has corrupted subcluster allocation bitmap");
            if (_fixErrors)
                _result.CorruptionsFixed += _image.RepairEntry(table, index, 0, (ulong)uint.MaxValue << 32) ? 1 : 0;
            else
                _result.Corruptions++;
            return;
        }
        if (active)
        {
            _result.AllocatedClusters++;
            if (_next != 0 && host != _next)
                _result.FragmentedClusters++;
            _next = host + _clusterSize;
        }
        if ((host & (_clusterSize - 1)) != 0)
        {
            bool repair = !hasData && _fixErrors;
            _report(hasData
                ? $"ERROR offset={host:x}: Data cluster is not properly aligned; L2 entry corrupted."
                : $"{(repair ? "Repairing" : "ERROR")} offset={host:x}: Preallocated cluster is not properly aligned; L2 entry corrupted.");
            if (repair)
            {
                _image.RepairEntry(table, index, _extended ? 0 : ZeroFlag, _extended ? (ulong)uint.MaxValue << 32 : 0);
                _result.CorruptionsFixed++;
                return;     // refers to nothing now
            }
            _result.Corruptions++;
            if (!hasData)
                return;
        }
        if (!_hasDataFile)
            Refer(host, _clusterSize);
    }

    private void CheckCompressed(ulong entry, ulong bitmap, int index, bool active)
    {
        var (at, length) = _image.ParseCompressed(entry & ~Copied);
        if ((entry & Copied) != 0)
        {
            _report($"ERROR: coffset=0x{at:x}: copied flag must never be set for compressed clusters");
            _result.Corruptions++;
        }
        if (_hasDataFile)
        {
            _report($"ERROR compressed cluster {index} with data file, entry=0x{entry:x}");
            _result.Corruptions++;
            return;
        }
        if (_extended && bitmap != 0)
        {
            _report($"ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, entry=0x{entry:x}");
            _result.Corruptions++;
            return;
        }
        Refer(at, length);
        if (!active)
            return;
        _result.AllocatedClusters++;
        _result.CompressedClusters++;
        // By their nature they do not lie on clusters' borders.
        _result.FragmentedClusters++;
    }

    /// <summary>The blocks that the refcount table names.</summary>
    public void CheckBlocks(ulong[] table)
    {
        for (long i = 0; i < table.Length; i++)
        {
            ulong entry = table[i];
            if (entry == 0)
                continue;
            long offset = (long)(entry & ~RefcountTableReserved);
            if ((entry & RefcountTableReserved) != 0)
            {
                _report($"ERROR refcount table entry {i} has reserved bits set");
                _result.Corruptions++;
                MustRebuild = true;
                continue;
            }
            if ((offset & (_clusterSize - 1)) != 0)
            {
                _report($"ERROR refcount block {i} is not cluster aligned; refcount table entry corrupted");
                _result.Corruptions++;
                MustRebuild = true;
                continue;
            }
            long cluster = offset >> _clusterBits;
            if (offset < 0 || offset >= AlignUp(_file.Length, _clusterSize))
            {
                _report($"{(_fixErrors ? "Repairing" : "ERROR")} refcount block {i} is outside image");
                if (!_fixErrors || !TryReach(offset))
                {
                    _result.Corruptions++;
                    MustRebuild = true;
                    continue;
                }
                _result.CorruptionsFixed++;
            }
            Refer(offset, _clusterSize);
            if (Counts[cluster] == 1)
                continue;
            _report($"ERROR refcount block {i} refcount={Counts[cluster]}");
            _result.Corruptions++;
            MustRebuild = true;
        }
    }

    /// <summary>Makes the file reach over a block that lies behind its end, if it is not far.</summary>
    private bool TryReach(long offset)
    {
        if (offset < 0 || offset > 1L << 50 || offset > (long)int.MaxValue << _clusterBits)
            return false;
        try
        {
            _file.Resize(offset + _clusterSize);
            Counts.Reach((offset >> _clusterBits) + 1);
            return true;
        }
        catch (Exception e) when (e is ImageException or IOException or NotSupportedException)
        {
            _report($"ERROR could not resize image: {e.Message}");
            return false;
        }
    }

    private void ReadAt(long offset, Span<byte> destination)
    {
        int n = (int)Math.Clamp(_file.Length - offset, 0, destination.Length);
        destination[n..].Clear();
        if (n > 0)
            _file.Read(offset, destination[..n]);
    }
}
