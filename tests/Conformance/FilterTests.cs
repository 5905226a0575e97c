using System.Buffers.Binary;
using System.Diagnostics;
using System.Text.RegularExpressions;

namespace ImgKit.Conformance;

/// <summary>Filters by the options that qemu has for them; qemu-io is the judge where it has the same.</summary>
public sealed class FilterTests
{
    private const int Size = 4 << 20;

    private static (int Code, string Output) Ours(params string[] arguments) => Programs.TryRun(Programs.Ours("kvm-io"), arguments);

    private static string[] Commands(string commands) => [.. commands.Split('|').SelectMany(static c => new[] { "-c", c })];

    /// <summary>Runs commands through both programs, each on images of its own.</summary>
    /// <returns>what both printed.</returns>
    private static string Both(Workspace w, Action<string> make, string options, string commands, params string[] more)
    {
        string[] said = new string[2];
        for (int i = 0; i < 2; i++)
        {
            string folder = w[i == 0 ? "peer" : "ours"];
            Directory.CreateDirectory(folder);
            make(folder + "/");
            var result = Programs.RunAs("qemu-io", i == 0 ? "/usr/bin/qemu-io" : Programs.Ours("kvm-io"), folder, [.. more, "--image-opts", .. Commands(commands), options]);
            // The peer tells of each request that stops at a breakpoint.
            said[i] = Regex.Replace(result.ToString(), "[0-9]+ ops; .*|^blkdebug: .*\n", "", RegexOptions.Multiline);
        }
        Assert.Equal(said[0], said[1]);
        return said[1];
    }

    private static void MakeRaw(string path, byte fill = 0, int length = Size)
    {
        byte[] data = new byte[length];
        data.AsSpan().Fill(fill);
        File.WriteAllBytes(path, data);
    }

    [Theory]
    [InlineData("inject-error.0.event=read_aio,inject-error.0.errno=28,inject-error.0.once=on", "read 0 512|read 0 512")]
    [InlineData("inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=5", "read 0 512|write 0 512|flush|discard 0 64k")]
    [InlineData("inject-error.0.event=none,inject-error.0.iotype=flush", "read 0 512|write -f 0 512")]
    [InlineData("inject-error.0.event=none,inject-error.0.iotype=discard,inject-error.0.errno=1", "discard 0 64k|write 0 512")]
    [InlineData("inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector=8", "read 0 4k|read 4k 4k|read 3k 4k|read 8k 4k")]
    [InlineData("set-state.0.event=write_aio,set-state.0.new_state=2,inject-error.0.event=read_aio,inject-error.0.state=2", "read 0 512|write 0 512|read 0 512")]
    [InlineData("align=4096", "write -P 5 100 1000|read -P 5 100 1000|read -P 0 0 100|write -z 5000 8000|read -P 0 5000 8000")]
    [InlineData("align=3", "read 0 1")]
    [InlineData("align=4096,max-transfer=1000", "read 0 1")]
    [InlineData("max-write-zero=64k,opt-write-zero=4k,max-discard=64k,opt-discard=4k", "write -z 100 1M|discard 100 1M|read -P 0 100 1M")]
    [InlineData("inject-error.0.event=foo", "read 0 1")]
    [InlineData("inject-error.0.event=none,inject-error.0.foo=1", "read 0 1")]
    public void Blkdebug_does_as_the_peer_does(string rules, string commands)
    {
        using var w = new Workspace();
        Both(w, static f => MakeRaw(f + "d"), $"driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=d,{string.Join(',', rules.Split(',').Select(static r => "file." + r))}",
            commands);
    }

    [Fact]
    public void Unaligned_writes_to_one_block_wait_for_each_other()
    {
        using var w = new Workspace();
        string said = Both(w, static f => MakeRaw(f + "d"), "driver=raw,file.driver=blkdebug,file.align=4k,file.image.driver=file,file.image.filename=d",
            // Quietly: which of the two is told of first is chance once both are done.
            "break pwritev_rmw_after_head A|aio_write -q -P 10 512 512|wait_break A|aio_write -q -P 11 1k 512|sleep 50|resume A|aio_flush|read -P 10 512 512|read -P 11 1k 512|read -P 0 0 512");
        Assert.DoesNotContain("failed", said);
    }

