namespace ImgKit.Cpu.Architecture;

/// <summary>Which software interrupt is executed.</summary>
public enum SoftwareInterruptKind
{
    /// <summary>INT n.</summary>
    IntN,

    /// <summary>INT3 (CC).</summary>
    Int3,

    /// <summary>INTO, with OF set.</summary>
    Into,

    /// <summary>INT1 (F1), a debug exception by instruction.</summary>
    Int1,
}

/// <summary>
/// Delivery of exceptions and interrupts, with what happens when delivery itself faults. Sources: Intel SDM 3A chapter 6 (table 6-5 for double
/// faults), 3B 20.3 (virtual 8086), 2A INT n; AMD APM 2 8.9 for long mode.
/// </summary>
public static unsafe class Exceptions
{
    /// <summary>Delivers an exception: <c>Rip</c> is that of the faulting instruction, or of the next one for a trap. Never throws: what goes
    /// wrong on the way becomes another exception, a double fault, or <see cref="CpuContext.Shutdown"/>.</summary>
    public static void Deliver(CpuContext* c, CpuServices s, byte vector, uint? errorCode)
    {
        c->Halted = 0;
        c->InterruptShadow = 0;
        while (true)
        {
            try
            {
                // A fault restarts its instruction, which must not hit its own instruction breakpoint again.
                bool isFault = vector is not (Vector.Debug or Vector.Nmi or Vector.Breakpoint or Vector.Overflow or Vector.DoubleFault or Vector.MachineCheck);
                ulong flags = isFault ? c->Rflags | Flags.Rf : c->Rflags;
                Enter(c, s, vector, errorCode, c->Rip, flags, Source.Hardware);
                if (vector == Vector.Debug)
                    DebugRegisters.OnDebugException(c);
                return;
            }
            catch (GuestFault second)
            {
                if (!Combine(c, ref vector, ref errorCode, second))
                    return;
            }
        }
    }

    /// <summary>Delivers an external interrupt; <c>Rip</c> is the next instruction. Never throws. Ends HLT.</summary>
    public static void DeliverInterrupt(CpuContext* c, CpuServices s, byte vector)
    {
        c->Halted = 0;
        try
        {
            Enter(c, s, vector, null, c->Rip, c->Rflags, Source.Hardware);
        }
        catch (GuestFault fault)
        {
            // An interrupt is benign (table 6-5): the fault is delivered by itself.
            Deliver(c, s, fault.Vector, fault.ErrorCode);
        }
    }

    /// <summary>Delivers an NMI and blocks further ones until IRET. Never throws.</summary>
    public static void DeliverNmi(CpuContext* c, CpuServices s)
    {
        c->NmiPending = 0;
        c->NmiBlocked = 1;
        DeliverInterrupt(c, s, Vector.Nmi);
    }

    /// <summary>INT n, INT3, INTO or INT1 with the address of the instruction behind. Throws what the instruction faults with.</summary>
    public static void SoftwareInterrupt(CpuContext* c, CpuServices s, byte vector, ulong nextRip, SoftwareInterruptKind kind)
    {
        if (kind == SoftwareInterruptKind.Int1)
        {
            Enter(c, s, Vector.Debug, null, nextRip, c->Rflags, Source.Hardware);
            return;
        }
        if (Mode.IsVirtual8086(c) && kind == SoftwareInterruptKind.IntN)
        {
            if ((c->Cr4 & Cr4.Vme) != 0 && IsRedirected(c, s, vector))
            {
                EnterVirtual8086Handler(c, s, vector, nextRip);
                return;
            }
            if (Mode.Iopl(c) < 3)
                throw Faults.GeneralProtection();
        }
        Enter(c, s, vector, null, nextRip, c->Rflags, Source.Software);
    }

    private enum Source
    {
        /// <summary>Exception or external interrupt: error codes get bit 0 (EXT), gates' DPL does not matter.</summary>
        Hardware,

        /// <summary>An instruction.</summary>
        Software,
    }

    private enum Severity
    {
        Benign,
        Contributory,
        PageFault,
        DoubleFault,
    }

