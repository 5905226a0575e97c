using ImgKit.Cpu.Architecture;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Tests.Architecture;

/// <summary>MSRs, system calls, debug registers, SMM, reset, and the copy of it all.</summary>
public sealed unsafe class SystemStateTests
{
    [Theory]
    // index, a value that sticks, one that is refused
    [InlineData("qemu64", 0xC0000081u, 0x0023001000000000UL, null)]
    [InlineData("qemu64", 0xC0000082u, 0xFFFFFFFF81000000UL, 1UL << 50)]
    [InlineData("qemu64", 0xC0000100u, 0x00007F0000000000UL, 1UL << 63)]
    [InlineData("qemu64", 0xC0000102u, 0x1000UL, 1UL << 47)]
    [InlineData("qemu64", 0x277u, 0x0007010600070106UL, 0x02UL)]
    [InlineData("qemu64", 0x2FFu, 0xC06UL, 0xC02UL)]
    [InlineData("qemu64", 0x250u, 0x0606060606060606UL, 0x02UL)]
    [InlineData("qemu64", 0x200u, 0xC0000000UL, 1UL << 45)]
    [InlineData("qemu64", 0x201u, 0xFFC0000800UL, 0x7FFUL)]
    [InlineData("qemu64", 0xC0000080u, Efer.Sce | Efer.Nxe, 2UL)]
    [InlineData("pentium2", 0x174u, 0x10UL, null)]
    [InlineData("qemu64", 0x400u, 0UL, 0xAAAA_AAAA_AAAA_AAAAUL)]
    [InlineData("qemu64", 0x410u, ulong.MaxValue ^ 1 << 10, 1UL)]
    [InlineData("core2duo", 0x1A0u, 0x4_00C5_1809UL, null)]
    [InlineData("qemu64", 0x401u, 0UL, 1UL)]
    [InlineData("qemu64,+rdtscp", 0xC0000103u, 7UL, 1UL << 32)]
    [InlineData("phenom", 0xC0010015u, 0x10UL, null)]
    public void Registers_keep_what_is_legal(string model, uint index, ulong good, ulong? bad)
    {
        using var p = new FakeProcessor(model);
        Msrs.Write(p.Context, p, index, good);
        Assert.Equal(good, Msrs.Read(p.Context, p, index));
        if (bad is { } value)
        {
            Assert.Throws<GuestFault>(() => Msrs.Write(p.Context, p, index, value));
            Assert.Equal(good, Msrs.Read(p.Context, p, index));
        }
    }

    [Theory]
    [InlineData("pentium", 0xC0000080u)]
    [InlineData("pentium", 0x174u)]
    [InlineData("pentium", 0x277u)]
    [InlineData("pentium3", 0xC0000082u)]
    [InlineData("qemu64", 0xC0000103u)]
    [InlineData("qemu64", 0x3Bu)]
    [InlineData("core2duo", 0xC0010015u)]
    [InlineData("qemu64", 0x1A0u)]
    [InlineData("qemu64", 0x12345u)]
    [InlineData("qemu64", 0x800u)]
    public void Registers_that_the_model_lacks_fault(string model, uint index)
    {
        using var p = new FakeProcessor(model);
        Assert.Equal(13, Assert.Throws<GuestFault>(() => Msrs.Read(p.Context, p, index)).Vector);
        Assert.Throws<GuestFault>(() => Msrs.Write(p.Context, p, index, 0));
    }

    [Fact]
    public void The_time_stamp_counter_can_be_set_and_adjusted()
    {
        using var p = new FakeProcessor("qemu64,+tsc-adjust");
        Assert.Equal(0UL, Msrs.Read(p.Context, p, 0x10));
        Msrs.Write(p.Context, p, 0x10, 5000);
        p.FakeBus.TimeStamp += 10;
        Assert.Equal(5010UL, Msrs.ReadTimeStamp(p.Context, p));
        ulong adjust = Msrs.Read(p.Context, p, 0x3B);
        Msrs.Write(p.Context, p, 0x3B, adjust + 100);
        Assert.Equal(5110UL, Msrs.ReadTimeStamp(p.Context, p));
        p.Context->Cpl = 3;
        p.Context->Cr4 |= Cr4.Tsd;
        Assert.Throws<GuestFault>(() => Msrs.ReadTimeStamp(p.Context, p));
    }

