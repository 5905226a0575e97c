using System.Buffers.Binary;
using System.Numerics;

namespace ImgKit.Block.Formats.Bochs;

/// <summary>Growing images of the Bochs emulator. (Layout: the Bochs user manual, "Redolog" disk images: a header of 512 bytes, a
/// catalogue of extents, and extents that each start with a bitmap of their sectors. Little-endian.)</summary>
public static class BochsFormat
{
    private const int HeaderSize = 512;
    private const uint Version1 = 0x00010000;
    private const uint Version2 = 0x00020000;
    private const int MaxCatalogueEntries = 1 << 20;
    private const uint MaxExtentSize = 8 << 20;

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "bochs",
        Kind = DriverKind.Format,
        Description = "Growing images of Bochs; read only",
        Probe = static (head, _, _) => IsHeader(head) ? 100 : 0,
        Open = Open,
    };

    private static bool IsHeader(ReadOnlySpan<byte> head) =>
        head.Length >= HeaderSize && Text(head[..32]).SequenceEqual("Bochs Virtual HD Image"u8) && Text(head[32..48]).SequenceEqual("Redolog"u8)
        && Text(head[48..64]).SequenceEqual("Growing"u8) && BinaryPrimitives.ReadUInt32LittleEndian(head[64..]) is Version1 or Version2;

    private static ReadOnlySpan<byte> Text(ReadOnlySpan<byte> field)
    {
        int end = field.IndexOf((byte)0);
        return end < 0 ? field : field[..end];
    }

    private static BlockDevice Open(OpenContext context)
    {
        var file = context.File;
        byte[] head = new byte[HeaderSize];
        file.Read(0, head.AsSpan(0, (int)Math.Min(HeaderSize, file.Length)));
        if (!IsHeader(head))
            throw Invalid("Image not in Bochs format", file, 0);
        if (!context.Settings.ReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "Image is read-only", file.FileName) { Errno = 13 };
        uint headerLength = Field(head, 68), entries = Field(head, 72), bitmap = Field(head, 76), extent = Field(head, 80);
        ulong disk = BinaryPrimitives.ReadUInt64LittleEndian(head.AsSpan(Field(head, 64) == Version1 ? 84 : 88));
        if (entries > MaxCatalogueEntries)
            throw Invalid("Catalog size is too large", file, 72);
        if (extent < 512)
            throw Invalid("Extent size must be at least 512", file, 80);
        if (!BitOperations.IsPow2(extent))
            throw Invalid($"Extent size {extent} is not a power of two", file, 80);
        if (extent > MaxExtentSize)
            throw Invalid($"Extent size {extent} is too large", file, 80);
        ulong sectors = disk / 512;
        if (entries < (sectors + extent / 512 - 1) / (extent / 512))
            throw Invalid("Catalog size is too small for this disk size", file, 72);
        // A bit a sector has to be there, however large the header says that the bitmap is.
        if (bitmap < (extent / 512 + 7) / 8)
            throw Invalid($"Bitmap size {bitmap} is too small for extents of {extent} bytes", file, 76);
        if (headerLength + 4L * entries > file.Length)
            throw Invalid("the catalogue lies behind the end of the file", file, 68);
        byte[] catalogue = new byte[4 * entries];
        file.Read(headerLength, catalogue);
        return new BochsImage(file, catalogue, headerLength + 4L * entries, (long)sectors * 512, (int)extent, (bitmap + 511L) / 512 * 512);
    }

    private static uint Field(byte[] head, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(head.AsSpan(offset));

    private static ImageException Invalid(string message, BlockDevice file, long offset) =>
        new(ImageErrorKind.InvalidFormat, message, file.FileName, offset) { Errno = 22 };
}
