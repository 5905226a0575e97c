using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>
/// RDMSR and WRMSR. Which registers exist follows the model; all others are #GP(0). Sources: Intel SDM volume 4; AMD APM 2 appendix A,
/// and AMD's BIOS guides for the 0xC001xxxx registers.
/// </summary>
public static unsafe class Msrs
{
    private const uint Tsc = 0x10, ApicBase = 0x1B, TscAdjust = 0x3B, MicrocodeUpdate = 0x79, MicrocodeRevision = 0x8B, MtrrCapability = 0xFE;
    private const uint SysenterCs = 0x174, SysenterEsp = 0x175, SysenterEip = 0x176, McgCapability = 0x179, McgStatus = 0x17A, McgControl = 0x17B;
    private const uint MtrrVariable = 0x200, Pat = 0x277, MtrrDefaultType = 0x2FF, McaFirst = 0x400;
    private const uint EferIndex = 0xC0000080, Star = 0xC0000081, Lstar = 0xC0000082, Cstar = 0xC0000083, Sfmask = 0xC0000084;
    private const uint FsBase = 0xC0000100, GsBase = 0xC0000101, KernelGsBase = 0xC0000102, TscAux = 0xC0000103;

    /// <summary>IA32_MTRR_FIX64K_00000, FIX16K_80000 and A0000, FIX4K_C0000 to F8000.</summary>
    private static ReadOnlySpan<ushort> MtrrFixed => [0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F];

    /// <summary>RDMSR.</summary>
    public static ulong Read(CpuContext* c, CpuServices s, uint index)
    {
        ControlRegisters.RequireSupervisor(c);
        return TryRead(c, s, index, out ulong value) ? value : throw Faults.GeneralProtection();
    }

    /// <summary>WRMSR.</summary>
    public static void Write(CpuContext* c, CpuServices s, uint index, ulong value)
    {
        ControlRegisters.RequireSupervisor(c);
        if (!TryWrite(c, s, index, value))
            throw Faults.GeneralProtection();
    }

    /// <summary>The guest's time-stamp counter.</summary>
    public static ulong TimeStamp(CpuContext* c, CpuServices s) => s.Bus.ReadTimeStampCounter(s.Vcpu) + c->TscAdjust;

    /// <summary>RDTSC: #GP(0) above CPL 0 with CR4.TSD.</summary>
    public static ulong ReadTimeStamp(CpuContext* c, CpuServices s)
    {
        if (c->Cpl != 0 && (c->Cr4 & Cr4.Tsd) != 0)
            throw Faults.GeneralProtection();
        return TimeStamp(c, s);
    }

    /// <summary>RDPMC: counters that stand still.</summary>
    public static ulong ReadPerformanceCounter(CpuContext* c, uint index)
    {
        bool forbidden = c->Cpl != 0 && (c->Cr4 & Cr4.Pce) == 0;
        return forbidden || index > 3 ? throw Faults.GeneralProtection() : 0UL;
    }

    internal static bool TryRead(CpuContext* c, CpuServices s, uint index, out ulong value)
    {
        var model = s.Model;
        var bank = s.Msrs;
        value = 0;
        switch (index)
        {
            case 0 or 1:
                return true;
            case Tsc:
                value = TimeStamp(c, s);
                return model.Has(CpuFeature.Tsc);
            case TscAdjust:
                value = c->TscAdjust;
                return model.Has(CpuFeature.TscAdjust);
            case MicrocodeRevision:
                value = model.IsAmd ? 0x01000065UL : 1UL << 32;
                return true;
            case MtrrCapability:
                value = 0x500UL | MsrBank.VariableRanges;
                return model.Has(CpuFeature.Mtrr);
            case SysenterCs:
                value = c->SysenterCs;
                return model.Has(CpuFeature.Sep);
            case SysenterEsp:
                value = c->SysenterEsp;
                return model.Has(CpuFeature.Sep);
            case SysenterEip:
                value = c->SysenterEip;
                return model.Has(CpuFeature.Sep);
            case McgCapability:
                value = MsrBank.McaBanks | (1UL << 8);
                return model.Has(CpuFeature.Mca);
            case McgStatus:
                bank.Plain.TryGetValue(index, out value);
                return model.Has(CpuFeature.Mca);
            case McgControl:
                value = bank.Plain.TryGetValue(index, out value) ? value : ulong.MaxValue;
                return model.Has(CpuFeature.Mca);
            case >= McaFirst and < McaFirst + (MsrBank.McaBanks * 4):
                value = bank.Mca[index - McaFirst];
                return model.Has(CpuFeature.Mca);
            case >= MtrrVariable and < MtrrVariable + (MsrBank.VariableRanges * 2):
                value = bank.MtrrVariable[index - MtrrVariable];
                return model.Has(CpuFeature.Mtrr);
            case MtrrDefaultType:
                value = bank.MtrrDefaultType;
                return model.Has(CpuFeature.Mtrr);
            case Pat:
                value = c->Pat;
                return model.Has(CpuFeature.Pat);
            case EferIndex:
                value = c->Efer;
                return HasEfer(model);
            case Star:
                value = c->Star;
                return model.Has(CpuFeature.Syscall);
            case Lstar:
                value = c->Lstar;
                return model.Has(CpuFeature.Lm);
            case Cstar:
                value = c->Cstar;
                return model.Has(CpuFeature.Lm);
            case Sfmask:
                value = c->Sfmask;
                return model.Has(CpuFeature.Lm);
            case FsBase:
                value = c->Fs.Base;
                return model.Has(CpuFeature.Lm);
            case GsBase:
                value = c->Gs.Base;
                return model.Has(CpuFeature.Lm);
            case KernelGsBase:
                value = c->KernelGsBase;
                return model.Has(CpuFeature.Lm);
            case TscAux:
                value = c->TscAux;
                return model.Has(CpuFeature.Rdtscp) || model.Has(CpuFeature.Rdpid);
        }
        int fixedRange = MtrrFixed.IndexOf((ushort)Math.Min(index, ushort.MaxValue));
        if (fixedRange >= 0)
        {
            value = bank.MtrrFixed[fixedRange];
            return model.Has(CpuFeature.Mtrr);
        }
        if (PlainMsrs.TryDescribe(model, index, out ulong initial, out _))
        {
            value = bank.Plain.TryGetValue(index, out value) ? value : initial;
            return true;
        }
        return IsMachine(model, index) && s.Bus.ReadMsr(s.Vcpu, index, out value);
    }

