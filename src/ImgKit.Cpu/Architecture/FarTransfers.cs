namespace ImgKit.Cpu.Architecture;

/// <summary>
/// JMP, CALL and RET through a far pointer. Sources: Intel SDM 3A 5.8 (code segments and gates), 2A CALL and JMP, 2B RET.
/// </summary>
public static unsafe class FarTransfers
{
    /// <summary>JMP far. <paramref name="operandSize"/> is 2, 4 or 8 bytes; <paramref name="nextRip"/> the instruction behind.</summary>
    public static void Jump(CpuContext* c, CpuServices s, ushort selector, ulong offset, int operandSize, ulong nextRip)
    {
        offset = Truncate(offset, operandSize);
        if (Mode.IsParagraph(c))
        {
            LoadParagraph(c, s, selector, offset);
            return;
        }
        if (Segments.IsNull(selector))
            throw Faults.GeneralProtection();
        uint code = selector & Faults.SelectorMask;
        var d = Segments.FetchSystem(c, s, selector, Vector.GeneralProtection);
        if (!d.IsSystem)
        {
            EnterSameLevel(c, s, CheckDirect(c, s, selector, d), offset);
            return;
        }
        switch (Classify(c, d, code))
        {
            case SystemType.CallGate16 or SystemType.CallGate32:
                CheckGate(c, selector, d);
                var target = CheckGateTarget(c, s, d, out var targetDescriptor);
                if (targetDescriptor.IsConforming ? targetDescriptor.Dpl > c->Cpl : targetDescriptor.Dpl != c->Cpl)
                    throw Faults.GeneralProtection(target & Faults.SelectorMask);
                if (!targetDescriptor.IsPresent)
                    throw Faults.NotPresent(target & Faults.SelectorMask);
                targetDescriptor = Segments.MarkAccessed(c, s, target, targetDescriptor);
                EnterSameLevel(c, s, targetDescriptor.ToRegister((ushort)((target & ~3) | c->Cpl)), d.GateOffset);
                return;
            case var type:
                SwitchTask(c, s, selector, d, type, TaskSwitchReason.Jump, nextRip);
                return;
        }
    }

    /// <summary>CALL far.</summary>
    public static void Call(CpuContext* c, CpuServices s, ushort selector, ulong offset, int operandSize, ulong nextRip)
    {
        offset = Truncate(offset, operandSize);
        if (Mode.IsParagraph(c))
        {
            if (offset > c->Cs.Limit)
                throw Faults.GeneralProtection();
            var old = new Stack(c, s);
            old.Push(c->Cs.Selector, operandSize);
            old.Push(nextRip, operandSize);
            LoadParagraph(c, s, selector, offset);
            c->Gpr[Register.Rsp] = old.Pointer;
            return;
        }
        if (Segments.IsNull(selector))
            throw Faults.GeneralProtection();
        uint code = selector & Faults.SelectorMask;
        var d = Segments.FetchSystem(c, s, selector, Vector.GeneralProtection);
        if (!d.IsSystem)
        {
            var cs = CheckDirect(c, s, selector, d);
            CallSameLevel(c, s, cs, offset, operandSize, nextRip);
            return;
        }
        switch (Classify(c, d, code))
        {
            case SystemType.CallGate16 or SystemType.CallGate32:
                CheckGate(c, selector, d);
                CallGate(c, s, d, nextRip);
                return;
            case var type:
                SwitchTask(c, s, selector, d, type, TaskSwitchReason.Call, nextRip);
                return;
        }
    }

    /// <summary>To the task of a gate, or of a TSS itself.</summary>
    private static void SwitchTask(CpuContext* c, CpuServices s, ushort selector, Descriptor d, SystemType type, TaskSwitchReason reason, ulong nextRip)
    {
        if (type == SystemType.TaskGate)
        {
            CheckGate(c, selector, d);
            selector = d.GateSelector;
        }
        else
        {
            CheckTaskPrivilege(c, selector, d);
        }
        TaskSwitch.Through(c, s, selector, reason, nextRip, null, false);
    }

    private static void CallSameLevel(CpuContext* c, CpuServices s, SegmentRegister cs, ulong offset, int size, ulong nextRip)
    {
        CheckOffset(c, cs, offset);
        var stack = new Stack(c, s);
        stack.Push(c->Cs.Selector, size);
        stack.Push(nextRip, size);
        c->Cs.Set(cs);
        c->Rip = offset;
        c->Gpr[Register.Rsp] = stack.Pointer;
        s.ModeChanged();
    }

