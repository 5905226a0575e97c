using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : IAmendableImage
{
    /// <inheritdoc/>
    public void Amend(BlockOptions options, bool force, Action<long, long>? progress)
    {
        CheckWritable();
        var o = options.Clone();
        foreach (var (key, _) in o.Entries)
            if (key.StartsWith("encrypt.", StringComparison.Ordinal))
                throw AmendError("Can't amend encryption options - encryption not present");
        uint version = o.TakeString("compat") switch
        {
            null => Header.Version,
            "0.10" or "v2" => 2,
            "1.1" or "v3" => 3,
            var other => throw AmendError($"Unknown compatibility level {other}"),
        };
        long size = o.TakeSize("size") is { } s ? AlignUp(s, 512) : _length;
        bool setsBacking = o.Contains("backing_file") || o.Contains("backing_fmt");
        string? backing = o.TakeString("backing_file"), backingFormat = o.TakeString("backing_fmt");
        bool lazy = o.TakeBool("lazy_refcounts") ?? (Header.Compatible & CompatLazyRefcounts) != 0;
        long refcountBits = o.TakeNumber("refcount_bits") ?? 1L << Header.RefcountOrder;
        if (refcountBits is < 1 or > 64 || !long.IsPow2(refcountBits))
            throw AmendError("Refcount width must be a power of two and may not exceed 64 bits");
        bool setsDataFile = o.Contains("data_file");
        string? dataFile = o.TakeString("data_file");
        if (setsDataFile && !_hasDataFile)
            throw AmendError("data-file can only be set for images that use an external data file");
        bool raw = (Header.Autoclear & AutoclearDataFileRaw) != 0;
        if (o.TakeBool("data_file_raw") is { } wantsRaw)
        {
            if (wantsRaw && !raw)
                throw AmendError("data-file-raw cannot be set on existing images");
            raw = wantsRaw;
        }
        foreach (var (key, _) in o.Entries)
            throw AmendError($"Invalid parameter '{key}'");
        AmendChecked(version, size, setsBacking, backing, backingFormat, lazy, (int)long.Log2(refcountBits), setsDataFile, dataFile, raw, progress);
    }

    private void AmendChecked(uint version, long size, bool setsBacking, string? backing, string? backingFormat, bool lazy, int refcountOrder,
        bool setsDataFile, string? dataFile, bool raw, Action<long, long>? progress)
    {
        if (version > Header.Version)
            Upgrade(version);
        if (refcountOrder != Header.RefcountOrder)
        {
            if (version < 3 && refcountOrder != 4)
                throw AmendError("Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)");
            using var alone = _gate.EnterExclusive();
            lock (_meta)
            {
                CommitAll();
                Rebuild(PresentCounts(), refcountOrder);
            }
        }
        if (raw != ((Header.Autoclear & AutoclearDataFileRaw) != 0) || setsDataFile)
        {
            using var alone = _gate.EnterExclusive();
            Header.Autoclear = raw ? Header.Autoclear | AutoclearDataFileRaw : Header.Autoclear & ~AutoclearDataFileRaw;
            if (setsDataFile)
                Header.DataFile = string.IsNullOrEmpty(dataFile) ? null : dataFile;
            WriteHeader();
        }
        if (setsBacking)
        {
            if ((backing ?? Header.BackingFile ?? "") != (Header.BackingFile ?? "") || (backingFormat ?? Header.BackingFormat ?? "") != (Header.BackingFormat ?? ""))
                throw AmendError("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
        }
        if (lazy != ((Header.Compatible & CompatLazyRefcounts) != 0))
            SetLazyRefcounts(lazy, version);
        if (size != _length)
            Resize(size);
        if (version < Header.Version)
            Downgrade(version, progress);
    }

    private void SetLazyRefcounts(bool lazy, uint version)
    {
        if (lazy && version < 3)
            throw AmendError("Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            if (!lazy)
            {
                CommitAll();
                if (_marksDirty)
                {
                    _file.Flush();
                    Header.Incompatible &= ~IncompatDirty;
                    _marksDirty = false;
                }
            }
            Header.Compatible = lazy ? Header.Compatible | CompatLazyRefcounts : Header.Compatible & ~CompatLazyRefcounts;
            WriteHeader();
            _lazyRefcounts = lazy;
        }
    }

    private void Upgrade(uint version)
    {
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            CommitAll();
            // Version 3 wants the disk size in each entry.
            if (_snapshots.Exists(s => s.IsIncomplete))
            {
                WriteSnapshotTable(_snapshots);
                foreach (var s in _snapshots)
                    s.IsIncomplete = false;
                _refcounts.Write();
            }
            Header.Version = version;
            try
            {
                WriteHeader();
            }
            catch
            {
                Header.Version = 2;
                throw;
            }
        }
    }

    private void Downgrade(uint version, Action<long, long>? progress)
    {
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            if (Header.RefcountOrder != 4)
                throw AmendError("compat=0.10 requires refcount_bits=16", ImageErrorKind.Unsupported);
            if (_hasDataFile)
                throw AmendError("Cannot downgrade an image with a data file", ImageErrorKind.Unsupported);
            foreach (var s in _snapshots)
                if (s.VmStateSize > uint.MaxValue || (long)s.DiskSize != _length)
                    throw AmendError("Internal snapshots prevent downgrade of image", ImageErrorKind.Unsupported);
            CommitAll();
            if (Header.HasFlag(IncompatCompression))
            {
                if (HasCompressedClusters())
                    throw AmendError("Cannot downgrade an image with zstd compression type and existing compressed clusters", ImageErrorKind.Unsupported);
                Header.Incompatible &= ~IncompatCompression;
                Header.CompressionType = 0;
            }
            Header.Incompatible &= ~IncompatDirty;
            _marksDirty = false;
            if (Header.Incompatible != 0)
                throw AmendError($"Cannot downgrade an image with incompatible features {Hex(Header.Incompatible)} set", ImageErrorKind.Unsupported);
            if (_bitmaps.Count > 0)
            {
                _removedBitmaps.AddRange(_bitmaps);
                _bitmaps.Clear();
                ListChanged();
                StoreBitmaps();
            }
            ExpandZeroClusters(progress);
            (Header.Compatible, Header.Autoclear) = (0, 0);
            _lazyRefcounts = false;
            Header.Version = version;
            Header.UnknownFields = [];
            WriteHeader();
        }
    }

    private bool HasCompressedClusters()
    {
        byte[]? buffer = null;
        var tables = new List<ulong[]> { _l1 };
        foreach (var s in _snapshots)
            tables.Add(ReadSnapshotL1(s));
        foreach (var l1 in tables)
        {
            for (int i = 0; i < l1.Length; i++)
            {
                if ((l1[i] & OffsetMask) == 0)
                    continue;
                buffer = ReadL2(l1[i], i, buffer);
                for (int k = 0; k < EntriesPerTable; k++)
                    if ((EntryIn(buffer, k) & Compressed) != 0)
                        return true;
            }
        }
        return false;
    }

    /// <summary>Version 2 cannot say zero: such clusters become unallocated, or get zeroes written.</summary>
    private void ExpandZeroClusters(Action<long, long>? progress)
    {
        var done = new HashSet<long>();
        var tables = new List<ulong[]> { _l1 };
        foreach (var s in _snapshots)
        {
            try
            {
                tables.Add(ReadSnapshotL1(s));
            }
            catch (ImageException e)
            {
                _warn(e.Message);
                throw new ImageException(e.Kind, $"Failed to turn zero into data clusters: {HostErrors.Text(e.Errno)}", FileName, inner: e) { Errno = e.Errno };
            }
        }
        long total = tables.Sum(t => (long)t.Length), at = 0;
        byte[]? buffer = null;
        foreach (var l1 in tables)
        {
            for (int i = 0; i < l1.Length; i++)
            {
                progress?.Invoke(++at, total);
                long table = (long)(l1[i] & OffsetMask);
                if (table == 0 || !done.Add(table))
                    continue;
                buffer = ReadL2(l1[i], i, buffer);
                ExpandTable(buffer, table);
            }
        }
        CommitAll();
        _l2.Reset(SlicesFor(_l1.Length));
    }

    private void ExpandTable(byte[] buffer, long table)
    {
        // A table that several L1 tables share refers to its clusters that often.
        ulong sharers = _refcounts.Get(table >> _clusterBits);
        bool changed = false;
        for (int k = 0; k < EntriesPerTable; k++)
        {
            ulong entry = EntryIn(buffer, k);
            if ((entry & Compressed) != 0 || (entry & ZeroFlag) == 0)
                continue;
            ulong replaced = 0;
            long host = (long)(entry & OffsetMask);
            if (_backing is null && host == 0)
            {
                replaced = 0;
            }
            else if (host != 0 && _refcounts.Get(host >> _clusterBits) == sharers)
            {
                // Space that nobody else uses.
                _file.WriteZeroes(host, _clusterSize);
                replaced = entry & ~ZeroFlag;
            }
            else if (host != 0 && _backing is null)
            {
                for (ulong n = 0; n < sharers; n++)
                    _refcounts.Free(host, 1, FreeReason.Other);
            }
            else
            {
                long space = _refcounts.Allocate(1);
                for (ulong n = 1; n < sharers; n++)
                    _refcounts.Increment(space >> _clusterBits, 1);
                EnsureFileLength(space + _clusterSize);
                CheckOverlap(space, _clusterSize);
                _file.WriteZeroes(space, _clusterSize);
                replaced = (ulong)space | (sharers == 1 ? Copied : 0);
                if (host != 0)
                    for (ulong n = 0; n < sharers; n++)
                        _refcounts.Free(host, 1, FreeReason.Other);
            }
            System.Buffers.Binary.BinaryPrimitives.WriteUInt64BigEndian(buffer.AsSpan(k * EntryBytes), replaced);
            changed = true;
        }
        if (!changed)
            return;
        _refcounts.Write();
        _file.Flush();
        _file.Write(table, buffer);
    }

    /// <summary>The counts as the image has them, without those of table and blocks themselves.</summary>
    private ReferenceCounts PresentCounts()
    {
        long clusters = DivUp(_file.Length, _clusterSize);
        var counts = new ReferenceCounts(clusters);
        for (long c = 0; c < clusters; c++)
            if (_refcounts.Get(c) is var n and > 0)
                counts.Set(c, n);
        void Drop(long offset, long bytes)
        {
            for (long c = offset >> _clusterBits; offset >= 0 && c < Math.Min(DivUp(offset + bytes, _clusterSize), clusters); c++)
                if (counts[c] > 0)
                    counts.Set(c, counts[c] - 1);
        }
        Drop((long)Header.RefcountTableOffset, (long)Header.RefcountTableClusters << _clusterBits);
        foreach (ulong e in _refcounts.Table)
            if (e != 0)
                Drop((long)(e & ~RefcountTableReserved), _clusterSize);
        return counts;
    }

    private ImageException AmendError(string message, ImageErrorKind kind = ImageErrorKind.InvalidArgument) =>
        new(kind, message, FileName) { Errno = kind == ImageErrorKind.Unsupported ? 95 : 22 };
}
