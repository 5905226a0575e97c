using System.Diagnostics;
using System.Globalization;

namespace ImgKit.Block.Tests.Core;

public sealed class FileDeviceTests : IDisposable
{
    private readonly TestData.Folder _folder = new();
    private readonly ImageOpener _opener = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Holes_are_seen_kept_and_made()
    {
        string name = _folder.File("sparse");
        using (var made = _opener.CreateFile(name, 8 << 20))
            made.Write(4 << 20, TestData.Mixed(1 << 20, 1).Select(b => (byte)(b | 1)).ToArray());
        using var d = _opener.Open(name, "raw", new OpenSettings { Unmap = true });
        // A new file has its first block, so that direct access can find out its alignment.
        Assert.Equal(new[] { (0L, false), (4096L, true), (4L << 20, false), (5L << 20, true) }, Extents(d));
        d.WriteZeroes(4 << 20, 512 << 10, ZeroOptions.MayUnmap);
        Assert.Equal(new[] { (0L, false), (4096L, true), ((4L << 20) + (512 << 10), false), (5L << 20, true) }, Extents(d));
        d.Discard((4 << 20) + (512 << 10), 256 << 10);
        Assert.Equal((4L << 20) + (768 << 10), Extents(d)[2].Start);
        long before = d.AllocatedHostBytes;
        d.WriteZeroes(1 << 20, 1 << 20);
        Assert.Equal(before + (1 << 20), d.AllocatedHostBytes);
        Assert.Equal(8 << 20, d.Length);
    }

    [Fact]
    public void A_file_grows_when_written_behind_its_end_and_reads_as_zeroes_there()
    {
        using var d = _opener.CreateFile(_folder.File("grows"));
        byte[] buffer = [1, 2, 3, 4];
        d.Read(1000, buffer);
        Assert.Equal(new byte[4], buffer);
        d.Write(10_000, [7]);
        Assert.Equal(10_001, d.Length);
        d.WriteZeroes(20_000, 1);
        Assert.Equal(20_001, d.Length);
        Assert.Equal(20_001, new FileInfo(_folder.File("grows")).Length);
    }

    [Fact]
    public void Space_reserved_ahead_is_given_back()
    {
        string name = _folder.File("filled"), plain = _folder.File("plain");
        byte[] data = new byte[8 << 20];
        new Random(1).NextBytes(data);
        long[] allocated = new long[2];
        for (int i = 0; i < 2; i++)
        {
            string file = i == 0 ? name : plain;
            _opener.CreateFile(file).Dispose();
            using (var d = _opener.Open(file, "file", new OpenSettings { FillsNew = i == 0 }))
            {
                for (int at = 0; at < data.Length; at += 1 << 16)
                    d.Write(at, data.AsSpan(at, 1 << 16));
                // A hole is left as it is, and what is behind it takes its own space only.
                d.Write(32 << 20, data.AsSpan(0, 1 << 20));
                d.Write(16 << 20, data.AsSpan(0, 1 << 20));
            }
            using var again = _opener.Open(file, "file", OpenSettings.ReadOnlyDefault);
            Assert.Equal(33 << 20, again.Length);
            byte[] back = new byte[33 << 20];
            again.Read(0, back);
            Assert.True(data.AsSpan().SequenceEqual(back.AsSpan(0, data.Length)));
            Assert.Equal(-1, back.AsSpan(8 << 20, 8 << 20).IndexOfAnyExcept((byte)0));
            using var file2 = ImgKit.Host.HostFile.Open(file, ImgKit.Host.HostFileMode.ReadWrite);
            file2.Sync();
            allocated[i] = file2.GetAllocatedBytes();
        }
        // The file system counts the blocks of its own tree, too.
        Assert.InRange(allocated[0], allocated[1] - 65536, allocated[1] + 65536);
    }

    [Fact]
    public void Direct_access_takes_any_alignment()
    {
        string name = _folder.File("direct");
        byte[] model = TestData.Mixed(3_000_001, 3);
        System.IO.File.WriteAllBytes(name, model);
        using (var d = _opener.Open(name, "file", new OpenSettings { Direct = true }))
        {
            var random = new Random(4);
            for (int i = 0; i < 200; i++)
            {
                int n = random.Next(1, i % 10 == 0 ? 1_500_000 : 9000);
                int at = random.Next(0, model.Length - n + 1);
                if (i % 2 == 0)
                {
                    byte[] data = TestData.Mixed(n, i);
                    d.Write(at, data);
                    data.CopyTo(model, at);
                }
                else
                {
                    byte[] data = new byte[n];
                    d.Read(at, data);
                    Assert.True(model.AsSpan(at, n).SequenceEqual(data));
                }
            }
        }
        Assert.True(model.AsSpan().SequenceEqual(System.IO.File.ReadAllBytes(name)));
    }

