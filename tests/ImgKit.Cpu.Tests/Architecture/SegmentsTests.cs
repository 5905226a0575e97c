using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class SegmentsTests
{
    [Theory]
    // Data segments: type, privilege, presence, table limit.
    [InlineData(0, Segments.Ds, Scene.Data0, "")]
    [InlineData(0, Segments.Ds, Scene.Data3, "")]
    [InlineData(0, Segments.Ds, 0x12, "13(10)")]
    [InlineData(3, Segments.Ds, Scene.Data0, "13(10)")]
    [InlineData(3, Segments.Ds, Scene.Data3, "")]
    [InlineData(0, Segments.Es, Scene.Code0, "")]
    [InlineData(0, Segments.Es, Scene.ExecuteOnly, "13(48)")]
    [InlineData(3, Segments.Es, Scene.Conforming, "")]
    [InlineData(0, Segments.Fs, Scene.Absent, "11(38)")]
    [InlineData(3, Segments.Fs, Scene.Absent, "13(38)")]
    [InlineData(3, Segments.Fs, Scene.Absent3, "11(a0)")]
    [InlineData(0, Segments.Gs, Scene.Tss, "13(28)")]
    [InlineData(0, Segments.Gs, 0x100, "13(100)")]
    [InlineData(0, Segments.Gs, 0, "")]
    [InlineData(3, Segments.Gs, 3, "")]
    [InlineData(0, Segments.Ds, 0x0C, "13(c)")]
    // The stack: RPL, DPL and CPL are one; writable; absence is #SS.
    [InlineData(0, Segments.Ss, Scene.Data0, "")]
    [InlineData(0, Segments.Ss, Scene.Data3, "13(20)")]
    [InlineData(0, Segments.Ss, 0x11, "13(10)")]
    [InlineData(3, Segments.Ss, Scene.Data3, "")]
    [InlineData(3, Segments.Ss, 0x20, "13(20)")]
    [InlineData(0, Segments.Ss, Scene.ReadOnly, "13(40)")]
    [InlineData(0, Segments.Ss, Scene.Code0, "13(8)")]
    [InlineData(0, Segments.Ss, Scene.Absent, "12(38)")]
    [InlineData(3, Segments.Ss, Scene.Absent3, "12(a0)")]
    [InlineData(0, Segments.Ss, 0, "13(0)")]
    public void Loading_checks_type_privilege_and_presence(int cpl, int segment, int selector, string fault)
    {
        using var scene = new Scene();
        scene.AtLevel(cpl);
        var before = CpuContext.Segment(scene.C, segment)->ToRegister();
        Assert.Equal(fault, scene.Try(() => Segments.Load(scene.C, scene.P, segment, (ushort)selector)));
        var after = CpuContext.Segment(scene.C, segment)->ToRegister();
        if (fault.Length != 0)
            Assert.Equal(before, after);
        else
            Assert.Equal(selector, after.Selector);
    }

    [Fact]
    public void Loading_sets_the_accessed_bit_in_table_and_register()
    {
        using var scene = new Scene();
        scene.Describe(Scene.Data0, 0x12345678, 0xABCDE, 0x92, 0x4);
        Segments.Load(scene.C, scene.P, Segments.Ds, Scene.Data0);
        Assert.Equal(0x93UL, scene.P.ReadPhysical(Scene.Gdt + Scene.Data0 + 5, 1));
        Assert.Equal(new SegmentRegister(Scene.Data0, 0x12345678, 0xABCDE, 0x4093), scene.C->Ds.ToRegister());
    }

    [Fact]
    public void A_null_selector_is_unusable_and_has_no_base()
    {
        using var scene = new Scene();
        Segments.Load(scene.C, scene.P, Segments.Fs, 3);
        Assert.Equal(new SegmentRegister(3, 0, 0, SegmentAttributes.Unusable), scene.C->Fs.ToRegister());
    }

    [Fact]
    public void Ss_may_be_null_in_64_bit_code_below_level_3()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        Assert.Equal("", scene.Try(() => Segments.Load(scene.C, scene.P, Segments.Ss, 0)));
        Assert.Equal("13(0)", scene.Try(() => Segments.Load(scene.C, scene.P, Segments.Ss, 1)));
        scene.EnterLongMode(3);
        Assert.Equal("13(0)", scene.Try(() => Segments.Load(scene.C, scene.P, Segments.Ss, 3)));
    }

    [Fact]
    public void Real_mode_keeps_limits_from_protected_mode()
    {
        using var scene = new Scene();
        Segments.Load(scene.C, scene.P, Segments.Ds, Scene.Data0);
        scene.C->Cr0 &= ~Cr0.Pe;
        Segments.Load(scene.C, scene.P, Segments.Ds, 0x1234);
        Assert.Equal(0x12340UL, scene.C->Ds.Base);
        Assert.Equal(uint.MaxValue, scene.C->Ds.Limit);
        Segments.Load(scene.C, scene.P, Segments.Ds, 0);
        Assert.Equal(0UL, scene.C->Ds.Base);
    }

    [Fact]
    public void Virtual_8086_segments_are_64_kib_paragraphs()
    {
        using var scene = new Scene();
        scene.AtLevel(3);
        scene.C->Rflags |= Flags.Vm;
        Segments.Load(scene.C, scene.P, Segments.Ss, 0xB800);
        Assert.Equal(new SegmentRegister(0xB800, 0xB8000, 0xFFFF, 0xF3), scene.C->Ss.ToRegister());
    }

    [Theory]
    [InlineData(Scene.Ldt, 0, "")]
    [InlineData(0, 0, "")]
    [InlineData(Scene.Ldt, 3, "13(0)")]
    [InlineData(Scene.Data0, 0, "13(10)")]
    [InlineData(0x64, 0, "13(64)")]
    [InlineData(0x108, 0, "13(108)")]
    public void Lldt_checks(int selector, int cpl, string fault)
    {
        using var scene = new Scene();
        scene.AtLevel(cpl);
        Assert.Equal(fault, scene.Try(() => Segments.LoadLdt(scene.C, scene.P, (ushort)selector)));
    }

    [Fact]
    public void Descriptors_come_from_the_ldt_where_the_selector_says_so()
    {
        using var scene = new Scene();
        Assert.Equal("13(14)", scene.Try(() => Segments.Load(scene.C, scene.P, Segments.Ds, 0x14)));
        Segments.LoadLdt(scene.C, scene.P, Scene.Ldt);
        scene.P.WritePhysical(Scene.LdtBase + 0x10, Scene.Encode(0x5000, 0xFF, 0x93, 4), 8);
        Segments.Load(scene.C, scene.P, Segments.Ds, 0x14);
        Assert.Equal(0x5000UL, scene.C->Ds.Base);
    }

    [Fact]
    public void Ltr_marks_the_task_busy_and_refuses_it_the_second_time()
    {
        using var scene = new Scene();
        Segments.LoadTaskRegister(scene.C, scene.P, Scene.Tss2);
        Assert.Equal(0x8BUL, scene.P.ReadPhysical(Scene.Gdt + Scene.Tss2 + 5, 1));
        Assert.Equal(0x8Bu, scene.C->Tr.Attributes);
        Assert.Equal("13(70)", scene.Try(() => Segments.LoadTaskRegister(scene.C, scene.P, Scene.Tss2)));
        Assert.Equal("13(0)", scene.Try(() => Segments.LoadTaskRegister(scene.C, scene.P, 0)));
    }

    [Fact]
    public void System_descriptors_have_16_bytes_in_long_mode()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        scene.P.WritePhysical(Scene.Gdt + Scene.Tss2 + 8, 0xFFFF8000, 8);
        Segments.LoadTaskRegister(scene.C, scene.P, Scene.Tss2);
        Assert.Equal(0xFFFF8000_00003100UL, scene.C->Tr.Base);
        scene.P.WritePhysical(Scene.Gdt + Scene.Tss + 5, 0x89, 1);
        scene.P.WritePhysical(Scene.Gdt + Scene.Tss + 8, 0x00010000, 8);
        Assert.Equal("13(28)", scene.Try(() => Segments.LoadTaskRegister(scene.C, scene.P, Scene.Tss)));
    }

    [Theory]
    [InlineData(0, Scene.Code0, true, 0xCF9B00u)]
    [InlineData(0, Scene.Tss, true, 0x008B00u)]
    [InlineData(3, Scene.Code0, false, 0u)]
    [InlineData(3, Scene.Conforming, true, 0xCF9E00u)]
    [InlineData(0, 0, false, 0u)]
    [InlineData(0, 0x100, false, 0u)]
    public void Lar_gives_rights_only_of_what_may_be_seen(int cpl, int selector, bool ok, uint rights)
    {
        using var scene = new Scene();
        scene.AtLevel(cpl);
        Assert.Equal(ok, Segments.Lar(scene.C, scene.P, (ushort)selector, out uint value));
        Assert.Equal(rights, value);
    }

    [Fact]
    public void Lar_knows_gates_and_lsl_does_not()
    {
        using var scene = new Scene();
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Code0, 0x5000, 0xEC), 8);
        Assert.True(Segments.Lar(scene.C, scene.P, Scene.Gate, out _));
        Assert.False(Segments.Lsl(scene.C, scene.P, Scene.Gate, out _));
        Assert.True(Segments.Lsl(scene.C, scene.P, Scene.Data0, out uint limit));
        Assert.Equal(uint.MaxValue, limit);
        Assert.True(Segments.Lsl(scene.C, scene.P, Scene.Tss, out limit));
        Assert.Equal(0x67u, limit);
        scene.P.WritePhysical(Scene.Gdt + Scene.Gate, Scene.GateTo(Scene.Code0, 0x5000, 0xEE), 8);
        Assert.False(Segments.Lar(scene.C, scene.P, Scene.Gate, out _));
    }

    [Fact]
    public void Verr_and_verw_look_at_type_and_privilege()
    {
        using var scene = new Scene();
        Assert.True(Segments.Verr(scene.C, scene.P, Scene.ReadOnly));
        Assert.False(Segments.Verw(scene.C, scene.P, Scene.ReadOnly));
        Assert.False(Segments.Verr(scene.C, scene.P, Scene.ExecuteOnly));
        Assert.True(Segments.Verw(scene.C, scene.P, Scene.Data0));
        scene.AtLevel(3);
        Assert.False(Segments.Verw(scene.C, scene.P, Scene.Data0));
        scene.C->Rflags |= Flags.Vm;
        Assert.Equal("6", scene.Try(() => Segments.Verr(scene.C, scene.P, Scene.Data0)));
    }

    [Fact]
    public void Limits_of_expand_down_segments_are_lower_bounds()
    {
        var down = new SegmentRegister(0, 0, 0xFFF, 0x97);
        Assert.False(Segments.IsWithin(down, 0xFFF, 1));
        Assert.True(Segments.IsWithin(down, 0x1000, 1));
        Assert.True(Segments.IsWithin(down, 0xFFFF, 1));
        Assert.False(Segments.IsWithin(down, 0xFFFF, 2));
        Assert.True(Segments.IsWithin(down with { Attributes = 0x4097 }, 0xFFFFFFFE, 2));
        var up = new SegmentRegister(0, 0, 0xFFF, 0x93);
        Assert.True(Segments.IsWithin(up, 0xFFC, 4));
        Assert.False(Segments.IsWithin(up, 0xFFD, 4));
    }

    [Fact]
    public void Umip_keeps_system_tables_from_user_code()
    {
        using var scene = new Scene("qemu64,+umip");
        scene.AtLevel(3);
        Assert.Equal(Scene.Tss, Segments.StoreTaskRegister(scene.C));
        scene.C->Cr4 |= Cr4.Umip;
        Assert.Equal("13(0)", scene.Try(() => Segments.StoreTaskRegister(scene.C)));
        Assert.Equal("13(0)", scene.Try(() => Segments.StoreLdt(scene.C)));
        Assert.Equal("13(0)", scene.Try(() => ControlRegisters.Smsw(scene.C)));
    }

    [Fact]
    public void Table_bases_are_24_bits_with_a_16_bit_operand_and_canonical_in_64_bit_code()
    {
        using var scene = new Scene();
        Segments.LoadIdt(scene.C, 0x12345678, 0x3FF, 2);
        Assert.Equal(0x345678UL, scene.C->IdtrBase);
        Segments.LoadGdt(scene.C, 0x12345678, 0x3FF, 4);
        Assert.Equal(0x12345678UL, scene.C->GdtrBase);
        scene.EnterLongMode(0);
        Assert.Equal("13(0)", scene.Try(() => Segments.LoadGdt(scene.C, 1UL << 47, 0xFF, 8)));
        scene.EnterLongMode(3);
        Assert.Equal("13(0)", scene.Try(() => Segments.LoadGdt(scene.C, 0, 0xFF, 8)));
    }
}
