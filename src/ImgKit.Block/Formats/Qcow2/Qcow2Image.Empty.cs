using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : IEmptyableImage
{
    /// <inheritdoc/>
    public void MakeEmpty()
    {
        CheckWritable();
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            CommitAll();
            if (CanEmptyAtOnce())
            {
                EmptyAtOnce();
                return;
            }
            DropTables(0);
            CommitAll();
            TruncateFile();
        }
    }

    private long L1Clusters => DivUp(_l1.Length * 8L, _clusterSize);

    /// <summary>The active tables are all that holds clusters, and one block counts what remains. Version 3, for the dirty bit.</summary>
    private bool CanEmptyAtOnce() => Header.Version >= 3 && _snapshots.Count == 0 && Header.Bitmaps is null && Header.Crypto is null && !_hasDataFile
        && 3 + L1Clusters <= _refcounts.EntriesPerBlock;

    /// <summary>
    /// Lays the image out as a new one, without a look at what there was: header, refcount table, refcount block, L1 table. The dirty
    /// bit stands from before the L1 table is cleared until counts are right again; the L1 table is cleared in the file before
    /// anything that it named may be overwritten.
    /// </summary>
    private void EmptyAtOnce()
    {
        BeginUnsafe();
        try
        {
            long l1Clusters = L1Clusters, tableOffset = _clusterSize, blockOffset = 2L * _clusterSize, l1Offset = 3L * _clusterSize;
            _file.DebugEvent(BlockDebugEvent.L1Update);
            if (l1Clusters > 0)
                _file.WriteZeroes((long)Header.L1TableOffset, l1Clusters << _clusterBits);
            _file.Flush();
            Array.Clear(_l1);
            _l2.Reset(SlicesFor(_l1.Length));
            _file.DebugEvent(BlockDebugEvent.EmptyImagePrepare);
            _file.WriteZeroes(tableOffset, (2 + l1Clusters) << _clusterBits);
            _file.Flush();
            _file.DebugEvent(BlockDebugEvent.RefTableUpdate);
            WritePlacesOfTables(l1Offset, tableOffset);
            _file.Flush();
            _file.DebugEvent(BlockDebugEvent.RefBlockAlloc);
            byte[] block = new byte[_clusterSize];
            for (int c = 0; c < 3 + l1Clusters; c++)
                RefcountCodec.Set(block, Header.RefcountOrder, c, 1);
            _file.Write(blockOffset, block);
            _file.Flush();
            var table = new ulong[_clusterSize / 8];
            table[0] = (ulong)blockOffset;
            WriteTable(tableOffset, table);
            _refcounts.Load(table, Header.RefcountOrder);
            _usedEnd = (3 + l1Clusters) << _clusterBits;
            _file.Resize(_usedEnd);
            EndUnsafe();
            MapMetadata();
            Volatile.Write(ref _preallocated, 0);
        }
        catch
        {
            // What is in memory and what is in the file are two things now. The next to open the file sets it right.
            _corrupt = true;
            throw;
        }
    }

    /// <summary>Header bytes 36 to 60: where the L1 table and the refcount table are, and how long. One write.</summary>
    private void WritePlacesOfTables(long l1Offset, long refcountTableOffset)
    {
        Span<byte> b = stackalloc byte[24];
        BinaryPrimitives.WriteUInt32BigEndian(b, (uint)_l1.Length);
        BinaryPrimitives.WriteUInt64BigEndian(b[4..], (ulong)l1Offset);
        BinaryPrimitives.WriteUInt64BigEndian(b[12..], (ulong)refcountTableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(b[20..], 1);
        _file.Write(36, b);
        (Header.L1Size, Header.L1TableOffset) = ((uint)_l1.Length, (ulong)l1Offset);
        (Header.RefcountTableOffset, Header.RefcountTableClusters) = ((ulong)refcountTableOffset, 1);
    }
}
