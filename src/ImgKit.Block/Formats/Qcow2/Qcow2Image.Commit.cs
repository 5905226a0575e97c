using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    private readonly SortedSet<long> _dirtyL1 = [];
    private bool _lazyRefcounts;
    private bool _marksDirty;       // the dirty bit stands for counts that are not written

    /// <inheritdoc/>
    public override void Flush()
    {
        if (!_writable)
            return;
        CheckUsable();
        lock (_meta)
        {
            CommitMetadata();
            ReclaimFreed();
        }
        if (_hasDataFile)
            _data.Flush();
        _file.Flush();
    }

    /// <summary>Called before tables change, where metadata in memory may be written to make room. Under the metadata lock.</summary>
    private void BeforeMetadataChange()
    {
        if (_l2.DirtyCount > Math.Max(_l2.Limit - 2, 1) && _l2.DirtyCount > SlicesPerTable)
            CommitMetadata();
        if (_lazyRefcounts && !_marksDirty)
        {
            Header.Incompatible |= IncompatDirty;
            WriteFeatureBits();
            _file.Flush();
            _marksDirty = true;
        }
    }

    /// <summary>Called by the allocator: what was given up becomes usable before the file grows without end.</summary>
    internal void BeforeAllocation()
    {
        long limit = Math.Clamp((16L << 20) >> _clusterBits, 16, 4096);
        if (_refcounts.PendingClusters >= limit)
        {
            CommitMetadata();
            ReclaimFreed();
        }
    }

    private void ReclaimFreed()
    {
        if (_refcounts.Reclaim(_gate) && !_lazyRefcounts)
            _refcounts.Write();
    }

    /// <summary>
    /// Brings all changed metadata to the file in the order that keeps it whole: counts and data, then L2 tables, then L1
    /// entries; what was given up is safe to use again after that. Under the metadata lock.
    /// </summary>
    private void CommitMetadata()
    {
        RestorePointer();
        if (!_lazyRefcounts)
            _refcounts.Write();
        if (_l2.DirtyCount > 0)
        {
            // Counts and data first: an entry must never be there before what it names.
            if (_hasDataFile)
                _data.Flush();
            _file.Flush();
            foreach (var slice in _l2.DirtySlices())
            {
                if (slice.DirtyTo > slice.DirtyFrom)
                {
                    int from = slice.DirtyFrom & -512, to = Math.Min((slice.DirtyTo + 511) & -512, slice.Data.Length);
                    CheckOverlap(slice.FileOffset + from, to - from, MetadataKind.ActiveL2);
                    _file.DebugEvent(BlockDebugEvent.L2Update);
                    _file.Write(slice.FileOffset + from, slice.Data.AsSpan(from, to - from));
                }
                _l2.MarkClean(slice);
            }
        }
        if (_dirtyL1.Count > 0)
        {
            _file.Flush();
            WriteL1Entries();
        }
        if (_refcounts.HasPending)
        {
            _file.Flush();
            _refcounts.MarkPendingDurable(_gate.Epoch);
        }
    }

    private void WriteL1Entries()
    {
        Span<byte> sector = stackalloc byte[512];
        long written = -1;
        foreach (long i in _dirtyL1)
        {
            long first = i & ~63L;
            if (first == written)
                continue;
            written = first;
            int n = (int)Math.Min(64, _l1.Length - first);
            for (int k = 0; k < n; k++)
                BinaryPrimitives.WriteUInt64BigEndian(sector[(k * 8)..], _l1[first + k]);
            long at = (long)Header.L1TableOffset + first * 8;
            CheckOverlap(at, n * 8, MetadataKind.ActiveL1);
            _file.DebugEvent(BlockDebugEvent.L1Update);
            _file.Write(at, sector[..(n * 8)]);
        }
        _dirtyL1.Clear();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (_disposed)
            return;
        _disposed = true;
        StopCleaning();
        try
        {
            if (_writable && !_corrupt && Header.CryptMethod == 0)
                CloseWritable();
        }
        finally
        {
            if (_ownsDevices)
                DisposeDevices();
        }
    }

    private void DisposeDevices()
    {
        try
        {
            _backing?.Dispose();
            if (_hasDataFile && !ReferenceEquals(_data, _file))
                _data.Dispose();
        }
        finally
        {
            _file.Dispose();
        }
    }

    private void CloseWritable()
    {
        using var alone = _gate.EnterExclusive();
        lock (_meta)
        {
            if (!TryCommit())
                return;
            StoreBitmaps();
        }
        // A change of the whole image that ended half way leaves the mark to whoever opens next.
        if (_marksDirty && !_unsafe)
        {
            _file.Flush();
            Header.Incompatible &= ~IncompatDirty;
            WriteFeatureBits();
            _marksDirty = false;
        }
        try
        {
            if (_hasDataFile)
                _data.Flush();
            _file.Flush();
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            // All metadata is written. A close promises no more; who must know calls Flush before.
            return;
        }
    }

    /// <summary>The last commit. What fails is told in the peer's words, for a close has no result.</summary>
    private bool TryCommit()
    {
        bool tables = Told("L2 table", () =>
        {
            RestorePointer();
            if (_l2.DirtyCount > 0 || _dirtyL1.Count > 0)
                CommitMetadata();
            _file.Flush();
        });
        bool counts = Told("refcount block", () =>
        {
            if (tables)
                CommitAll();
            else
                _refcounts.Write();
            _file.Flush();
        });
        return tables && counts;
    }

    private bool Told(string what, Action action)
    {
        try
        {
            action();
            return true;
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            _warn($"Failed to flush the {what} cache: {HostErrors.Text(HostErrors.NumberOf(e))}");
            return false;
        }
    }

    /// <summary>Everything to the file, and every count as it should be. Alone, or when nobody is inside; under the metadata lock.</summary>
    private void CommitAll()
    {
        CommitMetadata();
        _refcounts.Reclaim(null);
        _refcounts.Write();
    }
}
