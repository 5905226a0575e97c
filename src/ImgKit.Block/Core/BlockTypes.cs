using System.Runtime.CompilerServices;

namespace ImgKit.Block;

/// <summary>A piece of memory in a vectored request: native memory (guest RAM, aligned buffers) by address and length.</summary>
/// <remarks>The memory must stay mapped, and managed memory pinned, for as long as the request runs.</remarks>
public readonly unsafe struct IoBuffer(void* address, int length)
{
    /// <summary>Address of the first byte.</summary>
    public void* Address { get; } = address;

    /// <summary>Bytes.</summary>
    public int Length { get; } = length;

    /// <summary>The memory as a span.</summary>
    public Span<byte> Span
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => new(Address, Length);
    }
}

/// <summary>What an extent is. The values combine.</summary>
[Flags]
public enum ExtentKind
{
    /// <summary>Not allocated here: the backing device shows, or zeroes where there is none.</summary>
    None = 0,

    /// <summary>Bytes are stored; they must be read to be known.</summary>
    Data = 1,

    /// <summary>Known to read as zeroes.</summary>
    Zero = 2,

    /// <summary>This layer decides the content (its backing device does not show). Implied by <see cref="Data"/>.</summary>
    Allocated = 4,

    /// <summary>Stored compressed.</summary>
    Compressed = 8,

    /// <summary><see cref="BlockExtent.HostOffset"/> tells where the bytes lie, unaltered, in <see cref="BlockExtent.HostDevice"/>.</summary>
    OffsetValid = 16,

    /// <summary>Past the end of a shorter backing device (only <see cref="BlockExtents"/> says this).</summary>
    EndOfFile = 32,
}

/// <summary>The status of a range: see <see cref="BlockDevice.GetExtent"/>.</summary>
/// <param name="Length">Bytes, at least 1.</param>
/// <param name="Kind">Flags.</param>
/// <param name="HostOffset">Where the bytes are in <paramref name="HostDevice"/>; with <see cref="ExtentKind.OffsetValid"/> only.</param>
/// <param name="HostDevice">The storage that holds the bytes; null means the device's own <see cref="BlockDevice.Storage"/>
/// (or, for a protocol, itself).</param>
public readonly record struct BlockExtent(long Length, ExtentKind Kind, long HostOffset, BlockDevice? HostDevice = null)
{
    /// <summary>Bytes are stored.</summary>
    public bool IsData => (Kind & ExtentKind.Data) != 0;

    /// <summary>Known zeroes.</summary>
    public bool IsZero => (Kind & ExtentKind.Zero) != 0;

    /// <summary>Decided by this layer.</summary>
    public bool IsAllocated => (Kind & (ExtentKind.Allocated | ExtentKind.Data)) != 0;

    /// <summary>Stored compressed.</summary>
    public bool IsCompressed => (Kind & ExtentKind.Compressed) != 0;
}

/// <summary>How <see cref="BlockDevice.WriteZeroes"/> may do it.</summary>
[Flags]
public enum ZeroOptions
{
    /// <summary>Keep the space allocated; write zeroes if nothing is faster.</summary>
    None = 0,

    /// <summary>The space may be given back (a hole, an unallocated cluster).</summary>
    MayUnmap = 1,

    /// <summary>Fail rather than write zeroes byte by byte.</summary>
    NoFallback = 2,
}

/// <summary>Space reserved ahead of writing, as option <c>preallocation</c> names it.</summary>
public enum Preallocation
{
    /// <summary>None.</summary>
    Off,

    /// <summary>The format's tables only.</summary>
    Metadata,

    /// <summary>Tables, and data space by fallocate.</summary>
    Falloc,

    /// <summary>Tables, and data space by writing zeroes.</summary>
    Full,
}

/// <summary>How <see cref="BlockDevice.Resize"/> does it.</summary>
/// <param name="Preallocation">For the bytes gained.</param>
/// <param name="AllowShrink">Losing bytes is meant.</param>
/// <param name="Exact">Fail when the device cannot have just this length (a block device); otherwise a longer one will do.</param>
public readonly record struct ResizeOptions(Preallocation Preallocation, bool AllowShrink = true, bool Exact = true);

/// <summary>What requests should look like. All in bytes.</summary>
/// <param name="RequestAlignment">Offsets and counts that need no read-modify-write below (a power of two; 1 where any will do).</param>
/// <param name="OptimalTransfer">A good size for large requests.</param>
/// <param name="ClusterSize">The unit of allocation, or 0 where there is none.</param>
/// <param name="DiscardAlignment">Smaller discards have no effect.</param>
public readonly record struct BlockLimits(int RequestAlignment, int OptimalTransfer, int ClusterSize, int DiscardAlignment)
{
    /// <summary>Bytewise, 2 MiB transfers.</summary>
    public static BlockLimits Default => new(1, 2 << 20, 0, 1);
}

/// <summary>A device whose clusters may be stored compressed. Compressing and storing are apart, so that many threads
/// compress while one stores, in order.</summary>
public interface ICompressingDevice
{
    /// <summary>Bytes compressed at a time; requests start on a multiple of it, only the disk's last may be shorter.</summary>
    int CompressionUnit { get; }

    /// <summary>Everything must be stored compressed (or is by default): convert compresses without being asked.</summary>
    bool CompressedOnly => false;

    /// <summary>Room that <see cref="Compress"/> needs in the worst case.</summary>
    int MaxCompressedLength { get; }

    /// <summary>Compresses one unit. Any number of threads at once; touches no state of the device.</summary>
    /// <returns>bytes produced, or -1 when the unit is better stored plain.</returns>
    int Compress(ReadOnlySpan<byte> unit, Span<byte> destination);

    /// <summary>Stores what <see cref="Compress"/> made of the unit at <paramref name="offset"/>. The place in the file
    /// follows from the order of the calls alone.</summary>
    void WriteCompressed(long offset, ReadOnlySpan<byte> compressed, int unitLength);
}
