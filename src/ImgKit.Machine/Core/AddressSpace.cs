using ImgKit.Cpu;

namespace ImgKit.Machine;

/// <summary>A part of the physical address space that can be moved, covered and taken away.</summary>
public sealed class MappedRange
{
    internal MappedRange(int priority) => Priority = priority;

    internal int Priority { get; }

    /// <summary>Address of the first byte.</summary>
    public ulong Start { get; set; }

    /// <summary>Bytes; 0 while it is nowhere.</summary>
    public ulong Length { get; set; }

    /// <summary>Host address of the first byte; 0: accesses go to the MMIO bus.</summary>
    public nint Host { get; set; }

    /// <summary>RAM, or ROM (writes go to the MMIO bus).</summary>
    public MemoryKind Kind { get; set; }

    /// <summary>Only processors in system-management mode see it (where the engine gives those a map of their own).</summary>
    public bool SystemManagementOnly { get; init; }

    /// <summary>As in <see cref="MemoryRegion.DirtyLog"/>.</summary>
    public nint DirtyLog { get; set; }
}

/// <summary>
/// Makes the flat <see cref="PhysicalMemoryMap"/> out of ranges that cover each other by priority, and a second one as processors in
/// system-management mode see it. Devices change their range's properties and then call <see cref="Update"/>. Under the machine lock.
/// </summary>
public sealed class AddressSpace(PhysicalMemoryMap map, PhysicalMemoryMap? systemManagementMap = null)
{
    /// <summary>Priority of RAM.</summary>
    public const int RamPriority = 0;

    /// <summary>Priority of PCI memory (BARs).</summary>
    public const int PciPriority = 1;

    /// <summary>Priority of what the chipset decodes before all others: PAM, SMRAM, firmware below 4 GiB, the VGA window.</summary>
    public const int ChipsetPriority = 2;

    /// <summary>Priority of SMRAM over the VGA window.</summary>
    public const int SmramPriority = 3;

    private readonly List<MappedRange> _ranges = [];

    /// <summary>The flat map that engines use.</summary>
    public PhysicalMemoryMap Map => map;

    /// <summary>Adds a range that is nowhere yet.</summary>
    public MappedRange Add(int priority, bool systemManagementOnly = false)
    {
        var range = new MappedRange(priority) { SystemManagementOnly = systemManagementOnly };
        _ranges.Add(range);
        return range;
    }

    /// <summary>Adds a range in place (call <see cref="Update"/> afterwards).</summary>
    public MappedRange Add(int priority, ulong start, ulong length, nint host, MemoryKind kind)
    {
        var range = Add(priority);
        range.Start = start;
        range.Length = length;
        range.Host = host;
        range.Kind = kind;
        return range;
    }

    /// <summary>Takes a range away.</summary>
    public void Remove(MappedRange range) => _ranges.Remove(range);

    /// <summary>Makes the flat maps again.</summary>
    public void Update()
    {
        Replace(map, Flatten([.. _ranges.Where(r => r.Length != 0 && !r.SystemManagementOnly)]));
        if (systemManagementMap != null)
            Replace(systemManagementMap, Flatten([.. _ranges.Where(r => r.Length != 0)]));
    }

    private static void Replace(PhysicalMemoryMap map, List<MemoryRegion> regions)
    {
        if (!regions.SequenceEqual(map.Regions))
            map.Replace(regions);
    }

    private static List<MemoryRegion> Flatten(MappedRange[] present)
    {
        var bounds = new SortedSet<ulong>();
        foreach (var r in present)
        {
            bounds.Add(r.Start);
            bounds.Add(r.Start + r.Length);
        }
        var flat = new List<MemoryRegion>();
        ulong from = 0;
        foreach (ulong to in bounds)
        {
            if (to == from)
                continue;
            MappedRange? top = null;
            foreach (var r in present)
                if (r.Start <= from && to <= r.Start + r.Length && (top == null || r.Priority >= top.Priority))
                    top = r;
            if (top != null && top.Host != 0)
            {
                ulong offset = from - top.Start;
                var region = new MemoryRegion(from, to - from, (nint)((ulong)top.Host + offset), top.Kind,
                    top.DirtyLog == 0 ? 0 : (nint)((ulong)top.DirtyLog + (offset >> 12)));
                if (flat.Count > 0 && Continues(flat[^1], region))
                    flat[^1] = flat[^1] with { Length = to - flat[^1].Start };
                else
                    flat.Add(region);
            }
            from = to;
        }
        return flat;
    }

    // Ranges that continue each other in guest and host memory (RAM below, inside and above the shadowed area) make one region.
    private static bool Continues(in MemoryRegion a, in MemoryRegion b) => a.End == b.Start && a.Kind == b.Kind
        && (nuint)a.HostAddress + a.Length == (nuint)b.HostAddress
        && (a.DirtyLog == 0 ? b.DirtyLog == 0 : (nuint)a.DirtyLog + (a.Length >> 12) == (nuint)b.DirtyLog);
}
