using System.Buffers.Binary;
using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Digest;
using ImgKit.Block.Jobs.Streams;
using ImgKit.Host;

namespace ImgKit.Block.Tests.Jobs;

/// <summary>Images that come through a pipe and are read without being kept.</summary>
public sealed class SequentialImageTests : IDisposable
{
    private const int Size = 5 * 1024 * 1024 + 512;
    private readonly TestData.Folder _folder = new();
    private readonly ImageOpener _opener = new();
    private readonly byte[] _content = TestData.Mixed(Size, 8);

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, string> Makers => new()
    {
        { "vmdk", "ours" },
        { "vmdk", "qemu-img" },
        { "cloop", "create_compressed_fs" },
        { "cloop", "ours 2.0" },
        { "cloop", "ours 4.0" },
    };

    [Theory]
    [MemberData(nameof(Makers))]
    public void Content_is_what_was_put_in(string format, string maker)
    {
        string path = Make(format, maker);
        foreach (int threads in new[] { 1, 2, 9 })
        {
            using var source = OpenStream(format, path)!;
            Assert.IsAssignableFrom<ISequentialImage>(source);
            using var target = new MemoryDevice((int)source.Length);
            using var digest = new ContentDigest();
            ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = threads, Digest = digest });
            ((ISequentialImage)source).Finish();
            byte[] result = target.Snapshot();
            Assert.True(_content.AsSpan().SequenceEqual(result.AsSpan(0, Size)));
            Assert.True(ZeroBuffer.IsZero(result.AsSpan(Size)));
            using var image = _opener.Open(path, format, OpenSettings.ReadOnlyDefault);
            Assert.Equal(DigestJob.ContentDigestOf(image, 2), digest.Finish());
        }
    }

    [Theory]
    [InlineData("cloop", "vmdk")]
    [InlineData("vmdk", "cloop")]
    [InlineData("vmdk", "vmdk")]
    [InlineData("cloop", "raw")]
    [InlineData("vmdk", "qcow2")]
    public void One_stream_becomes_another_with_its_digest(string from, string to)
    {
        string path = Make(from, from == "vmdk" ? "ours" : "ours 4.0"), result = _folder.File("result");
        using (var source = OpenStream(from, path)!)
        using (var output = File.Create(result))
        using (var digest = new ContentDigest())
        {
            ImageStreamJob.Run(_opener.Drivers.Get(to), _opener, new StreamWriteContext
            {
                Source = source,
                Output = output,
                Options = new BlockOptions(),
                Threads = 3,
                Digest = digest,
            });
            ((ISequentialImage)source).Finish();
            using var image = _opener.Open(path, from, OpenSettings.ReadOnlyDefault);
            Assert.Equal(DigestJob.ContentDigestOf(image, 1), digest.Finish());
        }
        // A footer is looked for where the name says what it is.
        string named = result + "." + to;
        File.Move(result, named);
        using var again = _opener.Open(named, to, OpenSettings.ReadOnlyDefault);
        byte[] content = new byte[Size];
        again.Read(0, content);
        Assert.True(_content.AsSpan().SequenceEqual(content));
    }

    [Theory]
    [MemberData(nameof(Makers))]
    public void A_stream_that_breaks_off_is_never_taken_for_whole(string format, string maker)
    {
        byte[] whole = File.ReadAllBytes(Make(format, maker));
        string part = _folder.File("part");
        foreach (int cut in new[] { 0, 3, 135, 511, 512, 4000, 65536, 66000, whole.Length / 3, whole.Length / 2, whole.Length - 3000, whole.Length - 1025 })
        {
            if (maker == "qemu-img" && cut > whole.Length - 4096)
                continue;       // only the end marker and some padding are missing there
            File.WriteAllBytes(part, whole[..cut]);
            using var source = OpenStream(format, part);
            if (source is null)
                continue;       // left to those who read it from a file
            using var target = new MemoryDevice((int)source.Length);
            Assert.Throws<ImageException>(() =>
            {
                ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = 2 });
                ((ISequentialImage)source).Finish();
            });
        }
    }

    [Fact]
    public void Grains_in_another_order_and_impossible_ones_are_refused()
    {
        byte[] whole = File.ReadAllBytes(Make("vmdk", "ours"));
        int first = 128 * 512;
        long lba = BinaryPrimitives.ReadInt64LittleEndian(whole.AsSpan(first));
        int length = (12 + BinaryPrimitives.ReadInt32LittleEndian(whole.AsSpan(first + 8)) + 511) & ~511;
        Refused("belongs before", b => BinaryPrimitives.WriteInt64LittleEndian(b.AsSpan(first + length), lba));
        Refused("claims to start", b => BinaryPrimitives.WriteInt64LittleEndian(b.AsSpan(first), lba + 1));
        Refused("claims to start", b => BinaryPrimitives.WriteInt64LittleEndian(b.AsSpan(first), 1L << 40));
        Refused("is impossible", b => BinaryPrimitives.WriteInt32LittleEndian(b.AsSpan(first + 8), int.MaxValue));
        Refused("does not inflate", b => b.AsSpan(first + 12, 8).Fill(0xFF));

        void Refused(string message, Action<byte[]> damage)
        {
            byte[] bytes = [.. whole];
            damage(bytes);
            string path = _folder.File("damaged");
            File.WriteAllBytes(path, bytes);
            using var source = OpenStream("vmdk", path)!;
            using var target = new MemoryDevice((int)source.Length);
            var e = Assert.Throws<ImageException>(() =>
            {
                ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true, Threads = 2 });
                ((ISequentialImage)source).Finish();
            });
            Assert.Contains(message, e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Flipped_bits_of_the_beginning_do_no_harm()
    {
        var random = new Random(3);
        foreach (var (format, maker) in new[] { ("vmdk", "ours"), ("vmdk", "qemu-img"), ("cloop", "ours 2.0") })
        {
            byte[] whole = File.ReadAllBytes(Make(format, maker));
            string path = _folder.File("flipped");
            for (int i = 0; i < 60; i++)
            {
                byte[] bytes = [.. whole];
                for (int k = 0; k < 3; k++)
                    bytes[random.Next(4, i % 2 == 0 ? 80 : 1200)] ^= (byte)(1 << random.Next(8));
                File.WriteAllBytes(path, bytes);
                try
                {
                    using var source = OpenStream(format, path);
                    if (source is null)
                        continue;
                    byte[] buffer = new byte[1 << 20];
                    for (long at = 0; at < Math.Min(source.Length, 64 << 20); at += buffer.Length)
                        source.Read(at, buffer.AsSpan(0, (int)Math.Min(buffer.Length, source.Length - at)));
                    ((ISequentialImage)source).Finish();
                }
                catch (ImageException e)
                {
                    Assert.DoesNotContain('\n', e.Message);
                }
            }
        }
    }

    private BlockDevice? OpenStream(string format, string path) =>
        _opener.Drivers.Get(format).ReadStream!(new PipeReader(HostFile.Open(path, HostFileMode.Read)));

    private string Make(string format, string maker)
    {
        string raw = _folder.File("content.raw"), path = _folder.File("made." + format);
        File.WriteAllBytes(raw, _content);
        File.Delete(path);
        switch (maker)
        {
            case "qemu-img":
                Peer.QemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path);
                break;
            case "create_compressed_fs":
                Peer.Run("create_compressed_fs", "-q", "-B", "65536", "-L", "6", raw, path);
                break;
            case "ours" when format == "vmdk":
                using (var source = _opener.Open(raw, "raw", OpenSettings.ReadOnlyDefault))
                using (var output = File.Create(path))
                    ImageStreamJob.Run(_opener.Drivers.Get("vmdk"), _opener,
                        new StreamWriteContext { Source = source, Output = output, Options = new BlockOptions(), Threads = 2 });
                break;
            default:
                ImgKit.Block.Jobs.Create.CreateJob.Run(_opener, new ImgKit.Block.Jobs.Create.CreateRequest
                {
                    FileName = path,
                    Format = "cloop",
                    Size = Size,
                    Options = [new("version", maker[5..])],
                });
                using (var source = _opener.Open(raw, "raw", OpenSettings.ReadOnlyDefault))
                using (var target = _opener.Open(path, "cloop", new OpenSettings()))
                {
                    ConvertJob.Run(new ConvertRequest { Sources = [source], Target = target, TargetIsZero = true });
                    target.Flush();
                }
                break;
        }
        return path;
    }
}
