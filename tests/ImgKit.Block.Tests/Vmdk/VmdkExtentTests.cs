using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Block.Tests.Vmdk;

/// <summary>Descriptors and kinds of extents, also those that the peer drops or does not know.</summary>
public sealed class VmdkExtentTests
{
    private const string Head = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n";

    private static void WriteDescriptor(TestData.Folder folder, string type, params string[] extents) =>
        File.WriteAllText(folder.File("t.vmdk"), $"{Head}createType=\"{type}\"\n\n# Extent description\n{string.Join('\n', extents)}\n\n#DDB\nddb.adapterType = \"ide\"\n");

    private static byte[] Filled(int length, byte value) => Enumerable.Repeat(value, length).ToArray();

    [Fact]
    public void Zero_and_read_only_extents_keep_their_place()
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("a"), Filled(1 << 20, 1));
        File.WriteAllBytes(folder.File("c"), [.. Filled(512, 9), .. Filled(1 << 20, 3)]);
        WriteDescriptor(folder, "monolithicFlat", "RW 2048 FLAT \"a\" 0", "RW 2048 ZERO", "RDONLY 2048 FLAT \"c\" 1");
        byte[] expected = [.. Filled(1 << 20, 1), .. Filled(1 << 20, 0), .. Filled(1 << 20, 3)];
        using var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false);
        Assert.Equal(3 << 20, image.Length);
        Assert.True(expected.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        var zero = image.GetExtent(1 << 20, 2 << 20);
        Assert.True(zero is { IsZero: true, Length: 1 << 20 });
        image.Write(100, [5]);
        var e = Assert.Throws<ImageException>(() => image.Write(2 << 20, [5]));
        Assert.Equal(ImageErrorKind.ReadOnly, e.Kind);
        Assert.Throws<ImageException>(() => image.Write(1 << 20, [5]));
        image.WriteZeroes(1 << 20, 1 << 20);
    }

    [Fact]
    public void A_hole_in_a_flat_extent_is_zero_and_has_its_place()
    {
        using var folder = new TestData.Folder();
        VmdkPeerTests.Create(folder.File("t.vmdk"), 4 << 20, "subformat=monolithicFlat");
        using var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false);
        image.Write(1 << 20, Filled(1 << 20, 1));
        var e = image.GetExtent(2 << 20, 2 << 20);
        Assert.True(e is { IsZero: true, IsData: true, HostOffset: 2 << 20, Length: 2 << 20 });
        Assert.True(image.GetExtent(1 << 20, 3 << 20) is { IsZero: false, IsData: true, Length: 1 << 20 });
    }

    [Fact]
    public void What_is_marked_NOACCESS_is_not_read()
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("a"), Filled(4096, 1));
        WriteDescriptor(folder, "custom", "RW 8 FLAT \"a\" 0", "NOACCESS 8 FLAT \"does-not-exist\" 0");
        using var image = VmdkPeerTests.Open(folder.File("t.vmdk"));
        Assert.Equal(8192, image.Length);
        byte[] b = new byte[4096];
        image.Read(0, b);
        var e = Assert.Throws<ImageException>(() => image.Read(4000, new byte[200]));
        Assert.Contains("NOACCESS", e.Message, StringComparison.Ordinal);
        Assert.False(image.GetExtent(4096, 4096).IsZero);
    }

    [Theory]
    [InlineData("RW 8 FLAT \"a\"")]
    [InlineData("RW 8 FLAT \"a\" -1")]
    [InlineData("RW -8 FLAT \"a\" 0")]
    [InlineData("RW 0 FLAT \"a\" 0")]
    [InlineData("RW 8")]
    [InlineData("RW 8 FLAT \"a 0")]
    [InlineData("RW 99999999999999999999 FLAT \"a\" 0")]
    [InlineData("RW 8 VMFS \"a\" 1")]
    [InlineData("RW 8 SPARSE")]
    public void A_malformed_extent_line_is_named(string line)
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("a"), Filled(4096, 1));
        WriteDescriptor(folder, "monolithicFlat", line);
        var e = Assert.Throws<ImageException>(() => VmdkPeerTests.Open(folder.File("t.vmdk")));
        Assert.StartsWith("Invalid extent line: " + line, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("RW 8 VMFSRDM \"a\"", "vmfs", "Unsupported extent type 'VMFSRDM'")]
    [InlineData("RW 8 FLAT \"a\" 0", "fullDevice", "Unsupported image type 'fullDevice'")]
    [InlineData("RW 8 FLAT \"gone\" 0", "monolithicFlat", "Could not open '")]
    public void What_cannot_be_opened_is_refused_by_name(string line, string type, string message)
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("a"), Filled(4096, 1));
        WriteDescriptor(folder, type, line);
        Assert.StartsWith(message, Assert.Throws<ImageException>(() => VmdkPeerTests.Open(folder.File("t.vmdk"))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Keys_are_found_as_keys_and_other_lines_are_kept()
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("my CID=1.raw"), Filled(4096, 1));
        string text = "# Disk DescriptorFile\r\nversion=1\r\n# CID=deadbeef is a comment\r\nnotCID=1\r\nencoding=\"windows-1252\"\r\nParentCid = ffffffff\r\n"
            + "cid = 0000abcd\r\nCREATETYPE = \"monolithicFlat\"\r\n\r\nrw 8 flat \"my CID=1.raw\" 0\r\n\r\nddb.comment = \"a = b\"\r\nunknown line\r\n";
        File.WriteAllText(folder.File("t.vmdk"), text);
        using (var image = (BlockDevice)VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
        {
            Assert.Equal(0xabcdL, ((IImageDetails)image).FormatSpecific!.Find(p => p.Key == "cid").Value);
            image.Write(0, [2]);
        }
        string after = File.ReadAllText(folder.File("t.vmdk"));
        Assert.DoesNotContain("0000abcd", after, StringComparison.Ordinal);
        Assert.Equal(text, System.Text.RegularExpressions.Regex.Replace(after, "\ncid = [0-9a-f]{8}\r", "\ncid = 0000abcd\r"));
    }

    [Fact]
    public void A_descriptor_in_an_old_code_page_is_kept_byte_for_byte()
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("a"), Filled(4096, 1));
        byte[] text = Encoding.Latin1.GetBytes(Head + "createType=\"monolithicFlat\"\nRW 8 FLAT \"a\" 0\nddb.comment = \"Gr\u00f6\u00dfe\"\n");
        File.WriteAllBytes(folder.File("t.vmdk"), text);
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
            image.Write(0, [2]);
        string after = Encoding.Latin1.GetString(File.ReadAllBytes(folder.File("t.vmdk")));
        Assert.Equal(Encoding.Latin1.GetString(text), System.Text.RegularExpressions.Regex.Replace(after, "\nCID=[0-9a-f]{8}", "\nCID=12345678"));
    }

    [Fact]
    public void A_disk_of_no_size_opens()
    {
        using var folder = new TestData.Folder();
        foreach (string kind in (string[])["monolithicSparse", "streamOptimized"])
        {
            VmdkPeerTests.Create(folder.File(kind), 0, "subformat=" + kind);
            using var image = VmdkPeerTests.Open(folder.File(kind));
            Assert.Equal(0, image.Length);
        }
    }

    [Fact]
    public void A_renamed_stream_opens()
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(1 << 20, 3);
        File.WriteAllBytes(folder.File("raw"), data);
        Peer.QemuImg("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", folder.File("raw"), folder.File("name.vmdk"));
        File.Move(folder.File("name.vmdk"), folder.File("other"));
        using var image = new ImageOpener(policy: ReferencePolicy.DenyAll).Open(folder.File("other"), null, OpenSettings.ReadOnlyDefault);
        Assert.True(data.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
    }

    [Fact]
    public void Extents_go_through_the_gate()
    {
        using var folder = new TestData.Folder();
        Directory.CreateDirectory(folder.File("in"));
        File.WriteAllBytes(folder.File("secret"), Filled(4096, 1));
        File.WriteAllText(folder.File("in/t.vmdk"), Head + "createType=\"monolithicFlat\"\nRW 8 FLAT \"../secret\" 0\n");
        var opener = new ImageOpener(policy: ReferencePolicy.SameFolder);
        var e = Assert.Throws<ImageException>(() => opener.Open(folder.File("in/t.vmdk"), null, OpenSettings.ReadOnlyDefault));
        Assert.Equal(ImageErrorKind.Denied, e.Kind);
    }

    [Fact]
    public void An_extent_is_never_probed_for_a_format()
    {
        using var folder = new TestData.Folder();
        Peer.QemuImg("create", "-q", "-f", "qcow2", folder.File("a"), "1M");
        byte[] qcow2 = File.ReadAllBytes(folder.File("a"));
        WriteDescriptor(folder, "monolithicFlat", $"RW {qcow2.Length / 512} FLAT \"a\" 0");
        using var image = VmdkPeerTests.Open(folder.File("t.vmdk"));
        Assert.True(qcow2.AsSpan(0, qcow2.Length / 512 * 512).SequenceEqual(VmdkPeerTests.ReadAll(image)));
    }

    /// <summary>An empty COWD extent.</summary>
    private static byte[] NewCowd(int sectors, int grainSectors)
    {
        int entries = (sectors + 4096 * grainSectors - 1) / (4096 * grainSectors);
        int free = 4 + (entries * 4 + 511) / 512;
        byte[] b = new byte[free * 512];
        "COWD"u8.CopyTo(b);
        int[] fields = [1, 3, sectors, grainSectors, 4, entries, free, 10, 16, 63];
        for (int i = 0; i < fields.Length; i++)
            BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(4 + i * 4), fields[i]);
        return b;
    }

    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    public void Cowd_extents_are_written_and_the_peer_reads_them(int grainSectors)
    {
        using var folder = new TestData.Folder();
        const int sectors = 20_000;
        File.WriteAllBytes(folder.File("t-delta.vmdk"), NewCowd(sectors, grainSectors));
        WriteDescriptor(folder, "vmfsSparse", $"RW {sectors} VMFSSPARSE \"t-delta.vmdk\"");
        byte[] model = new byte[sectors * 512];
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
        {
            Assert.Equal(model.Length, image.Length);
            var random = new Random(grainSectors);
            for (int i = 0; i < 60; i++)
            {
                int at = random.Next(model.Length), n = Math.Min(random.Next(1, 100_000), model.Length - at);
                random.NextBytes(model.AsSpan(at, n));
                image.Write(at, model.AsSpan(at, n));
            }
            Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        }
        byte[] file = File.ReadAllBytes(folder.File("t-delta.vmdk"));
        Assert.True(BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(28)) * 512L >= file.Length);
        File.WriteAllBytes(folder.File("raw"), model);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), folder.File("t.vmdk"));
        using var again = VmdkPeerTests.Open(folder.File("t.vmdk"));
        Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(again)));
        Assert.Equal(0, ((ICheckableImage)again).Check(CheckRepair.None, _ => { }).Corruptions);
    }

    [Fact]
    public void SeSparse_extents_are_read_as_the_peer_reads_them()
    {
        using var folder = new TestData.Folder();
        const int grains = 10_000;
        var words = new Dictionary<int, ulong>
        {
            [0] = 0xCAFEBABE,
            [1] = 0x200000001,
            [2] = grains * 8,
            [3] = 8,
            [4] = 64,
            [10] = 1,
            [11] = 1,
            [12] = 2,
            [13] = 1,
            [14] = 3,
            [15] = 1,
            [16] = 8,          // grain directory
            [17] = 1,
            [18] = 16,         // grain tables
            [19] = 64 * 3,
            [20] = 4,
            [21] = 1,
            [22] = 5,
            [23] = 1,
            [24] = 1024,       // grains
            [25] = 8 * 5000,
        };
        byte[] file = new byte[1024 * 512 + 5000 * 4096];
        foreach (var (i, v) in words)
            BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(i * 8), v);
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(512), 0xCAFECAFE);
        // Tables 2, 0 and none for the three thirds of the disk.
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(8 * 512), 0x1000000000000002);
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(8 * 512 + 8), 0x1000000000000000);
        byte[] model = new byte[grains * 4096];
        var random = new Random(1);
        for (int g = 0, next = 0; g < 8192; g++)
        {
            int table = g < 4096 ? 2 : 0;
            ulong entry = random.Next(4) switch { 0 => 0, 1 => 0x1000000000000000, 2 => 0x2000000000000000, _ => 0x3000000000000000 };
            if (entry >> 60 == 3 && next < 5000)
            {
                ulong n = (ulong)next++;
                entry |= ((n & 0xFFF) << 48) | (n >> 12);
                random.NextBytes(model.AsSpan(g * 4096, 4096));
                model.AsSpan(g * 4096, 4096).CopyTo(file.AsSpan((int)(1024 * 512 + (long)n * 4096)));
            }
            else if (entry >> 60 == 3)
            {
                entry = 0;
            }
            BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan((16 + table * 64) * 512 + g % 4096 * 8), entry);
        }
        File.WriteAllBytes(folder.File("t-sesparse.vmdk"), file);
        WriteDescriptor(folder, "seSparse", $"RW {grains * 8} SESPARSE \"t-sesparse.vmdk\"");
        using var image = VmdkPeerTests.Open(folder.File("t.vmdk"));
        Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).Corruptions);
        File.WriteAllBytes(folder.File("raw"), model);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), folder.File("t.vmdk"));
        Assert.True(image.IsReadOnly);
    }

    [Fact]
    public void A_table_that_was_never_made_is_made_when_needed()
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        VmdkPeerTests.Create(file, 100 << 20);
        byte[] b = File.ReadAllBytes(file);
        long rgd = BinaryPrimitives.ReadInt64LittleEndian(b.AsSpan(48)) * 512, gd = BinaryPrimitives.ReadInt64LittleEndian(b.AsSpan(56)) * 512;
        b.AsSpan((int)rgd + 4, 4).Clear();
        b.AsSpan((int)gd + 4, 4).Clear();
        File.WriteAllBytes(file, b);
        byte[] data = Filled(300_000, 8);
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
            image.Write(40 << 20, data);
        using (var again = VmdkPeerTests.Open(file))
        {
            byte[] read = new byte[data.Length];
            again.Read(40 << 20, read);
            Assert.True(data.AsSpan().SequenceEqual(read));
            Assert.Equal(0, ((ICheckableImage)again).Check(CheckRepair.None, _ => { }).Corruptions);
        }
        Peer.QemuIo(file, "vmdk", "read -P 8 40M 300000");
    }

    [Fact]
    public void Parent_rules_are_the_peers()
    {
        using var folder = new TestData.Folder();
        VmdkPeerTests.Create(folder.File("p.vmdk"), 1 << 20);
        using (var p = VmdkPeerTests.Open(folder.File("p.vmdk"), readOnly: false))
            p.Write(0, Filled(1 << 20, 1));
        VmdkPeerTests.Create(folder.File("c.vmdk"), 1 << 20, "backing_file=p.vmdk,backing_fmt=vmdk");
        Peer.QemuIo(folder.File("c.vmdk"), "vmdk", "read -P 1 0 1M", "write -P 2 1000 1000");
        using (var c = VmdkPeerTests.Open(folder.File("c.vmdk"), readOnly: false))
        {
            byte[] all = VmdkPeerTests.ReadAll(c);
            Assert.True(all[999] == 1 && all[1000] == 2 && all[2000] == 1 && all[^1] == 1);
            Assert.Equal("p.vmdk", ((IBackedImage)c).BackingFileName);
        }
        // The peer writes the parent: the child is no longer its child, for both.
        Peer.QemuIo(folder.File("p.vmdk"), "vmdk", "write -P 3 0 512");
        Assert.NotEqual(0, Peer.TryRun("qemu-io", "-f", "vmdk", "-c", "read 500k 512", folder.File("c.vmdk")).Code);
        using (var c = VmdkPeerTests.Open(folder.File("c.vmdk"), readOnly: false))
        {
            var e = Assert.Throws<ImageException>(() => c.Read(500 << 10, new byte[512]));
            Assert.Contains("has been changed", e.Message, StringComparison.Ordinal);
            Assert.Throws<ImageException>(() => c.Write(500 << 10, new byte[512]));
            // What lies in the child itself can be read.
            c.Read(1000, new byte[1000]);
            ((IBackedImage)c).ChangeBackingFile("p.vmdk", "vmdk");
            c.Read(500 << 10, new byte[512]);
        }
        Peer.QemuIo(folder.File("c.vmdk"), "vmdk", "read -P 1 500k 512");
        using (var c = VmdkPeerTests.Open(folder.File("c.vmdk"), readOnly: false))
            ((IBackedImage)c).ChangeBackingFile(null, null);
        Peer.QemuIo(folder.File("c.vmdk"), "vmdk", "read -P 0 500k 512", "read -P 2 1000 1000");
        Assert.DoesNotContain("backing", Peer.QemuImg("info", folder.File("c.vmdk")), StringComparison.Ordinal);
    }

    [Fact]
    public void Only_vmdk_images_are_parents()
    {
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("raw"), new byte[1 << 20]);
        var e = Assert.Throws<ImageException>(() => VmdkPeerTests.Create(folder.File("c.vmdk"), 1 << 20, $"backing_file={folder.File("raw")}"));
        Assert.Equal("Invalid backing file format: raw. Must be vmdk", e.Message);
    }

    [Theory]
    [InlineData("subformat=nonsense", "invalid parameter value: nonsense")]
    [InlineData("adapter_type=nonsense", "invalid parameter value: nonsense")]
    [InlineData("compat6=on,hwversion=5", "compat6 cannot be enabled with hwversion set")]
    [InlineData("subformat=monolithicFlat,zeroed_grain=on", "Flat image can't enable zeroed grain")]
    [InlineData("subformat=monolithicFlat,backing_file=x,backing_fmt=vmdk", "Flat image can't have backing file")]
    [InlineData("backing_fmt=raw", "backing_file must be a vmdk image")]
    public void Create_refuses_as_the_peer_does(string options, string message)
    {
        using var folder = new TestData.Folder();
        VmdkPeerTests.Create(folder.File("x"), 1 << 20);
        Assert.Equal(message, Assert.Throws<ImageException>(() => VmdkPeerTests.Create(folder.File("t.vmdk"), 1 << 20, options)).Message);
        var (code, output) = Peer.TryRun("qemu-img", "create", "-f", "vmdk", "-o", options, folder.File("t.vmdk"), "1M");
        Assert.NotEqual(0, code);
        Assert.Contains(message, output, StringComparison.Ordinal);
    }

    [Fact]
    public void Reproducible_images_are_equal()
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(1 << 20, 2);
        foreach (string kind in (string[])["monolithicSparse", "streamOptimized", "monolithicFlat"])
        {
            string[] made = new string[2];
            for (int i = 0; i < 2; i++)
            {
                string file = folder.File("t.vmdk");
                VmdkPeerTests.Create(file, data.Length, "subformat=" + kind, reproducible: true);
                using (var image = new ImageOpener().Open(file, "vmdk", new OpenSettings { Reproducible = true }))
                    image.Write(0, data);
                made[i] = System.Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(file)));
            }
            Assert.Equal(made[0], made[1]);
        }
    }

    [Theory]
    [InlineData("KDMV", true)]
    [InlineData("COWD", true)]
    [InlineData("# Disk DescriptorFile\nversion=1\n", true)]
    [InlineData("# a\n\n   \n# b\r\nversion=3\r\n", true)]
    [InlineData("version=4\n", false)]
    [InlineData("# x\nCID=1\nversion=1\n", false)]
    [InlineData("# no end", false)]
    public void Probing_follows_the_version_line(string head, bool isVmdk) =>
        Assert.Equal(isVmdk ? 100 : 0, DriverCatalogue.Default.Get("vmdk").Probe!(Encoding.ASCII.GetBytes(head), "x", new MemoryDevice()));
}
