using System.Security.Cryptography;

namespace ImgKit.Guests;

public sealed class BootTests
{
    private const string Rescue = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";

    [Fact]
    public void The_firmware_finds_no_bootable_device()
    {
        using var guest = new Guest("-m", "64");
        guest.WaitForScreen("No bootable device", 120);
        Assert.Equal("running", guest.Qmp("query-status").GetProperty("status").GetString());
        guest.Qmp("stop");
        Assert.Equal("paused", guest.Qmp("query-status").GetProperty("status").GetString());
        guest.Quit();
    }

    [Fact]
    public void Grub_starts_from_cd_and_its_menu_takes_keys()
    {
        using var guest = new Guest("-m", "64", "-cdrom", Rescue, "-boot", "d");
        guest.WaitForScreen("GNU/Hurd", 120);
        guest.Press("c");
        guest.WaitForScreen("grub>", 60);
        guest.Quit();
    }

    [Fact]
    public void Grub_starts_from_an_ide_disk_that_stays_as_it_was()
    {
        byte[] before = SHA256.HashData(File.ReadAllBytes(Rescue));
        using var guest = new Guest("-m", "64", "-snapshot", "-drive", $"file={Rescue},format=raw");
        guest.WaitForScreen("GNU/Hurd", 120);
        guest.Qmp("system_reset");
        guest.WaitForScreen("SeaBIOS", 60);
        guest.WaitForScreen("GNU/Hurd", 120);
        guest.Quit();
        Assert.Equal(before, SHA256.HashData(File.ReadAllBytes(Rescue)));
    }

    [Fact]
    public void Grub_starts_from_a_floppy()
    {
        using var guest = new Guest("-m", "64", "-fda", "/usr/lib/grub-rescue/grub-rescue-floppy.img", "-boot", "a", "-snapshot");
        guest.WaitForScreen("GNU/Hurd", 120);
        guest.Quit();
    }

    [Theory]
    [InlineData("scsi-hd", "disk")]
    [InlineData("scsi-cd", "cdrom")]
    public void Grub_starts_from_scsi(string device, string media)
    {
        using var guest = new Guest("-m", "64", "-snapshot", "-device", "lsi53c895a,id=adapter", "-drive", $"file={Rescue},format=raw,if=none,id=d,media={media}",
            "-device", $"{device},bus=adapter.0,drive=d,scsi-id=3,bootindex=0");
        guest.WaitForScreen("GNU/Hurd", 120);
        guest.Quit();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Linux_starts_and_powers_off(int processors)
    {
        var (kernel, disk) = Repository.CloudKernel;
        using var guest = new Guest("-m", "256", "-smp", $"{processors}", "-vga", "none", "-kernel", kernel, "-initrd", disk,
            "-append", "console=ttyS0 panic=-1 quiet", "-no-reboot");
        Assert.Equal(0, guest.WaitForExit(180));
        Assert.Contains($"cpus {processors}", guest.Serial);
        Assert.Contains("INIT-DONE", guest.Serial);
    }

    [Fact]
    public void Linux_reads_ide_disk_cd_and_virtio_disk_as_they_are()
    {
        var (kernel, ramDisk) = Repository.CloudKernel;
        string folder = Directory.CreateTempSubdirectory("disks").FullName;
        try
        {
            string[] names = ["sda", "sr0", "vda"];
            var sums = new Dictionary<string, string>();
            foreach (string name in names)
            {
                var content = new byte[4 << 20];
                new Random(name[0] + name[1]).NextBytes(content);
                File.WriteAllBytes(Path.Combine(folder, name), content);
                sums[name] = Convert.ToHexStringLower(MD5.HashData(content.AsSpan(0, 1 << 20)));
            }
            using var guest = new Guest("-m", "256", "-vga", "none", "-kernel", kernel, "-initrd", ramDisk, "-append", "console=ttyS0 panic=-1 quiet",
                "-drive", $"file={folder}/sda,format=raw,index=0", "-cdrom", $"{folder}/sr0", "-drive", $"file={folder}/vda,format=raw,if=virtio", "-no-reboot");
            Assert.Equal(0, guest.WaitForExit(240));
            foreach (string name in names)
                Assert.Contains($"MD5 {name} {sums[name]}", guest.Serial);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }

    [Fact]
    public void Linux_reads_and_writes_scsi_disks_and_a_floppy()
    {
        var (kernel, ramDisk) = Repository.MakeKernel("amd64");
        string folder = Directory.CreateTempSubdirectory("disks").FullName;
        try
        {
            string disk = Path.Combine(folder, "disk");
            var content = new byte[4 << 20];
            new Random(1).NextBytes(content);
            File.WriteAllBytes(disk, content);
            string sum = Convert.ToHexStringLower(MD5.HashData(content.AsSpan(0, 1 << 20)));
            string floppy = Path.Combine(folder, "floppy");
            File.WriteAllBytes(floppy, content[..1_474_560]);
            using var guest = new Guest("-m", "512", "-vga", "none", "-kernel", kernel, "-initrd", ramDisk, "-append", "console=ttyS0 panic=-1 quiet write", "-usb",
                "-drive", $"file={floppy},format=raw,if=floppy", "-drive", $"file={disk},format=raw,if=scsi", "-drive", $"file={Rescue},format=raw,if=scsi,media=cdrom", "-no-reboot");
            Assert.Equal(0, guest.WaitForExit(300));
            Assert.Contains("HOST sym53c8xx", guest.Serial);
            Assert.Contains("USB UHCI Host Controller", guest.Serial);
            Assert.Contains($"MD5 sda {sum}", guest.Serial);
            Assert.Contains("WRITTEN sda", guest.Serial);
            Assert.Contains($"MD5 fd0 {sum}", guest.Serial);
            Assert.Contains("WRITTEN fd0", guest.Serial);
            Assert.True(File.ReadAllBytes(floppy).AsSpan(512 << 10).StartsWith("written by the guest\n"u8));
            byte[] after = File.ReadAllBytes(disk);
            Assert.True(after.AsSpan(512 << 10).StartsWith("written by the guest\n"u8));
            Assert.Equal(content.AsSpan(0, 512 << 10).ToArray(), after.AsSpan(0, 512 << 10).ToArray());
            Assert.Equal(content.AsSpan(1 << 20).ToArray(), after.AsSpan(1 << 20).ToArray());
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
