using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using ImgKit.Block;

namespace ImgKit.Fuzz.Targets;

internal static class CloopSeeds
{
    public static IEnumerable<byte[]> Make()
    {
        byte[] raw = [.. VmdkSeeds.Content(1), .. new byte[40_000], .. VmdkSeeds.Content(3)];
        foreach (string o in (string[])["version=2.0,block_size=4096", "version=4.0,block_size=8192,compressors=zlib+none+xz+lz4+lzo"])
        {
            var images = new MemoryImages();
            var opener = images.Opener();
            DriverCatalogue.Default.Get("cloop").Create!(new CreateContext { FileName = "mem:t", Size = raw.Length, Options = Options(o), Opener = opener });
            using (var image = opener.Open("mem:t", "cloop", new OpenSettings()))
            {
                image.Write(0, raw);
                image.Flush();
            }
            yield return images["mem:t"];
        }
        foreach (string compressor in (string[])["zlib", "none", "xz", "lz4", "lzo"])
        {
            var images = new MemoryImages { ["mem:raw"] = raw };
            using var source = images.Opener().Open("mem:raw", "raw", OpenSettings.ReadOnlyDefault);
            var output = new MemoryStream();
            DriverCatalogue.Default.Get("cloop").WriteStream!(new StreamWriteContext
            {
                Source = source,
                Output = output,
                Options = Options("block_size=4096,compressors=" + compressor),
            });
            yield return output.ToArray();
        }
        foreach (string layout in (string[])["V0.68", "V1.0", "V3.0", "V2.0 m=geom_uzip"])
            yield return Old(layout, raw);
    }

    private static BlockOptions Options(string text)
    {
        var options = new BlockOptions();
        foreach (string pair in text.Split(','))
            options.Set(pair.Split('=')[0], pair.Split('=')[1]);
        return options;
    }

    /// <summary>Layouts that nobody writes any more.</summary>
    private static byte[] Old(string layout, byte[] raw)
    {
        const int block = 4096;
        int n = raw.Length / block;
        var packed = new List<byte[]>();
        for (int i = 0; i < n; i++)
        {
            var m = new MemoryStream();
            using (var z = new ZLibStream(m, CompressionLevel.Fastest, true))
                z.Write(raw, i * block, block);
            packed.Add(m.ToArray());
        }
        bool tail = layout == "V3.0";
        int entry = layout is "V0.68" or "V3.0" ? 4 : 8;
        byte[] index = new byte[entry * (tail ? n : n + 1)];
        long at = 136 + (tail ? 0 : index.Length);
        for (int i = 0; i < index.Length / entry; i++)
        {
            var b = index.AsSpan(i * entry);
            if (tail)
                BinaryPrimitives.WriteInt32BigEndian(b, packed[i].Length);
            else if (entry == 4)
                BinaryPrimitives.WriteInt32BigEndian(b, (int)at);
            else if (layout == "V1.0")
                BinaryPrimitives.WriteInt64LittleEndian(b, at);
            else
                BinaryPrimitives.WriteInt64BigEndian(b, at);
            at += i < n ? packed[i].Length : 0;
        }
        byte[] head = new byte[136];
        Encoding.ASCII.GetBytes($"#!/bin/sh\n#{layout}\n").CopyTo(head, 0);
        BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(128), block);
        BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(132), tail ? -1 : n);
        byte[] body = packed.SelectMany(p => p).ToArray();
        byte[] end = [0, 0, 0, 4, 0, 0, 0, (byte)n];
        return tail ? [.. head, .. body, .. index, .. end] : [.. head, .. index, .. body];
    }
}