    [Fact]
    public void Blkverify_stops_at_a_difference()
    {
        using var w = new Workspace();
        MakeRaw(w["a"]);
        Programs.Run("qemu-img", "create", "-q", "-f", "qcow2", w["b"], "4M");
        string name = $"blkverify:{w["a"]}:{w["b"]}";
        Assert.DoesNotContain("failed", Programs.Run(Programs.Ours("kvm-io"), [.. Commands("write -P 7 100 5000|read -P 7 100 5000|write -z 1M 64k|read -P 0 1M 64k"), name]));
        Programs.Run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", w["a"], w["b"]);
        using (var f = File.OpenWrite(w["a"]))
        {
            f.Position = 70_000;
            f.WriteByte(9);
        }
        var (code, output) = Ours([.. Commands("read 0 64k|read 64k 64k|read 0 64k"), name]);
        Assert.NotEqual(0, code);
        Assert.Contains("blkverify: read offset=65536 bytes=65536 contents mismatch at offset 70000", output);
    }

    /// <summary>A reader of dm-log-writes of its own: every prefix that ends with a flush holds what had been written before it.</summary>
    [Fact]
    public void Blklogwrites_can_be_replayed()
    {
        using var w = new Workspace();
        foreach (string program in (string[])["qemu-io", Programs.Ours("kvm-io")])
        {
            MakeRaw(w["d"], 0);
            MakeRaw(w["log"], 0);
            Programs.Run(program, ["--image-opts", .. Commands("write -P 1 0 64k|flush|write -P 2 32k 64k|write -z 4k 4k|flush|discard 64k 4k|write -P 3 1M 512"),
                $"driver=blklogwrites,file.driver=raw,file.file.driver=file,file.file.filename={w["d"]},log.driver=file,log.filename={w["log"]}"]);
            var states = Replay(File.ReadAllBytes(w["log"]), Size, discardsZero: false);
            Assert.True(states.Count >= 2, $"{program}: {states.Count} flushes");
            Assert.Equal((1, 1, 0), (states[0][0], states[0][65535], states[0][65536]));
            Assert.Equal((1, 0, 0, 2, 2), (states[1][0], states[1][4096], states[1][8191], states[1][32768], states[1][98303]));
            Assert.Equal(0, states[1][1 << 20]);
            Assert.Equal((3, 0), (states[^1][1 << 20], states[^1][(1 << 20) + 512]));
        }
    }

