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

    /// <summary>As in <see cref="MemoryRegion.DirtyLog"/>.</summary>
    public nint DirtyLog { get; set; }
}

/// <summary>
/// Makes the flat <see cref="PhysicalMemoryMap"/> out of ranges that cover each other by priority. Devices change their range's
/// properties and then call <see cref="Update"/>. Under the machine lock.
/// </summary>
public sealed class AddressSpace(PhysicalMemoryMap map)
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
    public MappedRange Add(int priority)
    {
        var range = new MappedRange(priority);
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

    /// <summary>Makes the flat map again.</summary>
    public void Update()
    {
        var present = _ranges.Where(r => r.Length != 0).ToArray();
        var bounds = new SortedSet<ulong>();
        foreach (var r in present)
        {
            bounds.Add(r.Start);
            bounds.Add(r.Start + r.Length);
        }
        var flat = new List<MemoryRegion>();
        MappedRange? previous = null;
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
                if (previous == top && flat[^1].End == from)
                    flat[^1] = flat[^1] with { Length = to - flat[^1].Start };
                else
                    flat.Add(new MemoryRegion(from, to - from, (nint)((ulong)top.Host + offset), top.Kind,
                        top.DirtyLog == 0 ? 0 : (nint)((ulong)top.DirtyLog + (offset >> 12))));
            }
            previous = top;
            from = to;
        }
        if (!flat.SequenceEqual(map.Regions))
            map.Replace(flat);
    }
}
