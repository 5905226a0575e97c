using System.Security.Cryptography;
using System.Text.RegularExpressions;

namespace ImgKit.Conformance;

/// <summary>kvm-io beside qemu-io: the same text and exit codes, but for times and rates.</summary>
public sealed partial class IoCommandTests
{
    private const int Parts = 6;

    public static TheoryData<int> EachPart => [.. Enumerable.Range(0, Parts)];

    [Theory]
    [MemberData(nameof(EachPart))]
    public void Commands_do_and_print_what_the_peers_do_and_print(int part)
    {
        using var w = new Workspace();
        Directory.CreateDirectory(w["peer"]);
        Directory.CreateDirectory(w["ours"]);
        string[] lines = IoScripts.Same.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        for (int i = part; i < lines.Length; i += Parts)
        {
            string[] fields = lines[i].Split('|');
            foreach (string format in fields[0].Split(','))
            {
                string theirs = Run(w["peer"], "/usr/bin/qemu-io", format, fields), ours = Run(w["ours"], Programs.Ours("kvm-io"), format, fields);
                Assert.Equal($"{lines[i]}\n{theirs}", $"{lines[i]}\n{ours}");
            }
        }
    }

    [Theory]
    [InlineData("qcow2")]
    [InlineData("vmdk")]
    public void A_write_that_does_not_fit_leaves_nothing_where_the_next_counts_on_zeroes(string format)
    {
        using var w = new Workspace();
        // KiB of the largest file: the first write comes to its end in its middle, and the next takes the same place.
        foreach (int limit in new[] { 500, 620, 700 })
        {
            string image = MakeImage(w.Folder, format);
            string io = $"{Programs.Ours("kvm-io")} -f {format} -c 'write -P 0x55 0 1M' -c 'write -P 1 516k 4k' -c 'read -P 0 480k 36k' -c 'read -P 0 520k 56k' {image}";
            // Where the program is not published, the runtime keeps its code in a file, which would not fit either.
            var (_, output) = Programs.TryRun("/bin/bash", "-c", $"trap '' XFSZ; ulimit -f {limit}; DOTNET_EnableWriteXorExecute=0 {io}");
            Assert.Contains("write failed: File too large", output, StringComparison.Ordinal);
            Assert.Contains("wrote 4096/4096", output, StringComparison.Ordinal);
            Assert.DoesNotContain("verification failed", output, StringComparison.Ordinal);
            Programs.Run("qemu-img", "check", "-f", format, image);
        }
    }

    /// <summary>Runs a script on a new image.</summary>
    /// <returns>exit code, what was printed on each stream, and a digest of the disk's content.</returns>
    private static string Run(string folder, string program, string format, string[] fields)
    {
        string image = MakeImage(folder, format);
        if (format == "overlay")
            format = "qcow2";
        string[] arguments = ["-f", format, .. fields[1].Split(' ', StringSplitOptions.RemoveEmptyEntries), .. fields[2..].SelectMany(static c => new[] { "-c", c }), "image"];
        var result = Programs.RunAs("qemu-io", program, folder, arguments);
        File.Delete(Path.Combine(folder, "content"));
        var (code, output) = Programs.TryRun("qemu-img", "convert", "-U", "-f", format, "-O", "raw", image, Path.Combine(folder, "content"));
        string content = code == 0 ? Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(folder, "content")))) : output.Replace(folder, "");
        return $"{Terse().Replace(Rates().Replace(result.ToString(), "ops"), "$1")}\n{content}";
    }

    private static string MakeImage(string folder, string format)
    {
        string image = Path.Combine(folder, "image");
        File.Delete(image);
        switch (format)
        {
            case "raw":
                using (var f = File.Create(image))
                    f.SetLength(1 << 20);
                break;
            case "overlay":
                byte[] data = new byte[1 << 20];
                data.AsSpan(0, data.Length / 2).Fill(0x11);
                File.WriteAllBytes(Path.Combine(folder, "base"), data);
                Programs.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", image, "1M");
                break;
            default:
                Programs.Run("qemu-img", "create", "-q", "-f", format, image, "1M");
                break;
        }
        return image;
    }

    [GeneratedRegex("^([0-9]+,1),[0-9:.]+,.*", RegexOptions.Multiline)]
    private static partial Regex Terse();

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
