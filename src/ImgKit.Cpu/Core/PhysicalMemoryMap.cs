namespace ImgKit.Cpu;

/// <summary>What backs a range of guest-physical addresses.</summary>
public enum MemoryKind
{
    /// <summary>Read, written and executed directly.</summary>
    Ram,

    /// <summary>Read and executed directly; writes go to <see cref="IVcpuBus.MmioWrite"/>.</summary>
    Rom,
}

/// <summary>A range of guest-physical addresses that is backed by host memory. Bounds are multiples of 4096.</summary>
/// <param name="Start">guest-physical address of the first byte.</param>
/// <param name="Length">bytes.</param>
/// <param name="HostAddress">host address of the first byte.</param>
/// <param name="Kind">RAM or ROM.</param>
/// <param name="DirtyLog">when not null, one byte a page, set to 1 by an engine when the guest writes the page (readers clear it with
/// an atomic exchange before they look at the page); its address, length Length / 4096.</param>
public readonly record struct MemoryRegion(ulong Start, ulong Length, nint HostAddress, MemoryKind Kind, nint DirtyLog = 0)
{
    /// <summary>Guest-physical address behind the last byte.</summary>
    public ulong End => Start + Length;
}

/// <summary>
/// The flat map of guest-physical addresses that both engines use. Whatever no region covers is MMIO. The machine replaces the
/// whole map when a device moves a region (PAM, SMRAM, a BAR); engines listen to <see cref="Changed"/>.
/// </summary>
public sealed class PhysicalMemoryMap
{
    private volatile MemoryRegion[] _regions = [];

    /// <summary>Sorted by address, not overlapping. The array is never modified.</summary>
    public MemoryRegion[] Regions => _regions;

    /// <summary>Raised after a change, on the thread that made it, while vCPUs may run: engines drop what they derived (TLBs,
    /// slots) before the handler returns or before the vCPU's next instruction.</summary>
    public event Action? Changed;

    /// <summary>Raised by <see cref="SynchronizeDirtyLogs"/>: engines that learn of guest writes late (KVM) bring all
    /// <see cref="MemoryRegion.DirtyLog"/> up to date before they return.</summary>
    public event Action? DirtyLogsWanted;

    /// <summary>Call before reading dirty logs: afterwards every guest write that came before is in them.</summary>
    public void SynchronizeDirtyLogs() => DirtyLogsWanted?.Invoke();

    /// <summary>Sets all regions (any order). Throws <see cref="ArgumentException"/> when two overlap or a bound is not page-aligned.</summary>
    public void Replace(IEnumerable<MemoryRegion> regions)
    {
        var sorted = regions.OrderBy(r => r.Start).ToArray();
        for (int i = 0; i < sorted.Length; i++)
        {
            if (((sorted[i].Start | sorted[i].Length) & 0xFFF) != 0 || sorted[i].Length == 0)
                throw new ArgumentException($"memory region at 0x{sorted[i].Start:x} is not made of whole pages");
            if (i > 0 && sorted[i - 1].End > sorted[i].Start)
                throw new ArgumentException($"memory regions overlap at 0x{sorted[i].Start:x}");
        }
        _regions = sorted;
        Changed?.Invoke();
    }

    /// <summary>Raised by <see cref="NotifyDeviceWrite"/>.</summary>
    public event Action<ulong, ulong>? DeviceWrote;

    /// <summary>Raised by <see cref="BeginDirtyScan"/>.</summary>
    public event Action? DirtyScan;

    /// <summary>Called by whoever but a vCPU writes guest memory (DMA, loaders while the machine runs), after the write and before the
    /// guest is told of it: engines drop code that they translated from there.</summary>
    public void NotifyDeviceWrite(ulong physicalAddress, ulong length) => DeviceWrote?.Invoke(physicalAddress, length);

    /// <summary>Called by a reader of a dirty log after it has cleared the bytes it found set and before it looks at the pages: engines stop
    /// writing logged pages without marking them.</summary>
    public void BeginDirtyScan() => DirtyScan?.Invoke();

    /// <summary>The region of an address; false where there is none (MMIO).</summary>
    public bool TryFind(ulong address, out MemoryRegion region)
    {
        var all = _regions;
        int lo = 0, hi = all.Length - 1;
        while (lo <= hi)
        {
            int mid = (lo + hi) >> 1;
            if (address < all[mid].Start)
                hi = mid - 1;
            else if (address >= all[mid].End)
                lo = mid + 1;
            else
            {
                region = all[mid];
                return true;
            }
        }
        region = default;
        return false;
    }
}
