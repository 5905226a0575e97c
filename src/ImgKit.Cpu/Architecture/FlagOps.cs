namespace ImgKit.Cpu.Architecture;

/// <summary>
/// PUSHF, POPF, CLI and STI as mode and IOPL have them, with the virtual-8086 extensions (VME) and protected-mode virtual interrupts (PVI).
/// Sources: Intel SDM 2B POPF and PUSHF, 2A CLI, 2B STI, 3B chapter 20.
/// </summary>
public static unsafe class FlagOps
{
    private const ulong Common = Flags.Arithmetic | Flags.Tf | Flags.Df | Flags.Nt;

    /// <summary>POPF with the value popped. May throw #GP(0), with nothing changed.</summary>
    public static void Popf(CpuContext* c, CpuServices s, ulong value, int operandSize)
    {
        if (Mode.IsVirtual8086(c) && Mode.Iopl(c) < 3)
        {
            if (operandSize != 2 || (c->Cr4 & Cr4.Vme) == 0)
                throw Faults.GeneralProtection();
            LoadVirtual(c, value);
            s.ModeChanged();
            return;
        }
        ulong mask = Common;
        if (operandSize != 2)
            mask |= Flags.Ac | Flags.Id;
        if (Mode.IsVirtual8086(c))
        {
            mask |= Flags.If;
        }
        else
        {
            if (c->Cpl <= Mode.Iopl(c) || Mode.IsReal(c))
                mask |= Flags.If;
            if (c->Cpl == 0)
                mask |= Flags.Iopl;
        }
        Load(c, value, mask, Flags.Rf);
        s.ModeChanged();
    }

    /// <summary>The value that PUSHF pushes (truncated by the caller).</summary>
    public static ulong PushfValue(CpuContext* c, int operandSize)
    {
        ulong value = c->Rflags & ~(Flags.Vm | Flags.Rf);
        if (!Mode.IsVirtual8086(c) || Mode.Iopl(c) == 3)
            return value;
        if (operandSize != 2 || (c->Cr4 & Cr4.Vme) == 0)
            throw Faults.GeneralProtection();
        return VirtualImage(c);
    }

    /// <summary>FLAGS as a virtual-8086 program with VME sees them: IOPL 3, and VIF in place of IF.</summary>
    internal static ulong VirtualImage(CpuContext* c)
    {
        ulong value = (c->Rflags & 0xFFFF & ~Flags.If) | Flags.Iopl;
        return (c->Rflags & Flags.Vif) != 0 ? value | Flags.If : value;
    }

    /// <summary>16 bits of flags from a virtual-8086 program with VME: its IF goes to VIF.</summary>
    internal static void LoadVirtual(CpuContext* c, ulong value)
    {
        if ((value & Flags.Tf) != 0 || ((value & Flags.If) != 0 && (c->Rflags & Flags.Vip) != 0))
            throw Faults.GeneralProtection();
        Load(c, (value & ~Flags.Vif) | ((value & Flags.If) != 0 ? Flags.Vif : 0), Common | Flags.Vif, Flags.Rf);
    }

    internal static void Load(CpuContext* c, ulong value, ulong mask, ulong clear) =>
        c->Rflags = ((c->Rflags & ~(mask | clear)) | (value & mask)) | Flags.Fixed;

    /// <summary>CLI.</summary>
    public static void Cli(CpuContext* c, CpuServices s)
    {
        _ = s;
        c->Rflags &= ~InterruptFlag(c);
    }

    /// <summary>STI. No interrupt is taken before the end of the next instruction.</summary>
    public static void Sti(CpuContext* c, CpuServices s)
    {
        _ = s;
        ulong flag = InterruptFlag(c);
        if (flag == Flags.Vif && (c->Rflags & Flags.Vip) != 0)
            throw Faults.GeneralProtection();
        if ((c->Rflags & flag) == 0 && flag == Flags.If)
            c->InterruptShadow = 1;
        c->Rflags |= flag;
    }

    /// <summary>The flag that CLI and STI work on: IF, or VIF where the program may only think so.</summary>
    private static ulong InterruptFlag(CpuContext* c)
    {
        if (Mode.IsReal(c) || c->Cpl <= Mode.Iopl(c))
            return Flags.If;
        bool isVirtual = Mode.IsVirtual8086(c) ? (c->Cr4 & Cr4.Vme) != 0 : c->Cpl == 3 && (c->Cr4 & Cr4.Pvi) != 0;
        return isVirtual ? Flags.Vif : throw Faults.GeneralProtection();
    }
}
