using System.Diagnostics;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Images that somebody made to do harm, or that a disk has damaged: errors in one line, no crash, no end of work.</summary>
public sealed class HostileTests
{
    [Theory]
    [InlineData("cluster_size=512", 1)]
    [InlineData("cluster_size=4k", 2)]
    [InlineData("extended_l2=on,cluster_size=16k", 3)]
    [InlineData("compat=0.10,cluster_size=1k", 4)]
    public void Damaged_metadata_gives_errors(string options, int seed)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2"), bad = folder.File("bad.qcow2");
        byte[] data = new byte[400 * 1024];
        Images.Create(path, data.Length, options);
        using (var image = Images.Open(path))
        {
            InteropTests.Change(image, data, new Random(seed), 30);
            ((ISnapshotImage)image).CreateSnapshot("s", DateTimeOffset.UnixEpoch);
            if (!options.Contains("0.10", StringComparison.Ordinal))
                ((IBitmapImage)image).AddBitmap("b", 4096, true);
            InteropTests.Change(image, data, new Random(seed), 30);
        }
        byte[] good = File.ReadAllBytes(path);
        var random = new Random(seed);
        var watch = Stopwatch.StartNew();
        for (int i = 0; i < 40; i++)
        {
            byte[] bytes = (byte[])good.Clone();
            for (int k = random.Next(1, 4); k > 0; k--)
            {
                // Most of what is not zero in the first clusters is metadata.
                int at = random.Next(random.Next(2) == 0 ? 512 : bytes.Length);
                bytes[at] = random.Next(3) == 0 ? (byte)random.Next(256) : (byte)(bytes[at] ^ (1 << random.Next(8)));
            }
            if (random.Next(10) == 0)
                Array.Resize(ref bytes, random.Next(bytes.Length));
            File.WriteAllBytes(bad, bytes);
            UseAll(bad, random);
        }
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(60), "takes too long");
    }

    private static void UseAll(string path, Random random)
    {
        Try(() =>
        {
            using var image = Images.Open(path, true);
            image.GetExtent(0, Math.Min(image.Length, 1));
            byte[] buffer = new byte[(int)Math.Min(image.Length, 1 << 20)];
            image.Read(0, buffer);
            _ = ((IImageDetails)image).FormatSpecific;
            foreach (var s in ((ISnapshotImage)image).Snapshots)
                Try(() => ((ISnapshotImage)image).OpenSnapshot(s.Id).Read(0, new byte[512]));
            foreach (var b in ((IBitmapImage)image).Bitmaps)
                Try(() => ((IBitmapImage)image).GetBitmapExtent(b.Name, 0, image.Length));
        });
        Try(() =>
        {
            using var image = Images.Open(path, true, s => s with { ForCheck = true });
            ((ICheckableImage)image).Check(CheckRepair.None, _ => { });
        });
        Try(() =>
        {
            using var image = Images.Open(path);
            byte[] data = new byte[5000];
            image.Write(Math.Max(0, random.Next((int)Math.Min(image.Length, 300_000)) - 5000), data);
            image.Flush();
            ((ISnapshotImage)image).CreateSnapshot("t", DateTimeOffset.UnixEpoch);
            ((ISnapshotImage)image).DeleteSnapshot("s");
        });
        Try(() =>
        {
            using var image = Images.Open(path, false, s => s with { ForCheck = true });
            ((ICheckableImage)image).Check(CheckRepair.All, _ => { });
        });
    }

    private static void Try(Action action)
    {
        try
        {
            action();
        }
        catch (ImageException e)
        {
            Assert.NotEmpty(e.Message);
        }
        catch (IOException)
        {
        }
    }
}
