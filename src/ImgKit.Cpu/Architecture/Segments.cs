namespace ImgKit.Cpu.Architecture;

/// <summary>
/// Segment registers: descriptors fetched, checked and loaded. Sources: Intel SDM 3A chapters 3 and 5, and 2A MOV, LDS, LLDT, LTR, LAR,
/// LSL, VERR, ARPL; AMD APM 2 chapter 4 for long mode.
/// </summary>
public static unsafe class Segments
{
    public const int Es = 0, Cs = 1, Ss = 2, Ds = 3, Fs = 4, Gs = 5;

    /// <summary>MOV, POP, LDS and the like: loads ES, SS, DS, FS or GS.</summary>
    public static void Load(CpuContext* c, CpuServices s, int segment, ushort selector)
    {
        var state = CpuContext.Segment(c, segment);
        if (Mode.IsReal(c))
            LoadReal(state, selector);
        else if (Mode.IsVirtual8086(c))
            LoadVirtual8086(state, selector, SegmentAttributesOfVirtual8086);
        else if (segment == Ss)
            state->Set(CheckStackSegment(c, s, selector));
        else
            state->Set(CheckDataSegment(c, s, selector, Vector.GeneralProtection));
        s.ModeChanged();
    }

    private const uint SegmentAttributesOfVirtual8086 = 0xF3;

    /// <summary>Real mode changes selector and base only: limits from protected mode stay ("unreal" mode).</summary>
    internal static void LoadReal(SegmentState* state, ushort selector)
    {
        state->Selector = selector;
        state->Base = (ulong)selector << 4;
        if ((state->Attributes & SegmentAttributes.Unusable) != 0)
        {
            state->Attributes = 0x93;
            state->Limit = 0xFFFF;
        }
    }

    internal static void LoadVirtual8086(SegmentState* state, ushort selector, uint attributes = SegmentAttributesOfVirtual8086)
    {
        state->Selector = selector;
        state->Base = (ulong)selector << 4;
        state->Limit = 0xFFFF;
        state->Attributes = attributes;
    }

