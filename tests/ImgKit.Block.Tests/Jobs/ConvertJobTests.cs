using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Digest;

namespace ImgKit.Block.Tests.Jobs;

public sealed class ConvertJobTests
{
    [Theory]
    [InlineData(1, 4096, true)]
    [InlineData(2, 4096, true)]
    [InlineData(7, 4096, false)]
    [InlineData(3, 0, true)]
    [InlineData(3, 512, true)]
    [InlineData(3, 1 << 20, true)]
    public void Content_is_copied(int threads, long zeroRun, bool targetIsZero)
    {
        byte[] data = TestData.Mixed(5_000_123, threads + (int)zeroRun);
        using var source = Device(data);
        using var target = new MemoryDevice(data.Length);
        if (!targetIsZero)
            target.Write(0, Enumerable.Repeat((byte)0xAA, data.Length).ToArray());
        Run(new ConvertRequest { Sources = [source], Target = target, Threads = threads, MinimumZeroRun = zeroRun, TargetIsZero = targetIsZero });
        Assert.True(data.AsSpan().SequenceEqual(target.Snapshot()));
    }

    [Fact]
    public void Sources_are_joined()
    {
        byte[] a = TestData.Mixed(1_000_448, 1), b = TestData.Mixed(512, 2), c = TestData.Mixed(2_222_080, 3);
        using var target = new MemoryDevice(a.Length + b.Length + c.Length + 1024);
        target.Write(target.Length - 1024, Enumerable.Repeat((byte)1, 1024).ToArray());
        using BlockDevice da = Device(a), db = Device(b), dc = Device(c);
        Run(new ConvertRequest { Sources = [da, db, dc], Target = target });
        // What lies behind them in a longer target stays.
        byte[] expected = [.. a, .. b, .. c, .. Enumerable.Repeat((byte)1, 1024)];
        Assert.True(expected.AsSpan().SequenceEqual(target.Snapshot()));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void The_order_of_writes_does_not_depend_on_threads(int threads)
    {
        byte[] data = TestData.Mixed(9_000_000, 5);
        using var source = Device(data);
        using var target = new OrderRecorder(data.Length);
        Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = threads });
        using var reference = new OrderRecorder(data.Length);
        Run(new ConvertRequest { Sources = [source], Target = reference, TargetIsZero = true, Threads = 1 });
        Assert.NotEmpty(target.Writes);
        Assert.Equal(reference.Writes, target.Writes);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(16)]
    public void Scattered_clusters_are_copied_however_many_wait_for_their_device(int threads)
    {
        using var source = new Scattered(40 << 20);
        using var target = new MemoryDevice(40 << 20);
        long reported = 0;
        Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = threads, Progress = new Last(v => reported = v) });
        Assert.True(source.Content().AsSpan().SequenceEqual(target.Snapshot()));
        Assert.Equal(40 << 20, reported);
        Assert.InRange(source.MostInside, 1, threads);
    }

    [Theory]
    [InlineData("raw", "")]
    [InlineData("qcow2", "")]
    [InlineData("qcow2", "compression_type=zstd")]
    [InlineData("qcow2", "extended_l2=on")]
    [InlineData("vmdk", "subformat=monolithicSparse")]
    [InlineData("vmdk", "subformat=streamOptimized")]
    [InlineData("cloop", "version=2.0")]
    [InlineData("cloop", "version=4.0")]
    public void Bytes_of_a_new_image_depend_on_no_thread(string format, string options)
    {
        using var folder = new TestData.Folder();
        using var source = Device(TestData.Mixed(7 << 20, 6));
        bool compress = options.Contains("zstd", StringComparison.Ordinal) || format == "cloop";
        byte[]? first = null;
        foreach (int threads in new[] { 1, 2, 5, 16 })
        {
            // The name stands in some descriptors.
            string path = folder.File("a." + format);
            File.Delete(path);
            var opener = new ImageOpener();
            var list = new BlockOptions();
            if (options.Length > 0)
                list.Set(options[..options.IndexOf('=', StringComparison.Ordinal)], options[(options.IndexOf('=', StringComparison.Ordinal) + 1)..]);
            ImgKit.Block.Jobs.Create.CreateJob.Create(opener, opener.Drivers.Get(format), path, source.Length, list, reproducible: true);
            using (var target = opener.Open(path, format, new OpenSettings { Reproducible = true, FillsNew = true }))
            {
                Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = threads, Compress = compress });
                target.Flush();
            }
            byte[] bytes = File.ReadAllBytes(path);
            first ??= bytes;
            Assert.True(first.AsSpan().SequenceEqual(bytes), $"{threads} threads");
        }
    }

    [Fact]
    public void A_write_error_ends_all_threads()
    {
        using var source = Device(TestData.Mixed(20 << 20, 4).Select(b => (byte)(b | 1)).ToArray());
        using var target = new Full(20 << 20, 7 << 20);
        var e = Assert.Throws<ImageException>(() => Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = 4 }));
        Assert.Equal("error while writing at byte 7340032: full", e.Message);
    }

    /// <summary>Pieces that the kernel copies pass their turn like all others, however many threads there are.</summary>
    [Fact]
    public void The_kernel_copies_in_turn()
    {
        using var folder = new TestData.Folder();
        byte[] data = TestData.Mixed(6 << 20, 11);
        data.AsSpan(1 << 20, 1 << 20).Clear();
        data.AsSpan(3 << 20, 1 << 20).Clear();
        var opener = new ImageOpener();
        string name = folder.File("a");
        using (var f = File.Create(name))
        {
            f.SetLength(data.Length);
            foreach (int at in new[] { 0, 2, 4, 5 })
            {
                f.Position = at << 20;
                f.Write(data, at << 20, 1 << 20);
            }
        }
        for (int i = 0; i < 60; i++)
        {
            using var source = opener.Open(name, "raw", OpenSettings.ReadOnlyDefault);
            File.WriteAllBytes(folder.File("b"), []);
            using var target = opener.Open(folder.File("b"), "raw", new OpenSettings());
            target.Resize(data.Length);
            var job = Task.Run(() => Run(new ConvertRequest { Sources = [source], Target = target, Threads = 4, TargetIsZero = true, CopyInKernel = true }));
            Assert.True(job.Wait(TimeSpan.FromSeconds(20)), "the threads wait for each other");
            byte[] back = new byte[data.Length];
            target.Read(0, back);
            Assert.True(data.AsSpan().SequenceEqual(back));
        }
    }

    [Fact]
    public void A_read_error_stops_the_job_and_says_where()
    {
        using var source = new Broken(4 << 20, 3 << 20);
        using var target = new MemoryDevice(4 << 20);
        var e = Assert.Throws<ImageException>(() => Run(new ConvertRequest { Sources = [source], Target = target, Threads = 3 }));
        Assert.StartsWith("error while reading at byte 3145728: ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Salvage_loses_only_the_broken_sector()
    {
        using var source = new Broken(4 << 20, (3 << 20) + 512);
        using var target = new MemoryDevice(4 << 20);
        var warnings = new List<string>();
        Run(new ConvertRequest { Sources = [source], Target = target, Salvage = true, Warn = w => { lock (warnings) warnings.Add(w); } });
        byte[] expected = Enumerable.Repeat((byte)7, 4 << 20).ToArray();
        expected.AsSpan((3 << 20) + 512, 512).Clear();
        Assert.True(expected.AsSpan().SequenceEqual(target.Snapshot()));
        Assert.Equal("error while reading offset 3146240: broken", Assert.Single(warnings));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(65536)]
    [InlineData(70_000)]
    [InlineData(300 * 65536)]
    public void The_digest_is_the_same_on_every_path(int length)
    {
        byte[] data = TestData.Mixed(length, length);
        using var plain = new ContentDigest();
        plain.Append(data);
        using var source = Device(data);
        string parallel = DigestJob.ContentDigestOf(source, 3);
        using var onTheWay = new ContentDigest();
        using var target = new MemoryDevice(length);
        Run(new ConvertRequest { Sources = [source], Target = target, Digest = onTheWay, TargetIsZero = true });
        string expected = plain.Finish();
        Assert.Equal(expected, parallel);
        Assert.Equal(expected, onTheWay.Finish());
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(5, 65536 * 256L)]
    [InlineData(65536 * 3, 65536 * 256L * 3 + 17)]
    [InlineData(65536 * 255, 65536L * 600)]
    public void Zeroes_digest_the_same_in_one_run_and_in_many(int lead, long zeroes)
    {
        byte[] head = TestData.Mixed(lead, 9);
        using var once = new ContentDigest();
        once.Append(head);
        once.AppendZeroes(zeroes);
        once.Append([1]);
        using var steps = new ContentDigest();
        steps.Append(head);
        for (long left = zeroes; left > 0;)
        {
            int n = (int)Math.Min(left, 1_000_000);
            steps.Append(ZeroBuffer.Span(n));
            left -= n;
        }
        steps.Append([1]);
        Assert.Equal(steps.Finish(), once.Finish());
    }

    private static void Run(ConvertRequest request) => ConvertJob.Run(request);

    private static MemoryDevice Device(byte[] data)
    {
        var d = new MemoryDevice(data.Length);
        d.Write(0, data);
        return d;
    }

    private sealed class Broken(int length, long badOffset) : BlockDevice
    {
        public override long Length => length;

        public override string DriverName => "broken";

        public override void Read(long offset, Span<byte> destination)
        {
            if (offset <= badOffset && badOffset < offset + destination.Length)
                throw new IOException("broken");
            destination.Fill(7);
        }

        public override void Write(long offset, ReadOnlySpan<byte> source) { }

        public override void Flush() { }
    }

    private sealed class Last(Action<long> report) : IProgress<long>
    {
        public void Report(long value) => report(value);
    }

    /// <summary>Every other run of clusters is a hole; what is not takes its time to read.</summary>
    private sealed class Scattered(int length) : BlockDevice
    {
        private const int Run = 64 << 10;
        private int _inside;
        private int _most;

        public int MostInside => _most;

        public override long Length => length;

        public override string DriverName => "scattered";

        public byte[] Content()
        {
            byte[] content = new byte[length];
            Fill(0, content);
            return content;
        }

        public override void Read(long offset, Span<byte> destination)
        {
            int n = Interlocked.Increment(ref _inside);
            for (int most = _most; n > most; most = _most)
                Interlocked.CompareExchange(ref _most, n, most);
            if (offset % (1 << 20) == 0)
                Thread.Sleep(10);
            Fill(offset, destination);
            Interlocked.Decrement(ref _inside);
        }

        public override void Write(long offset, ReadOnlySpan<byte> source) { }

        public override void Flush() { }

        public override BlockExtent GetExtent(long offset, long count)
        {
            long left = Run - offset % Run;
            return new(Math.Min(count, left), offset / Run % 2 == 0 ? ExtentKind.Data | ExtentKind.Allocated : ExtentKind.Zero, 0);
        }

        private static void Fill(long offset, Span<byte> destination)
        {
            for (int i = 0; i < destination.Length; i++)
                destination[i] = (offset + i) / Run % 2 == 0 ? (byte)((offset + i) / 4096 | 1) : (byte)0;
        }
    }

    private sealed class Full(long length, long end) : BlockDevice
    {
        public override long Length => length;

        public override string DriverName => "full";

        public override BlockLimits Limits => BlockLimits.Default with { ClusterSize = 65536 };

        public override void Read(long offset, Span<byte> destination) { }

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            if (offset + source.Length > end)
                throw new IOException("full");
        }

        public override void Flush() { }
    }

    private sealed class OrderRecorder(long length) : BlockDevice
    {
        public List<(long, int)> Writes { get; } = [];

        public override long Length => length;

        public override string DriverName => "order";

        public override BlockLimits Limits => BlockLimits.Default with { ClusterSize = 65536 };

        public override void Read(long offset, Span<byte> destination) { }

        public override void Write(long offset, ReadOnlySpan<byte> source) => Writes.Add((offset, source.Length));

        public override void Flush() { }
    }
}
