using ImgKit.Block;
using ImgKit.Block.Protocols.Nbd;

namespace ImgKit.Nbd;

/// <summary>A disk that a server offers.</summary>
public sealed class NbdExport
{
    /// <summary>What clients ask for; may be empty.</summary>
    public required string Name { get; init; }

    /// <summary>For people, or null.</summary>
    public string? Description { get; init; }

    /// <summary>The content. Not owned.</summary>
    public required BlockDevice Device { get; init; }

    /// <summary>Nothing is written, whatever the device allows.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Several clients may be connected at once.</summary>
    public bool IsShared { get; init; }

    /// <summary>Offer the context <c>qemu:allocation-depth</c>.</summary>
    public bool AllocationDepth { get; init; }

    /// <summary>Persistent bitmaps that are offered as contexts <c>qemu:dirty-bitmap:NAME</c>.</summary>
    public IReadOnlyList<(string Name, IBitmapImage Image)> Bitmaps { get; init; } = [];

    /// <summary>Bytes.</summary>
    public long Size => Device.Length;

    /// <summary>Requests are multiples of it, in bytes, if clients want no detour.</summary>
    public uint MinBlock => (uint)Math.Max(1, Device.Limits.RequestAlignment);

    /// <summary>A good size for requests, in bytes.</summary>
    public uint PreferredBlock => Math.Max(4096, MinBlock);

    /// <summary>What can be done with it.</summary>
    public NbdExportFlags Flags
    {
        get
        {
            var flags = NbdExportFlags.HasFlags | NbdExportFlags.SendFlush | NbdExportFlags.SendFua | NbdExportFlags.SendCache;
            if (ReadOnly)
                flags |= NbdExportFlags.ReadOnly;
            else
                flags |= NbdExportFlags.SendTrim | NbdExportFlags.SendWriteZeroes | NbdExportFlags.SendFastZero;
            if (IsShared)
                flags |= NbdExportFlags.CanMultiConnect;
            return flags;
        }
    }

    /// <summary>All contexts, by number.</summary>
    internal IEnumerable<(uint Id, string Name)> Contexts
    {
        get
        {
            yield return (AllocationId, NbdWire.BaseAllocation);
            if (AllocationDepth)
                yield return (DepthId, NbdWire.AllocationDepth);
            for (int i = 0; i < Bitmaps.Count; i++)
                yield return ((uint)(FirstBitmapId + i), NbdWire.DirtyBitmapPrefix + Bitmaps[i].Name);
        }
    }

    internal const uint AllocationId = 0;
    internal const uint DepthId = 1;
    internal const uint FirstBitmapId = 2;

    /// <summary>The status of a range in a context.</summary>
    /// <param name="context">its number.</param>
    /// <param name="offset">bytes.</param>
    /// <param name="count">bytes, at least 1.</param>
    /// <returns>flags of the first byte, and for how many bytes they hold.</returns>
    internal (long Length, uint Flags) GetStatus(uint context, long offset, long count)
    {
        if (context >= FirstBitmapId)
        {
            var (name, image) = Bitmaps[(int)(context - FirstBitmapId)];
            var (dirty, length) = image.GetBitmapExtent(name, offset, count);
            return (Math.Clamp(length, 1, count), dirty ? 1u : 0u);
        }
        var (extent, _, depth) = BlockExtents.GetExtentAbove(Device, offset, count);
        long n = Math.Clamp(extent.Length, 1, count);
        // Whole blocks are told of: one that changes within counts as data.
        bool isMixed = n < MinBlock && n < count;
        n = isMixed ? Math.Min(MinBlock, count) : n < count ? n - n % MinBlock : n;
        if (context == DepthId)
            return (n, extent.IsAllocated ? (uint)depth + 1 : 0);
        return (n, isMixed ? 0 : (extent.IsData ? 0 : (uint)NbdAllocation.Hole) | (extent.IsZero ? (uint)NbdAllocation.Zero : 0));
    }
}
