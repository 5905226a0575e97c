using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>
/// System-management mode. The save area lies at SMBASE + 0x8000 + 0x7E00 in the layout of AMD64 processors (AMD APM 2 table 10-1) where the
/// model has long mode, else in that of 32-bit ones (Intel SDM 3C table 31-1, whose reserved fields keep the hidden parts).
/// </summary>
public static unsafe class Smm
{
    /// <summary>Revision identifiers: SMBASE relocation (bit 17); 0x64 tells the AMD64 layout. Firmware looks at exactly these.</summary>
    private const uint Revision32 = 0x20000, Revision64 = 0x20064;

    private const uint RevisionField = 0x7EFC;

    /// <summary>Delivers an SMI between instructions. The caller checks that the processor is not in SMM.</summary>
    public static void Enter(CpuContext* c, CpuServices s)
    {
        c->InSmm = 1;
        var area = new Area(s, c->Smbase + 0x8000u);
        if (s.Model.Has(CpuFeature.Lm))
            Save64(c, area);
        else
            Save32(c, area);
        // NMIs wait until RSM; whether they were blocked before is kept in a reserved field.
        area.Put(0x7ED8, c->NmiBlocked, 4);
        c->NmiBlocked = 1;
        c->Halted = 0;
        c->InterruptShadow = 0;
        c->Rflags = Flags.Fixed;
        c->Rip = 0x8000;
        c->Cr0 &= ~(Cr0.Pe | Cr0.Em | Cr0.Ts | Cr0.Pg);
        c->Cr4 = 0;
        c->Efer = 0;
        c->Dr[7] = 0x400;
        c->Cpl = 0;
        for (int i = 0; i < 6; i++)
            CpuContext.Segment(c, i)->Set(new SegmentRegister(0, 0, uint.MaxValue, 0x8093));
        c->Cs.Set(new SegmentRegister((ushort)(c->Smbase >> 4), c->Smbase, uint.MaxValue, 0x8093));
        s.FlushTlb(true);
        s.ModeChanged();
    }

    /// <summary>RSM. #UD outside SMM.</summary>
    public static void Resume(CpuContext* c, CpuServices s)
    {
        if (c->InSmm == 0)
            throw Faults.UndefinedOpcode();
        var area = new Area(s, c->Smbase + 0x8000u);
        c->NmiBlocked = (byte)(area.Get(0x7ED8, 4) & 1);
        if (s.Model.Has(CpuFeature.Lm))
            Load64(c, area);
        else
            Load32(c, area);
        c->InSmm = 0;
        if ((c->Rflags & Flags.Vm) != 0)
            c->Cpl = 3;
        else
            c->Cpl = (byte)(Mode.IsReal(c) ? 0 : SegmentAttributes.Dpl(c->Ss.Attributes));
        c->InterruptShadow = 0;
        s.FlushTlb(true);
        if ((c->Cr0 & Cr0.Pg) != 0 && (c->Cr4 & Cr4.Pae) != 0 && !Mode.IsLong(c))
            LoadPointersOrStop(c, s);
        s.ModeChanged();
    }

    // State that cannot be resumed is the end: the processor shuts down (SDM 3C 31.3.1).
    private static void LoadPointersOrStop(CpuContext* c, CpuServices s)
    {
        try
        {
            ControlRegisters.LoadPointers(c, s, c->Cr3);
        }
        catch (GuestFault)
        {
            c->Shutdown = 1;
        }
    }

