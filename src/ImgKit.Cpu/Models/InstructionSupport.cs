using Iced.Intel;

namespace ImgKit.Cpu.Models;

/// <summary>
/// Which instructions a model has: what it lacks faults as undefined. Answers are precomputed into a bit set, since the translator
/// asks for every instruction it decodes.
/// </summary>
public sealed class InstructionSupport
{
    private readonly ulong[] _allowed = new ulong[4];

    /// <summary>Makes the set of a model.</summary>
    public InstructionSupport(CpuModel model)
    {
        ArgumentNullException.ThrowIfNull(model);
        for (int i = 0; i < 256; i++)
        {
            if (Allows(model, (CpuidFeature)i))
                _allowed[i >> 6] |= 1UL << (i & 63);
        }
    }

    /// <summary>Whether all of an instruction's needs are met (<c>instruction.Code.CpuidFeatures()</c>).</summary>
    public bool Allows(ReadOnlySpan<CpuidFeature> needs)
    {
        foreach (var need in needs)
        {
            if (!Allows(need))
                return false;
        }
        return true;
    }

    /// <summary>Whether one need is met.</summary>
    public bool Allows(CpuidFeature need) => (_allowed[((int)need >> 6) & 3] >> ((int)need & 63) & 1) != 0;

    /// <summary>Bits of MXCSR that exist: misaligned-exception mask (bit 17) with <see cref="CpuFeature.MisalignSse"/> only.</summary>
    internal static uint MxcsrMask(CpuModel model) => model.Has(CpuFeature.MisalignSse) ? 0x2FFFFu : 0xFFFF;

    private static bool Allows(CpuModel model, CpuidFeature need) => need switch
    {
        CpuidFeature.INTEL8086 or CpuidFeature.INTEL186 or CpuidFeature.INTEL286 or CpuidFeature.INTEL386 or CpuidFeature.INTEL486
            or CpuidFeature.CPUID or CpuidFeature.PAUSE => true,
        CpuidFeature.X64 => model.Has(CpuFeature.Lm),
        CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387 => model.Has(CpuFeature.Fpu),
        // The reserved-NOP space came with the Pentium Pro; what was put into it later decodes as NOP where it is not enabled.
        CpuidFeature.MULTIBYTENOP or CpuidFeature.CET_IBT or CpuidFeature.CET_SS or CpuidFeature.CLDEMOTE or CpuidFeature.PREFETCHITI
            or CpuidFeature.RDPMC or CpuidFeature.MPX => model.Family >= 6,
        CpuidFeature.PREFETCHW or CpuidFeature.PREFETCHWT1 => model.Has(CpuFeature.Prefetch3DNow) || model.Has(CpuFeature.Lm)
            || model.Has(CpuFeature.ThreeDNow),
        // Without the feature these are other instructions (REP BSF, REP BSR, WBINVD): the translator asks the model.
        CpuidFeature.BMI1 => model.Has(CpuFeature.Bmi1),
        CpuidFeature.LZCNT => model.Has(CpuFeature.Abm),
        CpuidFeature.WBNOINVD => true,
        CpuidFeature.HLE_or_RTM => false,
        CpuidFeature.TSC => model.Has(CpuFeature.Tsc),
        CpuidFeature.MSR => model.Has(CpuFeature.Msr),
        CpuidFeature.CX8 => model.Has(CpuFeature.Cx8),
        CpuidFeature.SEP => model.Has(CpuFeature.Sep),
        CpuidFeature.CMOV => model.Has(CpuFeature.Cmov),
        CpuidFeature.CLFSH => model.Has(CpuFeature.Clflush),
        CpuidFeature.MMX => model.Has(CpuFeature.Mmx),
        CpuidFeature.FXSR => model.Has(CpuFeature.Fxsr),
        CpuidFeature.SSE => model.Has(CpuFeature.Sse),
        CpuidFeature.SSE2 => model.Has(CpuFeature.Sse2),
        CpuidFeature.SSE3 => model.Has(CpuFeature.Sse3),
        CpuidFeature.PCLMULQDQ => model.Has(CpuFeature.Pclmulqdq),
        CpuidFeature.MONITOR => model.Has(CpuFeature.Monitor),
        CpuidFeature.SSSE3 => model.Has(CpuFeature.Ssse3),
        CpuidFeature.FMA => model.Has(CpuFeature.Fma),
        CpuidFeature.CMPXCHG16B => model.Has(CpuFeature.Cx16),
        CpuidFeature.SSE4_1 => model.Has(CpuFeature.Sse41),
        CpuidFeature.SSE4_2 => model.Has(CpuFeature.Sse42),
        CpuidFeature.MOVBE => model.Has(CpuFeature.Movbe),
        CpuidFeature.POPCNT => model.Has(CpuFeature.Popcnt),
        CpuidFeature.AES => model.Has(CpuFeature.Aes),
        CpuidFeature.XSAVE => model.Has(CpuFeature.Xsave),
        CpuidFeature.XSAVEOPT => model.Has(CpuFeature.XsaveOpt),
        CpuidFeature.XSAVEC => model.Has(CpuFeature.Xsavec),
        CpuidFeature.AVX => model.Has(CpuFeature.Avx),
        CpuidFeature.AVX2 => model.Has(CpuFeature.Avx2),
        CpuidFeature.F16C => model.Has(CpuFeature.F16c),
        CpuidFeature.RDRAND => model.Has(CpuFeature.Rdrand),
        CpuidFeature.RDSEED => model.Has(CpuFeature.Rdseed),
        CpuidFeature.SYSCALL => model.Has(CpuFeature.Syscall),
        CpuidFeature.RDTSCP => model.Has(CpuFeature.Rdtscp),
        CpuidFeature.SSE4A => model.Has(CpuFeature.Sse4a),
        CpuidFeature.FSGSBASE => model.Has(CpuFeature.FsGsBase),
        CpuidFeature.BMI2 => model.Has(CpuFeature.Bmi2),
        CpuidFeature.INVPCID => model.Has(CpuFeature.Invpcid),
        CpuidFeature.ADX => model.Has(CpuFeature.Adx),
        CpuidFeature.SMAP => model.Has(CpuFeature.Smap),
        CpuidFeature.CLFLUSHOPT => model.Has(CpuFeature.ClflushOpt),
        CpuidFeature.CLWB => model.Has(CpuFeature.Clwb),
        CpuidFeature.SHA => model.Has(CpuFeature.Sha),
        CpuidFeature.GFNI => model.Has(CpuFeature.Gfni),
        CpuidFeature.VAES => model.Has(CpuFeature.Vaes),
        CpuidFeature.VPCLMULQDQ => model.Has(CpuFeature.Vpclmulqdq),
        CpuidFeature.RDPID => model.Has(CpuFeature.Rdpid),
        CpuidFeature.D3NOW => model.Has(CpuFeature.ThreeDNow),
        CpuidFeature.D3NOWEXT => model.Has(CpuFeature.ThreeDNowExt),
        CpuidFeature.CLZERO => model.Has(CpuFeature.ClZero),
        CpuidFeature.SMM => true,
        _ => false,
    };
}
