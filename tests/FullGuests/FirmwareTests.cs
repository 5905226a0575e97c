namespace ImgKit.Guests;

/// <summary>Other firmware than SeaBIOS, and a hypervisor as the guest.</summary>
public sealed class FirmwareTests : IDisposable
{
    private static readonly string[] Kernel = Tool.Run(Path.Combine(Repository.Root, "scripts/guest-kernel")).Split('\n');
    private readonly string _folder = Directory.CreateTempSubdirectory("firmware").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    [Fact]
    public void Uefi_keeps_its_variables_in_flash_and_starts_linux()
    {
        const string Variable = "setvar imgkit -guid 12345678-1234-1234-1234-123456789abc";
        File.Copy("/usr/share/OVMF/OVMF_VARS_4M.fd", At("variables.fd"));
        using (var file = File.Create(At("disk.img")))
            file.SetLength(64 << 20);
        Tool.Run("/usr/bin/mformat", "-i", At("disk.img"), "-F", "::");
        Tool.Run("/usr/bin/mcopy", "-i", At("disk.img"), Kernel[0], "::/linux.efi");
        Tool.Run("/usr/bin/mcopy", "-i", At("disk.img"), Kernel[1], "::/init.gz");
        string[] scripts = [$"{Variable} -bs -rt -nv =L\"kept\"\r\nreset -s\r\n",
            $"{Variable}\r\nfs0:\r\nlinux.efi console=ttyS0,115200 quiet panic=-1 initrd=\\init.gz\r\n"];
        string serial = "";
        foreach (string script in scripts)
        {
            File.WriteAllText(At("startup.nsh"), script);
            Tool.Run("/usr/bin/mcopy", "-o", "-i", At("disk.img"), At("startup.nsh"), "::");
            using var guest = new Guest("-m", "512", "-smp", "2", "-drive", $"if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
                "-drive", $"if=pflash,format=raw,file={At("variables.fd")}", "-drive", $"if=virtio,format=raw,file={At("disk.img")}");
            Assert.Equal(0, guest.WaitForExit(300));
            serial = guest.Serial;
        }
        Assert.Contains("imgkit - 0008 Bytes", serial);
        Assert.Contains("cpus 2", serial);
        Assert.Contains("INIT-DONE", serial);
        Assert.Contains("reboot: Power down", serial);
    }

    [Fact]
    public void U_Boot_reads_a_disk_and_takes_commands()
    {
        using (var file = File.Create(At("disk.img")))
            file.SetLength(16 << 20);
        File.WriteAllText(At("note.txt"), "read by u-boot");
        Tool.Run("/usr/bin/mformat", "-i", At("disk.img"), "::");
        Tool.Run("/usr/bin/mcopy", "-i", At("disk.img"), At("note.txt"), "::");
        using var guest = new Guest("-m", "256", "-bios", "/usr/lib/u-boot/qemu-x86_64/u-boot.rom", "-drive", $"format=raw,file={At("disk.img")}");
        guest.WaitForSerial("Hit any key", 120);
        guest.Type("\n");
        guest.WaitForSerial("=> ", 120);
        guest.Type("ide reset; load ide 0 1000000 note.txt; md.b 1000000 e\n");
        guest.WaitForSerial("14 bytes read", 60);
        guest.WaitForSerial("read by u-boot", 60);
        guest.Quit();
    }

    [Fact]
    public void Xen_starts_as_a_multiboot_kernel_and_linux_on_it()
    {
        string xen = Tool.Run(Path.Combine(Repository.Root, "scripts/guest-xen")).Trim();
        using var guest = new Guest("-m", "768", "-kernel", xen, "-append", "console=com1 com1=115200 dom0_mem=400M noreboot",
            "-initrd", $"{Kernel[0]} console=hvc0 earlyprintk=xen panic=-1,{Kernel[1]}");
        guest.WaitForSerial("Xen version", 180);
        guest.WaitForSerial("Run /init as init process", 240);
        guest.WaitForSerial("Dom0 halted", 180);
        guest.Quit();
    }
}
