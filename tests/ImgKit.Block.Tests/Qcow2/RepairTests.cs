using System.Buffers.Binary;
using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Lists of snapshots that are damaged, and changes that fail half way: told as the peer does, and repaired.</summary>
public sealed class RepairTests
{
    private const int Size = 1 << 20;

    [Theory]
    [InlineData("")]
    [InlineData("compat=0.10")]
    public void A_snapshot_with_too_much_extra_data_is_cut(string options)
    {
        using var folder = new TestData.Folder();
        string path = MakeWithSnapshots(folder, options);
        // The second entry claims 64 KiB of extra data, so that it ends in a cluster that nobody counts.
        Poke(path, SnapshotTable(path) + EntryBytes(path, SnapshotTable(path)) + 36, [0, 1, 0, 0]);
        Assert.Contains("Too much extra metadata in snapshot table entry 1", Assert.Throws<ImageException>(() => Images.Open(path).Dispose()).Message,
            StringComparison.Ordinal);
        var warnings = new List<string>();
        using (var image = new ImageOpener { Warn = warnings.Add }.Open(path, "qcow2", new OpenSettings { ForCheck = true, ReadOnly = true }))
            Assert.Equal(27, Assert.Throws<ImageException>(() => ((ICheckableImage)image).Check(CheckRepair.None, _ => { })).Errno);
        Assert.StartsWith("ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry 1", Assert.Single(warnings),
            StringComparison.Ordinal);
        string[] lines = Repair(path);
        Assert.Contains("Discarding too much extra metadata in snapshot table entry 1 (65536 > 1024)", lines);
        Qemu.CheckClean(path);
        using (var image = Images.Open(path, true))
            Assert.Equal(2, ((ISnapshotImage)image).Snapshots.Count);
    }

