namespace ImgKit.Block.Jobs.Map;

/// <summary>A stretch of a disk and where its content is.</summary>
/// <param name="Start">bytes.</param>
/// <param name="Length">bytes.</param>
/// <param name="Depth">how many layers below the top.</param>
/// <param name="IsPresent">a layer of the chain decides it.</param>
/// <param name="IsZero">reads as zeroes.</param>
/// <param name="IsData">bytes are stored.</param>
/// <param name="IsCompressed">stored compressed.</param>
/// <param name="Offset">where they are in <paramref name="FileName"/>, or -1.</param>
/// <param name="FileName">the file that holds them, or null.</param>
public readonly record struct MapEntry(long Start, long Length, int Depth, bool IsPresent, bool IsZero, bool IsData, bool IsCompressed, long Offset,
    string? FileName);

/// <summary>Lists where the content of a disk comes from.</summary>
public static class MapJob
{
    /// <summary>Stretches in order, as long as they can be.</summary>
    /// <param name="device">the top.</param>
    /// <param name="start">first byte.</param>
    /// <param name="end">byte behind the last.</param>
    public static IEnumerable<MapEntry> Run(BlockDevice device, long start, long end)
    {
        MapEntry? current = null;
        for (long at = start; at < end;)
        {
            var next = Look(device, at, end - at);
            at += next.Length;
            if (current is { } c)
            {
                if (CanJoin(c, next))
                {
                    current = c with { Length = c.Length + next.Length };
                    continue;
                }
                yield return c;
            }
            current = next;
        }
        if (current is { } last)
            yield return last;
    }

    private static MapEntry Look(BlockDevice device, long offset, long count)
    {
        var (e, layer, depth) = BlockExtents.GetExtentAbove(device, offset, count);
        // A device may answer another question in place of allocation (an NBD dirty bitmap): then nothing is said of a part of it.
        bool said = e.IsData || e.IsZero;
        bool hasOffset = said && (e.Kind & ExtentKind.OffsetValid) != 0;
        string? file = hasOffset ? (e.HostDevice ?? layer.Storage ?? layer).FileName : null;
        return new MapEntry(offset, e.Length, depth, said && e.IsAllocated, e.IsZero, e.IsData, e.IsCompressed, hasOffset ? e.HostOffset : -1, file);
    }

    private static bool CanJoin(in MapEntry a, in MapEntry b) =>
        a.IsZero == b.IsZero && a.IsData == b.IsData && a.Depth == b.Depth && a.IsPresent == b.IsPresent && a.IsCompressed == b.IsCompressed
        && a.Offset >= 0 == b.Offset >= 0 && a.FileName == b.FileName && (a.Offset < 0 || a.Offset + a.Length == b.Offset);
}