    /// <summary>The disk at each flush, and at the end.</summary>
    private static List<byte[]> Replay(byte[] log, int size, bool discardsZero)
    {
        Assert.Equal(0x6a736677736872ul, BinaryPrimitives.ReadUInt64LittleEndian(log));
        Assert.Equal(1ul, BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(8)));
        ulong entries = BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(16));
        int sector = (int)BinaryPrimitives.ReadUInt32LittleEndian(log.AsSpan(24)), at = sector;
        byte[] disk = new byte[size];
        var states = new List<byte[]>();
        for (ulong i = 0; i < entries; i++)
        {
            ulong start = BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(at)), count = BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(at + 8));
            ulong flags = BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(at + 16));
            at += sector;
            int offset = (int)start * sector, length = (int)count * sector;
            if ((flags & 4) == 0)
            {
                log.AsSpan(at, length).CopyTo(disk.AsSpan(offset));
                at += length;
            }
            else if (discardsZero)
            {
                disk.AsSpan(offset, length).Clear();
            }
            if ((flags & 1) != 0)
                states.Add([.. disk]);
        }
        states.Add(disk);
        return states;
    }

    [Fact]
    public void Compress_stores_what_is_written_compressed()
    {
        using var w = new Workspace();
        Programs.Run("qemu-img", "create", "-q", "-f", "qcow2", w["q"], "4M");
        Programs.Run(Programs.Ours("kvm-io"), ["--image-opts", .. Commands("write -P 5 0 1M"), $"driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename={w["q"]}"]);
        Assert.Contains("\"compressed-clusters\": 16", Programs.Run("qemu-img", "check", "--output=json", w["q"]));
        Assert.DoesNotContain("failed", Programs.Run("qemu-io", "-f", "qcow2", "-c", "read -P 5 0 1M", w["q"]));
    }

    [Theory]
    [InlineData("", "read 0 1M|map")]
    [InlineData("", "read 100 100|read 900k 200k|map|write -P 9 0 64k|read -P 9 0 64k")]
    public void Copy_on_read_keeps_what_was_read(string options, string commands)
    {
        using var w = new Workspace();
        string said = Both(w, f =>
        {
            MakeRaw(f + "b", 3, 1 << 20);
            Programs.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", f + "b", "-F", "raw", f + "q", "4M");
        }, $"driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=q{options}", commands);
        Assert.Contains("allocated", said);
    }

    [Theory]
    [InlineData("write -P 5 0 64k|read -P 5 0 64k|read 0 4M")]
    public void Quorum_outvotes_a_bad_child(string commands)
    {
        using var w = new Workspace();
        string options = "driver=quorum,vote-threshold=2" + string.Concat(Enumerable.Range(0, 3).Select(static i => $",children.{i}.driver=raw,children.{i}.file.driver=file,children.{i}.file.filename=d{i}"));
        Both(w, static f =>
        {
            for (int i = 0; i < 3; i++)
                MakeRaw($"{f}d{i}", (byte)(i == 2 ? 1 : 0));
        }, options, commands);
        // Three opinions: none has the majority.
        Assert.Contains("read failed: Input/output error", Both(w, static f => MakeRaw(f + "d1", 4), options, "read 3M 64k"));
    }

    /// <summary>Only that it takes as long as it must: how much longer is the machine's affair.</summary>
    [Theory]
    [InlineData("x-bps-total=1048576", "write 0 1M|write 1M 1M|read 0 1M", 1.8)]
    [InlineData("x-iops-total=10", "read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512", 0.9)]
    [InlineData("x-bps-write=1048576", "write 0 1M|write 1M 1M|write 2M 1M", 1.8)]
    [InlineData("x-iops-read=4,x-iops-read-max=8", "read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512|read 0 512", 0.7)]
    [InlineData("x-iops-total=4,x-iops-size=4096", "read 0 64k|read 0 512", 3.5)]
    public void Throttle_keeps_its_limits(string limits, string commands, double seconds)
    {
        using var w = new Workspace();
        MakeRaw(w["d"]);
        var time = Stopwatch.StartNew();
        var (code, output) = Ours(["--object", $"throttle-group,id=g,{limits}", "--image-opts", .. Commands(commands),
            $"driver=throttle,throttle-group=g,file.driver=raw,file.file.driver=file,file.file.filename={w["d"]}"]);
        Assert.True(code == 0, output);
        Assert.True(time.Elapsed.TotalSeconds >= seconds, $"{limits}: {time.Elapsed.TotalSeconds:F2} s");
    }

    [Fact]
    public void A_disk_has_limits_of_its_own()
    {
        using var w = new Workspace();
        MakeRaw(w["d"]);
        var time = Stopwatch.StartNew();
        var (code, output) = Ours(["--image-opts", .. Commands("write 0 1M|write 1M 1M|write 2M 1M"),
            $"driver=raw,file.driver=file,file.filename={w["d"]},throttling.bps-write=1048576"]);
        Assert.True(code == 0, output);
        Assert.True(time.Elapsed.TotalSeconds >= 1.8, $"{time.Elapsed.TotalSeconds:F2} s");
        (code, output) = Ours("--image-opts", "-c", "read 0 512", $"driver=raw,file.driver=file,file.filename={w["d"]},throttling.foo=1");
        Assert.Equal((1, true), (code, output.Contains("Invalid parameter 'throttling.foo'", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("x-bps-total=1000,x-bps-read=1000")]
    [InlineData("x-bps-max=10")]
    [InlineData("x-bps-total-max=10")]
    [InlineData("x-iops-total=100,x-iops-total-max=10")]
    [InlineData("x-iops-total=100,x-iops-total-max-length=10")]
    [InlineData("x-iops-total=-1")]
    [InlineData("x-bps-total=99999999999999999")]
    public void Limits_that_make_no_sense_are_refused(string limits)
    {
        using var w = new Workspace();
        MakeRaw(w["d"]);
        var (code, output) = Ours("--object", $"throttle-group,id=g,{limits}", "--image-opts", "-c", "read 0 512", $"driver=throttle,throttle-group=g,file.driver=file,file.filename={w["d"]}");
        Assert.Equal(1, code);
        Assert.StartsWith("kvm-io: ", output);
        Assert.Equal(1, output.Count(static c => c == '\n'));
    }
}
