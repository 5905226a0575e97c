namespace ImgKit.Guests;

/// <summary>Linux as its linker makes it, without the code that unpacks it: by its PVH entry (64 bits), and by its plain one (32 bits).</summary>
public sealed class VmlinuxTests
{
    /// <summary>The vmlinux that a bzImage carries. Source: Linux, Documentation/arch/x86/boot.rst (payload_offset, payload_length).</summary>
    private static void ExtractKernel(string image, string to)
    {
        byte[] file = File.ReadAllBytes(image);
        int setup = (file[0x1F1] + 1) * 512;
        int at = setup + BitConverter.ToInt32(file, 0x248), length = BitConverter.ToInt32(file, 0x24C);
        var payload = file.AsSpan(at, length);
        string[] unpack = payload switch
        {
            [0x02, 0x21, 0x4C, 0x18, ..] => ["lz4", "-dc"],
            [0xFD, (byte)'7', ..] => ["xz", "-dc", "--single-stream"],
            [0x28, 0xB5, 0x2F, 0xFD, ..] => ["zstd", "-dc"],
            _ => ["gzip", "-dc"],
        };
        File.WriteAllBytes(to + ".packed", payload);
        // The size of what is packed stands behind it, which the programs take for trash.
        Tool.Try("sh", "-c", $"{string.Join(' ', unpack)} <'{to}.packed' >'{to}'");
        Assert.Equal(BitConverter.ToInt32(payload[^4..]), new FileInfo(to).Length);
    }

    [Theory]
    [InlineData("cloud", "qemu64", " x86_64 cpus 1")]
    [InlineData("686", "pentium2", "-686 i686 cpus 1")]
    public void A_vmlinux_starts_as_it_is(string flavour, string processor, string text)
    {
        var (kernel, disk) = Repository.MakeKernel(flavour);
        string folder = Directory.CreateTempSubdirectory("vmlinux").FullName;
        try
        {
            ExtractKernel(kernel, Path.Combine(folder, "vmlinux"));
            using var guest = new Guest("-m", "256", "-cpu", processor, "-vga", "none", "-kernel", Path.Combine(folder, "vmlinux"), "-initrd", disk,
                "-append", "console=ttyS0 panic=-1 quiet", "-no-reboot");
            Assert.Equal(0, guest.WaitForExit(240));
            Assert.Contains(text, guest.Serial);
            Assert.Contains("INIT-DONE", guest.Serial);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
