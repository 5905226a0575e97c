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
    public bool Reclaim(RequestGate? gate)
    {
        bool any = false;
        while (_durable.TryPeek(out var batch))
        {
            while (gate is not null && gate.Epoch - batch.Epoch < 2)
                if (!gate.TryAdvance())
                    return any;
            _durable.Dequeue();
            foreach (var f in batch.Clusters)
            {
                PendingClusters -= f.Count;
                Decrement(f.Cluster, f.Count, f.Reason);
            }
            any = true;
        }
        return any;
    }
}