    [Fact]
    public void Apic_base_is_the_machines()
    {
        using var p = new FakeProcessor();
        Assert.Equal(0xFEE00900UL, Msrs.Read(p.Context, p, 0x1B));
        Msrs.Write(p.Context, p, 0x1B, 0xFEE00100);
        Assert.Equal(0xFEE00100UL, p.FakeBus.ApicBase);
        CpuidInstruction.Execute(p.Context, p, 1, 0, out _, out _, out _, out uint edx);
        Assert.Equal(0u, edx & (1 << 9));
    }

    [Fact]
    public void Syscall_and_sysret_in_long_mode()
    {
        using var scene = new Scene();
        scene.EnterLongMode(3);
        var c = scene.C;
        c->Star = 0x0023_0010UL << 32;
        c->Lstar = 0xFFFFFFFF81000000;
        c->Cstar = 0xFFFFFFFF82000000;
        c->Sfmask = Flags.If | Flags.Tf;
        c->Rflags = 2 | Flags.If | Flags.Cf;
        Syscalls.Syscall(c, scene.P, 0x4002);
        Assert.Equal((0xFFFFFFFF81000000UL, 0x4002UL, 2 | Flags.If | Flags.Cf, 2 | Flags.Cf), (c->Rip, c->Gpr[1], c->Gpr[11], c->Rflags));
        Assert.Equal((0, 0x10, 0x18), (c->Cpl, c->Cs.Selector, c->Ss.Selector));
        Assert.NotEqual(0u, c->Cs.Attributes & SegmentAttributes.Long);
        Syscalls.Sysret(c, scene.P, true);
        Assert.Equal((3, 0x33, 0x2B, 0x4002UL, 2 | Flags.If | Flags.Cf), (c->Cpl, c->Cs.Selector, c->Ss.Selector, c->Rip, c->Rflags));
        c->Cs.Attributes = 0xC0FB;
        Syscalls.Syscall(c, scene.P, 0x4002);
        Assert.Equal(0xFFFFFFFF82000000UL, c->Rip);
        Syscalls.Sysret(c, scene.P, false);
        Assert.Equal((0x23, SegmentAttributes.Big), (c->Cs.Selector, c->Cs.Attributes & (SegmentAttributes.Big | SegmentAttributes.Long)));
        c->Efer &= ~Efer.Sce;
        Assert.Equal("6", scene.Try(() => Syscalls.Syscall(scene.C, scene.P, 0)));
    }

    [Fact]
    public void Sysenter_and_sysexit()
    {
        using var scene = new Scene("core2duo");
        var c = scene.C;
        scene.AtLevel(3);
        Assert.Equal("13(0)", scene.Try(() => Syscalls.Sysenter(scene.C, scene.P)));
        (c->SysenterCs, c->SysenterEsp, c->SysenterEip) = (0x08, 0x7000, 0x5000);
        c->Rflags |= Flags.If;
        Syscalls.Sysenter(c, scene.P);
        Assert.Equal((0, 0x08, 0x10, 0x5000UL, 0x7000UL, 2UL), (c->Cpl, c->Cs.Selector, c->Ss.Selector, c->Rip, c->Gpr[4], c->Rflags));
        (c->Gpr[1], c->Gpr[2]) = (0x9000, 0x4002);
        Syscalls.Sysexit(c, scene.P, false);
        Assert.Equal((3, 0x1B, 0x23, 0x4002UL, 0x9000UL), (c->Cpl, c->Cs.Selector, c->Ss.Selector, c->Rip, c->Gpr[4]));
        Assert.Equal("13(0)", scene.Try(() => Syscalls.Sysexit(scene.C, scene.P, false)));
    }

    [Fact]
    public void Syscall_in_compatibility_mode_is_amds_sysenter_in_long_mode_intels()
    {
        using var amd = new Scene();
        using var intel = new Scene("core2duo");
        amd.EnterLongMode(3);
        intel.EnterLongMode(3);
        intel.C->Cs.Attributes = amd.C->Cs.Attributes = 0xC0FB;
        amd.C->SysenterCs = intel.C->SysenterCs = 8;
        Assert.Equal("6", intel.Try(() => Syscalls.Syscall(intel.C, intel.P, 0)));
        Assert.Equal("6", amd.Try(() => Syscalls.Sysenter(amd.C, amd.P)));
        Assert.Equal("", amd.Try(() => Syscalls.Syscall(amd.C, amd.P, 0)));
        Assert.Equal("", intel.Try(() => Syscalls.Sysenter(intel.C, intel.P)));
    }