    private static void Save64(CpuContext* c, Area a)
    {
        for (int i = 0; i < 6; i++)
            SaveSegment64(a, 0x7E00 + ((uint)i * 16), CpuContext.Segment(c, i));
        a.Put(0x7E64, c->GdtrLimit, 4);
        a.Put(0x7E68, c->GdtrBase, 8);
        SaveSegment64(a, 0x7E70, &c->Ldtr);
        a.Put(0x7E84, c->IdtrLimit, 4);
        a.Put(0x7E88, c->IdtrBase, 8);
        SaveSegment64(a, 0x7E90, &c->Tr);
        a.Put(0x7EC8, c->Halted != 0 ? 0x0100u : 0, 2);
        a.Put(0x7ED0, c->Efer, 8);
        a.Put(RevisionField, Revision64, 4);
        a.Put(0x7F00, c->Smbase, 4);
        a.Put(0x7F48, c->Cr4, 8);
        a.Put(0x7F50, c->Cr3, 8);
        a.Put(0x7F58, c->Cr0, 8);
        a.Put(0x7F60, c->Dr[7], 8);
        a.Put(0x7F68, c->Dr[6], 8);
        a.Put(0x7F70, c->Rflags, 8);
        a.Put(0x7F78, c->Rip, 8);
        for (uint i = 8; i < 16; i++)
            a.Put(0x7FF8 - (i * 8), c->Gpr[(int)i], 8);
        for (int i = 0; i < 8; i++)
            a.Put(Gpr64(i), c->Gpr[i], 8);
    }

    private static void Load64(CpuContext* c, Area a)
    {
        for (int i = 0; i < 6; i++)
            LoadSegment64(a, 0x7E00 + ((uint)i * 16), CpuContext.Segment(c, i));
        c->GdtrLimit = (ushort)a.Get(0x7E64, 4);
        c->GdtrBase = a.Get(0x7E68, 8);
        LoadSegment64(a, 0x7E70, &c->Ldtr);
        c->IdtrLimit = (ushort)a.Get(0x7E84, 4);
        c->IdtrBase = a.Get(0x7E88, 8);
        LoadSegment64(a, 0x7E90, &c->Tr);
        c->Halted = (byte)(a.Get(0x7EC9, 1) & 1);
        c->Efer = a.Get(0x7ED0, 8);
        c->Cr4 = a.Get(0x7F48, 8);
        c->Cr3 = a.Get(0x7F50, 8);
        c->Cr0 = a.Get(0x7F58, 8);
        c->Dr[7] = a.Get(0x7F60, 8);
        c->Dr[6] = a.Get(0x7F68, 8);
        c->Rflags = a.Get(0x7F70, 8) | Flags.Fixed;
        c->Rip = a.Get(0x7F78, 8);
        for (uint i = 8; i < 16; i++)
            c->Gpr[(int)i] = a.Get(0x7FF8 - (i * 8), 8);
        for (int i = 0; i < 8; i++)
            c->Gpr[i] = a.Get(Gpr64(i), 8);
        if ((a.Get(RevisionField, 4) & 0x20000) != 0)
            c->Smbase = (uint)a.Get(0x7F00, 4);
    }

    // RAX is the last quadword, then RCX RDX RBX RSP RBP RSI RDI downwards, R8..R15 below.
    private static uint Gpr64(int index) => 0x7FF8 - ((uint)index * 8);

    private static void SaveSegment64(Area a, uint offset, SegmentState* segment)
    {
        a.Put(offset, segment->Selector, 2);
        a.Put(offset + 2, Pack(segment->Attributes), 2);
        a.Put(offset + 4, segment->Limit, 4);
        a.Put(offset + 8, segment->Base, 8);
    }

    private static void LoadSegment64(Area a, uint offset, SegmentState* segment) =>
        segment->Set(new SegmentRegister((ushort)a.Get(offset, 2), a.Get(offset + 8, 8), (uint)a.Get(offset + 4, 4), Unpack((uint)a.Get(offset + 2, 2))));

    // Attributes in 12 bits, as in a VMCB; what is not present after that was null.
    private static uint Pack(uint attributes) =>
        (attributes & SegmentAttributes.Unusable) != 0 ? attributes & 0x60 : (attributes & 0xFF) | (attributes >> 4 & 0xF00);

    private static uint Unpack(uint packed)
    {
        uint attributes = (packed & 0xFF) | ((packed & 0xF00) << 4);
        return (attributes & SegmentAttributes.Present) == 0 ? attributes | SegmentAttributes.Unusable : attributes;
    }