    private static bool TryWrite(CpuContext* c, CpuServices s, uint index, ulong value)
    {
        var model = s.Model;
        var bank = s.Msrs;
        if (!TryRead(c, s, index, out ulong old) && index != MicrocodeUpdate && !IsMachine(model, index))
            return false;
        switch (index)
        {
            case 0 or 1 or MicrocodeRevision:
                return true;
            case MicrocodeUpdate:
                return !model.IsAmd && model.Family >= 6;
            case Tsc:
                c->TscAdjust += value - old;
                return true;
            case TscAdjust:
                c->TscAdjust = value;
                return true;
            case MtrrCapability or McgCapability:
                return false;
            case SysenterCs:
                c->SysenterCs = (uint)value;
                return true;
            case SysenterEsp when IsAddress(c, model, value):
                c->SysenterEsp = value;
                return true;
            case SysenterEip when IsAddress(c, model, value):
                c->SysenterEip = value;
                return true;
            case McgStatus when value == 0:
            case McgControl when value is 0 or ulong.MaxValue:
                bank.Plain[index] = value;
                return true;
            case >= McaFirst and < McaFirst + (MsrBank.McaBanks * 4):
                return TryWriteMca(bank, index - McaFirst, value);
            case >= MtrrVariable and < MtrrVariable + (MsrBank.VariableRanges * 2):
                return TryWriteVariable(model, bank, index - MtrrVariable, value);
            case MtrrDefaultType when (value & ~0xCFFUL) == 0 && IsMemoryType(value & 0xFF, false):
                bank.MtrrDefaultType = value;
                return true;
            case Pat:
                return TryWritePat(c, value);
            case EferIndex:
                ControlRegisters.WriteEfer(c, s, value);
                return true;
            case Star:
                c->Star = value;
                return true;
            case Lstar when PageWalker.IsCanonical(c, value):
                c->Lstar = value;
                return true;
            case Cstar when PageWalker.IsCanonical(c, value):
                c->Cstar = value;
                return true;
            case Sfmask:
                c->Sfmask = (uint)value;
                return true;
            case FsBase when PageWalker.IsCanonical(c, value):
                c->Fs.Base = value;
                // 64-bit code reads the base each time; other code may have it built in.
                if (!Mode.Is64Bit(c))
                    s.ModeChanged();
                return true;
            case GsBase when PageWalker.IsCanonical(c, value):
                c->Gs.Base = value;
                // 64-bit code reads the base each time; other code may have it built in.
                if (!Mode.Is64Bit(c))
                    s.ModeChanged();
                return true;
            case KernelGsBase when PageWalker.IsCanonical(c, value):
                c->KernelGsBase = value;
                return true;
            case TscAux when value >> 32 == 0:
                c->TscAux = value;
                return true;
            case SysenterEsp or SysenterEip or McgStatus or McgControl or MtrrDefaultType or Lstar or Cstar or FsBase or GsBase or KernelGsBase
                or TscAux:
                return false;
        }
        int fixedRange = MtrrFixed.IndexOf((ushort)Math.Min(index, ushort.MaxValue));
        if (fixedRange >= 0)
        {
            for (int i = 0; i < 64; i += 8)
            {
                if (!IsMemoryType(value >> i & 0xFF, false))
                    return false;
            }
            bank.MtrrFixed[fixedRange] = value;
            return true;
        }
        if (PlainMsrs.TryDescribe(model, index, out _, out ulong writable))
        {
            if (writable != 0)
                bank.Plain[index] = (old & ~writable) | (value & writable);
            return true;
        }
        return s.Bus.WriteMsr(s.Vcpu, index, value);
    }