    [Theory]
    [InlineData(false, 2000)]
    [InlineData(true, 200)]
    public void Two_that_make_a_file_longer_at_once_both_keep_what_they_wrote(bool direct, int rounds)
    {
        string name = _folder.File("grows");
        _opener.CreateFile(name).Dispose();
        using var aligned = new ImgKit.Host.AlignedBuffer(4096);
        byte[] data = TestData.Mixed(4096, 6);
        data.CopyTo(aligned.Span);
        using var d = _opener.Open(name, "file", new OpenSettings { Unmap = true, Direct = direct });
        int go = -1, done = -1;
        var other = new Thread(() =>
        {
            // Ends before what the test writes: zeroes where the host makes them by its length, or less than a sector of direct data.
            for (int i = 0; i < rounds; i++)
            {
                while (Volatile.Read(ref go) < i)
                    Thread.SpinWait(1);
                if (direct)
                    d.Write(i * 65536L, data.AsSpan(0, 100));
                else
                    d.WriteZeroes(i * 65536L, 100, ZeroOptions.MayUnmap);
                Volatile.Write(ref done, i);
            }
        });
        other.Start();
        for (int i = 0; i < rounds; i++)
        {
            Volatile.Write(ref go, i);
            Thread.SpinWait(i % 100);
            d.Write((i * 65536L) + 61440, aligned.Span);
            while (Volatile.Read(ref done) < i)
                Thread.SpinWait(1);
        }
        other.Join();
        byte[] back = new byte[4096];
        for (int i = 0; i < rounds; i++)
        {
            d.Read((i * 65536L) + 61440, back);
            Assert.True(data.AsSpan().SequenceEqual(back), $"round {i}");
        }
        Assert.Equal(rounds * 65536L, d.Length);
        Assert.Equal(rounds * 65536L, new FileInfo(name).Length);
    }

    [Fact]
    public void A_direct_write_of_part_of_a_sector_undoes_nobody_elses()
    {
        string name = _folder.File("sectors");
        System.IO.File.WriteAllBytes(name, new byte[4096]);
        using var d = _opener.Open(name, "file", new OpenSettings { Direct = true });
        // Each thread has its own bytes of one sector; the first one zeroes what it wrote.
        Parallel.For(0, 4, new ParallelOptions { MaxDegreeOfParallelism = 4 }, t =>
        {
            byte[] data = new byte[100], back = new byte[100];
            for (int i = 1; i <= 1500; i++)
            {
                data.AsSpan().Fill((byte)i);
                d.Write(t * 100, data);
                if (t == 0)
                {
                    d.WriteZeroes(0, 100);
                    data.AsSpan().Clear();
                }
                d.Read(t * 100, back);
                Assert.True(data.AsSpan().SequenceEqual(back), $"thread {t}, round {i}");
            }
        });
    }

    [Fact]
    public unsafe void Vectors_are_read_and_written_whole()
    {
        byte[] data = TestData.Mixed(300_000, 5);
        using var d = _opener.CreateFile(_folder.File("vectors"));
        int[] cuts = [0, 1, 1, 513, 70_000, 70_001, 299_999, 300_000];
        fixed (byte* p = data)
        {
            var buffers = new IoBuffer[cuts.Length - 1];
            for (int i = 0; i < buffers.Length; i++)
                buffers[i] = new IoBuffer(p + cuts[i], cuts[i + 1] - cuts[i]);
            d.WriteVector(77, buffers);
        }
        byte[] back = new byte[300_100];
        back.AsSpan().Fill(9);
        fixed (byte* p = back)
            d.ReadVector(77, [new IoBuffer(p, 100_000), new IoBuffer(p + 100_000, 200_100)]);
        Assert.True(data.AsSpan().SequenceEqual(back.AsSpan(0, data.Length)));
        Assert.True(ZeroBuffer.IsZero(back.AsSpan(data.Length)));
    }

    [Theory]
    [InlineData("falloc")]
    [InlineData("full")]
    public void Preallocated_files_take_their_space(string mode)
    {
        string name = _folder.File("prealloc");
        var options = new BlockOptions();
        options.Set("preallocation", mode);
        _opener.Drivers.Get("raw").Create!(new CreateContext { FileName = name, Size = 3 << 20, Options = options, Opener = _opener });
        using var d = _opener.Open(name, "raw", OpenSettings.ReadOnlyDefault);
        Assert.Equal(3 << 20, d.Length);
        Assert.True(d.AllocatedHostBytes >= 3 << 20);
    }

