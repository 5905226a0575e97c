using System.Text;

namespace ImgKit.Guests;

/// <summary>Media that come and go, as the guest's Linux sees them.</summary>
public sealed class MediaTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("media").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    /// <summary>A medium that begins with a text.</summary>
    private string Medium(string name, string text, int size)
    {
        byte[] content = new byte[size];
        Encoding.ASCII.GetBytes(text).CopyTo(content, 0);
        string path = Path.Combine(_folder, name);
        File.WriteAllBytes(path, content);
        return path;
    }

    [Fact]
    public void Linux_sees_discs_and_floppies_come_and_go()
    {
        var (kernel, ramDisk) = Repository.MakeKernel("amd64");
        string one = Medium("one", "disc one", 1 << 20), two = Medium("two", "disc two", 2 << 20), floppy = Medium("floppy", "floppy one", 1_474_560),
            other = Medium("other", "floppy two", 737_280);
        using var guest = new Guest("-m", "512", "-vga", "none", "-kernel", kernel, "-initrd", ramDisk, "-append", "console=ttyS0 panic=-1 quiet shell", "-no-reboot",
            "-drive", $"file={one},format=raw,media=cdrom,id=cd,index=2", "-drive", $"file={one},format=raw,if=scsi,media=cdrom,id=scd",
            "-drive", $"file={floppy},format=raw,if=floppy");
        guest.WaitForSerial("SHELL", 240);
        string Head(string device) => guest.Ask($"head -c 10 /dev/{device} | tr -d '\\0'");
        bool IsTrayOpen(string drive) => guest.Qmp("query-block").EnumerateArray().Single(b => b.GetProperty("device").GetString() == drive).GetProperty("tray_open").GetBoolean();

        foreach (var (drive, device) in ((string, string)[])[("cd", "sr0"), ("scd", "sr1")])
        {
            Assert.Equal("disc one", Head(device));
            Assert.Equal("4", guest.Ask($"tray status /dev/{device}"));

            // Another medium: its size and its content.
            Assert.Equal("", guest.Hmp($"change {drive} {two} raw"));
            Assert.True(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            Assert.False(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            Assert.Equal("disc two", Head(device));
            Assert.Equal("4096", guest.Ask($"cat /sys/block/{device}/size"));

            // None at all.
            Assert.Equal("", guest.Hmp($"eject {drive}"));
            Assert.True(IsTrayOpen(drive));
            Assert.True(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            Assert.Equal("2", guest.Ask($"tray status /dev/{device}"));
            Assert.NotEqual(0, guest.TryAsk($"dd if=/dev/{device} of=/dev/null bs=2048 count=1").Status);

            // Put in by a program that speaks QMP.
            guest.Qmp("blockdev-change-medium", new Dictionary<string, string> { ["device"] = drive, ["filename"] = one, ["format"] = "raw" });
            Assert.False(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            Assert.Equal("disc one", Head(device));

            // Held by the guest: who asks gets nothing, who uses force does.
            guest.Ask($"exec 9</dev/{device}");
            Assert.Contains("is locked and force was not specified", guest.Hmp($"eject {drive}"));
            Assert.Contains("is locked and force was not specified", guest.Hmp($"change {drive} {two} raw"));
            Assert.False(IsTrayOpen(drive));
            Assert.Contains("locked, tray closed", guest.Hmp("info block"));
            Assert.Equal("", guest.Hmp($"eject -f {drive}"));
            Assert.True(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            guest.Ask("exec 9<&-");
            Assert.Equal("", guest.Hmp($"change {drive} {two} raw"));
            guest.WaitForEvent("DEVICE_TRAY_MOVED", 20);
            Assert.Equal("disc two", Head(device));

            // Opened and closed by the guest itself, with the medium in it.
            guest.Ask($"tray open /dev/{device}");
            Assert.True(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            Assert.True(IsTrayOpen(drive));
            guest.Ask($"tray close /dev/{device}");
            Assert.False(guest.WaitForEvent("DEVICE_TRAY_MOVED", 20).GetProperty("data").GetProperty("tray-open").GetBoolean());
            Assert.Equal("disc two", Head(device));
        }

        Assert.Equal("floppy one", Head("fd0"));
        Assert.Equal("", guest.Hmp($"change floppy0 {other} raw"));
        Assert.Equal("floppy two", Head("fd0"));
        Assert.Equal("1440", guest.Ask("cat /sys/block/fd0/size"));
        Assert.Equal("", guest.Hmp("eject floppy0"));
        Assert.NotEqual(0, guest.TryAsk("head -c 1 /dev/fd0").Status);
        Assert.Equal("", guest.Hmp($"change floppy0 {floppy} raw read-only"));
        Assert.Equal("floppy one", Head("fd0"));
        Assert.NotEqual(0, guest.TryAsk("dd if=/dev/zero of=/dev/fd0 bs=512 count=1 conv=fsync").Status);
        guest.LeaveShell();
    }

    [Fact]
    public void Linux_sees_a_disk_grow()
    {
        var (kernel, ramDisk) = Repository.CloudKernel;
        string disk = Path.Combine(_folder, "disk");
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", disk, "8M");
        using var guest = new Guest("-m", "256", "-vga", "none", "-kernel", kernel, "-initrd", ramDisk, "-append", "console=ttyS0 panic=-1 quiet shell", "-no-reboot",
            "-drive", $"file={disk},if=virtio");
        guest.WaitForSerial("SHELL", 120);
        Assert.Equal("16384", guest.Ask("cat /sys/block/vda/size"));
        Assert.Equal("", guest.Hmp("block_resize virtio0 16M"));
        guest.Ask("for i in 1 2 3 4 5; do [ $(cat /sys/block/vda/size) = 32768 ] && break; sleep 1; done; [ $i != 5 ]");
        guest.Ask("echo last | dd of=/dev/vda bs=512 seek=32767 conv=fsync");
        guest.LeaveShell();
        Assert.Contains("\"virtual-size\": 16777216", Tool.Run("qemu-img", "info", "--output=json", disk));
        Tool.Run("qemu-io", "-f", "qcow2", "-c", "read -P 0x6c 16776704 1", disk);
    }
}
