using ImgKit.Block.Jobs.Create;
using ImgKit.Block.Jobs.Rebase;

namespace ImgKit.Block.Tests.Overlay;

public sealed class RebaseJobTests
{
    private const int Size = 2 << 20;

    /// <summary>From a raw base to others, with overlays of several cluster sizes: what a guest sees never changes.</summary>
    [Theory]
    [InlineData("", "other", false)]
    [InlineData("cluster_size=512", "other", false)]
    [InlineData("extended_l2=on,cluster_size=32k", "other", false)]
    [InlineData("cluster_size=2M", "other", false)]
    [InlineData("", "short", false)]
    [InlineData("", "", false)]
    [InlineData("", "other", true)]
    [InlineData("compression_type=zstd", "", true)]
    public void Content_stays_when_the_backing_file_changes(string options, string to, bool compress)
    {
        using var c = new Chain();
        byte[] data = TestData.Mixed(Size, 1);
        File.WriteAllBytes(c["base"], data);
        byte[] other = (byte[])data.Clone();
        other.AsSpan(300_000, 100_000).Fill(7);
        other.AsSpan(900_000, 50_000).Clear();
        File.WriteAllBytes(c["other"], other);
        File.WriteAllBytes(c["short"], other[..(1 << 20)]);
        c.Make("top", "qcow2", Size + (1 << 20), "base", "raw", options);
        c.Write("top", "qcow2", 310_000, 20_000, 3);
        c.Write("top", "qcow2", 500_000, 100_000, 0);
        byte[] before = c.Content("top");

        using (var top = c.Open("top", "qcow2", write: true))
        {
            using var below = to.Length == 0 ? null : c.Open(to, "raw");
            RebaseJob.Run(new RebaseRequest { Overlay = top, NewBacking = below, Compress = compress });
            ((IBackedImage)top).ChangeBackingFile(to.Length == 0 ? null : c[to], to.Length == 0 ? null : "raw");
            top.Flush();
        }
        Assert.Equal(before, c.Content("top"));
        Assert.Equal(0, Peer.TryRun("qemu-img", "check", "-q", c["top"]).Code);
        string info = Peer.QemuImg("info", c["top"]);
        Assert.Equal(to.Length > 0, info.Contains($"backing file: {c[to.Length == 0 ? "base" : to]}", StringComparison.Ordinal));
        if (compress)
            Assert.DoesNotContain(" 0.00% compressed", Peer.QemuImg("check", c["top"]), StringComparison.Ordinal);
    }

    [Fact]
    public void Only_what_differs_is_copied()
    {
        using var c = new Chain();
        byte[] data = Enumerable.Repeat((byte)1, Size).ToArray();
        File.WriteAllBytes(c["base"], data);
        data[1_000_000] = 2;
        File.WriteAllBytes(c["other"], data);
        c.Make("top", "qcow2", Size, "base", "raw");
        using var top = c.Open("top", "qcow2", write: true);
        using var below = c.Open("other", "raw");
        RebaseJob.Run(new RebaseRequest { Overlay = top, NewBacking = below });
        int copied = 0;
        for (int at = 0; at < Size; at += 65536)
            copied += top.GetExtent(at, 1).IsAllocated ? 1 : 0;
        Assert.Equal(1, copied);
    }

    [Fact]
    public void A_layer_of_the_old_chain_needs_only_what_lies_above_it()
    {
        using var c = new Chain();
        File.WriteAllBytes(c["base"], TestData.Mixed(Size, 2));
        c.Make("mid", "qcow2", Size, "base", "raw");
        c.Write("mid", "qcow2", 200_000, 1000, 5);
        c.Make("top", "qcow2", Size, "mid", "qcow2");
        byte[] before = c.Content("top");
        using (var top = c.Open("top", "qcow2", write: true))
        {
            RebaseJob.Run(new RebaseRequest { Overlay = top, NewBacking = top.Backing!.Backing, IsInOldChain = true });
            Assert.True(top.GetExtent(200_000, 1).IsAllocated);
            Assert.False(top.GetExtent(500_000, 1).IsAllocated);
            ((IBackedImage)top).ChangeBackingFile(c["base"], "raw");
            top.Flush();
        }
        File.Delete(c["mid"]);
        Assert.Equal(before, c.Content("top"));
    }

    /// <summary>qcow2 over qcow2 over a cloop, and moved to a vmdk with the same content.</summary>
    [Fact]
    public void Chains_mix_formats()
    {
        using var c = new Chain();
        byte[] data = TestData.Mixed(Size, 3);
        File.WriteAllBytes(c["raw"], data);
        Peer.QemuImg("convert", "-f", "raw", "-O", "vmdk", c["raw"], c["vmdk"]);
        using (var source = c.Open("raw", "raw"))
        {
            var cloop = DriverCatalogue.Default.Get("cloop");
            CreateJob.Create(c.Opener, cloop, c["cloop"], Size, new BlockOptions(), reproducible: true);
            using var target = c.Open("cloop", "cloop", write: true);
            Block.Jobs.Convert.ConvertJob.Run(new Block.Jobs.Convert.ConvertRequest { Sources = [source], Target = target, TargetIsZero = true });
            target.Flush();
        }
        c.Make("mid", "qcow2", Size, "cloop", "cloop");
        c.Write("mid", "qcow2", 100_000, 5000, 8);
        c.Make("top", "qcow2", Size, "mid", "qcow2");
        c.Write("top", "qcow2", 600_000, 5000, 9);
        data.AsSpan(100_000, 5000).Fill(8);
        data.AsSpan(600_000, 5000).Fill(9);
        Assert.Equal(data, c.Content("top"));
        using (var top = c.Open("top", "qcow2", write: true))
        {
            using var below = c.Open("vmdk", "vmdk");
            RebaseJob.Run(new RebaseRequest { Overlay = top, NewBacking = below });
            ((IBackedImage)top).ChangeBackingFile(c["vmdk"], "vmdk");
            top.Flush();
        }
        Assert.Equal(data, c.Content("top"));
        Peer.QemuImg("convert", "-O", "raw", c["top"], c["theirs"]);
        Assert.Equal(data, File.ReadAllBytes(c["theirs"]));
    }
}
