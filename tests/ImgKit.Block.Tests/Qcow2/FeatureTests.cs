using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>What the format can do beyond reading and writing, each time with the peer as judge.</summary>
public sealed class FeatureTests
{
    private const int Size = 6 * 1024 * 1024;

    [Theory]
    [InlineData("")]
    [InlineData("compression_type=zstd")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=2M")]
    [InlineData("extended_l2=on,refcount_bits=1")]
    [InlineData("compat=0.10,cluster_size=4k")]
    public void Compressed_clusters(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] data = TestData.Mixed(Size + 512, 11);
        Images.Create(path, data.Length, options);
        using (var source = new MemoryDevice(data.Length))
        using (var target = Images.Open(path))
        {
            source.Write(0, data);
            ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Compress = true, Threads = 2 });
            Assert.True(data.AsSpan().SequenceEqual(Images.Content(target)));
            // Reads of parts come from the decompressed cluster.
            byte[] small = new byte[300];
            for (int at = 100; at < data.Length - 300; at += 50_000)
            {
                target.Read(at, small);
                Assert.True(data.AsSpan(at, 300).SequenceEqual(small));
            }
        }
        Qemu.CheckClean(path);
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
        using (var image = Images.Open(path))
            InteropTests.Change(image, data, new Random(3), 60);
        Qemu.CheckClean(path);
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
    }

    [Theory]
    [InlineData("")]
    [InlineData("compat=0.10")]
    [InlineData("extended_l2=on,cluster_size=16k")]
    [InlineData("cluster_size=1k,refcount_bits=8")]
    [InlineData("lazy_refcounts=on")]
    public void Snapshots(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] data = new byte[Size];
        Images.Create(path, Size, options);
        var random = new Random(9);
        byte[] first, second;
        using (var image = Images.Open(path))
        {
            InteropTests.Change(image, data, random, 40);
            first = [.. data];
            ((ISnapshotImage)image).CreateSnapshot("first", DateTimeOffset.UnixEpoch.AddDays(9));
            InteropTests.Change(image, data, random, 40);
            second = [.. data];
            ((ISnapshotImage)image).CreateSnapshot("second", DateTimeOffset.UnixEpoch.AddDays(10));
            InteropTests.Change(image, data, random, 40);
            Assert.True(data.AsSpan().SequenceEqual(Images.Content(image)));
            using var view = ((ISnapshotImage)image).OpenSnapshot("first");
            Assert.True(first.AsSpan().SequenceEqual(Images.Content(view)));
        }
        Qemu.CheckClean(path);
        Assert.True(first.AsSpan().SequenceEqual(Qemu.Content(path, "-l", "snapshot.name=first")));
        Assert.True(second.AsSpan().SequenceEqual(Qemu.Content(path, "-l", "snapshot.id=2")));
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
        // The peer changes the list, too.
        Qemu.Img("snapshot", "-c", "third", path);
        using (var image = Images.Open(path))
        {
            var snapshots = (ISnapshotImage)image;
            Assert.Equal(["first", "second", "third"], snapshots.Snapshots.Select(s => s.Name));
            snapshots.ApplySnapshot("first");
            Assert.True(first.AsSpan().SequenceEqual(Images.Content(image)));
            snapshots.DeleteSnapshot("second");
            data = [.. first];
            InteropTests.Change(image, data, random, 30);
            Assert.True(data.AsSpan().SequenceEqual(Images.Content(image)));
        }
        Qemu.CheckClean(path);
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
        Qemu.Img("snapshot", "-a", "first", path);
        Qemu.Img("snapshot", "-d", "first", path);
        Qemu.CheckClean(path);
        using (var image = Images.Open(path))
        {
            ((ISnapshotImage)image).DeleteSnapshot("third");
            Assert.Throws<ImageException>(() => ((ISnapshotImage)image).DeleteSnapshot("third"));
            Assert.True(first.AsSpan().SequenceEqual(Images.Content(image)));
        }
        Qemu.CheckClean(path);
    }

    [Fact]
    public void Machine_state_is_kept_in_snapshots_and_sizes_differ()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        Images.Create(path, 1 << 20);
        byte[] state = TestData.Mixed(3_000_000, 4);
        using (var image = Images.Open(path))
        {
            image.Write(0, new byte[] { 1, 2, 3 });
            ((IVmStateImage)image).WriteVmState(0, state);
            ((ISnapshotImage)image).CreateSnapshot("running", DateTimeOffset.UnixEpoch, state.Length, 5_000_000_000, 77);
            image.Resize(3 << 20);
            image.Write(2 << 20, new byte[] { 9 });
            ((ISnapshotImage)image).CreateSnapshot("large", DateTimeOffset.UnixEpoch);
        }
        Qemu.CheckClean(path);
        Assert.Contains("2.86 MiB", Qemu.Img("snapshot", "-l", path), StringComparison.Ordinal);
        using (var image = Images.Open(path))
        {
            ((ISnapshotImage)image).ApplySnapshot("running");
            Assert.Equal(1 << 20, image.Length);
            byte[] got = new byte[state.Length];
            ((IVmStateImage)image).ReadVmState(0, got);
            Assert.True(state.AsSpan().SequenceEqual(got));
            ((ISnapshotImage)image).ApplySnapshot("large");
            Assert.Equal(3 << 20, image.Length);
            Assert.Equal(9, Images.Content(image)[2 << 20]);
        }
        Qemu.CheckClean(path);
    }

    [Fact]
    public void Bitmaps_record_and_last()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        Images.Create(path, Size);
        using (var image = Images.Open(path))
        {
            var bitmaps = (IBitmapImage)image;
            bitmaps.AddBitmap("all", 65536, true);
            bitmaps.AddBitmap("off", 4096, false);
            image.Write(70_000, new byte[10]);
            image.WriteZeroes(1 << 20, 65536);
        }
        Qemu.CheckClean(path);
        Assert.Equal("65536+65536 1048576+65536", Dirty(path, "all"));
        Assert.Equal("", Dirty(path, "off"));
        // The peer merges one into the other, and records.
        Qemu.Img("bitmap", "--merge", "all", path, "off");
        Qemu.Io("-c", "write 3M 64k", path);
        Assert.Equal("65536+65536 1048576+65536 3145728+65536", Dirty(path, "all"));
        Assert.Equal("65536+65536 1048576+65536", Dirty(path, "off"));
        using (var image = Images.Open(path))
        {
            var bitmaps = (IBitmapImage)image;
            bitmaps.ClearBitmap("all");
            bitmaps.EnableBitmap("off", true);
            bitmaps.EnableBitmap("all", false);
            image.Write(5 << 20, new byte[1]);
            image.Resize(8 << 20);
            image.Write(7 << 20, new byte[1]);
            Assert.Throws<ImageException>(() => bitmaps.AddBitmap("off", 4096, true));
        }
        Qemu.CheckClean(path);
        Assert.Equal("", Dirty(path, "all"));
        Assert.Equal("65536+65536 1048576+65536 5242880+4096 7340032+4096", Dirty(path, "off"));
        string info = Qemu.Img("info", path);
        Assert.DoesNotContain("in-use", info, StringComparison.Ordinal);
        using (var image = Images.Open(path))
        {
            ((IBitmapImage)image).RemoveBitmap("off");
            ((IBitmapImage)image).RemoveBitmap("all");
        }
        Qemu.CheckClean(path);
        Assert.DoesNotContain("bitmaps", Qemu.Img("info", path), StringComparison.Ordinal);
    }

    private static string Dirty(string path, string name)
    {
        using var image = Images.Open(path, true);
        var list = new List<string>();
        for (long at = 0; at < image.Length;)
        {
            var (dirty, n) = ((IBitmapImage)image).GetBitmapExtent(name, at, image.Length - at);
            if (dirty)
                list.Add($"{at}+{n}");
            at += n;
        }
        return string.Join(' ', list);
    }

    [Theory]
    [InlineData("")]
    [InlineData("compat=0.10,cluster_size=512")]
    [InlineData("extended_l2=on")]
    [InlineData("refcount_bits=1,cluster_size=1k")]
    public void Sizes_change(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] data = new byte[Size];
        Images.Create(path, Size, options);
        var random = new Random(1);
        foreach (int size in new[] { 7_000_064, 3_000_320, 512, 0, 9 << 20, 2 << 20 })
        {
            using (var image = Images.Open(path))
            {
                if (data.Length > 0)
                    InteropTests.Change(image, data, random, 20);
                image.Resize(size);
                Array.Resize(ref data, size);
                Assert.True(data.AsSpan().SequenceEqual(Images.Content(image)));
            }
            Qemu.CheckClean(path);
            Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
        }
    }

    [Fact]
    public void A_shrunk_image_keeps_no_empty_count_blocks()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        Images.Create(path, 4 << 20, "cluster_size=512,refcount_bits=64");
        using (var image = Images.Open(path))
        {
            var random = new Random(5);
            // Data that goes lies among data that stays.
            for (int i = 0; i < 300; i++)
                image.Write(random.Next(3) == 0 ? random.Next(100) << 10 : (1 << 20) + (random.Next(3000) << 10), TestData.Mixed(1024, i));
            image.Resize(1 << 20);
        }
        Qemu.CheckClean(path);
        using var file = File.OpenHandle(path);
        byte[] header = ReadAt(file, 0, 104);
        long table = System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(48));
        int clusters = System.Buffers.Binary.BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(56));
        byte[] entries = ReadAt(file, table, clusters * 512);
        for (int i = 0; i < entries.Length; i += 8)
            if (System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(entries.AsSpan(i)) is var at and not 0)
                Assert.False(ZeroBuffer.IsZero(ReadAt(file, at, 512)));
    }

    [Fact]
    public void A_shrunk_image_gives_its_space_back_quickly()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        Images.Create(path, 256L << 30);
        using (var image = Images.Open(path))
        {
            image.Write(200L << 30, new byte[1 << 20]);
            image.Write(0, new byte[] { 1 });
        }
        var watch = System.Diagnostics.Stopwatch.StartNew();
        using (var image = Images.Open(path))
            image.Resize(1 << 30);
        Assert.True(watch.ElapsedMilliseconds < 2000);
        Qemu.CheckClean(path);
        // What shrinking left is little, at the front.
        Assert.True(new FileInfo(path).Length < 2 << 20, $"{new FileInfo(path).Length}");
    }

    [Theory]
    [InlineData("compat=0.10", "compat=v3,lazy_refcounts=on,refcount_bits=64")]
    [InlineData("refcount_bits=8,lazy_refcounts=on", "refcount_bits=16,lazy_refcounts=off,compat=v2")]
    [InlineData("", "refcount_bits=1")]
    [InlineData("", "size=10M")]
    public void Options_are_amended(string options, string changes)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] data = new byte[Size];
        Images.Create(path, Size, options);
        using (var image = Images.Open(path))
        {
            InteropTests.Change(image, data, new Random(2), 60);
            var o = new BlockOptions();
            foreach (string pair in changes.Split(','))
                o.Set(pair.Split('=')[0], pair.Split('=')[1]);
            ((IAmendableImage)image).Amend(o, false, null);
        }
        Qemu.CheckClean(path);
        byte[] content = Qemu.Content(path);
        Assert.True(data.AsSpan().SequenceEqual(content.AsSpan(0, data.Length)));
        string info = Qemu.Img("info", path);
        if (changes.Contains("compat=v2", StringComparison.Ordinal))
            Assert.Contains("compat: 0.10", info, StringComparison.Ordinal);
        if (changes.Contains("bits=64", StringComparison.Ordinal))
            Assert.Contains("refcount bits: 64", info, StringComparison.Ordinal);
        if (changes.Contains("size", StringComparison.Ordinal))
            Assert.Equal(10 << 20, content.Length);
    }

    [Theory]
    [InlineData("")]
    [InlineData("cluster_size=512,refcount_bits=2")]
    public void Lost_counts_are_found_and_rebuilt_as_the_peer_does(string options)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2"), copy = folder.File("b.qcow2");
        byte[] data = new byte[Size];
        Images.Create(path, Size, options);
        using (var image = Images.Open(path))
            InteropTests.Change(image, data, new Random(2), 60);
        using (var file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite))
        {
            // A count too low, one too high, one missing.
            int cluster = options.Length == 0 ? 65536 : 512;
            long block = BitConverter.IsLittleEndian ? System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(ReadAt(file, cluster, 8)) : 0;
            RandomAccess.Write(file, [0, 0, 0, 2, 0, 0], block + 8);
        }
        File.Copy(path, copy);
        var lines = new List<string>();
        CheckResult found;
        using (var image = Images.Open(path, true, s => s with { ForCheck = true }))
            found = ((ICheckableImage)image).Check(CheckRepair.None, lines.Add);
        var (code, output) = Qemu.TryRun("qemu-img", "check", path);
        Assert.Equal(found.Corruptions > 0 ? 2 : 3, code);
        foreach (string line in lines)
            Assert.Contains(line, output, StringComparison.Ordinal);
        Assert.Contains($"{found.Corruptions} errors were found", output, StringComparison.Ordinal);
        if (found.Leaks > 0)
            Assert.Contains($"{found.Leaks} leaked clusters", output, StringComparison.Ordinal);
        using (var image = Images.Open(path, false, s => s with { ForCheck = true }))
        {
            var repaired = ((ICheckableImage)image).Check(CheckRepair.All, _ => { });
            Assert.Equal(0, repaired.Corruptions + repaired.Leaks + repaired.CheckErrors);
        }
        Qemu.CheckClean(path);
        Assert.True(data.AsSpan().SequenceEqual(Qemu.Content(path)));
    }

    private static byte[] ReadAt(Microsoft.Win32.SafeHandles.SafeFileHandle file, long offset, int count)
    {
        byte[] b = new byte[count];
        RandomAccess.Read(file, b, offset);
        return b;
    }

    [Fact]
    public void Tables_that_nobody_uses_leave_memory()
    {
        var memory = new MemoryProtocol();
        memory.Devices["a"] = new RecordingDevice([]);
        CreateJob.Run(memory.Opener(), new() { FileName = "mem:a", Format = "qcow2", Size = Size });
        var options = new BlockOptions();
        options.Set("cache-clean-interval", "1");
        using var image = memory.Opener().Open("mem:a", "qcow2", new OpenSettings(), options);
        byte[] data = TestData.Mixed(200_000, 1), back = new byte[data.Length];
        image.Write(0, data);
        image.Flush();
        long Reads()
        {
            long before = ((RecordingDevice)memory.Devices["a"]).Reads;
            image.Read(0, back);
            Assert.True(data.AsSpan().SequenceEqual(back));
            return ((RecordingDevice)memory.Devices["a"]).Reads - before;
        }
        long used = Reads();
        Assert.Equal(used, Reads());
        // Twice the interval: once to find it used, once to find it not.
        for (int i = 0; i < 5; i++)
        {
            Thread.Sleep(2500);
            if (Reads() > used)
                return;
        }
        Assert.Fail("the tables stay");
    }

    [Fact]
    public void Content_is_dropped()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] data = new byte[Size];
        Images.Create(path, Size);
        using (var image = Images.Open(path))
        {
            InteropTests.Change(image, data, new Random(2), 60);
            ((IEmptyableImage)image).MakeEmpty();
            Assert.True(ZeroBuffer.IsZero(Images.Content(image)));
        }
        Qemu.CheckClean(path);
        Assert.True(new FileInfo(path).Length <= 4 << 16);
    }

    [Theory]
    [InlineData("", 5L << 30)]
    [InlineData("cluster_size=512,refcount_bits=64", 3L << 30)]
    [InlineData("extended_l2=on", 1L << 40)]
    [InlineData("cluster_size=2M", 12345 * 512)]
    public void Sizes_are_foretold_as_the_peer_does(string options, long size)
    {
        var o = new BlockOptions();
        foreach (string pair in options.Split(',', StringSplitOptions.RemoveEmptyEntries))
            o.Set(pair.Split('=')[0], pair.Split('=')[1]);
        var result = DriverCatalogue.Default.Get("qcow2").Measure!(new MeasureContext(size, o, null));
        string[] more = options.Length == 0 ? [] : ["-o", options];
        Assert.Equal(Qemu.Img(["measure", "-O", "qcow2", .. more, "--size", $"{size}"]),
            $"required size: {result.Required}\nfully allocated size: {result.FullyAllocated}\n");
    }
}
