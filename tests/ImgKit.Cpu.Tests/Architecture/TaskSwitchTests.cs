using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class TaskSwitchTests
{
    /// <summary>A task that starts at 0x7000 with ESP 0x6000, flat segments and registers 0xA0..0xA7.</summary>
    private static void FillTask32(Scene scene, ushort cs = Scene.Code0, ushort ss = Scene.Data0, ushort ds = Scene.Data0, uint flags = 2)
    {
        ulong t = Scene.Tss2Base;
        scene.P.WritePhysical(t + 0x20, 0x7000, 4);
        scene.P.WritePhysical(t + 0x24, flags, 4);
        for (uint i = 0; i < 8; i++)
            scene.P.WritePhysical(t + 0x28 + (i * 4), i == 4 ? 0x6000 : 0xA0 + i, 4);
        ushort[] selectors = [ds, cs, ss, ds, ds, 0];
        for (uint i = 0; i < 6; i++)
            scene.P.WritePhysical(t + 0x48 + (i * 4), selectors[i], 4);
        scene.P.WritePhysical(t + 0x60, Scene.Ldt, 2);
    }

    private static ulong AccessOf(Scene scene, ushort selector) => scene.P.ReadPhysical(Scene.Gdt + selector + 5, 1);

    [Fact]
    public void A_jump_saves_the_old_task_and_moves_the_busy_bit()
    {
        using var scene = new Scene();
        FillTask32(scene);
        scene.C->Gpr[3] = 0xB00B;
        scene.C->Rflags = 0x46;
        FarTransfers.Jump(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007);
        Assert.Equal((0x4007UL, 0x46UL, 0xB00BUL), (scene.P.ReadPhysical(Scene.TssBase + 0x20, 4), scene.P.ReadPhysical(Scene.TssBase + 0x24, 4), scene.P.ReadPhysical(Scene.TssBase + 0x34, 4)));
        Assert.Equal(Scene.Data0, scene.P.ReadPhysical(Scene.TssBase + 0x54, 2));
        Assert.Equal((0x89UL, 0x8BUL), (AccessOf(scene, Scene.Tss), AccessOf(scene, Scene.Tss2)));
        Assert.Equal((0x7000UL, 0x6000UL, 0xA0UL, 0xA7UL, 2UL), (scene.C->Rip, scene.C->Gpr[4], scene.C->Gpr[0], scene.C->Gpr[7], scene.C->Rflags));
        Assert.Equal((Scene.Tss2, Scene.Ldt, Scene.LdtBase), (scene.C->Tr.Selector, scene.C->Ldtr.Selector, scene.C->Ldtr.Base));
        Assert.NotEqual(0UL, scene.C->Cr0 & Cr0.Ts);
    }

    [Fact]
    public void A_call_nests_and_iret_comes_back()
    {
        using var scene = new Scene();
        FillTask32(scene);
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Tss2, 0, 0x85), 8);
        scene.C->Gpr[6] = 0x51;
        FarTransfers.Call(scene.C, scene.P, Scene.Gate, 0, 4, 0x4007);
        Assert.Equal(2 | Flags.Nt, scene.C->Rflags);
        Assert.Equal(Scene.Tss, scene.P.ReadPhysical(Scene.Tss2Base, 2));
        Assert.Equal((0x8BUL, 0x8BUL), (AccessOf(scene, Scene.Tss), AccessOf(scene, Scene.Tss2)));
        scene.C->Rip = 0x7123;
        InterruptReturn.Execute(scene.C, scene.P, 4, 0x7124);
        Assert.Equal((0x4007UL, 0x51UL, 2UL, Scene.Tss), (scene.C->Rip, scene.C->Gpr[6], scene.C->Rflags, scene.C->Tr.Selector));
        Assert.Equal((0x8BUL, 0x89UL), (AccessOf(scene, Scene.Tss), AccessOf(scene, Scene.Tss2)));
        // The task that returned goes on behind its IRET next time, without NT.
        Assert.Equal(0x7124UL, scene.P.ReadPhysical(Scene.Tss2Base + 0x20, 4));
        Assert.Equal(2UL, scene.P.ReadPhysical(Scene.Tss2Base + 0x24, 4));
    }

    [Fact]
    public void An_interrupt_through_a_task_gate_pushes_its_code_on_the_new_stack()
    {
        using var scene = new Scene();
        FillTask32(scene, Scene.Code3, Scene.Data3, Scene.Data3);
        scene.P.WritePhysical(Scene.Idt + (13 * 8), Scene.GateTo(Scene.Tss2, 0, 0x85), 8);
        Exceptions.Deliver(scene.C, scene.P, 13, 0x1234);
        Assert.Equal((3, 0x7000UL, 0x5FFCUL), (scene.C->Cpl, scene.C->Rip, scene.C->Gpr[4]));
        Assert.Equal(0x1234UL, scene.StackAt(0, 4));
    }

    [Fact]
    public void A_16_bit_task_gets_and_gives_16_bits()
    {
        using var scene = new Scene();
        scene.Describe(Scene.Tss2, (uint)Scene.Tss2Base, 0x2B, 0x81, 0);
        ulong t = Scene.Tss2Base;
        scene.P.WritePhysical(t + 0xE, 0x7000, 2);
        scene.P.WritePhysical(t + 0x10, 0x46, 2);
        for (uint i = 0; i < 8; i++)
            scene.P.WritePhysical(t + 0x12 + (i * 2), 0x6000 + i, 2);
        ushort[] selectors = [Scene.Data16, Scene.Code16, Scene.Data16, Scene.Data16];
        for (uint i = 0; i < 4; i++)
            scene.P.WritePhysical(t + 0x22 + (i * 2), selectors[i], 2);
        FarTransfers.Call(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007);
        Assert.Equal((0x7000UL, 0x46 | Flags.Nt, 0x6004UL), (scene.C->Rip, scene.C->Rflags, scene.C->Gpr[4] & 0xFFFF));
        Assert.Equal((0, 0), (scene.C->Fs.Selector, scene.C->Ldtr.Selector));
        InterruptReturn.Execute(scene.C, scene.P, 2, 0x7124);
        Assert.Equal(0x4007UL, scene.C->Rip);
        Assert.Equal(0x6003UL, scene.P.ReadPhysical(t + 0x18, 2));
    }

    [Theory]
    // Found before the switch: the old task has the fault.
    [InlineData(0x8B, 0x67, "13(70)", false)]
    [InlineData(0x09, 0x67, "11(70)", false)]
    [InlineData(0x89, 0x66, "10(70)", false)]
    [InlineData(0x82, 0x67, "13(70)", false)]
    // The privilege of a TSS descriptor is that of who may switch to it.
    [InlineData(0x89, 0x67, "13(70)", true)]
    public void A_bad_tss_is_refused(int access, int limit, string fault, bool user)
    {
        using var scene = new Scene();
        FillTask32(scene);
        scene.Describe(Scene.Tss2, (uint)Scene.Tss2Base, (uint)limit, (uint)access, 0);
        scene.AtLevel(user ? 3 : 0);
        Assert.Equal(fault, scene.Try(() => FarTransfers.Jump(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007)));
        Assert.Equal((0x4000UL, Scene.Tss), (scene.C->Rip, scene.C->Tr.Selector));
        Assert.Equal(0UL, scene.P.ReadPhysical(Scene.TssBase + 0x20, 4));
    }

    [Theory]
    // Found after the switch: the new task has the fault, with its own CS:EIP.
    [InlineData(Scene.Code0, Scene.Data3, Scene.Data0, "10(20)")]
    [InlineData(Scene.Code0, 0, Scene.Data0, "10(0)")]
    [InlineData(Scene.Code0, Scene.Absent, Scene.Data0, "12(38)")]
    [InlineData(Scene.Data0, Scene.Data0, Scene.Data0, "10(10)")]
    [InlineData(0, Scene.Data0, Scene.Data0, "10(0)")]
    [InlineData(Scene.Code0, Scene.Data0, Scene.ExecuteOnly, "10(48)")]
    [InlineData(Scene.Code0, Scene.Data0, Scene.Absent, "11(38)")]
    [InlineData(Scene.Code3, Scene.Data3, Scene.Data0, "10(10)")]
    [InlineData(Scene.Code0, Scene.Data0, 0x200, "10(200)")]
    public void A_bad_segment_is_the_new_tasks_fault(int cs, int ss, int ds, string fault)
    {
        using var scene = new Scene();
        FillTask32(scene, (ushort)cs, (ushort)ss, (ushort)ds);
        Assert.Equal(fault, scene.Try(() => FarTransfers.Jump(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007)));
        Assert.Equal((0x7000UL, Scene.Tss2), (scene.C->Rip, scene.C->Tr.Selector));
        Assert.Equal(0x4007UL, scene.P.ReadPhysical(Scene.TssBase + 0x20, 4));
    }

    [Fact]
    public void A_task_can_be_a_virtual_8086_one()
    {
        using var scene = new Scene();
        FillTask32(scene, 0x1000, 0x900, 0x2000, (uint)(Flags.Vm | 2));
        FarTransfers.Jump(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007);
        Assert.Equal((3, 0x10000UL, 0x9000UL, 0x20000UL), (scene.C->Cpl, scene.C->Cs.Base, scene.C->Ss.Base, scene.C->Ds.Base));
    }

    [Fact]
    public void The_trap_bit_raises_a_debug_exception_in_the_new_task()
    {
        using var scene = new Scene();
        FillTask32(scene);
        scene.P.WritePhysical(Scene.Tss2Base + 0x64, 1, 2);
        Assert.Equal("1", scene.Try(() => FarTransfers.Jump(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007)));
        Assert.NotEqual(0UL, scene.C->Dr[6] & DebugRegisters.Dr6Task);
        Assert.Equal(0x7000UL, scene.C->Rip);
    }

    [Fact]
    public void A_task_brings_its_page_tables()
    {
        using var scene = new Scene();
        // Two directories that map the first 4 MiB alike, but for a flag that shows which is in use.
        scene.P.WritePhysical(0x100000, 0x87, 4);
        scene.P.WritePhysical(0x101000, 0x87, 4);
        scene.C->Cr3 = 0x100000;
        scene.C->Cr4 |= Cr4.Pse;
        scene.C->Cr0 |= Cr0.Pg;
        FillTask32(scene);
        scene.P.WritePhysical(Scene.Tss2Base + 0x1C, 0x101000, 4);
        FarTransfers.Jump(scene.C, scene.P, Scene.Tss2, 0, 4, 0x4007);
        Assert.Equal(0x101000UL, scene.C->Cr3);
        Assert.Contains("flush", scene.P.Notices);
    }

    [Fact]
    public void Iret_to_a_task_that_is_not_busy_is_an_invalid_tss()
    {
        using var scene = new Scene();
        FillTask32(scene);
        scene.C->Rflags |= Flags.Nt;
        scene.P.WritePhysical(Scene.TssBase, Scene.Tss2, 2);
        Assert.Equal("10(70)", scene.Try(() => InterruptReturn.Execute(scene.C, scene.P, 4, 0x7124)));
        scene.EnterLongMode(0);
        Assert.Equal("13(0)", scene.Try(() => InterruptReturn.Execute(scene.C, scene.P, 8, 0x7124)));
    }
}
