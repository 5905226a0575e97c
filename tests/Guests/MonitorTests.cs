using System.Text.Json;

namespace ImgKit.Guests;

/// <summary>The monitors' commands, each for what it does to a machine.</summary>
public sealed class MonitorTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("monitor").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private string Image(string name, int megabytes = 1)
    {
        File.WriteAllBytes(At(name), new byte[megabytes << 20]);
        return At(name);
    }

    /// <summary>A machine that stands in the guest's waiting loop.</summary>
    private static Guest Stopped(params string[] arguments)
    {
        var guest = new Guest(["-m", "16", "-kernel", EchoKernel.Path, .. arguments]);
        guest.WaitForSerial("ready", 60);
        guest.Qmp("stop");
        return guest;
    }

    private static JsonElement Block(Guest guest, string device) =>
        guest.Qmp("query-block").EnumerateArray().Single(b => b.GetProperty("device").GetString() == device);

    [Fact]
    public void Info_tells_what_the_machine_is()
    {
        using var guest = Stopped("-name", "box", "-uuid", "11223344-5566-7788-99aa-bbccddeeff00", "-smp", "2", "-drive", $"file={Image("disk")},format=raw");
        Assert.Contains("paused", guest.Hmp("info status"));
        Assert.StartsWith("7.2.", guest.Hmp("info version"));
        Assert.Equal("box\n", guest.Hmp("info name"));
        Assert.Equal("11223344-5566-7788-99aa-bbccddeeff00\n", guest.Hmp("info uuid"));
        Assert.Contains($"ide0-hd0 (#ide0-hd0): {At("disk")} (raw)", guest.Hmp("info block"));
        Assert.Contains("floppy0: [not inserted]", guest.Hmp("info block"));
        Assert.Contains("EIP=002000", guest.Hmp("info registers"));
        Assert.Contains(" DPL=0 CS32 [-RA]", guest.Hmp("info registers"));
        Assert.Contains("FCW=037f", guest.Hmp("info registers -a"));
        Assert.Contains("CPU#1\n", guest.Hmp("info registers 1"));
        Assert.Equal("", guest.Hmp("info block nodisk"));
        Assert.Contains("CPU #1", guest.Hmp("info cpus"));
        Assert.Equal("PG disabled\n", guest.Hmp("info mem"));
        Assert.Equal("PG disabled\n", guest.Hmp("info tlb"));
        Assert.Matches("pic0: irr=[0-9a-f]{2} imr=|the kernel has", guest.Hmp("info pic"));
        Assert.Contains("    IDE controller: PCI device 8086:7010", guest.Hmp("info pci"));
        Assert.Contains("system_reset", guest.Hmp("help"));
        Assert.Contains("unknown command", guest.Hmp("dance"));
        Assert.Equal("box", guest.Qmp("query-name").GetProperty("name").GetString());
        Assert.Equal("11223344-5566-7788-99aa-bbccddeeff00", guest.Qmp("query-uuid").GetProperty("UUID").GetString());
    }

    [Fact]
    public void Memory_is_shown_and_saved()
    {
        using var guest = Stopped();
        Assert.Equal("0000000000200000: 0x1badb002 0x00000000\n", guest.Hmp("xp /2xw 0x200000"));
        Assert.Equal("0000000000200000: 0xb002 0x1bad\n", guest.Hmp("x /2xh 0x200000"));
        Assert.Contains("in ", guest.Hmp("x /20i 0x20000c"));
        guest.Qmp("pmemsave", new { val = 0x200000, size = 64, filename = At("physical") });
        guest.Qmp("memsave", new { val = 0x200000, size = 64, filename = At("virtual") });
        byte[] saved = File.ReadAllBytes(At("physical"));
        Assert.Equal([0x02, 0xB0, 0xAD, 0x1B], saved[..4]);
        Assert.Equal(saved, File.ReadAllBytes(At("virtual")));
    }

    [Fact]
    public void The_screen_is_dumped_in_two_formats()
    {
        using var guest = Stopped();
        guest.Qmp("screendump", new { filename = At("a.ppm") });
        guest.Hmp($"screendump {At("b.png")} -f png");
        Assert.StartsWith("P6\n", File.ReadAllText(At("a.ppm")));
        Assert.Equal([0x89, (byte)'P', (byte)'N', (byte)'G'], File.ReadAllBytes(At("b.png"))[..4]);
    }

    [Theory]
    [InlineData("ide1-cd0", "-cdrom")]
    [InlineData("floppy0", "-fda")]
    public void Media_are_taken_out_and_changed(string device, string option)
    {
        Image("one");
        Image("two");
        using var guest = Stopped(option, At("one"));
        Assert.Contains("one", Block(guest, device).GetProperty("inserted").GetProperty("file").GetString());
        Assert.Equal("", guest.Hmp($"eject {device}"));
        Assert.False(Block(guest, device).TryGetProperty("inserted", out _));
        Assert.Equal("", guest.Hmp($"change {device} {At("two")} raw"));
        Assert.Contains("two", Block(guest, device).GetProperty("inserted").GetProperty("file").GetString());
        Assert.Contains("nothing", guest.Hmp($"change {device} {At("nothing")}"));
        Assert.Contains("Device 'hd7' not found", guest.Hmp("eject hd7"));
    }

    [Fact]
    public void A_snapshot_keeps_the_image_until_it_is_committed()
    {
        using var guest = new Guest("-m", "16", "-kernel", EchoKernel.Path, "-snapshot", "-drive", $"file={Image("disk")},format=raw");
        guest.WaitForSerial("ready", 60);
        Assert.Contains("K", guest.Command("w", "K", 60));
        Assert.Equal(0, File.ReadAllBytes(At("disk"))[512]);
        Assert.Equal("", guest.Hmp("commit all"));
        byte[] content = File.ReadAllBytes(At("disk"));
        Assert.Equal(0xA5, content[512]);
        Assert.Equal(0xA5, content[1023]);
        Assert.Equal(0, content[1024]);
        guest.Quit();
    }

    [Theory]
    [InlineData("stop", "K")]
    [InlineData("report", "E")]
    [InlineData("ignore", "K")]
    public void A_failed_write_follows_the_policy(string policy, string answer)
    {
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", At("disk"), "1M");
        using var guest = new Guest("-m", "16", "-kernel", EchoKernel.Path, "-drive",
            $"format=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename={At("disk")},file.inject-error.0.event=write_aio,file.inject-error.0.once=on,"
            + $"file.inject-error.0.errno=5,werror={policy}");
        guest.WaitForSerial("ready", 60);
        guest.Qmp("query-status");
        guest.Type("w");
        var data = guest.WaitForEvent("BLOCK_IO_ERROR", 60).GetProperty("data");
        Assert.Equal("write", data.GetProperty("operation").GetString());
        Assert.Equal(policy, data.GetProperty("action").GetString());
        if (policy == "stop")
        {
            guest.WaitForEvent("STOP", 60);
            Assert.Equal("io-error", guest.Qmp("query-status").GetProperty("status").GetString());
            Assert.DoesNotContain("K", guest.Serial);
            guest.Qmp("cont");
        }
        guest.WaitForSerial(answer, 60);
        guest.Quit();
        Tool.Run("qemu-io", "-f", "qcow2", "-c", $"read -P {(policy == "stop" ? 0xA5 : 0)} 512 512", At("disk"));
    }

    [Fact]
    public void A_request_that_failed_is_forgotten_at_a_reset()
    {
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", At("disk"), "1M");
        using var guest = new Guest("-m", "16", "-kernel", EchoKernel.Path, "-drive",
            $"format=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename={At("disk")},file.inject-error.0.event=write_aio,file.inject-error.0.once=on,"
            + "file.inject-error.0.errno=5,werror=stop");
        guest.WaitForSerial("ready", 60);
        guest.Qmp("query-status");
        guest.Type("w");
        guest.WaitForEvent("STOP", 60);
        guest.Qmp("system_reset");
        guest.Qmp("cont");
        guest.WaitForSerial("ready\nready", 60);
        guest.Type("w");
        guest.WaitForSerial("ready\nready\nK", 60);
        guest.Quit();
    }

    [Fact]
    public void The_machine_stops_goes_on_and_is_reset()
    {
        using var guest = new Guest("-m", "16", "-kernel", EchoKernel.Path);
        guest.WaitForSerial("ready", 60);
        guest.Qmp("stop");
        guest.WaitForEvent("STOP", 20);
        guest.Type("x");
        guest.Qmp("cont");
        guest.WaitForEvent("RESUME", 20);
        guest.WaitForSerial("x", 60);
        guest.Qmp("system_reset");
        guest.WaitForEvent("RESET", 20);
        guest.WaitForSerial("xready", 60);
        guest.Qmp("system_powerdown");
        guest.WaitForEvent("POWERDOWN", 20);
        guest.Quit();
    }

    [Fact]
    public void The_human_monitor_says_what_is_wrong()
    {
        using var guest = new Guest("-m", "16", "-S", "-kernel", EchoKernel.Path);
        foreach (var (line, answer) in ((string, string)[])
        [
            ("stop now", "stop|s: extraneous characters at the end of line\nTry \"help stop\" for more information\n"),
            ("sendkey a-nokey", "invalid parameter: nokey\n"),
            ("screendump", "screendump: filename expected\nTry \"help screendump\" for more information\n"),
            ("change ide1-cd0", "change: filename expected\nTry \"help change\" for more information\n"),
            ("eject -f", "eject: block device name expected\nTry \"help eject\" for more information\n"),
            ("commit ide1-cd0", "Device 'ide1-cd0' has no medium\n"),
            ("x /2zz 0", "invalid char in format: 'z'\nTry \"help x\" for more information\n"),
            ("xp /4xw 0xfffffff8", "00000000fffffff8: Cannot access memory\n"),
            ("block_resize nodisk 1M", "Error: Cannot find device='nodisk' nor node-name=''\n"),
            ("info weather", "unknown command: 'info weather'\n"),
            ("memsave 0 16 /nowhere/x", "Error: Could not open '/nowhere/x': No such file or directory\n"),
            ("screendump /nowhere/x", "Error: failed to open file '/nowhere/x': No such file or directory\n"),
            ("print /d $eip - $eip - 3", "-3\n"),
            ("help eject", "eject [-f] device -- eject a removable medium (use -f to force it)\n"),
        ])
            Assert.Equal((line, answer), (line, guest.Hmp(line)));
    }

    [Fact]
    public void Qmp_says_what_is_wrong()
    {
        using var guest = new Guest("-m", "16", "-S", "-kernel", EchoKernel.Path);
        guest.Qmp("query-status");
        foreach (var (command, arguments, kind, text) in ((string, string, string, string)[])
        [
            ("stop", "{\"now\":true}", "GenericError", "Parameter 'now' is unexpected"),
            ("pmemsave", "{\"val\":0,\"size\":1}", "GenericError", "Parameter 'filename' is missing"),
            ("pmemsave", "{\"val\":\"0\",\"size\":1,\"filename\":\"x\"}", "GenericError", "Invalid parameter type for 'val', expected: integer"),
            ("memsave", "{\"val\":0,\"size\":1,\"filename\":\"/dev/null\",\"cpu-index\":9}", "GenericError", "Parameter 'cpu-index' expects a CPU number"),
            ("screendump", "{\"filename\":\"/dev/null\",\"format\":\"gif\"}", "GenericError", "Parameter 'format' does not accept value 'gif'"),
            ("eject", "{}", "GenericError", "Need exactly one of 'device' and 'id'"),
            ("eject", "{\"device\":\"nodisk\"}", "DeviceNotFound", "Device 'nodisk' not found"),
            ("send-key", "{\"keys\":[{\"type\":\"qcode\",\"data\":\"nokey\"}]}", "GenericError", "Parameter 'data' does not accept value 'nokey'"),
            ("dance", "{}", "CommandNotFound", "The command dance has not been found"),
        ])
        {
            var error = Assert.Throws<InvalidOperationException>(() => guest.Qmp(command, JsonDocument.Parse(arguments).RootElement)).Message;
            Assert.Contains($"\"{kind}\"", error);
            Assert.Contains(text, error);
        }
    }

    [Fact]
    public void Events_come_before_the_answer_to_what_caused_them_and_the_last_one_before_the_end()
    {
        using var guest = new Guest("-m", "16", "-S", "-kernel", EchoKernel.Path);
        guest.Qmp("query-status");
        foreach (var (command, name) in ((string, string)[])[("cont", "RESUME"), ("stop", "STOP"), ("system_reset", "RESET")])
        {
            guest.Qmp(command);
            Assert.Equal(name, guest.TakeEvent()!.Value.GetProperty("event").GetString());
        }
        Assert.Null(guest.TakeEvent());
        guest.Qmp("quit");
        Assert.Equal("SHUTDOWN", guest.WaitForLastEvent().GetProperty("event").GetString());
        Assert.Equal(0, guest.WaitForExit(60));
    }

    [Fact]
    public void Drives_are_described_with_all_that_is_below_them()
    {
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", Image("base"), "-F", "raw", At("top"));
        using var guest = new Guest("-m", "16", "-S", "-kernel", EchoKernel.Path, "-drive",
            $"file={At("top")},cache=none,discard=unmap,detect-zeroes=unmap,iops=500,bps_rd=1048576");
        var inserted = Block(guest, "ide0-hd0").GetProperty("inserted");
        var image = inserted.GetProperty("image");
        Assert.Equal("qcow2", image.GetProperty("format").GetString());
        Assert.Equal("1.1", image.GetProperty("format-specific").GetProperty("data").GetProperty("compat").GetString());
        Assert.Equal(At("base"), image.GetProperty("backing-image").GetProperty("filename").GetString());
        Assert.Equal("unmap", inserted.GetProperty("detect_zeroes").GetString());
        Assert.Equal(500, inserted.GetProperty("iops").GetInt32());
        Assert.Equal(1048576, inserted.GetProperty("bps_rd").GetInt32());
        Assert.True(inserted.GetProperty("cache").GetProperty("direct").GetBoolean());
    }

    [Fact]
    public void Nobody_who_reads_the_serial_port_does_not_hold_up_the_monitor()
    {
        using var guest = new Guest("-m", "16", "-kernel", EchoKernel.Path);
        guest.WaitForSerial("ready", 60);
        guest.StopListening();
        // A few hundred single bytes fill a socket.
        guest.Type(new string('x', 2000));
        Thread.Sleep(1000);
        Assert.Equal("running", guest.Qmp("query-status").GetProperty("status").GetString());
        guest.Quit();
    }
}
