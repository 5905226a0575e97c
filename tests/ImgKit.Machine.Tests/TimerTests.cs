using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Tests;

public sealed class TimerTests : IDisposable
{
    private const long Millisecond = 1_000_000, Second = 1_000_000_000;
    private readonly TestBoard _board = new();

    public void Dispose() => _board.Dispose();

    [Fact]
    public void The_pit_in_mode_2_interrupts_with_its_period()
    {
        _ = new Pit(_board.Services, new TickLine(_board.Services.IsaLine(0), null));
        _board.Out(0x43, 0x34);
        _board.Out(0x40, 11932 & 0xFF);
        _board.Out(0x40, 11932 >> 8);
        int before = _board.Lines.Rises[0];
        _board.Pass(Second);
        Assert.InRange(_board.Lines.Rises[0] - before, 99, 101);
    }

    [Fact]
    public void The_pit_in_mode_3_is_high_for_half_of_its_period()
    {
        _ = new Pit(_board.Services, new TickLine(_board.Services.IsaLine(0), null));
        _board.Out(0x43, 0x36);
        _board.Out(0x40, 0);
        _board.Out(0x40, 0x80);
        Assert.True(_board.Lines.Level[0]);
        _board.Pass(14 * Millisecond);
        Assert.False(_board.Lines.Level[0]);
        _board.Pass(14 * Millisecond);
        Assert.True(_board.Lines.Level[0]);
    }

    [Fact]
    public void The_pit_in_mode_0_goes_high_once_at_the_end_of_its_count()
    {
        _ = new Pit(_board.Services, new TickLine(_board.Services.IsaLine(0), null));
        _board.Out(0x61, 1);
        _board.Out(0x43, 0xB0);
        Assert.Equal(0u, _board.In(0x61) & 0x20);
        _board.Out(0x42, 0xFF);
        _board.Out(0x42, 0x0F);
        Assert.Equal(0u, _board.In(0x61) & 0x20);
        _board.Pass(4 * Millisecond);
        Assert.Equal(0x20u, _board.In(0x61) & 0x20);
    }

    [Fact]
    public void A_latched_count_stands_still_and_is_read_low_byte_first()
    {
        _ = new Pit(_board.Services, new TickLine(_board.Services.IsaLine(0), null));
        _board.Out(0x43, 0x34);
        _board.Out(0x40, 0);
        _board.Out(0x40, 0x10);
        _board.Pass(Millisecond);
        _board.Out(0x43, 0);
        _board.Pass(Millisecond);
        uint count = _board.In(0x40) | _board.In(0x40) << 8;
        Assert.InRange(count, 0x1000u - 1194, 0x1000u - 1192);
        _board.Out(0x43, 0xE2);
        Assert.Equal(0x34u, _board.In(0x40) & 0x3F);
    }

    [Fact]
    public void The_rtc_shows_its_date_in_bcd_and_goes_on()
    {
        var rtc = new Rtc(_board.Services, _board.Services.IsaLine(8), new DateTime(2026, 2, 28, 23, 59, 58, DateTimeKind.Utc));
        Assert.Equal([0x58u, 0x59u, 0x23u, 0x07u, 0x28u, 0x02u, 0x26u], Read(0, 2, 4, 6, 7, 8, 9));
        _board.Pass(3 * Second);
        Assert.Equal([0x01u, 0x00u, 0x00u, 0x01u, 0x01u, 0x03u, 0x26u, 0x20u], Read(0, 2, 4, 6, 7, 8, 9, 0x32));
        Assert.Equal(0x80, rtc[13]);
    }

    private uint[] Read(params byte[] indices) => [.. indices.Select(i =>
    {
        _board.Out(0x70, i);
        return _board.In(0x71);
    })];

    [Fact]
    public void The_rtc_keeps_a_date_that_is_set()
    {
        _ = new Rtc(_board.Services, _board.Services.IsaLine(8), DateTime.UnixEpoch);
        Write(11, 0x82);
        foreach (var (i, v) in new (byte, uint)[] { (0, 0x30), (2, 0x15), (4, 0x12), (7, 0x24), (8, 0x12), (9, 0x99), (0x32, 0x19) })
            Write(i, v);
        _board.Pass(5 * Second);
        Write(11, 0x02);
        _board.Pass(Second);
        Assert.Equal([0x31u, 0x15u, 0x12u, 0x24u, 0x12u, 0x99u, 0x19u], Read(0, 2, 4, 7, 8, 9, 0x32));
    }

