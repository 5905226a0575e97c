using System.Buffers.Binary;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// The header of an ESX sparse extent (VMDK 3, "COWD"): 2048 bytes, little-endian. Source: VMware "Virtual Disk Format 1.1", section
/// "ESX Server Sparse Extents" (COWDisk_Header). All sizes and offsets in sectors.
/// </summary>
internal sealed class CowdHeader
{
    public const int Size = 2048;

    /// <summary>"COWD" as a little-endian word.</summary>
    public const uint Magic = 0x44574F43;

    /// <summary>Grain tables have a fixed number of entries.</summary>
    public const int EntriesPerTable = 4096;

    /// <summary>Where <see cref="FreeSector"/> is stored.</summary>
    public const int FreeSectorOffset = 28;

    public required uint Version { get; init; }

    public required uint Capacity { get; init; }

    public required uint GrainSize { get; init; }

    public required uint GrainDirectory { get; init; }

    public required uint GrainDirectoryEntries { get; init; }

    /// <summary>The next sector to allocate.</summary>
    public required uint FreeSector { get; init; }

    public static bool HasMagic(ReadOnlySpan<byte> data) => data.Length >= 4 && BinaryPrimitives.ReadUInt32LittleEndian(data) == Magic;

    public static CowdHeader Parse(ReadOnlySpan<byte> b) => new()
    {
        Version = BinaryPrimitives.ReadUInt32LittleEndian(b[4..]),
        Capacity = BinaryPrimitives.ReadUInt32LittleEndian(b[12..]),
        GrainSize = BinaryPrimitives.ReadUInt32LittleEndian(b[16..]),
        GrainDirectory = BinaryPrimitives.ReadUInt32LittleEndian(b[20..]),
        GrainDirectoryEntries = BinaryPrimitives.ReadUInt32LittleEndian(b[24..]),
        FreeSector = BinaryPrimitives.ReadUInt32LittleEndian(b[FreeSectorOffset..]),
    };
}
