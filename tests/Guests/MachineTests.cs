namespace ImgKit.Guests;

/// <summary>The board as a Linux finds it.</summary>
public sealed class MachineTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("machine").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private static string[] Kernel(string parameters = "shell")
    {
        var (kernel, disk) = Repository.CloudKernel;
        return ["-vga", "none", "-kernel", kernel, "-initrd", disk, "-append", $"console=ttyS0 panic=-1 quiet {parameters}", "-no-reboot"];
    }

    [Fact]
    public void Linux_finds_memory_clocks_ports_and_identity()
    {
        using var guest = new Guest([.. Kernel(), "-m", "5G", "-smp", "2", "-rtc", "base=2001-02-03T04:05:06", "-uuid", "11223344-5566-7788-99aa-bbccddeeff00",
            "-serial", $"file:{At("s1")}", "-serial", $"file:{At("s2")}", "-serial", $"file:{At("s3")}"]);
        guest.WaitForSerial("SHELL", 120);
        Assert.StartsWith("2001-02-03", guest.Ask("cat /sys/class/rtc/rtc0/date"));
        // 5 GiB but what the kernel takes for itself, 2 GiB of them above the hole.
        int kibibytes = int.Parse(guest.Ask("grep MemTotal /proc/meminfo | tr -dc 0-9"), System.Globalization.CultureInfo.InvariantCulture);
        Assert.InRange(kibibytes, 4_900_000, 5_242_880);
        Assert.Contains("100000000-17fffffff : System RAM", guest.Ask("cat /proc/iomem"));
        Assert.Equal("2", guest.Ask("grep -c ^processor /proc/cpuinfo"));
        string clocks = guest.Ask("cat /sys/devices/system/clocksource/clocksource0/available_clocksource");
        Assert.Contains("hpet", clocks);
        Assert.Contains("acpi_pm", clocks);
        Assert.Equal("11223344-5566-7788-99aa-bbccddeeff00", guest.Ask("cat /sys/class/dmi/id/product_uuid"));
        string interrupts = guest.Ask("cat /proc/interrupts");
        Assert.Contains("IO-APIC", interrupts);
        Assert.Contains("i8042", interrupts);
        // The monitor sees the kernel's code, which nobody writes, and the page of the I/O APIC.
        Assert.Matches("(?m)^ffffffff[0-9a-f]{8}-ffffffff[0-9a-f]{8} [0-9a-f]{16} -r-$", guest.Hmp("info mem"));
        Assert.Matches("(?m)^ffffffff[0-9a-f]{8}: 00000000fec00000 X", guest.Hmp("info tlb"));
        for (int i = 1; i <= 3; i++)
            guest.Ask($"echo port {i} >/dev/ttyS{i}");
        // It restarts, which ends this machine.
        guest.Type("echo b >/proc/sysrq-trigger\n");
        Assert.Equal(0, guest.WaitForExit(60));
        for (int i = 1; i <= 3; i++)
            Assert.StartsWith($"port {i}", File.ReadAllText(At($"s{i}")));
    }
}
