namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class RefcountStore
{
    private readonly record struct Freed(long Cluster, long Count, FreeReason Reason);

    private readonly record struct FreedBatch(int Epoch, List<Freed> Clusters);

    private List<Freed> _pending = [];
    private readonly Queue<FreedBatch> _durable = new();

    /// <summary>Clusters queued, for the decision to write metadata early.</summary>
    public long PendingClusters { get; private set; }

    /// <summary>Given up, and the file may still refer to them.</summary>
    public bool HasPending => _pending.Count > 0;

    /// <summary>Nothing in memory refers to the clusters any more (once each). Their counts go down when nothing in the file
    /// does either, and no request that began before uses them.</summary>
    public void Free(long offset, long clusters, FreeReason reason)
    {
        long c = offset >> _clusterBits;
        PendingClusters += clusters;
        if (_pending.Count > 0 && _pending[^1] is var last && last.Cluster + last.Count == c && last.Reason == reason)
            _pending[^1] = last with { Count = last.Count + clusters };
        else
            _pending.Add(new Freed(c, clusters, reason));
    }

    /// <summary>The file refers to none of what was queued so far.</summary>
    public void MarkPendingDurable(int epoch)
    {
        if (_pending.Count == 0)
            return;
        _durable.Enqueue(new FreedBatch(epoch, _pending));
        _pending = [];
    }

    /// <summary>Lowers the counts of what nobody uses any more.</summary>
    /// <param name="gate">tells who is still inside; null when nobody is.</param>
    /// <returns>true when a count changed.</returns>
    /// <exception cref="ImageException">the first count that could not be lowered: that space is lost, the rest is free.</exception>
    public bool Reclaim(RequestGate? gate)
    {
        bool any = false;
        Exception? failure = null;
        while (_durable.TryPeek(out var batch))
        {
            while (gate is not null && gate.Epoch - batch.Epoch < 2)
                if (!gate.TryAdvance())
                    return Done();
            _durable.Dequeue();
            foreach (var f in batch.Clusters)
            {
                PendingClusters -= f.Count;
                try
                {
                    Decrement(f.Cluster, f.Count, f.Reason);
                }
                catch (Exception e) when (e is ImageException or IOException)
                {
                    failure ??= e;
                }
            }
            any = true;
        }
        return Done();

        bool Done()
        {
            if (failure is not null)
                System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
            return any;
        }
    }

    /// <summary>Frees the blocks that count nothing but themselves: those at the end, and those that changed lately.</summary>
    /// <returns>the last cluster in use.</returns>
    public long DropEmptyTail()
    {
        long per = EntriesPerBlock;
        var dropped = new List<long>();
        long last = 0;
        for (long i = _table.Length - 1; i >= 0; i--)
        {
            if (BlockAt(i) is not { } b)
                continue;
            long own = b.Offset >> _clusterBits;
            long used = LastUsed(b.Data, own / per == i ? (int)(own % per) : -1);
            if (used >= 0)
            {
                // Its own place counts unless the block is dropped.
                last = i * per + Math.Max(used, own / per == i ? own % per : -1);
                break;
            }
            dropped.Add(i);
        }
        if (dropped.Count > 0)
            DropBlocks(dropped);
        DropEmptyInMemory();
        // Blocks may have lain behind what they count.
        for (long i = _table.Length - 1; i >= 0; i--)
        {
            if (BlockAt(i) is not { } b)
                continue;
            long used = LastUsed(b.Data, -1);
            if (used >= 0)
                return i * per + used;
        }
        return last;
    }

    /// <summary>Frees blocks among the others that count nothing but themselves. What lost its last count just now is in memory.</summary>
    private void DropEmptyInMemory()
    {
        var empty = new List<long>();
        do
        {
            empty.Clear();
            foreach (var (i, b) in _blocks)
            {
                long own = b.Offset >> _clusterBits;
                if (LastUsed(b.Data, own / EntriesPerBlock == i ? (int)(own % EntriesPerBlock) : -1) < 0)
                    empty.Add(i);
            }
            if (empty.Count > 0)
                DropBlocks(empty);
        }
        while (empty.Count > 0);
    }

    private long LastUsed(ReadOnlySpan<byte> block, int except)
    {
        for (int i = (int)EntriesPerBlock - 1; i >= 0; i--)
        {
            // Whole stretches of zeroes at once.
            if (i % 64 == 63 && ZeroBuffer.IsZero(block.Slice((int)((long)(i - 63) << _order >> 3), Math.Max(64 << _order >> 3, 1))))
            {
                i -= 63;
                continue;
            }
            if (i != except && RefcountCodec.Get(block, _order, i) != 0)
                return i;
        }
        return -1;
    }

    /// <summary>The table forgets blocks first, then their space is free.</summary>
    private void DropBlocks(List<long> indices)
    {
        var offsets = new List<long>();
        Write();
        foreach (long i in indices)
        {
            offsets.Add((long)(_table[i] & ~Qcow2Layout.RefcountTableReserved));
            _table[i] = 0;
            _blocks.Remove(i);
            _dirtyTableEntries.Add(i);
        }
        Write();
        _file.Flush();
        foreach (long offset in offsets)
        {
            long c = offset >> _clusterBits;
            // A block that counted itself is gone with its count.
            if (BlockAt(c / EntriesPerBlock) is not null)
                Decrement(c, 1, FreeReason.Other);
            else
                _image.Metadata.Remove(c, 1);
        }
        Write();
    }
}
