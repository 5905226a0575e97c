using System.Globalization;
using System.Security.Cryptography;

namespace ImgKit.Guests;

/// <summary>What the options of drives do to the guest and to the images, seen from both sides.</summary>
public sealed class DriveTests : IDisposable
{
    private const int Size = 16 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("drives").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    /// <summary>A raw disk full of a pattern.</summary>
    private string Full(string name)
    {
        byte[] content = new byte[Size];
        Array.Fill(content, (byte)0x11);
        File.WriteAllBytes(At(name), content);
        return At(name);
    }

    /// <summary>Bytes that a file takes on the host.</summary>
    private long Taken(string name) => long.Parse(Tool.Run("stat", "-c", "%b", At(name)), CultureInfo.InvariantCulture) * 512;

    private static Guest Linux(params string[] arguments)
    {
        var (kernel, disk) = Repository.CloudKernel;
        var guest = new Guest(["-m", "256", "-vga", "none", "-nodefaults", "-kernel", kernel, "-initrd", disk, "-append", "console=ttyS0 panic=-1 quiet shell",
            "-no-reboot", .. arguments]);
        guest.WaitForSerial("SHELL", 120);
        return guest;
    }

    [Fact]
    public void Discards_and_zeroes_reach_the_image_as_the_drive_says()
    {
        foreach (string name in (string[])["kept", "given", "zeroed", "plain", "trimmed"])
            Full(name);
        using (var guest = Linux(
            "-drive", $"file={At("kept")},format=raw,if=virtio",
            "-drive", $"file={At("given")},format=raw,if=virtio,discard=unmap",
            "-drive", $"file={At("zeroed")},format=raw,if=virtio,discard=unmap,detect-zeroes=unmap",
            "-drive", $"file={At("plain")},format=raw,if=virtio,discard=unmap",
            "-drive", $"file={At("trimmed")},format=raw,if=ide,discard=unmap"))
        {
            foreach (string disk in (string[])["vda", "vdb", "sda"])
                guest.Ask($"blkdiscard /dev/{disk}");
            foreach (string disk in (string[])["vdc", "vdd"])
                guest.Ask($"dd if=/dev/zero of=/dev/{disk} bs=1M count=8 conv=fsync");
            guest.LeaveShell();
        }
        Assert.True(Taken("kept") >= Size);
        Assert.Equal(0, Taken("given"));
        Assert.Equal(0, Taken("trimmed"));
        Assert.InRange(Taken("zeroed"), Size / 2, Size / 2 + 65536);
        Assert.True(Taken("plain") >= Size);
        Assert.Equal(0x11, File.ReadAllBytes(At("kept"))[12345]);
        Assert.Equal(0, File.ReadAllBytes(At("zeroed"))[12345]);
        Assert.Equal(0x11, File.ReadAllBytes(At("zeroed"))[^1]);
    }

    [Fact]
    public void The_guest_sees_the_cache_mode_and_the_host_is_told()
    {
        // Flushes of these disks fail, so that it shows who makes them: a device whose cache is off, for each write.
        string Broken(string name, string more)
        {
            Tool.Run("qemu-img", "create", "-q", "-f", "raw", At(name), "8M");
            return $"format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={At(name)},file.inject-error.0.event=none,file.inject-error.0.iotype=flush,"
                + $"file.inject-error.0.errno=5,werror=report,{more}";
        }

        using var guest = Linux("-drive", Broken("a", "if=virtio,cache=writeback"), "-drive", Broken("b", "if=virtio,cache=writethrough"),
            "-drive", Broken("c", "if=virtio,cache=unsafe"), "-drive", Broken("d", "if=ide,cache=directsync"), "-drive", Broken("e", "if=ide,cache=none"));
        // Linux names disks of one channel in the order in which it comes to them.
        string sda = guest.Ask("ls /sys/class/scsi_device/0:0:0:0/device/block"), sdb = guest.Ask("ls /sys/class/scsi_device/0:0:1:0/device/block");
        string Says(string disk) => guest.Ask($"cat /sys/block/{disk}/queue/write_cache");
        Assert.Equal("write back", Says("vda"));
        Assert.Equal("write through", Says("vdb"));
        Assert.Equal("write back", Says("vdc"));
        Assert.Equal("write through", Says(sda));
        Assert.Equal("write back", Says(sdb));
        int Write(string disk, string how) => guest.TryAsk($"dd if=/dev/zero of=/dev/{disk} bs=4096 count=1 {how}").Status;
        // Direct writes alone: only a device without a cache flushes them.
        Assert.Equal(0, Write("vda", "oflag=direct"));
        Assert.Equal(1, Write("vdb", "oflag=direct"));
        Assert.Equal(0, Write("vdc", "oflag=direct"));
        Assert.Equal(1, Write(sda, "oflag=direct"));
        Assert.Equal(0, Write(sdb, "oflag=direct"));
        // Flushes by the guest: cache=unsafe ignores them.
        Assert.Equal(1, Write("vda", "conv=fsync"));
        Assert.Equal(0, Write("vdc", "conv=fsync"));
        Assert.Equal(1, Write(sdb, "conv=fsync"));
        // The guest may switch the cache.
        guest.Ask("echo 'write back' >/sys/class/scsi_disk/0:0:0:0/cache_type");
        Assert.Equal("write back", Says(sda));
        Assert.Equal(0, Write(sda, "oflag=direct"));
        // O_DIRECT for those who asked for it (open(2): 040000 in fdinfo's octal flags).
        foreach (var (name, direct) in ((string, bool)[])[("a", false), ("b", false), ("c", false), ("d", true), ("e", true)])
            Assert.Equal(direct, (guest.FlagsOf(At(name)) & 0x4000) != 0);
        guest.LeaveShell();
    }

