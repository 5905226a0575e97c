using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>
/// MOV to and from control registers, LMSW, CLTS, XSETBV, and what entering and leaving paging and long mode means.
/// Sources: Intel SDM 3A 2.5, 4.1, 9.8.5; 2B MOV-Control Registers; AMD APM 2 chapter 14.
/// </summary>
public static unsafe class ControlRegisters
{
    /// <summary>MOV from CR<paramref name="n"/>.</summary>
    public static ulong ReadCr(CpuContext* c, CpuServices s, int n)
    {
        RequireSupervisor(c);
        return n switch
        {
            0 => c->Cr0,
            2 => c->Cr2,
            3 => c->Cr3,
            4 when s.Model.Family >= 5 || c->Cr4 != 0 || s.Model.Has(CpuFeature.Vme) => c->Cr4,
            8 when Mode.Is64Bit(c) || s.Model.Has(CpuFeature.Cr8Legacy) => s.Bus.GetTaskPriority(s.Vcpu),
            _ => throw Faults.UndefinedOpcode(),
        };
    }

    /// <summary>MOV to CR<paramref name="n"/>; #GP(0) where the value is not allowed.</summary>
    public static void WriteCr(CpuContext* c, CpuServices s, int n, ulong value)
    {
        RequireSupervisor(c);
        if (!Mode.Is64Bit(c))
            value = (uint)value;
        switch (n)
        {
            case 0:
                WriteCr0(c, s, value);
                break;
            case 2:
                c->Cr2 = value;
                break;
            case 3:
                WriteCr3(c, s, value);
                break;
            case 4:
                WriteCr4(c, s, value);
                break;
            case 8 when Mode.Is64Bit(c) || s.Model.Has(CpuFeature.Cr8Legacy):
                if (value > 15)
                    throw Faults.GeneralProtection();
                s.Bus.SetTaskPriority(s.Vcpu, (byte)value);
                break;
            default:
                throw Faults.UndefinedOpcode();
        }
    }

    private static void WriteCr0(CpuContext* c, CpuServices s, ulong value)
    {
        const ulong known = Cr0.Pe | Cr0.Mp | Cr0.Em | Cr0.Ts | Cr0.Et | Cr0.Ne | Cr0.Wp | Cr0.Am | Cr0.Nw | Cr0.Cd | Cr0.Pg;
        if (value >> 32 != 0)
            throw Faults.GeneralProtection();
        value = (value & known) | Cr0.Et;
        bool badPair = ((value & Cr0.Pg) != 0 && (value & Cr0.Pe) == 0) || ((value & Cr0.Nw) != 0 && (value & Cr0.Cd) == 0);
        if (badPair)
            throw Faults.GeneralProtection();
        bool wasPaging = (c->Cr0 & Cr0.Pg) != 0, paging = (value & Cr0.Pg) != 0;
        ulong efer = c->Efer;
        if (!paging && (c->Cr4 & Cr4.Pcide) != 0)
            throw Faults.GeneralProtection();
        if (paging && !wasPaging)
        {
            if ((efer & Efer.Lme) != 0)
            {
                // Long mode needs PAE, and no 64-bit code segment before it is active; a 16-bit TSS is of no use there.
                if ((c->Cr4 & Cr4.Pae) == 0 || (c->Cs.Attributes & SegmentAttributes.Long) != 0)
                    throw Faults.GeneralProtection();
                efer |= Efer.Lma;
            }
            else if ((c->Cr4 & Cr4.Pae) != 0)
            {
                LoadPointers(c, s, c->Cr3);
            }
        }
        else if (!paging && wasPaging && (efer & Efer.Lma) != 0)
        {
            if (Mode.Is64Bit(c))
                throw Faults.GeneralProtection();
            efer &= ~Efer.Lma;
        }
        else if (paging && (c->Cr4 & Cr4.Pae) != 0 && (efer & Efer.Lma) == 0 && ((value ^ c->Cr0) & (Cr0.Cd | Cr0.Nw)) != 0)
        {
            LoadPointers(c, s, c->Cr3);
        }
        ulong changed = c->Cr0 ^ value;
        c->Cr0 = value;
        c->Efer = efer;
        if ((changed & Cr0.Pe) != 0)
            c->Cpl = (byte)((value & Cr0.Pe) != 0 ? c->Cpl : 0);
        if ((changed & (Cr0.Pg | Cr0.Wp | Cr0.Pe)) != 0)
            s.FlushTlb(true);
        s.ModeChanged();
    }

