namespace ImgKit.Cpu;

/// <summary>A segment register with its hidden part.</summary>
/// <param name="Selector">visible part.</param>
/// <param name="Base">linear address.</param>
/// <param name="Limit">bytes, already scaled by granularity.</param>
/// <param name="Attributes">descriptor bits 40..47 in bits 0..7 (type, S, DPL, P) and 52..55 in bits 12..15 (AVL, L, D/B, G), as in
/// VMCB and descriptor words; bit 16 set: unusable (null).</param>
public readonly record struct SegmentRegister(ushort Selector, ulong Base, uint Limit, uint Attributes);

/// <summary>
/// Architectural state of one x86 processor, in a form that every engine can take and give.
/// Sources: Intel SDM volume 3A chapters 2 and 9, AMD APM volume 2 chapters 3 and 14 (reset values).
/// </summary>
public sealed class CpuState
{
    /// <summary>RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.</summary>
    public ulong[] Gpr { get; } = new ulong[16];

    /// <summary>Instruction pointer (offset in CS).</summary>
    public ulong Rip { get; set; }

    /// <summary>RFLAGS, bit 1 set.</summary>
    public ulong Rflags { get; set; } = 2;

    /// <summary>ES CS SS DS FS GS.</summary>
    public SegmentRegister[] Segments { get; } = new SegmentRegister[6];

    /// <summary>Local descriptor table register.</summary>
    public SegmentRegister Ldtr { get; set; }

    /// <summary>Task register.</summary>
    public SegmentRegister Tr { get; set; }

    /// <summary>Global descriptor table: linear base and limit.</summary>
    public (ulong Base, ushort Limit) Gdtr { get; set; }

    /// <summary>Interrupt descriptor table: linear base and limit.</summary>
    public (ulong Base, ushort Limit) Idtr { get; set; }

    /// <summary>CR0.</summary>
    public ulong Cr0 { get; set; }

    /// <summary>CR2.</summary>
    public ulong Cr2 { get; set; }

    /// <summary>CR3.</summary>
    public ulong Cr3 { get; set; }

    /// <summary>CR4.</summary>
    public ulong Cr4 { get; set; }

    /// <summary>Extended control register 0.</summary>
    public ulong Xcr0 { get; set; } = 1;

    /// <summary>DR0 DR1 DR2 DR3, then DR6 and DR7 at 6 and 7.</summary>
    public ulong[] Dr { get; } = new ulong[8];

    /// <summary>Model-specific registers by index: EFER, STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE, SYSENTER_*, PAT, MTRRs, TSC (as value
    /// now), TSC_AUX, MISC_ENABLE, APIC_BASE... Those an engine does not know are kept by it and given back.</summary>
    public Dictionary<uint, ulong> Msrs { get; } = [];

    /// <summary>x87, SSE, AVX state in the standard (not compacted) format of XSAVE, 4096 bytes.</summary>
    public byte[] Xsave { get; } = new byte[4096];

    /// <summary>In HLT.</summary>
    public bool Halted { get; set; }

    /// <summary>Waiting for SIPI.</summary>
    public bool WaitingForStartup { get; set; }

    /// <summary>The instruction before was STI or MOV SS: no interrupt yet.</summary>
    public bool InterruptShadow { get; set; }

    /// <summary>NMI blocked until IRET.</summary>
    public bool NmiBlocked { get; set; }

    /// <summary>NMI latched.</summary>
    public bool NmiPending { get; set; }

    /// <summary>Vector of an interrupt that was acknowledged and whose delivery is still to be done (before the next instruction); -1: none.</summary>
    public int InjectedInterrupt { get; set; } = -1;

    /// <summary>The injected interrupt is a software interrupt (INT n).</summary>
    public bool InjectedInterruptIsSoft { get; set; }

    /// <summary>Vector of an exception whose delivery is still to be done; -1: none.</summary>
    public int PendingException { get; set; } = -1;

    /// <summary>Error code of <see cref="PendingException"/>; null: it has none.</summary>
    public uint? PendingExceptionError { get; set; }

    /// <summary>In system-management mode.</summary>
    public bool InSmm { get; set; }

    /// <summary>Where SMM saves its state.</summary>
    public uint Smbase { get; set; } = 0x30000;

    /// <summary>Makes another state equal to this one; what it has beyond is kept.</summary>
    public void CopyTo(CpuState to)
    {
        Gpr.CopyTo(to.Gpr, 0);
        (to.Rip, to.Rflags) = (Rip, Rflags);
        Segments.CopyTo(to.Segments, 0);
        (to.Ldtr, to.Tr, to.Gdtr, to.Idtr) = (Ldtr, Tr, Gdtr, Idtr);
        (to.Cr0, to.Cr2, to.Cr3, to.Cr4, to.Xcr0) = (Cr0, Cr2, Cr3, Cr4, Xcr0);
        Dr.CopyTo(to.Dr, 0);
        foreach (var (index, value) in Msrs)
            to.Msrs[index] = value;
        Xsave.CopyTo(to.Xsave, 0);
        (to.Halted, to.WaitingForStartup, to.InterruptShadow) = (Halted, WaitingForStartup, InterruptShadow);
        (to.NmiBlocked, to.NmiPending) = (NmiBlocked, NmiPending);
        (to.InjectedInterrupt, to.InjectedInterruptIsSoft) = (InjectedInterrupt, InjectedInterruptIsSoft);
        (to.PendingException, to.PendingExceptionError) = (PendingException, PendingExceptionError);
        (to.InSmm, to.Smbase) = (InSmm, Smbase);
    }
}
