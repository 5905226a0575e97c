using System.Runtime.InteropServices;

namespace ImgKit.Host.Compression;

/// <summary>Zstandard (RFC 8878) of whole buffers at once, by libzstd. Thread-safe; native state is pooled.</summary>
public static unsafe partial class Zstd
{
    private const string Library = "libzstd.so.1";
    private static readonly NativePool Compressors = new(ZSTD_createCCtx, c => ZSTD_freeCCtx(c));
    private static readonly NativePool Decompressors = new(ZSTD_createDCtx, d => ZSTD_freeDCtx(d));

    /// <summary>Compresses into one frame.</summary>
    /// <param name="level">1 (fastest) to 22 (densest); negative ones are faster still.</param>
    /// <param name="source">content.</param>
    /// <param name="destination">receives the frame.</param>
    /// <returns>bytes produced, or 0 when they do not fit.</returns>
    public static int Compress(int level, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        nint c = Compressors.Take();
        nuint n;
        fixed (byte* s = source, d = destination)
            n = ZSTD_compressCCtx(c, d, (nuint)destination.Length, s, (nuint)source.Length, level);
        Compressors.Return(c);
        return ZSTD_isError(n) != 0 ? 0 : (int)n;
    }

    /// <summary>The most that <see cref="Compress"/> makes of <paramref name="length"/> bytes.</summary>
    public static int MaxCompressedLength(int length) => checked(length + (length >> 8) + 512);

    /// <summary>Decompresses frames from the start of <paramref name="source"/> until <paramref name="destination"/> is full or
    /// the frames end; what follows is ignored.</summary>
    /// <returns>false when the data is damaged, or a frame's content does not fit.</returns>
    public static bool TryDecompress(ReadOnlySpan<byte> source, Span<byte> destination, out int written)
    {
        nint c = Decompressors.Take();
        written = 0;
        bool good = true;
        fixed (byte* s = source, d = destination)
        {
            int at = 0;
            do
            {
                // Padding follows the last frame: each frame is handed over exactly.
                nuint frame = ZSTD_findFrameCompressedSize(s + at, (nuint)(source.Length - at));
                good = ZSTD_isError(frame) == 0;
                if (!good)
                    break;
                nuint n = ZSTD_decompressDCtx(c, d + written, (nuint)(destination.Length - written), s + at, frame);
                good = ZSTD_isError(n) == 0;
                if (!good)
                    break;
                written += (int)n;
                at += (int)frame;
            }
            while (written < destination.Length && at < source.Length);
        }
        Decompressors.Return(c);
        return good;
    }

    [LibraryImport(Library)]
    private static partial nint ZSTD_createCCtx();

    [LibraryImport(Library)]
    private static partial nuint ZSTD_freeCCtx(nint context);

    [LibraryImport(Library)]
    private static partial nuint ZSTD_compressCCtx(nint context, byte* destination, nuint room, byte* source, nuint length, int level);

    [LibraryImport(Library)]
    private static partial nint ZSTD_createDCtx();

    [LibraryImport(Library)]
    private static partial nuint ZSTD_freeDCtx(nint context);

    [LibraryImport(Library)]
    private static partial nuint ZSTD_decompressDCtx(nint context, byte* destination, nuint room, byte* source, nuint length);

    [LibraryImport(Library)]
    private static partial nuint ZSTD_findFrameCompressedSize(byte* source, nuint length);

    [LibraryImport(Library)]
    private static partial uint ZSTD_isError(nuint code);
}