    private static void WriteCr3(CpuContext* c, CpuServices s, ulong value)
    {
        if (Mode.IsLong(c))
        {
            // Bit 63 with PCIDs only says that nothing need be flushed.
            if ((c->Cr4 & Cr4.Pcide) != 0)
                value &= ~(1UL << 63);
            if (value >> s.Model.PhysicalAddressBits != 0)
                throw Faults.GeneralProtection();
        }
        LoadCr3(c, s, value);
        s.ModeChanged();
    }

    /// <summary>Loads CR3 with what belongs to it; #GP(0) for bad page-directory pointers.</summary>
    internal static void LoadCr3(CpuContext* c, CpuServices s, ulong value)
    {
        if ((c->Cr0 & Cr0.Pg) != 0 && (c->Cr4 & Cr4.Pae) != 0 && !Mode.IsLong(c))
            LoadPointers(c, s, value);
        c->Cr3 = value;
        s.FlushTlb(false);
    }

    /// <summary>The four PDPTEs of PAE paging are registers (Intel SDM 3A 4.4.1).</summary>
    internal static void LoadPointers(CpuContext* c, CpuServices s, ulong cr3)
    {
        ulong reserved = ~((1UL << s.Model.PhysicalAddressBits) - 1) | 0x1E6;
        Span<ulong> pointers = stackalloc ulong[4];
        for (uint i = 0; i < 4; i++)
        {
            ulong pointer = s.ReadPhysical((cr3 & 0xFFFFFFE0) + (i * 8), 8);
            if ((pointer & 1) != 0 && (pointer & reserved) != 0)
                throw Faults.GeneralProtection();
            pointers[(int)i] = pointer;
        }
        for (int i = 0; i < 4; i++)
            c->Pdpte[i] = pointers[i];
    }

    private static void WriteCr4(CpuContext* c, CpuServices s, ulong value)
    {
        if ((value & ~KnownCr4(s.Model)) != 0)
            throw Faults.GeneralProtection();
        ulong changed = c->Cr4 ^ value;
        if (Mode.IsLong(c) && ((value & Cr4.Pae) == 0 || (changed & Cr4.La57) != 0))
            throw Faults.GeneralProtection();
        if ((changed & value & Cr4.Pcide) != 0 && (!Mode.IsLong(c) || (c->Cr3 & 0xFFF) != 0))
            throw Faults.GeneralProtection();
        const ulong paging = Cr4.Pse | Cr4.Pae | Cr4.Pge | Cr4.Smep | Cr4.Smap | Cr4.Pcide | Cr4.La57;
        ulong old = c->Cr4;
        if ((changed & paging) != 0 && (c->Cr0 & Cr0.Pg) != 0 && (value & Cr4.Pae) != 0 && !Mode.IsLong(c))
            LoadPointers(c, s, c->Cr3);
        c->Cr4 = value;
        if (((old ^ value) & paging) != 0)
            s.FlushTlb(true);
        s.ModeChanged();
    }

    private static ulong KnownCr4(CpuModel model)
    {
        ulong known = Cr4.Pce;
        Add(CpuFeature.Vme, Cr4.Vme | Cr4.Pvi);
        Add(CpuFeature.Tsc, Cr4.Tsd);
        Add(CpuFeature.De, Cr4.De);
        Add(CpuFeature.Pse, Cr4.Pse);
        Add(CpuFeature.Pae, Cr4.Pae);
        Add(CpuFeature.Mce, Cr4.Mce);
        Add(CpuFeature.Pge, Cr4.Pge);
        Add(CpuFeature.Fxsr, Cr4.OsFxsr);
        Add(CpuFeature.Sse, Cr4.OsXmmExcpt);
        Add(CpuFeature.Umip, Cr4.Umip);
        Add(CpuFeature.FsGsBase, Cr4.FsGsBase);
        Add(CpuFeature.Pcid, Cr4.Pcide);
        Add(CpuFeature.Xsave, Cr4.OsXsave);
        Add(CpuFeature.Smep, Cr4.Smep);
        Add(CpuFeature.Smap, Cr4.Smap);
        Add(CpuFeature.La57, Cr4.La57);
        return known;

        void Add(CpuFeature feature, ulong bits)
        {
            if (model.Has(feature))
                known |= bits;
        }
    }

