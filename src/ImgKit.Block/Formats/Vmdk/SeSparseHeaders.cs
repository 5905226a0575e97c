using System.Buffers.Binary;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// The two headers of a space-efficient sparse extent (VMFS 6): 512 bytes each, little-endian 64-bit words. VMware has not documented
/// the format; what is known is what open readers accept, and anything else is refused. All sizes and offsets in sectors.
/// </summary>
internal sealed class SeSparseHeaders
{
    public const int Size = 512;
    public const int GrainSectors = 8;
    public const int TableSectors = 64;
    public const int EntriesPerTable = TableSectors * 512 / 8;

    private const ulong ConstantMagic = 0xCAFEBABE;
    private const ulong VolatileMagic = 0xCAFECAFE;
    private const ulong KnownVersion = 0x0000000200000001;

    public required ulong Capacity { get; init; }

    public required ulong GrainDirectory { get; init; }

    /// <summary>Sectors.</summary>
    public required ulong GrainDirectorySize { get; init; }

    public required ulong GrainTables { get; init; }

    public required ulong Grains { get; init; }

    /// <summary>Reads and judges both headers.</summary>
    public static SeSparseHeaders Read(BlockDevice file)
    {
        byte[] b = new byte[Size];
        file.Read(0, b);
        ulong magic = Word(b, 0);
        if (magic != ConstantMagic)
            throw new ImageException(ImageErrorKind.InvalidFormat, $"Bad const header magic: 0x{magic:x16}", file.FileName, 0);
        if (Word(b, 1) != KnownVersion)
            throw Unsupported(file, $"Unsupported version: 0x{Word(b, 1):x16}", 8);
        if (Word(b, 3) != GrainSectors)
            throw Unsupported(file, $"Unsupported grain size: {Word(b, 3)}", 24);
        if (Word(b, 4) != TableSectors)
            throw Unsupported(file, $"Unsupported grain table size: {Word(b, 4)}", 32);
        if (Word(b, 5) != 0)
            throw Unsupported(file, $"Unsupported flags: 0x{Word(b, 5):x16}", 40);
        if ((Word(b, 6) | Word(b, 7) | Word(b, 8) | Word(b, 9)) != 0)
            throw Unsupported(file, $"Unsupported reserved bits: 0x{Word(b, 6):x16} 0x{Word(b, 7):x16} 0x{Word(b, 8):x16} 0x{Word(b, 9):x16}", 48);
        if (!ZeroBuffer.IsZero(b.AsSpan(26 * 8)))
            throw Unsupported(file, "Unsupported non-zero const header padding", 26 * 8);
        var headers = new SeSparseHeaders
        {
            Capacity = Word(b, 2),
            GrainDirectory = Word(b, 16),
            GrainDirectorySize = Word(b, 17),
            GrainTables = Word(b, 18),
            Grains = Word(b, 24),
        };
        CheckVolatile(file, Word(b, 10));
        return headers;
    }

    private static void CheckVolatile(BlockDevice file, ulong sector)
    {
        if (sector > (ulong)file.Length / 512)
            throw new ImageException(ImageErrorKind.Corrupt, $"Could not read volatile header from file '{file.FileName}': sector {sector} is behind its end",
                file.FileName, 80);
        long offset = (long)sector * 512;
        byte[] b = new byte[Size];
        file.Read(offset, b);
        if (Word(b, 0) != VolatileMagic)
            throw new ImageException(ImageErrorKind.InvalidFormat, $"Bad volatile header magic: 0x{Word(b, 0):x16}", file.FileName, offset);
        if (Word(b, 3) != 0)
            throw Unsupported(file, "Image is dirty, Replaying journal not supported", offset + 24);
        if (!ZeroBuffer.IsZero(b.AsSpan(4 * 8)))
            throw Unsupported(file, "Unsupported non-zero volatile header padding", offset + 32);
    }

    private static ImageException Unsupported(BlockDevice file, string message, long offset) =>
        new(ImageErrorKind.Unsupported, message, file.FileName, offset);

    private static ulong Word(byte[] b, int index) => BinaryPrimitives.ReadUInt64LittleEndian(b.AsSpan(index * 8));
}
