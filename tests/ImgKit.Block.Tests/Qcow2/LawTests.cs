using FsCheck;
using FsCheck.Fluent;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>An image is an array of bytes, whatever is done to it, and by however many at once.</summary>
public sealed class LawTests
{
    private const int Threads = 3;
    private const int Stripe = 3000;        // does not divide any cluster

    private static readonly string[] Options =
    [
        "cluster_size=4k",
        "extended_l2=on,cluster_size=16k",
        "compat=0.10,cluster_size=1k",
        "lazy_refcounts=on",
        "cluster_size=512,refcount_bits=8",
        "compression_type=zstd,cluster_size=8k",
    ];

    [Fact]
    public void An_image_used_by_several_threads_is_an_array_of_bytes() =>
        Prop.ForAll(ArbMap.Default.ArbFor<int>(), Run).Check(Config.QuickThrowOnFailure.WithMaxTest(25));

    private static void Run(int seed)
    {
        seed &= 0xFFFFF;
        var random = new Random(seed);
        string options = Options[seed % Options.Length];
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        byte[] model = new byte[random.Next(200, 3000) * 512];
        bool backed = random.Next(2) == 0;
        if (backed)
        {
            byte[] below = TestData.Mixed(random.Next(1, 3000) * 512, seed);
            File.WriteAllBytes(folder.File("below"), below);
            below.AsSpan(0, Math.Min(below.Length, model.Length)).CopyTo(model);
        }
        Images.Create(path, model.Length, options, backed ? "below" : null, backed ? "raw" : null);
        var snapshots = new Dictionary<string, byte[]>();
        BlockDevice image = Open(path, random);
        try
        {
            for (int phase = 0; phase < 5; phase++)
            {
                Together(image, model, random, phase);
                Assert.True(model.AsSpan().SequenceEqual(Images.Content(image)), $"seed {seed} phase {phase} {options}");
                image = Alone(image, path, ref model, snapshots, random, options);
                Assert.True(model.AsSpan().SequenceEqual(Images.Content(image)), $"seed {seed} after phase {phase} {options}");
            }
            foreach (var (name, content) in snapshots)
            {
                using var view = ((ISnapshotImage)image).OpenSnapshot(name);
                Assert.True(content.AsSpan().SequenceEqual(Images.Content(view)), $"seed {seed} snapshot {name} {options}");
            }
            var found = ((ICheckableImage)image).Check(CheckRepair.None, line => Assert.Fail($"seed {seed} {options}: {line}"));
            Assert.Equal(0, found.Corruptions + found.Leaks);
        }
        finally
        {
            image.Dispose();
        }
        Qemu.CheckClean(path);
        Assert.True(model.AsSpan().SequenceEqual(Qemu.Content(path)));
    }

    private static BlockDevice Open(string path, Random random)
    {
        // Caches of the least size evict all the time.
        var o = new BlockOptions();
        if (random.Next(2) == 0)
        {
            o.Set("l2-cache-entry-size", "512");
            o.Set("l2-cache-size", "1k");
        }
        return new ImageOpener().Open(path, "qcow2", new OpenSettings { Unmap = true, NoFlush = true }, o);
    }

