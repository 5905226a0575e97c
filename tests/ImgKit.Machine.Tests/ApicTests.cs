using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Tests;

public sealed class ApicTests : IDisposable
{
    private readonly TestBoard _board = new();
    private readonly ApicBus _bus = new();
    private readonly TestProcessor[] _cpus = [new(), new(), new()];
    private readonly LocalApic[] _apics;
    private readonly IoApic _ioApic;

    public ApicTests()
    {
        _apics = [.. _cpus.Select(c => _bus.Add(_board.Services, c))];
        _board.Services.Messages = _bus;
        _ioApic = new IoApic(_board.Services);
        _bus.IoApic = _ioApic;
        foreach (var a in _apics)
            a.MmioWrite(0xF0, 0x1FF, 4);
    }

    public void Dispose() => _board.Dispose();

    [Fact]
    public void Priorities_and_the_task_priority_decide_what_is_taken()
    {
        _bus.SendMessage(0xFEE00000, 0x41);
        _bus.SendMessage(0xFEE00000, 0x52);
        Assert.True(_cpus[0].Line);
        Assert.Equal(0x52, _apics[0].Acknowledge());
        Assert.False(_cpus[0].Line);
        Assert.Equal(0x50u, _apics[0].MmioRead(0xA0, 4) & 0xF0);
        _apics[0].MmioWrite(0xB0, 0, 4);
        Assert.True(_cpus[0].Line);
        _apics[0].TaskPriority = 4;
        Assert.False(_cpus[0].Line);
        Assert.Equal(-1, _apics[0].Acknowledge());
        _apics[0].TaskPriority = 3;
        Assert.Equal(0x41, _apics[0].Acknowledge());
    }

    [Fact]
    public void An_ipi_reaches_its_physical_destination_and_all_but_self()
    {
        _apics[0].MmioWrite(0x310, 2u << 24, 4);
        _apics[0].MmioWrite(0x300, 0x40F0, 4);
        Assert.Equal([false, false, true], _cpus.Select(c => c.Line));
        _apics[1].MmioWrite(0x300, 0xC40F1, 4);
        Assert.True(_cpus[0].Line);
        Assert.False(_cpus[1].Line);
    }

    [Fact]
    public void Init_and_startup_reach_the_other_processors()
    {
        _apics[0].MmioWrite(0x300, 0xC4500, 4);
        _apics[0].MmioWrite(0x300, 0xC4699, 4);
        Assert.Empty(_cpus[0].Signals);
        Assert.Equal(["init", "startup 99"], _cpus[1].Signals);
        Assert.Equal(["init", "startup 99"], _cpus[2].Signals);
    }

    [Fact]
    public void Logical_destinations_match_in_flat_and_cluster_mode()
    {
        _apics[1].MmioWrite(0xD0, 0x04u << 24, 4);
        _bus.SendMessage(0xFEE04004, 0x60);
        Assert.Equal([false, true, false], _cpus.Select(c => c.Line));
        _apics[2].MmioWrite(0xE0, 0x0FFFFFFF, 4);
        _apics[2].MmioWrite(0xD0, 0x21u << 24, 4);
        _bus.SendMessage(0xFEE21004, 0x61);
        Assert.True(_cpus[2].Line);
    }

    [Fact]
    public void The_timer_runs_once_or_with_a_period_and_shows_its_count()
    {
        var a = _apics[0];
        a.MmioWrite(0x3E0, 0xB, 4);         // divide by 1
        a.MmioWrite(0x320, 0x30, 4);
        a.MmioWrite(0x380, 1_000_000, 4);
        _board.Pass(400_000);
        Assert.Equal(600_000u, a.MmioRead(0x390, 4));
        Assert.False(_cpus[0].Line);
        _board.Pass(700_000);
        Assert.Equal(0x30, a.Acknowledge());
        a.MmioWrite(0xB0, 0, 4);
        Assert.Equal(0u, a.MmioRead(0x390, 4));
        a.MmioWrite(0x320, 0x20031, 4);
        a.MmioWrite(0x380, 100_000, 4);
        int taken = 0;
        for (int i = 0; i < 100; i++)
        {
            _board.Pass(20_000);
            if (a.Acknowledge() == 0x31)
            {
                taken++;
                a.MmioWrite(0xB0, 0, 4);
            }
        }
        Assert.InRange(taken, 19, 20);
    }

