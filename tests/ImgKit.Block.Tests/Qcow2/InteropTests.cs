namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Each tool makes images, the other reads and checks them.</summary>
public sealed class InteropTests
{
    public static TheoryData<string> Variants =>
    [
        "",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=2M,refcount_bits=64",
        "refcount_bits=2",
        "refcount_bits=8,cluster_size=1k",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k,refcount_bits=32",
        "compression_type=zstd",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc,extended_l2=on",
        "preallocation=full",
    ];

    [Theory]
    [MemberData(nameof(Variants))]
    public void What_is_written_here_the_peer_reads(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        const int size = 9 * 1024 * 1024 + 512;
        byte[] expected = new byte[size];
        Images.Create(path, size, options);
        Qemu.CheckClean(path);
        var random = new Random(7);
        for (int round = 0; round < 2; round++)
        {
            using var image = Images.Open(path);
            Change(image, expected, random, 60);
            if (round == 0)
                image.Flush();
            Assert.True(expected.AsSpan().SequenceEqual(Images.Content(image)));
        }
        Qemu.CheckClean(path);
        Assert.True(expected.AsSpan().SequenceEqual(Qemu.Content(path)));
        Assert.True(expected.AsSpan().SequenceEqual(Images.Content(path)));
    }

    [Theory]
    [MemberData(nameof(Variants))]
    public void What_the_peer_writes_is_read_here(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2"), raw = folder.File("a.raw");
        byte[] data = TestData.Mixed(9 * 1024 * 1024 + 512, 3);
        File.WriteAllBytes(raw, data);
        string[] more = options.Length == 0 ? [] : ["-o", options];
        Qemu.Img(["convert", "-f", "raw", "-O", "qcow2", .. more, raw, path]);
        Assert.True(data.AsSpan().SequenceEqual(Images.Content(path)));
        if (options.Contains("preallocation", StringComparison.Ordinal))
            return;
        Qemu.Img(["convert", "-c", "-f", "raw", "-O", "qcow2", .. more, raw, path]);
        Assert.True(data.AsSpan().SequenceEqual(Images.Content(path)));
        // Compressed clusters are overwritten in part.
        using (var image = Images.Open(path))
            Change(image, data, new Random(5), 80);
        Qemu.CheckClean(path);
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
    }

