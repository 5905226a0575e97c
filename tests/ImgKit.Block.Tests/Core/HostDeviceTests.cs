namespace ImgKit.Block.Tests.Core;

/// <summary>A real block device of the kernel: a loop device over a file. Needs root, as on CI.</summary>
public sealed class HostDeviceTests
{
    [Fact]
    public void A_block_device_is_a_disk()
    {
        using var folder = new TestData.Folder();
        using var loop = new Loop(folder.File("disk"), 4 << 20);
        string device = loop.Device;
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

    /// <summary>What a new image leaves out is zeroes in a new file, but not on a volume that held something else.</summary>
    [Theory]
    [InlineData("qcow2", "")]
    [InlineData("qcow2", "cluster_size=512,refcount_bits=64")]
    [InlineData("vmdk", "")]
    public void A_new_image_does_not_take_up_what_the_device_held(string format, string options)
    {
        using var folder = new TestData.Folder();
        using var loop = new Loop(folder.File("disk"), 8 << 20);
        var opener = new ImageOpener();
        ImgKit.Block.Jobs.Create.CreateJob.Create(opener, opener.Drivers.Get(format), loop.Device, 6 << 20, Vmdk.VmdkPeerTests.Options(options), reproducible: false);
        Assert.Contains("No errors", Peer.QemuImg("check", "-f", format, loop.Device), StringComparison.Ordinal);
        using (var image = opener.Open(loop.Device, format, new OpenSettings()))
        {
            byte[] all = new byte[6 << 20];
            image.Read(0, all);
            Assert.True(ZeroBuffer.IsZero(all));
            Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.None, _ => { }).Corruptions);
            if (format == "qcow2")
            {
                image.Write(1_000_000, [1]);
                image.Read(0, all);
                Assert.True(ZeroBuffer.IsZero(all.AsSpan(0, 1_000_000)) && ZeroBuffer.IsZero(all.AsSpan(1_000_001)));
            }
        }
        Assert.Contains("No errors", Peer.QemuImg("check", "-f", format, loop.Device), StringComparison.Ordinal);
    }

    /// <summary>A device ends where it ends: what a file gets behind its end must find room inside.</summary>
    [Fact]
    public void Counts_are_written_anew_and_disks_made_smaller_within_the_device()
    {
        using var folder = new TestData.Folder();
        using var loop = new Loop(folder.File("disk"), 8 << 20);
        var opener = new ImageOpener();
        ImgKit.Block.Jobs.Create.CreateJob.Create(opener, opener.Drivers.Get("qcow2"), loop.Device, 6 << 20, new BlockOptions(), reproducible: false);
        byte[] data = TestData.Mixed(2 << 20, 5);
        using (var image = opener.Open(loop.Device, "qcow2", new OpenSettings()))
        {
            image.Write(1 << 20, data);
            ((IAmendableImage)image).Amend(Vmdk.VmdkPeerTests.Options("refcount_bits=64"), force: false, null);
        }
        AssertContent();
        // The count table's only entry is lost.
        using (var d = opener.Open(loop.Device, "raw", new OpenSettings()))
        {
            byte[] header = new byte[56];
            d.Read(0, header);
            d.Write(System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(48)), new byte[8]);
        }
        using (var image = opener.Open(loop.Device, "qcow2", new OpenSettings { ForCheck = true }))
            Assert.Equal(0, ((ICheckableImage)image).Check(CheckRepair.All, _ => { }).Corruptions);
        AssertContent();
        using (var image = opener.Open(loop.Device, "qcow2", new OpenSettings()))
            image.Resize(4 << 20);
        AssertContent();

        void AssertContent()
        {
            Assert.Contains("No errors", Peer.QemuImg("check", "-f", "qcow2", loop.Device), StringComparison.Ordinal);
            using var image = opener.Open(loop.Device, "qcow2", OpenSettings.ReadOnlyDefault);
            byte[] all = new byte[image.Length];
            image.Read(0, all);
            Assert.True(ZeroBuffer.IsZero(all.AsSpan(0, 1 << 20)) && all.AsSpan(1 << 20, data.Length).SequenceEqual(data) && ZeroBuffer.IsZero(all.AsSpan(3 << 20)));
        }
    }

    [Fact]
    public void A_device_that_is_write_protected_is_refused_at_once()
    {
        using var folder = new TestData.Folder();
        using var loop = new Loop(folder.File("disk"), 1 << 20, "--read-only");
        var e = Assert.Throws<ImageException>(() => new ImageOpener().Open(loop.Device, "raw", new OpenSettings()));
        Assert.Equal("The device is not writable: Permission denied", e.Message);
        e = Assert.Throws<ImageException>(() => new ImageOpener().CreateFile(loop.Device));
        Assert.Equal("Protocol driver 'host_device' does not support image creation, and opening the image failed: "
            + "The device is not writable: Permission denied", e.Message);
        using var d = new ImageOpener().Open(loop.Device, "raw", OpenSettings.ReadOnlyDefault);
        byte[] b = new byte[512];
        d.Read(0, b);
        Assert.All(b, v => Assert.Equal(0xAA, v));
    }

    /// <summary>A loop device over a file that is full of 0xAA.</summary>
    private sealed class Loop : IDisposable
    {
        public Loop(string file, int size, params string[] options)
        {
            if (!OperatingSystem.IsLinux() || Environment.UserName != "root")
                Assert.Skip("attaching a loop device needs root");
            System.IO.File.WriteAllBytes(file, Enumerable.Repeat((byte)0xAA, size).ToArray());
            Device = Peer.Run("losetup", ["--find", "--show", .. options, file]).Trim();
        }

        public string Device { get; }

        public void Dispose() => Peer.Run("losetup", "-d", Device);
    }
}
