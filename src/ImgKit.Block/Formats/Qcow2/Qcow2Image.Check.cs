using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : ICheckableImage
{
    /// <inheritdoc/>
    public CheckResult Check(CheckRepair repair, Action<string> report)
    {
        if (Header.CryptMethod != 0)
            CheckUsable();
        if (repair != CheckRepair.None && !_writable)
            throw new ImageException(ImageErrorKind.ReadOnly, "Block node is read-only", FileName) { Errno = 30 };
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            if (_writable && !_corrupt)
                CommitAll();
            return CheckAlone(repair, report);
        }
    }

    private CheckResult CheckAlone(CheckRepair repair, Action<string> report)
    {
        bool errors = repair == CheckRepair.All, leaks = repair != CheckRepair.None;
        var result = new CheckResult { TotalClusters = DivUp(_length, _clusterSize) };
        int shortened = CheckSnapshotTable(result, errors, report);
        if (_writable)
            MapMetadata();
        var checker = CountReferences(result, errors, report);
        var before = Copy(result);
        long highest = CompareCounts(checker, result, CheckRepair.None, report);
        if (checker.MustRebuild && errors)
        {
            var old = Copy(result);
            report("Rebuilding refcount structure");
            Rebuild(checker.Counts, Header.RefcountOrder);
            (result.Corruptions, result.Leaks) = (0, 0);
            (result.AllocatedClusters, result.FragmentedClusters, result.CompressedClusters) = (0, 0, 0);
            var again = CountReferences(result, false, report);
            // The old counts' own clusters are free now; that they are is no finding.
            highest = CompareCounts(again, new CheckResult(), CheckRepair.Leaks, report);
            _refcounts.Write();
            if (again.MustRebuild)
            {
                report("ERROR rebuilt refcount structure is still broken");
                result.CheckErrors++;
            }
            result.CorruptionsFixed += Math.Max(old.Corruptions - result.Corruptions, 0);
            result.LeaksFixed += Math.Max(old.Leaks - result.Leaks, 0);
        }
        else if (leaks)
        {
            if (checker.MustRebuild)
            {
                report("ERROR need to rebuild refcount structures");
                throw new ImageException(ImageErrorKind.Corrupt, "Input/output error", FileName) { Errno = 5 };
            }
            if (result.Leaks > 0 || result.Corruptions > 0)
            {
                result = before;
                highest = CompareCounts(checker, result, repair, report);
                _refcounts.Write();
            }
        }
        CheckCopiedFlags(result, repair, report);
        CheckSnapshotEntries(result, shortened, errors, report);
        result.ImageEndOffset = (highest + 1) << _clusterBits;
        if (leaks && result.CheckErrors == 0 && result.Corruptions == 0)
            MarkWhole();
        if (_writable && leaks)
            MapMetadata();
        return result;
    }

    private static CheckResult Copy(CheckResult r) => new()
    {
        Corruptions = r.Corruptions,
        Leaks = r.Leaks,
        CheckErrors = r.CheckErrors,
        CorruptionsFixed = r.CorruptionsFixed,
        LeaksFixed = r.LeaksFixed,
        TotalClusters = r.TotalClusters,
        AllocatedClusters = r.AllocatedClusters,
        FragmentedClusters = r.FragmentedClusters,
        CompressedClusters = r.CompressedClusters,
    };

    /// <summary>Neither dirty nor corrupt any more.</summary>
    private void MarkWhole()
    {
        if (Header.Version < 3 || !Header.HasFlag(IncompatDirty | IncompatCorrupt))
            return;
        _file.Flush();
        Header.Incompatible &= ~(IncompatDirty | IncompatCorrupt);
        WriteFeatureBits();
        _file.Flush();
        _marksDirty = false;
        _corrupt = _signalled = false;
    }

    /// <summary>Everything that refers to clusters, in the peer's order.</summary>
    private Qcow2Checker CountReferences(CheckResult result, bool fixErrors, Action<string> report)
    {
        var checker = new Qcow2Checker(this, _file, _hasDataFile, result, fixErrors, report);
        checker.Refer(0, _clusterSize);
        checker.CheckL1(_l1, (long)Header.L1TableOffset, active: true);
        if (_hasDataFile && _snapshots.Count > 0)
        {
            report($"ERROR {_snapshots.Count} snapshots in image with data file");
            result.Corruptions++;
        }
        foreach (var s in _snapshots)
        {
            if ((s.L1TableOffset & (ulong)_clusterMask) != 0 || s.L1TableOffset > long.MaxValue - (ulong)MaxL1Bytes)
            {
                report($"ERROR snapshot {s.Id} ({s.Name}) l1_offset={Hex(s.L1TableOffset)}: L1 table is not cluster aligned; "
                    + "snapshot table entry corrupted");
                result.Corruptions++;
                continue;
            }
            if (s.L1Size * 8L > MaxL1Bytes)
            {
                report($"ERROR snapshot {s.Id} ({s.Name}) l1_size={Hex(s.L1Size)}: L1 table is too large; snapshot table entry corrupted");
                result.Corruptions++;
                continue;
            }
            checker.CheckL1(ReadTable((long)s.L1TableOffset, s.L1Size), (long)s.L1TableOffset, active: false);
        }
        checker.Refer((long)Header.SnapshotsOffset, _snapshotTableBytes);
        if (Header.Crypto is { Length: 16 } crypto)
            checker.Refer(BinaryPrimitives.ReadInt64BigEndian(crypto), BinaryPrimitives.ReadInt64BigEndian(crypto.AsSpan(8)));
        CountBitmaps(checker, result, report);
        checker.Refer((long)Header.RefcountTableOffset, (long)Header.RefcountTableClusters << _clusterBits);
        checker.CheckBlocks(_refcounts.Table);
        return checker;
    }

    private void CountBitmaps(Qcow2Checker checker, CheckResult result, Action<string> report)
    {
        if (Header.Bitmaps is not { } e)
            return;
        checker.Refer((long)e.DirectoryOffset, (long)e.DirectorySize);
        foreach (var b in _bitmaps)
        {
            if (b.TableOffset == 0)
                continue;
            checker.Refer(b.TableOffset, b.TableEntries * 8L);
            foreach (ulong entry in ReadBitmapTable(b))
            {
                if ((entry & 0xFF000000000001FE) != 0 || ((entry & OffsetMask) != 0 && (entry & 1) != 0))
                {
                    result.Corruptions++;
                    continue;
                }
                checker.Refer((long)(entry & OffsetMask), (entry & OffsetMask) != 0 ? _clusterSize : 0);
            }
        }
    }

    /// <summary>Compares the image's counts with those counted.</summary>
    /// <returns>the last cluster in use.</returns>
    private long CompareCounts(Qcow2Checker checker, CheckResult result, CheckRepair repair, Action<string> report)
    {
        long highest = 0;
        long n = checker.Counts.Length;
        for (long c = 0; c < n; c++)
        {
            ulong stored, counted = checker.Counts[c];
            try
            {
                stored = _refcounts.Get(c);
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                report($"Can't get refcount for cluster {c}: {e.Message}");
                result.CheckErrors++;
                continue;
            }
            if (stored > 0 || counted > 0)
                highest = c;
            if (stored == counted)
                continue;
            bool fix = false;
            if (stored == 0)
                checker.MustRebuild = true;
            else if (stored > counted)
                fix = repair != CheckRepair.None;
            else
                fix = repair == CheckRepair.All;
            report($"{(fix ? "Repairing" : stored < counted ? "ERROR" : "Leaked")} cluster {c} refcount={stored} reference={counted}");
            if (fix)
            {
                _refcounts.Repair(c, counted);
                if (stored > counted)
                    result.LeaksFixed++;
                else
                    result.CorruptionsFixed++;
                continue;
            }
            if (stored < counted)
                result.Corruptions++;
            else
                result.Leaks++;
        }
        return highest;
    }

    private void CheckCopiedFlags(CheckResult result, CheckRepair repair, Action<string> report)
    {
        // Counts that are as they should be tell what the flags should be.
        bool fix = repair != CheckRepair.None && result.CheckErrors == 0 && result.Corruptions == 0 && result.Leaks == 0;
        byte[]? buffer = null;
        for (int i = 0; i < _l1.Length; i++)
        {
            long table = (long)(_l1[i] & OffsetMask);
            if (table == 0)
                continue;
            if ((table & _clusterMask) != 0)
                continue;       // reported before
            ulong count = _refcounts.Get(table >> _clusterBits);
            if (count == 1 != ((_l1[i] & Copied) != 0))
            {
                report($"{(fix ? "Repairing" : "ERROR")} OFLAG_COPIED L2 cluster: l1_index={i} l1_entry={_l1[i]:x} refcount={count}");
                if (fix)
                {
                    _l1[i] ^= Copied;
                    _dirtyL1.Add(i);
                    result.CorruptionsFixed++;
                }
                else
                {
                    result.Corruptions++;
                }
            }
            if (_hasDataFile || table >= _file.Length)
                continue;
            buffer = ReadL2(_l1[i], i, buffer);
            bool changed = false;
            for (int k = 0; k < EntriesPerTable; k++)
            {
                ulong entry = EntryIn(buffer, k);
                if ((entry & OffsetMask) == 0 || (entry & Compressed) != 0)
                    continue;
                count = _refcounts.Get((long)(entry & OffsetMask) >> _clusterBits);
                if (count == 1 == ((entry & Copied) != 0))
                    continue;
                report($"{(fix ? "Repairing" : "ERROR")} OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={count}");
                if (!fix)
                {
                    result.Corruptions++;
                    continue;
                }
                BinaryPrimitives.WriteUInt64BigEndian(buffer.AsSpan(k * EntryBytes), entry ^ Copied);
                changed = true;
                result.CorruptionsFixed++;
            }
            if (changed)
                _file.Write(table, buffer);
        }
        if (_dirtyL1.Count > 0)
            WriteL1Entries();
        if (fix)
            _l2.Reset(SlicesFor(_l1.Length));
    }

    /// <summary>Overwrites an L2 entry in the file.</summary>
    internal bool RepairEntry(long table, int index, ulong entry, ulong bitmap)
    {
        Span<byte> b = stackalloc byte[16];
        BinaryPrimitives.WriteUInt64BigEndian(b, entry);
        BinaryPrimitives.WriteUInt64BigEndian(b[8..], bitmap);
        _file.Write(table + (long)index * EntryBytes, b[..EntryBytes]);
        _l2.Reset(SlicesFor(_l1.Length));
        return true;
    }

    private void RepairDirty()
    {
        CheckResult result;
        lock (_meta)
            result = CheckAlone(CheckRepair.All, _print);
        if (result.CheckErrors > 0 || result.Corruptions > 0)
            throw new ImageException(ImageErrorKind.Corrupt, "Could not repair dirty image: Input/output error", FileName) { Errno = 5 };
    }
}
