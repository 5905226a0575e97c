namespace ImgKit.Block;

/// <summary>Zeroes to write from, and the search for them.</summary>
public static class ZeroBuffer
{
    private static readonly byte[] Zeroes = new byte[1 << 20];

    /// <summary>Zeroes, up to 1 MiB.</summary>
    public static ReadOnlySpan<byte> Span(int count) => Zeroes.AsSpan(0, count);

    /// <summary>True when all of <paramref name="data"/> is zero. Stops at the first byte that is not.</summary>
    public static bool IsZero(ReadOnlySpan<byte> data) => !data.ContainsAnyExcept((byte)0);

    /// <summary>Writes zeroes the slow way.</summary>
    public static void WriteTo(BlockDevice device, long offset, long count)
    {
        while (count > 0)
        {
            int n = (int)Math.Min(count, Zeroes.Length);
            device.Write(offset, Zeroes.AsSpan(0, n));
            offset += n;
            count -= n;
        }
    }
}
