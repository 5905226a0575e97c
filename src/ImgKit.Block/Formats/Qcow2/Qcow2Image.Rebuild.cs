using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    /// <summary>Writes reference counts anew, behind the end of the file or, on a device, behind all that is in use, and makes the header name them. The old ones are free then.
    /// Alone, under the metadata lock.</summary>
    /// <param name="counts">of everything but the old table and blocks.</param>
    /// <param name="order">log2 of the bits of a count.</param>
    private void Rebuild(ReferenceCounts counts, int order)
    {
        long per = (long)_clusterSize * 8 >> order;
        long start = CanFileGrow() ? Math.Max(DivUp(_file.Length, _clusterSize), 1) : EndOfCounts();
        // Something may end in a cluster that the file does not reach.
        for (long c = counts.Length - 1; c >= start; c--)
            if (counts[c] != 0)
                start = c + 1;
        var used = new SortedSet<long>();
        ulong max = RefcountCodec.Max(order);
        for (long c = 0; c < counts.Length; c++)
        {
            if (counts[c] == 0)
                continue;
            if (counts[c] > max)
                throw new ImageException(ImageErrorKind.InvalidArgument,
                    $"Cannot decrease refcount entry width to {1 << order} bits: Cluster at offset {Hex(c << _clusterBits)} has a refcount of {counts[c]}",
                    FileName) { Errno = 22 };
            used.Add(c / per);
        }
        long blocks = 0, tableClusters = 0;
        for (; ; )
        {
            for (long i = start / per; i <= (start + blocks + tableClusters) / per; i++)
                used.Add(i);
            long t = DivUp((used.Max + 1) * 8, _clusterSize);
            if (used.Count == blocks && t == tableClusters)
                break;
            (blocks, tableClusters) = (used.Count, t);
        }
        if (tableClusters << _clusterBits > MaxRefcountTableBytes)
            throw new ImageException(ImageErrorKind.Unsupported, "File too large", FileName) { Errno = 27 };
        var table = new ulong[(tableClusters << _clusterBits) / 8];
        EnsureFileLength((start + blocks + tableClusters) << _clusterBits);
        long at = start;
        byte[] block = new byte[_clusterSize];
        foreach (long i in used)
        {
            Array.Clear(block);
            for (long c = i * per; c < (i + 1) * per; c++)
            {
                ulong n = c >= start && c < start + blocks + tableClusters ? 1 : counts[c];
                if (n != 0)
                    RefcountCodec.Set(block, order, (int)(c - i * per), n);
                else if (c >= counts.Length && c >= start + blocks + tableClusters)
                    break;
            }
            table[i] = (ulong)at << _clusterBits;
            _file.Write(at << _clusterBits, block);
            at++;
        }
        WriteTable(at << _clusterBits, table);
        _file.Flush();
        WriteCountFields((ulong)at << _clusterBits, (uint)tableClusters, order);
        _refcounts.Load(table, order);
        _file.Flush();
        MapMetadata();
    }

    private bool CanFileGrow()
    {
        var bottom = _file;
        while (bottom.Storage is { } below)
            bottom = below;
        return bottom is Protocols.File.FileDevice { DriverName: "file" };
    }

    /// <summary>The first cluster behind the table and blocks that hold until the header names others.</summary>
    private long EndOfCounts()
    {
        long clusters = _file.Length >> _clusterBits;
        long end = Math.Max(1, (long)(Header.RefcountTableOffset >> _clusterBits) + Header.RefcountTableClusters);
        end = end > clusters ? 1 : end;
        foreach (ulong e in _refcounts.Table)
            if ((long)((e & ~RefcountTableReserved) >> _clusterBits) is var block && block < clusters)
                end = Math.Max(end, block + 1);
        return end;
    }

    /// <summary>Header bytes 48 to 100 (version 2: to 60): where counts are, and how wide. One write.</summary>
    private void WriteCountFields(ulong tableOffset, uint tableClusters, int order)
    {
        Span<byte> b = stackalloc byte[52];
        BinaryPrimitives.WriteUInt64BigEndian(b, tableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(b[8..], tableClusters);
        BinaryPrimitives.WriteUInt32BigEndian(b[12..], Header.SnapshotCount);
        BinaryPrimitives.WriteUInt64BigEndian(b[16..], Header.SnapshotsOffset);
        BinaryPrimitives.WriteUInt64BigEndian(b[24..], Header.Incompatible);
        BinaryPrimitives.WriteUInt64BigEndian(b[32..], Header.Compatible);
        BinaryPrimitives.WriteUInt64BigEndian(b[40..], Header.Autoclear);
        BinaryPrimitives.WriteUInt32BigEndian(b[48..], (uint)order);
        WritePointer(48, Header.Version >= 3 ? b : b[..12]);
        (Header.RefcountTableOffset, Header.RefcountTableClusters, Header.RefcountOrder) = (tableOffset, tableClusters, order);
    }
}
