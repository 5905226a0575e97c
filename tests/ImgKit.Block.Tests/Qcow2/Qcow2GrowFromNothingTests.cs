namespace ImgKit.Block.Tests.Qcow2;

public sealed class Qcow2GrowFromNothingTests
{
    [Theory]
    [InlineData("65536")]
    [InlineData("512")]
    public void An_image_of_no_size_grows_with_its_content(string clusterSize)
    {
        using var folder = new TestData.Folder();
        string image = folder.File("image"), raw = folder.File("raw");
        Qemu.Img("create", "-q", "-f", "qcow2", "-o", "cluster_size=" + clusterSize, folder.File("peer"), "0");
        var options = new BlockOptions();
        options.Set("cluster_size", clusterSize);
        DriverCatalogue.Default.Get("qcow2").Create!(new CreateContext { FileName = image, Size = 0, Options = options, Opener = new ImageOpener() });
        byte[] data = TestData.Mixed(3_000_320, 8);
        File.WriteAllBytes(raw, data);
        foreach (string name in new[] { image, folder.File("peer") })
        {
            using (var d = new ImageOpener().Open(name, "qcow2", new OpenSettings()))
            {
                for (int at = 0; at < data.Length; at += 500_224)
                {
                    int n = Math.Min(500_224, data.Length - at);
                    d.Resize(at + n, new ResizeOptions(Preallocation.Off));
                    d.Write(at, data.AsSpan(at, n));
                }
                d.Flush();
            }
            Qemu.Img("check", "-f", "qcow2", name);
            Qemu.Img("compare", "-f", "raw", "-F", "qcow2", raw, name);
        }
    }
}
