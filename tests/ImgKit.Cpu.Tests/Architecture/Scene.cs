using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

/// <summary>
/// A processor with tables as a small kernel has them: GDT at 0x1000, LDT at 0x1800, IDT at 0x2000, TSS at 0x3000 (a second one at 0x3100), stacks
/// of level 0 below 0x8000, of level 3 below 0x9000. The code that is "running" is at 0x4000.
/// </summary>
internal sealed unsafe class Scene : IDisposable
{
    public const ushort Code0 = 0x08, Data0 = 0x10, Code3 = 0x1B, Data3 = 0x23, Tss = 0x28, Conforming = 0x30, Absent = 0x38, ReadOnly = 0x40,
        ExecuteOnly = 0x48, Code16 = 0x50, Data16 = 0x58, Ldt = 0x60, Tss2 = 0x70, Gate = 0x80, Code64 = 0x90, Data1 = 0x99, Absent3 = 0xA3;

    public const ulong Gdt = 0x1000, LdtBase = 0x1800, Idt = 0x2000, TssBase = 0x3000, Tss2Base = 0x3100, Stack0 = 0x8000, Stack3 = 0x9000;

    public Scene(string model = "qemu64")
    {
        P = new FakeProcessor(model);
        var c = P.Context;
        c->Cr0 |= Cr0.Pe;
        c->GdtrBase = Gdt;
        c->GdtrLimit = 0xFF;
        c->IdtrBase = Idt;
        c->IdtrLimit = 0x7FF;
        Describe(Code0, 0, 0xFFFFF, 0x9B, 0xC);
        Describe(Data0, 0, 0xFFFFF, 0x93, 0xC);
        Describe(Code3, 0, 0xFFFFF, 0xFB, 0xC);
        Describe(Data3, 0, 0xFFFFF, 0xF3, 0xC);
        Describe(Tss, (uint)TssBase, 0x67, 0x89, 0);
        Describe(Conforming, 0, 0xFFFFF, 0x9E, 0xC);
        Describe(Absent, 0, 0xFFFFF, 0x13, 0xC);
        Describe(ReadOnly, 0, 0xFFFFF, 0x91, 0xC);
        Describe(ExecuteOnly, 0, 0xFFFFF, 0x98, 0xC);
        Describe(Code16, 0, 0xFFFF, 0x9B, 0);
        Describe(Data16, 0, 0xFFFF, 0x93, 0);
        Describe(Ldt, (uint)LdtBase, 0xFF, 0x82, 0);
        Describe(Tss2, (uint)Tss2Base, 0x67, 0x89, 0);
        Describe(Code64, 0, 0xFFFFF, 0x9B, 0xA);
        Describe(Data1, 0, 0xFFFFF, 0xB3, 0xC);
        Describe(Absent3, 0, 0xFFFFF, 0x73, 0xC);
        Segments.LoadTaskRegister(c, P, Tss);
        P.WritePhysical(TssBase + 4, Stack0, 4);
        P.WritePhysical(TssBase + 8, Data0, 4);
        P.WritePhysical(TssBase + 0x66, 0x68, 2);
        AtLevel(0);
        c->Rip = 0x4000;
    }

    public FakeProcessor P { get; }

    public CpuContext* C => P.Context;

    /// <summary>Writes a descriptor of the GDT.</summary>
    public void Describe(int selector, uint address, uint limit, uint access, uint flags) =>
        P.WritePhysical(Gdt + ((uint)selector & 0xF8), Encode(address, limit, access, flags), 8);

    public static ulong Encode(uint address, uint limit, uint access, uint flags) =>
        (limit & 0xFFFF) | ((ulong)(address & 0xFFFFFF) << 16) | ((ulong)access << 40) | ((ulong)(limit >> 16 & 15) << 48) | ((ulong)flags << 52)
        | ((ulong)(address >> 24) << 56);

    /// <summary>A gate: type and DPL in <paramref name="access"/>.</summary>
    public static ulong GateTo(ushort selector, uint offset, uint access, uint parameters = 0) =>
        (offset & 0xFFFF) | ((ulong)selector << 16) | ((ulong)parameters << 32) | ((ulong)access << 40) | ((ulong)(offset >> 16) << 48);

    public void SetGate(int vector, ushort selector, uint offset, uint access) => P.WritePhysical(Idt + ((uint)vector * 8), GateTo(selector, offset, access), 8);

    /// <summary>A 16-byte gate of a long-mode IDT.</summary>
    public void SetGate64(int vector, ushort selector, ulong offset, uint access, uint ist = 0)
    {
        P.WritePhysical(Idt + ((uint)vector * 16), GateTo(selector, (uint)offset, access, ist), 8);
        P.WritePhysical(Idt + ((uint)vector * 16) + 8, offset >> 32, 8);
    }

    /// <summary>Flat 32-bit segments of a privilege level.</summary>
    public void AtLevel(int cpl)
    {
        uint dpl = (uint)cpl << 5;
        C->Cs.Set(new SegmentRegister(cpl == 3 ? Code3 : Code0, 0, uint.MaxValue, 0xC09B | dpl));
        var data = new SegmentRegister(cpl == 3 ? Data3 : Data0, 0, uint.MaxValue, 0xC093 | dpl);
        C->Ss.Set(data);
        C->Ds.Set(data);
        C->Es.Set(data);
        C->Fs.Set(data);
        C->Gs.Set(data);
        C->Cpl = (byte)cpl;
        C->Gpr[4] = cpl == 3 ? Stack3 : Stack0;
    }

    /// <summary>64-bit mode with 4 MiB mapped one to one by two large pages, user-accessible.</summary>
    public void EnterLongMode(int cpl)
    {
        const ulong pml4 = 0x200000, pdpt = 0x201000, pd = 0x202000;
        P.WritePhysical(pml4, pdpt | 7, 8);
        P.WritePhysical(pdpt, pd | 7, 8);
        P.WritePhysical(pd, 0x87, 8);
        P.WritePhysical(pd + 8, 0x200087, 8);
        C->Cr3 = pml4;
        C->Cr4 |= Cr4.Pae;
        C->Efer |= Efer.Lme | Efer.Lma | Efer.Sce | Efer.Nxe;
        C->Cr0 |= Cr0.Pg;
        C->IdtrLimit = 0xFFF;
        AtLevel(cpl);
        C->Cs.Attributes = (C->Cs.Attributes & ~0x4000u) | 0x2000;
    }

    /// <summary>Puts 32-bit values on the stack, the first on top.</summary>
    public void OnStack(int size, params ulong[] values)
    {
        for (int i = values.Length - 1; i >= 0; i--)
        {
            C->Gpr[4] -= (uint)size;
            P.WritePhysical(C->Ss.Base + C->Gpr[4], values[i], size);
        }
    }

    public ulong StackAt(int index, int size) => P.ReadPhysical(C->Ss.Base + C->Gpr[4] + (uint)(index * size), size);

    /// <summary>Runs something and tells how it faulted: "13(10)" for #GP with error code 0x10, "" for not at all.</summary>
    public string Try(Action action)
    {
        try
        {
            action();
            return "";
        }
        catch (GuestFault fault)
        {
            return fault.ErrorCode is { } code ? $"{fault.Vector}({code:x})" : $"{fault.Vector}";
        }
    }

    public void Dispose() => P.Dispose();
}
