using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace ImgKit.Guests;

/// <summary>Options of the program around the machine: where its ports lead, how it starts and ends.</summary>
public sealed class OptionTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("options").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private static Process Start(params string[] arguments)
    {
        var info = new ProcessStartInfo(Repository.Program) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string a in (string[])["-accel", Guest.Accelerator, "-display", "none", "-vga", "none", "-m", "16", "-kernel", EchoKernel.Path, "-device", "isa-debug-exit,iosize=4", .. arguments])
            info.ArgumentList.Add(a);
        return Process.Start(info)!;
    }

    private static void Talk(Stream input, Stream output)
    {
        void Expect(string text)
        {
            var got = new StringBuilder();
            while (!got.ToString().EndsWith(text, StringComparison.Ordinal))
            {
                int b = input.ReadByte();
                Assert.True(b >= 0, $"'{got}' ended before '{text}'");
                got.Append((char)b);
            }
        }

        Expect("ready\n");
        output.Write("ping"u8);
        output.Flush();
        Expect("ping");
        output.Write("q"u8);
        output.Flush();
    }

    private static void EndsWith3(Process process)
    {
        Assert.True(process.WaitForExit(60_000));
        Assert.Equal(3, process.ExitCode);
    }

    private static void WaitFor(Func<bool> condition)
    {
        for (int i = 0; !condition(); i++)
        {
            Assert.True(i < 600, "it did not come");
            Thread.Sleep(100);
        }
    }

    [Theory]
    [InlineData(false, true)]
    [InlineData(false, false)]
    [InlineData(true, true)]
    [InlineData(true, false)]
    public void A_serial_port_is_a_socket_that_listens_or_connects(bool tcp, bool server)
    {
        var end = tcp ? (EndPoint)new IPEndPoint(IPAddress.Loopback, 0) : new UnixDomainSocketEndPoint(At("socket"));
        using var listener = new Socket(end.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(end);
        end = listener.LocalEndPoint!;
        string where = tcp ? $"tcp:127.0.0.1:{((IPEndPoint)end).Port}" : $"unix:{At("socket")}";
        if (!server)
        {
            listener.Listen();
            using var process = Start("-serial", where);
            using var accepted = new NetworkStream(listener.Accept());
            Talk(accepted, accepted);
            EndsWith3(process);
            return;
        }
        listener.Dispose();
        if (!tcp)
            File.Delete(At("socket"));
        // It waits for somebody before the guest starts.
        using var waiting = Start("-serial", where + ",server");
        using var socket = new Socket(end.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        WaitFor(() =>
        {
            try
            {
                socket.Connect(end);
                return true;
            }
            catch (SocketException)
            {
                return false;
            }
        });
        using var stream = new NetworkStream(socket);
        Talk(stream, stream);
        EndsWith3(waiting);
    }

    [Theory]
    [InlineData("stdio")]
    [InlineData("mon:stdio")]
    public void A_serial_port_is_the_terminal(string device)
    {
        using var process = Start("-serial", device, "-monitor", "none");
        Talk(process.StandardOutput.BaseStream, process.StandardInput.BaseStream);
        EndsWith3(process);
    }

    [Fact]
    public void Monitor_and_serial_port_share_the_terminal()
    {
        using var process = Start("-chardev", "stdio,id=c,mux=on", "-serial", "chardev:c", "-mon", "chardev=c");
        process.StandardInput.Write("\u0001cinfo name\r");
        process.StandardInput.Write("quit\r");
        process.StandardInput.Flush();
        string output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(60_000));
        Assert.Equal(0, process.ExitCode);
        Assert.Contains("(qemu) ", output);
    }

    [Fact]
    public void A_serial_port_is_a_pseudo_terminal()
    {
        using var process = Start("-serial", "pty", "-S", "-monitor", "stdio");
        string line;
        do
            line = process.StandardOutput.ReadLine() ?? throw new IOException("no pseudo-terminal was named");
        while (!line.Contains("/dev/pts/", StringComparison.Ordinal));
        Assert.EndsWith("(label serial0)", line);
        string name = line[line.IndexOf("/dev/pts/", StringComparison.Ordinal)..].Split(' ')[0];
        using var terminal = new FileStream(name, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, 1);
        process.StandardInput.Write("cont\r");
        process.StandardInput.Flush();
        Talk(terminal, terminal);
        EndsWith3(process);
    }

    [Theory]
    [InlineData("file:", "")]
    [InlineData("chardev:f", "-chardev file,id=f,path=")]
    public void A_serial_port_is_a_file(string device, string chardev)
    {
        string[] extra = chardev.Length > 0 ? [chardev.Split(' ')[0], chardev.Split(' ')[1] + At("out")] : [];
        using var process = Start([.. extra, "-serial", chardev.Length > 0 ? device : device + At("out"), "-S", "-monitor", "stdio"]);
        process.StandardInput.Write("cont\r");
        process.StandardInput.Flush();
        WaitFor(() => File.Exists(At("out")) && File.ReadAllText(At("out")) == "ready\n");
        process.StandardInput.Write("quit\r");
        process.StandardInput.Flush();
        process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }

    [Fact]
    public void The_clock_starts_where_it_is_told()
    {
        using var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-rtc", "base=2003-11-25T10:20:30");
        guest.WaitForSerial("ready", 60);
        Assert.Contains("031125.", guest.Command("t", ".", 20));
    }

    [Fact]
    public void With_no_reboot_a_reset_ends_the_process_and_with_no_shutdown_it_stops()
    {
        using (var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path))
        {
            guest.WaitForSerial("ready", 60);
            guest.Type("r");
            guest.WaitForSerial("ready\nready", 60);
        }
        using (var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-no-reboot"))
        {
            guest.WaitForSerial("ready", 60);
            guest.Type("r");
            Assert.Equal(0, guest.WaitForExit(60));
        }
        using (var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-no-reboot", "-no-shutdown"))
        {
            guest.WaitForSerial("ready", 60);
            guest.Qmp("query-status");
            guest.Type("r");
            guest.WaitForEvent("SHUTDOWN", 60);
            WaitFor(() => guest.Qmp("query-status").GetProperty("status").GetString() == "shutdown");
            guest.Quit();
        }
    }

    [Fact]
    public void A_panic_powers_off_or_stops()
    {
        using (var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-device", "pvpanic"))
        {
            guest.WaitForSerial("ready", 60);
            guest.Type("!");
            Assert.Equal(0, guest.WaitForExit(60));
        }
        using (var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-device", "pvpanic", "-no-shutdown"))
        {
            guest.WaitForSerial("ready", 60);
            guest.Qmp("query-status");
            guest.Type("!");
            Assert.Equal("pause", guest.WaitForEvent("GUEST_PANICKED", 60).GetProperty("data").GetProperty("action").GetString());
            WaitFor(() => guest.Qmp("query-status").GetProperty("status").GetString() == "guest-panicked");
            guest.Quit();
        }
    }

    [Fact]
    public void The_debug_ports_lead_to_files()
    {
        using var guest = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-debugcon", $"file:{At("log")}", "-chardev", $"file,id=d,path={At("e9")}",
            "-device", "isa-debugcon,chardev=d");
        guest.WaitForSerial("ready", 60);
        guest.Type("d");
        WaitFor(() => File.ReadAllText(At("e9")) == "e");
        WaitFor(() => File.ReadAllText(At("log")).EndsWith('f'));
        guest.Quit();
    }

    [Fact]
    public void It_goes_to_the_background_with_a_pid_file_and_a_log()
    {
        var (status, _, error) = Tool.Try(Repository.Program, "-accel", Guest.Accelerator, "-display", "none", "-m", "16", "-S", "-kernel", EchoKernel.Path, "-daemonize", "-pidfile", At("pid"),
            "-qmp", $"unix:{At("qmp")},server,nowait", "-serial", "null", "-d", "events", "-D", At("log"), "-name", "box,process=box-1,debug-threads=on");
        Assert.True(status == 0, error);
        using var process = Process.GetProcessById(int.Parse(File.ReadAllText(At("pid")), System.Globalization.CultureInfo.InvariantCulture));
        Assert.False(process.HasExited);
        Assert.Equal("box-1\n", File.ReadAllText($"/proc/{process.Id}/comm"));
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(At("qmp")));
        using var reader = new StreamReader(new NetworkStream(socket));
        Assert.Contains("\"QMP\"", reader.ReadLine());
        socket.Send("{\"execute\":\"qmp_capabilities\"}{\"execute\":\"cont\"}{\"execute\":\"quit\"}"u8);
        reader.ReadToEnd();
        WaitFor(() => !File.Exists(At("pid")));
        Assert.Contains(" RESUME", File.ReadAllText(At("log")));
        Assert.Contains(" SHUTDOWN guest=False reason=host-qmp-quit", File.ReadAllText(At("log")));
    }

    [Theory]
    [InlineData("lsi53c895a", "-device", "help")]
    [InlineData("scsi-id=<uint32>", "-device", "scsi-hd,help")]
    [InlineData("isapc", "-M", "help")]
    [InlineData("pentium2", "-cpu", "help")]
    [InlineData("events", "-d", "help")]
    public void Help_is_printed(string text, params string[] arguments)
    {
        var (status, output, _) = Tool.Try(Repository.Program, arguments);
        Assert.Equal(0, status);
        Assert.Contains(text, output);
    }

    [Fact]
    public void A_start_that_fails_touches_nothing()
    {
        File.WriteAllText(At("log"), "of yesterday");
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", At("disk"), "1M");
        byte[] image = File.ReadAllBytes(At("disk"));
        using var first = new Guest("-m", "16", "-S", "-kernel", EchoKernel.Path, "-drive", $"file={At("disk")}", "-monitor", $"unix:{At("monitor")},server,nowait");
        first.Qmp("query-status");
        // The same machine again; and one that is too large, with other disks.
        foreach (string[] more in (string[][])[["-drive", $"file={At("disk")}", "-monitor", $"unix:{At("monitor")},server,nowait"], ["-m", "60T"], ["-cdrom", At("nodisc")], ["-bios", At("nobios")]])
        {
            var (status, output, error) = Tool.Try(Repository.Program, ["-accel", "soft", "-display", "none", "-serial", $"file:{At("log")}", "-pidfile", At("pid"), "-D", At("events"), .. more]);
            Assert.Equal(1, status);
            Assert.Empty(output);
            Assert.NotEmpty(error);
            Assert.Equal("of yesterday", File.ReadAllText(At("log")));
            Assert.False(File.Exists(At("pid")));
            Assert.False(File.Exists(At("events")));
        }
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(At("monitor")));
        first.Quit();
        Assert.Equal(image, File.ReadAllBytes(At("disk")));
    }

    [Theory]
    [InlineData("bad scsi device id: 7", "-device", "lsi53c895a", "-drive", "file=/dev/null,if=none,id=d,format=raw", "-device", "scsi-hd,drive=d,scsi-id=7")]
    [InlineData("No 'SCSI' bus found for device 'scsi-hd'", "-drive", "file=/dev/null,if=none,id=d,format=raw", "-device", "scsi-hd,drive=d")]
    [InlineData("Property 'isa-fdc.speed' not found", "-global", "isa-fdc.speed=2")]
    [InlineData("could not load kernel '/nowhere'", "-kernel", "/nowhere")]
    [InlineData("unsupported machine type", "-M", "abacus")]
    [InlineData("could not load kernel '/nowhere/k': No such file or directory", "-kernel", "/nowhere/k")]
    [InlineData("-append only allowed with -kernel option", "-append", "x")]
    [InlineData("there is only 'std' and 'none'", "-vga", "voodoo")]
    [InlineData("-name a,b=c: Invalid parameter 'b'", "-name", "a,b=c")]
    [InlineData("Invalid CPU topology", "-smp", "2,sockets=3")]
    [InlineData("cannot set up guest memory 'pc.ram': Cannot allocate memory", "-m", "60T")]
    [InlineData("could not load PC BIOS 'nofile'", "-bios", "nofile")]
    [InlineData("Failed to bind socket to /nowhere/x: No such file or directory", "-monitor", "unix:/nowhere/x,server,nowait")]
    [InlineData("cannot create PID file: Could not create '/nowhere/x': No such file or directory", "-pidfile", "/nowhere/x")]
    [InlineData("Error opening logfile /nowhere/x: No such file or directory", "-D", "/nowhere/x")]
    [InlineData("-serial tcp::1,server,colour=red: Invalid parameter 'colour'", "-serial", "tcp::1,server,colour=red")]
    [InlineData("-serial unix:/nowhere/x: Failed to connect to '/nowhere/x': No such file or directory", "-serial", "unix:/nowhere/x")]
    [InlineData("-serial chardev:c: chardev \"c\" not found", "-serial", "chardev:c")]
    [InlineData("-parallel chardev:c: Device 'c' is in use", "-chardev", "null,id=c", "-serial", "chardev:c", "-parallel", "chardev:c")]
    [InlineData("-chardev file,id=f,path=/nowhere/x: Could not open '/nowhere/x': No such file or directory", "-chardev", "file,id=f,path=/nowhere/x")]
    [InlineData("-monitor pigeon: 'pigeon' is not a valid char driver", "-monitor", "pigeon")]
    [InlineData("-mon chardev=c,mode=x: Parameter 'mode' does not accept value 'x'", "-chardev", "null,id=c", "-mon", "chardev=c,mode=x")]
    [InlineData("'pretty' is not compatible with HMP monitors", "-chardev", "null,id=c", "-mon", "chardev=c,pretty=on")]
    [InlineData("Parameter 'acpi' expects 'on' or 'off'", "-M", "pc,acpi=perhaps")]
    [InlineData("Parameter 'menu' expects 'on' or 'off'", "-boot", "menu=perhaps")]
    [InlineData("Invalid boot device 'z'", "-boot", "order=az")]
    [InlineData("Boot device 'a' was given twice", "-boot", "aca")]
    [InlineData("invalid option value 'sundial'", "-rtc", "clock=sundial")]
    [InlineData("Invalid SMP CPUs 300", "-smp", "300")]
    [InlineData("-fw_cfg opt/x: name, plus exactly one of file and string, are needed", "-fw_cfg", "opt/x")]
    [InlineData("invalid datetime format", "-rtc", "base=yesterday")]
    [InlineData("invalid datetime format", "-rtc", "base=2020-02-30")]
    [InlineData("unknown log item 'weather'", "-d", "weather")]
    [InlineData("-serial: requires an argument", "-serial")]
    public void A_wrong_option_is_one_line_and_status_1(string text, params string[] arguments)
    {
        var (status, output, error) = Tool.Try(Repository.Program, ["-accel", Guest.Accelerator, "-display", "none", .. arguments]);
        Assert.Equal(1, status);
        Assert.Empty(output);
        Assert.Contains(text, error);
        Assert.DoesNotContain("   at ", error);
    }
}