    /// <summary>LMSW: the low four bits of CR0, where PE can be set but not cleared.</summary>
    public static void Lmsw(CpuContext* c, CpuServices s, ushort value)
    {
        RequireSupervisor(c);
        ulong low = value & 15u;
        WriteCr0(c, s, (c->Cr0 & ~(Cr0.Mp | Cr0.Em | Cr0.Ts)) | low);
    }

    /// <summary>SMSW.</summary>
    public static ulong Smsw(CpuContext* c)
    {
        Segments.CheckUserModePrevention(c);
        return c->Cr0;
    }

    /// <summary>CLTS.</summary>
    public static void Clts(CpuContext* c, CpuServices s)
    {
        RequireSupervisor(c);
        c->Cr0 &= ~Cr0.Ts;
        s.ModeChanged();
    }

    /// <summary>XSETBV: only XCR0 exists.</summary>
    public static void WriteXcr0(CpuContext* c, CpuServices s, uint index, ulong value)
    {
        if ((c->Cr4 & Cr4.OsXsave) == 0)
            throw Faults.UndefinedOpcode();
        RequireSupervisor(c);
        bool bad = index != 0 || (value & 1) == 0 || (value & ~s.Model.SupportedXcr0) != 0 || (value & 6) == 4;
        if (bad)
            throw Faults.GeneralProtection();
        c->Xcr0 = value;
        s.ModeChanged();
    }

    /// <summary>XGETBV.</summary>
    public static ulong ReadXcr(CpuContext* c, CpuServices s, uint index)
    {
        if ((c->Cr4 & Cr4.OsXsave) == 0)
            throw Faults.UndefinedOpcode();
        // Index 1 tells which of the enabled components are not in their initial state; all may be.
        return index == 0 || (index == 1 && s.Model.Has(CpuFeature.Xgetbv1)) ? c->Xcr0 : throw Faults.GeneralProtection();
    }

    /// <summary>WRMSR of EFER.</summary>
    internal static void WriteEfer(CpuContext* c, CpuServices s, ulong value)
    {
        ulong known = 0;
        if (s.Model.Has(CpuFeature.Syscall))
            known |= Efer.Sce;
        if (s.Model.Has(CpuFeature.Lm))
            known |= Efer.Lme | Efer.Lma;
        if (s.Model.Has(CpuFeature.Nx))
            known |= Efer.Nxe;
        if (s.Model.Has(CpuFeature.FfxSr))
            known |= Efer.Ffxsr;
        if ((value & ~known) != 0)
            throw Faults.GeneralProtection();
        if ((c->Cr0 & Cr0.Pg) != 0 && ((value ^ c->Efer) & Efer.Lme) != 0)
            throw Faults.GeneralProtection();
        ulong changed = c->Efer ^ value;
        // LMA is the processor's to set.
        c->Efer = (value & ~Efer.Lma) | (c->Efer & Efer.Lma);
        if ((changed & Efer.Nxe) != 0)
            s.FlushTlb(true);
        s.ModeChanged();
    }

    /// <summary>#GP(0) but for CPL 0 (virtual 8086 included).</summary>
    public static void RequireSupervisor(CpuContext* c)
    {
        if (c->Cpl != 0)
            throw Faults.GeneralProtection();
    }

    /// <summary>INVLPG.</summary>
    public static void InvalidatePage(CpuContext* c, CpuServices s, ulong linear)
    {
        RequireSupervisor(c);
        // In 64-bit mode a non-canonical address is no error: nothing is invalidated.
        if (!Mode.Is64Bit(c))
            linear = (uint)linear;
        else if (!PageWalker.IsCanonical(c, linear))
            return;
        s.InvalidatePage(linear);
    }

    /// <summary>INVPCID with the type from its register and the descriptor of its memory operand.</summary>
    public static void InvalidatePcid(CpuContext* c, CpuServices s, ulong type, ulong pcid, ulong linear)
    {
        RequireSupervisor(c);
        bool bad = type > 3 || (type < 2 && (pcid >> 12 != 0 || (pcid != 0 && (c->Cr4 & Cr4.Pcide) == 0)))
            || (type == 0 && Mode.IsLong(c) && !PageWalker.IsCanonical(c, linear));
        if (bad)
            throw Faults.GeneralProtection();
        if (type == 0)
            s.InvalidatePage(linear);
        else
            s.FlushTlb(type != 3);
    }
}
