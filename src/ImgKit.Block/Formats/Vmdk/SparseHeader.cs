using System.Buffers.Binary;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// The header of a hosted sparse extent (VMDK 4, "KDMV"): 512 bytes, little-endian, at the start of the extent, and again as the
/// footer of a streamed one. Source: VMware "Virtual Disk Format 5.0", section "Hosted Sparse Extents". All sizes and offsets in sectors.
/// </summary>
internal sealed class SparseHeader
{
    public const int Size = 512;
    public const int Sector = 512;

    /// <summary>"KDMV" as a little-endian word.</summary>
    public const uint Magic = 0x564D444B;

    public const uint NewlineTestFlag = 1 << 0;
    public const uint RedundantDirectoryFlag = 1 << 1;
    public const uint ZeroedGrainFlag = 1 << 2;
    public const uint CompressedFlag = 1 << 16;
    public const uint MarkersFlag = 1 << 17;

    /// <summary>Value of <see cref="GrainDirectory"/> that says: look into the footer.</summary>
    public const ulong DirectoryAtEnd = ulong.MaxValue;

    public const ushort Deflate = 1;

    public uint Version { get; set; }

    public uint Flags { get; set; }

    /// <summary>Sectors of the disk that this extent holds.</summary>
    public ulong Capacity { get; set; }

    public ulong GrainSize { get; set; }

    public ulong DescriptorOffset { get; set; }

    public ulong DescriptorSize { get; set; }

    public uint EntriesPerTable { get; set; }

    public ulong RedundantGrainDirectory { get; set; }

    public ulong GrainDirectory { get; set; }

    /// <summary>Sectors of metadata before the first grain.</summary>
    public ulong Overhead { get; set; }

    public bool UncleanShutdown { get; set; }

    public ushort CompressAlgorithm { get; set; }

    public bool IsCompressed => CompressAlgorithm == Deflate;

    public static bool HasMagic(ReadOnlySpan<byte> data) => data.Length >= 4 && BinaryPrimitives.ReadUInt32LittleEndian(data) == Magic;

    /// <summary>Takes the fields as they are; <see cref="VmdkOpen"/> judges them.</summary>
    public static SparseHeader Parse(ReadOnlySpan<byte> b) => new()
    {
        Version = BinaryPrimitives.ReadUInt32LittleEndian(b[4..]),
        Flags = BinaryPrimitives.ReadUInt32LittleEndian(b[8..]),
        Capacity = BinaryPrimitives.ReadUInt64LittleEndian(b[12..]),
        GrainSize = BinaryPrimitives.ReadUInt64LittleEndian(b[20..]),
        DescriptorOffset = BinaryPrimitives.ReadUInt64LittleEndian(b[28..]),
        DescriptorSize = BinaryPrimitives.ReadUInt64LittleEndian(b[36..]),
        EntriesPerTable = BinaryPrimitives.ReadUInt32LittleEndian(b[44..]),
        RedundantGrainDirectory = BinaryPrimitives.ReadUInt64LittleEndian(b[48..]),
        GrainDirectory = BinaryPrimitives.ReadUInt64LittleEndian(b[56..]),
        Overhead = BinaryPrimitives.ReadUInt64LittleEndian(b[64..]),
        UncleanShutdown = b[72] != 0,
        CompressAlgorithm = BinaryPrimitives.ReadUInt16LittleEndian(b[77..]),
    };

    public void WriteTo(Span<byte> b)
    {
        b[..Size].Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(b, Magic);
        BinaryPrimitives.WriteUInt32LittleEndian(b[4..], Version);
        BinaryPrimitives.WriteUInt32LittleEndian(b[8..], Flags);
        BinaryPrimitives.WriteUInt64LittleEndian(b[12..], Capacity);
        BinaryPrimitives.WriteUInt64LittleEndian(b[20..], GrainSize);
        BinaryPrimitives.WriteUInt64LittleEndian(b[28..], DescriptorOffset);
        BinaryPrimitives.WriteUInt64LittleEndian(b[36..], DescriptorSize);
        BinaryPrimitives.WriteUInt32LittleEndian(b[44..], EntriesPerTable);
        BinaryPrimitives.WriteUInt64LittleEndian(b[48..], RedundantGrainDirectory);
        BinaryPrimitives.WriteUInt64LittleEndian(b[56..], GrainDirectory);
        BinaryPrimitives.WriteUInt64LittleEndian(b[64..], Overhead);
        b[72] = UncleanShutdown ? (byte)1 : (byte)0;
        // Bytes that a transfer as text would change: newline, space, carriage return, newline.
        b[73] = 0x0A;
        b[74] = 0x20;
        b[75] = 0x0D;
        b[76] = 0x0A;
        BinaryPrimitives.WriteUInt16LittleEndian(b[77..], CompressAlgorithm);
    }
}

/// <summary>The 512-byte markers of a streamed extent (same source, section "Stream-Optimized Compressed Sparse Extents").</summary>
internal static class StreamMarker
{
    public const uint EndOfStream = 0;
    public const uint GrainTable = 1;
    public const uint GrainDirectory = 2;
    public const uint Footer = 3;

    /// <summary>A compressed grain starts with its first sector in the disk (64 bits) and the length of the zlib stream (32 bits).</summary>
    public const int GrainHeaderSize = 12;

    public static void WriteTo(Span<byte> b, uint type, ulong sectors)
    {
        b[..SparseHeader.Sector].Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(b, sectors);
        BinaryPrimitives.WriteUInt32LittleEndian(b[12..], type);
    }

    public static bool Is(ReadOnlySpan<byte> b, uint type) =>
        BinaryPrimitives.ReadUInt32LittleEndian(b[8..]) == 0 && BinaryPrimitives.ReadUInt32LittleEndian(b[12..]) == type;

    public static void WriteGrainHeader(Span<byte> b, ulong firstSector, int length)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(b, firstSector);
        BinaryPrimitives.WriteUInt32LittleEndian(b[8..], (uint)length);
    }
}
