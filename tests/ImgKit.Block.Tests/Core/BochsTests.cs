namespace ImgKit.Block.Tests.Core;

/// <summary>Growing disks of Bochs, made by hand: the catalogue in any order, a bitmap for each extent.</summary>
public sealed class BochsTests
{
    private const int Extent = 65536;
    private const int Bitmap = 512;

    private static byte[] Make(byte[] disk, bool isFirstVersion)
    {
        int extents = disk.Length / Extent;
        byte[] b = new byte[512 + 512 + extents * (Bitmap + Extent)];
        "Bochs Virtual HD Image"u8.CopyTo(b);
        "Redolog"u8.CopyTo(b.AsSpan(32));
        "Growing"u8.CopyTo(b.AsSpan(48));
        BitConverter.GetBytes(isFirstVersion ? 0x0001_0000u : 0x0002_0000u).CopyTo(b, 64);
        BitConverter.GetBytes(512u).CopyTo(b, 68);
        // Entries of the catalogue, which ends where the extents begin.
        BitConverter.GetBytes(128u).CopyTo(b, 72);
        b.AsSpan(512, 512).Fill(0xFF);
        BitConverter.GetBytes((uint)Bitmap).CopyTo(b, 76);
        BitConverter.GetBytes((uint)Extent).CopyTo(b, 80);
        // The second version keeps four bytes free in front of the size.
        BitConverter.GetBytes((ulong)disk.Length).CopyTo(b, isFirstVersion ? 84 : 88);
        int stored = 0;
        for (int i = extents - 1; i >= 0; i--)
        {
            var part = disk.AsSpan(i * Extent, Extent);
            BitConverter.GetBytes(ZeroBuffer.IsZero(part) ? uint.MaxValue : (uint)stored).CopyTo(b, 512 + i * 4);
            if (ZeroBuffer.IsZero(part))
                continue;
            int at = 1024 + stored++ * (Bitmap + Extent);
            for (int s = 0; s < Extent / 512; s++)
            {
                var sector = part.Slice(s * 512, 512);
                // What a clear bit leaves out is not what lies there.
                if (ZeroBuffer.IsZero(sector))
                    b.AsSpan(at + Bitmap + s * 512, 512).Fill(0xEE);
                else
                    sector.CopyTo(b.AsSpan(at + Bitmap + s * 512));
                b[at + s / 8] |= (byte)(ZeroBuffer.IsZero(sector) ? 0 : 1 << (s % 8));
            }
        }
        return b[..(1024 + stored * (Bitmap + Extent))];
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_growing_disk_is_read_as_the_peer_reads_it(bool isFirstVersion)
    {
        using var folder = new TestData.Folder();
        byte[] disk = new byte[12 * Extent];
        var random = new Random(4);
        for (int s = 0; s < disk.Length / 512; s++)
            if (s / 128 % 3 != 1 && random.Next(3) > 0)
                random.NextBytes(disk.AsSpan(s * 512, 512));
        File.WriteAllBytes(folder.File("t"), Make(disk, isFirstVersion));
        File.WriteAllBytes(folder.File("raw"), disk);
        Peer.QemuImg("compare", "-f", "raw", "-F", "bochs", folder.File("raw"), folder.File("t"));
        using var image = new ImageOpener().Open(folder.File("t"), null, OpenSettings.ReadOnlyDefault);
        Assert.Equal("bochs", image.DriverName);
        Assert.True(disk.AsSpan().SequenceEqual(Vmdk.VmdkPeerTests.ReadAll(image)));
        for (int i = 0; i < 200; i++)
        {
            int at = random.Next(disk.Length), n = Math.Min(random.Next(1, 100_000), disk.Length - at);
            byte[] part = new byte[n];
            image.Read(at, part);
            Assert.True(disk.AsSpan(at, n).SequenceEqual(part), $"at {at}, {n} bytes");
        }
        Assert.True(image.IsReadOnly);
    }
}
