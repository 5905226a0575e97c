using System.Security.Cryptography;
using System.Text.RegularExpressions;

namespace ImgKit.Guests;

/// <summary>A Debian that kvm-img took from format to format starts from every bus, is used, and leaves clean images behind.</summary>
public sealed partial class DebianTests
{
    public static TheoryData<string, string> Disks()
    {
        var all = new TheoryData<string, string>();
        foreach (string bus in (string[])["ide", "scsi", "virtio"])
        {
            foreach (string image in (string[])["qcow2", "vmdk", "stream", "cloop", "chain"])
                all.Add(bus, image);
        }
        return all;
    }

    [Theory]
    [MemberData(nameof(Disks))]
    public void Debian_starts_is_used_and_leaves_clean_images(string bus, string image)
    {
        string folder = Directory.CreateTempSubdirectory("debian").FullName;
        try
        {
            var disk = DebianDisk.Make(image, folder);
            byte[][] before = [.. disk.Bases.Select(Digest)];
            string written = UseAndPowerOff(bus, disk);

            Tool.Run("kvm-img", "check", "-q", "-f", disk.Format, disk.Path);
            Assert.Equal(before, disk.Bases.Select(Digest));
            string raw = Path.Combine(folder, "after.raw");
            Tool.Run("kvm-img", "convert", "-f", disk.Format, "-O", "raw", disk.Path, raw);
            // The only partition starts at 1 MiB.
            Tool.Run("/usr/sbin/e2fsck", "-fn", raw + "?offset=1048576");
            string copy = Path.Combine(folder, "file");
            Tool.Run("/usr/sbin/debugfs", "-R", $"dump /root/file {copy}", raw + "?offset=1048576");
            Assert.Equal(written, Convert.ToHexStringLower(Digest(copy)));
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }

    /// <returns>the SHA-256 of the file that was written, as the guest computed it.</returns>
    private static string UseAndPowerOff(string bus, DebianDisk disk)
    {
        using var guest = new Guest("-m", "512", "-drive", $"file={disk.Path},format={disk.Format},if={bus}");
        guest.WaitForSerial(" login:", 600);
        guest.Command("root", "Password:", 60);
        guest.Command("root", "# ", 120);
        string source = guest.Command("findmnt -no SOURCE /; echo mounted", "\nmounted", 60);
        Assert.Contains(bus == "virtio" ? "/dev/vda1" : "/dev/sda1", source);
        string sum = guest.Command("dd if=/dev/urandom of=/root/file bs=1M count=16 2>/dev/null; sync; sha256sum /root/file; cp -r /etc /root/; echo writ''ten", "written", 120);
        string driver = guest.Command("cat /sys/block/*da/device/../../proc_name /sys/class/scsi_host/host*/proc_name 2>/dev/null; echo driv''er", "driver", 60);
        if (bus != "virtio")
            Assert.Contains(bus == "ide" ? "ata_piix" : "sym53c8xx", driver);
        guest.Type("poweroff\n");
        Assert.Equal(0, guest.WaitForExit(180));
        return Sum().Match(sum).Value;
    }

    private static byte[] Digest(string file)
    {
        using var content = File.OpenRead(file);
        return SHA256.HashData(content);
    }

    [GeneratedRegex("[0-9a-f]{64}")]
    private static partial Regex Sum();
}