    [Fact]
    public void Nodes_stand_on_nodes_and_devices_on_nodes()
    {
        Tool.Run("qemu-img", "create", "-q", "-f", "raw", At("base"), "16M");
        Tool.Run("qemu-io", "-f", "raw", "-c", "write -P 0x61 0 1M", At("base"));
        byte[] before = SHA256.HashData(File.ReadAllBytes(At("base")));
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", At("top"), "16M");
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", At("other"), "16M");
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", At("base"), "-F", "raw", At("copied"));
        using (var guest = Linux(
            "-blockdev", $"driver=file,node-name=file0,filename={At("base")},read-only=on",
            "-blockdev", "driver=raw,node-name=base,file=file0,read-only=on",
            "-blockdev", $"{{\"driver\":\"qcow2\",\"node-name\":\"top\",\"backing\":\"base\",\"file\":{{\"driver\":\"file\",\"filename\":\"{At("top")}\"}}}}",
            "-blockdev", $"driver=qcow2,node-name=other,file.driver=file,file.filename={At("other")}",
            "-drive", $"if=none,id=copied,file={At("copied")},copy-on-read=on",
            "-device", "virtio-blk-pci,drive=top,serial=first,physical_block_size=4096,num-queues=2,queue-size=64,write-cache=off,addr=0x9,id=v",
            "-device", "{\"driver\":\"ide-hd\",\"drive\":\"other\",\"serial\":\"second\",\"model\":\"A DISK\",\"bus\":\"ide.1\",\"unit\":1,\"rotation_rate\":1}",
            "-device", "virtio-blk-pci,drive=copied"))
        {
            Assert.StartsWith("aaaa", guest.Ask("dd if=/dev/vdb bs=4 count=1 2>/dev/null"));
            Assert.StartsWith("first", guest.Ask("cat /sys/block/vdb/serial"));
            Assert.StartsWith("4096", guest.Ask("cat /sys/block/vdb/queue/physical_block_size"));
            Assert.StartsWith("write through", guest.Ask("cat /sys/block/vdb/queue/write_cache"));
            Assert.Contains("0000:00:09.0", guest.Ask("ls -l /sys/block/vdb"));
            Assert.StartsWith("A DISK", guest.Ask("cat /sys/block/sda/device/model"));
            Assert.StartsWith("0", guest.Ask("cat /sys/block/sda/queue/rotational"));
            guest.Ask("echo written >/dev/vdb; echo also >/dev/sda; sync");
            guest.Ask("dd if=/dev/vda of=/dev/null bs=64k count=4 2>/dev/null");
            string block = guest.Qmp("query-block").ToString();
            Assert.Contains("\"node-name\":\"top\"", block);
            guest.LeaveShell();
        }
        Assert.Equal(before, SHA256.HashData(File.ReadAllBytes(At("base"))));
        Tool.Run("qemu-io", "-f", "qcow2", "-c", "read -P 0x77 0 1", At("top"));
        Tool.Run("qemu-io", "-f", "qcow2", "-c", "read -P 0x61 0 1", At("other"));
        // What was read has come into the overlay, and nothing else.
        string map = Tool.Run("qemu-img", "map", "--output=json", At("copied"));
        Assert.Contains("{ \"start\": 0, \"length\": 1048576, \"depth\": 0", map);
        Assert.Contains("\"depth\": 1", map);
    }