    private static void CallGate(CpuContext* c, CpuServices s, Descriptor gate, ulong nextRip)
    {
        ushort target = CheckGateTarget(c, s, gate, out var d);
        uint code = target & Faults.SelectorMask;
        if (d.Dpl > c->Cpl)
            throw Faults.GeneralProtection(code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        bool isLong = Mode.IsLong(c);
        int size = isLong ? 8 : gate.SystemType == SystemType.CallGate32 ? 4 : 2;
        if (d.IsConforming || d.Dpl == c->Cpl)
        {
            d = Segments.MarkAccessed(c, s, target, d);
            CallSameLevel(c, s, d.ToRegister((ushort)((target & ~3) | c->Cpl)), gate.GateOffset, size, nextRip);
            return;
        }
        int cpl = d.Dpl;
        var cs = Segments.MarkAccessed(c, s, target, d).ToRegister((ushort)((target & ~3) | cpl));
        CheckOffset(c, cs, gate.GateOffset);
        SegmentRegister ss;
        Stack stack;
        if (isLong)
        {
            ss = Segments.NullStack((ushort)cpl);
            stack = new Stack(c, s, ss, TaskState.StackPointer64(c, s, 4 + (8 * cpl)), true, LinearAccess.System, 0);
        }
        else
        {
            var (selector, pointer) = TaskState.InnerStack(c, s, cpl, 0);
            if (Segments.IsNull(selector))
                throw Faults.InvalidTss(0);
            ss = Segments.CheckStackSegment(c, s, selector, cpl, Vector.InvalidTss);
            stack = new Stack(c, s, ss, pointer, false, LinearAccess.System, selector & Faults.SelectorMask);
        }
        var old = new Stack(c, s);
        stack.Push(c->Ss.Selector, size);
        stack.Push(c->Gpr[Register.Rsp], size);
        if (!isLong)
        {
            for (int i = gate.GateParameters - 1; i >= 0; i--)
                stack.Push(old.Peek((uint)(i * size), size), size);
        }
        stack.Push(c->Cs.Selector, size);
        stack.Push(nextRip, size);
        c->Ss.Set(ss);
        c->Cs.Set(cs);
        c->Cpl = (byte)cpl;
        c->Rip = gate.GateOffset;
        c->Gpr[Register.Rsp] = isLong ? stack.Pointer : Merge(c->Gpr[Register.Rsp], stack);
        s.ModeChanged();
    }

    /// <summary>RET far, freeing <paramref name="popBytes"/> more on both stacks.</summary>
    public static void Return(CpuContext* c, CpuServices s, int operandSize, uint popBytes)
    {
        var stack = new Stack(c, s);
        ulong rip = stack.Pop(operandSize);
        ushort selector = (ushort)stack.Pop(operandSize);
        stack.Skip(popBytes);
        if (Mode.IsParagraph(c))
        {
            LoadParagraph(c, s, selector, rip);
            c->Gpr[Register.Rsp] = stack.Pointer;
            return;
        }
        ReturnTo(c, s, ref stack, selector, rip, operandSize, popBytes, false, null);
    }

    /// <summary>Second half of RET and IRET in protected mode: checks CS, pops SS:RSP where they are on the stack, and goes.</summary>
    internal static void ReturnTo(CpuContext* c, CpuServices s, ref Stack stack, ushort selector, ulong rip, int size, uint popBytes,
        bool alwaysPopStack, ulong? flags)
    {
        if (Segments.IsNull(selector))
            throw Faults.GeneralProtection();
        uint code = selector & Faults.SelectorMask;
        var d = Segments.Fetch(c, s, selector, Vector.GeneralProtection);
        int cpl = selector & 3;
        if (!d.IsCode || cpl < c->Cpl || (d.IsConforming ? d.Dpl > cpl : d.Dpl != cpl) || (Mode.IsLong(c) && d.IsLong && d.IsBig))
            throw Faults.GeneralProtection(code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        bool outer = cpl > c->Cpl;
        if (!outer && !alwaysPopStack)
        {
            var same = Segments.MarkAccessed(c, s, selector, d).ToRegister(selector);
            CheckOffset(c, same, rip);
            if (flags is { } sameFlags)
                InterruptReturn.SetFlags(c, sameFlags, size);
            c->Cs.Set(same);
            c->Rip = rip;
            c->Gpr[Register.Rsp] = stack.Pointer;
            s.ModeChanged();
            return;
        }
        ulong rsp = stack.Pop(size);
        ushort ssSelector = (ushort)stack.Pop(size);
        bool to64 = Mode.IsLong(c) && d.IsLong;
        SegmentRegister ss;
        if (Segments.IsNull(ssSelector))
        {
            // 64-bit code below level 3 runs with a null SS.
            if (!to64 || cpl == 3 || (ssSelector & 3) != cpl)
                throw Faults.GeneralProtection();
            ss = Segments.NullStack(ssSelector);
        }
        else
        {
            ss = Segments.CheckStackSegment(c, s, ssSelector, cpl, Vector.GeneralProtection);
        }
        var cs = Segments.MarkAccessed(c, s, selector, d).ToRegister(selector);
        CheckOffset(c, cs, rip);
        if (flags is { } image)
            InterruptReturn.SetFlags(c, image, size);
        c->Cs.Set(cs);
        c->Ss.Set(ss);
        c->Cpl = (byte)cpl;
        c->Rip = rip;
        if (outer)
            Segments.DropInnerDataSegments(c, cpl);
        // A 16-bit stack takes 16 bits of the pointer only; the rest of the old one stays.
        ulong mask = to64 ? ulong.MaxValue : (ss.Attributes & SegmentAttributes.Big) != 0 ? uint.MaxValue : 0xFFFFUL;
        ulong kept = mask == 0xFFFF ? c->Gpr[Register.Rsp] & ~mask : 0;
        c->Gpr[Register.Rsp] = kept | ((rsp + popBytes) & mask);
        s.ModeChanged();
    }

    /// <summary>The stack pointer to load from a stack of another segment: a 16-bit one leaves the upper half of the old.</summary>
    internal static ulong Merge(ulong old, in Stack stack) =>
        stack.Mask == 0xFFFF ? (old & ~0xFFFFUL) | (stack.Pointer & 0xFFFF) : stack.Pointer & stack.Mask;

    internal static ulong Truncate(ulong offset, int size) => size switch { 2 => (ushort)offset, 4 => (uint)offset, _ => offset };

    /// <summary>Loads CS:IP in real and virtual-8086 mode.</summary>
    internal static void LoadParagraph(CpuContext* c, CpuServices s, ushort selector, ulong offset)
    {
        if (Mode.IsReal(c))
        {
            if (offset > c->Cs.Limit)
                throw Faults.GeneralProtection();
            Segments.LoadReal(&c->Cs, selector);
        }
        else
        {
            if (offset > 0xFFFF)
                throw Faults.GeneralProtection();
            Segments.LoadVirtual8086(&c->Cs, selector);
        }
        c->Rip = offset;
        s.ModeChanged();
    }

    /// <summary>The offset must lie in the segment, or be canonical for 64-bit code.</summary>
    internal static void CheckOffset(CpuContext* c, in SegmentRegister cs, ulong offset)
    {
        bool bad = Mode.IsLong(c) && (cs.Attributes & SegmentAttributes.Long) != 0
            ? !PageWalker.IsCanonical(c, offset)
            : offset > cs.Limit;
        if (bad)
            throw Faults.GeneralProtection();
    }

    private static void EnterSameLevel(CpuContext* c, CpuServices s, SegmentRegister cs, ulong offset)
    {
        CheckOffset(c, cs, offset);
        c->Cs.Set(cs);
        c->Rip = offset;
        s.ModeChanged();
    }

    /// <summary>A code segment named directly by JMP or CALL: stays at the same level.</summary>
    private static SegmentRegister CheckDirect(CpuContext* c, CpuServices s, ushort selector, Descriptor d)
    {
        uint code = selector & Faults.SelectorMask;
        if (!d.IsCode || (Mode.IsLong(c) && d.IsLong && d.IsBig))
            throw Faults.GeneralProtection(code);
        if (d.IsConforming ? d.Dpl > c->Cpl : (selector & 3) > c->Cpl || d.Dpl != c->Cpl)
            throw Faults.GeneralProtection(code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        return Segments.MarkAccessed(c, s, selector, d).ToRegister((ushort)((selector & ~3) | c->Cpl));
    }

    /// <summary>Which system descriptors can be jumped to.</summary>
    private static SystemType Classify(CpuContext* c, Descriptor d, uint code)
    {
        bool good = Mode.IsLong(c)
            ? d.SystemType == SystemType.CallGate32 && (d.High >> 40 & 0x1F) == 0
            : d.SystemType is SystemType.CallGate16 or SystemType.CallGate32 or SystemType.TaskGate or SystemType.AvailableTss16
                or SystemType.AvailableTss32;
        return good ? d.SystemType : throw Faults.GeneralProtection(code);
    }

    private static void CheckGate(CpuContext* c, ushort selector, Descriptor gate)
    {
        CheckTaskPrivilege(c, selector, gate);
        if (!gate.IsPresent)
            throw Faults.NotPresent(selector & Faults.SelectorMask);
    }

    private static void CheckTaskPrivilege(CpuContext* c, ushort selector, Descriptor d)
    {
        if (d.Dpl < c->Cpl || d.Dpl < (selector & 3))
            throw Faults.GeneralProtection(selector & Faults.SelectorMask);
    }

    private static ushort CheckGateTarget(CpuContext* c, CpuServices s, Descriptor gate, out Descriptor target)
    {
        ushort selector = gate.GateSelector;
        if (Segments.IsNull(selector))
            throw Faults.GeneralProtection();
        target = Segments.Fetch(c, s, selector, Vector.GeneralProtection);
        if (!target.IsCode || (Mode.IsLong(c) && (!target.IsLong || target.IsBig)))
            throw Faults.GeneralProtection(selector & Faults.SelectorMask);
        return selector;
    }
}
