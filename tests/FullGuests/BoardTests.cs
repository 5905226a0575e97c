using System.Text;

namespace ImgKit.Guests;

/// <summary>Parts of the board that need drivers of their own in Linux.</summary>
public sealed class BoardTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("board").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private static Guest Linux(params string[] arguments)
    {
        var (kernel, ramDisk) = Repository.MakeKernel("amd64");
        var guest = new Guest(["-m", "512", "-vga", "none", "-kernel", kernel, "-initrd", ramDisk, "-append", "console=ttyS0 panic=-1 quiet shell", "-no-reboot", .. arguments]);
        guest.WaitForSerial("SHELL", 240);
        return guest;
    }

    /// <summary>Waits, in the guest, for the input device of a name.</summary>
    private static string EventsOf(Guest guest, string name) =>
        guest.Ask($"for i in 1 2 3 4 5 6 7 8 9; do e=$(grep -A 5 '{name}' /proc/bus/input/devices | sed -n 's/.*\\(event[0-9]*\\).*/\\1/p'); [ -n \"$e\" ] && break; sleep 1; done; echo $e");

    [Fact]
    public void Linux_prints_hears_the_mouse_sets_alarms_and_obeys_the_power_button()
    {
        using var guest = Linux("-parallel", $"file:{At("paper")}", "-rtc", "base=2020-02-28T23:59:30");

        // By the parallel port's interrupt.
        guest.Ask("echo one page >/dev/lp0");
        Assert.Equal("one page\n", File.ReadAllText(At("paper")));

        // A mouse with a wheel: 24 bytes an event, the last 8 of which are kind, code and value.
        Assert.StartsWith("event", EventsOf(guest, "ImExPS/2"));
        var moved = guest.Begin($"dd if=/dev/input/{EventsOf(guest, "ImExPS/2")} bs=24 count=4 2>/dev/null | hexdump -v -e '12/2 \"%d \" \"\\n\"'");
        Thread.Sleep(500);
        guest.Hmp("mouse_move 7 -3");
        guest.Hmp("mouse_button 4");
        string[] events = [.. moved(30).Output.Split('\n').Select(l => string.Join(' ', l.Trim().Split(' ', StringSplitOptions.RemoveEmptyEntries)[8..12]))];
        Assert.Equal(["2 0 7 0", "2 1 -3 -1", "0 0 0 0", "1 273 1 0"], events);

        // An alarm past the end of February: the date goes on, and the alarm is over.
        guest.Ask("echo +3 >/sys/class/rtc/rtc0/wakealarm");
        Assert.NotEqual("", guest.Ask("cat /sys/class/rtc/rtc0/wakealarm"));
        guest.Ask("sleep 5");
        Assert.Equal("", guest.Ask("cat /sys/class/rtc/rtc0/wakealarm"));

        // The speaker, by an event of kind 18 (sound), code 2 (tone), 440 Hz: gate and output are on, and the timer's output swings.
        string zeroes = string.Concat(Enumerable.Repeat("\\0", 16));
        guest.Ask($"printf '{zeroes}\\022\\0\\002\\0\\270\\001\\0\\0' >/dev/input/{EventsOf(guest, "PC Speaker")}");
        int[] port = [.. guest.Ask("i=0; while [ $i -lt 40 ]; do dd if=/dev/port bs=1 skip=97 count=1 2>/dev/null | hexdump -v -e '1/1 \"%d \"'; i=$((i+1)); done", 60)
            .Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(v => int.Parse(v, System.Globalization.CultureInfo.InvariantCulture))];
        Assert.All(port, v => Assert.Equal(3, v & 3));
        Assert.Contains(port, v => (v & 0x20) != 0);
        Assert.Contains(port, v => (v & 0x20) == 0);

        guest.Ask("mkdir -p /etc/acpi/PWRF; echo 'poweroff -f' >/etc/acpi/PWRF/00000080; chmod +x /etc/acpi/PWRF/00000080; (acpid -d >/dev/null 2>&1 &) ; sleep 1");
        guest.Qmp("system_powerdown");
        Assert.Equal(0, guest.WaitForExit(60));
    }

    [Theory]
    [InlineData(368_640)]
    [InlineData(737_280)]
    [InlineData(1_228_800)]
    [InlineData(2_949_120)]
    public void Linux_reads_and_writes_floppies_of_the_sizes_that_it_knows(int size)
    {
        byte[] content = new byte[size];
        new Random(size).NextBytes(content);
        File.WriteAllBytes(At("floppy"), content);
        string sum = Convert.ToHexStringLower(System.Security.Cryptography.MD5.HashData(content));
        using var guest = Linux("-drive", $"file={At("floppy")},format=raw,if=floppy");
        Assert.StartsWith(sum, guest.Ask("md5sum /dev/fd0", 120));
        guest.Ask("yes 'written by the guest' | dd of=/dev/fd0 bs=512 count=36 seek=20 conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/fd0 bs=512 skip=20 count=1 | grep -q written", 120);
        guest.LeaveShell();
        Assert.StartsWith("written by the guest\n", Encoding.ASCII.GetString(File.ReadAllBytes(At("floppy")), 20 * 512, 30));
    }
}
