namespace ImgKit.Conformance;

/// <summary>kvm-img beside qemu-img: the same arguments give the same text, errors and exit code.</summary>
public sealed class ImgCommandTests
{
    /// <summary>Command lines that make no sense, and what both say to them. Words are separated by blanks; _ stands for an empty one.</summary>
    public static TheoryData<string> WrongUsage =>
    [
        "", "--foo", "-T", "nosuchcommand", "create", "create --foo", "create -f", "create -qx a", "create a", "create a b c",
        "create a 1x", "create a 1.5", "create a -- -1", "create a 8E", "create a 1M 2M", "create -f nope a 1M", "create foo:a 1M",
        "create -f qcow2 -o foo=1 a 1M", "create -f qcow2 -o cluster_size=x a 1M", "create -f qcow2 -o cluster_size a 1M",
        "create -f qcow2 -o refcount_bits=x a 1M", "create -f qcow2 -o refcount_bits=99999999999999999999 a 1M",
        "create -f qcow2 -o lazy_refcounts=maybe a 1M", "create -f qcow2 -o size=99999999999999999999 a", "create -f qcow2 -o size=1M a 1M",
        "create -f qcow2 -o , a 1M", "create -f qcow2 -o ,size=1M a", "create -f qcow2 -b nope a", "create -f qcow2 -b nope -F raw a", "create -f raw -b nope a",
        "create -f qcow2 -u -b nope a 1M", "create -f qcow2 -b a a", "create -f qcow2 a 100P", "create -f raw /nonexistent/a 1M",
        "create -f qcow2 -o compat=0.11 a 1M", "create -f raw -o preallocation=metadata a 1M", "create -f bochs a 1M",
        "info", "info a b", "info nope", "info --output=xml nope", "info --output", "info -Zq nope", "info -f nope disk.raw", "info --image-opts nope=1",
        "info --image-opts driver=raw,file.filename=disk.raw,foo=1", "info json:[]", "info --image-opts -f raw disk.raw",
        "check", "check nope", "check -r some disk.qcow2", "check disk.raw", "check -T nomode disk.qcow2",
        "map", "map nope", "map -s x disk.raw", "map -l -1 disk.raw", "map --output=x disk.raw",
        "resize", "resize disk.raw", "resize disk.raw x", "resize disk.raw -2M", "resize disk.raw 512k", "resize --preallocation=x disk.raw 2M",
        "resize --preallocation=full disk.raw 1M", "resize disk.raw +",
        "snapshot", "snapshot -l -c x disk.qcow2", "snapshot -a nope disk.qcow2", "snapshot -d nope disk.qcow2", "snapshot -l nope",
        "measure", "measure --size 1M disk.raw", "measure -f raw", "measure a b", "measure --size x", "measure -O nope --size 1M", "measure -O qcow2 -o foo=1 --size 1M",
        "measure --output=xml --size 1M", "measure -l nope disk.qcow2", "measure -l snapshot.foo=1 disk.qcow2",
        "amend disk.qcow2", "amend -o foo=1 disk.qcow2", "amend -o cluster_size=64k disk.qcow2", "amend -f raw -o size=1M disk.raw", "amend -o compat=0.10 a b", "amend -t x -o compat=0.10 disk.qcow2",
        "bitmap", "bitmap --add", "bitmap --clear -g 64k disk.qcow2 b", "bitmap --add -F raw disk.qcow2 b", "bitmap --add -b x disk.qcow2 b", "bitmap --remove disk.qcow2 nope",
        "bitmap --add -g 3 disk.qcow2 b", "bitmap --merge nope disk.qcow2 b",
        "compare disk.raw", "compare nope disk.raw", "compare -T nomode disk.raw disk.raw", "compare disk.raw nope",
        "convert", "convert disk.raw", "convert nope out", "convert -O nope disk.raw out", "convert -c -C disk.raw out", "convert -S 1k -C disk.raw out", "convert -S 3 disk.raw out",
        "convert -m 0 disk.raw out", "convert -m 17 disk.raw out", "convert --target-image-opts disk.raw out", "convert -n -o size=1M disk.raw out",
        "convert --target-is-zero disk.raw out", "convert --skip-broken-bitmaps disk.raw out", "convert -l nope disk.qcow2 out", "convert -T x disk.raw out",
        "convert -B x disk.raw out", "convert -O qcow2 -o backing_file=disk.raw disk.raw out", "convert -O qcow2 -c -o preallocation=full disk.raw out",
        "convert --bitmaps disk.raw out", "convert -O bochs disk.raw out", "convert -n disk.raw nope", "convert -r x disk.raw out", "convert -O qcow2 -o foo disk.raw out",
        "commit", "commit disk.qcow2", "commit -t x disk.qcow2", "commit -b nope over.qcow2", "commit -r x over.qcow2", "commit nope",
        "rebase disk.qcow2", "rebase -b nope -F raw over.qcow2", "rebase -b disk.raw -F nope over.qcow2", "rebase -u -b x over.qcow2", "rebase -t x -b _ over.qcow2",
        "dd if=disk.raw", "dd foo", "dd foo=1 if=disk.raw of=out", "dd bs=0 if=disk.raw of=out", "dd count=x if=disk.raw of=out", "dd -O nope if=disk.raw of=out", "dd if=nope of=out",
        "bench", "bench -c x disk.raw", "bench -d -1 disk.raw", "bench --pattern=256 -w disk.raw", "bench --flush-interval=1 disk.raw", "bench -t x disk.raw", "bench -i x disk.raw",
        "bench -w --flush-interval=2 disk.raw",
    ];

