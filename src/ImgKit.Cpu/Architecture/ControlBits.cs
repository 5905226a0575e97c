namespace ImgKit.Cpu.Architecture;

/// <summary>Bits of CR0 (Intel SDM 3A 2.5).</summary>
internal static class Cr0
{
    public const ulong Pe = 1UL << 0;
    public const ulong Mp = 1UL << 1;
    public const ulong Em = 1UL << 2;
    public const ulong Ts = 1UL << 3;
    public const ulong Et = 1UL << 4;
    public const ulong Ne = 1UL << 5;
    public const ulong Wp = 1UL << 16;
    public const ulong Am = 1UL << 18;
    public const ulong Nw = 1UL << 29;
    public const ulong Cd = 1UL << 30;
    public const ulong Pg = 1UL << 31;
}

/// <summary>Bits of CR4 (Intel SDM 3A 2.5).</summary>
internal static class Cr4
{
    public const ulong Vme = 1UL << 0;
    public const ulong Pvi = 1UL << 1;
    public const ulong Tsd = 1UL << 2;
    public const ulong De = 1UL << 3;
    public const ulong Pse = 1UL << 4;
    public const ulong Pae = 1UL << 5;
    public const ulong Mce = 1UL << 6;
    public const ulong Pge = 1UL << 7;
    public const ulong Pce = 1UL << 8;
    public const ulong OsFxsr = 1UL << 9;
    public const ulong OsXmmExcpt = 1UL << 10;
    public const ulong Umip = 1UL << 11;
    public const ulong La57 = 1UL << 12;
    public const ulong FsGsBase = 1UL << 16;
    public const ulong Pcide = 1UL << 17;
    public const ulong OsXsave = 1UL << 18;
    public const ulong Smep = 1UL << 20;
    public const ulong Smap = 1UL << 21;
    public const ulong Pke = 1UL << 22;
}

/// <summary>Bits of EFER, MSR 0xC0000080 (AMD APM 2, 3.1.7).</summary>
internal static class Efer
{
    public const ulong Sce = 1UL << 0;
    public const ulong Lme = 1UL << 8;
    public const ulong Lma = 1UL << 10;
    public const ulong Nxe = 1UL << 11;
    public const ulong Ffxsr = 1UL << 14;
}

/// <summary>Bits of RFLAGS (Intel SDM 1, 3.4.3).</summary>
internal static class Flags
{
    public const ulong Cf = 1UL << 0;
    public const ulong Fixed = 1UL << 1;
    public const ulong Pf = 1UL << 2;
    public const ulong Af = 1UL << 4;
    public const ulong Zf = 1UL << 6;
    public const ulong Sf = 1UL << 7;
    public const ulong Tf = 1UL << 8;
    public const ulong If = 1UL << 9;
    public const ulong Df = 1UL << 10;
    public const ulong Of = 1UL << 11;
    public const ulong Iopl = 3UL << 12;
    public const ulong Nt = 1UL << 14;
    public const ulong Rf = 1UL << 16;
    public const ulong Vm = 1UL << 17;
    public const ulong Ac = 1UL << 18;
    public const ulong Vif = 1UL << 19;
    public const ulong Vip = 1UL << 20;
    public const ulong Id = 1UL << 21;

    /// <summary>CF PF AF ZF SF DF OF.</summary>
    public const ulong Arithmetic = Cf | Pf | Af | Zf | Sf | Of;
}

/// <summary>Exception vectors (Intel SDM 3A 6.3).</summary>
internal static class Vector
{
    public const byte DivideError = 0;
    public const byte Debug = 1;
    public const byte Nmi = 2;
    public const byte Breakpoint = 3;
    public const byte Overflow = 4;
    public const byte BoundRange = 5;
    public const byte InvalidOpcode = 6;
    public const byte DeviceNotAvailable = 7;
    public const byte DoubleFault = 8;
    public const byte InvalidTss = 10;
    public const byte SegmentNotPresent = 11;
    public const byte StackFault = 12;
    public const byte GeneralProtection = 13;
    public const byte PageFault = 14;
    public const byte FpuError = 16;
    public const byte AlignmentCheck = 17;
    public const byte MachineCheck = 18;
    public const byte SimdError = 19;
}
