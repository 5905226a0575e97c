namespace ImgKit.Cpu.Architecture;

/// <summary>
/// SYSCALL, SYSRET, SYSENTER and SYSEXIT: flat segments without descriptors. Sources: Intel SDM 2B; AMD APM 3 for the vendor's differences
/// (SYSCALL outside 64-bit mode is AMD's, SYSENTER in long mode Intel's).
/// </summary>
public static unsafe class Syscalls
{
    private const uint Code64 = 0xA09B, Code32 = 0xC09B, Data = 0xC093, Dpl3 = 0x60;

    /// <summary>SYSCALL.</summary>
    public static void Syscall(CpuContext* c, CpuServices s, ulong nextRip)
    {
        bool is64 = Mode.Is64Bit(c);
        if ((c->Efer & Efer.Sce) == 0 || (!is64 && !s.Model.IsAmd) || Mode.IsReal(c))
            throw Faults.UndefinedOpcode();
        ushort selector = (ushort)(c->Star >> 32 & 0xFFFC);
        c->Gpr[Register.Rcx] = nextRip;
        if (Mode.IsLong(c))
        {
            c->Gpr[11] = c->Rflags & ~Flags.Rf;
            c->Rip = is64 ? c->Lstar : c->Cstar;
            c->Rflags = (c->Rflags & ~c->Sfmask & ~Flags.Rf) | Flags.Fixed;
            SetFlat(c, s, selector, (ushort)(selector + 8), Code64, 0);
        }
        else
        {
            c->Rip = (uint)c->Star;
            c->Rflags &= ~(Flags.If | Flags.Rf | Flags.Vm);
            SetFlat(c, s, selector, (ushort)(selector + 8), Code32, 0);
        }
    }

    /// <summary>SYSRET; <paramref name="rexW"/>: to 64-bit mode.</summary>
    public static void Sysret(CpuContext* c, CpuServices s, bool rexW)
    {
        if ((c->Efer & Efer.Sce) == 0 || (!Mode.Is64Bit(c) && !s.Model.IsAmd) || Mode.IsParagraph(c))
            throw Faults.UndefinedOpcode();
        ControlRegisters.RequireSupervisor(c);
        ushort selector = (ushort)(c->Star >> 48);
        ulong rip = c->Gpr[Register.Rcx];
        if (rexW && !s.Model.IsAmd && !PageWalker.IsCanonical(c, rip))
            throw Faults.GeneralProtection();
        c->Rip = rexW ? rip : (uint)rip;
        // RF and VM come back clear.
        c->Rflags = Mode.IsLong(c) ? (c->Gpr[11] & 0x3C7FD7) | Flags.Fixed : c->Rflags | Flags.If;
        SetFlat(c, s, (ushort)((rexW ? selector + 16 : selector) | 3), (ushort)((selector + 8) | 3), rexW ? Code64 : Code32, 3);
    }

    /// <summary>SYSENTER.</summary>
    public static void Sysenter(CpuContext* c, CpuServices s)
    {
        if (Mode.IsLong(c) && s.Model.IsAmd)
            throw Faults.UndefinedOpcode();
        ushort selector = (ushort)(c->SysenterCs & 0xFFFC);
        if (Mode.IsReal(c) || selector == 0)
            throw Faults.GeneralProtection();
        bool isLong = Mode.IsLong(c);
        c->Rflags &= ~(Flags.Vm | Flags.If | Flags.Rf);
        c->Gpr[Register.Rsp] = isLong ? c->SysenterEsp : (uint)c->SysenterEsp;
        c->Rip = isLong ? c->SysenterEip : (uint)c->SysenterEip;
        SetFlat(c, s, selector, (ushort)(selector + 8), isLong ? Code64 : Code32, 0);
    }

    /// <summary>SYSEXIT; <paramref name="rexW"/>: to 64-bit mode.</summary>
    public static void Sysexit(CpuContext* c, CpuServices s, bool rexW)
    {
        if (Mode.IsLong(c) && s.Model.IsAmd)
            throw Faults.UndefinedOpcode();
        if (Mode.IsReal(c) || (c->SysenterCs & 0xFFFC) == 0)
            throw Faults.GeneralProtection();
        ControlRegisters.RequireSupervisor(c);
        ulong rsp = c->Gpr[Register.Rcx], rip = c->Gpr[Register.Rdx];
        if (rexW && (!PageWalker.IsCanonical(c, rsp) || !PageWalker.IsCanonical(c, rip)))
            throw Faults.GeneralProtection();
        int selector = (int)c->SysenterCs + (rexW ? 32 : 16);
        c->Gpr[Register.Rsp] = rexW ? rsp : (uint)rsp;
        c->Rip = rexW ? rip : (uint)rip;
        SetFlat(c, s, (ushort)(selector | 3), (ushort)((selector + 8) | 3), rexW ? Code64 : Code32, 3);
    }

    private static void SetFlat(CpuContext* c, CpuServices s, ushort cs, ushort ss, uint code, byte cpl)
    {
        uint dpl = cpl == 3 ? Dpl3 : 0;
        c->Cs.Set(new SegmentRegister(cs, 0, uint.MaxValue, code | dpl));
        c->Ss.Set(new SegmentRegister(ss, 0, uint.MaxValue, Data | dpl));
        c->Cpl = cpl;
        s.ModeChanged();
    }
}