    /// <summary>Registers of the local APIC: its base, x2APIC, TSC deadline.</summary>
    private static bool IsMachine(CpuModel model, uint index) => index switch
    {
        ApicBase => model.Has(CpuFeature.Apic),
        >= 0x800 and <= 0x8FF => model.Has(CpuFeature.X2Apic),
        0x6E0 => model.Has(CpuFeature.TscDeadline),
        _ => false,
    };

    private static bool HasEfer(CpuModel model) => model.Has(CpuFeature.Syscall) || model.Has(CpuFeature.Nx) || model.Has(CpuFeature.Lm);

    private static bool IsAddress(CpuContext* c, CpuModel model, ulong value) => !model.Has(CpuFeature.Lm) || PageWalker.IsCanonical(c, value);

    private static bool TryWriteMca(MsrBank bank, uint offset, ulong value)
    {
        // CTL takes all or nothing, but for bits that systems clear on some processors' account (0, and 10 for AMD's GART); STATUS can only be cleared.
        const ulong Spared = 1 << 10 | 1;
        if ((offset & 3) == 1 && value != 0 || (offset & 3) == 0 && value != 0 && (value | Spared) != ulong.MaxValue)
            return false;
        bank.Mca[offset] = value;
        return true;
    }

    private static bool TryWriteVariable(CpuModel model, MsrBank bank, uint offset, ulong value)
    {
        ulong above = ~((1UL << model.PhysicalAddressBits) - 1);
        bool isMask = (offset & 1) != 0;
        ulong reserved = above | (isMask ? 0x7FFUL : 0xF00UL);
        if ((value & reserved) != 0 || (!isMask && !IsMemoryType(value & 0xFF, false)))
            return false;
        bank.MtrrVariable[offset] = value;
        return true;
    }

    private static bool TryWritePat(CpuContext* c, ulong value)
    {
        for (int i = 0; i < 64; i += 8)
        {
            if (!IsMemoryType(value >> i & 0xFF, true))
                return false;
        }
        c->Pat = value;
        return true;
    }

    /// <summary>UC, WC, WT, WP, WB; in the PAT also UC-.</summary>
    private static bool IsMemoryType(ulong type, bool inPat) => type is 0 or 1 or 4 or 5 or 6 || (inPat && type == 7);

    /// <summary>Copies all registers out, for a saved state.</summary>
    internal static void Save(CpuContext* c, CpuServices s, Dictionary<uint, ulong> msrs)
    {
        msrs.Clear();
        ReadOnlySpan<uint> scalar =
        [
            Tsc, TscAdjust, ApicBase, SysenterCs, SysenterEsp, SysenterEip, McgStatus, McgControl, MtrrDefaultType, Pat, EferIndex, Star, Lstar, Cstar,
            Sfmask, FsBase, GsBase, KernelGsBase, TscAux,
        ];
        foreach (uint index in scalar)
            Copy(c, s, index, msrs);
        foreach (ushort index in MtrrFixed)
            Copy(c, s, index, msrs);
        for (uint i = 0; i < MsrBank.VariableRanges * 2; i++)
            Copy(c, s, MtrrVariable + i, msrs);
        for (uint i = 0; i < MsrBank.McaBanks * 4; i++)
            Copy(c, s, McaFirst + i, msrs);
        foreach (var (index, value) in s.Msrs.Plain)
            msrs[index] = value;

        static void Copy(CpuContext* c, CpuServices s, uint index, Dictionary<uint, ulong> msrs)
        {
            if (TryRead(c, s, index, out ulong value))
                msrs[index] = value;
        }
    }

    /// <summary>Takes registers from a saved state; those that were never defined here are kept and given back by <see cref="Save"/>.</summary>
    internal static void Restore(CpuContext* c, CpuServices s, Dictionary<uint, ulong> msrs)
    {
        var bank = s.Msrs;
        bank.Reset();
        // EFER holds LMA, which WRMSR cannot set; the segment bases come with the segments.
        if (msrs.TryGetValue(EferIndex, out ulong efer))
            c->Efer = efer;
        foreach (var (index, value) in msrs)
        {
            if (index is EferIndex or FsBase or GsBase or Tsc or TscAdjust)
                continue;
            if (index - McaFirst < MsrBank.McaBanks * 4)
                bank.Mca[index - McaFirst] = value;
            else if (!TryWrite(c, s, index, value))
                bank.Plain[index] = value;
        }
        if (msrs.TryGetValue(Tsc, out ulong tsc))
            c->TscAdjust = tsc - s.Bus.ReadTimeStampCounter(s.Vcpu);
        else if (msrs.TryGetValue(TscAdjust, out ulong adjust))
            c->TscAdjust = adjust;
    }
}
