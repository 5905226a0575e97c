using System.Security.Cryptography;

namespace ImgKit.Conformance;

/// <summary>What bad luck gets: full disks, closed outputs, signals, file systems that can do little. One line, no target that looks complete, no change
/// to a source. Small file systems are mounted, which needs root, as on CI.</summary>
public sealed class ImgFailureTests : IDisposable
{
    private readonly Workspace _work = new();
    private readonly string _source;
    private readonly byte[] _sourceHash;

    public ImgFailureTests()
    {
        _source = _work["source"];
        byte[] data = new byte[24 << 20];
        new Random(1).NextBytes(data);
        File.WriteAllBytes(_source, data);
        _sourceHash = SHA256.HashData(data);
    }

    public void Dispose()
    {
        Assert.Equal(_sourceHash, SHA256.HashData(File.ReadAllBytes(_source)));
        if (Directory.Exists(_work["fs"]))
            Programs.Run("umount", _work["fs"]);
        _work.Dispose();
    }

    public static TheoryData<string> OnAFullDisk =>
    [
        "convert -f raw -O raw SRC t", "convert -f raw -O qcow2 SRC t", "convert -c -f raw -O qcow2 SRC t", "convert -f raw -O vmdk SRC t",
        "convert -f raw -O vmdk -o subformat=streamOptimized SRC t", "convert -f raw -O vmdk -o subformat=twoGbMaxExtentFlat SRC t.vmdk",
        "convert -f raw -O cloop SRC t", "convert -S 0 -f raw -O qcow2 -t none SRC t", "create -f raw -o preallocation=full t 20M", "create -f raw -o preallocation=falloc t 20M",
        "create -f qcow2 -o preallocation=falloc t 20M", "create -f qcow2 -o preallocation=full t 20M", "create -q -f qcow2 -o preallocation=metadata t 2T",
        "dd -f raw if=SRC of=t bs=1M", "dd -f raw -O qcow2 if=SRC of=t bs=1M",
    ];

    [Theory]
    [MemberData(nameof(OnAFullDisk))]
    public void A_target_that_does_not_fit_is_removed(string command)
    {
        string fs = Mount("tmpfs", "-o", "size=6M");
        var (code, output) = Img(fs, command.Replace("SRC", _source, StringComparison.Ordinal));
        Assert.Equal(1, code);
        string message = Assert.Single(output.Split('\n', StringSplitOptions.RemoveEmptyEntries), static l => !l.StartsWith("Formatting ", StringComparison.Ordinal));
        Assert.StartsWith("kvm-img: ", message, StringComparison.Ordinal);
        Assert.Contains("No space left on device", message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(fs));
    }

    public static TheoryData<string> OnAnImage =>
    [
        "snapshot -c a s", "resize --preallocation=full s 8M", "resize --preallocation=falloc s 8M", "resize --preallocation=metadata s 800M", "resize s 80T",
        "amend -o refcount_bits=64 s", "bitmap --add -g 512 s b", "commit o", "rebase -b _ o",
    ];

