using System.Buffers;
using ImgKit.Host.Compression;
using K4os.Compression.LZ4;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>How a block is stored. The first five are the codes of format 4.0 (top 4 bits of an index word).</summary>
internal enum CloopCompressor
{
    Zlib = 0,
    None = 1,
    Xz = 2,
    Lz4 = 3,
    Lzo = 4,

    /// <summary>geom_uzip's Z4.0 images only; has no code in an index.</summary>
    Zstd = 5,
}

/// <summary>Compresses and decompresses blocks.</summary>
internal static class CloopCodec
{
    private static readonly string[] Names = ["zlib", "none", "xz", "lz4", "lzo", "zstd"];

    public static string Name(CloopCompressor c) => Names[(int)c];

    public static bool TryParse(string name, out CloopCompressor c)
    {
        int i = Array.IndexOf(Names, name, 0, 5);
        c = (CloopCompressor)i;
        return i >= 0;
    }

    /// <summary>Decompresses a block to exactly <paramref name="destination"/>'s length.</summary>
    /// <returns>false when it is damaged or has another length.</returns>
    public static bool TryDecompress(CloopCompressor compressor, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        int written;
        switch (compressor)
        {
            case CloopCompressor.Zlib:
                return Deflate.TryDecompress(DeflateContainer.Zlib, source, destination, out written) && written == destination.Length;
            case CloopCompressor.None:
                if (source.Length != destination.Length)
                    return false;
                source.CopyTo(destination);
                return true;
            case CloopCompressor.Xz:
                return Lzma.TryDecompress(source, destination, out written) && written == destination.Length;
            case CloopCompressor.Lz4:
                return LZ4Codec.Decode(source, destination) == destination.Length;
            case CloopCompressor.Lzo:
                return Lzo.TryDecompress(source, destination, out written) && written == destination.Length;
            case CloopCompressor.Zstd:
                return Zstd.TryDecompress(source, destination, out written) && written == destination.Length;
            default:
                return false;
        }
    }

    /// <summary>The most that any compressor makes of a block.</summary>
    public static int MaxCompressedLength(int length) =>
        Math.Max(Math.Max(Deflate.MaxCompressedLength(length), Lzma.MaxCompressedLength(length)),
            Math.Max(LZ4Codec.MaximumOutputSize(length), Lzo.MaxCompressedLength(length)));

    /// <summary>Compresses a block.</summary>
    /// <param name="compressor">how.</param>
    /// <param name="level">1 (fastest) to 12 (densest).</param>
    /// <param name="source">the block.</param>
    /// <param name="destination">at least <see cref="MaxCompressedLength"/>.</param>
    /// <returns>bytes produced, or 0 when it did not work out.</returns>
    public static int Compress(CloopCompressor compressor, int level, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        switch (compressor)
        {
            case CloopCompressor.Zlib:
                return Deflate.ForLevel(level).Compress(DeflateContainer.Zlib, source, destination);
            case CloopCompressor.None:
                source.CopyTo(destination);
                return source.Length;
            case CloopCompressor.Xz:
                return Lzma.Compress(Math.Min(level - 1, 9), source, destination);
            case CloopCompressor.Lz4:
                return Math.Max(0, LZ4Codec.Encode(source, destination, level < 4 ? LZ4Level.L00_FAST : (LZ4Level)Math.Min(level, 12)));
            case CloopCompressor.Lzo:
                return Lzo.Compress(source, destination);
            default:
                throw new ArgumentOutOfRangeException(nameof(compressor));
        }
    }

    /// <summary>Compresses a block in every way allowed and keeps the smallest; of equals the one named first.</summary>
    /// <param name="compressors">the ways.</param>
    /// <param name="level">1 to 12.</param>
    /// <param name="source">the block.</param>
    /// <param name="destination">at least <see cref="MaxCompressedLength"/>.</param>
    /// <returns>bytes produced and how.</returns>
    public static (int Length, CloopCompressor Compressor) CompressBest(ReadOnlySpan<CloopCompressor> compressors, int level, ReadOnlySpan<byte> source,
        Span<byte> destination)
    {
        int best = Compress(compressors[0], level, source, destination);
        var how = compressors[0];
        if (compressors.Length > 1)
        {
            byte[] other = ArrayPool<byte>.Shared.Rent(MaxCompressedLength(source.Length));
            foreach (var c in compressors[1..])
            {
                int n = c == CloopCompressor.None ? source.Length : Compress(c, level, source, other);
                if (n == 0 || (best != 0 && n >= best))
                    continue;
                (c == CloopCompressor.None ? source : other.AsSpan(0, n)).CopyTo(destination);
                (best, how) = (n, c);
            }
            ArrayPool<byte>.Shared.Return(other);
        }
        return best > 0 ? (best, how) : throw new InvalidOperationException("no compressor could store a block");
    }
}
