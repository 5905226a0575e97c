using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>Work on whole tables, for snapshots, sizes and repairs. All alone in the image, and under the metadata lock.</summary>
internal sealed partial class Qcow2Image
{
    private bool _unsafe;       // counts and tables do not agree, and the dirty bit says so

    /// <summary>Begins a change during which counts and tables do not agree: the dirty bit says so to whoever opens next.</summary>
    private void BeginUnsafe()
    {
        if (Header.Version < 3)
            return;
        if (!Header.HasFlag(IncompatDirty))
        {
            Header.Incompatible |= IncompatDirty;
            try
            {
                WriteFeatureBits();
            }
            catch
            {
                Header.Incompatible &= ~IncompatDirty;
                throw;
            }
            _file.Flush();
        }
        _unsafe = true;
    }

    private void EndUnsafe()
    {
        if (!_unsafe)
            return;
        _file.Flush();
        if (!_marksDirty)
        {
            Header.Incompatible &= ~IncompatDirty;
            WriteFeatureBits();
        }
        _unsafe = false;
    }

    /// <summary>Allocates space for a table.</summary>
    private long AllocateTable(long bytes)
    {
        long clusters = DivUp(Math.Max(bytes, 1), _clusterSize);
        long offset = _refcounts.Allocate(clusters);
        CheckOverlap(offset, clusters << _clusterBits);
        EnsureFileLength(offset + (clusters << _clusterBits));
        Metadata.Add(offset >> _clusterBits, clusters);
        return offset;
    }

