namespace ImgKit.Cpu.Models;

/// <summary>The registers of CPUID that consist of feature flags.</summary>
public enum CpuidWord
{
    /// <summary>Leaf 1, EDX.</summary>
    Leaf1Edx,

    /// <summary>Leaf 1, ECX.</summary>
    Leaf1Ecx,

    /// <summary>Leaf 0x80000001, EDX. Where the vendor is AMD, it repeats the flags of leaf 1 (see <see cref="CpuModel"/>).</summary>
    Extended1Edx,

    /// <summary>Leaf 0x80000001, ECX.</summary>
    Extended1Ecx,

    /// <summary>Leaf 7 subleaf 0, EBX.</summary>
    Leaf7Ebx,

    /// <summary>Leaf 7 subleaf 0, ECX.</summary>
    Leaf7Ecx,

    /// <summary>Leaf 7 subleaf 0, EDX.</summary>
    Leaf7Edx,

    /// <summary>Leaf 0xD subleaf 1, EAX.</summary>
    LeafDEax,

    /// <summary>Leaf 6, EAX.</summary>
    Leaf6Eax,

    /// <summary>Leaf 0x80000007, EDX.</summary>
    Extended7Edx,

    /// <summary>Leaf 0x80000008, EBX.</summary>
    Extended8Ebx,
}

/// <summary>Feature flags that the processor's behaviour depends on: the word in bits 5.., the bit in bits 0..4.
/// Those that only the guest's programs look at have a name in <see cref="CpuFeatureNames"/>, but none here.</summary>
public enum CpuFeature
{
    Fpu = 0,
    Vme = 1,
    De = 2,
    Pse = 3,
    Tsc = 4,
    Msr = 5,
    Pae = 6,
    Mce = 7,
    Cx8 = 8,
    Apic = 9,
    Sep = 11,
    Mtrr = 12,
    Pge = 13,
    Mca = 14,
    Cmov = 15,
    Pat = 16,
    Pse36 = 17,
    Clflush = 19,
    Acpi = 22,
    Mmx = 23,
    Fxsr = 24,
    Sse = 25,
    Sse2 = 26,
    SelfSnoop = 27,
    Htt = 28,

    Sse3 = 32,
    Pclmulqdq = 32 + 1,
    Monitor = 32 + 3,
    Vmx = 32 + 5,
    Ssse3 = 32 + 9,
    Fma = 32 + 12,
    Cx16 = 32 + 13,
    Pdcm = 32 + 15,
    Pcid = 32 + 17,
    Sse41 = 32 + 19,
    Sse42 = 32 + 20,
    X2Apic = 32 + 21,
    Movbe = 32 + 22,
    Popcnt = 32 + 23,
    TscDeadline = 32 + 24,
    Aes = 32 + 25,
    Xsave = 32 + 26,
    OsXsave = 32 + 27,
    Avx = 32 + 28,
    F16c = 32 + 29,
    Rdrand = 32 + 30,
    Hypervisor = 32 + 31,

    Syscall = 64 + 11,
    Nx = 64 + 20,
    MmxExt = 64 + 22,
    FfxSr = 64 + 25,
    Pdpe1Gb = 64 + 26,
    Rdtscp = 64 + 27,
    Lm = 64 + 29,
    ThreeDNowExt = 64 + 30,
    ThreeDNow = 64 + 31,

    LahfLm = 96,
    CmpLegacy = 96 + 1,
    Svm = 96 + 2,
    Cr8Legacy = 96 + 4,
    Abm = 96 + 5,
    Sse4a = 96 + 6,
    MisalignSse = 96 + 7,
    Prefetch3DNow = 96 + 8,
    Xop = 96 + 11,
    Fma4 = 96 + 16,
    Tbm = 96 + 21,
    TopoExt = 96 + 22,

    FsGsBase = 128,
    TscAdjust = 128 + 1,
    Bmi1 = 128 + 3,
    Avx2 = 128 + 5,
    Smep = 128 + 7,
    Bmi2 = 128 + 8,
    Erms = 128 + 9,
    Invpcid = 128 + 10,
    Avx512f = 128 + 16,
    Rdseed = 128 + 18,
    Adx = 128 + 19,
    Smap = 128 + 20,
    ClflushOpt = 128 + 23,
    Clwb = 128 + 24,
    Sha = 128 + 29,

    Umip = 160 + 2,
    Pku = 160 + 3,
    Gfni = 160 + 8,
    Vaes = 160 + 9,
    Vpclmulqdq = 160 + 10,
    La57 = 160 + 16,
    Rdpid = 160 + 22,

    Fsrm = 192 + 4,

    XsaveOpt = 224,
    Xsavec = 224 + 1,
    Xgetbv1 = 224 + 2,

    Arat = 256 + 2,

    InvariantTsc = 288 + 8,

    ClZero = 320,
    XsaveErPtr = 320 + 2,
    Wbnoinvd = 320 + 9,
}
