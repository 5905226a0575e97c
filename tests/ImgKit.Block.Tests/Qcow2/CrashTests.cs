using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Whatever part of the last writes a crash leaves, the image opens, has what was flushed, and at most leaks.</summary>
public sealed class CrashTests
{
    private const int Size = 600 * 1024;

    [Theory]
    [InlineData("cluster_size=4k", 1)]
    [InlineData("cluster_size=512", 2)]
    [InlineData("cluster_size=16k,extended_l2=on", 3)]
    [InlineData("cluster_size=1k,lazy_refcounts=on", 4)]
    [InlineData("cluster_size=4k,compat=0.10", 5)]
    [InlineData("cluster_size=512,refcount_bits=64", 6)]
    public void A_crash_loses_nothing_that_was_flushed(string options, int seed)
    {
        var random = new Random(seed);
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        CreateJob.Run(opener, new CreateRequest
        {
            FileName = "mem:a",
            Format = "qcow2",
            Size = Size,
            Options = options.Split(',').Select(o => new KeyValuePair<string, string>(o.Split('=')[0], o.Split('=')[1])).ToArray(),
        });
        byte[] start = ((RecordingDevice)memory.Devices["a"]).Snapshot();
        var device = new RecordingDevice(start);
        memory.Devices["a"] = device;
        byte[] model = new byte[Size];
        var flushed = new List<(int End, byte[] Content)> { (0, new byte[Size]) };
        var touched = new List<(int At, int Offset, int Count)>();
        using (var image = opener.Open("mem:a", "qcow2", new OpenSettings { Unmap = true }))
        {
            for (int i = 0; i < 70; i++)
            {
                Step(image, model, random, device, touched, options);
                if (i % 6 != 5)
                    continue;
                image.Flush();
                flushed.Add((device.Log.Count, (byte[])model.Clone()));
            }
        }
        var log = device.Log;
        for (int i = 0; i < 120; i++)
        {
            int end = i < 40 ? log.Count * i / 40 : random.Next(log.Count + 1);
            int keep = i < 40 ? 100 : random.Next(100);
            var dice = new Random(i);
            byte[] bytes = RecordingDevice.Replay(start, log, end, _ => dice.Next(100) < keep);
            CheckAfterCrash(memory, bytes, end, flushed, touched, $"{options} cut {end} of {log.Count}, {keep} %");
        }
    }

