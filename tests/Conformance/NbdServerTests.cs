namespace ImgKit.Conformance;

/// <summary>Clients that others wrote, against kvm-nbd.</summary>
public sealed class NbdServerTests
{
    private const int Size = 8 << 20;

    [Fact]
    public void Nbdinfo_sees_the_export()
    {
        using var w = new Workspace();
        string uri = w.Serve("-f", "raw", "-D", "a disk", "-A", w.MakeDisk("d", Size));
        string info = Programs.Run("nbdinfo", uri);
        Assert.Contains("newstyle-fixed without TLS, using structured packets", info);
        Assert.Contains("description: a disk", info);
        Assert.Contains($"export-size: {Size} (8M)", info);
        Assert.Contains("qemu:allocation-depth", info);
        foreach (string yes in (string[])["can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"])
            Assert.Contains(yes + ": true", info);
    }

    [Fact]
    public void The_peers_own_list_and_ours_are_the_same()
    {
        using var w = new Workspace();
        w.Serve("-f", "raw", "-r", w.MakeDisk("d", Size));
        string ours = Programs.Run(Programs.Ours("kvm-nbd"), "-L", "-k", w["s"]);
        Assert.Equal(Programs.Run("qemu-nbd", "-L", "-k", w["s"]), ours);
        Assert.Contains("readonly", ours);
    }

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public void Nbdcopy_copies_out_and_in(string format)
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size), image = w["i"];
        Programs.Run("qemu-img", "convert", "-O", format, disk, image);
        string uri = w.Serve("-f", format, image);
        Programs.Run("nbdcopy", uri, w["out"]);
        Programs.Run("cmp", disk, w["out"]);
        string other = w.MakeDisk("e", Size, 2);
        Programs.Run("nbdcopy", "--flush", other, uri);
        Programs.Run("nbdcopy", "--synchronous", uri, w["out2"]);
        Programs.Run("cmp", other, w["out2"]);
    }

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public void Qemu_img_maps_and_compares(string format)
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size), image = w["i"];
        Programs.Run("qemu-img", "convert", "-O", format, disk, image);
        string uri = w.Serve("-f", format, "-r", image);
        Programs.Run("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, uri);
        string map = Programs.Run("qemu-img", "map", "--output=json", "-f", "raw", uri);
        Assert.Contains("\"start\": 2097152, \"length\": 2097152, \"depth\": 0, \"present\": true, \"zero\": true, \"data\": false", map);
    }

    /// <summary>A format that was guessed has whole sectors only, and so are the parts that the server tells of.</summary>
    [Theory]
    [InlineData("", "[1024 False True]")]
    [InlineData("-f raw", "[1000 False True][24 True False]")]
    public void A_file_that_ends_within_a_sector_is_told_of_in_blocks(string options, string expected)
    {
        using var w = new Workspace();
        File.WriteAllBytes(w["d"], [.. Enumerable.Repeat((byte)1, 1000)]);
        string uri = w.Serve([.. options.Split(' ', StringSplitOptions.RemoveEmptyEntries), "-r", w["d"]]);
        using var map = System.Text.Json.JsonDocument.Parse(Programs.Run("qemu-img", "map", "--output=json", "-f", "raw", uri));
        Assert.Equal(expected, string.Concat(map.RootElement.EnumerateArray().Select(static e =>
            $"[{e.GetProperty("length").GetInt32()} {e.GetProperty("zero").GetBoolean()} {e.GetProperty("data").GetBoolean()}]")));
    }

    [Fact]
    public void Qemu_io_writes_zeroes_and_discards()
    {
        using var w = new Workspace();
        string uri = w.Serve("-f", "raw", "--discard=unmap", w.MakeDisk("d", Size));
        string[] commands =
        [
            "write -P 5 1M 3M", "read -P 5 1M 3M", "write -z 2M 64k", "read -P 0 2M 64k", "discard 3M 512k", "read -P 0 3M 512k", "write -zu 100 5000",
            "aio_write -P 9 5M 1M", "aio_write -P 8 6M 512", "aio_read -P 5 1M 512", "aio_flush", "read -P 9 5M 1M", "write -f 0 4k", "flush",
        ];
        string output = Programs.Run("qemu-io", ["-f", "raw", .. commands.SelectMany(c => new[] { "-c", c }), uri]);
        Assert.DoesNotContain("failed", output);
    }

    [Fact]
    public void Nbdsh_exercises_the_protocol()
    {
        using var w = new Workspace();
        w.MakeDisk("d", Size);
        w.Serve("-f", "raw", w["d"]);
        string script = w["t.py"];
        File.WriteAllText(script, $$"""
            import nbd, errno
            def fails(number, f, *a):
                try:
                    f(*a)
                except nbd.Error as e:
                    assert e.errno == errno.errorcode[number], (e.errno, number)
                else:
                    raise AssertionError("no error")
            data = open("{{w["d"]}}", "rb").read()
            h = nbd.NBD()
            h.set_strict_mode(0)
            h.add_meta_context("base:allocation")
            h.connect_unix("{{w["s"]}}")
            assert h.pread(1000, 777) == data[777:1777]
            assert h.pread(3 << 20, 5) == data[5:5 + (3 << 20)]
            assert h.pread(3 << 20, 5, nbd.CMD_FLAG_DF) == data[5:5 + (3 << 20)]
            fails(22, h.pread, 512, len(data))
            fails(28, h.pwrite, b"x" * 512, len(data) - 1)
            fails(28, h.zero, 512, len(data))
            fails(22, h.trim, 512, len(data))
            fails(22, h.pread, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
            h.pwrite(b"a" * 5000, 123, nbd.CMD_FLAG_FUA)
            assert h.pread(5000, 123) == b"a" * 5000
            h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE)
            h.zero(4096, 65536, nbd.CMD_FLAG_FAST_ZERO)
            h.trim(4096, 12288)
            h.cache(65536, 0)
            h.flush()
            seen = []
            h.block_status(len(data), 0, lambda m, o, e, err: seen.extend(e))
            assert sum(seen[0::2]) >= len(data), seen
            seen = []
            h.block_status(len(data), 0, lambda m, o, e, err: seen.extend(e), nbd.CMD_FLAG_REQ_ONE)
            assert len(seen) == 2
            cookies = [h.aio_pread(nbd.Buffer(4096), i * 4096) for i in range(200)]
            for c in cookies:
                while not h.aio_command_completed(c):
                    h.poll(-1)
            # Simple replies, and no options at all.
            s = nbd.NBD()
            s.set_request_structured_replies(False)
            s.connect_unix("{{w["s"]}}")
            assert s.pread(5 << 20, 2 << 20) == h.pread(5 << 20, 2 << 20)
            fails(22, s.pread, 512, len(data))
            o = nbd.NBD()
            o.set_opt_mode(True)
            o.connect_unix("{{w["s"]}}")
            o.set_export_name("nope")
            fails(2, o.opt_info)
            o.set_export_name("")
            o.opt_info()
            assert o.get_size() == len(data)
            o.opt_abort()
            s.shutdown()
            h.shutdown()
            print("done")
            """);
        Assert.Contains("done", Programs.Run("/usr/bin/python3", script));
    }

    [Fact]
    public void A_server_without_t_ends_with_its_last_client()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        var server = Programs.Start(Programs.Ours("kvm-nbd"), "-f", "raw", "-k", w["s"], disk);
        for (int i = 0; i < 600 && !File.Exists(w["s"]); i++)
            Thread.Sleep(50);
        Programs.Run("nbdinfo", "--list", $"nbd+unix://?socket={w["s"]}");
        Assert.False(server.HasExited);
        Programs.Run("qemu-io", "-f", "raw", "-c", "read 0 512", $"nbd+unix://?socket={w["s"]}");
        Assert.True(server.WaitForExit(20_000));
        Assert.Equal(0, server.ExitCode);
        Assert.False(File.Exists(w["s"]));
    }

    [Fact]
    public void Fork_returns_when_the_server_listens_and_its_id_is_in_the_file()
    {
        using var w = new Workspace();
        // Through a shell and files: whoever waits for the end of a pipe would wait for the server, which may have inherited it.
        Programs.Run("/bin/sh", "-c", $"{Programs.Ours("kvm-nbd")} --fork --pid-file {w["pid"]} -f raw -k {w["s"]} {w.MakeDisk("d", Size)} >{w["log"]} 2>&1");
        int pid = int.Parse(File.ReadAllText(w["pid"]), System.Globalization.CultureInfo.InvariantCulture);
        Programs.Run("qemu-io", "-f", "raw", "-c", "read 0 512", $"nbd+unix://?socket={w["s"]}");
        for (int i = 0; i < 200 && Directory.Exists($"/proc/{pid}"); i++)
            Thread.Sleep(50);
        Assert.False(Directory.Exists($"/proc/{pid}"));
        var (code, output) = Programs.TryRun(Programs.Ours("kvm-nbd"), "--fork", "-f", "raw", "-k", w["s"], w["nothing"]);
        Assert.Equal(1, code);
        Assert.Contains($"Failed to blk_new_open '{w["nothing"]}': Could not open '{w["nothing"]}': No such file or directory", output);
    }

    [Fact]
    public void Tls_with_certificates_and_with_keys_is_understood_by_the_peer()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        foreach (string who in (string[])["ca", "server", "client"])
        {
            Programs.Run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-out", w[$"{who}-key.pem"]);
            Programs.Run("openssl", "req", "-new", "-key", w[$"{who}-key.pem"], "-subj", $"/CN={who}", "-out", w["csr"]);
            File.WriteAllText(w["ext"], who == "ca" ? "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n"
                : $"subjectAltName=DNS:localhost\nextendedKeyUsage={who}Auth\nkeyUsage=digitalSignature\n");
            string[] signer = who == "ca" ? ["-signkey", w["ca-key.pem"]] : ["-CA", w["ca-cert.pem"], "-CAkey", w["ca-key.pem"], "-CAcreateserial"];
            Programs.Run("openssl", ["x509", "-req", "-in", w["csr"], "-days", "2", "-extfile", w["ext"], "-out", w[$"{who}-cert.pem"], .. signer]);
        }
        File.WriteAllText(w["keys.psk"], "qemu:00112233445566778899aabbccddeeff\n");
        foreach (string type in (string[])["x509", "psk"])
        {
            string credentials(string endpoint) => $"tls-creds-{type},id=t,endpoint={endpoint},dir={w.Folder}";
            string image = $"driver=nbd,server.type=unix,server.path={w["s"]},tls-creds=t,tls-hostname=localhost";
            using (var server = new ServerProcess(w, Programs.Ours("kvm-nbd"), "--object", credentials("server"), "--tls-creds=t"))
            {
                Programs.Run("qemu-io", "--object", credentials("client"), "--image-opts", "-c", "write -P 3 1M 3M", "-c", "read -P 3 1M 3M", image);
                var (code, output) = Programs.TryRun("qemu-io", "-f", "raw", "-c", "read 0 512", $"nbd+unix://?socket={w["s"]}");
                Assert.Equal(1, code);
                Assert.Contains("Did you forget a valid tls-creds?", output);
            }
            using (var server = new ServerProcess(w, "qemu-nbd", "--object", credentials("server"), "--tls-creds=t"))
                Programs.Run(Programs.Ours("kvm-io"), "--object", credentials("client"), "--image-opts", "-c", "read -P 3 1M 3M", "-c", "write 0 1M", image);
        }
    }

    private sealed class ServerProcess : IDisposable
    {
        private readonly System.Diagnostics.Process _process;
        private readonly Workspace _workspace;

        public ServerProcess(Workspace workspace, string program, params string[] arguments)
        {
            _workspace = workspace;
            File.Delete(workspace["s"]);
            _process = Programs.Start(program, ["-t", "-f", "raw", "-k", workspace["s"], .. arguments, workspace["d"]]);
            for (int i = 0; i < 600 && !File.Exists(workspace["s"]); i++)
                Thread.Sleep(50);
            Thread.Sleep(100);
        }

        public void Dispose()
        {
            _process.Kill();
            _process.WaitForExit();
            _process.Dispose();
            File.Delete(_workspace["s"]);
        }
    }
}
