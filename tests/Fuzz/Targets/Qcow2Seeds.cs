using ImgKit.Block;

namespace ImgKit.Fuzz.Targets;

internal static class Qcow2Seeds
{
    private static readonly string[] Variants =
    [
        "cluster_size=512",
        "cluster_size=4096,refcount_bits=8",
        "cluster_size=16384,extended_l2=on",
        "cluster_size=1024,compat=0.10",
        "cluster_size=4096,compression_type=zstd,lazy_refcounts=on,refcount_bits=64",
    ];

    public static IEnumerable<byte[]> Make()
    {
        byte[] content = VmdkSeeds.Content(1);
        foreach (string variant in Variants)
        {
            var images = new MemoryImages();
            var opener = images.Opener();
            var options = new BlockOptions();
            foreach (string o in variant.Split(','))
                options.Set(o.Split('=')[0], o.Split('=')[1]);
            DriverCatalogue.Default.Get("qcow2").Create!(new CreateContext { FileName = "mem:t", Size = 400 * 1024, Options = options, Opener = opener });
            using (var image = opener.Open("mem:t", "qcow2", new OpenSettings { Unmap = true }))
            {
                image.Write(5000, content.AsSpan(0, Math.Min(content.Length, 100_000)));
                image.WriteZeroes(40_000, 30_000, ZeroOptions.MayUnmap);
                var packer = (ICompressingDevice)image;
                byte[] packed = new byte[packer.MaxCompressedLength];
                byte[] unit = new byte[packer.CompressionUnit];
                for (int i = 0; i < 5; i++)
                {
                    unit.AsSpan().Fill((byte)i);
                    int n = packer.Compress(unit, packed);
                    if (n > 0)
                        packer.WriteCompressed((200 * 1024 / unit.Length + i) * unit.Length, packed.AsSpan(0, n), unit.Length);
                }
                ((ISnapshotImage)image).CreateSnapshot("s", DateTimeOffset.UnixEpoch);
                image.Write(10_000, content.AsSpan(0, 3000));
                if (!variant.Contains("0.10", StringComparison.Ordinal))
                    ((IBitmapImage)image).AddBitmap("b", 4096, true);
            }
            yield return images["mem:t"];
        }
    }
}
