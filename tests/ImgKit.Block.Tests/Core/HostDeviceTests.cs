namespace ImgKit.Block.Tests.Core;

/// <summary>A real block device of the kernel: a loop device over a file. Needs root, as on CI.</summary>
public sealed class HostDeviceTests
{
    [Fact]
    public void A_block_device_is_a_disk()
    {
        if (!OperatingSystem.IsLinux() || Environment.UserName != "root")
            Assert.Skip("attaching a loop device needs root");
        using var folder = new TestData.Folder();
        string file = folder.File("disk");
        System.IO.File.WriteAllBytes(file, Enumerable.Repeat((byte)0xAA, 4 << 20).ToArray());
        string device = Peer.Run("losetup", "--find", "--show", file).Trim();
        try
        {
            byte[] data = TestData.Mixed(1_000_001, 1);
            using (var d = new ImageOpener().Open(device, "raw", new OpenSettings { Unmap = true }))
            {
                Assert.Equal("host_device", d.Storage!.DriverName);
                Assert.Equal(4 << 20, d.Length);
                d.Write(12_345, data);
                byte[] back = new byte[data.Length];
                d.Read(12_345, back);
                Assert.True(data.AsSpan().SequenceEqual(back));
                d.WriteZeroes(2 << 20, 1 << 20, ZeroOptions.MayUnmap);
                d.Discard(3 << 20, 1 << 20);
                d.Flush();
                byte[] zeroes = new byte[1 << 20];
                d.Read(2 << 20, zeroes);
                Assert.True(ZeroBuffer.IsZero(zeroes));
                Assert.Contains("Cannot grow device files", Assert.Throws<ImageException>(() => d.Resize(5 << 20)).Message, StringComparison.Ordinal);
            }
            using (var direct = new ImageOpener().Open(device, "host_device", new OpenSettings { Direct = true }))
            {
                byte[] back = new byte[data.Length];
                direct.Read(12_345, back);
                Assert.True(data.AsSpan().SequenceEqual(back));
            }
            var create = new CreateContext { FileName = device, Size = 8 << 20, Options = new BlockOptions(), Opener = new ImageOpener() };
            var e = Assert.Throws<ImageException>(() => DriverCatalogue.Default.Get("raw").Create!(create));
            Assert.Equal("Device is too small", e.Message);
        }
        finally
        {
            Peer.Run("losetup", "-d", device);
        }
    }
}
