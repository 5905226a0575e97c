using System.Buffers;
using ImgKit.Host.Compression;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// The zlib stream of one compressed grain, wherever it was read from. Source: Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse
/// Extents".
/// </summary>
internal static class GrainStream
{
    /// <summary>The most bytes that a stored grain can take, header included; more is not a grain of this size.</summary>
    /// <param name="grainSize">bytes of a whole grain, at most <see cref="CompressedExtent.MaxGrainSize"/>.</param>
    public static int MaxStored(int grainSize) => checked(grainSize * 2 + 1024);

    /// <summary>Inflates a grain.</summary>
    /// <param name="stream">the zlib stream, and perhaps some bytes behind it.</param>
    /// <param name="content">receives the content: a whole grain, or less of the last one of a disk.</param>
    /// <param name="grainSize">bytes of a whole grain.</param>
    /// <returns>null, or what is wrong with the stream.</returns>
    public static string? Inflate(ReadOnlySpan<byte> stream, Span<byte> content, int grainSize)
    {
        if (Deflate.TryDecompress(DeflateContainer.Zlib, stream, content, out int written))
            return written == content.Length ? null : $"it holds {written} bytes instead of {content.Length}";
        // The last grain may be stored whole though the disk ends inside it.
        if (content.Length < grainSize)
        {
            byte[] whole = ArrayPool<byte>.Shared.Rent(grainSize);
            bool ok = Deflate.TryDecompress(DeflateContainer.Zlib, stream, whole.AsSpan(0, grainSize), out written) && written >= content.Length;
            whole.AsSpan(0, content.Length).CopyTo(content);
            ArrayPool<byte>.Shared.Return(whole);
            if (ok)
                return null;
        }
        return "its data does not inflate";
    }
}