    internal static SegmentRegister CheckDataSegment(CpuContext* c, CpuServices s, ushort selector, byte vector)
    {
        if (IsNull(selector))
            return Null(selector);
        var d = Fetch(c, s, selector, vector);
        uint code = selector & Faults.SelectorMask;
        bool readable = d.IsData || (d.IsCode && (d.Type & SegmentAttributes.WritableOrReadable) != 0);
        if (!readable)
            throw new GuestFault(vector, code);
        if (!d.IsConforming && ((selector & 3) > d.Dpl || c->Cpl > d.Dpl))
            throw new GuestFault(vector, code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        return MarkAccessed(c, s, selector, d).ToRegister(selector);
    }

    private static SegmentRegister CheckStackSegment(CpuContext* c, CpuServices s, ushort selector)
    {
        if (IsNull(selector))
        {
            if (Mode.Is64Bit(c) && c->Cpl != 3 && (selector & 3) == c->Cpl)
                return NullStack(selector);
            throw Faults.GeneralProtection();
        }
        return CheckStackSegment(c, s, selector, c->Cpl, Vector.GeneralProtection);
    }

    /// <summary>A not-null selector for SS at a privilege level; what is wrong with it is reported as <paramref name="vector"/> (#GP or
    /// #TS), absence as #SS.</summary>
    internal static SegmentRegister CheckStackSegment(CpuContext* c, CpuServices s, ushort selector, int cpl, byte vector)
    {
        var d = Fetch(c, s, selector, vector);
        uint code = selector & Faults.SelectorMask;
        if ((selector & 3) != cpl || d.Dpl != cpl || !d.IsWritableData)
            throw new GuestFault(vector, code);
        if (!d.IsPresent)
            throw Faults.Stack(code);
        return MarkAccessed(c, s, selector, d).ToRegister(selector);
    }

    internal static bool IsNull(ushort selector) => (selector & 0xFFFC) == 0;

    internal static SegmentRegister Null(ushort selector) => new(selector, 0, 0, SegmentAttributes.Unusable);

    /// <summary>The null SS of 64-bit mode: no checks happen through it, its DPL tells the privilege.</summary>
    internal static SegmentRegister NullStack(ushort selector) =>
        new(selector, 0, 0, SegmentAttributes.Unusable | (((uint)selector & 3) << 5));

    /// <summary>Reads the 8 bytes of a descriptor; false where its table ends before.</summary>
    internal static bool TryFetch(CpuContext* c, CpuServices s, ushort selector, out Descriptor descriptor)
    {
        descriptor = default;
        if (!TryLocate(c, selector, 8, out ulong address))
            return false;
        descriptor = new Descriptor(s.ReadLinear(address, 8, LinearAccess.System), 0);
        return true;
    }

    /// <summary>As <see cref="TryFetch"/>; in long mode a system descriptor has 16 bytes.</summary>
    internal static bool TryFetchSystem(CpuContext* c, CpuServices s, ushort selector, out Descriptor descriptor)
    {
        if (!TryFetch(c, s, selector, out descriptor))
            return false;
        if (!Mode.IsLong(c) || !descriptor.IsSystem)
            return true;
        if (!TryLocate(c, selector, 16, out ulong address))
            return false;
        descriptor = descriptor with { High = s.ReadLinear(address + 8, 8, LinearAccess.System) };
        return true;
    }

    internal static Descriptor Fetch(CpuContext* c, CpuServices s, ushort selector, byte vector) =>
        TryFetch(c, s, selector, out var descriptor) ? descriptor : throw new GuestFault(vector, selector & Faults.SelectorMask);

    internal static Descriptor FetchSystem(CpuContext* c, CpuServices s, ushort selector, byte vector) =>
        TryFetchSystem(c, s, selector, out var descriptor) ? descriptor : throw new GuestFault(vector, selector & Faults.SelectorMask);

    internal static bool TryLocate(CpuContext* c, ushort selector, int size, out ulong address)
    {
        ulong table = c->GdtrBase;
        uint limit = c->GdtrLimit;
        if ((selector & 4) != 0)
        {
            table = c->Ldtr.Base;
            limit = c->Ldtr.Limit;
            if ((c->Ldtr.Attributes & SegmentAttributes.Unusable) != 0)
            {
                address = 0;
                return false;
            }
        }
        uint offset = selector & 0xFFF8u;
        address = table + offset;
        return offset + (uint)size - 1 <= limit;
    }

    /// <summary>Sets the accessed bit in the table and in the value returned.</summary>
    internal static Descriptor MarkAccessed(CpuContext* c, CpuServices s, ushort selector, Descriptor descriptor)
    {
        if ((descriptor.Type & SegmentAttributes.Accessed) != 0)
            return descriptor;
        var marked = descriptor with { Low = descriptor.Low | (1UL << 40) };
        if (TryLocate(c, selector, 8, out ulong address))
            s.WriteLinear(address + 5, (byte)(marked.Low >> 40), 1, LinearAccess.System);
        return marked;
    }

    /// <summary>Data segments that an outer privilege level may not use become null (RET and IRET to an outer level). Only the selector is cleared:
    /// 64-bit code still has the bases of FS and GS.</summary>
    internal static void DropInnerDataSegments(CpuContext* c, int cpl)
    {
        Drop(&c->Es, cpl);
        Drop(&c->Ds, cpl);
        Drop(&c->Fs, cpl);
        Drop(&c->Gs, cpl);

        static void Drop(SegmentState* state, int cpl)
        {
            const uint conformingCode = SegmentAttributes.CodeOrData | SegmentAttributes.Code | SegmentAttributes.ExpandDownOrConforming;
            // Of a null selector the RPL goes, no more: in 64-bit mode the bases of FS and GS are the program's own.
            if ((state->Attributes & SegmentAttributes.Unusable) != 0)
                state->Selector = 0;
            else if (SegmentAttributes.Dpl(state->Attributes) < cpl && (state->Attributes & conformingCode) != conformingCode)
                state->Set(Null(0) with { Base = state->Base });
        }
    }

    /// <summary>LLDT.</summary>
    public static void LoadLdt(CpuContext* c, CpuServices s, ushort selector)
    {
        RequireProtectedSupervisor(c);
        c->Ldtr.Set(CheckLdt(c, s, selector, Vector.GeneralProtection));
    }

    internal static SegmentRegister CheckLdt(CpuContext* c, CpuServices s, ushort selector, byte vector)
    {
        if (IsNull(selector))
            return Null(selector);
        uint code = selector & Faults.SelectorMask;
        if ((selector & 4) != 0)
            throw new GuestFault(vector, code);
        var d = FetchSystem(c, s, selector, vector);
        if (!d.IsSystem || d.SystemType != SystemType.Ldt || (d.High >> 40 & 0x1F) != 0)
            throw new GuestFault(vector, code);
        if (!d.IsPresent)
            throw vector == Vector.InvalidTss ? Faults.InvalidTss(code) : Faults.NotPresent(code);
        if (Mode.IsLong(c) && !PageWalker.IsCanonical(c, d.Base))
            throw Faults.GeneralProtection(code);
        return d.ToRegister(selector);
    }

    /// <summary>LTR: marks the TSS busy.</summary>
    public static void LoadTaskRegister(CpuContext* c, CpuServices s, ushort selector)
    {
        RequireProtectedSupervisor(c);
        if (IsNull(selector))
            throw Faults.GeneralProtection();
        uint code = selector & Faults.SelectorMask;
        if ((selector & 4) != 0)
            throw Faults.GeneralProtection(code);
        var d = FetchSystem(c, s, selector, Vector.GeneralProtection);
        bool available = d.IsSystem
            && (d.SystemType == SystemType.AvailableTss32 || (d.SystemType == SystemType.AvailableTss16 && !Mode.IsLong(c)));
        if (!available || (d.High >> 40 & 0x1F) != 0)
            throw Faults.GeneralProtection(code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        if (Mode.IsLong(c) && !PageWalker.IsCanonical(c, d.Base))
            throw Faults.GeneralProtection(code);
        SetBusy(c, s, selector, d, true);
        c->Tr.Set((d with { Low = d.Low | (2UL << 40) }).ToRegister(selector));
        s.ModeChanged();
    }

    internal static void SetBusy(CpuContext* c, CpuServices s, ushort selector, Descriptor d, bool busy)
    {
        ulong access = (d.Low >> 40) & 0xFF;
        TryLocate(c, selector, 8, out ulong address);
        s.WriteLinear(address + 5, busy ? access | 2 : access & ~2UL, 1, LinearAccess.System);
    }

    private static void RequireProtectedSupervisor(CpuContext* c)
    {
        if (Mode.IsParagraph(c))
            throw Faults.UndefinedOpcode();
        if (c->Cpl != 0)
            throw Faults.GeneralProtection();
    }

    /// <summary>SLDT. STR, SGDT, SIDT and SMSW have the same rule: with CR4.UMIP only for CPL 0.</summary>
    public static ushort StoreLdt(CpuContext* c)
    {
        if (Mode.IsParagraph(c))
            throw Faults.UndefinedOpcode();
        CheckUserModePrevention(c);
        return c->Ldtr.Selector;
    }

    /// <summary>STR.</summary>
    public static ushort StoreTaskRegister(CpuContext* c)
    {
        if (Mode.IsParagraph(c))
            throw Faults.UndefinedOpcode();
        CheckUserModePrevention(c);
        return c->Tr.Selector;
    }

    /// <summary>#GP for SGDT, SIDT, SLDT, STR, SMSW at CPL above 0 with CR4.UMIP.</summary>
    public static void CheckUserModePrevention(CpuContext* c)
    {
        if (c->Cpl != 0 && (c->Cr4 & Cr4.Umip) != 0)
            throw Faults.GeneralProtection();
    }

    /// <summary>LGDT, with the operand as read. <paramref name="operandSize"/> 2 loads 24 bits of base.</summary>
    public static void LoadGdt(CpuContext* c, ulong tableBase, ushort limit, int operandSize)
    {
        c->GdtrBase = CheckTable(c, tableBase, operandSize);
        c->GdtrLimit = limit;
    }

    /// <summary>LIDT, likewise.</summary>
    public static void LoadIdt(CpuContext* c, ulong tableBase, ushort limit, int operandSize)
    {
        c->IdtrBase = CheckTable(c, tableBase, operandSize);
        c->IdtrLimit = limit;
    }

    private static ulong CheckTable(CpuContext* c, ulong tableBase, int operandSize)
    {
        if (c->Cpl != 0)
            throw Faults.GeneralProtection();
        if (Mode.Is64Bit(c))
            return PageWalker.IsCanonical(c, tableBase) ? tableBase : throw Faults.GeneralProtection();
        return operandSize == 2 ? tableBase & 0xFFFFFF : (uint)tableBase;
    }

    /// <summary>LAR: access rights in bits 8..23. False: ZF clear, nothing loaded.</summary>
    public static bool Lar(CpuContext* c, CpuServices s, ushort selector, out uint value)
    {
        value = 0;
        // Types that LAR knows, as bit sets: legacy has TSSs, LDT, call and task gates; long mode LDT, TSS and call gate of 64 bits.
        uint types = Mode.IsLong(c) ? 1u << 2 | 1u << 9 | 1u << 11 | 1u << 12 : 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 9 | 1u << 11 | 1u << 12;
        if (!TryInspect(c, s, selector, types, out var d))
            return false;
        value = (uint)(d.Low >> 32) & 0x00FFFF00;
        return true;
    }

    /// <summary>LSL: the limit in bytes.</summary>
    public static bool Lsl(CpuContext* c, CpuServices s, ushort selector, out uint value)
    {
        value = 0;
        uint types = Mode.IsLong(c) ? 1u << 2 | 1u << 9 | 1u << 11 : 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;
        if (!TryInspect(c, s, selector, types, out var d))
            return false;
        value = d.Limit;
        return true;
    }

    /// <summary>VERR.</summary>
    public static bool Verr(CpuContext* c, CpuServices s, ushort selector) =>
        TryInspect(c, s, selector, 0, out var d) && (d.IsData || (d.Type & SegmentAttributes.WritableOrReadable) != 0);

    /// <summary>VERW.</summary>
    public static bool Verw(CpuContext* c, CpuServices s, ushort selector) =>
        TryInspect(c, s, selector, 0, out var d) && d.IsWritableData;

    private static bool TryInspect(CpuContext* c, CpuServices s, ushort selector, uint systemTypes, out Descriptor d)
    {
        if (Mode.IsParagraph(c))
            throw Faults.UndefinedOpcode();
        d = default;
        if (IsNull(selector) || !TryFetch(c, s, selector, out d))
            return false;
        if (d.IsSystem && (systemTypes >> (int)d.Type & 1) == 0)
            return false;
        return d.IsConforming || ((selector & 3) <= d.Dpl && c->Cpl <= d.Dpl);
    }

    /// <summary>ARPL: the destination with its RPL raised to that of the source; true: it was raised (ZF).</summary>
    public static bool Arpl(CpuContext* c, ushort destination, ushort source, out ushort result)
    {
        if (Mode.IsParagraph(c))
            throw Faults.UndefinedOpcode();
        bool raise = (destination & 3) < (source & 3);
        result = raise ? (ushort)((destination & ~3) | (source & 3)) : destination;
        return raise;
    }

    /// <summary>SWAPGS (64-bit mode only, CPL 0).</summary>
    public static void SwapGs(CpuContext* c)
    {
        if (!Mode.Is64Bit(c))
            throw Faults.UndefinedOpcode();
        if (c->Cpl != 0)
            throw Faults.GeneralProtection();
        (c->Gs.Base, c->KernelGsBase) = (c->KernelGsBase, c->Gs.Base);
    }

    /// <summary>Whether an access of <paramref name="size"/> bytes lies within a segment (not for 64-bit mode).</summary>
    public static bool IsWithin(in SegmentRegister segment, ulong offset, int size)
    {
        ulong last = offset + (uint)size - 1;
        const uint kind = SegmentAttributes.Code | SegmentAttributes.ExpandDownOrConforming | SegmentAttributes.CodeOrData;
        bool expandDown = (segment.Attributes & kind) == (SegmentAttributes.CodeOrData | SegmentAttributes.ExpandDownOrConforming);
        if (!expandDown)
            return last <= segment.Limit;
        return offset > segment.Limit && last <= ((segment.Attributes & SegmentAttributes.Big) != 0 ? uint.MaxValue : 0xFFFFu);
    }
}
