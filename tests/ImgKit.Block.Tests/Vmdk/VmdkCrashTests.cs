namespace ImgKit.Block.Tests.Vmdk;

/// <summary>
/// A crash may come at any time, and of what was written since the last flush any part may be on the disk: the image opens, checks
/// clean, and has all that was flushed.
/// </summary>
public sealed class VmdkCrashTests
{
    private const int Size = 1 << 20;
    private const int Block = 4096;

    /// <summary>Makes <c>mem:t</c>, and perhaps a parent that is full.</summary>
    /// <returns>what it reads as.</returns>
    internal static byte[] CreateChain(ImageOpener opener, string options, bool withParent)
    {
        byte[] parent = withParent ? TestData.Mixed(Size, 30) : new byte[Size];
        if (withParent)
        {
            VmdkPeerTests.Create("mem:parent", Size, "", opener);
            using var p = opener.Open("mem:parent", "vmdk", new OpenSettings());
            p.Write(0, parent);
        }
        VmdkPeerTests.Create("mem:t", Size, options + (withParent ? ",backing_file=mem:parent" : ""), opener);
        return parent;
    }

    [Theory]
    [InlineData("subformat=monolithicSparse", false, 1)]
    [InlineData("subformat=monolithicSparse,zeroed_grain=on", true, 2)]
    [InlineData("subformat=monolithicSparse", true, 3)]
    [InlineData("subformat=streamOptimized", false, 4)]
    public void What_was_flushed_is_there_after_a_crash(string options, bool withParent, int seed)
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        bool stream = options.Contains("stream", StringComparison.Ordinal);
        byte[] parent = CreateChain(opener, options, withParent);
        byte[] start = ((RecordingDevice)memory.Devices["mem:t"[4..]]).Snapshot();
        var device = new RecordingDevice(start);
        memory.Devices["t"] = device;

        // For each block all values that it has had, with the place in the log where it could first be seen.
        var history = new List<(int LogAt, byte[] Content)>[Size / Block];
        for (int i = 0; i < history.Length; i++)
            history[i] = [(0, parent[(i * Block)..((i + 1) * Block)])];
        var flushes = new List<(int Log, int[] Versions)>();
        using (var image = opener.Open("mem:t", "vmdk", new OpenSettings()))
        {
            var random = new Random(seed);
            for (int i = 0; i < 60; i++)
            {
                if (i % 9 == 8)
                {
                    image.Flush();
                    flushes.Add((device.Log.Count, history.Select(h => h.Count - 1).ToArray()));
                    continue;
                }
                int unit = stream ? 16 : 1;
                int at = stream ? (i - i / 9) % 16 * 16 : random.Next(history.Length);
                if (stream && history[at].Count > 1)
                    continue;
                int n = stream ? 16 : Math.Min(random.Next(1, 40), history.Length - at);
                byte[] data = new byte[n * Block];
                if (random.Next(4) > 0 || stream)
                    random.NextBytes(data);
                for (int k = 0; k < n; k++)
                    history[at + k].Add((device.Log.Count, data[(k * Block)..((k + 1) * Block)]));
                if (ZeroBuffer.IsZero(data))
                    image.WriteZeroes((long)at * Block, data.Length, ZeroOptions.MayUnmap);
                else
                    image.Write((long)at * Block, data);
                Assert.True(unit > 0);
            }
        }
        var log = device.Log;
        var choice = new Random(seed + 100);
        for (int round = 0; round < 120; round++)
        {
            int end = choice.Next(log.Count + 1);
            int mode = round % 3;
            byte[] crashed = RecordingDevice.Replay(start, log, end, _ => mode == 0 || (mode == 1 && choice.Next(2) == 0));
            memory.Devices["t"] = new RecordingDevice(crashed);
            using var image = opener.Open("mem:t", "vmdk", OpenSettings.ReadOnlyDefault);
            byte[] content = VmdkPeerTests.ReadAll(image);
            var messages = new List<string>();
            var result = ((ICheckableImage)image).Check(CheckRepair.None, messages.Add);
            // Two copies of a table may differ, for they are written one after the other; nothing else may be wrong.
            Assert.All(messages, m => Assert.Contains("differs between", m, StringComparison.Ordinal));
            var promised = flushes.LastOrDefault(f => f.Log <= end).Versions;
            for (int b = 0; b < history.Length; b++)
            {
                int from = promised?[b] ?? 0;
                var block = content.AsSpan(b * Block, Block);
                bool found = false;
                for (int v = from; v < history[b].Count && !found; v++)
                    found = (v == from || history[b][v].LogAt <= end) && block.SequenceEqual(history[b][v].Content);
                Assert.True(found || IsMixed(block, history[b], from), $"round {round}: block {b} after {end} of {log.Count} is none that it could be");
            }
        }
    }

    /// <summary>A write that was not flushed may have reached the disk in part.</summary>
    private static bool IsMixed(ReadOnlySpan<byte> block, List<(int LogAt, byte[] Content)> history, int from)
    {
        for (int s = 0; s < Block; s += 512)
        {
            var sector = block.Slice(s, 512);
            bool found = false;
            for (int v = from; v < history.Count; v++)
                found |= sector.SequenceEqual(history[v].Content.AsSpan(s, 512));
            if (!found)
                return false;
        }
        return true;
    }

    [Fact]
    public void A_full_disk_leaves_an_image_that_is_right()
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        VmdkPeerTests.Create("mem:t", Size, "", opener);
        var full = new LimitedDevice(memory.Devices["t"], 200_000);
        memory.Devices["t"] = full;
        byte[] model = new byte[Size];
        using (var image = opener.Open("mem:t", "vmdk", new OpenSettings()))
        {
            var random = new Random(1);
            int failed = 0;
            for (int i = 0; i < 200; i++)
            {
                int at = random.Next(Size / 512) * 512;
                byte[] data = new byte[512];
                random.NextBytes(data);
                try
                {
                    image.Write(at, data);
                    data.CopyTo(model, at);
                }
                catch (IOException)
                {
                    failed++;
                }
            }
            Assert.InRange(failed, 1, 199);
            Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(image)));
        }
        using var again = opener.Open("mem:t", "vmdk", OpenSettings.ReadOnlyDefault);
        Assert.True(model.AsSpan().SequenceEqual(VmdkPeerTests.ReadAll(again)));
        Assert.Equal(0, ((ICheckableImage)again).Check(CheckRepair.None, _ => { }).Corruptions);
    }

    /// <summary>A disk that is full at a size.</summary>
    private sealed class LimitedDevice(BlockDevice device, long limit) : BlockDevice
    {
        public override string DriverName => "limited";

        public override long Length => device.Length;

        public override void Read(long offset, Span<byte> destination) => device.Read(offset, destination);

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            if (offset + source.Length > limit)
                throw new IOException("No space left on device");
            device.Write(offset, source);
        }

        public override void Flush() => device.Flush();
    }
}
