using System.Text;
using System.Text.RegularExpressions;

namespace ImgKit.Conformance;

/// <summary>Long rows of commands, each run by qemu-img in one folder and by kvm-img in another: text, errors and exit codes are the same. Both start
/// from the same files, made by qemu-img; what each does to them shows in the commands that follow.</summary>
public sealed partial class ImgPeerTests
{
    public static TheoryData<string> Scripts => ["look", "change", "name"];

    [Theory]
    [MemberData(nameof(Scripts))]
    public void Each_command_does_what_the_peer_does(string script)
    {
        string text = script switch { "look" => ImgPeerScripts.Look, "change" => ImgPeerScripts.Change, _ => ImgPeerScripts.Name };
        using var tools = new Tools();
        var differences = new StringBuilder();
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith('!'))
            {
                // Random content must be the same in both; and what a file system has yet to allocate it may show otherwise a moment later.
                Programs.Run("/bin/bash", "-c",
                    $"cd {tools.PeerFolder} && ({line[1..]}) >/dev/null 2>&1; cd {tools.OurFolder} && rm -rf ./* && cp -a {tools.PeerFolder}/. . && sync ./* {tools.PeerFolder}/*");
                continue;
            }
            var (peer, ours) = tools.Both(Words(line));
            string expected = Comparable(peer), actual = Comparable(ours);
            if (expected != actual)
                differences.Append($"$ qemu-img {line}\n{expected}\n--- ours:\n{actual}\n\n");
        }
        Assert.Equal("", differences.ToString());
    }

    /// <summary>Words as the shell makes them, with either kind of quotes, and a backslash within double ones.</summary>
    private static string[] Words(string line)
    {
        var words = new List<string>();
        foreach (Match m in Word().Matches(line))
            words.Add(Part().Replace(m.Value, static p => p.Value[0] switch
            {
                '\'' => p.Value[1..^1],
                '"' => p.Value[1..^1].Replace("\\\"", "\"", StringComparison.Ordinal),
                _ => p.Value,
            }));
        return [.. words];
    }

    /// <summary>Without clocks, chance, and the space that files take, which is each tool's own affair.</summary>
    private static string Comparable(Outcome o) => Unsteady().Replace(o.ToString(), static m => m.Groups.Cast<Group>().Skip(1).First(static g => g.Success).Value + "X");

    [GeneratedRegex("""(?:'[^']*'|"(?:\\.|[^"])*"|[^\s'"])+""")]
    private static partial Regex Word();

    [GeneratedRegex("""'[^']*'|"(?:\\.|[^"])*"|[^'"]+""")]
    private static partial Regex Part();

    [GeneratedRegex("""(disk size: )[^\n]*|("actual-size": )\d+|()\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|("date-n?sec": )\d+|((?:parent-)?cid"?: )\d+|(completed in )[\d.]+|(Image end offset: )\d+|("image-end-offset": )\d+""")]
    private static partial Regex Unsteady();
}
