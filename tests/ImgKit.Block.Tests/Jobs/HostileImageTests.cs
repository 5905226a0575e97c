using System.Diagnostics;
using ImgKit.Block.Jobs.Compare;
using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Create;
using ImgKit.Block.Jobs.Info;
using ImgKit.Block.Jobs.Map;

namespace ImgKit.Block.Tests.Jobs;

/// <summary>Damaged images of every format through what the commands do with them: info, check, map, compare and convert. Each ends soon, in bounded
/// memory, and well or with an <see cref="ImageException"/> of one line.</summary>
public sealed class HostileImageTests
{
    private const int Size = 1 << 20;
    private const int MaxDisk = 64 << 20;
    private const int MutationsEach = 60;

    public static TheoryData<string, string> Images => new()
    {
        { "qcow2", "" },
        { "qcow2", "cluster_size=512,refcount_bits=1" },
        { "qcow2", "extended_l2=on,compression_type=zstd" },
        { "vmdk", "" },
        { "vmdk", "subformat=streamOptimized" },
        { "vmdk", "subformat=monolithicFlat" },
        { "cloop", "" },
        { "cloop", "version=2.0" },
        { "bochs", "" },
    };

    [Theory]
    [MemberData(nameof(Images))]
    public void Damage_is_met_with_an_error_or_not_at_all(string format, string options)
    {
        using var folder = new TestData.Folder();
        byte[] good = Make(folder, format, options);
        var random = new Random(format.Length * 31 + options.Length);
        var watch = Stopwatch.StartNew();
        int opened = 0;
        for (int i = 0; i < MutationsEach; i++)
        {
            byte[] bytes = (byte[])good.Clone();
            for (int k = random.Next(1, 5); k > 0; k--)
                Damage(bytes, random);
            if (random.Next(10) == 0)
                Array.Resize(ref bytes, random.Next(bytes.Length));
            string bad = folder.File("bad");
            File.WriteAllBytes(bad, bytes);
            opened += Use(bad, format) ? 1 : 0;
        }
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(60), $"{watch.Elapsed} for {MutationsEach} images");
        Assert.True(GC.GetTotalMemory(false) < 1L << 30, $"{GC.GetTotalMemory(false)} bytes are in use");
        Assert.InRange(opened, 1, MutationsEach);
    }

    private static byte[] Make(TestData.Folder folder, string format, string options)
    {
        string name = folder.File("image");
        if (format == "bochs")
            return MakeBochs();
        var opener = new ImageOpener();
        var driver = opener.Drivers.Get(format);
        var parsed = CreateOptionList.Parse(driver.CreateOptions,
            options.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(static o => new KeyValuePair<string, string>(o.Split('=')[0], o.Split('=')[1])));
        CreateJob.Create(opener, driver, name, Size, parsed, reproducible: true);
        File.WriteAllBytes(folder.File("raw"), TestData.Mixed(Size, 1));
        using (var source = opener.Open(folder.File("raw"), "raw", OpenSettings.ReadOnlyDefault))
        using (var target = opener.Open(name, format, new OpenSettings()))
        {
            ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Compress = options.Contains("zstd", StringComparison.Ordinal) });
            target.Flush();
        }
        return File.ReadAllBytes(name);
    }

    /// <summary>A growing Bochs disk ("Growing", version 2): header, catalogue of extents, and one extent with its bitmap.</summary>
    private static byte[] MakeBochs()
    {
        byte[] b = new byte[512 + 512 + 512 + 65536];
        "Bochs Virtual HD Image"u8.CopyTo(b);
        "Redolog"u8.CopyTo(b.AsSpan(32));
        "Growing"u8.CopyTo(b.AsSpan(48));
        BitConverter.GetBytes(0x0002_0000u).CopyTo(b, 64);
        BitConverter.GetBytes(512u).CopyTo(b, 68);
        BitConverter.GetBytes(16u).CopyTo(b, 72);         // catalogue entries
        BitConverter.GetBytes(512u).CopyTo(b, 76);        // bitmap bytes
        BitConverter.GetBytes(65536u).CopyTo(b, 80);      // extent bytes
        BitConverter.GetBytes((ulong)Size).CopyTo(b, 88);
        b.AsSpan(512, 64).Fill(0xff);
        BitConverter.GetBytes(0u).CopyTo(b, 512 + 4);
        b.AsSpan(1024, 512).Fill(0x55);
        b.AsSpan(1536).Fill(7);
        return b;
    }

    private static void Damage(byte[] b, Random random)
    {
        // Formats keep their numbers at the start and at the end.
        int at = random.Next(3) switch
        {
            0 => random.Next(Math.Min(b.Length, 128)),
            1 => random.Next(Math.Min(b.Length, 4096)),
            _ => b.Length - 1 - random.Next(Math.Min(b.Length, 4096)),
        };
        switch (random.Next(4))
        {
            case 0:
                b[at] ^= (byte)(1 << random.Next(8));
                break;
            case 1:
                b[at] = (byte)random.Next(256);
                break;
            case 2:
                b.AsSpan(at, Math.Min(8, b.Length - at)).Fill(0xff);
                break;
            default:
                b.AsSpan(at, Math.Min(4, b.Length - at)).Clear();
                break;
        }
    }

    /// <returns>whether the image could be opened.</returns>
    private static bool Use(string path, string format)
    {
        bool opened = false;
        foreach (bool forCheck in new[] { false, true })
            Try(() =>
            {
                using var image = Opener().Open(path, format, OpenSettings.ReadOnlyDefault with { ForCheck = forCheck });
                opened = true;
                if (forCheck)
                {
                    (image as ICheckableImage)?.Check(CheckRepair.None, static _ => { });
                    return;
                }
                ImageInfo.Of(image);
                Try(() => MapJob.Run(image, 0, Math.Min(image.Length, MaxDisk)).Take(10_000).Count());
                if (image.Length is 0 or > MaxDisk)
                    return;
                Try(() => CompareJob.Run(new CompareRequest { First = image, Second = image }));
                using var target = new MemoryDevice((int)image.Length);
                Try(() => ConvertJob.Run(new ConvertRequest { Sources = [image], Target = target, TargetIsZero = true, Threads = 2 }));
            });
        return opened;
    }

    /// <summary>No other file is opened, whatever an image names.</summary>
    private static ImageOpener Opener() => new(null, ReferencePolicy.SameFolder);

    private static void Try(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            Assert.DoesNotContain("   at ", e.Message, StringComparison.Ordinal);
            Assert.InRange(e.Message.Split('\n').Length, 1, 3);
        }
    }
}
