using FsCheck;
using FsCheck.Fluent;

namespace ImgKit.Block.Tests.Vmdk;

/// <summary>A virtual disk behaves like an array of bytes, whatever is done to it and by how many threads.</summary>
public sealed class VmdkModelTests
{
    private const int Size = 3 << 20;

    public static TheoryData<string, bool> Kinds => new()
    {
        { "subformat=monolithicSparse", false },
        { "subformat=monolithicSparse", true },
        { "subformat=monolithicSparse,zeroed_grain=on", true },
        { "subformat=twoGbMaxExtentSparse,zeroed_grain=on", false },
        { "subformat=monolithicFlat", false },
    };

    private static byte[] CreateChain(TestData.Folder folder, string options, bool withParent)
    {
        byte[] model = new byte[Size];
        if (withParent)
        {
            model = TestData.Mixed(Size, 20);
            File.WriteAllBytes(folder.File("raw"), model);
            VmdkPeerTests.Create(folder.File("parent.vmdk"), Size);
            using var parent = VmdkPeerTests.Open(folder.File("parent.vmdk"), readOnly: false);
            VmdkPeerTests.Convert(folder.File("raw"), "raw", parent);
        }
        VmdkPeerTests.Create(folder.File("t.vmdk"), Size, options + (withParent ? ",backing_file=parent.vmdk" : ""));
        return model;
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Many_threads_on_one_image(string options, bool withParent)
    {
        using var folder = new TestData.Folder();
        byte[] model = CreateChain(folder, options, withParent);
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
        {
            // Sectors go round among the threads, so that every grain is everybody's but no byte is.
            const int threads = 4;
            Parallel.For(0, threads, new ParallelOptions { MaxDegreeOfParallelism = threads }, t =>
            {
                var random = new Random(100 + t);
                for (int i = 0; i < 400; i++)
                {
                    int at = (random.Next(Size / 512 / 16 / threads) * threads + t) * 16 * 512;
                    int n = random.Next(1, 16 * 512);
                    var part = model.AsSpan(at, n);
                    switch (random.Next(5))
                    {
                        case 0:
                            part.Clear();
                            image.WriteZeroes(at, n, i % 2 == 0 ? ZeroOptions.MayUnmap : ZeroOptions.None);
                            break;
                        case 1:
                            byte[] read = new byte[n];
                            image.Read(at, read);
                            Assert.True(part.SequenceEqual(read), $"thread {t} at {at}");
                            break;
                        case 2 when i % 20 == 0:
                            image.Flush();
                            break;
                        default:
                            random.NextBytes(part);
                            image.Write(at, part);
                            break;
                    }
                }
            });
            Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        }
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk")))
        {
            Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
            Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).Corruptions);
        }
        File.WriteAllBytes(folder.File("raw"), model);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), folder.File("t.vmdk"));
    }

    [Fact]
    public void Threads_that_want_the_same_new_grain_share_it()
    {
        using var folder = new TestData.Folder();
        for (int round = 0; round < 10; round++)
        {
            string file = folder.File($"{round}.vmdk");
            VmdkPeerTests.Create(file, 1 << 20);
            using var image = VmdkPeerTests.Open(file, readOnly: false);
            Parallel.For(0, 16, i => image.Write(i * 4096, Enumerable.Repeat((byte)(i + 1), 4096).ToArray()));
            byte[] all = VmdkPeerTests.ReadAll(image);
            for (int i = 0; i < 16; i++)
                Assert.False(all.AsSpan(i * 4096, 4096).ContainsAnyExcept((byte)(i + 1)));
            image.Flush();
            // Header, descriptor and tables, and the one grain.
            Assert.Equal(128 * 512 + 65536, new FileInfo(file).Length);
        }
    }

    [Fact]
    public void What_is_written_beside_a_flush_is_there_after_closing()
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        VmdkPeerTests.Create("mem:t", 1 << 20, opener: opener);
        var file = (RecordingDevice)memory.Devices["t"];
        byte[] data = TestData.Mixed(65536, 5), read = new byte[65536];
        using (var image = opener.Open("mem:t", "vmdk", new OpenSettings()))
        {
            image.Write(0, data);
            file.Flushing = () =>
            {
                var writer = new Thread(() => image.Write(1 << 16, data));
                writer.Start();
                Assert.True(writer.Join(10_000));
            };
            image.Flush();
            Assert.Null(file.Flushing);
        }
        using var again = opener.Open("mem:t", "vmdk", OpenSettings.ReadOnlyDefault);
        again.Read(1 << 16, read);
        Assert.True(data.AsSpan().SequenceEqual(read));
    }

    [Fact]
    public void Requests_go_on_while_the_disk_grows()
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        const int table = 512 << 16, rounds = 100;
        VmdkPeerTests.Create(file, table);
        byte[] Data(int round) => TestData.Mixed(700, round);
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
        {
            int done = 0;
            var writer = new Thread(() =>
            {
                for (int i = 0; i < rounds; i++)
                {
                    image.Write(i * 65536, Data(i));
                    Volatile.Write(ref done, i);
                }
            });
            writer.Start();
            // Each needs a table more, for which the directories move.
            for (int i = 2; Volatile.Read(ref done) < rounds - 1; i++)
                image.Resize((long)i * table);
            writer.Join();
        }
        using var again = VmdkPeerTests.Open(file);
        byte[] read = new byte[700];
        for (int i = 0; i < rounds; i++)
        {
            again.Read(i * 65536, read);
            Assert.True(Data(i).AsSpan().SequenceEqual(read), $"round {i}");
        }
        Peer.QemuImg("check", file);
    }

    [Fact]
    public void Tables_that_do_not_fit_into_the_cache_keep_their_entries()
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        const int tables = 9000;
        const long step = 512 * 65536L;
        VmdkPeerTests.Create(file, tables * step);
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
            Parallel.For(0, 2, t =>
            {
                byte[] b = new byte[512];
                for (int i = t; i < tables; i += 2)
                {
                    BitConverter.TryWriteBytes(b, i + 1);
                    image.Write(i * step + i % 512 * 65536L, b);
                }
            });
        using var again = VmdkPeerTests.Open(file);
        byte[] read = new byte[512];
        for (int i = 0; i < tables; i++)
        {
            again.Read(i * step + i % 512 * 65536L, read);
            Assert.Equal(i + 1, BitConverter.ToInt32(read));
        }
    }

    private enum Op
    {
        Write,
        Zero,
        Unmap,
        Discard,
        Flush,
        Reopen,
        Resize,
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Any_sequence_of_operations(string options, bool withParent)
    {
        var step = from op in Gen.Elements(Enum.GetValues<Op>())
                   from at in Gen.Choose(0, Size - 1)
                   from length in Gen.OneOf(Gen.Choose(1, 5000), Gen.Choose(1, 400_000))
                   from value in Gen.Choose(1, 255)
                   select (op, at, length, value);
        Prop.ForAll(Arb.From(Gen.ListOf(step)), steps =>
        {
            using var folder = new TestData.Folder();
            byte[] model = CreateChain(folder, options, withParent);
            string file = folder.File("t.vmdk");
            var image = VmdkPeerTests.Open(file, readOnly: false);
            foreach (var (op, at, length, value) in steps)
            {
                int n = Math.Min(length, model.Length - at);
                switch (op)
                {
                    case Op.Write:
                        model.AsSpan(at, n).Fill((byte)value);
                        image.Write(at, model.AsSpan(at, n));
                        break;
                    case Op.Zero:
                    case Op.Unmap:
                        model.AsSpan(at, n).Clear();
                        image.WriteZeroes(at, n, op == Op.Unmap ? ZeroOptions.MayUnmap : ZeroOptions.None);
                        break;
                    case Op.Discard:
                        image.Discard(at, n);
                        image.Read(at, model.AsSpan(at, n));
                        break;
                    case Op.Flush:
                        image.Flush();
                        break;
                    case Op.Reopen:
                        image.Dispose();
                        image = VmdkPeerTests.Open(file, readOnly: false);
                        break;
                    case Op.Resize when model.Length < 80 << 20:
                        image.Resize(model.Length + value * 100L * 512);
                        Array.Resize(ref model, (int)image.Length);
                        break;
                }
            }
            using (image)
                Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
            using var again = VmdkPeerTests.Open(file);
            Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(again)));
            Assert.Equal(0, ((ICheckableImage)again).Check(CheckRepair.None, _ => { }).Corruptions);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(12).WithEndSize(25).WithReplay(17, 3));
    }

    [Theory]
    [InlineData("subformat=monolithicSparse")]
    [InlineData("subformat=monolithicFlat")]
    public void A_grown_image_is_the_peers_too(string options)
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        VmdkPeerTests.Create(file, 10 << 20, options);
        byte[] model = new byte[90 << 20];
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
        {
            model.AsSpan(0, 10 << 20).Fill(7);
            image.Write(0, model.AsSpan(0, 10 << 20));
            image.Resize(model.Length);
            model.AsSpan(70 << 20, 100_000).Fill(9);
            image.Write(70 << 20, model.AsSpan(70 << 20, 100_000));
        }
        File.WriteAllBytes(folder.File("raw"), model);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), file);
        Assert.Contains("No errors", Peer.QemuImg("check", file), StringComparison.Ordinal);
        Peer.QemuIo(file, "vmdk", "write -P 5 80M 1M");
        using var again = VmdkPeerTests.Open(file);
        byte[] b = new byte[1 << 20];
        again.Read(80 << 20, b);
        Assert.False(b.AsSpan().ContainsAnyExcept((byte)5));
    }

    [Theory]
    [InlineData("subformat=twoGbMaxExtentSparse", 3)]
    [InlineData("subformat=twoGbMaxExtentSparse,zeroed_grain=on", 3)]
    [InlineData("subformat=twoGbMaxExtentFlat", 3)]
    [InlineData("subformat=monolithicSparse", 1)]
    [InlineData("subformat=monolithicFlat", 1)]
    public void A_grown_image_is_described_as_it_is_and_stays_split(string options, int extents)
    {
        using var folder = new TestData.Folder();
        string file = folder.File("t.vmdk");
        VmdkPeerTests.Create(file, 1 << 30, options);
        using (var image = VmdkPeerTests.Open(file, readOnly: false))
        {
            image.Write(1000 << 20, [1, 2, 3]);
            image.Resize(5L << 30);
            image.Write((4L << 30) - 1, [4, 5]);
            image.Write((2L << 30) - 1, [6, 7]);
        }
        using var reader = new StreamReader(file, System.Text.Encoding.Latin1);
        char[] text = new char[12_000];
        var lines = new string(text, 0, reader.ReadBlock(text)).Split('\n').Where(static l => l.StartsWith("RW ", StringComparison.Ordinal)).ToArray();
        Assert.Equal(extents, lines.Length);
        Assert.Equal(5L << 21, lines.Sum(static l => long.Parse(l.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture)));
        if (extents > 1)
            Assert.All(lines, static l => Assert.True(long.Parse(l.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture) <= 1 << 22));
        Assert.Contains("virtual size: 5 GiB", Peer.QemuImg("info", file), StringComparison.Ordinal);
        Assert.Contains("No errors", Peer.QemuImg("check", file), StringComparison.Ordinal);
        Peer.QemuIo(file, "vmdk", "read -P 4 4294967295 1", "read -P 5 4G 1", "read -P 6 2147483647 1", "read -P 7 2G 1", "read -P 2 1048576001 1", "read -P 0 3G 64k");
        using var again = VmdkPeerTests.Open(file);
        byte[] b = new byte[2];
        again.Read((4L << 30) - 1, b);
        Assert.Equal([4, 5], b);
    }

    [Fact]
    public void A_file_in_the_way_of_a_new_extent_stays()
    {
        using var folder = new TestData.Folder();
        VmdkPeerTests.Create(folder.File("t.vmdk"), 1 << 20, "subformat=twoGbMaxExtentSparse");
        string descriptor = File.ReadAllText(folder.File("t.vmdk"));
        File.WriteAllText(folder.File("t-s003.vmdk"), "mine");
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
            Assert.Contains("is in the way", Assert.Throws<ImageException>(() => image.Resize(5L << 30)).Message, StringComparison.Ordinal);
        Assert.Equal(descriptor, File.ReadAllText(folder.File("t.vmdk")));
        Assert.Equal("mine", File.ReadAllText(folder.File("t-s003.vmdk")));
        Assert.False(File.Exists(folder.File("t-s002.vmdk")));
        using var again = VmdkPeerTests.Open(folder.File("t.vmdk"));
        Assert.Equal(1 << 20, again.Length);
    }

    [Fact]
    public void Bytes_gained_do_not_show_the_parents()
    {
        using var folder = new TestData.Folder();
        CreateChain(folder, "subformat=monolithicSparse", withParent: true);
        VmdkPeerTests.Create(folder.File("short.vmdk"), 1 << 20, "backing_file=parent.vmdk");
        using var image = VmdkPeerTests.Open(folder.File("short.vmdk"), readOnly: false);
        image.Resize(4 << 20);
        Assert.True(ZeroBuffer.IsZero(VmdkPeerTests.ReadAll(image).AsSpan(1 << 20)));
    }

    [Fact]
    public void An_emptied_child_shows_its_parent_as_that_is_now()
    {
        using var folder = new TestData.Folder();
        byte[] model = CreateChain(folder, "subformat=monolithicSparse", withParent: true);
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
            image.Write(100_000, new byte[65536 * 3]);
        using (var parent = VmdkPeerTests.Open(folder.File("parent.vmdk"), readOnly: false))
        {
            model.AsSpan(5, 5).Fill(1);
            parent.Write(5, model.AsSpan(5, 5));
        }
        using (var image = VmdkPeerTests.Open(folder.File("t.vmdk"), readOnly: false))
        {
            ((IEmptyableImage)image).MakeEmpty();
            Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        }
        Assert.Equal(128 * 512, new FileInfo(folder.File("t.vmdk")).Length);
        File.WriteAllBytes(folder.File("raw"), model);
        Peer.QemuImg("compare", "-f", "raw", "-F", "vmdk", folder.File("raw"), folder.File("t.vmdk"));
    }
}
