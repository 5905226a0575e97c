namespace ImgKit.Cpu.Architecture;

/// <summary>What switches tasks.</summary>
internal enum TaskSwitchReason
{
    Jump,
    Call,
    Interrupt,
    InterruptReturn,
}

/// <summary>
/// Hardware task switching (Intel SDM 3A 7.3). Faults found before the switch leave the old task as it was; those found while the new
/// task's segments are loaded belong to the new task.
/// </summary>
internal static unsafe class TaskSwitch
{
    // Offsets of the 32-bit TSS (Intel SDM 3A figure 7-2) and of the 16-bit one (figure 7-10).
    private const uint Cr3Field = 0x1C, Eip32 = 0x20, Eflags32 = 0x24, Gpr32 = 0x28, Segments32 = 0x48, Ldt32 = 0x60, Trap32 = 0x64;
    private const uint Ip16 = 0xE, Flags16 = 0x10, Gpr16 = 0x12, Segments16 = 0x22, Ldt16 = 0x2A;

    /// <summary>Switches to the task of a TSS.</summary>
    /// <param name="c">state.</param>
    /// <param name="s">the processor.</param>
    /// <param name="selector">TSS.</param>
    /// <param name="reason">what asks.</param>
    /// <param name="savedRip">where the old task goes on later.</param>
    /// <param name="errorCode">to be pushed on the new stack.</param>
    /// <param name="external">bit 0 of error codes.</param>
    public static void Through(CpuContext* c, CpuServices s, ushort selector, TaskSwitchReason reason, ulong savedRip, uint? errorCode, bool external)
    {
        uint ext = external ? 1u : 0;
        bool isReturn = reason == TaskSwitchReason.InterruptReturn;
        byte vector = isReturn ? Vector.InvalidTss : Vector.GeneralProtection;
        uint code = (selector & Faults.SelectorMask) | ext;
        if ((selector & 4) != 0 || !Segments.TryFetch(c, s, selector, out var d) || (Segments.IsNull(selector)))
            throw new GuestFault(vector, code);
        bool rightType = d.IsSystem && (isReturn
            ? d.SystemType is SystemType.BusyTss16 or SystemType.BusyTss32
            : d.SystemType is SystemType.AvailableTss16 or SystemType.AvailableTss32);
        if (!rightType)
            throw new GuestFault(vector, code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        bool wide = (d.Type & 8) != 0;
        if (d.Limit < (wide ? 0x67u : 0x2Bu))
            throw Faults.InvalidTss(code);

        var incoming = Read(s, d.Base, wide);
        bool nests = reason is TaskSwitchReason.Call or TaskSwitchReason.Interrupt;
        if (nests)
            s.ProbeLinear(d.Base, 2, true, LinearAccess.System);
        SaveOld(c, s, savedRip, isReturn);
        ushort oldTask = c->Tr.Selector;
        if (!nests && Segments.TryFetch(c, s, oldTask, out var oldDescriptor))
            Segments.SetBusy(c, s, oldTask, oldDescriptor, false);
        if (nests)
            s.WriteLinear(d.Base, oldTask, 2, LinearAccess.System);
        if (!isReturn)
            Segments.SetBusy(c, s, selector, d, true);

        // From here on the processor is in the new task.
        c->Tr.Set((d with { Low = d.Low | (2UL << 40) }).ToRegister(selector));
        c->Cr0 |= Cr0.Ts;
        c->Dr[7] &= ~0x155UL;
        Load(c, s, incoming, wide, nests);
        LoadSegments(c, s, incoming, ext);
        if (errorCode is { } error)
        {
            var stack = new Stack(c, s, c->Ss.ToRegister(), c->Gpr[Register.Rsp], false, LinearAccess.Program, ext);
            stack.Push(error, wide ? 4 : 2);
            c->Gpr[Register.Rsp] = stack.Pointer;
        }
        s.ModeChanged();
        if (c->Rip > c->Cs.Limit)
            throw Faults.GeneralProtection(ext);
        if (incoming.Trap)
        {
            DebugRegisters.Report(c, DebugRegisters.Dr6Task);
            throw new GuestFault(Vector.Debug);
        }
    }

    private static Image Read(CpuServices s, ulong tss, bool wide)
    {
        var image = new Image { Gpr = new uint[8], Segment = new ushort[6] };
        if (wide)
        {
            image.Cr3 = (uint)Get(s, tss + Cr3Field, 4);
            image.Eip = (uint)Get(s, tss + Eip32, 4);
            image.Eflags = (uint)Get(s, tss + Eflags32, 4);
            for (uint i = 0; i < 8; i++)
                image.Gpr[i] = (uint)Get(s, tss + Gpr32 + (i * 4), 4);
            for (uint i = 0; i < 6; i++)
                image.Segment[i] = (ushort)Get(s, tss + Segments32 + (i * 4), 2);
            image.Ldt = (ushort)Get(s, tss + Ldt32, 2);
            image.Trap = (Get(s, tss + Trap32, 2) & 1) != 0;
        }
        else
        {
            image.Eip = (uint)Get(s, tss + Ip16, 2);
            image.Eflags = (uint)Get(s, tss + Flags16, 2);
            for (uint i = 0; i < 8; i++)
                image.Gpr[i] = 0xFFFF0000 | (uint)Get(s, tss + Gpr16 + (i * 2), 2);
            for (uint i = 0; i < 4; i++)
                image.Segment[i] = (ushort)Get(s, tss + Segments16 + (i * 2), 2);
            image.Ldt = (ushort)Get(s, tss + Ldt16, 2);
        }
        return image;
    }

    private static ulong Get(CpuServices s, ulong address, int size) => s.ReadLinear(address, size, LinearAccess.System);

    private static void SaveOld(CpuContext* c, CpuServices s, ulong rip, bool isReturn)
    {
        ulong tss = c->Tr.Base;
        bool wide = TaskState.Is32Bit(c);
        s.ProbeLinear(tss, wide ? 0x60 : 0x2A, true, LinearAccess.System);
        ulong flags = isReturn ? c->Rflags & ~Flags.Nt : c->Rflags;
        int size = wide ? 4 : 2;
        Put(s, tss + (wide ? Eip32 : Ip16), rip, size);
        Put(s, tss + (wide ? Eflags32 : Flags16), flags, size);
        for (uint i = 0; i < 8; i++)
            Put(s, tss + (wide ? Gpr32 : Gpr16) + (i * (uint)size), c->Gpr[(int)i], size);
        for (uint i = 0; i < (wide ? 6u : 4u); i++)
            Put(s, tss + (wide ? Segments32 : Segments16) + (i * (uint)size), CpuContext.Segment(c, (int)i)->Selector, 2);
    }

    private static void Put(CpuServices s, ulong address, ulong value, int size) => s.WriteLinear(address, value, size, LinearAccess.System);

    private static void Load(CpuContext* c, CpuServices s, in Image image, bool wide, bool nests)
    {
        if (wide && (c->Cr0 & Cr0.Pg) != 0)
            ControlRegisters.LoadCr3(c, s, image.Cr3);
        c->Rip = image.Eip;
        ulong flags = image.Eflags & 0x3F7FD5;
        if (!wide)
            flags &= 0xFFFF;
        if (nests)
            flags |= Flags.Nt;
        c->Rflags = flags | Flags.Fixed;
        for (int i = 0; i < 8; i++)
            c->Gpr[i] = image.Gpr[i];
        // Selectors are there even if loading them faults; nothing can be accessed through them.
        for (int i = 0; i < 6; i++)
            CpuContext.Segment(c, i)->Set(Segments.Null(image.Segment[i]));
        c->Ldtr.Set(Segments.Null(image.Ldt));
    }

    private static void LoadSegments(CpuContext* c, CpuServices s, in Image image, uint ext)
    {
        try
        {
            c->Ldtr.Set(Segments.CheckLdt(c, s, image.Ldt, Vector.InvalidTss));
            if ((c->Rflags & Flags.Vm) != 0)
            {
                for (int i = 0; i < 6; i++)
                    Segments.LoadVirtual8086(CpuContext.Segment(c, i), image.Segment[i]);
                c->Cpl = 3;
                return;
            }
            ushort cs = image.Segment[Segments.Cs];
            c->Cpl = (byte)(cs & 3);
            c->Cs.Set(CheckCode(c, s, cs));
            ushort ss = image.Segment[Segments.Ss];
            if (Segments.IsNull(ss))
                throw Faults.InvalidTss(ss & Faults.SelectorMask);
            c->Ss.Set(Segments.CheckStackSegment(c, s, ss, c->Cpl, Vector.InvalidTss));
            ReadOnlySpan<int> data = [Segments.Es, Segments.Ds, Segments.Fs, Segments.Gs];
            foreach (int i in data)
                CpuContext.Segment(c, i)->Set(Segments.CheckDataSegment(c, s, image.Segment[i], Vector.InvalidTss));
        }
        catch (GuestFault fault) when (ext != 0 && fault.Vector != Vector.PageFault)
        {
            throw new GuestFault(fault.Vector, fault.ErrorCode | 1);
        }
    }

    private static SegmentRegister CheckCode(CpuContext* c, CpuServices s, ushort selector)
    {
        uint code = selector & Faults.SelectorMask;
        if (Segments.IsNull(selector))
            throw Faults.InvalidTss(code);
        var d = Segments.Fetch(c, s, selector, Vector.InvalidTss);
        int rpl = selector & 3;
        if (!d.IsCode || (d.IsConforming ? d.Dpl > rpl : d.Dpl != rpl))
            throw Faults.InvalidTss(code);
        if (!d.IsPresent)
            throw Faults.NotPresent(code);
        return Segments.MarkAccessed(c, s, selector, d).ToRegister(selector);
    }

    private struct Image
    {
        public uint Cr3, Eip, Eflags;
        public uint[] Gpr;
        public ushort[] Segment;
        public ushort Ldt;
        public bool Trap;
    }
}