    [Fact]
    public void A_part_of_a_file_is_a_raw_disk()
    {
        string name = _folder.File("part");
        System.IO.File.WriteAllBytes(name, Enumerable.Range(0, 4096).Select(i => (byte)(i / 16)).ToArray());
        var options = new BlockOptions();
        options.Set("offset", "1k");
        options.Set("size", "512");
        using (var d = _opener.Open(name, "raw", new OpenSettings(), options))
        {
            Assert.Equal(512, d.Length);
            d.Write(0, [99]);
            Assert.Throws<ImageException>(() => d.Write(512, [1]));
            Assert.Throws<ImageException>(() => d.Resize(1024));
        }
        Assert.Equal(99, System.IO.File.ReadAllBytes(name)[1024]);
        options.Set("size", "4k");
        var e = Assert.Throws<ImageException>(() => _opener.Open(name, "raw", OpenSettings.ReadOnlyDefault, options));
        Assert.Contains("has to be smaller or equal to the  actual size", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Qemu_and_ImgKit_exclude_each_other()
    {
        string name = _folder.File("locked");
        System.IO.File.WriteAllBytes(name, new byte[65536]);
        using (var ours = _opener.Open(name, "raw", new OpenSettings { UnshareWrite = true }))
        {
            var (code, text) = Run("qemu-io", "-f", "raw", "-c", "read 0 512", name);
            Assert.NotEqual(0, code);
            Assert.Contains("Failed to get \"write\" lock", text, StringComparison.Ordinal);
            (code, text) = Run("qemu-img", "convert", "-O", "raw", name, name + ".copy");
            Assert.NotEqual(0, code);
            Assert.Contains("Failed to get shared \"write\" lock", text, StringComparison.Ordinal);
            Assert.Equal(0, Run("qemu-img", "convert", "-U", "-O", "raw", name, name + ".copy").Code);
        }
        int id = int.Parse(Peer.Run("sh", "-c", "qemu-io -f raw -c 'sleep 60000' \"$0\" >/dev/null 2>&1 & echo $!", name), CultureInfo.InvariantCulture);
        using var theirs = Process.GetProcessById(id);
        try
        {
            Assert.True(SpinWait.SpinUntil(() => System.IO.File.ReadAllText("/proc/locks").Contains(" 100 ", StringComparison.Ordinal)
                && HasOpen(theirs.Id, name), 20_000));
            var e = Assert.Throws<ImageException>(() => _opener.Open(name, "raw", new OpenSettings { UnshareWrite = true }));
            Assert.Equal(ImageErrorKind.Locked, e.Kind);
            Assert.Contains($"qemu-io (pid {theirs.Id})", e.Message, StringComparison.Ordinal);
            _opener.Open(name, "raw", OpenSettings.ReadOnlyDefault with { UnshareWrite = true, ForceShare = true }).Dispose();
            _opener.Open(name, "raw", new OpenSettings()).Dispose();
        }
        finally
        {
            theirs.Kill();
        }
    }

    [Fact]
    public void A_guess_of_raw_must_not_become_another_format()
    {
        string name = _folder.File("guess");
        System.IO.File.WriteAllBytes(name, new byte[65536]);
        var warnings = new List<string>();
        var opener = new ImageOpener(new DriverCatalogue([.. DriverCatalogue.Default.All, Marked]), null) { Print = warnings.Add };
        using (var d = opener.Open(name, null, new OpenSettings()))
        {
            Assert.Equal("raw", d.DriverName);
            Assert.StartsWith("WARNING: Image format was not specified", Assert.Single(warnings), StringComparison.Ordinal);
            d.Write(0, "MARE"u8);
            Assert.Equal(1, Assert.Throws<ImageException>(() => d.Write(3, "K"u8)).Errno);
        }
        using var named = opener.Open(name, "raw", new OpenSettings());
        named.Write(3, "K"u8);
    }

    private static BlockDriver Marked { get; } = new()
    {
        Name = "marked",
        Kind = DriverKind.Format,
        Description = "a format for this test",
        Probe = (head, _, _) => head.StartsWith("MARK"u8) ? 100 : 0,
        Open = c => throw new ImageException(ImageErrorKind.Unsupported, "not here"),
    };

    private static List<(long Start, bool Zero)> Extents(BlockDevice d)
    {
        var r = new List<(long, bool)>();
        for (long at = 0; at < d.Length;)
        {
            var e = d.GetExtent(at, d.Length - at);
            if (r.Count == 0 || r[^1].Item2 != e.IsZero)
                r.Add((at, e.IsZero));
            at += e.Length;
        }
        return r;
    }

    private static bool HasOpen(int process, string name) =>
        Directory.EnumerateFiles($"/proc/{process}/fd").Any(f => new FileInfo(f).LinkTarget == name);

    private static (int Code, string Text) Run(string program, params string[] arguments) => Peer.TryRun(program, arguments);
}
