using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class ExceptionsTests
{
    private const uint InterruptGate = 0x8E, TrapGate = 0x8F, UserInterruptGate = 0xEE;

    [Theory]
    [InlineData(InterruptGate, false)]
    [InlineData(TrapGate, true)]
    public void A_fault_at_the_same_level_pushes_flags_with_rf_address_and_code(uint gate, bool keepsIf)
    {
        using var scene = new Scene();
        scene.SetGate(13, Scene.Code0, 0x6000, gate);
        scene.C->Rflags = 2 | Flags.If | Flags.Tf | Flags.Nt | Flags.Ac;
        Exceptions.Deliver(scene.C, scene.P, 13, 0x50);
        Assert.Equal(0x6000UL, scene.C->Rip);
        Assert.Equal([0x50, 0x4000, Scene.Code0, 2 | Flags.If | Flags.Tf | Flags.Nt | Flags.Ac | Flags.Rf], Enumerable.Range(0, 4).Select(i => scene.StackAt(i, 4)));
        Assert.Equal(2 | Flags.Ac | (keepsIf ? Flags.If : 0), scene.C->Rflags);
        Assert.Equal(Scene.Stack0 - 16, scene.C->Gpr[4]);
    }

    [Fact]
    public void From_user_code_the_stack_of_the_tss_is_used()
    {
        using var scene = new Scene();
        scene.SetGate(14, Scene.Code0, 0x6000, InterruptGate);
        scene.AtLevel(3);
        Exceptions.Deliver(scene.C, scene.P, 14, 4);
        Assert.Equal(0, scene.C->Cpl);
        Assert.Equal(Scene.Data0, scene.C->Ss.Selector);
        Assert.Equal([4, 0x4000, Scene.Code3, 2 | Flags.Rf, Scene.Stack3, Scene.Data3], Enumerable.Range(0, 6).Select(i => scene.StackAt(i, 4)));
        scene.C->Gpr[4] += 4;
        InterruptReturn.Execute(scene.C, scene.P, 4, 0x7124);
        Assert.Equal((3, 0x4000UL, Scene.Stack3), (scene.C->Cpl, scene.C->Rip, scene.C->Gpr[4]));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(4)]
    public void Traps_push_flags_as_they_are(int vector)
    {
        using var scene = new Scene();
        scene.SetGate(vector, Scene.Code0, 0x6000, InterruptGate);
        Exceptions.Deliver(scene.C, scene.P, (byte)vector, null);
        Assert.Equal(2UL, scene.StackAt(2, 4));
    }

    [Theory]
    // Gate DPL counts for instructions only; bit 0 (EXT) of the code tells the two apart.
    [InlineData(0x8E, Scene.Code0, 3, "13(202)")]
    [InlineData(0xEE, Scene.Code0, 3, "")]
    [InlineData(0x6E, Scene.Code0, 3, "11(202)")]
    [InlineData(0xE9, Scene.Code0, 3, "13(202)")]
    [InlineData(0xEE, 0, 3, "13(0)")]
    [InlineData(0xEE, Scene.Data0, 3, "13(10)")]
    [InlineData(0xEE, 0x200, 3, "13(200)")]
    [InlineData(0xEE, Scene.Code3, 0, "13(18)")]
    public void Software_interrupts_check_the_gate(int access, int selector, int cpl, string fault)
    {
        using var scene = new Scene();
        scene.SetGate(0x40, (ushort)selector, 0x6000, (uint)access);
        scene.AtLevel(cpl);
        Assert.Equal(fault, scene.Try(() => Exceptions.SoftwareInterrupt(scene.C, scene.P, 0x40, 0x4002, SoftwareInterruptKind.IntN)));
        Assert.Equal(fault.Length == 0 ? 0x6000UL : 0x4000UL, scene.C->Rip);
        if (fault.Length == 0)
            Assert.Equal(0x4002UL, scene.StackAt(0, 4));
    }

    [Fact]
    public void A_vector_beyond_the_table_is_a_general_protection_fault()
    {
        using var scene = new Scene();
        scene.C->IdtrLimit = 0x1FF;
        Assert.Equal("13(202)", scene.Try(() => Exceptions.SoftwareInterrupt(scene.C, scene.P, 0x40, 0x4002, SoftwareInterruptKind.IntN)));
    }

    [Theory]
    // First vector, what its gate leads to, what is delivered in the end with which code (Intel SDM 3A table 6-5).
    [InlineData(6, "absent gate", 11, 0x33)]
    [InlineData(13, "absent gate", 8, 0)]
    [InlineData(0, "absent gate", 8, 0)]
    [InlineData(14, "absent gate", 8, 0)]
    [InlineData(1, "absent gate", 11, 0x0B)]
    [InlineData(17, "bad selector", 13, 0x201)]
    [InlineData(10, "bad selector", 8, 0)]
    [InlineData(7, "null selector", 13, 1)]
    public void A_second_exception_combines_with_the_first(int vector, string broken, int delivered, uint code)
    {
        using var scene = new Scene();
        foreach (int good in new[] { 8, 11, 13, 14 })
            scene.SetGate(good, Scene.Code0, 0x6000 + ((uint)good * 16), InterruptGate);
        ushort selector = broken == "bad selector" ? (ushort)0x200 : broken == "null selector" ? (ushort)0 : Scene.Code0;
        scene.SetGate(vector, selector, 0x7000, broken == "absent gate" ? 0x0Eu : InterruptGate);
        Exceptions.Deliver(scene.C, scene.P, (byte)vector, vector is 10 or 13 or 14 or 17 ? 0u : null);
        Assert.Equal(0x6000UL + ((uint)delivered * 16), scene.C->Rip);
        Assert.Equal(code, scene.StackAt(0, 4));
        Assert.Equal(0x4000UL, scene.StackAt(1, 4));
        Assert.Equal(0, scene.C->Shutdown);
    }

    [Fact]
    public void A_fault_while_delivering_a_double_fault_shuts_down_with_state_kept()
    {
        using var scene = new Scene();
        scene.C->IdtrLimit = 0;
        ulong rsp = scene.C->Gpr[4];
        Exceptions.Deliver(scene.C, scene.P, 13, 0);
        Assert.Equal(1, scene.C->Shutdown);
        Assert.Equal((0x4000UL, rsp), (scene.C->Rip, scene.C->Gpr[4]));
    }

    [Fact]
    public void A_bad_stack_while_delivering_a_page_fault_is_a_double_fault_on_its_task()
    {
        using var scene = new Scene();
        scene.SetGate(14, Scene.Code0, 0x6000, InterruptGate);
        scene.P.WritePhysical(Scene.Idt + 64, Scene.GateTo(Scene.Tss2, 0, 0x85), 8);
        FillTask(scene);
        scene.C->Ss.Limit = 0xFFF;
        Exceptions.Deliver(scene.C, scene.P, 14, 0);
        Assert.Equal(0x7000UL, scene.C->Rip);
        Assert.Equal(Scene.Tss2, scene.C->Tr.Selector);
        Assert.Equal(0UL, scene.StackAt(0, 4));
        Assert.Equal(0x5FFCUL, scene.C->Gpr[4]);
        Assert.Equal(0x4000UL, scene.P.ReadPhysical(Scene.TssBase + 0x20, 4));
    }

    private static void FillTask(Scene scene)
    {
        ulong t = Scene.Tss2Base;
        scene.P.WritePhysical(t + 0x20, 0x7000, 4);
        scene.P.WritePhysical(t + 0x24, 2, 4);
        scene.P.WritePhysical(t + 0x38, 0x6000, 4);
        foreach (uint offset in new uint[] { 0x48, 0x50, 0x54, 0x58, 0x5C })
            scene.P.WritePhysical(t + offset, Scene.Data0, 2);
        scene.P.WritePhysical(t + 0x4C, Scene.Code0, 2);
    }

    [Fact]
    public void External_interrupts_have_ext_in_the_code_of_what_goes_wrong_and_end_halt()
    {
        using var scene = new Scene();
        scene.SetGate(13, Scene.Code0, 0x6000, InterruptGate);
        scene.SetGate(0x20, Scene.Data0, 0x7000, InterruptGate);
        scene.C->Halted = 1;
        Exceptions.DeliverInterrupt(scene.C, scene.P, 0x20);
        Assert.Equal(0x11UL, scene.StackAt(0, 4));
        Assert.Equal(0, scene.C->Halted);
        Assert.Equal(0x6000UL, scene.C->Rip);
    }

    [Fact]
    public void An_nmi_blocks_others_until_iret()
    {
        using var scene = new Scene();
        scene.SetGate(2, Scene.Code0, 0x6000, InterruptGate);
        scene.C->NmiPending = 1;
        Exceptions.DeliverNmi(scene.C, scene.P);
        Assert.Equal((0, 1), (scene.C->NmiPending, scene.C->NmiBlocked));
        InterruptReturn.Execute(scene.C, scene.P, 4, 0x7124);
        Assert.Equal(0, scene.C->NmiBlocked);
        Assert.Equal(0x4000UL, scene.C->Rip);
    }

    [Fact]
    public void Real_mode_pushes_three_words_and_never_a_code()
    {
        using var p = new FakeProcessor();
        var c = p.Context;
        c->Gpr[4] = 0x8000;
        c->Rflags |= Flags.If;
        p.WritePhysical(13 * 4, 0xF0001234, 4);
        Exceptions.Deliver(c, p, 13, 0);
        Assert.Equal((0x1234UL, 0xF0000UL, 0x7FFAUL), (c->Rip, c->Cs.Base, c->Gpr[4]));
        Assert.Equal([0xFFF0UL, 0xF000, 2 | Flags.If], new[] { p.ReadPhysical(0x7FFA, 2), p.ReadPhysical(0x7FFC, 2), p.ReadPhysical(0x7FFE, 2) });
        Assert.Equal(2UL, c->Rflags);
        InterruptReturn.Execute(c, p, 2, 0x7124);
        Assert.Equal((0xFFF0UL, 0x8000UL, 2 | Flags.If), (c->Rip, c->Gpr[4], c->Rflags));
    }

    [Fact]
    public void Real_mode_interrupts_beyond_the_table_are_double_faults_in_the_end_shutdown()
    {
        using var p = new FakeProcessor();
        p.Context->IdtrLimit = 3;
        Exceptions.Deliver(p.Context, p, 13, 0);
        Assert.Equal(1, p.Context->Shutdown);
    }

    private static void EnterVirtual8086(Scene scene, int iopl)
    {
        scene.OnStack(4, 0x100, 0x1000, Flags.Vm | ((ulong)iopl << 12) | 2, 0x2000, 0x900, 0x11, 0x22, 0x33, 0x44);
        InterruptReturn.Execute(scene.C, scene.P, 4, 0x7124);
    }

    [Fact]
    public void Iret_enters_virtual_8086_mode_and_an_exception_leaves_it()
    {
        using var scene = new Scene();
        scene.SetGate(13, Scene.Code0, 0x6000, InterruptGate);
        EnterVirtual8086(scene, 3);
        Assert.Equal((3, 0x100UL, 0x10000UL, 0x2000UL), (scene.C->Cpl, scene.C->Rip, scene.C->Cs.Base, scene.C->Gpr[4]));
        Assert.Equal((0x9000UL, 0x110UL, 0x220UL, 0x330UL, 0x440UL), (scene.C->Ss.Base, scene.C->Es.Base, scene.C->Ds.Base, scene.C->Fs.Base, scene.C->Gs.Base));
        Exceptions.Deliver(scene.C, scene.P, 13, 0);
        Assert.Equal(0, scene.C->Cpl);
        Assert.Equal(
            [0, 0x100, 0x1000, Flags.Vm | Flags.Rf | 0x3002, 0x2000, 0x900, 0x11, 0x22, 0x33, 0x44],
            Enumerable.Range(0, 10).Select(i => scene.StackAt(i, 4)));
        Assert.Equal((0, 0, 0, 0), (scene.C->Es.Selector, scene.C->Ds.Selector, scene.C->Fs.Selector, scene.C->Gs.Selector));
        Assert.Equal(0UL, scene.C->Rflags & Flags.Vm);
        scene.C->Gpr[4] += 4;
        InterruptReturn.Execute(scene.C, scene.P, 4, 0x7124);
        Assert.Equal((3, 0x100UL, 0x440UL), (scene.C->Cpl, scene.C->Rip, scene.C->Gs.Base));
    }

    [Theory]
    [InlineData(3, false, "", 0x6000UL)]
    [InlineData(0, false, "13(0)", 0x100UL)]
    [InlineData(0, true, "", 0x1234UL)]
    [InlineData(3, true, "", 0x1234UL)]
    public void Int_n_in_virtual_8086_mode_follows_iopl_and_vme(int iopl, bool vme, string fault, ulong rip)
    {
        using var scene = new Scene("core2duo");
        scene.SetGate(0x21, Scene.Code0, 0x6000, UserInterruptGate);
        scene.P.WritePhysical(0x21 * 4, 0x20001234, 4);
        // The redirection map is the 32 bytes before the I/O map; all clear: the program's own handlers.
        scene.P.WritePhysical(Scene.TssBase + 0x66, 0x88, 2);
        scene.C->Tr.Limit = 0x100;
        EnterVirtual8086(scene, iopl);
        scene.C->Rflags |= Flags.Vif | Flags.If;
        if (vme)
            scene.C->Cr4 |= Cr4.Vme;
        Assert.Equal(fault, scene.Try(() => Exceptions.SoftwareInterrupt(scene.C, scene.P, 0x21, 0x102, SoftwareInterruptKind.IntN)));
        Assert.Equal(rip, scene.C->Rip);
        if (vme)
        {
            Assert.Equal(0x20000UL, scene.C->Cs.Base);
            Assert.Equal(0x3202UL, scene.StackAt(2, 2));
            // Untrusted: only its virtual flag is cleared.
            Assert.Equal(iopl == 3 ? Flags.Vif : Flags.If, scene.C->Rflags & (Flags.If | Flags.Vif));
        }
    }

    [Fact]
    public void The_redirection_map_sends_a_vector_to_the_monitor()
    {
        using var scene = new Scene("core2duo");
        scene.SetGate(0x21, Scene.Code0, 0x6000, UserInterruptGate);
        scene.P.WritePhysical(Scene.TssBase + 0x66, 0x88, 2);
        scene.P.WritePhysical(Scene.TssBase + 0x68 + 4, 1 << 1, 1);
        scene.C->Tr.Limit = 0x100;
        EnterVirtual8086(scene, 3);
        scene.C->Cr4 |= Cr4.Vme;
        Exceptions.SoftwareInterrupt(scene.C, scene.P, 0x21, 0x102, SoftwareInterruptKind.IntN);
        Assert.Equal(0x6000UL, scene.C->Rip);
    }

    [Fact]
    public void Long_mode_aligns_the_stack_and_always_pushes_it()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        scene.SetGate64(13, Scene.Code64, 0x12_3400, InterruptGate);
        scene.C->Gpr[4] = Scene.Stack0 - 4;
        Exceptions.Deliver(scene.C, scene.P, 13, 0x77);
        Assert.Equal(0x12_3400UL, scene.C->Rip);
        Assert.Equal(Scene.Stack0 - 16 - 48, scene.C->Gpr[4]);
        Assert.Equal([0x77, 0x4000, Scene.Code0, 2 | Flags.Rf, Scene.Stack0 - 4, Scene.Data0], Enumerable.Range(0, 6).Select(i => scene.StackAt(i, 8)));
        Assert.Equal(Scene.Data0, scene.C->Ss.Selector);
    }

    [Fact]
    public void Long_mode_interrupt_stacks_and_rsp0()
    {
        using var scene = new Scene();
        scene.EnterLongMode(3);
        scene.P.WritePhysical(Scene.TssBase + 4, 0xA000, 8);
        scene.P.WritePhysical(Scene.TssBase + 36 + 8, 0xB000, 8);
        scene.SetGate64(14, Scene.Code64, 0x6000, InterruptGate);
        scene.SetGate64(2, Scene.Code64, 0x7000, InterruptGate, 2);
        Exceptions.Deliver(scene.C, scene.P, 14, 0);
        Assert.Equal((0, 0xA000UL - 48, 0), (scene.C->Cpl, scene.C->Gpr[4], scene.C->Ss.Selector));
        Exceptions.DeliverNmi(scene.C, scene.P);
        Assert.Equal(0xB000UL - 40, scene.C->Gpr[4]);
        scene.Describe(Scene.Code3, 0, 0xFFFFF, 0xFB, 0xA);
        InterruptReturn.Execute(scene.C, scene.P, 8, 0x7124);
        Assert.Equal((0, 0xA000UL - 48, 0x6000UL), (scene.C->Cpl, scene.C->Gpr[4], scene.C->Rip));
        scene.C->Gpr[4] += 8;
        InterruptReturn.Execute(scene.C, scene.P, 8, 0x7124);
        Assert.Equal((3, Scene.Stack3, 0x4000UL, Scene.Data3), (scene.C->Cpl, scene.C->Gpr[4], scene.C->Rip, scene.C->Ss.Selector));
    }

    [Fact]
    public void Long_mode_handlers_must_be_64_bit_code()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        scene.SetGate64(0x40, Scene.Code0, 0x6000, InterruptGate);
        Assert.Equal("13(8)", scene.Try(() => Exceptions.SoftwareInterrupt(scene.C, scene.P, 0x40, 0x4002, SoftwareInterruptKind.IntN)));
        scene.C->Gpr[4] = 1UL << 50;
        scene.SetGate64(0x40, Scene.Code64, 0x6000, InterruptGate);
        Assert.Equal("12(0)", scene.Try(() => Exceptions.SoftwareInterrupt(scene.C, scene.P, 0x40, 0x4002, SoftwareInterruptKind.IntN)));
    }

    [Fact]
    public void A_page_fault_on_the_new_stack_becomes_the_second_exception_and_sets_cr2()
    {
        using var scene = new Scene();
        scene.EnterLongMode(3);
        scene.SetGate64(14, Scene.Code64, 0x6000, InterruptGate, 1);
        scene.SetGate64(6, Scene.Code64, 0x7000, InterruptGate);
        scene.P.WritePhysical(Scene.TssBase + 4, 0x8000_0000, 8);
        scene.P.WritePhysical(Scene.TssBase + 36, 0xB000, 8);
        Exceptions.Deliver(scene.C, scene.P, 6, null);
        Assert.Equal(0x6000UL, scene.C->Rip);
        Assert.Equal(0x7FFF_FFF8UL, scene.C->Cr2);
        Assert.Equal([2, 0x4000], Enumerable.Range(0, 2).Select(i => scene.StackAt(i, 8)));
    }

    [Fact]
    public void A_debug_exception_clears_general_detect()
    {
        using var scene = new Scene();
        scene.SetGate(1, Scene.Code0, 0x6000, InterruptGate);
        scene.C->Dr[7] |= 1 << 13;
        scene.C->Dr[6] = 0xFFFF4FF6;
        Assert.Equal("1", scene.Try(() => DebugRegisters.ReadDr(scene.C, scene.P, 0)));
        Assert.Equal(0xFFFF6FF0UL, scene.C->Dr[6]);
        Exceptions.Deliver(scene.C, scene.P, 1, null);
        Assert.Equal(0x400UL, scene.C->Dr[7]);
    }
}
