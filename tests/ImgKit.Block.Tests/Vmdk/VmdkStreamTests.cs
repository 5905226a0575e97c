using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using System.Text;
using System.Text.RegularExpressions;

namespace ImgKit.Block.Tests.Vmdk;

/// <summary>Stream-optimized images, both forms, field by field against the rules of VMware's technical note.</summary>
public sealed class VmdkStreamTests
{
    private static byte[] Stream(byte[] data, string options = "", int threads = 2, bool reproducible = false)
    {
        using var source = new MemoryDevice(data.Length);
        source.Write(0, data);
        var output = new MemoryStream();
        DriverCatalogue.Default.Get("vmdk").WriteStream!(new StreamWriteContext
        {
            Source = source,
            Output = output,
            Options = VmdkPeerTests.Options(options),
            Threads = threads,
            Reproducible = reproducible,
        });
        return output.ToArray();
    }

    private static byte[] DeviceForm(TestData.Folder folder, byte[] data)
    {
        File.WriteAllBytes(folder.File("raw"), data);
        VmdkPeerTests.Create(folder.File("d.vmdk"), data.Length, "subformat=streamOptimized");
        using (var target = VmdkPeerTests.Open(folder.File("d.vmdk"), readOnly: false))
            VmdkPeerTests.Convert(folder.File("raw"), "raw", target);
        return File.ReadAllBytes(folder.File("d.vmdk"));
    }

    private static uint U32(byte[] b, long at) => BinaryPrimitives.ReadUInt32LittleEndian(b.AsSpan((int)at));

    private static ulong U64(byte[] b, long at) => BinaryPrimitives.ReadUInt64LittleEndian(b.AsSpan((int)at));

    private static void AssertHeader(byte[] b, long at, int size, ulong gd)
    {
        Assert.Equal("KDMV"u8, b.AsSpan((int)at, 4));
        Assert.Equal(3u, U32(b, at + 4));
        Assert.Equal(0x30001u, U32(b, at + 8));
        Assert.Equal((ulong)(size + 511) / 512, U64(b, at + 12));
        Assert.Equal(128ul, U64(b, at + 20));
        Assert.Equal(1ul, U64(b, at + 28));
        Assert.Equal(20ul, U64(b, at + 36));
        Assert.Equal(512u, U32(b, at + 44));
        Assert.Equal(0ul, U64(b, at + 48));
        Assert.Equal(gd, U64(b, at + 56));
        Assert.Equal(0, b[at + 72]);
        Assert.Equal([0x0A, 0x20, 0x0D, 0x0A], b[(int)(at + 73)..(int)(at + 77)]);
        Assert.Equal(1, BinaryPrimitives.ReadUInt16LittleEndian(b.AsSpan((int)at + 77)));
        Assert.True(ZeroBuffer.IsZero(b.AsSpan((int)at + 79, 433)));
    }

    private static void AssertDescriptor(byte[] b, int size)
    {
        string text = Encoding.ASCII.GetString(b, 512, 20 * 512).TrimEnd('\0');
        string Value(string key) => Regex.Match(text, $"^{Regex.Escape(key)} ?= ?\"?([^\"\n]*)\"?$", RegexOptions.Multiline) is { Success: true } m
            ? m.Groups[1].Value : throw new InvalidOperationException(key + " is missing in\n" + text);
        Assert.StartsWith("# Disk DescriptorFile\nversion=1\n", text, StringComparison.Ordinal);
        Assert.Equal("UTF-8", Value("encoding"));
        Assert.Equal("ffffffff", Value("parentCID"));
        Assert.Equal("streamOptimized", Value("createType"));
        Assert.Equal("lsilogic", Value("ddb.adapterType"));
        Assert.Equal("255", Value("ddb.geometry.heads"));
        Assert.Equal("63", Value("ddb.geometry.sectors"));
        long sectors = (size + 511L) / 512;
        Assert.Equal(((sectors + 255 * 63 - 1) / (255 * 63)).ToString(CultureInfo.InvariantCulture), Value("ddb.geometry.cylinders"));
        Assert.Equal("4", Value("ddb.virtualHWVersion"));
        Assert.Equal("2147483647", Value("ddb.toolsVersion"));
        Assert.Equal("4", Value("ddb.toolsInstallType"));
        string cid = Value("CID");
        Assert.Matches("^[0-9a-f]{8}$", cid);
        Assert.Matches("^[0-9a-f]{24}" + cid + "$", Value("ddb.longContentID"));
        Assert.Contains($"\nRW {sectors} SPARSE \"", text, StringComparison.Ordinal);
    }

