using System.Runtime.InteropServices;

namespace ImgKit.Host.Compression;

/// <summary>How deflate data is wrapped.</summary>
public enum DeflateContainer
{
    /// <summary>Nothing around it (RFC 1951).</summary>
    Raw,

    /// <summary>zlib stream (RFC 1950): header and Adler-32.</summary>
    Zlib,

    /// <summary>gzip member (RFC 1952): header, CRC-32 and length.</summary>
    Gzip,
}

/// <summary>
/// Deflate of whole buffers at once, by libdeflate: several times faster than streaming, and denser than with a small window.
/// Thread-safe; native state is pooled.
/// </summary>
public sealed unsafe partial class Deflate
{
    private const string Library = "libdeflate.so.0";
    private static readonly NativePool Decompressors = new(libdeflate_alloc_decompressor, libdeflate_free_decompressor);
    private static readonly Deflate?[] Levels = new Deflate?[13];
    private readonly NativePool _compressors;

    private Deflate(int level)
    {
        Level = level;
        _compressors = new NativePool(() => libdeflate_alloc_compressor(level), libdeflate_free_compressor);
    }

    /// <summary>The compressor of a level, 0 (stored) or 1 (fastest) to 12 (densest).</summary>
    public static Deflate ForLevel(int level)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(level);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(level, 12);
        return Volatile.Read(ref Levels[level]) ?? (Interlocked.CompareExchange(ref Levels[level], new Deflate(level), null) ?? Levels[level]!);
    }

    /// <summary>0 to 12.</summary>
    public int Level { get; }

    /// <summary>Compresses; the window is the full 32 KiB.</summary>
    /// <returns>bytes produced, or 0 when they do not fit into <paramref name="destination"/>.</returns>
    public int Compress(DeflateContainer container, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        nint c = _compressors.Take();
        try
        {
            fixed (byte* s = source, d = destination)
                return (int)(container switch
                {
                    DeflateContainer.Raw => libdeflate_deflate_compress(c, s, (nuint)source.Length, d, (nuint)destination.Length),
                    DeflateContainer.Zlib => libdeflate_zlib_compress(c, s, (nuint)source.Length, d, (nuint)destination.Length),
                    _ => libdeflate_gzip_compress(c, s, (nuint)source.Length, d, (nuint)destination.Length),
                });
        }
        finally
        {
            _compressors.Return(c);
        }
    }

    /// <summary>The most that <see cref="Compress"/> makes of <paramref name="length"/> bytes, in any container.</summary>
    public static int MaxCompressedLength(int length) => checked(length + length / 2048 * 5 + 64);

    /// <summary>Decompresses one stream from the start of <paramref name="source"/>; what follows the stream is ignored.</summary>
    /// <param name="container">the wrapping.</param>
    /// <param name="source">compressed bytes.</param>
    /// <param name="destination">receives the content; it may be longer than that.</param>
    /// <param name="written">bytes produced.</param>
    /// <returns>false when the data is damaged, or its content does not fit.</returns>
    public static bool TryDecompress(DeflateContainer container, ReadOnlySpan<byte> source, Span<byte> destination, out int written) =>
        TryDecompress(container, source, destination, out written, out _);

    /// <summary>As the other, and says how long the stream was.</summary>
    public static bool TryDecompress(DeflateContainer container, ReadOnlySpan<byte> source, Span<byte> destination, out int written, out int consumed)
    {
        nint c = Decompressors.Take();
        nuint taken = 0, made = 0;
        int result;
        fixed (byte* s = source, d = destination)
            result = container switch
            {
                DeflateContainer.Raw => libdeflate_deflate_decompress_ex(c, s, (nuint)source.Length, d, (nuint)destination.Length, &taken, &made),
                DeflateContainer.Zlib => libdeflate_zlib_decompress_ex(c, s, (nuint)source.Length, d, (nuint)destination.Length, &taken, &made),
                _ => libdeflate_gzip_decompress_ex(c, s, (nuint)source.Length, d, (nuint)destination.Length, &taken, &made),
            };
        Decompressors.Return(c);
        (written, consumed) = result == 0 ? ((int)made, (int)taken) : (0, 0);
        return result == 0;
    }

    /// <summary>CRC-32 (the one of gzip and Ethernet) of <paramref name="data"/>, going on from <paramref name="crc"/> (0 at the start).</summary>
    public static uint Crc32(uint crc, ReadOnlySpan<byte> data)
    {
        fixed (byte* p = data)
            return data.IsEmpty ? crc : libdeflate_crc32(crc, p, (nuint)data.Length);
    }

    /// <summary>Adler-32 of <paramref name="data"/>, going on from <paramref name="adler"/> (1 at the start).</summary>
    public static uint Adler32(uint adler, ReadOnlySpan<byte> data)
    {
        fixed (byte* p = data)
            return data.IsEmpty ? adler : libdeflate_adler32(adler, p, (nuint)data.Length);
    }

    [LibraryImport(Library)]
    private static partial nint libdeflate_alloc_compressor(int level);

    [LibraryImport(Library)]
    private static partial void libdeflate_free_compressor(nint compressor);

    [LibraryImport(Library)]
    private static partial nuint libdeflate_deflate_compress(nint compressor, byte* source, nuint length, byte* destination, nuint room);

    [LibraryImport(Library)]
    private static partial nuint libdeflate_zlib_compress(nint compressor, byte* source, nuint length, byte* destination, nuint room);

    [LibraryImport(Library)]
    private static partial nuint libdeflate_gzip_compress(nint compressor, byte* source, nuint length, byte* destination, nuint room);

    [LibraryImport(Library)]
    private static partial nint libdeflate_alloc_decompressor();

    [LibraryImport(Library)]
    private static partial void libdeflate_free_decompressor(nint decompressor);

    [LibraryImport(Library)]
    private static partial int libdeflate_deflate_decompress_ex(nint decompressor, byte* source, nuint length, byte* destination, nuint room,
        nuint* taken, nuint* made);

    [LibraryImport(Library)]
    private static partial int libdeflate_zlib_decompress_ex(nint decompressor, byte* source, nuint length, byte* destination, nuint room,
        nuint* taken, nuint* made);

    [LibraryImport(Library)]
    private static partial int libdeflate_gzip_decompress_ex(nint decompressor, byte* source, nuint length, byte* destination, nuint room,
        nuint* taken, nuint* made);

    [LibraryImport(Library)]
    private static partial uint libdeflate_crc32(uint crc, byte* data, nuint length);

    [LibraryImport(Library)]
    private static partial uint libdeflate_adler32(uint adler, byte* data, nuint length);
}