    [Fact]
    public void Snapshots_beyond_the_greatest_number_are_dropped()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        Images.Create(path, Size, "compat=0.10");
        // Entries of zeroes are whole in version 2.
        const int at = 1 << 20;
        Poke(path, 60, [0, 1, 0, 3, 0, 0, 0, 0, 0, at >> 16, 0, 0]);
        using (var file = File.OpenWrite(path))
            file.SetLength(at + 65539 * 40);
        Assert.Equal("Snapshot table too large", Assert.Throws<ImageException>(() => Images.Open(path).Dispose()).Message);
        string[] lines = Repair(path);
        Assert.Contains("Discarding 3 overhanging snapshots", lines);
        Qemu.CheckClean(path);
        using (var image = Images.Open(path, true))
            Assert.Equal(65536, ((ISnapshotImage)image).Snapshots.Count);
    }

    [Theory]
    [InlineData("")]
    [InlineData("compat=0.10")]
    public void A_snapshot_that_could_not_be_freed_leaks_and_nothing_more(string options)
    {
        using var folder = new TestData.Folder();
        string path = MakeWithSnapshots(folder, options);
        string rules = folder.File("rules");
        File.WriteAllText(rules, "[inject-error]\nevent = \"cluster_free\"\nerrno = \"5\"\n");
        var lines = new List<string>();
        using (var image = new ImageOpener { Print = lines.Add }.Open($"blkdebug:{rules}:{path}", "qcow2", new OpenSettings()))
        {
            var e = Assert.Throws<ImageException>(() => ((ISnapshotImage)image).DeleteSnapshot("2"));
            Assert.Equal("Failed to free the cluster and L1 table: Input/output error", e.Message);
        }
        using (var image = Images.Open(path, true))
        {
            Assert.Single(((ISnapshotImage)image).Snapshots);
            var found = ((ICheckableImage)image).Check(CheckRepair.None, _ => { });
            Assert.True(found.Corruptions == 0 && found.Leaks > 0);
        }
        Repair(path, CheckRepair.Leaks);
        Qemu.CheckClean(path);
    }

    [Fact]
    public void Compressed_data_is_not_put_where_an_entry_cannot_say()
    {
        // 2 MiB clusters: an entry for compressed data reaches to 512 TiB. All before that is said to be in use.
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        Create(opener, "mem:a", 4 << 20, "cluster_size=2M,refcount_bits=1");
        var file = new Sparse(((RecordingDevice)memory.Devices["a"]).Snapshot());
        byte[] full = new byte[2 << 20];
        full.AsSpan().Fill(0xFF);
        byte[] entry = new byte[8];
        for (int i = 0; i < 16; i++)
        {
            long at = i == 0 ? 4 << 20 : (3L + i) * (2 << 20);
            BinaryPrimitives.WriteInt64BigEndian(entry, at);
            file.Write((2 << 20) + i * 8, entry);
            file.Write(at, full);
        }
        memory.Devices["a"] = file;
        using var image = opener.Open("mem:a", "qcow2", new OpenSettings());
        var packer = (ICompressingDevice)image;
        byte[] packed = new byte[packer.MaxCompressedLength];
        int n = packer.Compress(new byte[2 << 20], packed);
        Assert.Equal(27, Assert.Throws<ImageException>(() => packer.WriteCompressed(0, packed.AsSpan(0, n), 2 << 20)).Errno);
        image.Write(0, [7, 8, 9]);
        image.Flush();
        byte[] back = new byte[3];
        image.Read(0, back);
        Assert.Equal([7, 8, 9], back);
    }

    /// <summary>A file in memory that is mostly holes.</summary>
    private sealed class Sparse(byte[] start) : BlockDevice
    {
        private const int Page = 1 << 16;
        private readonly Dictionary<long, byte[]> _pages = Cut(start);
        private long _length = start.Length;

        public override string DriverName => "sparse";

        public override long Length => _length;

        public override void Read(long offset, Span<byte> destination)
        {
            for (int n; !destination.IsEmpty; destination = destination[n..], offset += n)
            {
                int inside = (int)(offset % Page);
                n = Math.Min(destination.Length, Page - inside);
                if (_pages.TryGetValue(offset / Page, out byte[]? page))
                    page.AsSpan(inside, n).CopyTo(destination);
                else
                    destination[..n].Clear();
            }
        }

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            for (int n; !source.IsEmpty; source = source[n..], offset += n)
            {
                int inside = (int)(offset % Page);
                n = Math.Min(source.Length, Page - inside);
                if (!_pages.TryGetValue(offset / Page, out byte[]? page))
                    _pages[offset / Page] = page = new byte[Page];
                source[..n].CopyTo(page.AsSpan(inside));
                _length = Math.Max(_length, offset + n);
            }
        }

        public override void Resize(long length, ResizeOptions options = default) => _length = length;

        public override void Flush()
        {
        }

        private static Dictionary<long, byte[]> Cut(byte[] bytes)
        {
            var pages = new Dictionary<long, byte[]>();
            for (int at = 0; at < bytes.Length; at += Page)
            {
                byte[] page = new byte[Page];
                bytes.AsSpan(at, Math.Min(Page, bytes.Length - at)).CopyTo(page);
                pages[at / Page] = page;
            }
            return pages;
        }
    }

    [Fact]
    public void Data_and_space_kept_for_zeroes_are_written_at_once()
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        Create(opener, "mem:a", 256 << 10, "cluster_size=64k");
        var device = (RecordingDevice)memory.Devices["a"];
        using var image = opener.Open("mem:a", "qcow2", new OpenSettings());
        byte[] data = TestData.Mixed(192 << 10, 3);
        image.Write(0, data);
        image.WriteZeroes(64 << 10, 64 << 10);
        int before = device.Log.Count;
        data.AsSpan().Reverse();
        image.Write(100, data.AsSpan(100, (192 << 10) - 300));
        var written = device.Log.Skip(before).Where(c => c.Kind == RecordingDevice.ChangeKind.Write).ToArray();
        Assert.Equal((192 << 10) - 300, Assert.Single(written).Data.Length);
        byte[] content = Images.Content(image);
        Assert.True(data.AsSpan(100, (192 << 10) - 300).SequenceEqual(content.AsSpan(100, (192 << 10) - 300)));
    }

    [Fact]
    public void Write_through_is_one_flush_at_the_end_of_a_request()
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        Create(opener, "mem:a", Size, "");
        var device = (RecordingDevice)memory.Devices["a"];
        using var image = opener.Open("mem:a", "qcow2", new OpenSettings { WriteThrough = true });
        for (int i = 0; i < 3; i++)
        {
            image.Write(i * 1000, new byte[1000]);
            Assert.Equal(RecordingDevice.ChangeKind.Flush, device.Log[^1].Kind);
        }
        int writes = device.Log.Count;
        image.Write(500, [1, 2, 3]);
        Assert.Equal(2, device.Log.Count - writes);
        ((IVmStateImage)image).WriteVmState(0, [1]);
        Assert.Equal(RecordingDevice.ChangeKind.Flush, device.Log[^1].Kind);
    }

    [Theory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=512,refcount_bits=1")]
    [InlineData("compat=0.10")]
    public void An_image_that_is_being_emptied_shows_what_it_had_or_what_is_below(string options)
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        Create(opener, "mem:a", 200_000, options);
        byte[] data = TestData.Mixed(200_192, 5);
        using (var image = opener.Open("mem:a", "qcow2", new OpenSettings()))
            image.Write(0, data);
        byte[] start = ((RecordingDevice)memory.Devices["a"]).Snapshot();
        var device = new RecordingDevice(start);
        memory.Devices["a"] = device;
        using (var image = opener.Open("mem:a", "qcow2", new OpenSettings()))
            ((IEmptyableImage)image).MakeEmpty();
        for (int i = 0; i < 60; i++)
        {
            int end = i < 30 ? device.Log.Count * i / 29 : new Random(i).Next(device.Log.Count + 1);
            var dice = new Random(i);
            memory.Devices["b"] = new RecordingDevice(RecordingDevice.Replay(start, device.Log, end, _ => i < 30 || dice.Next(2) == 0));
            using var image = memory.Opener().Open("mem:b", "qcow2", new OpenSettings());
            var lines = new List<string>();
            var found = ((ICheckableImage)image).Check(CheckRepair.None, lines.Add);
            Assert.True(found.Corruptions == 0 && found.CheckErrors == 0, $"{end} of {device.Log.Count}: {string.Join('\n', lines)}");
            byte[] content = Images.Content(image);
            for (int at = 0; at < content.Length; at++)
                if (content[at] != 0 && content[at] != data[at])
                    Assert.Fail($"{end} of {device.Log.Count}: byte {at} is neither");
        }
    }

    [Fact]
    public void Parts_of_clusters_that_are_written_compressed_are_filled_up()
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] data = new byte[2 << 20];
        Images.Create(path, data.Length);
        var options = new BlockOptions();
        options.Set("driver", "compress");
        options.Set("file.driver", "qcow2");
        options.Set("file.file.driver", "file");
        options.Set("file.file.filename", path);
        using (var image = new ImageOpener().Open(options, new OpenSettings()))
        {
            foreach (var (offset, count) in new[] { (0, 229_376), (278_528, 229_376), (229_000, 60_000) })
            {
                data.AsSpan(offset, count).Fill((byte)(offset >> 8));
                image.Write(offset, data.AsSpan(offset, count));
            }
        }
        using (var image = Images.Open(path, true))
        {
            Assert.Equal(8, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).CompressedClusters);
            Assert.True(data.AsSpan().SequenceEqual(Images.Content(image)));
        }
        Qemu.CheckClean(path);
    }

    private static void Create(ImageOpener opener, string name, long size, string options) =>
        CreateJob.Run(opener, new()
        {
            FileName = name,
            Format = "qcow2",
            Size = size,
            Options = options.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(o => new KeyValuePair<string, string>(o.Split('=')[0], o.Split('=')[1])).ToArray(),
        });

    private static string MakeWithSnapshots(TestData.Folder folder, string options)
    {
        string path = folder.File("a.qcow2");
        Images.Create(path, Size, options);
        using var image = Images.Open(path);
        image.Write(0, TestData.Mixed(200_000, 1));
        var snapshots = (ISnapshotImage)image;
        snapshots.CreateSnapshot("one", DateTimeOffset.UnixEpoch);
        image.Write(100_000, TestData.Mixed(200_000, 2));
        snapshots.CreateSnapshot("two", DateTimeOffset.UnixEpoch);
        return path;
    }

    private static string[] Repair(string path, CheckRepair repair = CheckRepair.All)
    {
        var lines = new List<string>();
        using var image = Images.Open(path, false, s => s with { ForCheck = true });
        var result = ((ICheckableImage)image).Check(repair, lines.Add);
        Assert.True(result.Corruptions + result.Leaks + result.CheckErrors == 0, string.Join('\n', lines));
        return [.. lines];
    }

    private static long SnapshotTable(string path) => BinaryPrimitives.ReadInt64BigEndian(Peek(path, 64, 8));

    private static long EntryBytes(string path, long at)
    {
        byte[] b = Peek(path, at, 40);
        long bytes = 40 + BinaryPrimitives.ReadInt32BigEndian(b.AsSpan(36)) + BinaryPrimitives.ReadUInt16BigEndian(b.AsSpan(12))
            + BinaryPrimitives.ReadUInt16BigEndian(b.AsSpan(14));
        return (bytes + 7) & ~7;
    }

    private static byte[] Peek(string path, long offset, int count)
    {
        using var file = File.OpenHandle(path);
        byte[] bytes = new byte[count];
        RandomAccess.Read(file, bytes, offset);
        return bytes;
    }

    private static void Poke(string path, long offset, byte[] bytes)
    {
        using var file = File.OpenHandle(path, FileMode.Open, FileAccess.Write);
        RandomAccess.Write(file, bytes, offset);
    }
}