    /// <summary>Reads grain after grain, in ascending order, as who takes a stream over the network does.</summary>
    private static byte[] WalkGrains(byte[] b, long at, long end, int size, Dictionary<long, long> places)
    {
        byte[] disk = new byte[(size + 511) / 512 * 512];
        long last = -1;
        while (at < end)
        {
            uint length = U32(b, at + 8);
            if (length == 0)
            {
                uint type = U32(b, at + 12);
                Assert.True(ZeroBuffer.IsZero(b.AsSpan((int)at + 16, 496)));
                if (type == 0)
                    return disk;
                at += 512 + (long)U64(b, at) * 512;
                continue;
            }
            long lba = (long)U64(b, at);
            Assert.True(lba > last && lba % 128 == 0);
            last = lba;
            places[lba / 128] = at / 512;
            using var z = new ZLibStream(new MemoryStream(b, (int)at + 12, (int)length), CompressionMode.Decompress);
            int expected = (int)Math.Min(65536, disk.Length - lba * 512);
            z.ReadExactly(disk, (int)lba * 512, expected);
            Assert.Equal(-1, z.ReadByte());
            long grainEnd = at + 12 + length;
            at = (grainEnd + 511) / 512 * 512;
            Assert.True(ZeroBuffer.IsZero(b.AsSpan((int)grainEnd, (int)(at - grainEnd))));
        }
        return disk;
    }

    private static void AssertTables(byte[] b, long gd, int size, Dictionary<long, long> places)
    {
        long grains = (size + 65535L) / 65536;
        for (long g = 0; g < grains; g++)
        {
            uint table = U32(b, gd * 512 + g / 512 * 4);
            uint entry = table == 0 ? 0 : U32(b, table * 512L + g % 512 * 4);
            Assert.Equal(places.GetValueOrDefault(g), entry);
        }
    }