    [Fact]
    public void Two_machines_share_an_image_below_snapshots_but_not_for_writing()
    {
        Full("disk");
        using var one = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-snapshot", "-drive", $"file={At("disk")},format=raw");
        using var two = new Guest("-m", "16", "-vga", "none", "-kernel", EchoKernel.Path, "-drive", $"file={At("disk")},format=raw,snapshot=on");
        two.WaitForSerial("ready", 60);
        var (status, _, error) = Tool.Try(Repository.Program, "-accel", Guest.Accelerator, "-display", "none", "-m", "16", "-kernel", EchoKernel.Path, "-hda", At("disk"));
        Assert.Equal(1, status);
        Assert.Contains("Failed to get \"write\" lock", error);
        // Committing needs it for writing, too: not while the other looks.
        one.WaitForSerial("ready", 60);
        Assert.Contains("K", one.Command("w", "K", 60));
        Assert.Contains("lock", one.Hmp("commit all"));
        two.Quit();
        Assert.Equal("", one.Hmp("commit all"));
        Assert.Equal(0xA5, File.ReadAllBytes(At("disk"))[512]);
        one.Quit();
    }

    [Fact]
    public void Failed_requests_follow_the_policies_and_the_guest_sees_them_so()
    {
        // The requests that fail are for the sector at 2 MiB, once each.
        string Broken(string name, string way, int errno, string more)
        {
            Tool.Run("qemu-img", "create", "-q", "-f", "raw", At(name), "4M");
            return $"format=raw,if=virtio,file.driver=blkdebug,file.image.driver=file,file.image.filename={At(name)},file.inject-error.0.event=none,"
                + $"file.inject-error.0.iotype={way},file.inject-error.0.sector=4096,file.inject-error.0.once=on,file.inject-error.0.errno={errno},{more}";
        }

        using var guest = Linux("-drive", Broken("a", "read", 5, "rerror=report"), "-drive", Broken("b", "read", 5, "rerror=ignore"),
            "-drive", Broken("c", "read", 5, "rerror=stop"), "-drive", Broken("d", "write", 28, "id=full"), "-drive", Broken("e", "write", 5, "werror=enospc"));
        void Expect(string operation, string action, bool noSpace)
        {
            var data = guest.WaitForEvent("BLOCK_IO_ERROR", 60).GetProperty("data");
            Assert.Equal((operation, action, noSpace),
                (data.GetProperty("operation").GetString(), data.GetProperty("action").GetString(), data.GetProperty("nospace").GetBoolean()));
        }

        void ExpectStop()
        {
            guest.WaitForEvent("STOP", 60);
            Assert.Equal("io-error", guest.Qmp("query-status").GetProperty("status").GetString());
            guest.Qmp("cont");
        }

        string Read(string disk) => $"dd if=/dev/{disk} of=/dev/null bs=4096 skip=512 count=1 iflag=direct";
        string Write(string disk) => $"dd if=/dev/zero of=/dev/{disk} bs=4096 seek=512 count=1 oflag=direct";
        guest.Qmp("query-status");
        Assert.Equal(1, guest.TryAsk(Read("vda")).Status);
        Expect("read", "report", false);
        guest.Ask(Read("vda"));
        guest.Ask(Read("vdb"));
        Expect("read", "ignore", false);
        guest.Type(Read("vdc") + "; echo IT READS\n");
        Expect("read", "stop", false);
        ExpectStop();
        guest.WaitForSerial("IT READS", 60);
        guest.Type(Write("vdd") + "; echo IT WRITES\n");
        Expect("write", "stop", true);
        ExpectStop();
        guest.WaitForSerial("IT WRITES", 60);
        Assert.Equal(1, guest.TryAsk(Write("vde")).Status);
        Expect("write", "report", false);
        guest.LeaveShell();
    }

    [Fact]
    public void Limits_hold_requests_back()
    {
        Full("disk");
        using var guest = Linux("-drive", $"file={At("disk")},format=raw,if=virtio,bps_rd=1048576");
        var clock = System.Diagnostics.Stopwatch.StartNew();
        guest.Ask("dd if=/dev/vda of=/dev/null bs=64k count=48 iflag=direct");
        Assert.InRange(clock.Elapsed.TotalSeconds, 2.0, 30);
        guest.LeaveShell();
    }