    /// <summary>Version 2 has no bit that says "unfinished": between counts and flags of a snapshot flags may be wrong. That is all that may,
    /// and a repair takes it away.</summary>
    [Fact]
    public void A_crash_in_a_snapshot_of_version_2_leaves_flags_to_repair_at_most()
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        CreateJob.Run(opener, new CreateRequest { FileName = "mem:a", Format = "qcow2", Size = Size, Options = [new("compat", "0.10"), new("cluster_size", "4k")] });
        byte[] model = TestData.Mixed(Size, 4), older = (byte[])model.Clone();
        using (var image = opener.Open("mem:a", "qcow2", new OpenSettings()))
        {
            image.Write(0, model);
            ((ISnapshotImage)image).CreateSnapshot("kept", DateTimeOffset.UnixEpoch);
            model.AsSpan(100_000, 150_000).Fill(1);
            image.Write(100_000, model.AsSpan(100_000, 150_000));
        }
        byte[] start = ((RecordingDevice)memory.Devices["a"]).Snapshot();
        Action<ISnapshotImage>[] changes = [i => i.CreateSnapshot("new", DateTimeOffset.UnixEpoch), i => i.DeleteSnapshot("kept"), i => i.ApplySnapshot("kept")];
        foreach (var change in changes)
        {
            var device = new RecordingDevice(start);
            memory.Devices["a"] = device;
            using (var image = opener.Open("mem:a", "qcow2", new OpenSettings()))
                change((ISnapshotImage)image);
            for (int i = 0; i < 80; i++)
            {
                var dice = new Random(i);
                int end = i < 40 ? device.Log.Count * i / 39 : dice.Next(device.Log.Count + 1);
                memory.Devices["b"] = new RecordingDevice(RecordingDevice.Replay(start, device.Log, end, _ => i < 40 || dice.Next(2) == 0));
                using var image = memory.Opener().Open("mem:b", "qcow2", new OpenSettings());
                var lines = new List<string>();
                ((ICheckableImage)image).Check(CheckRepair.None, lines.Add);
                Assert.All(lines, l => Assert.True(l.StartsWith("Leaked", StringComparison.Ordinal) || l.StartsWith("ERROR OFLAG_COPIED", StringComparison.Ordinal), l));
                byte[] content = Images.Content(image);
                Assert.True(content.AsSpan().SequenceEqual(model) || content.AsSpan().SequenceEqual(older));
                if (((ISnapshotImage)image).Snapshots.Any(s => s.Name == "kept"))
                    using (var snapshot = ((ISnapshotImage)image).OpenSnapshot("kept"))
                        Assert.True(Images.Content(snapshot).AsSpan().SequenceEqual(older));
                var repaired = ((ICheckableImage)image).Check(CheckRepair.All, _ => { });
                Assert.Equal(0, repaired.Corruptions + repaired.Leaks + repaired.CheckErrors);
                Assert.True(content.AsSpan().SequenceEqual(Images.Content(image)));
            }
        }
    }

    private static void Step(BlockDevice image, byte[] model, Random random, RecordingDevice device, List<(int, int, int)> touched, string options)
    {
        int offset = random.Next(Size), count = random.Next(1, Math.Min(40_000, Size - offset) + 1);
        touched.Add((device.Log.Count, offset, count));
        switch (random.Next(10))
        {
            case 0:
                image.WriteZeroes(offset, count, ZeroOptions.MayUnmap);
                model.AsSpan(offset, count).Clear();
                break;
            case 1:
                image.Discard(offset, count);
                image.Read(offset, model.AsSpan(offset, count));
                break;
            case 2 when !options.Contains("0.10", StringComparison.Ordinal):
                // Counts and tables cannot change at once: version 3 says so with its dirty bit.
                if (((ISnapshotImage)image).Snapshots.Count > 1)
                    ((ISnapshotImage)image).DeleteSnapshot(((ISnapshotImage)image).Snapshots[0].Id);
                ((ISnapshotImage)image).CreateSnapshot("s", DateTimeOffset.UnixEpoch);
                break;
            default:
                byte[] data = new byte[count];
                random.NextBytes(data);
                image.Write(offset, data);
                data.CopyTo(model, offset);
                break;
        }
    }

    private static void CheckAfterCrash(MemoryProtocol memory, byte[] bytes, int end, List<(int End, byte[] Content)> flushed,
        List<(int At, int Offset, int Count)> touched, string what)
    {
        memory.Devices["b"] = new RecordingDevice(bytes);
        using var image = memory.Opener().Open("mem:b", "qcow2", new OpenSettings());
        var lines = new List<string>();
        var found = ((ICheckableImage)image).Check(CheckRepair.None, lines.Add);
        Assert.True(found.Corruptions == 0 && found.CheckErrors == 0, $"{what}: {string.Join('\n', lines)}");
        // What no request touched since the last flush is what it was then.
        var (at, expected) = flushed.FindLast(f => f.End <= end);
        bool[] free = new bool[Size];
        foreach (var (index, offset, count) in touched)
            if (index >= at - 1)
                free.AsSpan(offset & ~65535, Math.Min(count + 131072, Size - (offset & ~65535))).Fill(true);
        byte[] content = Images.Content(image);
        for (int i = 0; i < Size; i++)
            if (!free[i] && content[i] != expected[i])
                Assert.Fail($"{what}: byte {i} is lost");
    }
}
