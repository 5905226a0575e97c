using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class ControlRegistersTests
{
    [Theory]
    [InlineData(0, Cr0.Pg, true)]
    [InlineData(0, Cr0.Pe | Cr0.Nw, true)]
    [InlineData(0, Cr0.Pe | Cr0.Nw | Cr0.Cd, false)]
    [InlineData(0, Cr0.Pe | Cr0.Pg, false)]
    [InlineData(4, 1UL << 31, true)]
    [InlineData(4, Cr4.Smep, true)]
    [InlineData(4, Cr4.La57, true)]
    [InlineData(4, Cr4.OsXsave, true)]
    [InlineData(4, Cr4.Pae | Cr4.Pge | Cr4.Pse | Cr4.De | Cr4.OsFxsr | Cr4.OsXmmExcpt, false)]
    [InlineData(8, 16UL, true)]
    [InlineData(1, 0UL, true)]
    public void Illegal_values_fault(int register, ulong value, bool faults)
    {
        using var scene = new Scene("qemu64,+cr8legacy");
        ulong before = scene.C->Cr0 ^ scene.C->Cr4;
        string result = scene.Try(() => ControlRegisters.WriteCr(scene.C, scene.P, register, value));
        Assert.Equal(register == 1 ? "6" : faults ? "13(0)" : "", result);
        if (faults)
            Assert.Equal(before, scene.C->Cr0 ^ scene.C->Cr4);
    }

    [Fact]
    public void User_code_may_neither_read_nor_write()
    {
        using var scene = new Scene();
        scene.AtLevel(3);
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.ReadCr(scene.C, scene.P, 0)));
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.WriteCr(scene.C, scene.P, 3, 0)));
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.Clts(scene.C, scene.P)));
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.Lmsw(scene.C, scene.P, 1)));
    }

    [Fact]
    public void Long_mode_is_entered_and_left_as_the_manual_says()
    {
        using var scene = new Scene();
        var c = scene.C;
        c->Cr0 &= ~(Cr0.Cd | Cr0.Nw);
        Msrs.Write(c, scene.P, 0xC0000080, Efer.Lme);
        // Paging with LME needs PAE.
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.WriteCr(scene.C, scene.P, 0, scene.C->Cr0 | Cr0.Pg)));
        Assert.Equal(0UL, c->Efer & Efer.Lma);
        ControlRegisters.WriteCr(c, scene.P, 4, Cr4.Pae);
        scene.P.Notices.Clear();
        ControlRegisters.WriteCr(c, scene.P, 0, c->Cr0 | Cr0.Pg);
        Assert.NotEqual(0UL, c->Efer & Efer.Lma);
        Assert.Equal(["flush all", "mode"], scene.P.Notices);
        // Neither LME nor PAE changes while it is active.
        Assert.Equal("13(0)", scene.Try(() => Msrs.Write(scene.C, scene.P, 0xC0000080, 0)));
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.WriteCr(scene.C, scene.P, 4, 0)));
        c->Cs.Attributes = 0xA09B;
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.WriteCr(scene.C, scene.P, 0, scene.C->Cr0 & ~Cr0.Pg)));
        c->Cs.Attributes = 0xC09B;
        ControlRegisters.WriteCr(c, scene.P, 0, c->Cr0 & ~Cr0.Pg);
        Assert.Equal(Efer.Lme, c->Efer);
    }

    [Fact]
    public void Pae_pointers_are_loaded_with_cr3_and_checked()
    {
        using var scene = new Scene();
        scene.C->Cr4 |= Cr4.Pae;
        scene.C->Cr0 |= Cr0.Pg;
        scene.P.WritePhysical(0x100020, 0x200001, 8);
        scene.P.WritePhysical(0x100028, 0x201001, 8);
        scene.P.WritePhysical(0x100030, 0x1E6, 8);
        ControlRegisters.WriteCr(scene.C, scene.P, 3, 0x100020);
        Assert.Equal((0x200001UL, 0x201001UL), (scene.C->Pdpte[0], scene.C->Pdpte[1]));
        // A later change in memory is not seen; reserved bits in a present one are refused.
        scene.P.WritePhysical(0x100030, 3, 8);
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.WriteCr(scene.C, scene.P, 3, 0x100020)));
        Assert.Equal(0x1E6UL, scene.C->Pdpte[2]);
    }

    [Fact]
    public void Lmsw_sets_pe_but_cannot_clear_it()
    {
        using var p = new FakeProcessor();
        ControlRegisters.Lmsw(p.Context, p, 0xFFFF);
        Assert.Equal(Cr0.Pe | Cr0.Mp | Cr0.Em | Cr0.Ts, p.Context->Cr0 & 15);
        ControlRegisters.Lmsw(p.Context, p, 0);
        Assert.Equal(Cr0.Pe, p.Context->Cr0 & 15);
        Assert.Equal(0UL, p.Context->Cr0 & Cr0.Pg);
    }

    [Fact]
    public void Loading_cr3_keeps_global_pages_and_cr4_pge_drops_them()
    {
        using var scene = new Scene();
        scene.P.Notices.Clear();
        ControlRegisters.WriteCr(scene.C, scene.P, 3, 0x1000);
        Assert.Equal(["flush", "mode"], scene.P.Notices);
        scene.P.Notices.Clear();
        ControlRegisters.WriteCr(scene.C, scene.P, 4, Cr4.Pge);
        Assert.Equal(["flush all", "mode"], scene.P.Notices);
    }

    [Theory]
    [InlineData(1UL, "")]
    [InlineData(3UL, "")]
    [InlineData(7UL, "")]
    [InlineData(5UL, "13(0)")]
    [InlineData(2UL, "13(0)")]
    [InlineData(0xE7UL, "13(0)")]
    public void Xcr0_takes_whole_sets_of_components(ulong value, string fault)
    {
        using var scene = new Scene("qemu64,+xsave,+avx");
        Assert.Equal("6", scene.Try(() => ControlRegisters.WriteXcr0(scene.C, scene.P, 0, value)));
        scene.C->Cr4 |= Cr4.OsXsave;
        Assert.Equal(fault, scene.Try(() => ControlRegisters.WriteXcr0(scene.C, scene.P, 0, value)));
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.WriteXcr0(scene.C, scene.P, 1, 1)));
        if (fault.Length == 0)
            Assert.Equal(value, ControlRegisters.ReadXcr(scene.C, scene.P, 0));
    }

    [Fact]
    public void Cr8_is_the_task_priority()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        ControlRegisters.WriteCr(scene.C, scene.P, 8, 9);
        Assert.Equal(9, scene.P.FakeBus.TaskPriority);
        Assert.Equal(9UL, ControlRegisters.ReadCr(scene.C, scene.P, 8));
    }

    [Fact]
    public void Invlpg_ignores_addresses_that_are_not_canonical()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        scene.P.Notices.Clear();
        ControlRegisters.InvalidatePage(scene.C, scene.P, 1UL << 50);
        Assert.Empty(scene.P.Notices);
        ControlRegisters.InvalidatePage(scene.C, scene.P, 0x7000);
        Assert.Equal(["invalidate 7000"], scene.P.Notices);
    }

    [Theory]
    [InlineData(0UL, 0UL, "", "invalidate 5000")]
    [InlineData(0UL, 1UL, "13(0)", null)]
    [InlineData(2UL, 0UL, "", "flush all")]
    [InlineData(3UL, 0UL, "", "flush")]
    [InlineData(4UL, 0UL, "13(0)", null)]
    public void Invpcid_without_pcids(ulong type, ulong pcid, string fault, string? notice)
    {
        using var scene = new Scene("qemu64,+invpcid");
        scene.P.Notices.Clear();
        Assert.Equal(fault, scene.Try(() => ControlRegisters.InvalidatePcid(scene.C, scene.P, type, pcid, 0x5000)));
        Assert.Equal(notice is null ? [] : [notice], scene.P.Notices);
    }
}