    [Theory]
    [MemberData(nameof(WrongUsage))]
    public void Wrong_usage_gets_the_same_words_and_exit_code(string line)
    {
        using var tools = new Tools();
        foreach (string folder in new[] { tools.PeerFolder, tools.OurFolder })
        {
            File.WriteAllBytes(Path.Combine(folder, "disk.raw"), new byte[1 << 20]);
            foreach (string make in new[] { "create -q -f qcow2 disk.qcow2 1M", "create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2" })
                Assert.Equal(0, (folder == tools.PeerFolder ? tools.Peer(make.Split(' ')) : tools.Ours(make.Split(' '))).ExitCode);
        }
        var (peer, ours) = tools.Both(Words(line));
        Assert.Equal(peer.ToString(), ours.ToString());
    }

    /// <summary>Work, step by step in one folder; every step is compared.</summary>
    public static TheoryData<string, string[]> Work => new()
    {
        {
            "raw", ["create a.raw 1M", "info a.raw", "info --output=json a.raw", "map --output=json a.raw", "map a.raw", "resize a.raw +1M", "resize --shrink a.raw 512k", "info a.raw",
                "measure -O raw a.raw", "create b.raw 512k", "compare a.raw b.raw", "compare -s a.raw b.raw", "dd if=a.raw of=c.raw bs=1k count=3 skip=1", "info c.raw"]
        },
        {
            "qcow2", ["create -f qcow2 a.qcow2 8M", "info a.qcow2 --output=human", "check a.qcow2", "map --output=json a.qcow2", "snapshot -c s1 a.qcow2", "snapshot -d s1 a.qcow2",
                "resize a.qcow2 16M", "amend -o compat=0.10 a.qcow2", "amend -o compat=1.1,lazy_refcounts=on a.qcow2", "check --output=json a.qcow2", "create -f qcow2 -b a.qcow2 -F qcow2 o.qcow2",
                "info --backing-chain o.qcow2", "convert -p -O qcow2 a.qcow2 c.qcow2", "compare a.qcow2 c.qcow2", "commit o.qcow2", "rebase -b _ o.qcow2", "rebase -u -b c.qcow2 -F qcow2 o.qcow2",
                "info o.qcow2", "measure -O qcow2 a.qcow2", "bitmap --add a.qcow2 b0", "bitmap --disable a.qcow2 b0", "info a.qcow2"]
        },
        {
            "help", ["create -f qcow2 -o help", "create -f qcow2 -o help x", "create -f raw -o help x", "create -f raw -o help", "amend -f qcow2 -o help", "convert -O raw -o help"]
        },
    };

    [Theory]
    [MemberData(nameof(Work))]
    public void Work_gives_the_same_output_step_by_step(string name, string[] steps)
    {
        using var tools = new Tools();
        for (int i = 0; i < steps.Length; i++)
        {
            var (peer, ours) = tools.Both(Words(steps[i]));
            // The space that a file takes is each tool's own affair.
            Assert.Equal($"{name} {i} {steps[i]}\n{WithoutSpace(peer)}", $"{name} {i} {steps[i]}\n{WithoutSpace(ours)}");
        }
    }

    private static string[] Words(string line) =>
        line.Length == 0 ? [] : [.. line.Split(' ').Select(static w => w == "_" ? "" : w)];

    private static string WithoutSpace(Outcome o) =>
        string.Join('\n', o.ToString().Split('\n').Where(static l =>
            !l.StartsWith("disk size: ", StringComparison.Ordinal) && !l.Contains("\"actual-size\"", StringComparison.Ordinal)
            && !l.StartsWith("Image end offset: ", StringComparison.Ordinal) && !l.Contains("\"image-end-offset\"", StringComparison.Ordinal)));
}
