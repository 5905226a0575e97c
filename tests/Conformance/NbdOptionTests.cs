using System.Net.Sockets;
using System.Text;

namespace ImgKit.Conformance;

/// <summary>What kvm-nbd's options do, beside qemu-nbd where both can be asked.</summary>
public sealed class NbdOptionTests
{
    private const int Size = 8 << 20;

    /// <summary>A qcow2 image over another one, with a bitmap that has seen two writes, and a snapshot.</summary>
    private static string MakeChain(Workspace w)
    {
        Programs.Run("qemu-img", "convert", "-O", "qcow2", w.MakeDisk("d", Size), w["base"]);
        Programs.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", w["base"], "-F", "qcow2", w["i"]);
        Programs.Run("qemu-io", "-f", "qcow2", "-c", "write -P 1 64k 64k", "-c", "write -z 7M 128k", w["i"]);
        Programs.Run("qemu-img", "snapshot", "-c", "before", w["i"]);
        Programs.Run("qemu-img", "bitmap", "--add", w["i"], "dirty");
        Programs.Run("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 100k", "-c", "write -P 3 6M 1M", w["i"]);
        return w["i"];
    }

    /// <summary>What a client says of an image that each of the servers exports with the same options.</summary>
    private static (string Theirs, string Ours) AskBoth(Workspace w, string[] options, string client, params string[] arguments)
    {
        string[] all = ["-t", "-e", "0", "-k", w["s"], .. options];
        string[] said = new string[2];
        for (int i = 0; i < 2; i++)
        {
            w.Start(i == 0 ? "qemu-nbd" : Programs.Ours("kvm-nbd"), all);
            said[i] = Programs.Run(client, arguments);
            w.StopServers();
        }
        return (said[0], said[1]);
    }

