namespace ImgKit.Block;

/// <summary>Extents through a chain of devices.</summary>
public static class BlockExtents
{
    /// <summary>
    /// The status of <paramref name="offset"/> as a reader of <paramref name="device"/> sees it, looking through
    /// backing devices, and the depth of the layer that decides (0: <paramref name="device"/>).
    /// </summary>
    /// <param name="device">the top.</param>
    /// <param name="offset">bytes.</param>
    /// <param name="count">bytes, at least 1.</param>
    /// <param name="bottom">look no further than above this layer (null: to the end of the chain). What is not allocated
    /// above it has kind <see cref="ExtentKind.None"/>.</param>
    public static (BlockExtent Extent, BlockDevice Layer, int Depth) GetExtentAbove(BlockDevice device, long offset, long count, BlockDevice? bottom = null)
    {
        int depth = 0;
        for (var layer = device; ; depth++)
        {
            var e = layer.GetExtent(offset, count);
            count = Math.Min(count, e.Length);
            if (e.IsAllocated || e.IsZero)
                return (e with { Length = count }, layer, depth);
            var below = layer.Backing;
            if (below is null)
                return (new BlockExtent(count, bottom is null ? ExtentKind.Zero : ExtentKind.None, 0), layer, depth);
            if (ReferenceEquals(below, bottom))
                return (new BlockExtent(count, ExtentKind.None, 0), layer, depth);
            if (offset >= below.Length)
                return (new BlockExtent(count, ExtentKind.Zero | ExtentKind.EndOfFile, 0), layer, depth);
            count = Math.Min(count, below.Length - offset);
            layer = below;
        }
    }
}
