using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>Copies between the running processor's state and the form that engines share.</summary>
public static unsafe class StateTransfer
{
    /// <summary>Copies out.</summary>
    public static void ToState(CpuContext* c, CpuServices s, CpuState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        for (int i = 0; i < 16; i++)
            state.Gpr[i] = c->Gpr[i];
        state.Rip = c->Rip;
        state.Rflags = c->Rflags;
        for (int i = 0; i < 6; i++)
            state.Segments[i] = CpuContext.Segment(c, i)->ToRegister();
        state.Ldtr = c->Ldtr.ToRegister();
        state.Tr = c->Tr.ToRegister();
        state.Gdtr = (c->GdtrBase, c->GdtrLimit);
        state.Idtr = (c->IdtrBase, c->IdtrLimit);
        state.Cr0 = c->Cr0;
        state.Cr2 = c->Cr2;
        state.Cr3 = c->Cr3;
        state.Cr4 = c->Cr4;
        state.Xcr0 = c->Xcr0;
        for (int i = 0; i < 8; i++)
            state.Dr[i] = c->Dr[i];
        Msrs.Save(c, s, state.Msrs);
        if (c->XsaveArea != null)
        {
            new ReadOnlySpan<byte>(c->XsaveArea, state.Xsave.Length).CopyTo(state.Xsave);
            // Everything that is enabled is there: XSTATE_BV says so.
            if (s.Model.SupportedXcr0 != 0)
                BitConverter.TryWriteBytes(state.Xsave.AsSpan(512), s.Model.SupportedXcr0);
        }
        state.Halted = c->Halted != 0;
        state.WaitingForStartup = c->WaitingForStartup != 0;
        state.InterruptShadow = c->InterruptShadow != 0;
        state.NmiBlocked = c->NmiBlocked != 0;
        state.NmiPending = c->NmiPending != 0;
        state.InSmm = c->InSmm != 0;
        state.Smbase = c->Smbase;
    }

    /// <summary>Copies in. The engine's caches of the old state are dropped.</summary>
    public static void FromState(CpuContext* c, CpuServices s, CpuState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        for (int i = 0; i < 16; i++)
            c->Gpr[i] = state.Gpr[i];
        c->Rip = state.Rip;
        c->Rflags = state.Rflags | Flags.Fixed;
        for (int i = 0; i < 6; i++)
            CpuContext.Segment(c, i)->Set(state.Segments[i]);
        c->Ldtr.Set(state.Ldtr);
        c->Tr.Set(state.Tr);
        (c->GdtrBase, c->GdtrLimit) = state.Gdtr;
        (c->IdtrBase, c->IdtrLimit) = state.Idtr;
        c->Cr0 = state.Cr0;
        c->Cr2 = state.Cr2;
        c->Cr3 = state.Cr3;
        c->Cr4 = state.Cr4;
        c->Xcr0 = state.Xcr0;
        for (int i = 0; i < 8; i++)
            c->Dr[i] = state.Dr[i];
        Msrs.Restore(c, s, state.Msrs);
        if (c->XsaveArea != null)
        {
            var area = new Span<byte>(c->XsaveArea, state.Xsave.Length);
            state.Xsave.CopyTo(area);
            DropUnsupported(area, s.Model);
        }
        c->Halted = (byte)(state.Halted ? 1 : 0);
        c->WaitingForStartup = (byte)(state.WaitingForStartup ? 1 : 0);
        c->InterruptShadow = (byte)(state.InterruptShadow ? 1 : 0);
        c->NmiBlocked = (byte)(state.NmiBlocked ? 1 : 0);
        c->NmiPending = (byte)(state.NmiPending ? 1 : 0);
        c->InSmm = (byte)(state.InSmm ? 1 : 0);
        c->Smbase = state.Smbase;
        c->Shutdown = 0;
        if (Mode.IsReal(c))
            c->Cpl = 0;
        else if (Mode.IsVirtual8086(c))
            c->Cpl = 3;
        else
            c->Cpl = (byte)SegmentAttributes.Dpl(c->Ss.Attributes);
        if ((c->Cr0 & Cr0.Pg) != 0 && (c->Cr4 & Cr4.Pae) != 0 && !Mode.IsLong(c))
            ControlRegisters.LoadPointers(c, s, c->Cr3);
        s.FlushTlb(true);
        s.ModeChanged();
    }

    /// <summary>XRSTOR of the area must not fault on the host: no bit of XSTATE_BV for what the model has not, no reserved MXCSR bit.</summary>
    private static void DropUnsupported(Span<byte> area, CpuModel model)
    {
        ulong components = BitConverter.ToUInt64(area[512..]) & (model.SupportedXcr0 | 3);
        BitConverter.TryWriteBytes(area[512..], components);
        area[520..576].Clear();
        BitConverter.TryWriteBytes(area[24..], BitConverter.ToUInt32(area[24..]) & InstructionSupport.MxcsrMask(model));
    }
}