    [Fact]
    public void Debug_registers_have_fixed_bits_and_aliases()
    {
        using var scene = new Scene();
        DebugRegisters.WriteDr(scene.C, scene.P, 6, 0);
        Assert.Equal(0xFFFF0FF0UL, DebugRegisters.ReadDr(scene.C, scene.P, 4));
        DebugRegisters.WriteDr(scene.C, scene.P, 5, 0xFFFFFFFF & ~(1UL << 13));
        Assert.Equal(0xFFFF07FFUL, DebugRegisters.ReadDr(scene.C, scene.P, 7));
        scene.C->Cr4 |= Cr4.De;
        Assert.Equal("6", scene.Try(() => DebugRegisters.ReadDr(scene.C, scene.P, 4)));
        scene.EnterLongMode(0);
        Assert.Equal("13(0)", scene.Try(() => DebugRegisters.WriteDr(scene.C, scene.P, 7, 1UL << 32)));
        DebugRegisters.WriteDr(scene.C, scene.P, 0, 1UL << 40);
        Assert.Equal(1UL << 40, scene.C->Dr[0]);
        scene.EnterLongMode(3);
        Assert.Equal("13(0)", scene.Try(() => DebugRegisters.ReadDr(scene.C, scene.P, 0)));
    }

    [Fact]
    public void Breakpoints_match_by_kind_and_length()
    {
        using var p = new FakeProcessor();
        var c = p.Context;
        (c->Dr[0], c->Dr[1], c->Dr[2]) = (0x1000, 0x2002, 0x3F8);
        // 0: execute; 1: write, 4 bytes (address rounded down); 2: port, 1 byte; 0 and 1 enabled locally, 2 globally.
        c->Dr[7] = 0x400 | 1 | (1 << 2) | (2 << 4) | (0b1101UL << 20) | (0b0010UL << 24);
        Assert.Equal(1UL, DebugRegisters.MatchCode(c, 0x1000));
        Assert.Equal(0UL, DebugRegisters.MatchCode(c, 0x1001));
        Assert.Equal(2UL, DebugRegisters.MatchData(c, 0x2003, 1, true));
        Assert.Equal(2UL, DebugRegisters.MatchData(c, 0x1FFF, 2, true));
        Assert.Equal(0UL, DebugRegisters.MatchData(c, 0x2004, 4, true));
        Assert.Equal(0UL, DebugRegisters.MatchData(c, 0x2000, 4, false));
        Assert.Equal(0UL, DebugRegisters.MatchPort(c, 0x3F8, 1));
        c->Cr4 |= Cr4.De;
        Assert.Equal(4UL, DebugRegisters.MatchPort(c, 0x3F7, 2));
        Assert.True(DebugRegisters.AnyCodeBreakpoint(c) && DebugRegisters.AnyDataBreakpoint(c) && DebugRegisters.AnyPortBreakpoint(c));
        c->Dr[7] = 0x400;
        Assert.False(DebugRegisters.AnyEnabled(c));
    }

    [Theory]
    [InlineData("qemu64", 0x20064u, 0x7F00u)]
    [InlineData("pentium3", 0x20000u, 0x7EF8u)]
    public void Smm_saves_everything_and_rsm_restores_it_at_a_new_base(string model, uint revision, uint baseField)
    {
        using var scene = new Scene(model);
        var c = scene.C;
        for (int i = 0; i < 8; i++)
            c->Gpr[i] = 0x1000u + (uint)i;
        scene.AtLevel(3);
        Segments.Load(c, scene.P, Segments.Fs, 0);
        c->Cr4 |= Cr4.Pse;
        c->Rflags |= Flags.If | Flags.Cf;
        c->Halted = 1;
        var before = new CpuState();
        StateTransfer.ToState(c, scene.P, before);
        Smm.Enter(c, scene.P);
        Assert.Equal((1, 0x8000UL, 0x30000UL, 0), (c->InSmm, c->Rip, c->Cs.Base, c->Cpl));
        Assert.Equal((2UL, 0UL), (c->Rflags, c->Cr0 & (Cr0.Pe | Cr0.Pg)));
        Assert.Equal(revision, (uint)scene.P.ReadPhysical(0x38000 + 0x7EFC, 4));
        scene.P.WritePhysical(0x38000 + baseField, 0xA0000, 4);
        Smm.Resume(c, scene.P);
        Assert.Equal((0, 0xA0000u, 3), (c->InSmm, c->Smbase, c->Cpl));
        var after = new CpuState();
        StateTransfer.ToState(c, scene.P, after);
        Assert.Equal(before.Gpr, after.Gpr);
        Assert.Equal(before.Segments, after.Segments);
        Assert.Equal((before.Rip, before.Rflags, before.Cr0, before.Cr4, before.Gdtr, before.Idtr, before.Tr, before.Halted),
            (after.Rip, after.Rflags, after.Cr0, after.Cr4, after.Gdtr, after.Idtr, after.Tr, after.Halted));
        Assert.Equal("6", scene.Try(() => Smm.Resume(scene.C, scene.P)));
    }

