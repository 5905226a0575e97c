using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>
/// Keeps the memory slots of one KVM address space equal to a <see cref="PhysicalMemoryMap"/>. Not thread-safe: the VM serialises.
/// A slot can be neither moved nor resized with its contents mapped, so what differs is deleted and made again.
/// </summary>
internal sealed unsafe class KvmMemorySlots(KvmFd vm, uint addressSpace, int slotLimit)
{
    private readonly Dictionary<ulong, (uint Slot, MemoryRegion Region)> _byStart = [];
    private readonly Stack<uint> _free = new();
    private uint _next;
    private ulong[] _bitmap = [];

    /// <summary>True when going to these regions deletes slots, which vCPUs in the guest must not see half done.</summary>
    public bool NeedsPause(MemoryRegion[] regions)
    {
        var wanted = regions.ToDictionary(r => r.Start);
        foreach (var (start, old) in _byStart)
            if (!wanted.TryGetValue(start, out var now) || !SameButDirtyLog(old.Region, now))
                return true;
        return false;
    }

    /// <summary>Makes the slots equal to the regions.</summary>
    public void Apply(MemoryRegion[] regions)
    {
        var wanted = regions.ToDictionary(r => r.Start);
        foreach (var (slot, old) in _byStart.Values.ToArray())
        {
            if (wanted.TryGetValue(old.Start, out var now) && SameButDirtyLog(old, now))
            {
                if (old.DirtyLog != now.DirtyLog)
                {
                    Harvest(slot, old);
                    Set(slot, now, now.Length);
                    _byStart[old.Start] = (slot, now);
                }
                wanted.Remove(old.Start);
                continue;
            }
            Harvest(slot, old);
            Set(slot, old, 0);
            _byStart.Remove(old.Start);
            _free.Push(slot);
        }
        foreach (var region in wanted.Values)
        {
            if (!_free.TryPop(out uint slot))
            {
                slot = _next++;
                if (slot >= slotLimit)
                    throw new KvmException($"KVM: more than {slotLimit} memory slots are needed");
            }
            Set(slot, region, region.Length);
            _byStart.Add(region.Start, (slot, region));
        }
    }

    /// <summary>Moves the kernel's dirty bits of all logged slots into the regions' logs.</summary>
    public void HarvestAll()
    {
        foreach (var (slot, region) in _byStart.Values)
            Harvest(slot, region);
    }

    private void Harvest(uint slot, in MemoryRegion region)
    {
        if (region.DirtyLog == 0)
            return;
        ulong pages = region.Length >> 12;
        int words = checked((int)((pages + 63) / 64));
        if (_bitmap.Length < words)
            _bitmap = new ulong[words];
        Array.Clear(_bitmap, 0, words);
        fixed (ulong* bits = _bitmap)
        {
            var log = new kvm_dirty_log { slot = slot | addressSpace << 16, dirty_bitmap = (nint)bits };
            vm.Call(KVM_GET_DIRTY_LOG, &log, "reading the dirty log");
        }
        byte* bytes = (byte*)region.DirtyLog;
        for (int i = 0; i < words; i++)
        {
            for (ulong word = _bitmap[i]; word != 0; word &= word - 1)
                Volatile.Write(ref bytes[((long)i << 6) + System.Numerics.BitOperations.TrailingZeroCount(word)], 1);
        }
    }

    private void Set(uint slot, in MemoryRegion region, ulong length)
    {
        var r = new kvm_userspace_memory_region
        {
            slot = slot | addressSpace << 16,
            flags = (region.Kind == MemoryKind.Rom ? KVM_MEM_READONLY : 0) | (region.DirtyLog != 0 ? KVM_MEM_LOG_DIRTY_PAGES : 0),
            guest_phys_addr = region.Start,
            memory_size = length,
            userspace_addr = (ulong)region.HostAddress,
        };
        vm.Call(KVM_SET_USER_MEMORY_REGION, &r, $"memory at 0x{region.Start:x}, 0x{region.Length:x} bytes");
    }

    private static bool SameButDirtyLog(in MemoryRegion a, in MemoryRegion b) => a with { DirtyLog = 0 } == b with { DirtyLog = 0 };
}
