using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class FlagOpsTests
{
    private const ulong Every = 0x3F7FD5;

    public enum In
    {
        Real,
        Level0,
        Level3,
        Virtual8086,
    }

    private static Scene Enter(In mode, int iopl, ulong cr4 = 0)
    {
        var scene = new Scene("core2duo");
        if (mode == In.Level3)
            scene.AtLevel(3);
        if (mode == In.Real)
            scene.C->Cr0 &= ~Cr0.Pe;
        scene.C->Rflags = 2 | ((ulong)iopl << 12);
        if (mode == In.Virtual8086)
        {
            scene.AtLevel(3);
            scene.C->Rflags |= Flags.Vm;
        }
        scene.C->Cr4 |= cr4;
        return scene;
    }

    [Theory]
    // What POPF of all ones sets, and of what operand size.
    [InlineData(In.Real, 0, 0, 4, 0x247FD7, "")]
    [InlineData(In.Level0, 0, 0, 4, 0x247FD7, "")]
    [InlineData(In.Level0, 0, 0, 2, 0x7FD7, "")]
    [InlineData(In.Level3, 0, 0, 4, 0x244DD7, "")]
    [InlineData(In.Level3, 3, 0, 4, 0x247FD7, "")]
    [InlineData(In.Virtual8086, 3, 0, 4, 0x267FD7, "")]
    [InlineData(In.Virtual8086, 3, 0, 2, 0x27FD7, "")]
    [InlineData(In.Virtual8086, 0, 0, 2, 0, "13(0)")]
    [InlineData(In.Virtual8086, 0, (int)Cr4.Vme, 4, 0, "13(0)")]
    // TF may not be set by a virtual-8086 program with VME.
    [InlineData(In.Virtual8086, 0, (int)Cr4.Vme, 2, 0, "13(0)")]
    public void Popf(In mode, int iopl, int cr4, int size, int flags, string fault)
    {
        using var scene = Enter(mode, iopl, (ulong)cr4);
        Assert.Equal(fault, scene.Try(() => FlagOps.Popf(scene.C, scene.P, Every, size)));
        if (fault.Length == 0)
            Assert.Equal((ulong)flags, scene.C->Rflags);
    }

    [Fact]
    public void Popf_with_vme_moves_if_to_vif()
    {
        using var scene = Enter(In.Virtual8086, 0, Cr4.Vme);
        FlagOps.Popf(scene.C, scene.P, Flags.If | Flags.Cf, 2);
        Assert.Equal(2 | Flags.Vm | Flags.Vif | Flags.Cf, scene.C->Rflags);
        Assert.Equal(2 | Flags.If | Flags.Iopl | Flags.Cf, FlagOps.PushfValue(scene.C, 2));
        scene.C->Rflags |= Flags.Vip;
        Assert.Equal("13(0)", scene.Try(() => FlagOps.Popf(scene.C, scene.P, Flags.If, 2)));
    }

    [Fact]
    public void Pushf_hides_rf_and_vm_and_needs_iopl_3_in_virtual_8086_mode()
    {
        using var scene = Enter(In.Virtual8086, 3);
        scene.C->Rflags |= Flags.Rf;
        Assert.Equal(2 | Flags.Iopl, FlagOps.PushfValue(scene.C, 4));
        scene.C->Rflags &= ~Flags.Iopl;
        Assert.Equal("13(0)", scene.Try(() => FlagOps.PushfValue(scene.C, 4)));
        Assert.Equal("13(0)", scene.Try(() => FlagOps.PushfValue(scene.C, 2)));
    }

    [Theory]
    [InlineData(In.Real, 0, 0, (int)Flags.If)]
    [InlineData(In.Level0, 0, 0, (int)Flags.If)]
    [InlineData(In.Level3, 0, 0, -1)]
    [InlineData(In.Level3, 3, 0, (int)Flags.If)]
    [InlineData(In.Level3, 0, (int)Cr4.Pvi, (int)Flags.Vif)]
    [InlineData(In.Virtual8086, 3, (int)Cr4.Vme, (int)Flags.If)]
    [InlineData(In.Virtual8086, 0, (int)Cr4.Vme, (int)Flags.Vif)]
    [InlineData(In.Virtual8086, 0, 0, -1)]
    public void Cli_and_sti_work_on_the_flag_the_program_may_change(In mode, int iopl, int cr4, int flag)
    {
        using var scene = Enter(mode, iopl, (ulong)cr4);
        string fault = scene.Try(() => FlagOps.Sti(scene.C, scene.P));
        Assert.Equal(flag < 0 ? "13(0)" : "", fault);
        if (flag < 0)
        {
            Assert.Equal("13(0)", scene.Try(() => FlagOps.Cli(scene.C, scene.P)));
            return;
        }
        Assert.Equal((ulong)flag, scene.C->Rflags & (Flags.If | Flags.Vif));
        Assert.Equal(flag == (int)Flags.If ? 1 : 0, scene.C->InterruptShadow);
        FlagOps.Cli(scene.C, scene.P);
        Assert.Equal(0UL, scene.C->Rflags & (Flags.If | Flags.Vif));
    }

    [Fact]
    public void Sti_casts_a_shadow_only_when_interrupts_were_off_and_faults_on_a_pending_virtual_one()
    {
        using var scene = Enter(In.Level0, 0);
        FlagOps.Sti(scene.C, scene.P);
        scene.C->InterruptShadow = 0;
        FlagOps.Sti(scene.C, scene.P);
        Assert.Equal(0, scene.C->InterruptShadow);
        using var other = Enter(In.Level3, 0, Cr4.Pvi);
        other.C->Rflags |= Flags.Vip;
        Assert.Equal("13(0)", other.Try(() => FlagOps.Sti(other.C, other.P)));
    }

    [Theory]
    [InlineData(0, 0, 4, 0x3D7FD7)]
    [InlineData(0, 0, 2, 0x7FD7)]
    [InlineData(3, 0, 4, 0x254DD7)]
    [InlineData(3, 3, 4, 0x257FD7)]
    public void Iret_takes_the_flags_that_its_level_may_change(int cpl, int iopl, int size, int flags)
    {
        using var scene = Enter(cpl == 0 ? In.Level0 : In.Level3, iopl);
        scene.OnStack(size, 0x5000, cpl == 0 ? Scene.Code0 : (ulong)Scene.Code3, Every & ~Flags.Vm);
        InterruptReturn.Execute(scene.C, scene.P, size, 0x7124);
        Assert.Equal((ulong)flags, scene.C->Rflags);
    }

    [Theory]
    [InlineData(3, 0, 2, "", 0x27FD7)]
    [InlineData(3, 0, 4, "", 0x277FD7)]
    [InlineData(0, 0, 2, "13(0)", 0)]
    [InlineData(0, (int)Cr4.Vme, 4, "13(0)", 0)]
    public void Iret_in_virtual_8086_mode_cannot_change_iopl(int iopl, int cr4, int size, string fault, int flags)
    {
        using var scene = Enter(In.Virtual8086, iopl, (ulong)cr4);
        scene.OnStack(size, 0x5000, 0x100, Every);
        Assert.Equal(fault, scene.Try(() => InterruptReturn.Execute(scene.C, scene.P, size, 0x7124)));
        if (fault.Length == 0)
            Assert.Equal((ulong)flags, scene.C->Rflags);
    }

    [Theory]
    [InlineData(In.Real, 0, 0x3F8, 1, true)]
    [InlineData(In.Level0, 0, 0x3F8, 1, true)]
    [InlineData(In.Level3, 3, 0x3F8, 1, true)]
    [InlineData(In.Level3, 0, 0x3F8, 1, true)]
    [InlineData(In.Level3, 0, 0x3F9, 1, false)]
    [InlineData(In.Level3, 0, 0x3F8, 2, false)]
    [InlineData(In.Level3, 0, 0x3FC, 4, true)]
    [InlineData(In.Level3, 0, 0x400, 1, true)]
    [InlineData(In.Level3, 0, 0x408, 1, false)]
    // Virtual 8086 looks at the map whatever IOPL is.
    [InlineData(In.Virtual8086, 3, 0x3F9, 1, false)]
    [InlineData(In.Virtual8086, 0, 0x3F8, 1, true)]
    public void Ports_need_iopl_or_clear_bits_in_the_map(In mode, int iopl, int port, int size, bool allowed)
    {
        using var scene = Enter(mode, iopl);
        scene.P.WritePhysical(Scene.TssBase + 0x66, 0x68, 2);
        scene.P.WritePhysical(Scene.TssBase + 0x68 + 0x7F, 0b10, 1);
        // The map ends with the byte of ports 0x400..0x407 and the one that is always read behind it.
        scene.C->Tr.Limit = 0x68 + 0x81;
        Assert.Equal(allowed ? "" : "13(0)", scene.Try(() => IoPermission.Check(scene.C, scene.P, (ushort)port, size)));
    }

    [Fact]
    public void Without_a_32_bit_tss_there_is_no_map()
    {
        using var scene = Enter(In.Level3, 0);
        scene.C->Tr.Attributes = 0x83;
        Assert.Equal("13(0)", scene.Try(() => IoPermission.Check(scene.C, scene.P, 0x80, 1)));
    }
}