    private static Severity SeverityOf(byte vector) => vector switch
    {
        Vector.DoubleFault => Severity.DoubleFault,
        Vector.PageFault => Severity.PageFault,
        Vector.DivideError or (>= Vector.InvalidTss and <= Vector.GeneralProtection) => Severity.Contributory,
        _ => Severity.Benign,
    };

    /// <summary>What follows from a second exception while delivering a first; false: shutdown.</summary>
    private static bool Combine(CpuContext* c, ref byte vector, ref uint? errorCode, GuestFault second)
    {
        var first = SeverityOf(vector);
        var next = SeverityOf(second.Vector);
        bool isSerious = next is Severity.Contributory or Severity.PageFault;
        if (first == Severity.DoubleFault && isSerious)
        {
            c->Shutdown = 1;
            return false;
        }
        bool isDouble = (first == Severity.Contributory && next == Severity.Contributory) || (first == Severity.PageFault && isSerious);
        (vector, errorCode) = isDouble ? (Vector.DoubleFault, 0u) : (second.Vector, second.ErrorCode);
        return true;
    }

    private static void Enter(CpuContext* c, CpuServices s, byte vector, uint? errorCode, ulong rip, ulong flags, Source source)
    {
        if (Mode.IsReal(c))
            EnterReal(c, s, vector, rip);
        else if (Mode.IsLong(c))
            EnterLong(c, s, vector, errorCode, rip, flags, source);
        else
            EnterProtected(c, s, vector, errorCode, rip, flags, source);
        c->InterruptShadow = 0;
    }

    private static void EnterReal(CpuContext* c, CpuServices s, byte vector, ulong rip)
    {
        if ((vector * 4u) + 3 > c->IdtrLimit)
            throw Faults.GeneralProtection();
        uint target = (uint)s.ReadLinear(c->IdtrBase + (vector * 4u), 4, LinearAccess.System);
        var stack = new Stack(c, s);
        stack.Push(c->Rflags, 2);
        stack.Push(c->Cs.Selector, 2);
        stack.Push(rip, 2);
        if ((target & 0xFFFF) > c->Cs.Limit)
            throw Faults.GeneralProtection();
        Segments.LoadReal(&c->Cs, (ushort)(target >> 16));
        c->Rip = target & 0xFFFF;
        c->Rflags &= ~(Flags.If | Flags.Tf | Flags.Ac | Flags.Rf);
        c->Gpr[Register.Rsp] = stack.Pointer;
        s.ModeChanged();
    }

    /// <summary>The bit of the TSS's software-interrupt redirection map (32 bytes before the I/O map) is clear: the program's own handler.</summary>
    private static bool IsRedirected(CpuContext* c, CpuServices s, byte vector)
    {
        const uint ioMapBase = 0x66;
        if (!TaskState.Is32Bit(c) || c->Tr.Limit < ioMapBase + 1)
            throw Faults.GeneralProtection();
        uint map = (uint)s.ReadLinear(c->Tr.Base + ioMapBase, 2, LinearAccess.System);
        if (map < 32 || map - 32 + (vector / 8u) > c->Tr.Limit)
            throw Faults.GeneralProtection();
        uint bits = (uint)s.ReadLinear(c->Tr.Base + map - 32 + (vector / 8u), 1, LinearAccess.System);
        return (bits >> (vector & 7) & 1) == 0;
    }

    /// <summary>INT n that stays in virtual-8086 mode: through the vectors at linear address 0.</summary>
    private static void EnterVirtual8086Handler(CpuContext* c, CpuServices s, byte vector, ulong rip)
    {
        bool isVirtual = Mode.Iopl(c) < 3;
        uint target = (uint)s.ReadLinear(vector * 4u, 4, LinearAccess.System);
        var stack = new Stack(c, s);
        stack.Push(isVirtual ? FlagOps.VirtualImage(c) : c->Rflags, 2);
        stack.Push(c->Cs.Selector, 2);
        stack.Push(rip, 2);
        Segments.LoadVirtual8086(&c->Cs, (ushort)(target >> 16));
        c->Rip = target & 0xFFFF;
        c->Rflags &= ~(Flags.Tf | Flags.Nt | Flags.Rf | (isVirtual ? Flags.Vif : Flags.If));
        c->Gpr[Register.Rsp] = stack.Pointer;
        s.ModeChanged();
    }

