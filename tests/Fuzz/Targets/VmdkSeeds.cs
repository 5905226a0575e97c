using System.Text;
using ImgKit.Block;

namespace ImgKit.Fuzz.Targets;

internal static class VmdkSeeds
{
    private const int Size = 1 << 20;

    public static IEnumerable<byte[]> Make()
    {
        foreach (string options in (string[])["monolithicSparse", "monolithicSparse zeroed_grain", "streamOptimized"])
            yield return Image(options.Split(' '));
        yield return Stream();
        yield return Encoding.ASCII.GetBytes("""
            # Disk DescriptorFile
            version=1
            CID=12345678
            parentCID=ffffffff
            createType="custom"
            RW 2048 FLAT "image" 0
            RW 2048 ZERO
            RDONLY 20 FLAT "image" 1
            NOACCESS 8 FLAT "x" 0
            RW 8 SPARSE "image"

            ddb.adapterType = "ide"

            """);
    }

    private static byte[] Image(string[] options)
    {
        var images = new MemoryImages();
        var create = new BlockOptions();
        create.Set("subformat", options[0]);
        create.Set("zeroed_grain", options.Length > 1);
        var opener = images.Opener();
        DriverCatalogue.Default.Get("vmdk").Create!(new CreateContext { FileName = "mem:t", Size = Size, Options = create, Opener = opener });
        using (var image = opener.Open("mem:t", "vmdk", new OpenSettings()))
            for (int i = 0; i < 5; i++)
                image.Write(i * 131072, Content(i));
        return images["mem:t"];
    }

    private static byte[] Stream()
    {
        var images = new MemoryImages { ["mem:raw"] = [.. Content(1), .. new byte[200_000], .. Content(2)] };
        using var source = images.Opener().Open("mem:raw", "raw", OpenSettings.ReadOnlyDefault);
        var output = new MemoryStream();
        DriverCatalogue.Default.Get("vmdk").WriteStream!(new StreamWriteContext { Source = source, Output = output, Options = new BlockOptions() });
        return output.ToArray();
    }

    internal static byte[] Content(int seed)
    {
        byte[] b = new byte[65536];
        for (int i = 0; i < b.Length; i++)
            b[i] = (byte)(i * seed >> 4);
        return b;
    }
}