    private void Write(byte index, uint value)
    {
        _board.Out(0x70, index);
        _board.Out(0x71, value);
    }

    [Fact]
    public void The_rtc_ticks_and_reading_c_lets_its_line_go()
    {
        _ = new Rtc(_board.Services, _board.Services.IsaLine(8), DateTime.UnixEpoch);
        Write(10, 0x26);
        Write(11, 0x42);
        int ticks = 0;
        for (int i = 0; i < 1000; i++)
        {
            _board.Pass(Millisecond);
            if (!_board.Lines.Level[8])
                continue;
            ticks++;
            Assert.Equal(0xC0u, Read(12)[0] & 0xC0);
            Assert.False(_board.Lines.Level[8]);
        }
        Assert.InRange(ticks, 990, 1000);
    }

    [Fact]
    public void The_rtc_alarm_comes_at_its_time()
    {
        _ = new Rtc(_board.Services, _board.Services.IsaLine(8), DateTime.UnixEpoch.AddSeconds(10));
        Write(1, 0x15);
        Write(3, 0xFF);
        Write(5, 0xFF);
        Write(11, 0x22);
        _board.Pass(4 * Second + Millisecond);
        Assert.False(_board.Lines.Level[8]);
        _board.Pass(Second);
        Assert.True(_board.Lines.Level[8]);
        Assert.Equal(0x20u, Read(12)[0] & 0x20);
    }

    [Fact]
    public void The_hpet_counts_and_interrupts_once_or_with_a_period()
    {
        var gsi = new LineRecorder();
        bool replaced = false;
        var hpet = new Hpet(_board.Services, gsi, new TickLine(_board.Services.IsaLine(0), null), on => replaced = on);
        hpet.MmioWrite(0x10, 1, 8);
        _board.Pass(1000);
        Assert.Equal(100u, hpet.MmioRead(0xF0, 8));
        hpet.MmioWrite(0x108, 200, 8);
        hpet.MmioWrite(0x100, 4 | 20 << 9, 8);
        _board.Pass(900);
        Assert.Equal(0, gsi.Rises[20]);
        _board.Pass(200);
        Assert.Equal(1, gsi.Rises[20]);
        hpet.MmioWrite(0x100, 4 | 8 | 0x40 | 21 << 9, 8);
        hpet.MmioWrite(0x108, hpet.MmioRead(0xF0, 8) + 100_000, 8);
        hpet.MmioWrite(0x108, 100_000, 8);
        _board.Pass(10 * Millisecond + 1000);
        Assert.InRange(gsi.Rises[21], 9, 11);
        hpet.MmioWrite(0x10, 3, 8);
        Assert.True(replaced);
    }

    [Fact]
    public void An_alarm_reaches_acpi_though_the_hpet_has_the_interrupt_line()
    {
        var rtc = new Rtc(_board.Services, _board.Services.IsaLine(8), DateTime.UnixEpoch);
        var pm = new Piix4Pm(_board.Services, _board.Services.IsaLine(9), () => { }, false);
        rtc.AlarmDue = pm.RaiseRtcAlarm;
        rtc.SetLegacyReplaced(true);
        pm.SetUpWithoutFirmware();
        _board.Out(0x602, 0x400, 2);
        foreach (var (index, value) in ((uint, uint)[])[(1, 2), (3, 0), (5, 0), (11, 0x22)])
        {
            _board.Out(0x70, index);
            _board.Out(0x71, value);
        }
        _board.Pass(1500 * Millisecond);
        Assert.False(_board.Lines.Level[9]);
        _board.Pass(Second);
        Assert.True(_board.Lines.Level[9]);
        Assert.False(_board.Lines.Level[8]);
        Assert.Equal(0x400u, _board.In(0x600, 2) & 0x400);
    }
}