    private static void EnterProtected(CpuContext* c, CpuServices s, byte vector, uint? errorCode, ulong rip, ulong flags, Source source)
    {
        uint ext = source == Source.Hardware ? 1u : 0;
        uint idtCode = (vector * 8u) | 2 | ext;
        if ((vector * 8u) + 7 > c->IdtrLimit)
            throw Faults.GeneralProtection(idtCode);
        var gate = new Descriptor(s.ReadLinear(c->IdtrBase + (vector * 8u), 8, LinearAccess.System), 0);
        bool isGate = gate.IsSystem && gate.SystemType is SystemType.TaskGate or SystemType.InterruptGate16 or SystemType.TrapGate16
            or SystemType.InterruptGate32 or SystemType.TrapGate32;
        CheckGate(c, gate, isGate, idtCode, source);
        if (gate.SystemType == SystemType.TaskGate)
        {
            c->Rflags = flags;
            TaskSwitch.Through(c, s, gate.GateSelector, TaskSwitchReason.Interrupt, rip, errorCode, source == Source.Hardware);
            return;
        }

        ushort selector = gate.GateSelector;
        var d = CheckTarget(c, s, selector, ext);
        uint code = (selector & Faults.SelectorMask) | ext;
        bool wasVirtual = Mode.IsVirtual8086(c);
        bool inner = !d.IsConforming && d.Dpl < c->Cpl;
        if (wasVirtual && (d.IsConforming || d.Dpl != 0))
            throw Faults.GeneralProtection(code);
        int size = (gate.Type & 8) != 0 ? 4 : 2;
        int cpl = inner ? d.Dpl : c->Cpl;
        SegmentRegister ss = default;
        var stack = new Stack(c, s, c->Ss.ToRegister(), c->Gpr[Register.Rsp], false, LinearAccess.Program, ext);
        if (inner)
        {
            var (ssSelector, pointer) = TaskState.InnerStack(c, s, cpl, ext);
            ss = CheckInnerStack(c, s, ssSelector, cpl, ext);
            stack = new Stack(c, s, ss, pointer, false, LinearAccess.System, (ssSelector & Faults.SelectorMask) | ext);
            if (wasVirtual)
            {
                stack.Push(c->Gs.Selector, size);
                stack.Push(c->Fs.Selector, size);
                stack.Push(c->Ds.Selector, size);
                stack.Push(c->Es.Selector, size);
            }
            stack.Push(c->Ss.Selector, size);
            stack.Push(c->Gpr[Register.Rsp], size);
        }
        stack.Push(flags, size);
        stack.Push(c->Cs.Selector, size);
        stack.Push(rip, size);
        if (errorCode is { } error)
            stack.Push(error, size);
        var cs = Segments.MarkAccessed(c, s, selector, d).ToRegister((ushort)((selector & ~3) | cpl));
        ulong offset = gate.GateOffset;
        if (offset > cs.Limit)
            throw Faults.GeneralProtection(ext);

        if (inner)
        {
            if (wasVirtual)
            {
                c->Es.Set(Segments.Null(0));
                c->Ds.Set(Segments.Null(0));
                c->Fs.Set(Segments.Null(0));
                c->Gs.Set(Segments.Null(0));
            }
            c->Ss.Set(ss);
            c->Gpr[Register.Rsp] = FarTransfers.Merge(c->Gpr[Register.Rsp], stack);
        }
        else
        {
            c->Gpr[Register.Rsp] = stack.Pointer;
        }
        c->Cs.Set(cs);
        c->Cpl = (byte)cpl;
        c->Rip = offset;
        ClearFlags(c, (gate.Type & 1) == 0);
        s.ModeChanged();
    }

