namespace ImgKit.Block.Formats.Qcow2;

/// <summary>References that a check has counted, per host cluster.</summary>
internal sealed class ReferenceCounts(long clusters)
{
    private ushort[] _counts = new ushort[clusters];
    private readonly Dictionary<long, ulong> _large = [];

    /// <summary>Clusters that there is room for.</summary>
    public long Length => _counts.Length;

    public ulong this[long cluster]
    {
        get
        {
            if (cluster >= _counts.Length)
                return 0;
            ushort n = _counts[cluster];
            return n < ushort.MaxValue ? n : _large[cluster];
        }
    }

    public void Set(long cluster, ulong value)
    {
        Reach(cluster + 1);
        _counts[cluster] = (ushort)Math.Min(value, ushort.MaxValue);
        if (value >= ushort.MaxValue)
            _large[cluster] = value;
    }

    public void Reach(long clusters)
    {
        if (clusters > _counts.Length)
            Array.Resize(ref _counts, checked((int)Math.Max(clusters, _counts.Length + _counts.Length / 8)));
    }
}