    [Theory]
    [InlineData(3_000_321)]
    [InlineData(1 << 20)]
    [InlineData(70_000_000)]
    [InlineData(512)]
    public void The_form_for_pipes_keeps_every_rule(int size)
    {
        byte[] data = TestData.Mixed(Math.Min(size, 5_000_000), 50);
        Array.Resize(ref data, size);
        data[^1] = 1;
        byte[] b = Stream(data);
        Assert.Equal(0, b.Length % 512);
        AssertHeader(b, 0, size, ulong.MaxValue);
        AssertDescriptor(b, size);
        // From the end: end-of-stream marker, footer, its marker, directory.
        Assert.True(ZeroBuffer.IsZero(b.AsSpan(b.Length - 512)));
        Assert.Equal(1ul, U64(b, b.Length - 1536));
        Assert.Equal(3u, U32(b, b.Length - 1536 + 12));
        ulong gd = U64(b, b.Length - 1024 + 56);
        AssertHeader(b, b.Length - 1024, size, gd);
        Assert.Equal(2u, U32(b, (long)gd * 512 - 512 + 12));
        Assert.Equal((ulong)(b.Length - 1536) / 512 - gd, U64(b, (long)gd * 512 - 512));
        var places = new Dictionary<long, long>();
        byte[] disk = WalkGrains(b, (long)U64(b, 64) * 512, b.Length, size, places);
        Assert.True(data.AsSpan().SequenceEqual(disk.AsSpan(0, size)));
        AssertTables(b, (long)gd, size, places);
        using var folder = new TestData.Folder();
        File.WriteAllBytes(folder.File("t.vmdk"), b);
        File.WriteAllBytes(folder.File("raw"), disk);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), folder.File("t.vmdk"));
        Assert.Contains("create type: streamOptimized", Peer.QemuImg("info", folder.File("t.vmdk")), StringComparison.Ordinal);
        using var image = VmdkPeerTests.Open(folder.File("t.vmdk"));
        Assert.True(disk.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).Corruptions);
    }

    [Fact]
    public void The_form_for_files_keeps_every_rule()
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(3_000_321, 51);
        byte[] b = DeviceForm(folder, data);
        AssertHeader(b, 0, data.Length, 21);
        AssertDescriptor(b, data.Length);
        Assert.True(ZeroBuffer.IsZero(b.AsSpan(b.Length - 512)));
        var places = new Dictionary<long, long>();
        byte[] disk = WalkGrains(b, (long)U64(b, 64) * 512, b.Length, data.Length, places);
        Assert.True(data.AsSpan().SequenceEqual(disk.AsSpan(0, data.Length)));
        AssertTables(b, 21, data.Length, places);
    }

    [Fact]
    public void Bytes_do_not_depend_on_threads()
    {
        byte[] data = TestData.Mixed(9_000_000, 52);
        byte[] one = Stream(data, threads: 1, reproducible: true);
        for (int threads = 2; threads < 6; threads++)
            Assert.True(one.AsSpan().SequenceEqual(Stream(data, threads: threads, reproducible: true)));
    }

    [Fact]
    public void Images_are_no_larger_than_the_peers()
    {
        using var folder = new TestData.Folder();
        // Program code is what disks are full of.
        string library = Directory.GetFiles("/usr/lib/x86_64-linux-gnu", "libc.so.6").Concat(Directory.GetFiles("/usr/bin", "qemu-img")).First();
        byte[] data = [.. File.ReadAllBytes(library), .. File.ReadAllBytes("/usr/bin/qemu-img")];
        long ours = DeviceForm(folder, data).Length;
        Peer.QemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", folder.File("raw"), folder.File("peer.vmdk"));
        long peers = new FileInfo(folder.File("peer.vmdk")).Length;
        Assert.True(ours <= peers * 1.02, $"{ours} bytes, the peer {peers}");
        long dense = Stream(data, "compression_level=12").Length;
        Assert.True(dense < ours, $"{dense} bytes at level 12, {ours} by default");
    }

    [Fact]
    public void More_can_be_added_to_the_form_for_files_and_nothing_twice()
    {
        using var folder = new TestData.Folder();
        byte[] data = new byte[1 << 20];
        Random.Shared.NextBytes(data.AsSpan(0, 65536));
        DeviceForm(folder, data);
        string file = folder.File("d.vmdk");
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
        {
            Random.Shared.NextBytes(data.AsSpan(131072, 65536));
            image.Write(131072, data.AsSpan(131072, 65536));
            var e = Assert.Throws<ImageException>(() => image.Write(0, new byte[65536]));
            Assert.Equal("Could not write to allocated cluster for streamOptimized", e.Message);
            Assert.Throws<ImageException>(() => image.Write(262144 + 512, new byte[512]));
        }
        using var again = VmdkPeerTests.Open(file);
        Assert.True(data.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(again)));
        File.WriteAllBytes(folder.File("raw"), data);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), file);
    }

    [Fact]
    public void A_stream_cut_short_is_refused()
    {
        using var folder = new TestData.Folder();
        byte[] b = Stream(TestData.Mixed(1 << 20, 53));
        File.WriteAllBytes(folder.File("t.vmdk"), b[..^2048]);
        Assert.Equal("Invalid footer", Assert.Throws<ImageException>(() => VmdkPeerTests.Open(folder.File("t.vmdk"))).Message);
    }

    [Fact]
    public void Only_stream_optimized_images_go_into_a_pipe() =>
        Assert.Contains("only streamOptimized",
            Assert.Throws<ImageException>(() => Stream(new byte[512], "subformat=monolithicFlat")).Message, StringComparison.Ordinal);
}
