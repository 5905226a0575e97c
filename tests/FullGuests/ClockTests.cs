namespace ImgKit.Guests;

/// <summary>The clock as Linux reads it.</summary>
public sealed class ClockTests
{
    [Fact]
    public void The_clock_has_the_local_time_when_told_so()
    {
        var (kernel, disk) = Repository.CloudKernel;
        using var guest = new Guest("-m", "256", "-rtc", "base=localtime", "-vga", "none", "-kernel", kernel, "-initrd", disk, "-append", "console=ttyS0 panic=-1 quiet shell", "-no-reboot");
        guest.WaitForSerial("SHELL", 120);
        string time = guest.Ask("cat /sys/class/rtc/rtc0/date") + " " + guest.Ask("cat /sys/class/rtc/rtc0/time");
        var told = DateTime.Parse(time, System.Globalization.CultureInfo.InvariantCulture);
        Assert.True(Math.Abs((told - DateTime.Now).TotalMinutes) < 5, time);
        guest.LeaveShell();
    }
}
