using ImgKit.Block.Jobs.Overlay;

namespace ImgKit.Block.Tests.Overlay;

public sealed class TemporaryOverlayTests
{
    private const int Size = 1 << 20;

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    [InlineData("vmdk")]
    public void The_original_is_not_touched_until_changes_are_committed(string format)
    {
        using var c = new Chain();
        c.Make("disk", format, Size);
        c.Write("disk", format, 0, 500_000, 1);
        byte[] file = File.ReadAllBytes(c["disk"]), content = c.Content("disk", format);
        using (var overlay = TemporaryOverlay.Over(c.Opener, c.Open("disk", format, write: true)))
        {
            byte[] seen = new byte[Size];
            overlay.Disk.Read(0, seen);
            Assert.Equal(content, seen);
            overlay.Disk.Write(1000, new byte[] { 9, 9, 9 });
            overlay.Disk.WriteZeroes(100_000, 70_000);
            overlay.Disk.Discard(300_000, 100_000);
            overlay.Disk.Flush();
            if (format == "raw")
                Assert.Equal(file, File.ReadAllBytes(c["disk"]));
        }
        Assert.Equal(content, c.Content("disk", format));

        byte[] expected;
        using (var overlay = TemporaryOverlay.Over(c.Opener, c.Open("disk", format, write: true)))
        {
            overlay.Disk.Write(1000, new byte[] { 9, 9, 9 });
            overlay.Disk.WriteZeroes(100_000, 70_000);
            expected = new byte[Size];
            overlay.Disk.Read(0, expected);
            overlay.Commit();
            byte[] seen = new byte[Size];
            overlay.Disk.Read(0, seen);
            Assert.Equal(expected, seen);
            // And on: what comes after is temporary again.
            overlay.Disk.Write(5000, new byte[] { 7 });
        }
        Assert.Equal(expected, c.Content("disk", format));
    }

    [Fact]
    public void A_disk_that_is_only_read_can_be_written_over_but_not_committed_to()
    {
        using var c = new Chain();
        c.Make("disk", "raw", Size);
        using var overlay = TemporaryOverlay.Over(c.Opener, c.Open("disk", "raw"));
        overlay.Disk.Write(0, new byte[] { 1 });
        Assert.Equal(ImageErrorKind.ReadOnly, Assert.Throws<ImageException>(() => overlay.Commit()).Kind);
    }

    [Fact]
    public void A_format_without_backing_files_is_refused()
    {
        using var c = new Chain();
        c.Make("disk", "raw", Size);
        using var disk = c.Open("disk", "raw");
        var e = Assert.Throws<ImageException>(() => TemporaryOverlay.Over(c.Opener, disk, "raw"));
        Assert.Equal("Backing file not supported for file format 'raw'", e.Message);
    }
}
