using ImgKit.Block.Jobs.Convert;

namespace ImgKit.Block.Tests.Vmdk;

/// <summary>Each of the two makes images, the other reads, writes, checks and compares them.</summary>
public sealed class VmdkPeerTests
{
    private const int Size = 6_000_128;

    private static readonly ImageOpener Opener = new();

    public static TheoryData<string> Creations =>
    [
        "subformat=monolithicSparse",
        "subformat=monolithicSparse,zeroed_grain=on",
        "subformat=monolithicSparse,adapter_type=lsilogic,hwversion=13",
        "subformat=monolithicSparse,compat6=on,adapter_type=buslogic,toolsversion=9999",
        "subformat=monolithicFlat",
        "subformat=monolithicFlat,adapter_type=legacyESX",
        "subformat=twoGbMaxExtentSparse",
        "subformat=twoGbMaxExtentSparse,zeroed_grain=on",
        "subformat=twoGbMaxExtentFlat",
        "subformat=streamOptimized",
        "subformat=streamOptimized,zeroed_grain=on,adapter_type=ide",
    ];

    internal static BlockOptions Options(string text)
    {
        var options = new BlockOptions();
        foreach (string pair in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
            options.Set(pair.Split('=')[0], pair.Split('=')[1]);
        return options;
    }

    internal static void Create(string file, long size, string options = "", ImageOpener? opener = null, bool reproducible = false) =>
        DriverCatalogue.Default.Get("vmdk").Create!(new CreateContext
        {
            FileName = file,
            Size = size,
            Options = Options(options),
            Opener = opener ?? Opener,
            Reproducible = reproducible,
        });

    internal static BlockDevice Open(string file, bool readOnly = true, string format = "vmdk") =>
        Opener.Open(file, format, new OpenSettings { ReadOnly = readOnly });

    internal static byte[] ReadAll(BlockDevice device)
    {
        byte[] b = new byte[device.Length];
        device.Read(0, b);
        return b;
    }

    internal static void Convert(string source, string sourceFormat, BlockDevice target, int threads = 2)
    {
        using var s = Open(source, format: sourceFormat);
        ConvertJob.Run(new ConvertRequest { Sources = [s], Target = target, TargetIsZero = true, Threads = threads });
        target.Flush();
    }

    [Theory]
    [MemberData(nameof(Creations))]
    public void What_we_write_the_peer_reads(string options)
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(Size, 1);
        File.WriteAllBytes(folder.File("raw"), data);
        Create(folder.File("t.vmdk"), Size, options);
        using (var target = Open(folder.File("t.vmdk"), readOnly: false))
            Convert(folder.File("raw"), "raw", target);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), folder.File("t.vmdk"));
        Assert.Contains("No errors", Peer.QemuImg("check", folder.File("t.vmdk")), StringComparison.Ordinal);
        using var image = Open(folder.File("t.vmdk"));
        Assert.True(data.AsSpan().SequenceEqual(ReadAll(image)));
        Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).Corruptions);
    }

    [Theory]
    [MemberData(nameof(Creations))]
    public void What_the_peer_writes_we_read(string options)
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(Size, 2);
        File.WriteAllBytes(folder.File("raw"), data);
        Peer.QemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", options, folder.File("raw"), folder.File("t.vmdk"));
        using var image = Opener.Open(folder.File("t.vmdk"), null, OpenSettings.ReadOnlyDefault);
        Assert.Equal("vmdk", image.DriverName);
        Assert.True(data.AsSpan().SequenceEqual(ReadAll(image)));
        Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).Corruptions);
        // Small pieces at odd places.
        var random = new Random(3);
        for (int i = 0; i < 300; i++)
        {
            int at = random.Next(Size), n = Math.Min(random.Next(1, 90_000), Size - at);
            byte[] part = new byte[n];
            image.Read(at, part);
            Assert.True(data.AsSpan(at, n).SequenceEqual(part), $"at {at}, {n} bytes");
        }
    }

    [Theory]
    [MemberData(nameof(Creations))]
    public void New_images_show_the_same_details(string options)
    {
        using var folder = new TestData.Folder();
        Create(folder.File("ours.vmdk"), 5L << 30, options);
        Directory.CreateDirectory(folder.File("peer"));
        Peer.QemuImg("create", "-q", "-f", "vmdk", "-o", options, folder.File("peer/ours.vmdk"), "5G");
        string ours = Peer.QemuImg("info", "--output=json", folder.File("ours.vmdk"));
        string peers = Peer.QemuImg("info", "--output=json", folder.File("peer/ours.vmdk"));
        Assert.Equal(Normal(peers), Normal(ours));
        foreach (string file in Directory.GetFiles(folder.File("peer")))
            if (!options.Contains("streamOptimized", StringComparison.Ordinal))
                Assert.Equal(Start(file), Start(folder.File(Path.GetFileName(file))));

        // All but the content ID, which is left to chance (and by the peer not filled up with zeroes).
        string Start(string file)
        {
            using var stream = File.OpenRead(file);
            byte[] b = new byte[(int)Math.Min(stream.Length, 1 << 20)];
            stream.ReadExactly(b);
            string text = System.Text.RegularExpressions.Regex.Replace(System.Text.Encoding.Latin1.GetString(b), "\nCID=[0-9a-f]+", "");
            return stream.Length > 1 << 20 || b[0] == 'K' ? stream.Length + text.Replace("\0", "", StringComparison.Ordinal) : text;
        }

        string Normal(string s) => string.Join('\n', s.Replace(folder.File("peer") + "/", folder.Path + "/", StringComparison.Ordinal)
            .Split('\n').Where(l => !l.Contains("cid\"", StringComparison.Ordinal) && !l.Contains("actual-size", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("subformat=monolithicSparse")]
    [InlineData("subformat=twoGbMaxExtentSparse,zeroed_grain=on")]
    [InlineData("subformat=monolithicFlat")]
    public void Both_write_one_image_in_turns(string options)
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        byte[] model = new byte[3 << 20];
        Create(file, model.Length, options);
        var random = new Random(7);
        for (int round = 0; round < 6; round++)
        {
            var commands = new List<string>();
            using (var image = round % 2 == 0 ? Open(file, readOnly: false) : null)
            {
                for (int i = 0; i < 12; i++)
                {
                    int at = random.Next(model.Length / 512) * 512, n = Math.Min(random.Next(1, 300) * 512, model.Length - at);
                    byte value = (byte)random.Next(256);
                    model.AsSpan(at, n).Fill(value);
                    if (image is not null)
                        image.Write(at, model.AsSpan(at, n));
                    else
                        commands.Add($"write -P {value} {at} {n}");
                }
            }
            if (commands.Count > 0)
                Peer.QemuIo(file, "vmdk", [.. commands]);
        }
        File.WriteAllBytes(folder.File("raw"), model);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), file);
        Assert.Contains("No errors", Peer.QemuImg("check", file), StringComparison.Ordinal);
        using var end = Open(file);
        Assert.True(model.AsSpan().SequenceEqual(ReadAll(end)));
        Assert.Equal(0, ((ICheckableImage)end).Check(CheckRepair.None, _ => { }).Corruptions);
    }

    [Fact]
    public void Map_agrees_with_the_peer()
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        Create(file, 31L << 30, "subformat=twoGbMaxExtentSparse");
        using (var image = Open(file, readOnly: false))
        {
            image.Write(65024, new byte[1024]);
            image.Write(2147483136, new byte[1024]);
            image.Write(5L << 30, new byte[1024]);
        }
        string map = Peer.QemuImg("map", file);
        Assert.Contains("0x20000         0x50000 ", map, StringComparison.Ordinal);
        using var again = Open(file);
        var e = again.GetExtent(0, 1 << 30);
        Assert.Equal(131072, e.Length);
        Assert.Equal(0x50000, e.HostOffset);
        Assert.True(e.IsData);
        e = again.GetExtent(131072, (31L << 30) - 131072);
        Assert.Equal(2147418112 - 131072, e.Length);
        Assert.False(e.IsAllocated);
    }
}
