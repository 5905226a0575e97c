using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Tests;

/// <summary>Ticks of timers that come while the guest does not take the ones before: a board with both interrupt controllers, whose processor the test plays.</summary>
public sealed class LateTickTests : IDisposable
{
    private const long Millisecond = 1_000_000;
    private readonly TestBoard _board = new();
    private readonly TestProcessor _cpu = new();
    private readonly ApicBus _bus = new();
    private readonly LocalApic _apic;
    private readonly Pic _pic;
    private readonly IoApic _ioApic;
    private TickLine _line = null!;

    public LateTickTests()
    {
        _apic = _bus.Add(_board.Services, _cpu);
        _board.Services.Messages = _bus;
        _pic = new Pic(_board.Services, _bus.SetExternal);
        _bus.Pic = _pic;
        _bus.IoApic = _ioApic = new IoApic(_board.Services);
        _board.Services.IsaInterrupts = new GsiRouter { Pic = _pic, IoApic = _ioApic };
    }

    public void Dispose() => _board.Dispose();

    private Pit Make(bool late = true)
    {
        _line = new TickLine(_board.Services.IsaLine(0), late ? Look : null);
        _bus.Taken = _pic.Taken = _line.Taken;
        var pit = new Pit(_board.Services, _line);
        _board.Out(0x43, 0x34);
        Program(11932);     // 10 ms
        return pit;
    }

    private TickState Look()
    {
        var (open, waiting) = _ioApic.Look(2, _bus);
        if (open)
            return new TickState(2, waiting);
        (open, waiting) = _pic.Look(0);
        return open ? new TickState(1, waiting) : default;
    }

    private void Program(uint count)
    {
        _board.Out(0x40, count & 0xFF);
        _board.Out(0x40, count >> 8);
    }

    private void ThroughPic()
    {
        _board.Out(0x20, 0x11);
        foreach (uint word in (uint[])[0x08, 4, 1, 0xFE])
            _board.Out(0x21, word);
    }

    private void ThroughIoApic()
    {
        _board.Out(0x21, 0xFF);
        _apic.MmioWrite(0xF0, 0x1FF, 4);
        Entry(2, 0x30);
    }

    private void Entry(uint pin, uint low)
    {
        _ioApic.MmioWrite(0, 0x10 + 2 * pin, 4);
        _ioApic.MmioWrite(0x10, low, 4);
    }