    [Theory]
    [InlineData("-A", "nbdinfo", "--map=qemu:allocation-depth")]
    [InlineData("-Bdirty", "nbdinfo", "--map=qemu:dirty-bitmap:dirty")]
    [InlineData("-r", "nbdinfo", "--map")]
    [InlineData("-r", "nbdinfo", "--map --totals")]
    [InlineData("-r", "nbdinfo", "--size")]
    [InlineData("-xname", "nbdinfo", "--list")]
    [InlineData("-Ddescription", "nbdinfo", "")]
    [InlineData("-lbefore", "nbdinfo", "--map")]
    [InlineData("-lsnapshot.name=before", "nbdinfo", "--map")]
    [InlineData("-lsnapshot.id=1", "nbdinfo", "--map")]
    public void A_client_sees_of_an_image_what_it_sees_through_the_peer(string option, string client, string arguments)
    {
        using var w = new Workspace();
        string image = MakeChain(w);
        string uri = $"nbd+unix:///{(option.StartsWith("-x", StringComparison.Ordinal) ? "name" : "")}?socket={w["s"]}";
        var (theirs, ours) = AskBoth(w, ["-f", "qcow2", option, image], client, [.. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries), uri]);
        Assert.Equal(theirs, ours);
    }

    [Theory]
    [InlineData("qemu:dirty-bitmap:dirty", "-Bdirty")]
    [InlineData("qemu:allocation-depth", "-A")]
    public void The_peers_client_maps_a_context_of_ours_and_ours_one_of_the_peers(string context, string option)
    {
        using var w = new Workspace();
        string image = MakeChain(w);
        string[] arguments =
        [
            "map", "--output=json", "--image-opts", $"driver=raw,file.driver=nbd,file.x-dirty-bitmap={context},file.server.type=unix,file.server.path={w["s"]}",
        ];
        var (theirs, ours) = AskBoth(w, ["-f", "qcow2", option, image], "qemu-img", arguments);
        Assert.Equal(theirs, ours);
        w.Start("qemu-nbd", "-t", "-e", "0", "-f", "qcow2", option, "-k", w["s"], image);
        Assert.Equal(theirs, Programs.Run(Programs.Ours("kvm-img"), arguments));
    }

    [Theory]
    [InlineData("")]
    [InlineData("-o 1048576")]
    [InlineData("-l before")]
    [InlineData("-s")]
    public void Content_is_what_the_peer_serves(string option)
    {
        using var w = new Workspace();
        string image = MakeChain(w);
        foreach (string program in (string[])["qemu-nbd", Programs.Ours("kvm-nbd")])
        {
            string uri = w.Start(program, ["-t", "-f", "qcow2", "-k", w["s"], .. option.Split(' ', StringSplitOptions.RemoveEmptyEntries), image]);
            Programs.Run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, w[program == "qemu-nbd" ? "theirs" : "ours"]);
            w.StopServers();
        }
        Programs.Run("cmp", w["theirs"], w["ours"]);
    }

    [Fact]
    public void With_s_the_image_keeps_its_content()
    {
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        File.Copy(disk, w["copy"]);
        string uri = w.Serve("-f", "raw", "-s", disk);
        Programs.Run("qemu-io", "-f", "raw", "-c", "write -P 9 0 1M", "-c", "flush", "-c", "read -P 9 0 1M", uri);
        Assert.Contains("read 1048576", Programs.Run("qemu-io", "-f", "raw", "-c", "read -P 9 0 1M", uri));
        w.StopServers();
        Programs.Run("cmp", disk, w["copy"]);
    }

    [Theory]
    [InlineData("--discard=unmap --detect-zeroes=unmap", 0)]
    [InlineData("--discard=unmap", 2)]
    [InlineData("--detect-zeroes=on", 2)]
    public void Zeroes_that_are_written_take_space_or_not(string options, int megabytes)
    {
        using var w = new Workspace();
        File.WriteAllBytes(w["d"], [.. Enumerable.Repeat((byte)1, 2 << 20)]);
        string uri = w.Serve(["-f", "raw", .. options.Split(' '), w["d"]]);
        Programs.Run("qemu-io", "-f", "raw", "-c", "write -P 0 0 2M", "-c", "flush", uri);
        long used = long.Parse(Programs.Run("du", "-B1", w["d"]).Split('\t')[0], System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(megabytes, used >> 20);
    }

    [Fact]
    public void Systemd_hands_sockets_over()
    {
        using var w = new Workspace();
        w.MakeDisk("d", Size);
        // As systemd does it: the socket is descriptor 3, and the variables name it and the process that it is for.
        string uri = w.Start("/usr/bin/python3", "-c", """
            import os, socket, sys
            s = socket.socket(socket.AF_UNIX)
            s.bind(sys.argv[1] + ".new")
            s.listen(5)
            os.rename(sys.argv[1] + ".new", sys.argv[1])
            os.dup2(s.fileno(), 3)
            os.set_inheritable(3, True)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
            os.execv(sys.argv[2], sys.argv[2:])
            """, w["s"], Programs.Ours("kvm-nbd"), "-f", "raw", w["d"]);
        Assert.Contains("8 MiB", Programs.Run("qemu-io", "-f", "raw", "-c", "length", "-c", "read 0 1M", uri));
        var (code, output) = Programs.TryRun("/bin/bash", "-c", $"LISTEN_FDS=1 LISTEN_PID=$$ exec {Programs.Ours("kvm-nbd")} -k /s -f raw {w["d"]} 3</dev/null");
        Assert.Equal(1, code);
        Assert.Contains("Unix socket can't be set when using socket activation", output);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Systemd_is_told_when_the_server_is_ready(bool isAbstract)
    {
        using var w = new Workspace();
        w.MakeDisk("d", Size);
        string name = isAbstract ? $"@imgkit-{Guid.NewGuid():N}" : w["notify"];
        using var notify = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified) { ReceiveTimeout = 30_000 };
        notify.Bind(new UnixDomainSocketEndPoint(isAbstract ? "\0" + name[1..] : name));
        w.Start("/usr/bin/env", $"NOTIFY_SOCKET={name}", Programs.Ours("kvm-nbd"), "-t", "-f", "raw", "-k", w["s"], w["d"]);
        byte[] said = new byte[100];
        Assert.Contains("READY=1", Encoding.ASCII.GetString(said, 0, notify.Receive(said)));
    }

    [Fact]
    public void No_more_clients_than_allowed_are_served_at_a_time()
    {
        using var w = new Workspace();
        w.MakeDisk("d", Size);
        w.Start(Programs.Ours("kvm-nbd"), "-t", "-e", "2", "-f", "raw", "-k", w["s"], w["d"]);
        var clients = Enumerable.Range(0, 3).Select(_ =>
        {
            var s = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 1000 };
            s.Connect(new UnixDomainSocketEndPoint(w["s"]));
            return s;
        }).ToArray();
        byte[] greeting = new byte[18];
        Assert.Equal(18, clients[0].Receive(greeting));
        Assert.Equal(18, clients[1].Receive(greeting));
        Assert.Equal(SocketError.TimedOut, Assert.Throws<SocketException>(() => clients[2].Receive(greeting)).SocketErrorCode);
        clients[0].Dispose();
        clients[2].ReceiveTimeout = 30_000;
        Assert.Equal(18, clients[2].Receive(greeting));
        clients[1].Dispose();
        clients[2].Dispose();
    }

    [Fact]
    public void A_folder_shows_the_export_through_nbdfuse()
    {
        Assert.True(File.Exists("/dev/fuse"), "there is no /dev/fuse on this machine");
        using var w = new Workspace();
        string disk = w.MakeDisk("d", Size);
        string uri = w.Serve("-f", "raw", disk);
        Directory.CreateDirectory(w["m"]);
        using var fuse = Programs.Start("nbdfuse", w["m"], uri);
        try
        {
            for (int i = 0; i < 200 && !File.Exists(w["m/nbd"]); i++)
                Thread.Sleep(50);
            Programs.Run("cmp", disk, w["m/nbd"]);
            Programs.Run("dd", $"if={w.MakeDisk("e", 1 << 20, 5)}", $"of={w["m/nbd"]}", "conv=notrunc,fsync", "status=none");
            Programs.Run("cmp", "-n", "1048576", w["e"], disk);
        }
        finally
        {
            Programs.TryRun("umount", w["m"]);
            fuse.WaitForExit(10_000);
        }
    }

    public static TheoryData<string> Misuses =>
    [
        "-e x", "-e -1", "-o x", "-p x", "-k foo", "--cache=foo", "-n --cache=none", "--aio=foo", "--aio=native", "--discard=x", "--detect-zeroes=x",
        "--detect-zeroes=unmap", "-l foo", "-B foo", "--tls-creds=x", "--tls-authz=x", "-c /dev/nbd99", "--image-opts", "--foo", "--object foo", "--object secret,id=x",
        "--object throttle-group", "-b 256.256.256.256", "-f foo", "--discard", "-L", "-L -x foo", "-L -c /dev/nbd99", "-L -p 1", "-r", "d d",
    ];

    [Theory]
    [MemberData(nameof(Misuses))]
    public void A_command_line_that_makes_no_sense_gets_the_peers_words(string options)
    {
        using var w = new Workspace();
        w.MakeDisk("d", 1 << 20);
        string[] arguments = [.. options.Split(' '), .. options is "-r" || options.StartsWith("-L", StringComparison.Ordinal) ? (string[])[] : ["d"]];
        var theirs = Programs.RunAs("qemu-nbd", "/usr/bin/qemu-nbd", w.Folder, arguments);
        var ours = Programs.RunAs("qemu-nbd", Programs.Ours("kvm-nbd"), w.Folder, arguments);
        Assert.Equal(theirs.ToString(), ours.ToString());
    }

    [Fact]
    public void Devices_of_the_kernel_that_are_not_there_are_named()
    {
        using var w = new Workspace();
        w.MakeDisk("d", 1 << 20);
        var (code, output) = Programs.TryRun(Programs.Ours("kvm-nbd"), "-f", "raw", "-c", "/dev/nbd99", w["d"]);
        Assert.Equal((1, "kvm-nbd: Failed to open /dev/nbd99: No such file or directory\n"), (code, output));
        (code, output) = Programs.TryRun(Programs.Ours("kvm-nbd"), "-d", "/dev/nbd99");
        Assert.Equal((1, "kvm-nbd: Cannot open /dev/nbd99: No such file or directory\n"), (code, output));
        (code, output) = Programs.TryRun(Programs.Ours("kvm-nbd"), "-f", "raw", "-c", "/dev/null", w["d"]);
        Assert.Equal((1, "kvm-nbd: Failed to open /dev/null: Inappropriate ioctl for device\n"), (code, output));
    }
}
