using System.Text.RegularExpressions;

namespace ImgKit.Conformance;

/// <summary>kvm-io beside qemu-io: the same text and exit codes, but for times and rates.</summary>
public sealed partial class IoCommandTests
{
    private static readonly string[][] Scripts =
    [
        ["read 0 1k"], ["read -v 1000 40"], ["read -P 0 0 1M"], ["read -P 1 0 1M"], ["read -P 0x100 0 1M"], ["read -s 1 0 1M"], ["read -P 0 -s 2M 0 1M"],
        ["read x 1"], ["read 0 x"], ["read 0"], ["read 0 3G"], ["read 1M 1k"], ["read -x 0 1"], ["read 99999999999999999999 1"], ["read 0 0"],
        ["write 0 512", "read -P 0xcd 0 512"], ["write -P 7 100 1000", "read -P 7 100 1000"], ["write -b 0 512"], ["write -z -P 1 0 512"], ["write -n 0 512"],
        ["write -u 0 512"], ["write -f -c 0 512"], ["write -c 0 512"], ["write -c 0 511"], ["write -s /nothing 0 511"], ["write -s /dev/null 0 511"], ["write -zu 0 64k"],
        ["writev -P 3 0 512 1k", "readv -P 3 0 1k 512"], ["writev 0 512 x"], ["writev 0 3G"], ["writev 0 1G 1G 1G"], ["readv -v 0 32 16"], ["readv 0"],
        ["aio_write -P 4 0 512", "aio_flush", "aio_read -P 4 0 512", "aio_flush"], ["aio_read 3M 512", "aio_flush"], ["aio_write 3M 512", "aio_flush"],
        ["aio_write -u 0 512"], ["aio_write -zu 0 512 512"], ["aio_write -i 0 512"], ["aio_read -i 0 512"], ["discard 0 512"], ["discard 0"], ["discard 2M 1k"],
        ["discard 0 3G"], ["flush"], ["truncate 2M", "length", "truncate 1M", "length"], ["truncate -m foo 2M"], ["truncate x"], ["info"], ["map"], ["alloc 0"],
        ["alloc 0 1M"], ["alloc 2M"], ["alloc 0 3G"], ["alloc 0 512 3"], ["foo"], [""], ["sleep 1"], ["sleep x"], ["close", "read 0 512"], ["close", "open -x a"],
        ["close", "open a b"], ["close", "open -t foo a"], ["close", "open /nothing"], ["reopen -r", "write 0 512"], ["reopen -rw"], ["reopen -c foo"], ["reopen a"],
        ["reopen -o foo=bar"], ["break x y"], ["resume y"], ["remove_break y"], ["help read"], ["help foo"], ["help write"], ["help"], ["q", "length"], ["sigraise x"],
        ["l"], ["w 0 512", "r 0 512", "f", "d 0 512", "i", "c"],
    ];

    public static TheoryData<string> Names
    {
        get
        {
            var data = new TheoryData<string>();
            // Twenty at a time: starting a program is what takes the time.
            for (int i = 0; i < Scripts.Length; i += 20)
                data.Add($"{i}-{Math.Min(i + 20, Scripts.Length)}");
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Commands_print_what_the_peer_prints(string range)
    {
        using var w = new Workspace();
        int[] ends = [.. range.Split('-').Select(int.Parse)];
        foreach (string[] script in Scripts[ends[0]..ends[1]])
        {
            var theirs = Run(w, "qemu-io", script);
            var ours = Run(w, Programs.Ours("kvm-io"), script);
            Assert.Equal((script[0], theirs.Code, theirs.Output), (script[0], ours.Code, ours.Output));
        }
    }

    private static (int Code, string Output) Run(Workspace w, string program, string[] script)
    {
        using (var f = File.Create(w["d"]))
            f.SetLength(1 << 20);
        var (code, output) = Programs.TryRun(program, ["-f", "raw", .. script.SelectMany(c => new[] { "-c", c }), w["d"]]);
        output = Rates().Replace(output.Replace("kvm-io: ", "qemu-io: "), "ops");
        return (code, output);
    }

    [GeneratedRegex(@"[0-9]+ ops; .*")]
    private static partial Regex Rates();

    [Fact]
    public void Standard_input_is_a_script()
    {
        using var w = new Workspace();
        w.MakeDisk("d", 1 << 20);
        string output = Programs.Run("/bin/sh", "-c", $"printf 'write -P 1 0 512\\nread -P 1 0 512\\nquit\\nread -P 2 0 512\\n' | {Programs.Ours("kvm-io")} -f raw {w["d"]}");
        Assert.Contains("> wrote 512/512 bytes at offset 0", output);
        Assert.DoesNotContain("Pattern verification failed", output);
    }

    [Fact]
    public void Blkdebug_injects_errors_and_stops_requests()
    {
        using var w = new Workspace();
        Programs.Run("qemu-img", "create", "-q", "-f", "qcow2", w["q"], "64M");
        File.WriteAllText(w["conf"], "[inject-error]\nevent = \"write_aio\"\nerrno = \"28\"\nonce = \"on\"\n");
        string[] script = ["-c", "write 0 512", "-c", "write 0 512", "-c", "read 0 512", $"blkdebug:{w["conf"]}:{w["q"]}"];
        var theirs = Programs.TryRun("qemu-io", script);
        var ours = Programs.TryRun(Programs.Ours("kvm-io"), script);
        Assert.Equal((theirs.Code, Rates().Replace(theirs.Output, "")), (ours.Code, Rates().Replace(ours.Output, "")));
        Assert.Contains("No space left on device", ours.Output);

        string[] stop = ["-c", "break write_aio A", "-c", "aio_write -P 1 1M 64k", "-c", "wait_break A", "-c", "write -P 2 8M 64k", "-c", "resume A", "-c", "aio_flush",
            "-c", "read -P 1 1M 64k", "-c", "read -P 2 8M 64k", $"blkdebug::{w["q"]}"];
        string output = Programs.Run(Programs.Ours("kvm-io"), stop);
        Assert.DoesNotContain("failed", output);
        Assert.True(output.IndexOf("offset 8388608", StringComparison.Ordinal) < output.IndexOf("offset 1048576", StringComparison.Ordinal));
    }
}