    // What the guest takes, one after another, until no more come; at most so many.
    private int Take(int most = int.MaxValue)
    {
        int n = 0;
        for (; n < most && _cpu.Line; n++)
        {
            int vector = _apic.Acknowledge();
            Assert.True(vector is 0x30 or 0x08, $"vector {vector:x}");
            if (vector == 0x30)
                _apic.MmioWrite(0xB0, 0, 4);
            else
                _board.Out(0x20, 0x20);
        }
        return n;
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Ticks_that_the_guest_could_not_take_follow_late(bool ioApic)
    {
        Make();
        if (ioApic)
            ThroughIoApic();
        else
            ThroughPic();
        _board.Pass(25 * Millisecond);
        Assert.Equal(2, Take());
        _board.Pass(200 * Millisecond);
        Assert.Equal(20, Take());
        Assert.Equal(0, Take());
        for (int i = 0; i < 10; i++)
        {
            _board.Pass(10 * Millisecond);
            Assert.Equal(1, Take());
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Without_the_policy_they_are_lost_in_one(bool ioApic)
    {
        Make(false);
        if (ioApic)
            ThroughIoApic();
        else
            ThroughPic();
        _board.Pass(205 * Millisecond);
        Assert.Equal(1, Take());
    }

    [Fact]
    public void A_tick_in_service_holds_the_next_until_its_end_and_the_others_behind_it()
    {
        Make();
        ThroughPic();
        _board.Pass(15 * Millisecond);
        Assert.Equal(8, _apic.Acknowledge());
        _board.Pass(50 * Millisecond);
        Assert.False(_cpu.Line);
        _board.Out(0x20, 0x20);
        Assert.Equal(5, Take());
    }

    [Fact]
    public void Setting_the_timer_anew_or_masking_its_line_forgets_them()
    {
        Make();
        ThroughPic();
        _board.Pass(105 * Millisecond);
        Program(11932);
        Assert.Equal(1, Take());
        _board.Pass(105 * Millisecond);
        _board.Out(0x21, 0xFF);
        _board.Pass(50 * Millisecond);
        _board.Out(0x21, 0xFE);
        Assert.InRange(Take(), 0, 1);
        _board.Pass(105 * Millisecond);
        Assert.Equal(9, Take(9));
        ThroughIoApic();
        _board.Pass(10 * Millisecond);
        Assert.Equal(1, Take());
    }

    [Fact]
    public void No_more_are_owed_than_a_bound()
    {
        Make();
        ThroughIoApic();
        Program(120);       // 100 us
        _board.Pass(5_000 * Millisecond);
        Assert.Equal(TickLine.MostOwed, _line.Owed);
        Assert.Equal(TickLine.MostOwed + 1, Take());
    }

    [Fact]
    public void They_go_along_when_the_state_is_saved_and_loaded()
    {
        Make();
        ThroughIoApic();
        _board.Pass(105 * Millisecond);
        Assert.Equal(4, Take(4));
        Device[] devices = [_pic, _ioApic, _apic, _line];
        byte[][] saved = [.. devices.Select(d =>
        {
            var writer = new StateWriter();
            d.Describe(writer);
            return writer.ToArray();
        })];
        Assert.Equal(6, Take());
        _line.Reset();
        for (int i = 0; i < devices.Length; i++)
            devices[i].Describe(new StateReader(saved[i]));
        Assert.Equal(6, Take());
        Assert.Equal(0, _line.Owed);
    }

    [Fact]
    public void The_hpet_in_the_timers_place_delivers_late_too()
    {
        var pit = Make();
        ThroughIoApic();
        var hpet = new Hpet(_board.Services, _board.Services.IsaInterrupts!, _line, pit.SetLegacyReplaced);
        hpet.MmioWrite(0x100, 4 | 8 | 0x40, 8);
        hpet.MmioWrite(0x108, 400_000, 8);      // 4 ms
        hpet.MmioWrite(0x108, 400_000, 8);
        hpet.MmioWrite(0x10, 3, 8);
        Take();
        _board.Pass(61 * Millisecond);
        Assert.Equal(15, Take());
        // Through the PIC its pulses are held until they are taken.
        Entry(2, 0x10030);
        ThroughPic();
        _board.Pass(20 * Millisecond);
        Assert.Equal(5, Take());
        // The event loop is 40 ms late.
        lock (_board.Services.Lock)
            _line.Pulse(10);
        Assert.Equal(10, Take());
    }

    [Theory]
    [InlineData(true, 20)]
    [InlineData(false, 1)]
    public void The_clocks_periodic_interrupts_follow_late_when_asked_for(bool late, int expected)
    {
        var lines = _board.Lines;
        _ = new Rtc(_board.Services, new InterruptLine(lines, 8), DateTime.UnixEpoch) { DeliversLateTicks = late };
        Clock(10, 0x26);
        Clock(11, 0x42);
        _board.Pass(20_000_000_000 / 1024 + 1000);      // 20 periods of 1/1024 s
        Assert.Equal(expected, Read());
        _board.Pass(1_000_000_000 / 1024);
        Assert.Equal(1, Read());
        // More than 20 at once come with the next period; at half the rate they count half.
        _board.Pass(31_000_000_000 / 1024);
        Assert.Equal(late ? 21 : 1, Read());
        Clock(10, 0x27);
        _board.Pass(2_000_000_000 / 1024);
        Assert.Equal(late ? 6 : 1, Read());
        Clock(11, 0x02);
        Assert.Equal(0, Read());

        int Read()
        {
            int n = 0;
            for (; lines.Level[8] && n < 100; n++)
            {
                _board.Out(0x70, 12);
                Assert.Equal(0xC0u, _board.In(0x71) & 0xC0);
            }
            return n;
        }
    }

    private void Clock(uint index, uint value)
    {
        _board.Out(0x70, index);
        _board.Out(0x71, value);
    }
}