    private static void Save32(CpuContext* c, Area a)
    {
        a.Put(0x7FFC, c->Cr0, 4);
        a.Put(0x7FF8, c->Cr3, 4);
        a.Put(0x7FF4, c->Rflags, 4);
        a.Put(0x7FF0, c->Rip, 4);
        for (int i = 0; i < 8; i++)
            a.Put(0x7FD0 + ((uint)i * 4), c->Gpr[i], 4);
        a.Put(0x7FCC, c->Dr[6], 4);
        a.Put(0x7FC8, c->Dr[7], 4);
        SaveSegment32(a, 0x7FC4, 0x7F5C, &c->Tr);
        SaveSegment32(a, 0x7FC0, 0x7F78, &c->Ldtr);
        a.Put(0x7F74, c->GdtrBase, 4);
        a.Put(0x7F70, c->GdtrLimit, 4);
        a.Put(0x7F58, c->IdtrBase, 4);
        a.Put(0x7F54, c->IdtrLimit, 4);
        for (int i = 0; i < 6; i++)
            SaveSegment32(a, 0x7FA8 + ((uint)i * 4), Hidden32(i), CpuContext.Segment(c, i));
        a.Put(0x7F14, c->Cr4, 4);
        a.Put(0x7F02, c->Halted, 2);
        a.Put(RevisionField, Revision32, 4);
        a.Put(0x7EF8, c->Smbase, 4);
    }

    private static void Load32(CpuContext* c, Area a)
    {
        c->Cr0 = a.Get(0x7FFC, 4);
        c->Cr3 = a.Get(0x7FF8, 4);
        c->Rflags = a.Get(0x7FF4, 4) | Flags.Fixed;
        c->Rip = a.Get(0x7FF0, 4);
        for (int i = 0; i < 8; i++)
            c->Gpr[i] = a.Get(0x7FD0 + ((uint)i * 4), 4);
        c->Dr[6] = a.Get(0x7FCC, 4);
        c->Dr[7] = a.Get(0x7FC8, 4);
        LoadSegment32(a, 0x7FC4, 0x7F5C, &c->Tr);
        LoadSegment32(a, 0x7FC0, 0x7F78, &c->Ldtr);
        c->GdtrBase = a.Get(0x7F74, 4);
        c->GdtrLimit = (ushort)a.Get(0x7F70, 4);
        c->IdtrBase = a.Get(0x7F58, 4);
        c->IdtrLimit = (ushort)a.Get(0x7F54, 4);
        for (int i = 0; i < 6; i++)
            LoadSegment32(a, 0x7FA8 + ((uint)i * 4), Hidden32(i), CpuContext.Segment(c, i));
        c->Cr4 = a.Get(0x7F14, 4);
        c->Halted = (byte)(a.Get(0x7F02, 2) & 1);
        if ((a.Get(RevisionField, 4) & 0x20000) != 0)
            c->Smbase = (uint)a.Get(0x7EF8, 4);
    }

    private static uint Hidden32(int segment) => segment < 3 ? 0x7F84 + ((uint)segment * 12) : 0x7F2C + ((uint)(segment - 3) * 12);

    private static void SaveSegment32(Area a, uint selector, uint hidden, SegmentState* segment)
    {
        a.Put(selector, segment->Selector, 4);
        a.Put(hidden, segment->Attributes, 4);
        a.Put(hidden + 4, segment->Limit, 4);
        a.Put(hidden + 8, segment->Base, 4);
    }

    private static void LoadSegment32(Area a, uint selector, uint hidden, SegmentState* segment) =>
        segment->Set(new SegmentRegister((ushort)a.Get(selector, 4), a.Get(hidden + 8, 4), (uint)a.Get(hidden + 4, 4), (uint)a.Get(hidden, 4) & 0x1F0FF));

    /// <summary>The save area, in physical memory.</summary>
    private readonly struct Area(CpuServices services, uint start)
    {
        public void Put(uint offset, ulong value, int size) => services.WritePhysical(start + offset, value, size);

        public ulong Get(uint offset, int size) => services.ReadPhysical(start + offset, size);
    }
}
