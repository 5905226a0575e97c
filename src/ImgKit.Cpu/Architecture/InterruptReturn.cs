namespace ImgKit.Cpu.Architecture;

/// <summary>IRET in all modes. Source: Intel SDM 2A, IRET/IRETD/IRETQ.</summary>
public static unsafe class InterruptReturn
{
    /// <summary>IRET with an operand size of 2, 4 or 8. Unblocks NMI. A task that returns goes on later at <paramref name="nextRip"/>.</summary>
    public static void Execute(CpuContext* c, CpuServices s, int operandSize, ulong nextRip)
    {
        if (Mode.IsReal(c))
            FromReal(c, s, operandSize);
        else if (Mode.IsVirtual8086(c))
            FromVirtual8086(c, s, operandSize);
        else
            FromProtected(c, s, operandSize, nextRip);
        c->NmiBlocked = 0;
    }

    private static void FromReal(CpuContext* c, CpuServices s, int size)
    {
        var stack = new Stack(c, s);
        ulong rip = stack.Pop(size);
        ushort selector = (ushort)stack.Pop(size);
        ulong flags = stack.Pop(size);
        FarTransfers.LoadParagraph(c, s, selector, rip);
        ulong mask = Flags.Arithmetic | Flags.Tf | Flags.If | Flags.Df | Flags.Iopl | Flags.Nt;
        if (size != 2)
            mask |= Flags.Rf | Flags.Ac | Flags.Id;
        FlagOps.Load(c, flags, mask, size == 2 ? Flags.Rf : 0);
        c->Gpr[Register.Rsp] = stack.Pointer;
        s.ModeChanged();
    }

    private static void FromVirtual8086(CpuContext* c, CpuServices s, int size)
    {
        bool trusted = Mode.Iopl(c) == 3;
        if (!trusted && (size != 2 || (c->Cr4 & Cr4.Vme) == 0))
            throw Faults.GeneralProtection();
        var stack = new Stack(c, s);
        ulong rip = stack.Pop(size);
        ushort selector = (ushort)stack.Pop(size);
        ulong flags = stack.Pop(size);
        if (rip > 0xFFFF)
            throw Faults.GeneralProtection();
        if (trusted)
        {
            ulong mask = Flags.Arithmetic | Flags.Tf | Flags.If | Flags.Df | Flags.Nt;
            if (size != 2)
                mask |= Flags.Rf | Flags.Ac | Flags.Id;
            FlagOps.Load(c, flags, mask, size == 2 ? Flags.Rf : 0);
        }
        else
        {
            FlagOps.LoadVirtual(c, flags);
        }
        FarTransfers.LoadParagraph(c, s, selector, rip);
        c->Gpr[Register.Rsp] = stack.Pointer;
    }

    private static void FromProtected(CpuContext* c, CpuServices s, int size, ulong nextRip)
    {
        if ((c->Rflags & Flags.Nt) != 0)
        {
            if (Mode.IsLong(c))
                throw Faults.GeneralProtection();
            ushort link = (ushort)s.ReadLinear(c->Tr.Base, 2, LinearAccess.System);
            TaskSwitch.Through(c, s, link, TaskSwitchReason.InterruptReturn, nextRip, null, false);
            return;
        }
        bool is64 = Mode.Is64Bit(c);
        var stack = new Stack(c, s);
        ulong rip = stack.Pop(size);
        ushort selector = (ushort)stack.Pop(size);
        ulong flags = stack.Pop(size);
        if ((flags & Flags.Vm) != 0 && size == 4 && c->Cpl == 0 && !Mode.IsLong(c))
        {
            ToVirtual8086(c, s, ref stack, selector, rip, flags);
            return;
        }
        FarTransfers.ReturnTo(c, s, ref stack, selector, rip, size, 0, is64, flags);
    }

    private static void ToVirtual8086(CpuContext* c, CpuServices s, ref Stack stack, ushort cs, ulong rip, ulong flags)
    {
        ulong esp = stack.Pop(4);
        ushort ss = (ushort)stack.Pop(4), es = (ushort)stack.Pop(4), ds = (ushort)stack.Pop(4);
        ushort fs = (ushort)stack.Pop(4), gs = (ushort)stack.Pop(4);
        if (rip > 0xFFFF)
            throw Faults.GeneralProtection();
        Segments.LoadVirtual8086(&c->Cs, cs);
        Segments.LoadVirtual8086(&c->Ss, ss);
        Segments.LoadVirtual8086(&c->Es, es);
        Segments.LoadVirtual8086(&c->Ds, ds);
        Segments.LoadVirtual8086(&c->Fs, fs);
        Segments.LoadVirtual8086(&c->Gs, gs);
        FlagOps.Load(c, flags, 0x3F7FD5, 0);
        c->Cpl = 3;
        c->Rip = rip;
        c->Gpr[Register.Rsp] = esp;
        s.ModeChanged();
    }

    /// <summary>RFLAGS from an image popped in protected or long mode; CPL is still that of the code returning.</summary>
    internal static void SetFlags(CpuContext* c, ulong flags, int size)
    {
        ulong mask = Flags.Arithmetic | Flags.Tf | Flags.Df | Flags.Nt;
        if (size != 2)
            mask |= Flags.Rf | Flags.Ac | Flags.Id;
        if (c->Cpl <= Mode.Iopl(c))
            mask |= Flags.If;
        if (c->Cpl == 0)
            mask |= size != 2 ? Flags.Iopl | Flags.Vif | Flags.Vip : Flags.Iopl;
        FlagOps.Load(c, flags, mask, size == 2 ? Flags.Rf : 0);
    }
}
