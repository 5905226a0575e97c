using System.Runtime.InteropServices;

namespace ImgKit.Host.Compression;

/// <summary>xz streams (the .xz container, LZMA2) in one go, by liblzma. Thread-safe.</summary>
public static unsafe partial class Lzma
{
    private const string Library = "liblzma.so.5";
    private const int CheckCrc32 = 1;

    /// <summary>Compresses into one .xz stream with a CRC-32, which every decoder has.</summary>
    /// <param name="preset">0 (fastest) to 9 (densest).</param>
    /// <param name="source">content.</param>
    /// <param name="destination">receives the stream.</param>
    /// <returns>bytes produced, or 0 when they do not fit into <paramref name="destination"/>.</returns>
    public static int Compress(int preset, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(preset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(preset, 9);
        nuint made = 0;
        fixed (byte* s = source, d = destination)
            return lzma_easy_buffer_encode((uint)preset, CheckCrc32, 0, s, (nuint)source.Length, d, &made, (nuint)destination.Length) == 0 ? (int)made : 0;
    }

    /// <summary>The most that <see cref="Compress"/> makes of <paramref name="length"/> bytes.</summary>
    public static int MaxCompressedLength(int length) => checked(length + length / 3 + 256);

    /// <summary>Decompresses one .xz stream from the start of <paramref name="source"/>; what follows it is ignored.</summary>
    /// <param name="source">compressed bytes.</param>
    /// <param name="destination">receives the content; it may be longer than that.</param>
    /// <param name="written">bytes produced.</param>
    /// <param name="memoryLimit">the decoder may take so many bytes.</param>
    /// <returns>false when the data is damaged, its content does not fit, or the decoder would need too much memory.</returns>
    public static bool TryDecompress(ReadOnlySpan<byte> source, Span<byte> destination, out int written, long memoryLimit = 128 << 20)
    {
        ulong limit = (ulong)memoryLimit;
        nuint taken = 0, made = 0;
        int result;
        fixed (byte* s = source, d = destination)
            result = lzma_stream_buffer_decode(&limit, 0, 0, s, &taken, (nuint)source.Length, d, &made, (nuint)destination.Length);
        written = result == 0 ? (int)made : 0;
        return result == 0;
    }

    [LibraryImport(Library)]
    private static partial int lzma_easy_buffer_encode(uint preset, int check, nint allocator, byte* source, nuint length, byte* destination,
        nuint* made, nuint room);

    [LibraryImport(Library)]
    private static partial int lzma_stream_buffer_decode(ulong* memoryLimit, uint flags, nint allocator, byte* source, nuint* taken, nuint length,
        byte* destination, nuint* made, nuint room);
}
