using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>What an image will take.</summary>
internal static class Qcow2Measure
{
    public static MeasureResult Measure(MeasureContext context)
    {
        var o = Qcow2CreateOptions.Take(context.Size, context.Options);
        int bits = o.ClusterBits;
        long cluster = 1L << bits;
        long size = AlignUp(o.Size, cluster);
        long used = 0;
        long? bitmaps = null;
        if (context.Source is { } source)
        {
            size = AlignUp(source.Length, cluster);
            used = o.BackingFile is not null ? size : DataBytes(source, cluster);
            // Both sides must be able to hold some; then none is said to take 0 bytes.
            if ((context.BitmapSource ?? source) is IBitmapImage { SupportsBitmaps: true, Bitmaps: var list } && o.Version >= 3)
                bitmaps = list.Count > 0 ? BitmapBytes(list, source.Length, cluster) : 0;
        }
        if (L1TooLarge(size, bits, o.ExtendedL2))
            throw new ImageException(ImageErrorKind.InvalidArgument, "The image size is too large (try using a larger cluster size)") { Errno = 27 };
        if (o.Preallocation is Preallocation.Falloc or Preallocation.Full)
            used = size;
        long full = FullyAllocated(size, cluster, o.RefcountOrder, o.ExtendedL2);
        return new MeasureResult(full - size + used, full, bitmaps);
    }

    private static bool L1TooLarge(long size, int bits, bool extended) =>
        bits * 2 - (extended ? 4 : 3) is var shift && shift < 63 && DivUp(size, 1L << shift) * 8 > MaxL1Bytes;

    private static long DataBytes(BlockDevice source, long cluster)
    {
        long bytes = 0, counted = 0;        // up to where clusters are counted
        for (long at = 0; at < source.Length;)
        {
            var (e, _, _) = BlockExtents.GetExtentAbove(source, at, source.Length - at);
            if (e.IsData && !e.IsZero)
            {
                long from = Math.Max(at / cluster * cluster, counted), to = AlignUp(at + e.Length, cluster);
                if (to > from)
                    bytes += to - from;
                counted = Math.Max(counted, to);
            }
            at += e.Length;
        }
        return bytes;
    }

    private static long BitmapBytes(IReadOnlyList<BitmapInfo> list, long length, long cluster)
    {
        long bytes = 0, directory = 0;
        foreach (var b in list)
        {
            if (b.InUse)
                continue;
            long clusters = DivUp(Qcow2Bitmap.StoredBytes(length, (int)long.Log2(b.Granularity)), cluster);
            bytes += clusters * cluster + AlignUp(clusters * 8, cluster);
            directory += AlignUp(24 + System.Text.Encoding.UTF8.GetByteCount(b.Name), 8);
        }
        return bytes + AlignUp(directory, cluster);
    }

    /// <summary>A file in which every cluster is allocated: header, tables, data, and the counts for all that.</summary>
    private static long FullyAllocated(long size, long cluster, int refcountOrder, bool extended)
    {
        int entry = extended ? 16 : 8;
        long l2 = AlignUp(size / cluster, cluster / entry) * entry;
        long l1 = AlignUp(l2 / cluster, cluster / 8) * 8;
        long clusters = (cluster + l2 + l1 + size) / cluster;
        long perBlock = cluster * 8 >> refcountOrder;
        long blocks = 0, table = 0, last;
        do
        {
            last = blocks + table;
            blocks = DivUp(clusters + blocks + table, perBlock);
            table = DivUp(blocks, cluster / 8);
        }
        while (blocks + table != last);
        return (clusters + blocks + table) * cluster;
    }
}
