using ImgKit.Block.Jobs.Convert;

namespace ImgKit.Block.Tests.Cloop;

public sealed class CloopTests
{
    private static readonly ImageOpener Opener = new();
    private static readonly BlockDriver Driver = DriverCatalogue.Default.Get("cloop");

    private static BlockOptions Options(string text)
    {
        var options = new BlockOptions();
        foreach (string pair in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
            options.Set(pair.Split('=')[0], pair.Split('=')[1]);
        return options;
    }

    private static BlockDevice Open(string file, string? format = "cloop", bool readOnly = true) =>
        Opener.Open(file, format, new OpenSettings { ReadOnly = readOnly });

    /// <summary>Builds an image through the convert job, as convert does.</summary>
    private static void Build(byte[] data, string file, string options, int threads = 2)
    {
        Driver.Create!(new CreateContext { FileName = file, Size = data.Length, Options = Options(options), Opener = Opener });
        using var source = Device(data);
        using var target = Open(file, readOnly: false);
        ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = threads });
        target.Flush();
    }

    private static MemoryDevice Device(byte[] data)
    {
        var d = new MemoryDevice(data.Length);
        d.Write(0, data);
        return d;
    }

    /// <summary>Data, filled up with zeroes to whole blocks.</summary>
    private static byte[] Padded(byte[] data, int block) => [.. data, .. new byte[(block - data.Length % block) % block]];

    private static void AssertContent(byte[] expected, BlockDevice image)
    {
        Assert.Equal(expected.Length, image.Length);
        byte[] b = new byte[image.Length];
        image.Read(0, b);
        Assert.True(expected.AsSpan().SequenceEqual(b));
        var random = new Random(5);
        Parallel.For(0, 2, _ =>
        {
            for (int i = 0; i < 100; i++)
            {
                int at, n;
                lock (random)
                {
                    at = random.Next(expected.Length);
                    n = Math.Min(random.Next(1, 200_000), expected.Length - at);
                }
                byte[] part = new byte[n];
                image.Read(at, part);
                Assert.True(expected.AsSpan(at, n).SequenceEqual(part), $"at {at}, {n} bytes");
            }
        });
    }

    [Theory]
    [InlineData("0.68", "zlib")]
    [InlineData("1.0", "zlib")]
    [InlineData("2.0", "zlib")]
    [InlineData("knoppix", "zlib")]
    [InlineData("3.0", "zlib")]
    [InlineData("4.0", "zlib")]
    [InlineData("4.0", "none")]
    [InlineData("4.0", "xz")]
    [InlineData("4.0", "lz4")]
    [InlineData("4.0", "lzo")]
    [InlineData("4.0", "mix")]
    [InlineData("4.0-footer", "mix")]
    [InlineData("uzip", "zlib")]
    [InlineData("uzip", "xz")]
    [InlineData("uzip", "zstd")]
    [InlineData("uzip-dedup", "zlib")]
    [InlineData("uzip-dedup", "xz")]
    [InlineData("uzip-dedup", "zstd")]
    public void Every_layout_is_found_and_read(string layout, string compressor)
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(634_567, 4);
        // Blocks that occur again, next to each other and apart.
        data.AsSpan(32768, 16384).CopyTo(data.AsSpan(49152));
        data.AsSpan(32768, 16384).CopyTo(data.AsSpan(163840));
        File.WriteAllBytes(folder.File("raw"), data);
        foreach (int block in (int[])[16384, 65536])
        {
            string file = folder.File($"{block}.cloop");
            Peer.Run("python3", Path.Combine(AppContext.BaseDirectory, "Cloop/make_cloop.py"), layout, compressor, block.ToString(), folder.File("raw"), file);
            using var image = Open(file, format: null);
            Assert.Equal("cloop", image.DriverName);
            AssertContent(Padded(data, block), image);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("block_size=128k,compression_level=9")]
    [InlineData("block_size=512,compression_level=1")]
    public void Version_2_is_read_by_others(string options)
    {
        using var folder = new TestData.Folder();
        int block = options.Contains("128k", StringComparison.Ordinal) ? 131072 : options.Contains("512", StringComparison.Ordinal) ? 512 : 65536;
        byte[] data = TestData.Mixed(block == 512 ? 200_001 : 2_000_001, 6);
        string file = folder.File("t.cloop");
        Build(data, file, options);
        byte[] padded = Padded(data, block);
        File.WriteAllBytes(folder.File("raw"), padded);
        Assert.Contains("file format: cloop", Peer.QemuImg("info", file), StringComparison.Ordinal);
        Peer.QemuImg("compare", "-f", "raw", "-F", "cloop", folder.File("raw"), file);
        Peer.Run("extract_compressed_fs", file, folder.File("out"));
        Assert.True(padded.AsSpan().SequenceEqual(File.ReadAllBytes(folder.File("out"))));
        using var image = Open(file, format: null);
        AssertContent(padded, image);
    }

    [Theory]
    [InlineData("65536")]
    [InlineData("131072")]
    public void What_create_compressed_fs_makes_is_read(string block)
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(1_500_000, 8);
        File.WriteAllBytes(folder.File("raw"), data);
        Peer.Run("create_compressed_fs", "-q", "-B", block, folder.File("raw"), folder.File("t.cloop"));
        using var image = Open(folder.File("t.cloop"), format: null);
        AssertContent(Padded(data, int.Parse(block)), image);
    }

    [Theory]
    [InlineData("version=4.0")]
    [InlineData("version=4.0,compressors=lz4+none")]
    [InlineData("version=4.0,compressors=zlib+none+lz4+xz+lzo,block_size=32k")]
    [InlineData("version=4.0,compressors=lzo,compression_level=1")]
    [InlineData("version=4.0,compressors=xz,compression_level=3")]
    public void Version_4_is_read_back(string options)
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(2_000_001, 9);
        Build(data, folder.File("t.cloop"), options);
        using var image = Open(folder.File("t.cloop"), format: null);
        AssertContent(Padded(data, options.Contains("32k", StringComparison.Ordinal) ? 32768 : 65536), image);
    }

    [Fact]
    public void The_smallest_of_several_compressors_is_kept()
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(2_000_001, 10);
        var sizes = new Dictionary<string, long>();
        foreach (string c in (string[])["zlib", "lz4", "none", "zlib+lz4+none"])
        {
            Build(data, folder.File("t.cloop"), $"version=4.0,compressors={c}");
            sizes[c] = new FileInfo(folder.File("t.cloop")).Length;
        }
        Assert.True(sizes["zlib+lz4+none"] < sizes["zlib"]);
        Assert.True(sizes["zlib+lz4+none"] < sizes["lz4"]);
        Assert.True(sizes["zlib+lz4+none"] < sizes["none"]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void A_stream_has_its_header_last_and_does_not_depend_on_threads(int threads)
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(3_000_001, 11);
        using var source = Device(data);
        byte[] Stream(int n)
        {
            var output = new MemoryStream();
            Driver.WriteStream!(new StreamWriteContext { Source = source, Output = output, Options = Options("compressors=zlib+none+lz4"), Threads = n });
            return output.ToArray();
        }
        byte[] image = Stream(threads);
        Assert.True(Stream(2).AsSpan().SequenceEqual(image));
        Assert.Equal("#V4.0"u8, image.AsSpan(image.Length - 136 + 10, 5));
        File.WriteAllBytes(folder.File("t.cloop"), image);
        using var opened = Open(folder.File("t.cloop"), format: null);
        AssertContent(Padded(data, 65536), opened);
    }

    [Fact]
    public void Writing_in_odd_pieces_and_with_gaps_gives_the_same_content()
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.cloop");
        byte[] model = new byte[1 << 20];
        Driver.Create!(new CreateContext { FileName = file, Size = model.Length, Options = Options("version=4.0"), Opener = Opener });
        using (var target = Open(file, readOnly: false))
        {
            var random = new Random(3);
            for (int at = 0; ;)
            {
                at += random.Next(0, 100_000);
                int n = random.Next(1, 100_000);
                if (at + n > model.Length)
                    break;
                random.NextBytes(model.AsSpan(at, n));
                target.Write(at, model.AsSpan(at, n));
                at += n;
            }
            Assert.Throws<ImageException>(() => target.Write(0, new byte[1]));
            target.Flush();
        }
        using var image = Open(file);
        AssertContent(model, image);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void An_image_whose_writer_stopped_is_not_taken_for_complete(bool flushedEarly)
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.cloop");
        Driver.Create!(new CreateContext { FileName = file, Size = 1 << 20, Options = Options(""), Opener = Opener });
        using (var target = Open(file, readOnly: false))
        {
            target.Write(0, TestData.Mixed(300_000, 1));
            if (flushedEarly)
                target.Flush();
            target.Write(300_000, new byte[100]);
        }
        var e = Assert.Throws<ImageException>(() => Open(file, format: null));
        Assert.Contains("incomplete", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("cloop", Peer.QemuImg("info", "--output=json", "-f", "raw", file).Replace("t.cloop", "", StringComparison.Ordinal),
            StringComparison.Ordinal);
    }

    [Fact]
    public void Damaged_images_give_an_error_of_one_line()
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(300_000, 12);
        File.WriteAllBytes(folder.File("raw"), data);
        var random = new Random(13);
        int errors = 0;
        foreach (string layout in (string[])["0.68", "1.0", "2.0", "knoppix", "3.0", "4.0", "4.0-footer", "uzip", "uzip-dedup"])
        {
            string file = folder.File(layout + ".cloop");
            Peer.Run("python3", Path.Combine(AppContext.BaseDirectory, "Cloop/make_cloop.py"), layout, layout.StartsWith('4') ? "mix" : "zlib", "4096",
                folder.File("raw"), file);
            byte[] good = File.ReadAllBytes(file);
            for (int i = 0; i < 80; i++)
            {
                byte[] bad = (byte[])good.Clone();
                for (int k = random.Next(1, 4); k > 0; k--)
                {
                    int at = layout.EndsWith("footer", StringComparison.Ordinal) && i % 2 == 0 ? bad.Length - 1 - random.Next(800)
                        : i % 3 == 0 ? random.Next(bad.Length) : random.Next(128, 1000);
                    bad[at] = i % 2 == 0 ? (byte)random.Next(256) : (byte)(bad[at] ^ (1 << random.Next(8)));
                }
                if (i % 10 == 9)
                    bad = bad[..random.Next(bad.Length)];
                File.WriteAllBytes(file, bad);
                try
                {
                    using var image = Open(file);
                    byte[] b = new byte[Math.Min(image.Length, 1 << 20)];
                    image.Read(0, b);
                }
                catch (ImageException e)
                {
                    errors++;
                    Assert.DoesNotContain('\n', e.Message);
                }
            }
        }
        Assert.True(errors > 150, $"{errors} errors");
    }
}
