using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class FarTransfersTests
{
    [Theory]
    [InlineData(0, Scene.Code0, "")]
    [InlineData(0, 0x0B, "13(8)")]
    [InlineData(3, Scene.Code3, "")]
    [InlineData(3, Scene.Code0, "13(8)")]
    [InlineData(0, Scene.Code3, "13(18)")]
    [InlineData(3, Scene.Conforming, "")]
    [InlineData(0, Scene.Data0, "13(10)")]
    [InlineData(0, Scene.Absent, "13(38)")]
    [InlineData(0, 0, "13(0)")]
    [InlineData(0, 0x200, "13(200)")]
    [InlineData(0, Scene.Ldt, "13(60)")]
    public void Direct_jumps_stay_at_their_level(int cpl, int selector, string fault)
    {
        using var scene = new Scene();
        scene.AtLevel(cpl);
        Assert.Equal(fault, scene.Try(() => FarTransfers.Jump(scene.C, scene.P, (ushort)selector, 0x5000, 4, 0x4007)));
        Assert.Equal(fault.Length == 0 ? 0x5000UL : 0x4000UL, scene.C->Rip);
        Assert.Equal(cpl, scene.C->Cpl);
        if (fault.Length == 0)
            Assert.Equal(cpl, scene.C->Cs.Selector & 3);
    }

    [Fact]
    public void An_offset_beyond_the_segment_is_refused_and_a_16_bit_operand_truncates_it()
    {
        using var scene = new Scene();
        Assert.Equal("13(0)", scene.Try(() => FarTransfers.Jump(scene.C, scene.P, Scene.Code16, 0x10000, 4, 0)));
        FarTransfers.Jump(scene.C, scene.P, Scene.Code16, 0x12345, 2, 0);
        Assert.Equal(0x2345UL, scene.C->Rip);
        Assert.Equal(0u, scene.C->Cs.Attributes & SegmentAttributes.Big);
    }

    [Fact]
    public void A_call_pushes_the_return_address_and_a_return_finds_it()
    {
        using var scene = new Scene();
        FarTransfers.Call(scene.C, scene.P, Scene.Code0, 0x5000, 4, 0x4007);
        Assert.Equal(Scene.Stack0 - 8, scene.C->Gpr[4]);
        Assert.Equal(0x4007UL, scene.StackAt(0, 4));
        Assert.Equal(Scene.Code0, scene.StackAt(1, 4));
        FarTransfers.Return(scene.C, scene.P, 4, 4);
        Assert.Equal(0x4007UL, scene.C->Rip);
        Assert.Equal(Scene.Stack0 + 4, scene.C->Gpr[4]);
    }

    [Fact]
    public void A_call_gate_changes_stacks_and_copies_parameters()
    {
        using var scene = new Scene();
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Code0, 0x6000, 0xEC, 2), 8);
        scene.AtLevel(3);
        scene.OnStack(4, 0x11, 0x22);
        ulong old = scene.C->Gpr[4];
        FarTransfers.Call(scene.C, scene.P, Scene.Gate | 3, 0xDEAD, 4, 0x4007);
        Assert.Equal(0, scene.C->Cpl);
        Assert.Equal(0x6000UL, scene.C->Rip);
        Assert.Equal(Scene.Data0, scene.C->Ss.Selector);
        Assert.Equal(Scene.Stack0 - 24, scene.C->Gpr[4]);
        Assert.Equal([0x4007, Scene.Code3, 0x11, 0x22, old, Scene.Data3], Enumerable.Range(0, 6).Select(i => scene.StackAt(i, 4)));
        FarTransfers.Return(scene.C, scene.P, 4, 8);
        Assert.Equal(3, scene.C->Cpl);
        Assert.Equal(0x4007UL, scene.C->Rip);
        Assert.Equal(Scene.Stack3, scene.C->Gpr[4]);
        Assert.Equal(Scene.Data3, scene.C->Ss.Selector);
    }

    [Theory]
    [InlineData(0x8C, Scene.Code0, "13(80)")]
    [InlineData(0x6C, Scene.Code0, "11(80)")]
    [InlineData(0xEC, Scene.Data0, "13(10)")]
    [InlineData(0xEC, 0, "13(0)")]
    [InlineData(0xEC, 0x200, "13(200)")]
    public void A_call_gate_checks_itself_and_its_target(int access, int target, string fault)
    {
        using var scene = new Scene();
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo((ushort)target, 0x6000, (uint)access), 8);
        scene.AtLevel(3);
        Assert.Equal(fault, scene.Try(() => FarTransfers.Call(scene.C, scene.P, Scene.Gate | 3, 0, 4, 0x4007)));
        Assert.Equal(Scene.Stack3, scene.C->Gpr[4]);
        Assert.Equal(3, scene.C->Cpl);
    }

    [Theory]
    // SS0 of the TSS: null, a user's, absent, not writable; and a TSS that ends before it.
    [InlineData(0, 0x67, "10(0)")]
    [InlineData(Scene.Data3, 0x67, "10(20)")]
    [InlineData(Scene.Absent, 0x67, "12(38)")]
    [InlineData(Scene.ReadOnly, 0x67, "10(40)")]
    [InlineData(Scene.Data0, 8, "10(28)")]
    public void The_inner_stack_is_checked(int ss0, int limit, string fault)
    {
        using var scene = new Scene();
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Code0, 0x6000, 0xEC), 8);
        scene.P.WritePhysical(Scene.TssBase + 8, (ulong)ss0, 2);
        scene.C->Tr.Limit = (uint)limit;
        scene.AtLevel(3);
        Assert.Equal(fault, scene.Try(() => FarTransfers.Call(scene.C, scene.P, Scene.Gate | 3, 0, 4, 0x4007)));
        Assert.Equal(3, scene.C->Cpl);
    }

    [Fact]
    public void A_jump_through_a_gate_does_not_change_level()
    {
        using var scene = new Scene();
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Code0, 0x6000, 0xEC), 8);
        FarTransfers.Jump(scene.C, scene.P, Scene.Gate, 0, 4, 0x4007);
        Assert.Equal(0x6000UL, scene.C->Rip);
        scene.AtLevel(3);
        Assert.Equal("13(8)", scene.Try(() => FarTransfers.Jump(scene.C, scene.P, Scene.Gate | 3, 0, 4, 0x4007)));
    }

    [Theory]
    [InlineData(0, Scene.Code0, Scene.Data0, "")]
    [InlineData(3, Scene.Code0, Scene.Data0, "13(8)")]
    [InlineData(0, Scene.Code3, Scene.Data3, "")]
    [InlineData(0, Scene.Code3, 0x20, "13(20)")]
    [InlineData(0, Scene.Code3, Scene.Absent3, "12(a0)")]
    [InlineData(0, Scene.Code3, 0, "13(0)")]
    [InlineData(0, Scene.Data0, Scene.Data0, "13(10)")]
    [InlineData(0, 0, Scene.Data0, "13(0)")]
    [InlineData(0, 0x0B, Scene.Data3, "13(8)")]
    public void A_return_never_goes_inwards(int cpl, int cs, int ss, string fault)
    {
        using var scene = new Scene();
        scene.AtLevel(cpl);
        scene.OnStack(4, 0x5000, (ulong)cs, 0x7777, (ulong)ss);
        ulong rsp = scene.C->Gpr[4];
        Assert.Equal(fault, scene.Try(() => FarTransfers.Return(scene.C, scene.P, 4, 0)));
        if (fault.Length != 0)
            Assert.Equal(rsp, scene.C->Gpr[4]);
        else
            Assert.Equal((cs & 3) > cpl ? 0x7777UL : rsp + 8, scene.C->Gpr[4]);
    }

    [Fact]
    public void A_return_outwards_takes_inner_data_segments_away()
    {
        using var scene = new Scene();
        Segments.Load(scene.C, scene.P, Segments.Es, Scene.Data3);
        Segments.Load(scene.C, scene.P, Segments.Fs, Scene.Conforming);
        Segments.Load(scene.C, scene.P, Segments.Ds, 3);
        scene.C->Gs.Base = 0x400000;
        scene.OnStack(4, 0x5000, Scene.Code3, 0x7777, Scene.Data3);
        FarTransfers.Return(scene.C, scene.P, 4, 0);
        Assert.Equal(0, scene.C->Ds.Selector);
        Assert.NotEqual(0u, scene.C->Ds.Attributes & SegmentAttributes.Unusable);
        Assert.Equal((0, 0x400000UL), (scene.C->Gs.Selector, scene.C->Gs.Base));
        Assert.Equal(Scene.Data3, scene.C->Es.Selector);
        Assert.Equal(Scene.Conforming, scene.C->Fs.Selector);
    }

    [Fact]
    public void Real_mode_transfers_are_paragraphs_with_limits()
    {
        using var p = new FakeProcessor();
        var c = p.Context;
        c->Ss.Base = 0;
        c->Gpr[4] = 0x8000;
        FarTransfers.Call(c, p, 0x100, 0x20, 2, 0xFFF5);
        Assert.Equal((0x1000UL, 0x20UL), (c->Cs.Base, c->Rip));
        Assert.Equal(0xFFF5UL, p.ReadPhysical(0x7FFC, 2));
        Assert.Equal(0xF000UL, p.ReadPhysical(0x7FFE, 2));
        FarTransfers.Return(c, p, 2, 0);
        Assert.Equal((0xF0000UL, 0xFFF5UL, 0x8000UL), (c->Cs.Base, c->Rip, c->Gpr[4]));
        Assert.Throws<GuestFault>(() => FarTransfers.Jump(p.Context, p, 0, 0x10000, 4, 0));
    }

    [Fact]
    public void A_stack_with_16_bits_wraps_and_keeps_the_upper_half()
    {
        using var p = new FakeProcessor();
        var c = p.Context;
        c->Gpr[4] = 0xABCD0002;
        FarTransfers.Call(c, p, 0, 0x20, 2, 0x1234);
        Assert.Equal(0xABCDFFFEUL, c->Gpr[4]);
        Assert.Equal(0x1234UL, p.ReadPhysical(0xFFFE, 2));
    }

    [Fact]
    public void Long_mode_call_gates_switch_to_rsp0_with_a_null_ss()
    {
        using var scene = new Scene();
        scene.EnterLongMode(3);
        scene.P.WritePhysical(Scene.TssBase + 4, Scene.Stack0, 8);
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Code64, 0x6000, 0xEC), 8);
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate + 8, 0, 8);
        FarTransfers.Call(scene.C, scene.P, Scene.Gate | 3, 0, 4, 0x4007);
        Assert.Equal((0, 0x6000UL, Scene.Stack0 - 32), (scene.C->Cpl, scene.C->Rip, scene.C->Gpr[4]));
        Assert.Equal(0, scene.C->Ss.Selector);
        Assert.Equal([0x4007, Scene.Code3, Scene.Stack3, Scene.Data3], Enumerable.Range(0, 4).Select(i => scene.StackAt(i, 8)));
        scene.Describe(Scene.Code3, 0, 0xFFFFF, 0xFB, 0xA);
        FarTransfers.Return(scene.C, scene.P, 8, 0);
        Assert.Equal((3, 0x4007UL, Scene.Stack3), (scene.C->Cpl, scene.C->Rip, scene.C->Gpr[4]));
    }

    [Fact]
    public void Code_with_both_l_and_d_is_refused_in_long_mode()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        scene.Describe(Scene.Code64, 0, 0xFFFFF, 0x9B, 0xE);
        Assert.Equal("13(90)", scene.Try(() => FarTransfers.Jump(scene.C, scene.P, Scene.Code64, 0x5000, 4, 0)));
    }
}