    [Theory]
    [MemberData(nameof(OnAnImage))]
    public void An_image_on_a_full_disk_stays_what_it_was(string command)
    {
        string fs = Mount("tmpfs", "-o", "size=6M");
        bool overlay = command.EndsWith(" o", StringComparison.Ordinal);
        Programs.Run("/bin/bash", "-c", $"""
            set -e; cd {fs}
            qemu-img create -q -f qcow2 s 4M; qemu-io -f qcow2 -c 'write -P 3 0 4M' s
            if {(overlay ? "true" : "false")}; then
              qemu-img convert -f raw -O qcow2 {_source} {_work["big"]}
              {(command.StartsWith("commit", StringComparison.Ordinal)
                ? $"qemu-img create -q -f qcow2 -b {fs}/s -F qcow2 {_work["o"]} 24M; qemu-io -f qcow2 -c 'write -P 4 0 20M' {_work["o"]}; ln -s {_work["o"]} o"
                : $"qemu-img create -q -f qcow2 -b {_work["big"]} -F qcow2 o")}
            fi
            qemu-img convert -O raw {(overlay ? "o" : "s")} {_work["before"]}
            dd if=/dev/zero of=fill bs=4k 2>/dev/null || true
            """);
        var (code, output) = Img(fs, command);
        Assert.Equal(1, code);
        Assert.Contains("No space left on device", output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", output, StringComparison.Ordinal);
        string image = Path.Combine(fs, overlay ? "o" : "s");
        Programs.Run("qemu-img", "convert", "-O", "raw", image, _work["after"]);
        Assert.Equal(File.ReadAllBytes(_work["before"]), File.ReadAllBytes(_work["after"]));
        foreach (string file in new[] { image, Path.Combine(fs, "s") })
            Assert.Contains(Programs.TryRun("qemu-img", "check", "-q", "-f", "qcow2", file).Code, new[] { 0, 3 });
    }

    public static TheoryData<string, string> Interrupted
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (string signal in new[] { "INT", "TERM", "HUP", "QUIT" })
                data.Add(signal, "convert -r 2M -f raw -O qcow2 SRC t");
            data.Add("TERM", "convert -r 2M -f raw -O raw SRC t");
            data.Add("TERM", "convert -r 2M -f raw -O vmdk -o subformat=twoGbMaxExtentFlat SRC t.vmdk");
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Interrupted))]
    public void A_signal_ends_it_and_removes_the_target(string signal, string command)
    {
        Directory.CreateDirectory(_work["d"]);
        // Whoever runs the tests may have them ignore signals (nohup does, and shells for what is in the background): programs inherit that, and keep to it.
        var (_, output) = Programs.TryRun("/bin/bash", "-c", $"""
            exec 2>/dev/null; cd {_work["d"]}; set -m
            env --default-signal=INT,TERM,HUP,QUIT {Programs.Ours("kvm-img")} {command.Replace("SRC", _source, StringComparison.Ordinal)} &
            for i in $(seq 200); do [ -s t ] || [ -s t-f001.vmdk ] && break; sleep 0.02; done; sleep 0.2
            ls; kill -{signal} $!; wait $!; echo "ended $?"; ls
            """);
        int number = signal switch { "INT" => 2, "TERM" => 15, "HUP" => 1, _ => 3 };
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.StartsWith("t", lines[0], StringComparison.Ordinal);
        Assert.Equal($"ended {128 + number}", lines[^1]);
    }

    [Fact]
    public void Output_that_nobody_reads_stops_no_work()
    {
        string img = Programs.Ours("kvm-img"), folder = _work.Folder;
        foreach (string command in new[] { $"convert -p -f raw -O qcow2 {_source} t", "create -f qcow2 t 1M" })
        {
            foreach (string output in new[] { "| true", ">&-", ">&- 2>&- <&-", ">/dev/full" })
            {
                File.Delete(_work["t"]);
                var (_, text) = Programs.TryRun("/bin/bash", "-c", $"cd {folder}; {img} {command} {output}; echo ${{PIPESTATUS[0]}}");
                // What could not be written is no success, but the image is made; a reader that went away is no failure.
                Assert.StartsWith(output == ">/dev/full" ? "1\n" : "0\n", text, StringComparison.Ordinal);
                Programs.Run("qemu-img", "check", "-q", "-f", "qcow2", _work["t"]);
            }
        }
        // A stream is another matter.
        Assert.EndsWith("1\n", Programs.TryRun("/bin/bash", "-c", $"{img} convert -f raw -O qcow2 {_source} - | head -c 1000 >/dev/null; echo ${{PIPESTATUS[0]}}").Output,
            StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("convert -f raw -O raw d d", "Failed to get \"write\" lock")]
    [InlineData("convert -O qcow2 d d", "Failed to get \"write\" lock")]
    [InlineData("convert -f raw -O qcow2 e d d", "Failed to get \"write\" lock")]
    [InlineData("dd -f raw if=d of=d", "'d' is the input, too")]
    [InlineData("dd -f raw if=d of=./d -O qcow2", "'./d' is the input, too")]
    public void A_source_is_no_target(string command, string message)
    {
        _work.MakeDisk("d", 1 << 20);
        _work.MakeDisk("e", 1 << 20, 2);
        byte[] before = File.ReadAllBytes(_work["d"]);
        var (code, output) = Img(_work.Folder, command);
        Assert.Equal(1, code);
        Assert.Contains(message, output, StringComparison.Ordinal);
        Assert.Equal(before, File.ReadAllBytes(_work["d"]));
    }

    /// <summary>ramfs neither makes holes in a file nor reserves space, and has no O_DIRECT.</summary>
    [Fact]
    public void A_file_system_without_holes_works_and_is_named_once()
    {
        string fs = Mount("ramfs");
        string d = _work.MakeDisk("d", 4 << 20);
        Programs.Run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", d, _work["q"]);
        Assert.Equal((0, ""), Img(fs, $"convert -f raw -O raw {d} a"));
        Assert.Equal((0, ""), Img(fs, $"convert -f raw -O qcow2 {d} b"));
        Assert.Equal((0, "Images are identical.\n"), Img(fs, "compare -f raw -F qcow2 a b"));
        File.WriteAllBytes(Path.Combine(fs, "full"), Enumerable.Repeat((byte)0xff, 4 << 20).ToArray());
        Assert.Equal((0, "kvm-img: warning: the file system of 'full' cannot make holes: what is discarded or zeroed keeps its space\n"),
            Img(fs, $"convert -n -f raw -O raw {d} full"));
        Assert.Equal(File.ReadAllBytes(d), File.ReadAllBytes(Path.Combine(fs, "full")));
        Assert.Equal((0, ""), Img(fs, $"convert -q -n -O raw {_work["q"]} full"));
        var (code, output) = Img(fs, "create -f qcow2 -o preallocation=falloc c 4M");
        Assert.Equal(0, code);
        Assert.Equal("kvm-img: warning: the file system of 'c' cannot reserve space: zeroes are written instead",
            Assert.Single(output.Split('\n'), static l => l.Contains("warning", StringComparison.Ordinal)));
        Assert.Equal((0, ""), Img(fs, "create -q -f raw -o preallocation=falloc e 4M"));
        Assert.Equal(4 << 20, new FileInfo(Path.Combine(fs, "e")).Length);
        (code, output) = Img(fs, $"convert -t none -f raw -O raw {d} x");
        Assert.Equal((1, "kvm-img: Could not open 'x': Could not open 'x': the file system does not support O_DIRECT\n"), (code, output));
        Assert.False(File.Exists(Path.Combine(fs, "x")));
    }

    /// <summary>A file system with O_DIRECT, and 4 KiB sectors below: every cache mode gives the same bytes.</summary>
    [Theory]
    [InlineData("none")]
    [InlineData("directsync")]
    [InlineData("writethrough")]
    [InlineData("unsafe")]
    public void Each_cache_mode_reads_and_writes_the_same(string mode)
    {
        Programs.Run("/bin/bash", "-c", $"truncate -s 64M {_work["disk"]}; /usr/sbin/mke2fs -q -F -t ext4 {_work["disk"]}");
        string fs = Mount(null, "-o", "loop", _work["disk"]);
        // An odd length: the last sector is not whole.
        File.WriteAllBytes(Path.Combine(fs, "odd"), File.ReadAllBytes(_source).AsSpan(0, (3 << 20) + 1000).ToArray());
        foreach (string format in new[] { "raw", "qcow2", "vmdk" })
        {
            Assert.Equal((0, ""), Img(fs, $"convert -t {mode} -T {mode} -f raw -O {format} odd t.{format}"));
            Assert.Equal((0, "Images are identical.\n"), Img(fs, $"compare -T {mode} -f raw -F {format} odd t.{format}"));
            Programs.Run("qemu-img", "compare", "-q", "-f", "raw", "-F", format, Path.Combine(fs, "odd"), Path.Combine(fs, $"t.{format}"));
        }
        Assert.Equal((0, ""), Img(fs, "create -q -f qcow2 -b t.qcow2 -F qcow2 over"));
        Programs.Run("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 5000", Path.Combine(fs, "over"));
        Assert.Equal((0, ""), Img(fs, $"rebase -t {mode} -T {mode} -b odd -F raw over"));
        Assert.Equal((0, "Image committed.\n"), Img(fs, $"commit -t {mode} over"));
        Programs.Run("qemu-io", "-r", "-f", "raw", "-c", "read -P 5 1M 5000", Path.Combine(fs, "odd"));
    }

    private (int Code, string Output) Img(string folder, string command) =>
        Programs.TryRun("/bin/bash", "-c",
            $"cd {folder} && exec {Programs.Ours("kvm-img")} {string.Join(' ', command.Split(' ').Select(static w => w == "_" ? "''" : w))} 2>&1");

    private string Mount(string? type, params string[] options)
    {
        Directory.CreateDirectory(_work["fs"]);
        Programs.Run("mount", [.. type is null ? [] : new[] { "-t", type }, .. options, .. type is null ? [] : new[] { "none" }, _work["fs"]]);
        return _work["fs"];
    }
}
