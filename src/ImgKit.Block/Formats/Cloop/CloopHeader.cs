using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>
/// The 136 bytes that every compressed loop image has: a shell script of 128 bytes with the version at offset 11, block size and number
/// of blocks (big-endian). Source: compressed_loop.h of the cloop module; geom_uzip.h for its cousins of FreeBSD.
/// </summary>
internal readonly record struct CloopHeader(string Preamble, uint BlockSize, uint Blocks)
{
    public const int Size = 136;
    public const int PreambleSize = 128;

    /// <summary>Larger blocks are refused, as by the peer: a whole one must fit into memory.</summary>
    public const int MaxBlockSize = 64 << 20;

    /// <summary>Number of blocks that says: it stands at the end of the file (3.0).</summary>
    public const uint BlocksInTail = uint.MaxValue;

    private const int VersionOffset = 11;

    /// <summary>The script in front of 2.0 images; the peer finds images by all of it.</summary>
    public const string Preamble2 = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

    /// <summary>The script in front of (or behind) 4.0 images.</summary>
    public const string Preamble4 = "#!/bin/sh\n#V4.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

    /// <summary>The script of an image that is being written; the real one takes its place at the end.</summary>
    public const string PreambleUnfinished = "#!/bin/sh\n#imgkit cloop, unfinished\nexit 1\n";

    public static CloopHeader Parse(ReadOnlySpan<byte> b) => new(
        Encoding.Latin1.GetString(b[..PreambleSize]),
        BinaryPrimitives.ReadUInt32BigEndian(b[128..]),
        BinaryPrimitives.ReadUInt32BigEndian(b[132..]));

    public void WriteTo(Span<byte> b)
    {
        b[..Size].Clear();
        Encoding.Latin1.GetBytes(Preamble, b[..PreambleSize]);
        BinaryPrimitives.WriteUInt32BigEndian(b[128..], BlockSize);
        BinaryPrimitives.WriteUInt32BigEndian(b[132..], Blocks);
    }

    /// <summary>The four characters of the version: <c>V2.0</c>, <c>V4.0</c>, <c>L3.0</c> ...</summary>
    public string Version => Preamble.Substring(VersionOffset, 4);

    /// <summary>Made for FreeBSD's geom_uzip, which lets blocks be missing or be shared.</summary>
    public bool IsUzip => Preamble.Contains("geom_uzip", StringComparison.Ordinal) || Version[0] is 'v' or 'L' or 'l' or 'Z' or 'z';

    /// <summary>What geom_uzip's letter stands for.</summary>
    public CloopCompressor UzipCompressor => char.ToUpperInvariant(Version[0]) switch
    {
        'L' => CloopCompressor.Xz,
        'Z' => CloopCompressor.Zstd,
        _ => CloopCompressor.Zlib,
    };

    public bool IsUnfinished => Preamble.StartsWith(PreambleUnfinished, StringComparison.Ordinal);

    public bool HasVersion => Preamble[VersionOffset - 1] == '#' && Version[0] is 'V' or 'v' or 'L' or 'l' or 'Z' or 'z'
        && char.IsAsciiDigit(Version[1]) && Version[2] == '.' && char.IsAsciiDigit(Version[3]);

    /// <summary>Whether the block size is one.</summary>
    public bool IsPlausible => BlockSize is > 0 and <= MaxBlockSize && BlockSize % 512 == 0;

    /// <summary>Throws unless the block size is one.</summary>
    public void CheckBlockSize(string file)
    {
        if (BlockSize % 512 != 0)
            throw Bad(file, $"block_size {BlockSize} must be a multiple of 512", 128);
        if (BlockSize == 0)
            throw Bad(file, "block_size cannot be zero", 128);
        if (BlockSize > MaxBlockSize)
            throw Bad(file, $"block_size {BlockSize} must be {MaxBlockSize >> 20} MB or less", 128);
    }

    public static ImageException Bad(string file, string message, long offset) => new(ImageErrorKind.Corrupt, message, file, offset) { Errno = 22 };
}
