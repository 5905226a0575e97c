using System.Runtime.InteropServices;

namespace ImgKit.Host.Compression;

/// <summary>LZO1X blocks, by liblzo2. Thread-safe.</summary>
public static unsafe partial class Lzo
{
    private const string Library = "liblzo2.so.2";
    private const int WorkMemory = 16384 * 8;

    /// <summary>Compresses (LZO1X-1).</summary>
    /// <returns>bytes produced, or 0 when <paramref name="destination"/> is shorter than <see cref="MaxCompressedLength"/>.</returns>
    public static int Compress(ReadOnlySpan<byte> source, Span<byte> destination)
    {
        // The library writes without looking at the room there is.
        if (destination.Length < MaxCompressedLength(source.Length))
            return 0;
        nuint made = 0;
        void* work = NativeMemory.Alloc(WorkMemory);
        try
        {
            fixed (byte* s = source, d = destination)
                return lzo1x_1_compress(s, (nuint)source.Length, d, &made, work) == 0 ? (int)made : 0;
        }
        finally
        {
            NativeMemory.Free(work);
        }
    }

    /// <summary>The most that <see cref="Compress"/> makes of <paramref name="length"/> bytes.</summary>
    public static int MaxCompressedLength(int length) => checked(length + length / 16 + 64 + 3);

    /// <summary>Decompresses a block that takes all of <paramref name="source"/>; looks at every bound.</summary>
    /// <returns>false when the data is damaged, or its content does not fit.</returns>
    public static bool TryDecompress(ReadOnlySpan<byte> source, Span<byte> destination, out int written)
    {
        nuint made = (nuint)destination.Length;
        int result;
        fixed (byte* s = source, d = destination)
            result = lzo1x_decompress_safe(s, (nuint)source.Length, d, &made, null);
        written = result == 0 ? (int)made : 0;
        return result == 0;
    }

    [LibraryImport(Library)]
    private static partial int lzo1x_1_compress(byte* source, nuint length, byte* destination, nuint* made, void* work);

    [LibraryImport(Library)]
    private static partial int lzo1x_decompress_safe(byte* source, nuint length, byte* destination, nuint* made, void* work);
}
