namespace ImgKit.Block.Formats.Qcow2;

/// <summary>A set of host clusters, for the question asked before every write: does metadata lie here? Asked without a
/// lock, changed under the metadata lock.</summary>
internal sealed class ClusterMap
{
    private const int PageBits = 15;
    private ulong[]?[] _pages = new ulong[]?[16];

    /// <summary>Clusters past this are not remembered: nothing that was checked lies there.</summary>
    private const long MaxPages = 1 << 24;

    public bool Contains(long cluster)
    {
        var pages = Volatile.Read(ref _pages);
        long page = cluster >> PageBits;
        return page < pages.Length && pages[page] is { } bits && (Volatile.Read(ref bits[(cluster >> 6) & 511]) & (1UL << (int)(cluster & 63))) != 0;
    }

    public bool ContainsAny(long cluster, long count)
    {
        for (long c = cluster; c < cluster + count; c++)
            if (Contains(c))
                return true;
        return false;
    }

    public void Add(long cluster, long count)
    {
        for (long c = cluster; c < cluster + count; c++)
        {
            long page = c >> PageBits;
            if (page >= MaxPages)
                return;
            if (page >= _pages.Length)
            {
                var pages = new ulong[]?[Math.Max(page + 1, _pages.Length * 2)];
                _pages.CopyTo(pages, 0);
                Volatile.Write(ref _pages, pages);
            }
            (_pages[page] ??= new ulong[512])[(c >> 6) & 511] |= 1UL << (int)(c & 63);
        }
    }

    public void Remove(long cluster, long count)
    {
        for (long c = cluster; c < cluster + count; c++)
        {
            long page = c >> PageBits;
            if (page < _pages.Length && _pages[page] is { } bits)
                bits[(c >> 6) & 511] &= ~(1UL << (int)(c & 63));
        }
    }

    public void Clear() => Volatile.Write(ref _pages, new ulong[]?[16]);
}
