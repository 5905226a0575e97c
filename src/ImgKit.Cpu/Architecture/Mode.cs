using System.Runtime.CompilerServices;

namespace ImgKit.Cpu.Architecture;

/// <summary>Which mode the processor is in.</summary>
internal static unsafe class Mode
{
    /// <summary>CR0.PE clear.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool IsReal(CpuContext* c) => (c->Cr0 & Cr0.Pe) == 0;

    /// <summary>Virtual 8086.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool IsVirtual8086(CpuContext* c) => (c->Rflags & Flags.Vm) != 0 && (c->Cr0 & Cr0.Pe) != 0;

    /// <summary>Real or virtual 8086: selectors are paragraphs.</summary>
    public static bool IsParagraph(CpuContext* c) => IsReal(c) || IsVirtual8086(c);

    /// <summary>Long mode active, 64-bit or compatibility.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool IsLong(CpuContext* c) => (c->Efer & Efer.Lma) != 0;

    /// <summary>64-bit mode.</summary>
    public static bool Is64Bit(CpuContext* c) => IsLong(c) && (c->Cs.Attributes & SegmentAttributes.Long) != 0;

    /// <summary>Misaligned accesses of the program are faults (Intel SDM 3A 6.15, interrupt 17).</summary>
    public static bool ChecksAlignment(CpuContext* c) => c->Cpl == 3 && (c->Rflags & Flags.Ac) != 0 && (c->Cr0 & Cr0.Am) != 0;

    public static int Iopl(CpuContext* c) => (int)(c->Rflags >> 12) & 3;
}
