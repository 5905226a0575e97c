using System.Diagnostics;

namespace ImgKit.Conformance;

/// <summary>Reading by http and https, with the options of the peer's driver.</summary>
public sealed class HttpTests
{
    private const int Size = 8 << 20;

    /// <summary>A server that knows ranges (or with <c>plain</c> not), checks a cookie and a password where the path asks for them, and can
    /// break off or stall. Python's own knows no ranges.</summary>
    private const string Script = """
        import base64, http.server, os, re, ssl, sys, time
        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            count, broken = 0, set()
            def log_message(self, *a): pass
            def empty(self, code, **headers):
                self.send_response(code)
                for k, v in headers.items(): self.send_header(k.replace("_", "-"), v)
                self.send_header("Content-Length", "0")
                self.end_headers()
            def do_GET(self):
                data = open(sys.argv[1], "rb").read()
                H.count += 1
                if self.path == "/count": return self.empty(206, Content_Range="bytes 0-0/%d" % (512 * H.count))
                if self.path == "/cookie" and self.headers["Cookie"] != "a=b": return self.empty(403)
                if self.path == "/password" and self.headers["Authorization"] != "Basic " + base64.b64encode(b"me:secret").decode(): return self.empty(401)
                if self.path == "/stall": time.sleep(30)
                if self.path == "/missing": return self.empty(404)
                if self.path == "/plain":
                    self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
                    return self.wfile.write(data)
                a, b = map(int, re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
                part = data[a:b + 1]
                self.send_response(206)
                self.send_header("Content-Range", "bytes %d-%d/%d" % (a, a + len(part) - 1, len(data)))
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                if self.path == "/flaky" and a not in H.broken:        # each range once
                    H.broken.add(a)
                    self.wfile.write(part[:len(part) // 2]); self.wfile.flush(); self.close_connection = True
                    return
                self.wfile.write(part)
        s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
        if len(sys.argv) > 2:
            c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            c.load_cert_chain(sys.argv[2], sys.argv[3])
            s.socket = c.wrap_socket(s.socket, server_side=True)
        print(s.server_port, flush=True)
        s.serve_forever()
        """;

    private sealed class Server : IDisposable
    {
        private readonly Process _process;

        public Server(params string[] arguments)
        {
            _process = Programs.Start("/usr/bin/python3", ["-c", Script, .. arguments]);
            Address = $"127.0.0.1:{_process.StandardOutput.ReadLine()}";
        }

        public string Address { get; }

        public void Dispose()
        {
            _process.Kill();
            _process.WaitForExit();
            _process.Dispose();
        }
    }

    private static (int Code, string Output) Read(string options, params string[] more) =>
        Programs.TryRun(Programs.Ours("kvm-io"), ["-r", .. more, "--image-opts", "-c", "read 4M 64k", "-c", "length", options]);

    [Fact]
    public void Options_of_the_peers_driver_are_taken()
    {
        using var w = new Workspace();
        using var server = new Server(w.MakeDisk("d", Size));
        string url(string path) => $"driver=raw,file.driver=http,file.url=http://{server.Address}/{path}";
        foreach (string good in (string[])["d", "d,file.readahead=64k", "d,file.timeout=20", "d,file.sslverify=off", "cookie,file.cookie=a=b"])
            Assert.True(Read(url(good)) is (0, var said) && said.Contains("8 MiB", StringComparison.Ordinal), good + Read(url(good)).Output);
        var (code, output) = Read(url("password,file.username=me,file.password-secret=s"), "--object", "secret,id=s,data=secret");
        Assert.True(code == 0, output);
        foreach (var (bad, message) in ((string, string)[])[("cookie", "403"), ("password", "401"), ("password,file.username=me", "401"), ("missing", "404"),
            ("plain", "Server does not support 'range' (byte ranges)."), ("d,file.readahead=1000", "not a multiple of 512"), ("d,file.timeout=0", "timeout"),
            ("d,file.password-secret=t", "No secret with id 't'"), ("d,file.foo=1", "foo"), ("d,file.cookie-secret=t", "cookie-secret"),
            ("d,file.proxy-username=a", "proxy-username")])
        {
            (code, output) = Read(url(bad));
            Assert.True(code == 1 && output.Contains(message, StringComparison.Ordinal) && output.Count(static c => c == '\n') == 1, $"{bad}: {output}");
        }
    }

    [Fact]
    public void A_server_that_breaks_off_is_asked_again_and_one_that_stalls_is_an_error()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        using var server = new Server(disk);
        Programs.Run(Programs.Ours("kvm-img"), "convert", "-f", "raw", "-O", "raw", $"http://{server.Address}/flaky", w["o"]);
        Programs.Run("cmp", disk, w["o"]);
        var time = Stopwatch.StartNew();
        var (code, output) = Read($"driver=raw,file.driver=http,file.url=http://{server.Address}/stall,file.timeout=1");
        Assert.Equal(1, code);
        Assert.StartsWith("kvm-io: can't open", output);
        Assert.InRange(time.Elapsed.TotalSeconds, 0.9, 29);
        (code, output) = Programs.TryRun(Programs.Ours("kvm-io"), "-f", "raw", $"http://{server.Address}/d");
        Assert.Equal(1, code);
        Assert.Contains("curl block device does not support writes", output);
    }

    [Fact]
    public void Https_trusts_a_certificate_or_says_in_a_line_why_not()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        Programs.Run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=other",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", w["key"], "-out", w["cert"]);
        using var server = new Server(disk, w["cert"], w["key"]);
        string url = $"https://{server.Address}/d";
        var (code, output) = Programs.TryRun(Programs.Ours("kvm-img"), "info", "-f", "raw", url);
        Assert.Equal((1, $"kvm-img: Could not open '{url}': The certificate hasn't got a known issuer\n"), (code, output));
        Assert.True(Read($"driver=raw,file.driver=https,file.url={url},file.sslverify=off").Code == 0);
        Programs.Run("/usr/bin/env", $"SSL_CERT_FILE={w["cert"]}", Programs.Ours("kvm-img"), "convert", "-f", "raw", "-O", "raw", url, w["o"]);
        Programs.Run("cmp", disk, w["o"]);
        string port = server.Address.Split(':')[1];
        (code, output) = Programs.TryRun("/usr/bin/env", $"SSL_CERT_FILE={w["cert"]}", Programs.Ours("kvm-img"), "info", "-f", "raw", $"https://localhost:{port}/d");
        Assert.Equal((1, $"kvm-img: Could not open 'https://localhost:{port}/d': Certificate does not match the hostname localhost\n"), (code, output));
    }
}