    [Theory]
    [InlineData("'sometimes' invalid write error action", "-drive", "file=/dev/null,format=raw,werror=sometimes")]
    [InlineData("invalid cache option", "-drive", "file=/dev/null,format=raw,cache=warm")]
    [InlineData("invalid aio option", "-drive", "file=/dev/null,format=raw,aio=quick")]
    [InlineData("aio=native was specified, but it requires cache.direct=on", "-drive", "file=/dev/null,format=raw,aio=native")]
    [InlineData("setting detect-zeroes to unmap is not allowed", "-drive", "file=/dev/null,format=raw,detect-zeroes=unmap")]
    [InlineData("unit 3 too big (max is 1)", "-drive", "file=/dev/null,format=raw,unit=3")]
    [InlineData("machine type does not support if=ide,bus=3,unit=1", "-drive", "file=/dev/null,format=raw,index=7")]
    [InlineData("drive with bus=0, unit=1 (index=1) exists", "-hdb", "/dev/null", "-drive", "file=/dev/null,format=raw,index=1")]
    [InlineData("bps/iops/max total values and read/write values cannot be used at the same time", "-drive", "file=/dev/null,format=raw,bps=9,bps_rd=4")]
    [InlineData("'throttling.bps-total' and its alias 'bps' can't be used at the same time", "-drive", "file=/dev/null,format=raw,bps=9,throttling.bps-total=4")]
    [InlineData("Block format 'raw' does not support the option 'colour'", "-drive", "file=/dev/zero,format=raw,colour=red")]
    [InlineData("Could not open '/nowhere': No such file or directory", "-cdrom", "/nowhere")]
    [InlineData("'node-name' must be specified for the root node", "-blockdev", "driver=null-co")]
    [InlineData("Parameter 'driver' is missing", "-blockdev", "node-name=a")]
    [InlineData("Parameter 'file' is missing", "-blockdev", "raw,node-name=a")]
    [InlineData("Parameter 'file.colour' is unexpected", "-blockdev", "raw,node-name=a,file.driver=null-co,file.colour=red")]
    [InlineData("Parameter 'discard' does not accept value 'never'", "-blockdev", "null-co,node-name=a,discard=never")]
    [InlineData("Parameter 'driver' does not accept value 'nosuch'", "-blockdev", "nosuch,node-name=a")]
    [InlineData("Duplicate nodes with node-name='a'", "-blockdev", "null-co,node-name=a", "-blockdev", "null-co,node-name=a")]
    [InlineData("Invalid node-name: 'a/b'", "-blockdev", "null-co,node-name=a/b")]
    [InlineData("Cannot find device='b' nor node-name='b'", "-blockdev", "raw,node-name=a,file=b")]
    [InlineData("JSON parse error, premature EOI", "-blockdev", "{\"driver\":")]
    [InlineData("Property 'ide-hd.drive' can't find value 'a'", "-device", "ide-hd,drive=a")]
    [InlineData("Property 'virtio-blk-device.drive' can't find value 'a'", "-device", "virtio-blk-pci,drive=a")]
    [InlineData("drive property not set", "-device", "virtio-blk-pci")]
    [InlineData("No drive specified", "-device", "ide-hd")]
    [InlineData("'ide-tape' is not a valid device model name", "-device", "ide-tape,drive=a")]
    [InlineData("Property 'ide-hd.colour' not found", "-device", "ide-hd,colour=red")]
    [InlineData("logical_block_size must be 512 for IDE", "-blockdev", "null-co,node-name=a,size=1M", "-device", "ide-hd,drive=a,logical_block_size=4096")]
    [InlineData("Permission conflict on node 'a'", "-blockdev", "null-co,node-name=a,size=1M", "-device", "ide-hd,drive=a", "-device", "ide-hd,drive=a")]
    [InlineData("Permission conflict on node 'a'", "-blockdev", "null-co,node-name=a,size=1M", "-blockdev", "raw,node-name=b,file=a", "-device", "ide-hd,drive=a")]
    [InlineData("required by block device 'one' (uses node 'a' as 'root' child) and unshared by block device 'two' (uses node 'a' as 'root' child).",
        "-blockdev", "null-co,node-name=a,size=1M", "-device", "ide-hd,drive=a,id=one,share-rw=on", "-device", "ide-hd,drive=a,id=two")]
    [InlineData("required by node 'b' (uses node 'a' as 'file' child) and unshared by node 'c' (uses node 'a' as 'file' child).", "-blockdev", "null-co,node-name=a,size=1M",
        "-blockdev", "raw,node-name=b,file=a", "-blockdev", "raw,node-name=c,file=a", "-device", "ide-hd,drive=b", "-device", "ide-hd,drive=c")]
    [InlineData("Bus 'nobus' not found", "-device", "virtio-blk-pci,bus=nobus")]
    [InlineData("No 'PCI' bus found for device 'virtio-blk-pci'", "-M", "isapc", "-device", "virtio-blk-pci")]
    [InlineData("Drive 'a' is already in use by another device", "-drive", "driver=null-co,id=a,if=none,size=1M", "-device", "ide-hd,drive=a", "-device", "ide-hd,drive=a")]
    public void What_cannot_be_is_one_line_that_names_the_option(string text, params string[] arguments)
    {
        var (status, output, error) = Tool.Try(Repository.Program, ["-accel", Guest.Accelerator, "-display", "none", .. arguments]);
        Assert.Equal(1, status);
        Assert.Empty(output);
        Assert.StartsWith($"kvm: {arguments[^2]} ", error[error.LastIndexOf("kvm: ", StringComparison.Ordinal)..]);
        Assert.Contains(text, error);
        Assert.DoesNotContain("   at ", error);
    }

