using System.Globalization;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>How an image is written.</summary>
/// <param name="BlockSize">bytes.</param>
/// <param name="IsVersion4">4.0, or else 2.0.</param>
/// <param name="Level">1 to 12.</param>
/// <param name="Compressors">of which the smallest result is kept, block by block.</param>
internal sealed record CloopOptions(int BlockSize, bool IsVersion4, int Level, CloopCompressor[] Compressors)
{
    private const int DefaultLevel = 6;

    /// <summary>The declaration.</summary>
    public static IReadOnlyList<DriverOption> Declaration { get; } =
    [
        new("size", OptionType.Size, "Virtual disk size; filled up to a whole number of blocks"),
        new("block_size", OptionType.Size, "Bytes compressed at a time, a multiple of 512 up to 64M (default: 64k)"),
        new("version", OptionType.Enum, "Layout: 2.0 (default; every reader knows it) or 4.0", null, ["2.0", "4.0"]),
        new("compression_level", OptionType.Number, "1 (fastest) to 12 (smallest), default 6"),
        new("compressors", OptionType.String,
            "What a block of a 4.0 image may be stored as, of which the smallest is kept: any of zlib, none, xz, lz4 and lzo, joined by + (default: zlib+none)"),
    ];

    /// <summary>Takes the options out and judges them.</summary>
    /// <param name="options">as given.</param>
    /// <param name="streaming">4.0 is the default where the image goes into a pipe, for 2.0 cannot.</param>
    public static CloopOptions Take(BlockOptions options, bool streaming)
    {
        _ = options.TakeString("size");
        _ = options.TakeString("preallocation");
        _ = options.TakeString("nocow");
        _ = options.TakeString("extent_size_hint");
        long blockSize = options.TakeSize("block_size") ?? 65536;
        if (blockSize is <= 0 or > CloopHeader.MaxBlockSize || blockSize % 512 != 0)
            throw Invalid($"Parameter 'block_size' expects a multiple of 512 up to {CloopHeader.MaxBlockSize}");
        string version = options.TakeString("version") ?? (streaming ? "4.0" : "2.0");
        if (version is not ("2.0" or "4.0" or "2" or "4"))
            throw Invalid($"Parameter 'version' does not accept value '{version}'");
        long level = options.TakeNumber("compression_level") ?? DefaultLevel;
        if (level is < 1 or > 12)
            throw Invalid("Parameter 'compression_level' expects a number from 1 to 12");
        bool four = version[0] == '4';
        string? names = options.TakeString("compressors");
        var compressors = (names ?? (four ? "zlib+none" : "zlib")).Split('+', ':', ',').Select(Parse).Distinct().ToArray();
        if (!four && (compressors.Length != 1 || compressors[0] != CloopCompressor.Zlib))
            throw Invalid("A cloop image of version 2.0 can only hold zlib blocks");
        return new CloopOptions((int)blockSize, four, (int)level, compressors);
    }

    private static CloopCompressor Parse(string name) =>
        CloopCodec.TryParse(name, out var c) ? c : throw Invalid($"Parameter 'compressors' does not accept value '{name}'");

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message) { Errno = 22 };

    /// <summary>As it stands in an unfinished image.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{(IsVersion4 ? 4 : 2)} {Level} {string.Join('+', Compressors.Select(CloopCodec.Name))}");

    /// <summary>Reads it back.</summary>
    public static CloopOptions Restore(string text, int blockSize)
    {
        string[] parts = text.Split(' ');
        if (parts.Length != 3)
            throw Invalid("the unfinished image does not say how it is to be written");
        var options = new BlockOptions();
        options.Set("block_size", (long)blockSize);
        options.Set("version", parts[0]);
        options.Set("compression_level", parts[1]);
        options.Set("compressors", parts[2]);
        return Take(options, streaming: false);
    }

    /// <summary>Blocks of an image of a size.</summary>
    public long CountBlocks(long size)
    {
        long n = (size + BlockSize - 1) / BlockSize;
        return n <= (512 << 20) / 8 - 1 ? n : throw Invalid("image requires too many offsets, try increasing block size");
    }

    /// <summary>Room for <see cref="Pack"/>: a byte for the compressor, and the block.</summary>
    public int Room => 1 + CloopCodec.MaxCompressedLength(BlockSize);

    /// <summary>Compresses a block, in front the compressor; a shorter one is filled up with zeroes.</summary>
    /// <returns>bytes produced.</returns>
    public int Pack(ReadOnlySpan<byte> block, Span<byte> destination)
    {
        byte[]? whole = null;
        if (block.Length < BlockSize)
        {
            whole = new byte[BlockSize];
            block.CopyTo(whole);
            block = whole;
        }
        var (length, how) = CloopCodec.CompressBest(Compressors, Level, block, destination[1..]);
        destination[0] = (byte)how;
        return length + 1;
    }
}