    [Theory]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=4k,extended_l2=off")]
    public void Check_counts_as_the_peer_does(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2"), raw = folder.File("a.raw");
        // Several tables, whose own clusters lie between those of the data.
        File.WriteAllBytes(raw, TestData.Mixed(9 << 20, 4));
        Qemu.Img("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, path);
        var answer = System.Text.Json.JsonDocument.Parse(Qemu.Img("check", "--output=json", path)).RootElement;
        using var image = Images.Open(path, true, static s => s with { ForCheck = true });
        var result = ((ICheckableImage)image).Check(CheckRepair.None, static _ => { });
        long Peers(string name) => answer.TryGetProperty(name, out var v) ? v.GetInt64() : 0;
        Assert.Equal((Peers("fragmented-clusters"), Peers("allocated-clusters"), Peers("total-clusters"), Peers("image-end-offset")),
            (result.FragmentedClusters, result.AllocatedClusters, result.TotalClusters, result.ImageEndOffset));
    }

    [Theory]
    [InlineData("", 9 << 20)]
    [InlineData("compat=0.10", 5 << 20)]
    [InlineData("extended_l2=on", 5 << 20)]
    [InlineData("cluster_size=4k", 12 << 20)]
    public void Overlays_show_and_copy_what_is_below(string options, int size)
    {
        using var folder = new TestData.Folder();
        string below = folder.File("below.raw"), path = folder.File("a.qcow2");
        byte[] data = TestData.Mixed(9 << 20, 3);
        File.WriteAllBytes(below, data);
        Images.Create(path, size, options, "below.raw", "raw");
        byte[] expected = new byte[size];
        data.AsSpan(0, Math.Min(size, data.Length)).CopyTo(expected);
        using (var image = Images.Open(path))
        {
            Change(image, expected, new Random(5), 100);
            Assert.True(expected.AsSpan().SequenceEqual(Images.Content(image)));
        }
        Qemu.CheckClean(path);
        Assert.True(expected.AsSpan().SequenceEqual(Qemu.Content(path)));
        Assert.True(data.AsSpan().SequenceEqual(File.ReadAllBytes(below)));
    }

    [Fact]
    public void A_data_file_is_as_long_as_the_disk_and_given_only_to_images_that_have_one()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2"), plain = folder.File("b.qcow2"), data = folder.File("a.data");
        Images.Create(path, 3 << 20, "data_file=" + data);
        Assert.Equal(3 << 20, new FileInfo(data).Length);
        Qemu.CheckClean(path);
        Images.Create(plain, 1 << 20);
        string Refusal(string file)
        {
            var options = new BlockOptions();
            options.Set("data-file.filename", file);
            return Assert.Throws<ImageException>(() => new ImageOpener().Open(plain, "qcow2", new OpenSettings(), options).Dispose()).Message;
        }
        Assert.Contains("'data-file' can only be set for images with an external data file", Refusal(data), StringComparison.Ordinal);
        Assert.Contains("No such file or directory", Refusal(folder.File("none")), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData(",data_file_raw=on")]
    [InlineData(",extended_l2=on,preallocation=metadata")]
    public void External_data_files(string more)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        const int size = 5 << 20;
        byte[] expected = new byte[size];
        Images.Create(path, size, $"data_file={folder.File("a.data")}{more}");
        using (var image = Images.Open(path))
        {
            Change(image, expected, new Random(5), 100);
            Assert.True(expected.AsSpan().SequenceEqual(Images.Content(image)));
        }
        Qemu.CheckClean(path);
        Assert.True(expected.AsSpan().SequenceEqual(Qemu.Content(path)));
        if (more.Contains("raw", StringComparison.Ordinal))
            Assert.True(expected.AsSpan().SequenceEqual(File.ReadAllBytes(folder.File("a.data"))));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_first_version_is_read(bool compress)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow"), raw = folder.File("a.raw"), top = folder.File("top.qcow");
        byte[] data = TestData.Mixed(3 * 1024 * 1024, 4);
        File.WriteAllBytes(raw, data);
        // The peer's exit code is 1 after compressing into this format, though it has written all of it.
        string[] how = compress ? ["-c"] : [];
        Qemu.TryRun("qemu-img", ["convert", .. how, "-f", "raw", "-O", "qcow", raw, path]);
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
        using (var image = Images.Open(path, true, format: "qcow"))
            Assert.True(data.AsSpan().SequenceEqual(Images.Content(image)));
        Qemu.Img("create", "-q", "-f", "qcow", "-b", path, "-F", "qcow", top);
        Qemu.Io("-f", "qcow", "-c", "write -P 7 100k 9k", top);
        data.AsSpan(100 * 1024, 9 * 1024).Fill(7);
        using (var image = Images.Open(top, true, format: "qcow"))
            Assert.True(data.AsSpan().SequenceEqual(Images.Content(image)));
    }

    /// <summary>Writes, zeroes and discards at random, in the image and in the model.</summary>
    internal static void Change(BlockDevice image, byte[] model, Random random, int steps)
    {
        byte[] noise = new byte[1 << 20];
        random.NextBytes(noise);
        for (int i = 0; i < steps; i++)
        {
            long offset = random.Next(model.Length);
            int count = (int)Math.Min(model.Length - offset, random.Next(4) == 0 ? random.Next(1 << 20) : random.Next(20_000));
            if (random.Next(3) == 0)
                (offset, count) = (offset & ~65535, (int)Math.Min((count + 65535) & ~65535, model.Length - (offset & ~65535)));
            switch (random.Next(6))
            {
                case 0:
                    image.WriteZeroes(offset, count, random.Next(2) == 0 ? ZeroOptions.MayUnmap : ZeroOptions.None);
                    model.AsSpan((int)offset, count).Clear();
                    break;
                case 1:
                    image.Discard(offset, count);
                    // What it reads as is the image's to say: whole clusters zero, the rest as it was.
                    image.Read(offset, model.AsSpan((int)offset, count));
                    break;
                case 2:
                    image.Flush();
                    break;
                default:
                    image.Write(offset, noise.AsSpan(0, count));
                    noise.AsSpan(0, count).CopyTo(model.AsSpan((int)offset));
                    break;
            }
        }
    }
}