    [Fact]
    public void The_pic_reaches_the_bootstrap_processor_through_lint0()
    {
        var pic = new Pic(_board.Services, _bus.SetExternal);
        _bus.Pic = pic;
        _board.Out(0x20, 0x11);
        _board.Out(0x21, 0x08);
        _board.Out(0x21, 4);
        _board.Out(0x21, 1);
        _board.Out(0x21, 0);
        pic.SetLine(1, true);
        Assert.True(_cpus[0].Line);
        Assert.False(_cpus[1].Line);
        Assert.Equal(0x09, _apics[0].Acknowledge());
        _board.Out(0x20, 0x20);
        pic.SetLine(1, false);
        _apics[0].MmioWrite(0x350, 0x10700, 4);
        pic.SetLine(1, true);
        Assert.False(_cpus[0].Line);
    }

    [Fact]
    public void A_level_through_the_io_apic_comes_again_after_its_end_while_it_lasts()
    {
        Route(11, 0x8000 | 0x70);
        _ioApic.SetLine(11, true);
        Assert.Equal(0x70, _apics[0].Acknowledge());
        Assert.Equal(0x4000u, Entry(11) & 0x4000);
        _apics[0].MmioWrite(0xB0, 0, 4);
        Assert.Equal(0x70, _apics[0].Acknowledge());
        _ioApic.SetLine(11, false);
        _apics[0].MmioWrite(0xB0, 0, 4);
        Assert.False(_cpus[0].Line);
        Assert.Equal(0u, Entry(11) & 0x4000);
    }

    [Fact]
    public void An_edge_at_a_masked_input_of_the_io_apic_is_not_seen_but_a_level_is_afterwards()
    {
        Route(4, 0x10033);
        _ioApic.SetLine(4, true);
        Route(4, 0x33);
        Assert.False(_cpus[0].Line);
        Route(5, 0x18034);
        _ioApic.SetLine(5, true);
        Assert.False(_cpus[0].Line);
        Route(5, 0x8034);
        Assert.Equal(0x34, _apics[0].Acknowledge());
    }

    private void Route(int pin, uint low)
    {
        _ioApic.MmioWrite(0, (ulong)(0x10 + 2 * pin), 4);
        _ioApic.MmioWrite(0x10, low, 4);
    }

    private uint Entry(int pin)
    {
        _ioApic.MmioWrite(0, (ulong)(0x10 + 2 * pin), 4);
        return (uint)_ioApic.MmioRead(0x10, 4);
    }

    [Fact]
    public void X2apic_mode_takes_msrs_and_refuses_to_go_back()
    {
        Assert.False(_apics[1].ReadMsr(0x802, out _));
        Assert.True(_apics[1].SetBase(0xFEE00C00));
        Assert.True(_apics[1].ReadMsr(0x802, out ulong id));
        Assert.Equal(1u, id);
        Assert.True(_apics[1].WriteMsr(0x830, 2UL << 32 | 0x40F3));
        Assert.True(_cpus[2].Line);
        Assert.True(_apics[1].WriteMsr(0x83F, 0x44));
        Assert.Equal(0x44, _apics[1].Acknowledge());
        Assert.False(_apics[1].SetBase(0xFEE00800));
        Assert.False(_apics[1].WriteMsr(0x802, 3));
        Assert.True(_apics[1].SetBase(0xFEE00000));
        Assert.False(_apics[1].SetBase(0xFEE00C00));
        Assert.True(_apics[1].SetBase(0xFEE00800));
    }
}