    private static void EnterLong(CpuContext* c, CpuServices s, byte vector, uint? errorCode, ulong rip, ulong flags, Source source)
    {
        uint ext = source == Source.Hardware ? 1u : 0;
        uint idtCode = (vector * 8u) | 2 | ext;
        if ((vector * 16u) + 15 > c->IdtrLimit)
            throw Faults.GeneralProtection(idtCode);
        ulong address = c->IdtrBase + (vector * 16u);
        var gate = new Descriptor(s.ReadLinear(address, 8, LinearAccess.System), (uint)s.ReadLinear(address + 8, 4, LinearAccess.System));
        bool isGate = gate.IsSystem && gate.SystemType is SystemType.InterruptGate32 or SystemType.TrapGate32;
        CheckGate(c, gate, isGate, idtCode, source);
        ushort selector = gate.GateSelector;
        var d = CheckTarget(c, s, selector, ext);
        if (!d.IsLong || d.IsBig)
            throw Faults.GeneralProtection((selector & Faults.SelectorMask) | ext);
        bool inner = !d.IsConforming && d.Dpl < c->Cpl;
        int cpl = inner ? d.Dpl : c->Cpl;
        ulong pointer = c->Gpr[Register.Rsp];
        if (gate.GateStackTable != 0)
            pointer = TaskState.StackPointer64(c, s, 36 + (8 * (gate.GateStackTable - 1)));
        else if (inner)
            pointer = TaskState.StackPointer64(c, s, 4 + (8 * cpl));
        var stack = new Stack(c, s, default, pointer & ~15UL, true, inner ? LinearAccess.System : LinearAccess.Program, ext);
        stack.Push(c->Ss.Selector, 8);
        stack.Push(c->Gpr[Register.Rsp], 8);
        stack.Push(flags, 8);
        stack.Push(c->Cs.Selector, 8);
        stack.Push(rip, 8);
        if (errorCode is { } error)
            stack.Push(error, 8);
        var cs = Segments.MarkAccessed(c, s, selector, d).ToRegister((ushort)((selector & ~3) | cpl));
        if (!PageWalker.IsCanonical(c, gate.GateOffset))
            throw Faults.GeneralProtection(ext);
        if (inner)
            c->Ss.Set(Segments.NullStack((ushort)cpl));
        c->Cs.Set(cs);
        c->Cpl = (byte)cpl;
        c->Rip = gate.GateOffset;
        c->Gpr[Register.Rsp] = stack.Pointer;
        ClearFlags(c, (gate.Type & 1) == 0);
        s.ModeChanged();
    }

    private static void ClearFlags(CpuContext* c, bool interruptGate) =>
        c->Rflags &= ~(Flags.Tf | Flags.Nt | Flags.Rf | Flags.Vm | (interruptGate ? Flags.If : 0));

    private static void CheckGate(CpuContext* c, Descriptor gate, bool isGate, uint idtCode, Source source)
    {
        if (!isGate || (source == Source.Software && gate.Dpl < c->Cpl))
            throw Faults.GeneralProtection(idtCode);
        if (!gate.IsPresent)
            throw Faults.NotPresent(idtCode);
    }

    private static Descriptor CheckTarget(CpuContext* c, CpuServices s, ushort selector, uint ext)
    {
        uint code = (selector & Faults.SelectorMask) | ext;
        if (Segments.IsNull(selector))
            throw Faults.GeneralProtection(ext);
        if (!Segments.TryFetch(c, s, selector, out var d) || !d.IsCode || d.Dpl > c->Cpl)
            throw Faults.GeneralProtection(code);
        return d.IsPresent ? d : throw Faults.NotPresent(code);
    }

    private static SegmentRegister CheckInnerStack(CpuContext* c, CpuServices s, ushort selector, int cpl, uint ext)
    {
        if (Segments.IsNull(selector))
            throw Faults.InvalidTss(ext);
        try
        {
            return Segments.CheckStackSegment(c, s, selector, cpl, Vector.InvalidTss);
        }
        catch (GuestFault fault) when (ext != 0 && fault.Vector != Vector.PageFault)
        {
            throw new GuestFault(fault.Vector, fault.ErrorCode | 1);
        }
    }
}