    /// <summary>A raw disk whose block at 2 MiB fails once, as -drive has it.</summary>
    private string Failing(string name, string operation, int errno, string more)
    {
        Full(name);
        return $"id={name},format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={At(name)},file.inject-error.0.event=none,"
            + $"file.inject-error.0.iotype={operation},file.inject-error.0.errno={errno},file.inject-error.0.sector=4096,file.inject-error.0.once=on,{more}";
    }

    [Fact]
    public void A_failed_request_of_any_bus_follows_the_policies()
    {
        const int NoSpace = 28, Broken = 5;
        (string Name, string Device, string Operation, int Errno, string Policy, string Action)[] cases =
        [
            ("v-stop", "vda", "write", Broken, "if=virtio,werror=stop", "stop"), ("v-ignore", "vdb", "write", Broken, "if=virtio,werror=ignore", "ignore"),
            ("v-space", "vdc", "write", NoSpace, "if=virtio", "stop"), ("v-report", "vdd", "write", Broken, "if=virtio,werror=enospc", "report"),
            ("v-read", "vde", "read", Broken, "if=virtio,rerror=stop", "stop"), ("i-space", "0:0:0:0", "write", NoSpace, "if=ide", "stop"),
            ("i-read", "0:0:1:0", "read", Broken, "if=ide,rerror=stop", "stop"),
        ];
        using var guest = Linux([.. cases.SelectMany(c => (string[])["-drive", Failing(c.Name, c.Operation, c.Errno, c.Policy)])]);
        foreach (var c in cases)
        {
            string disk = c.Device.Contains(':') ? guest.Ask($"ls /sys/class/scsi_device/{c.Device}/device/block") : c.Device;
            guest.Qmp("query-status");
            var end = guest.Begin(c.Operation == "read" ? $"dd if=/dev/{disk} of=/dev/null bs=4096 skip=512 count=1 iflag=direct"
                : $"dd if=/dev/zero of=/dev/{disk} bs=4096 seek=512 count=1 oflag=direct");
            var data = guest.WaitForEvent("BLOCK_IO_ERROR", 30).GetProperty("data");
            Assert.Equal((c.Name, c.Operation, c.Action, c.Errno == NoSpace), (data.GetProperty("device").GetString()!, data.GetProperty("operation").GetString()!,
                data.GetProperty("action").GetString()!, data.GetProperty("nospace").GetBoolean()));
            if (c.Action == "stop")
            {
                guest.WaitForEvent("STOP", 30);
                Assert.Equal("io-error", guest.Qmp("query-status").GetProperty("status").GetString());
                Assert.Contains($"I/O status:       {(c.Errno == NoSpace ? "nospace" : "failed")}", guest.Hmp($"info block {c.Name}"));
                guest.Qmp("cont");
                Assert.DoesNotContain("I/O status", guest.Hmp($"info block {c.Name}"));
            }
            // What was tried again went well, and so did what the policy hid. ATA drivers try by themselves.
            Assert.Equal(c.Name == "v-report" ? 1 : 0, end(60).Status);
        }
        guest.LeaveShell();
        Assert.Equal(0, File.ReadAllBytes(At("v-stop"))[2 << 20]);
        Assert.Equal(0x11, File.ReadAllBytes(At("v-ignore"))[2 << 20]);
        Assert.Equal(0, File.ReadAllBytes(At("v-space"))[2 << 20]);
        Assert.Equal(0, File.ReadAllBytes(At("i-space"))[2 << 20]);
    }
}
