using ImgKit.Block.Jobs.Commit;

namespace ImgKit.Block.Tests.Overlay;

public sealed class CommitJobTests
{
    private const int Size = 3 << 20;

    private static void MakeThree(Chain c, string middle = "qcow2", string options = "")
    {
        c.Make("base", "raw", Size);
        c.Write("base", "raw", 0, Size, 1);
        c.Make("mid", middle, Size, "base", "raw", options);
        c.Write("mid", middle, 100_000, 300_000, 2);
        c.Make("top", "qcow2", Size, "mid", middle, "cluster_size=4k");
        c.Write("top", "qcow2", 200_000, 10_000, 3);
        c.Write("top", "qcow2", 1 << 20, 70_000, 0);
    }

    [Theory]
    [InlineData("qcow2", "")]
    [InlineData("qcow2", "extended_l2=on")]
    [InlineData("vmdk", "")]
    public void An_overlay_goes_into_its_backing_file_and_is_empty_then(string middle, string options)
    {
        using var c = new Chain();
        if (middle == "vmdk")
        {
            // A vmdk has only vmdk below it.
            c.Make("mid", "vmdk", Size);
            c.Write("mid", "vmdk", 0, Size, 2);
            c.Make("top", "qcow2", Size, "mid", "vmdk");
            c.Write("top", "qcow2", 200_000, 10_000, 3);
        }
        else
        {
            MakeThree(c, middle, options);
        }
        byte[] before = c.Content("top");
        using (var top = c.Open("top", "qcow2", write: true))
            CommitJob.Run(c.Opener, new CommitRequest { Top = top });
        Assert.Equal(before, c.Content("mid"));
        Assert.Equal(before, c.Content("top"));
        using var after = c.Open("top", "qcow2");
        Assert.False(after.GetExtent(0, Size).IsAllocated);
        Assert.Equal(Size, after.GetExtent(0, Size).Length);
        if (middle == "qcow2")
            Assert.Equal(0, Peer.TryRun("qemu-img", "check", "-q", c["mid"]).Code);
    }

    [Fact]
    public void An_overlay_can_be_kept_as_it_is()
    {
        using var c = new Chain();
        MakeThree(c);
        byte[] before = c.Content("top"), file = File.ReadAllBytes(c["top"]);
        using (var top = c.Open("top", "qcow2", write: true))
            CommitJob.Run(c.Opener, new CommitRequest { Top = top, KeepTop = true });
        Assert.Equal(before, c.Content("mid"));
        Assert.Equal(file, File.ReadAllBytes(c["top"]));
    }

    [Fact]
    public void All_above_a_base_goes_into_it()
    {
        using var c = new Chain();
        MakeThree(c);
        byte[] before = c.Content("top");
        using (var top = c.Open("top", "qcow2", write: true))
            CommitJob.Run(c.Opener, new CommitRequest { Top = top, BaseName = c["base"], KeepTop = true });
        Assert.Equal(before, c.Content("base", "raw"));
        Assert.Equal(before, c.Content("top"));
    }

    [Fact]
    public void A_shorter_base_grows_and_a_longer_one_keeps_its_rest()
    {
        using var c = new Chain();
        c.Make("short", "raw", 1 << 20);
        c.Write("short", "raw", 0, 1 << 20, 1);
        c.Make("long", "qcow2", 2 << 20, "short", "raw");
        c.Write("long", "qcow2", 1_900_000, 10_000, 5);
        byte[] before = c.Content("long");
        using (var top = c.Open("long", "qcow2", write: true))
            CommitJob.Run(c.Opener, new CommitRequest { Top = top });
        Assert.Equal(before, c.Content("short", "raw"));

        c.Make("half", "qcow2", 1 << 20, "short", "raw");
        c.Write("half", "qcow2", 0, 1000, 9);
        using (var top = c.Open("half", "qcow2", write: true))
            CommitJob.Run(c.Opener, new CommitRequest { Top = top });
        byte[] rest = c.Content("short", "raw");
        Assert.Equal(2 << 20, rest.Length);
        Assert.Equal(before[(1 << 20)..], rest[(1 << 20)..]);
        Assert.Equal(9, rest[999]);
    }

    [Fact]
    public void What_cannot_be_committed_is_said_and_harms_nothing()
    {
        using var c = new Chain();
        MakeThree(c);
        byte[] before = c.Content("top");
        using (var top = c.Open("top", "qcow2", write: true))
        {
            var e = Assert.Throws<ImageException>(() => CommitJob.Run(c.Opener, new CommitRequest { Top = top, BaseName = "nope" }));
            Assert.Equal($"Did not find 'nope' in the backing chain of '{c["top"]}'", e.Message);
        }
        using (var raw = c.Open("base", "raw", write: true))
            Assert.Equal("Image does not have a backing file", Assert.Throws<ImageException>(() => CommitJob.Run(c.Opener, new CommitRequest { Top = raw })).Message);
        Assert.Equal(before, c.Content("top"));
    }

    [Fact]
    public void A_base_is_found_by_each_of_its_names()
    {
        using var c = new Chain();
        MakeThree(c);
        Directory.CreateDirectory(c["sub"]);
        using var top = c.Open("top", "qcow2");
        foreach (string name in new[] { c["base"], "base", "./base", "sub/../base" })
            Assert.Equal(c["base"], BackingChain.Find(top, name)?.Image.FileName);
        Assert.Equal(c["mid"], BackingChain.Find(top, "mid")?.Image.FileName);
        Assert.Null(BackingChain.Find(top, "top"));
        Assert.Null(BackingChain.Find(top, "sub/base"));
    }
}