    /// <summary>Each thread has stripes of its own, in clusters that it shares with the others.</summary>
    private static void Together(BlockDevice image, byte[] model, Random random, int phase)
    {
        var seeds = Enumerable.Range(0, Threads).Select(_ => random.Next()).ToArray();
        string name = $"p{phase}";
        Parallel.For(0, Threads, new ParallelOptions { MaxDegreeOfParallelism = Threads }, t =>
        {
            var r = new Random(seeds[t]);
            byte[] noise = new byte[Stripe];
            for (int i = 0; i < 60; i++)
            {
                int stripe = r.Next((model.Length + Stripe - 1) / Stripe) / Threads * Threads + t;
                int offset = stripe * Stripe;
                if (offset >= model.Length)
                    continue;
                int count = Math.Min(r.Next(1, Stripe + 1), model.Length - offset);
                var part = model.AsSpan(offset, count);
                switch (r.Next(8))
                {
                    case 0:
                        image.WriteZeroes(offset, count, i % 2 == 0 ? ZeroOptions.MayUnmap : ZeroOptions.None);
                        part.Clear();
                        break;
                    case 1:
                        byte[] got = new byte[count];
                        image.Read(offset, got);
                        Assert.True(part.SequenceEqual(got));
                        break;
                    case 2 when i % 7 == 0:
                        image.Flush();
                        break;
                    case 3 when t == 0 && i % 11 == 0 && phase % 2 == 0:
                        ((ISnapshotImage)image).CreateSnapshot(name, DateTimeOffset.UnixEpoch);
                        ((ISnapshotImage)image).DeleteSnapshot(name);
                        break;
                    case 4:
                        image.GetExtent(offset, count);
                        break;
                    default:
                        r.NextBytes(noise);
                        image.Write(offset, noise.AsSpan(0, count));
                        noise.AsSpan(0, count).CopyTo(part);
                        break;
                }
            }
        });
    }

    private static BlockDevice Alone(BlockDevice image, string path, ref byte[] model, Dictionary<string, byte[]> snapshots, Random random,
        string options)
    {
        var list = (ISnapshotImage)image;
        switch (random.Next(9))
        {
            case 0 when !options.Contains("refcount_bits=1", StringComparison.Ordinal):
                string name = $"s{snapshots.Count}-{random.Next()}";
                list.CreateSnapshot(name, DateTimeOffset.UnixEpoch);
                snapshots.Add(name, (byte[])model.Clone());
                break;
            case 1 when snapshots.Count > 0:
                string chosen = snapshots.Keys.ElementAt(random.Next(snapshots.Count));
                list.ApplySnapshot(chosen);
                model = (byte[])snapshots[chosen].Clone();
                break;
            case 2 when snapshots.Count > 0:
                string gone = snapshots.Keys.ElementAt(random.Next(snapshots.Count));
                list.DeleteSnapshot(gone);
                snapshots.Remove(gone);
                break;
            case 3 when snapshots.Count == 0 || !options.Contains("0.10", StringComparison.Ordinal):
                int size = random.Next(100, 3500) * 512;
                image.Resize(size);
                Array.Resize(ref model, size);
                break;
            case 4:
                image.Dispose();
                return Open(path, random);
            case 6:
                // Zeroes that keep their space among data, and then one write over them.
                for (int i = 0; i < 8; i++)
                {
                    int zeroFrom = random.Next(model.Length), zeroes = random.Next(Math.Min(model.Length - zeroFrom, 20_000));
                    image.WriteZeroes(zeroFrom, zeroes);
                    model.AsSpan(zeroFrom, zeroes).Clear();
                    int writeFrom = Math.Max(0, zeroFrom - random.Next(20_000)), written = random.Next(Math.Min(model.Length - writeFrom, 60_000));
                    random.NextBytes(model.AsSpan(writeFrom, written));
                    image.Write(writeFrom, model.AsSpan(writeFrom, written));
                }
                break;
            case 7:
                ((IEmptyableImage)image).MakeEmpty();
                image.Read(0, model);
                break;
            case 5:
                int unit = ((ICompressingDevice)image).CompressionUnit;
                byte[] packed = new byte[((ICompressingDevice)image).MaxCompressedLength];
                for (int i = 0; i < 10; i++)
                {
                    int at = random.Next(model.Length) / unit * unit;
                    byte[] text = new byte[Math.Min(unit, model.Length - at)];
                    for (int k = 0; k < text.Length; k++)
                        text[k] = (byte)("compress me "[k % 12] + random.Next(2));
                    int n = ((ICompressingDevice)image).Compress(text, packed);
                    Assert.True(n > 0);
                    ((ICompressingDevice)image).WriteCompressed(at, packed.AsSpan(0, n), text.Length);
                    text.CopyTo(model, at);
                }
                break;
            default:
                int from = random.Next(model.Length), count = random.Next(model.Length - from);
                image.Discard(from, count);
                image.Read(from, model.AsSpan(from, count));
                break;
        }
        return image;
    }
}
