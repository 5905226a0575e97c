using ImgKit.Cpu.Architecture;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu;

/// <summary>On whose behalf linear memory is accessed.</summary>
public enum LinearAccess : byte
{
    /// <summary>An access of the program: user when CPL is 3.</summary>
    Program,

    /// <summary>An implicit access of the processor (descriptor tables, TSS, the stack of an inner level): supervisor at any CPL.</summary>
    System,
}

/// <summary>
/// What the C# semantics of the processor need of the engine that runs it. All calls come on the vCPU's thread.
/// Linear accesses throw <see cref="GuestFault"/> (#PF with CR2 set, #GP for a non-canonical address) before anything was written.
/// </summary>
public abstract unsafe class CpuServices
{
    /// <summary>State of the CPU.</summary>
    public abstract CpuContext* Context { get; }

    /// <summary>What the CPU claims to be.</summary>
    public abstract CpuModel Model { get; }

    /// <summary>Model-specific registers that are not in the context.</summary>
    public MsrBank Msrs { get; } = new();

    /// <summary>The machine.</summary>
    public abstract IVcpuBus Bus { get; }

    /// <summary>The CPU, as the bus knows it.</summary>
    public abstract Vcpu Vcpu { get; }

    /// <summary>Reads 1, 2, 4 or 8 bytes, zero-extended; any alignment, page crossings included. The address is used modulo 2^32
    /// outside long mode.</summary>
    public abstract ulong ReadLinear(ulong linear, int size, LinearAccess access = LinearAccess.Program);

    /// <summary>Writes 1, 2, 4 or 8 bytes.</summary>
    public abstract void WriteLinear(ulong linear, ulong value, int size, LinearAccess access = LinearAccess.Program);

    /// <summary>Faults where an access of <paramref name="size"/> (1..4096) bytes would; otherwise does nothing.</summary>
    public abstract void ProbeLinear(ulong linear, int size, bool write, LinearAccess access = LinearAccess.Program);

    /// <summary>Reads physical memory: RAM, ROM or a device. 1, 2, 4 or 8 bytes, not across a page. A20 is applied here.</summary>
    public abstract ulong ReadPhysical(ulong physicalAddress, int size);

    /// <summary>Writes physical memory, likewise.</summary>
    public abstract void WritePhysical(ulong physicalAddress, ulong value, int size);

    /// <summary>Atomically replaces 4 or 8 aligned bytes of physical memory (accessed and dirty bits of page tables).</summary>
    /// <returns>false when the old value was not <paramref name="expected"/>: read again.</returns>
    public abstract bool CompareExchangePhysical(ulong physicalAddress, ulong expected, ulong value, int size);

    /// <summary>Forgets cached translations: all, or those that are not global.</summary>
    public abstract void FlushTlb(bool includeGlobal);

    /// <summary>Forgets the translation of one page (INVLPG), global or not.</summary>
    public abstract void InvalidatePage(ulong linear);

    /// <summary>Something changed that translated code depends on: CPL, any segment register, CR0, CR4, EFER, XCR0, RFLAGS.VM/TF/AC, DR7,
    /// SMM, A20. Cheap; call it once at the end of whatever changed it.</summary>
    public abstract void ModeChanged();
}