    [Fact]
    public void Smm_can_interrupt_long_mode()
    {
        using var scene = new Scene();
        scene.EnterLongMode(0);
        scene.C->Gpr[15] = 0xFFFF_8000_0000_0001;
        scene.C->Rip = 0xFFFF_FFFF_8100_0000;
        Smm.Enter(scene.C, scene.P);
        Assert.Equal((0UL, 0UL), (scene.C->Efer, scene.C->Cr4));
        scene.C->Gpr[15] = 0;
        Smm.Resume(scene.C, scene.P);
        Assert.Equal((0xFFFF_8000_0000_0001UL, 0xFFFF_FFFF_8100_0000UL), (scene.C->Gpr[15], scene.C->Rip));
        Assert.True(Mode.Is64Bit(scene.C));
    }

    [Fact]
    public void Reset_starts_at_the_last_16_bytes_and_others_wait_for_start_up()
    {
        using var p = new FakeProcessor("pentium2");
        var c = p.Context;
        Assert.Equal((0xFFFF0000UL, 0xFFF0UL, 2UL, 0x60000010UL), (c->Cs.Base, c->Rip, c->Rflags, c->Cr0));
        Assert.Equal(0x652UL, c->Gpr[2]);
        ResetState.PowerOn(c, p, false);
        Assert.Equal(1, c->WaitingForStartup);
        ResetState.Startup(c, p, 0x9A);
        Assert.Equal((0, 0x9A00, 0x9A000UL, 0UL), (c->WaitingForStartup, c->Cs.Selector, c->Cs.Base, c->Rip));
    }

    [Fact]
    public void Init_keeps_caching_mode_fpu_and_mtrrs()
    {
        using var p = new FakeProcessor();
        var c = p.Context;
        c->Cr0 = Cr0.Pe | Cr0.Et;
        c->XsaveArea[32] = 0x55;
        Msrs.Write(c, p, 0x2FF, 0xC06);
        c->Efer = Efer.Lme;
        ResetState.Init(c, p, true);
        Assert.Equal((Cr0.Et, 0UL, 0xFFF0UL), (c->Cr0, c->Efer, c->Rip));
        Assert.Equal(0xC06UL, Msrs.Read(c, p, 0x2FF));
        Assert.Equal(0x55, c->XsaveArea[32]);
    }

    [Fact]
    public void State_copied_out_and_in_again_is_the_same_and_unknown_msrs_survive()
    {
        using var first = new Scene();
        first.EnterLongMode(3);
        first.C->Star = 0x0023001000000000;
        first.C->Dr[7] = 0x401;
        first.C->XsaveArea[160] = 0x77;
        first.C->Cpl = 0;
        Msrs.Write(first.C, first.P, 0x200, 0xC0000000);
        Msrs.Write(first.C, first.P, 0x10, 123456);
        first.C->Cpl = 3;
        var state = new CpuState();
        StateTransfer.ToState(first.C, first.P, state);
        state.Msrs[0x4B564D00] = 0xABC;
        using var second = new FakeProcessor();
        StateTransfer.FromState(second.Context, second, state);
        var copy = new CpuState();
        StateTransfer.ToState(second.Context, second, copy);
        Assert.Equal(state.Gpr, copy.Gpr);
        Assert.Equal(state.Segments, copy.Segments);
        Assert.Equal(state.Dr, copy.Dr);
        Assert.Equal(state.Xsave, copy.Xsave);
        Assert.Equal(state.Msrs.OrderBy(m => m.Key), copy.Msrs.OrderBy(m => m.Key));
        Assert.Equal((state.Rip, state.Rflags, state.Cr0, state.Cr3, state.Cr4), (copy.Rip, copy.Rflags, copy.Cr0, copy.Cr3, copy.Cr4));
        Assert.Equal(3, second.Context->Cpl);
    }

    [Fact]
    public void Cpuid_shows_osxsave_with_cr4()
    {
        using var p = new FakeProcessor("qemu64,+xsave");
        CpuidInstruction.Execute(p.Context, p, 1, 0, out _, out _, out uint ecx, out _);
        Assert.Equal(0u, ecx & (1u << 27));
        p.Context->Cr4 |= Cr4.OsXsave;
        CpuidInstruction.Execute(p.Context, p, 1, 0, out _, out _, out ecx, out _);
        Assert.NotEqual(0u, ecx & (1u << 27));
        Assert.True(p.Model.Has(CpuFeature.Xsave));
    }
}
