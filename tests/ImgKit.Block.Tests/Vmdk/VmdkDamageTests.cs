using System.Buffers.Binary;

namespace ImgKit.Block.Tests.Vmdk;

/// <summary>What damage does: an error of one line, or a repair; never a crash, a hang, or other content without a word.</summary>
public sealed class VmdkDamageTests
{
    private const int Size = 2 << 20;

    private static (string File, byte[] Data) Make(TestData.Folder folder, string options = "")
    {
        byte[] data = TestData.Mixed(Size, 40);
        data.AsSpan(0, 1 << 20).Fill(1);
        File.WriteAllBytes(folder.File("raw"), data);
        VmdkPeerTests.Create(folder.File("t.vmdk"), Size, options);
        using var target = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false);
        VmdkPeerTests.Convert(folder.File("raw"), "raw", target);
        return (folder.File("t.vmdk"), data);
    }

    private static (CheckResult Result, List<string> Lines) Check(string file, CheckRepair repair)
    {
        var lines = new List<string>();
        using var image = new ImageOpener().Open(file, "vmdk", new OpenSettings { ReadOnly = repair == CheckRepair.None, ForCheck = true });
        return (((ICheckableImage)image).Check(repair, lines.Add), lines);
    }

    /// <summary>Byte offsets of the two directories and of their first tables.</summary>
    private static (int Rgd, int Gd, int RedundantTable, int Table) Places(byte[] b)
    {
        int rgd = (int)BinaryPrimitives.ReadInt64LittleEndian(b.AsSpan(48)) * 512, gd = (int)BinaryPrimitives.ReadInt64LittleEndian(b.AsSpan(56)) * 512;
        return (rgd, gd, BinaryPrimitives.ReadInt32LittleEndian(b.AsSpan(rgd)) * 512, BinaryPrimitives.ReadInt32LittleEndian(b.AsSpan(gd)) * 512);
    }

    [Theory]
    [InlineData("table")]
    [InlineData("redundant table")]
    [InlineData("table wiped")]
    [InlineData("directory entry")]
    [InlineData("redundant directory entry")]
    [InlineData("directory entry wiped")]
    public void One_directory_repairs_the_other(string damage)
    {
        using var folder = new TestData.Folder();
        var (file, data) = Make(folder);
        byte[] b = File.ReadAllBytes(file);
        var (rgd, gd, redundantTable, table) = Places(b);
        switch (damage)
        {
            case "table":
                BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(table + 8), 0x7FFFFFF);
                break;
            case "redundant table":
                BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(redundantTable + 8), 0);
                break;
            case "table wiped":
                b.AsSpan(table, 2048).Clear();
                break;
            case "directory entry":
                BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(gd), 0x7FFFFFF);
                break;
            case "redundant directory entry":
                BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(rgd), 0);
                break;
            default:
                BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(gd), 0);
                break;
        }
        File.WriteAllBytes(file, b);
        var (found, lines) = Check(file, CheckRepair.None);
        Assert.True(found.Corruptions > 0);
        Assert.All(lines, l => Assert.StartsWith("ERROR: ", l, StringComparison.Ordinal));
        var (repaired, _) = Check(file, CheckRepair.All);
        Assert.True(repaired.CorruptionsFixed > 0);
        Assert.Equal(0, repaired.Corruptions);
        Assert.Equal(0, Check(file, CheckRepair.None).Result.Corruptions);
        using var image = VmdkPeerTests.Open(file);
        Assert.True(data.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), file);
    }

    [Fact]
    public void Entries_that_both_are_wrong_are_reported_and_cleared()
    {
        using var folder = new TestData.Folder();
        var (file, _) = Make(folder);
        byte[] b = File.ReadAllBytes(file);
        var (_, _, redundantTable, table) = Places(b);
        int second = BinaryPrimitives.ReadInt32LittleEndian(b.AsSpan(table + 4));
        foreach (int t in (int[])[table, redundantTable])
        {
            BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(t), 0x7FFFFFF);
            BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(t + 8), second);
            BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(t + 12), 3);
        }
        File.WriteAllBytes(file, b);
        var (result, lines) = Check(file, CheckRepair.None);
        Assert.Equal(3, result.Corruptions);
        Assert.Contains("ERROR: cluster offset for sector 0 points after EOF", lines);
        Assert.Contains(lines, l => l.Contains("shares offset", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains("into the metadata", StringComparison.Ordinal));
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
            Assert.Throws<ImageException>(() => image.Write(3 * 65536, new byte[512]));
        Assert.Equal(3, Check(file, CheckRepair.All).Result.CorruptionsFixed);
        Assert.Equal(0, Check(file, CheckRepair.None).Result.Corruptions);
    }

    [Fact]
    public void Space_that_a_repair_adds_is_nobodys_grain()
    {
        using var folder = new TestData.Folder();
        var (file, _) = Make(folder);
        byte[] b = File.ReadAllBytes(file);
        var (_, gd, redundantTable, _) = Places(b);
        BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(gd), 0x7FFFFFF);
        BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(redundantTable + 12), (b.Length + 65535) / 65536 * 128);
        File.WriteAllBytes(file, b);
        Assert.Equal(2, Check(file, CheckRepair.All).Result.CorruptionsFixed);
        Assert.Equal(0, Check(file, CheckRepair.None).Result.Corruptions);
    }

    [Fact]
    public void A_stream_grain_with_a_wrong_marker_is_found()
    {
        using var folder = new TestData.Folder();
        var (file, _) = Make(folder, "subformat=streamOptimized");
        byte[] b = File.ReadAllBytes(file);
        int gd = (int)BinaryPrimitives.ReadInt64LittleEndian(b.AsSpan(56)) * 512;
        int table = BinaryPrimitives.ReadInt32LittleEndian(b.AsSpan(gd)) * 512;
        int grain = BinaryPrimitives.ReadInt32LittleEndian(b.AsSpan(table)) * 512;
        b[grain] ^= 1;
        File.WriteAllBytes(file, b);
        var (result, lines) = Check(file, CheckRepair.None);
        Assert.Equal(1, result.Corruptions);
        Assert.Contains("marker", Assert.Single(lines), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("subformat=monolithicSparse")]
    [InlineData("subformat=monolithicSparse,zeroed_grain=on")]
    [InlineData("subformat=streamOptimized")]
    [InlineData("footer")]
    public void Flipped_bits_give_errors_of_one_line_or_wrong_data_but_no_crash(string options)
    {
        using var folder = new TestData.Folder();
        var (file, data) = Make(folder, options == "footer" ? "" : options);
        if (options == "footer")
        {
            using var source = VmdkPeerTests.Open(file);
            using var output = File.Create(folder.File("s.vmdk"));
            DriverCatalogue.Default.Get("vmdk").WriteStream!(new StreamWriteContext { Source = source, Output = output, Options = new BlockOptions() });
            file = folder.File("s.vmdk");
        }
        byte[] good = File.ReadAllBytes(file);
        int metadata = options == "footer" ? 512 : 128 * 512;
        var random = new Random(5);
        int errors = 0;
        for (int i = 0; i < 120; i++)
        {
            byte[] bad = (byte[])good.Clone();
            for (int k = random.Next(1, 5); k > 0; k--)
            {
                int at = random.Next(4) switch
                {
                    0 => random.Next(80),
                    1 => random.Next(512, 1100),
                    2 when options == "footer" => bad.Length - 1 - random.Next(6000),
                    2 => random.Next(21 * 512, metadata),
                    _ => random.Next(bad.Length),
                };
                bad[at] = i % 2 == 0 ? (byte)random.Next(256) : (byte)(bad[at] ^ (1 << random.Next(8)));
            }
            if (i % 10 == 9)
                bad = bad[..random.Next(bad.Length)];
            File.WriteAllBytes(file, bad);
            try
            {
                using var image = new ImageOpener(policy: ReferencePolicy.DenyAll).Open(file, "vmdk", OpenSettings.ReadOnlyDefault);
                ((ICheckableImage)image).Check(CheckRepair.None, l => Assert.DoesNotContain('\n', l));
                for (long at = 0; at < Math.Min(image.Length, 1L << 30);)
                {
                    var e = image.GetExtent(at, Math.Min(image.Length - at, 1 << 20));
                    if (e.IsData)
                        image.Read(at, new byte[e.Length]);
                    at += e.Length;
                }
            }
            catch (ImageException e)
            {
                errors++;
                Assert.DoesNotContain('\n', e.Message);
            }
        }
        Assert.True(errors > 25, $"{errors} errors");
        Assert.NotEmpty(data);
    }

    [Theory]
    [InlineData(20, 8, ulong.MaxValue, "Invalid granularity, image may be corrupt")]
    [InlineData(44, 4, 0xFFFFFFFFul, "L2 table size too big")]
    [InlineData(44, 4, 0ul, "L1 entry size is invalid")]
    [InlineData(4, 4, 4ul, "Unsupported VMDK version 4")]
    [InlineData(16, 4, 0xFFFFFFFFul, "L1 size too big")]
    [InlineData(64, 8, 100_000ul, "File truncated, expecting at least 51200000 bytes")]
    [InlineData(56, 8, ulong.MaxValue, "Invalid footer")]
    public void Header_errors_are_worded_as_the_peer_words_them(int offset, int size, ulong value, string message)
    {
        using var folder = new TestData.Folder();
        var (file, _) = Make(folder);
        byte[] b = File.ReadAllBytes(file);
        BitConverter.GetBytes(value).AsSpan(0, size).CopyTo(b.AsSpan(offset));
        File.WriteAllBytes(file, b);
        Assert.Equal(message, Assert.Throws<ImageException>(() => VmdkPeerTests.Open(file)).Message);
        Assert.Contains(message, Peer.TryRun("qemu-img", "info", file).Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Version_3_without_compression_is_read_only()
    {
        using var folder = new TestData.Folder();
        var (file, data) = Make(folder);
        byte[] b = File.ReadAllBytes(file);
        b[4] = 3;
        File.WriteAllBytes(file, b);
        Assert.Equal("VMDK version 3 must be read only", Assert.Throws<ImageException>(() => VmdkPeerTests.Open(file, readOnly: false)).Message);
        using var image = VmdkPeerTests.Open(file);
        Assert.True(data.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
    }
}