    private void WriteTable(long offset, ulong[] table)
    {
        byte[] bytes = new byte[Math.Max(table.Length * 8, 1)];
        for (int i = 0; i < table.Length; i++)
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(i * 8), table[i]);
        _file.Write(offset, bytes);
    }

    /// <summary>Puts an L1 table in place of the present one, and the disk's size with it, by one write to the header.</summary>
    private void ReplaceL1(ulong[] l1, ulong size)
    {
        long offset = AllocateTable(l1.Length * 8L);
        _refcounts.Write();
        _file.DebugEvent(BlockDebugEvent.L1GrowWriteTable);
        WriteTable(offset, l1);
        _file.Flush();
        _file.DebugEvent(BlockDebugEvent.L1GrowActivateTable);
        long oldOffset = (long)Header.L1TableOffset, oldEntries = Header.L1Size;
        Span<byte> b = stackalloc byte[24];
        BinaryPrimitives.WriteUInt64BigEndian(b, size);
        BinaryPrimitives.WriteUInt32BigEndian(b[8..], Header.CryptMethod);
        BinaryPrimitives.WriteUInt32BigEndian(b[12..], (uint)l1.Length);
        BinaryPrimitives.WriteUInt64BigEndian(b[16..], (ulong)offset);
        WritePointer(24, b);
        // From here on this is the table that the file names, whether or not it is on stable storage yet.
        (Header.Size, Header.L1Size, Header.L1TableOffset) = (size, (uint)l1.Length, (ulong)offset);
        Volatile.Write(ref _length, (long)size);
        _l1 = l1;
        _dirtyL1.Clear();
        _l2.Reset(SlicesFor(l1.Length));
        _file.Flush();
        // A table without entries has no cluster, wherever the header says that it is.
        if (oldEntries > 0)
            _refcounts.Decrement(oldOffset >> _clusterBits, DivUp(oldEntries * 8, _clusterSize), FreeReason.Other);
    }

    /// <summary>A longer L1 table. Alone.</summary>
    private void GrowL1(long entries, ulong size)
    {
        lock (_meta)
        {
            if (entries * 8 > MaxL1Bytes)
                throw new ImageException(ImageErrorKind.Unsupported, "File too large", FileName)
                {
                    Errno = 27,
                    Operation = "the L1 table would be too large",
                };
            if (entries <= _l1.Length)
                return;
            CommitAll();
            _file.DebugEvent(BlockDebugEvent.L1GrowAllocTable);
            var l1 = new ulong[entries];
            _l1.CopyTo(l1, 0);
            ReplaceL1(l1, size);
            _refcounts.Write();
        }
    }

    private void WriteSize(ulong size)
    {
        Span<byte> b = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(b, size);
        WritePointer(24, b);
        Header.Size = size;
        Volatile.Write(ref _length, (long)size);
    }

    private byte[] ReadL2(ulong l1Entry, long l1Index, byte[]? buffer)
    {
        long offset = (long)(l1Entry & OffsetMask);
        if ((offset & _clusterMask) != 0)
            throw SignalCorruption(true, offset, $"L2 table offset {Hex(offset)} unaligned (L1 index: {Hex(l1Index)})");
        buffer ??= GC.AllocateUninitializedArray<byte>(_clusterSize);
        ReadHost(_file, offset, buffer);
        return buffer;
    }

    private ulong EntryIn(byte[] table, int index) => BinaryPrimitives.ReadUInt64BigEndian(table.AsSpan(index * EntryBytes));

    private int EntriesPerTable => 1 << _l2Bits;

    /// <summary>Makes sure that everything a table names is counted: nothing is changed for a table that is damaged.</summary>
    private void CheckTree(ulong[] l1)
    {
        byte[]? buffer = null;
        for (int i = 0; i < l1.Length; i++)
        {
            if ((l1[i] & OffsetMask) == 0)
                continue;
            buffer = ReadL2(l1[i], i, buffer);
            CheckCounted((long)(l1[i] & OffsetMask));
            for (int k = 0; k < EntriesPerTable; k++)
            {
                ulong entry = EntryIn(buffer, k);
                if ((entry & Compressed) != 0)
                {
                    CheckCounted(ParseCompressed(entry).Offset);
                }
                else if ((entry & OffsetMask) != 0)
                {
                    CheckHostAligned(entry);
                    CheckCounted((long)(entry & OffsetMask));
                }
            }
        }
    }

    private void CheckCounted(long offset)
    {
        ulong count = _refcounts.Get(offset >> _clusterBits);
        if (count != 0 && count < _refcounts.MaxCount)
            return;
        int errno = count != 0 ? 34 : (offset >> _clusterBits) / _refcounts.EntriesPerBlock * 8 >= MaxRefcountTableBytes ? 27 : 11;
        throw new ImageException(ImageErrorKind.Corrupt, HostErrors.Text(errno), FileName, offset)
        {
            Errno = errno,
            Operation = count == 0 ? $"the cluster at {Hex(offset)} is in use, but not counted" : $"the cluster at {Hex(offset)} has too many references",
        };
    }

    /// <summary>One more reference to everything that a table names. What is on disk counts: nothing may be dirty.</summary>
    private void ReferTree(ulong[] l1)
    {
        byte[]? buffer = null;
        for (int i = 0; i < l1.Length; i++)
        {
            if ((l1[i] & OffsetMask) == 0)
                continue;
            buffer = ReadL2(l1[i], i, buffer);
            _refcounts.Increment((long)(l1[i] & OffsetMask) >> _clusterBits, 1);
            for (int k = 0; k < EntriesPerTable; k++)
            {
                ulong entry = EntryIn(buffer, k);
                if ((entry & Compressed) != 0)
                {
                    var (at, length) = ParseCompressed(entry);
                    _refcounts.Increment(at >> _clusterBits, ((at + length - 1) >> _clusterBits) - (at >> _clusterBits) + 1);
                }
                else if ((entry & OffsetMask) != 0)
                {
                    CheckHostAligned(entry);
                    _refcounts.Increment((long)(entry & OffsetMask) >> _clusterBits, 1);
                }
            }
        }
    }

    private void CheckHostAligned(ulong entry)
    {
        long host = (long)(entry & OffsetMask);
        if ((host & _clusterMask) != 0)
            throw SignalCorruption(true, host, $"Cluster offset {Hex(host)} unaligned");
    }

    /// <summary>Queues everything that a table names, the L2 tables included.</summary>
    private void FreeTree(ulong[] l1, FreeReason reason, long from = 0)
    {
        byte[]? buffer = null;
        for (long i = from; i < l1.Length; i++)
        {
            if ((l1[i] & OffsetMask) == 0)
                continue;
            buffer = ReadL2(l1[i], i, buffer);
            for (int k = 0; k < EntriesPerTable; k++)
            {
                ulong entry = EntryIn(buffer, k);
                if (entry == 0)
                    continue;
                if ((entry & Compressed) == 0 && (entry & OffsetMask) != 0 && !_hasDataFile)
                    CheckHostAligned(entry);
                FreeEntry(entry, reason);
            }
            _refcounts.Free((long)(l1[i] & OffsetMask), 1, FreeReason.Other);
        }
    }

    /// <summary>Makes the copied flags of the active tables say what the counts say. Nothing may be dirty but counts.</summary>
    private void FixCopiedFlags()
    {
        byte[]? buffer = null;
        for (int i = 0; i < _l1.Length; i++)
        {
            if ((_l1[i] & OffsetMask) == 0)
                continue;
            buffer = ReadL2(_l1[i], i, buffer);
            bool changed = false;
            for (int k = 0; k < EntriesPerTable && !_hasDataFile; k++)
            {
                ulong entry = EntryIn(buffer, k);
                if ((entry & Compressed) != 0 || (entry & OffsetMask) == 0)
                    continue;
                ulong right = _refcounts.Get((long)(entry & OffsetMask) >> _clusterBits) == 1 ? entry | Copied : entry & ~Copied;
                if (right == entry)
                    continue;
                BinaryPrimitives.WriteUInt64BigEndian(buffer.AsSpan(k * EntryBytes), right);
                changed = true;
            }
            long table = (long)(_l1[i] & OffsetMask);
            if (changed)
            {
                CheckOverlap(table, _clusterSize, MetadataKind.ActiveL2);
                _file.Write(table, buffer);
            }
            ulong fixedEntry = _refcounts.Get(table >> _clusterBits) == 1 ? _l1[i] | Copied : _l1[i] & ~Copied;
            if (fixedEntry == _l1[i])
                continue;
            _l1[i] = fixedEntry;
            _dirtyL1.Add(i);
        }
        if (_dirtyL1.Count > 0)
            WriteL1Entries();
        _l2.Reset(SlicesFor(_l1.Length));
    }
}
