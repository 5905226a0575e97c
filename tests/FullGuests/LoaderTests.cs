namespace ImgKit.Guests;

/// <summary>Loaders, memory tests and older kernels: processor modes and devices that Debian's own boot does not touch.</summary>
public sealed class LoaderTests
{
    [Theory]
    [InlineData("memtest86+ia32", "1")]
    [InlineData("memtest86+x64", "2")]
    public void Memtest_starts_from_cd_and_finds_no_error(string name, string processors)
    {
        // With less memory a test can be over between two looks at the screen; and the next time that it comes is minutes away.
        using var guest = new Guest("-m", "1024", "-smp", processors, "-cdrom", $"/usr/lib/memtest86+/{name}.iso", "-boot", "d");
        guest.WaitForScreen("Memtest86+", 120);
        guest.WaitForScreen(processors == "2" ? "2 Threads" : "Test #", 240);
        guest.WaitForScreen("Test #3", 300);
        guest.WaitForScreen("Errors: 0", 20);
        guest.Quit();
    }

    [Fact]
    public void Memtest_is_started_as_a_kernel_and_writes_to_the_serial_port()
    {
        using var guest = new Guest("-m", "32", "-kernel", "/boot/memtest86+x64.bin", "-append", "console=ttyS0,115200");
        guest.WaitForSerial("Memtest86+", 120);
        guest.WaitForSerial("Test #", 240);
        guest.Quit();
    }

    [Fact]
    public void Syslinux_starts_from_a_large_floppy_and_prints_the_memory_map()
    {
        string folder = Directory.CreateTempSubdirectory("floppy").FullName;
        try
        {
            string floppy = Path.Combine(folder, "floppy.img");
            using (var file = File.Create(floppy))
                file.SetLength(2880 << 10);
            File.WriteAllText(Path.Combine(folder, "syslinux.cfg"), "SERIAL 0 115200\nDEFAULT meminfo.c32\n");
            Tool.Run("/usr/bin/mformat", "-i", floppy, "-f", "2880", "::");
            Tool.Run("/usr/bin/syslinux", "--install", floppy);
            foreach (string module in (string[])["meminfo", "libcom32", "libutil"])
                Tool.Run("/usr/bin/mcopy", "-i", floppy, $"/usr/lib/syslinux/modules/bios/{module}.c32", "::");
            Tool.Run("/usr/bin/mcopy", "-i", floppy, Path.Combine(folder, "syslinux.cfg"), "::");
            using var guest = new Guest("-m", "64", "-fda", floppy, "-boot", "a");
            guest.WaitForSerial("SYSLINUX", 120);
            guest.WaitForSerial("usable", 120);
            guest.WaitForSerial("reserved", 30);
            guest.Quit();
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }

    [Fact]
    public void IPxe_starts_from_cd_and_takes_commands()
    {
        using var guest = new Guest("-m", "64", "-cdrom", "/usr/lib/ipxe/ipxe.iso", "-boot", "d");
        guest.WaitForScreen("iPXE", 120);
        guest.WaitForScreen("Ctrl-B", 120);
        guest.Press("ctrl-b");
        guest.WaitForScreen("iPXE>", 120);
        guest.Quit();
    }

    [Fact]
    public void Grub_starts_from_a_cd_that_is_a_cloop()
    {
        string folder = Directory.CreateTempSubdirectory("cloop").FullName;
        try
        {
            string image = Path.Combine(folder, "cd.cloop");
            Tool.Run("/usr/bin/create_compressed_fs", "-B", "65536", "/usr/lib/grub-rescue/grub-rescue-cdrom.iso", image);
            using var guest = new Guest("-m", "64", "-drive", $"file={image},format=cloop,media=cdrom", "-boot", "d");
            guest.WaitForScreen("GNU/Hurd", 120);
            guest.Quit();
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }

    [Fact]
    public void The_32_bit_installer_reaches_its_first_question()
    {
        var (kernel, ramDisk) = Repository.MakeKernel("installer");
        using var guest = new Guest("-m", "512", "-kernel", kernel, "-initrd", ramDisk, "-append", "console=ttyS0");
        guest.WaitForSerial("Select a language", 900);
        guest.Quit();
    }
}
