namespace ImgKit.Conformance;

/// <summary>Our client, against servers that others wrote.</summary>
public sealed class NbdClientTests
{
    private const int Size = 8 << 20;

    public static TheoryData<string> Servers => ["qemu-nbd", "nbdkit", "nbdkit --filter=blocksize-policy", "nbdkit no structured replies"];

    private static string Serve(Workspace w, string server, string disk) => server switch
    {
        "qemu-nbd" => w.Start("qemu-nbd", "-t", "-e", "0", "-f", "raw", "-k", w["s"], disk),
        "nbdkit" => w.Start("nbdkit", "-f", "-U", w["s"], "file", disk),
        "nbdkit no structured replies" => w.Start("nbdkit", "-f", "--no-sr", "-U", w["s"], "file", disk),
        _ => w.Start("nbdkit", "-f", "-U", w["s"], "--filter=blocksize-policy", "file", disk, "blocksize-minimum=4096", "blocksize-preferred=64k",
            "blocksize-maximum=1M", "blocksize-error-policy=error"),
    };

    [Theory]
    [MemberData(nameof(Servers))]
    public void What_is_written_is_read_again(string server)
    {
        using var w = new Workspace();
        string uri = Serve(w, server, w.MakeDisk("d", Size));
        string[] commands =
        [
            "write -P 5 1M 3M", "read -P 5 1M 3M", "write -P 6 100 5000", "read -P 6 100 5000", "write -z 2M 64k", "read -P 0 2M 64k", "discard 3M 512k",
            "aio_write -P 9 5M 1M", "aio_write -P 8 6M 512", "aio_read -P 5 1M 512", "aio_read -P 5 1500k 100k", "aio_flush", "read -P 9 5M 1M", "write -f 0 4k",
            "flush", "readv -P 9 5M 512 1k 100k", "writev -P 1 7M 512 1k 512", "read -P 1 7M 2k", "map", "length",
        ];
        string output = Programs.Run(Programs.Ours("kvm-io"), ["-f", "raw", .. commands.SelectMany(c => new[] { "-c", c }), uri]);
        Assert.DoesNotContain("failed", output);
        var (code, error) = Programs.TryRun(Programs.Ours("kvm-io"), "-f", "raw", "-c", "read 8M 512", uri);
        Assert.Equal(1, code);
        Assert.Contains("read failed: Input/output error", error);
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public void Convert_copies_out(string server)
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        string uri = Serve(w, server, disk);
        Programs.Run(Programs.Ours("kvm-img"), "convert", "-f", "raw", "-O", "qcow2", uri, w["o"]);
        Programs.Run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, w["o"]);
    }

    [Fact]
    public void A_server_of_the_old_style_is_read()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        string uri = w.Start("nbdkit", "-f", "-o", "-r", "-U", w["s"], "file", disk);
        Programs.Run(Programs.Ours("kvm-img"), "convert", "-f", "raw", "-O", "raw", uri, w["o"]);
        Programs.Run("cmp", disk, w["o"]);
    }

    [Fact]
    public void Convert_copies_in()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        using (var f = File.Create(w["t"]))
            f.SetLength(Size);
        string uri = Serve(w, "nbdkit", w["t"]);
        Programs.Run(Programs.Ours("kvm-img"), "convert", "-n", "-f", "raw", "-O", "raw", disk, uri);
        Programs.Run("cmp", disk, w["t"]);
    }

    [Fact]
    public void All_spellings_of_an_export_open_it()
    {
        using var w = new Workspace();
        w.MakeDisk("d", Size);
        w.Start("qemu-nbd", "-t", "-e", "0", "-f", "raw", "-x", "a b", "-k", w["s"], w["d"]);
        string io = Programs.Ours("kvm-io");
        Assert.Contains("8 MiB", Programs.Run(io, "-f", "raw", "-c", "length", $"nbd+unix:///a%20b?socket={w["s"]}"));
        Assert.Contains("8 MiB", Programs.Run(io, "-f", "raw", "-c", "length", $"nbd:unix:{w["s"]}:exportname=a b"));
        Assert.Contains("8 MiB", Programs.Run(io, "-c", "length",
            "json:{'driver':'raw','file':{'driver':'nbd','export':'a b','server':{'type':'unix','path':'" + w["s"] + "'}}}"));
        Assert.Contains("8 MiB", Programs.Run(io, "--image-opts", "-c", "length", $"driver=nbd,export=a b,server.type=unix,server.path={w["s"]}"));
        Assert.Contains("8 MiB", Programs.Run(io, "--image-opts", "-c", "length", $"driver=nbd,export=a b,path={w["s"]}"));
        var (code, output) = Programs.TryRun(io, "-f", "raw", $"nbd+unix:///b?socket={w["s"]}");
        Assert.Equal(1, code);
        Assert.Contains("Requested export not available", output);
    }

    [Theory]
    [InlineData("error-pread-rate=100%", "error=EIO", "read 0 512", "read failed: Input/output error")]
    [InlineData("error-pwrite-rate=100%", "error=ENOSPC", "write 0 512", "write failed: No space left on device")]
    [InlineData("error-zero-rate=100%", "error=EPERM", "write -z 0 64k", "write failed: Operation not permitted")]
    [InlineData("error-extents-rate=100%", "error=EIO", "map", "Failed to get allocation status: Input/output error")]
    public void An_error_of_the_server_is_the_requests_error(string rate, string error, string command, string message)
    {
        using var w = new Workspace();
        string uri = w.Start("nbdkit", "-f", "-U", w["s"], "--filter=error", "memory", "8M", error, rate);
        var (code, output) = Programs.TryRun(Programs.Ours("kvm-io"), "-f", "raw", "-c", command, "-c", "length", uri);
        Assert.Equal(1, code);
        Assert.Contains(message, output);
        Assert.Contains("8 MiB", output);
    }

    [Fact]
    public void Requests_on_a_slow_server_overlap()
    {
        using var w = new Workspace();
        string uri = w.Start("nbdkit", "-f", "-U", w["s"], "--filter=delay", "memory", "8M", "rdelay=500ms");
        var time = System.Diagnostics.Stopwatch.StartNew();
        string[] commands = [.. Enumerable.Range(0, 40).SelectMany(static i => new[] { "-c", $"aio_read -P 0 {i}k 512" })];
        string output = Programs.Run(Programs.Ours("kvm-io"), ["-f", "raw", .. commands, "-c", "aio_flush", uri]);
        Assert.Equal(40, output.Split("read 512/512").Length - 1);
        // One after the other would take 20 s.
        Assert.InRange(time.Elapsed.TotalSeconds, 0.5, 15);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_server_that_comes_back_in_time_is_used_again(bool comesBack)
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        w.Start("nbdkit", "-f", "-U", w["s"], "file", disk);
        using var io = new System.Diagnostics.Process
        {
            StartInfo = new(Programs.Ours("kvm-io"))
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                ArgumentList = { "--image-opts", $"driver=raw,file.driver=nbd,file.path={w["s"]},file.reconnect-delay={(comesBack ? 60 : 1)}" },
            },
        };
        io.Start();
        io.StandardInput.WriteLine("read 0 512");
        string? line;
        while ((line = io.StandardOutput.ReadLine()) is not null && !line.Contains("read 512/512", StringComparison.Ordinal))
            Assert.DoesNotContain("failed", line);
        w.StopServers();
        io.StandardInput.WriteLine("read 512 512");
        if (comesBack)
        {
            Thread.Sleep(500);
            w.Start("nbdkit", "-f", "-U", w["s"], "file", disk);
        }
        io.StandardInput.WriteLine("quit");
        string rest = io.StandardOutput.ReadToEnd();
        Assert.Contains(comesBack ? "read 512/512 bytes at offset 512" : "read failed: Input/output error", rest);
        io.WaitForExit();
    }

    [Fact]
    public void Http_reads_ranges()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        var server = Programs.Start("/usr/bin/python3", "-c", """
            import http.server, os, re, sys
            class H(http.server.BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"
                def log_message(self, *a): pass
                def do_GET(self):
                    if self.path == "/moved":
                        self.send_response(302); self.send_header("Location", "/d"); self.send_header("Content-Length", "0"); self.end_headers(); return
                    if self.path != "/d":
                        self.send_response(404); self.send_header("Content-Length", "0"); self.end_headers(); return
                    data = open(sys.argv[1], "rb").read()
                    a, b = map(int, re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
                    part = data[a:b + 1]
                    self.send_response(206)
                    self.send_header("Content-Range", "bytes %d-%d/%d" % (a, a + len(part) - 1, len(data)))
                    self.send_header("Content-Length", str(len(part)))
                    self.end_headers()
                    self.wfile.write(part)
            s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
            print(s.server_port, flush=True)
            s.serve_forever()
            """, disk);
        try
        {
            string url = $"http://127.0.0.1:{server.StandardOutput.ReadLine()}";
            Programs.Run(Programs.Ours("kvm-img"), "convert", "-f", "raw", "-O", "raw", url + "/moved", w["o"]);
            Programs.Run("cmp", disk, w["o"]);
            Assert.Contains("8 MiB", Programs.Run(Programs.Ours("kvm-io"), "-r", "-f", "raw", "-c", "read 4M 100", "-c", "read 5000 1M", "-c", "length", url + "/d"));
            var (code, output) = Programs.TryRun(Programs.Ours("kvm-io"), "-r", "-f", "raw", "-c", "length", url + "/x");
            Assert.Equal(1, code);
            Assert.Contains("The requested URL returned error: 404", output);
        }
        finally
        {
            server.Kill();
            server.Dispose();
        }
    }
}
