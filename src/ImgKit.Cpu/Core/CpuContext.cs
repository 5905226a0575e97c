using System.Runtime.InteropServices;

namespace ImgKit.Cpu;

/// <summary>
/// A segment register with its hidden part, as <see cref="CpuContext"/> holds it. The fields mean what they mean in
/// <see cref="SegmentRegister"/>. In real and virtual-8086 mode the base is selector * 16.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public struct SegmentState
{
    /// <summary>Linear address of offset 0.</summary>
    public ulong Base;

    /// <summary>Bytes, already scaled by granularity.</summary>
    public uint Limit;

    /// <summary>Descriptor bits 40..47 in 0..7, 52..55 in 12..15, bit 16: unusable.</summary>
    public uint Attributes;

    /// <summary>Visible part.</summary>
    public ushort Selector;

    private readonly ushort _reserved0;
    private readonly uint _reserved1;

    /// <summary>For generated code: -(limit + 1) of an expand-up segment whose accesses are checked inline, 0 where each access must
    /// be refused or looked at by the engine.</summary>
    public long CheckLimit;

    /// <summary>Present, type S, DPL and so on as one value.</summary>
    public readonly SegmentRegister ToRegister() => new(Selector, Base, Limit, Attributes);

    /// <summary>Takes over a value.</summary>
    public void Set(in SegmentRegister value)
    {
        Selector = value.Selector;
        Base = value.Base;
        Limit = value.Limit;
        Attributes = value.Attributes;
    }
}

/// <summary>
/// The whole architectural state of one virtual CPU of the translator, in native memory at a fixed address, so that generated
/// code and C# see the same words. While C# runs (helpers, exits) every field is current; while generated code runs, the general
/// registers, the arithmetic flags and the FPU are in the host's registers.
/// Indices: general registers as in instruction encodings (RAX RCX RDX RBX RSP RBP RSI RDI R8..R15), segments ES CS SS DS FS GS.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct CpuContext
{
    /// <summary>RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.</summary>
    public fixed ulong Gpr[16];

    /// <summary>Offset in CS of the instruction under way (helpers) or of the next one (between instructions).</summary>
    public ulong Rip;

    /// <summary>All of RFLAGS, bit 1 set.</summary>
    public ulong Rflags;

    public SegmentState Es;
    public SegmentState Cs;
    public SegmentState Ss;
    public SegmentState Ds;
    public SegmentState Fs;
    public SegmentState Gs;
    public SegmentState Ldtr;
    public SegmentState Tr;

    public ulong GdtrBase;
    public ulong IdtrBase;
    public ushort GdtrLimit;
    public ushort IdtrLimit;

    /// <summary>Current privilege level, 0..3: 0 in real mode, 3 in virtual-8086 mode. Arch code keeps it with CS and SS.</summary>
    public byte Cpl;

    private readonly byte _reserved0;
    private readonly ushort _reserved1;

    public ulong Cr0;
    public ulong Cr2;
    public ulong Cr3;
    public ulong Cr4;
    public ulong Xcr0;

    /// <summary>DR0..DR3, DR6 and DR7 at 6 and 7.</summary>
    public fixed ulong Dr[8];

    /// <summary>PDPTEs as loaded by MOV CR3 in PAE mode.</summary>
    public fixed ulong Pdpte[4];

    public ulong Efer;
    public ulong Star;
    public ulong Lstar;
    public ulong Cstar;
    public ulong Sfmask;
    public ulong KernelGsBase;
    public ulong SysenterCs;
    public ulong SysenterEsp;
    public ulong SysenterEip;
    public ulong Pat;
    public ulong TscAux;
    public ulong TscAdjust;

    /// <summary>Address mask for physical addresses: all ones, or bit 20 clear while A20 is off.</summary>
    public ulong A20Mask;

    /// <summary>Where SMM saves its state.</summary>
    public uint Smbase;

    /// <summary>No interrupt before the next instruction is done (after STI, MOV SS, POP SS).</summary>
    public byte InterruptShadow;

    public byte NmiBlocked;
    public byte NmiPending;
    public byte Halted;
    public byte WaitingForStartup;
    public byte InSmm;

    /// <summary>Set by exception delivery on a triple fault: <see cref="Vcpu.Run"/> returns <see cref="VcpuExit.Shutdown"/>.</summary>
    public byte Shutdown;

    private readonly byte _reserved2;

    /// <summary>x87, SSE, AVX state: an XSAVE area in standard format, 4096 bytes, 64-byte aligned. Current while C# runs.</summary>
    public byte* XsaveArea;

    // What follows belongs to the translator.

    /// <summary>1 while generated code may go on; 0 asks it to return. Polled at backward and indirect jumps.</summary>
    public int KeepRunning;

    /// <summary>IF while generated code runs (C# sees it in <see cref="Rflags"/>).</summary>
    public byte LiveIf;

    /// <summary>1 while the FPU registers of the host hold the guest's.</summary>
    public byte FpuLoaded;

    /// <summary>What a store on the slow path still needs: bit 0 copy from the bounce buffer, bit 1 leave the block.</summary>
    public byte PendingStore;

    /// <summary>Level of INTR, so that STI sees it.</summary>
    public byte InterruptLine;

    /// <summary>What the present state means for translation (size, privilege, segments ...).</summary>
    public ulong ModeKey;

    /// <summary>Where generated code goes on after entry; result of a slow access.</summary>
    public ulong ResumeAt;

    /// <summary>RFLAGS of the host when generated code was left.</summary>
    public ulong HostFlags;

    /// <summary>Host address, trap number and error code of a signal in generated code.</summary>
    public ulong FaultPc;

    public ulong FaultTrap;
    public ulong FaultError;

    /// <summary>Argument of the exit (<c>ExitReason</c> is the return value of the entry stub).</summary>
    public ulong ExitArgument;

    /// <summary>Arithmetic flags that code has spared before a lookup changed the host's; in the form of <see cref="HostFlags"/>.</summary>
    public ulong SparedFlags;

    /// <summary>Site of the last indirect branch: whose target that is, should it be none.</summary>
    public uint BranchSite;

    private readonly uint _reserved3;

    /// <summary>Handle of the managed engine.</summary>
    public nint Owner;

    /// <summary>Address of this context.</summary>
    public CpuContext* Self;

    public ulong Scratch0;
    public ulong Scratch1;
    public ulong Scratch2;

    /// <summary>Stack pointer of the entry stub.</summary>
    public ulong HostStack;

    /// <summary>A segment register by its encoding number (0 ES .. 5 GS).</summary>
    public static SegmentState* Segment(CpuContext* context, int index) => &context->Es + index;
}
