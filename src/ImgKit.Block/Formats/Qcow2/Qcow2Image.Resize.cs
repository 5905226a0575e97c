using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    /// <inheritdoc/>
    public override void Resize(long length, ResizeOptions options = default)
    {
        CheckWritable();
        if ((length & 511) != 0 || length < 0)
            throw new ImageException(ImageErrorKind.InvalidArgument, "The new size must be a multiple of 512", FileName) { Errno = 22 };
        if (Header.Version < 3 && _snapshots.Count > 0)
            throw new ImageException(ImageErrorKind.Unsupported, "Can't resize a v2 image which has snapshots", FileName) { Errno = 95 };
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            if (length < _length && options.Preallocation != Preallocation.Off)
                throw new ImageException(ImageErrorKind.InvalidArgument, "Preallocation can't be used for shrinking an image", FileName) { Errno = 22 };
            if (L1EntriesFor(length) * 8 > MaxL1Bytes)
                throw new ImageException(ImageErrorKind.Unsupported, "Failed to grow the L1 table: File too large", FileName) { Errno = 27 };
            if (length != _length)
                BeforeResizeOfBitmaps();
            if (length > _length)
                ResizeBitmaps(length);
            if (length < _length)
                Shrink(length);
            else if (length > _length)
                GrowOrStay(length, options.Preallocation);
        }
    }

    private void GrowOrStay(long length, Preallocation preallocation)
    {
        long oldLength = _length;
        try
        {
            Grow(length, preallocation);
        }
        catch (Exception e) when (e is ImageException or IOException && _length != oldLength)
        {
            // A full disk. The size is as it was; what was preallocated behind it is space that the next growth gives back.
            WriteSize((ulong)oldLength);
            ResizeBitmaps(oldLength);
            throw;
        }
    }

    private void Shrink(long length)
    {
        CommitAll();
        // The size first: what lies behind it is nobody's from then on.
        long oldLength = _length;
        WriteSize((ulong)length);
        ResizeBitmaps(length);
        _file.Flush();
        long keep = AlignUp(length, _clusterSize);
        DropTables(L1EntriesFor(length));
        if (keep < oldLength && keep >> L1Shift < _l1.Length && (_l1[keep >> L1Shift] & OffsetMask) != 0)
            DiscardClusters(keep, Math.Min(AlignUp(oldLength, _clusterSize), ((keep >> L1Shift) + 1) << L1Shift), FreeReason.Request, full: true);
        CommitAll();
        if (_hasDataFile && (Header.Autoclear & AutoclearDataFileRaw) != 0)
            _data.Resize(length);
        TruncateFile();
    }

    /// <summary>Forgets the L2 tables from an L1 entry on, and all that they name.</summary>
    private void DropTables(long from)
    {
        var dropped = (ulong[])_l1.Clone();
        bool any = false;
        for (long i = from; i < _l1.Length; i++)
        {
            if (_l1[i] == 0)
                continue;
            _l1[i] = 0;
            _dirtyL1.Add(i);
            any = true;
        }
        if (!any)
            return;
        _l2.Reset(SlicesFor(_l1.Length));
        _file.DebugEvent(BlockDebugEvent.L1ShrinkWriteTable);
        FreeTree(dropped, FreeReason.Request, from);
    }

    /// <summary>Ends the file behind the last cluster in use; count blocks that count nothing go, too.</summary>
    private void TruncateFile()
    {
        long last = _refcounts.DropEmptyTail();
        long end = (last + 1) << _clusterBits;
        if (end < _file.Length)
        {
            _file.Flush();
            _file.Resize(end);
            _usedEnd = end;
        }
    }

    private void Grow(long length, Preallocation preallocation)
    {
        long oldLength = _length;
        // What is dropped is read from the file, and with it goes all that is in memory.
        CommitAll();
        // Machine state that was left behind the old end would become content.
        DropTables(L1EntriesFor(oldLength));
        long behind = AlignUp(oldLength, _clusterSize);
        if (behind >> L1Shift < _l1.Length && (_l1[behind >> L1Shift] & OffsetMask) != 0)
            DiscardClusters(behind, ((behind >> L1Shift) + 1) << L1Shift, FreeReason.Other, full: true);
        CommitAll();
        long needed = L1EntriesFor(length);
        if (_hasDataFile && ((Header.Autoclear & AutoclearDataFileRaw) != 0 || preallocation is Preallocation.Falloc or Preallocation.Full))
            _data.Resize(length, new ResizeOptions(preallocation is Preallocation.Falloc or Preallocation.Full ? preallocation : Preallocation.Off));
        if (needed > _l1.Length)
            GrowL1(needed, (ulong)length);
        else
            WriteSize((ulong)length);
        ZeroGained(oldLength, length);
        if (_hasDataFile && (Header.Autoclear & AutoclearDataFileRaw) != 0 && preallocation == Preallocation.Off)
            preallocation = Preallocation.Metadata;
        if (preallocation != Preallocation.Off)
            PreallocateAlone(oldLength, length - oldLength, preallocation);
        CommitAll();
    }

    /// <summary>The rest of the old last cluster, and what a longer backing file would show.</summary>
    private void ZeroGained(long oldLength, long length)
    {
        long end = Math.Min(AlignUp(oldLength, _clusterSize), length);
        if (_backing is { } backing && backing.Length > oldLength)
            end = Math.Max(end, Math.Min(AlignUp(backing.Length, _clusterSize), length));
        if (end > oldLength && !ReadsAsZero(oldLength, end - oldLength))
            ZeroGuest(oldLength, end - oldLength, ZeroOptions.MayUnmap);
    }

    /// <summary>Gives every cluster of a range space. It reads as zeroes afterwards (as before).</summary>
    internal void Preallocate(long offset, long length, Preallocation preallocation)
    {
        using var alone = _gate.EnterExclusive();
        PreallocateAlone(offset, length, preallocation);
    }

    private void PreallocateAlone(long offset, long length, Preallocation preallocation)
    {
        long first = offset >> _clusterBits, last = (offset + length - 1) >> _clusterBits;
        long c = first;
        lock (_meta)
        {
            while (c <= last)
            {
                BeforeMetadataChange();
                // The first cluster may be there already.
                if (LookupWritable(c << _clusterBits, 1).Length > 0)
                {
                    c++;
                    continue;
                }
                var slice = SliceForWrite(c << _clusterBits);
                int index = (int)c & ((1 << _sliceBits) - 1);
                long n = Math.Min(last - c + 1, (1L << _sliceBits) - index);
                var (host, got) = _hasDataFile ? (c << _clusterBits, n) : _refcounts.AllocateRun(n);
                // The space before the entries that name it: on a full disk nothing may lead behind the file's end.
                if (!_hasDataFile)
                    PreallocateSpace(host, got << _clusterBits, preallocation);
                slice = SliceForWrite(c << _clusterBits);
                for (int i = 0; i < got; i++)
                {
                    var (old, bitmap) = EntryAt(slice, index + i);
                    ulong entry = (ulong)(host + ((long)i << _clusterBits)) | Qcow2Layout.Copied;
                    if (_extended)
                        slice.SetExtendedEntry(index + i, entry, preallocation is Preallocation.Falloc or Preallocation.Full ? uint.MaxValue : bitmap & ~(ulong)uint.MaxValue);
                    else
                        slice.SetEntry(index + i, entry);
                    FreeEntry(old, FreeReason.Other);
                }
                c += got;
            }
            CommitAll();
        }
    }

    private void PreallocateSpace(long host, long bytes, Preallocation preallocation)
    {
        // Behind the file's end zeroes need no writing; before it there may be anything.
        long used = Math.Max(_file.Length, _usedEnd);
        if (host < used)
        {
            long n = Math.Min(bytes, used - host);
            _file.WriteZeroes(host, n);
            host += n;
            bytes -= n;
        }
        if (bytes == 0)
            return;
        if (_file.Length < host)
            _file.Resize(host);
        _file.Resize(host + bytes, new ResizeOptions(preallocation == Preallocation.Metadata ? Preallocation.Off : preallocation));
    }
}
