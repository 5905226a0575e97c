using System.Diagnostics;
using System.Text;
using FsCheck.Fluent;

namespace ImgKit.CommandLine.Tests;

/// <summary>The parser beside the C library's own, through a small C program.</summary>
public sealed class GetOptTests
{
    private static readonly OptionSpec[] Options =
    [
        new('f', "format", "FMT", ""),
        new(300, "force", null, ""),
        new('U', "force-share", null, ""),
        new('q', "quiet", null, ""),
        new(301, "output", "FMT", ""),
        new('o', "options", "OPTS", ""),
        new('r', "repair", "WHAT", "") { Argument = ArgumentKind.Optional },
        new(302, "colour", "WHEN", "") { Argument = ArgumentKind.Optional },
        new(302, "color", "WHEN", "") { Argument = ArgumentKind.Optional },
        new('f', "x-format", "FMT", ""),
        new('c', null, null, ""),
    ];

    private static readonly string[] Words =
    [
        "-f", "-fraw", "-q", "-qf", "-qfraw", "-qU", "-r", "-rall", "-qrall", "-c", "-x", "-qxU", "-o", "--format", "--format=raw", "--form",
        "--for", "--forc", "--force", "--force=1", "--force-", "--o", "--ou=json", "--out", "--repair", "--repair=all", "--rep", "--co", "--colo",
        "--colour=x", "--nothing", "--nothing=1", "--", "-", "--f", "--q=1", "--quiet=", "--x=qcow2", "a", "b.img", "", "-:", "--=", "-q-",
    ];

    [Fact]
    public void Everything_a_caller_can_write_is_read_as_the_C_library_reads_it()
    {
        var cases = new List<(bool Stop, string[] Arguments)>();
        foreach (string a in Words)
        {
            cases.Add((false, [a]));
            foreach (string b in Words)
                cases.Add((false, [a, b]));
        }
        cases.AddRange(Gen.ArrayOf(Gen.Elements(Words)).Sample(3000, 7).Select((a, i) => (i % 4 == 0, a)));
        var expected = Oracle(cases);
        for (int i = 0; i < cases.Count; i++)
            Assert.Equal((string.Join(" | ", cases[i].Arguments), expected[i]), (string.Join(" | ", cases[i].Arguments), Ours(cases[i].Stop, cases[i].Arguments)));
    }

    private static string Ours(bool stop, string[] arguments)
    {
        var s = new StringBuilder();
        var g = new GetOpt(["prog", .. arguments], Options, stop ? GetOptOrder.StopAtOperand : GetOptOrder.Permute);
        for (int c; (c = g.Next()) != GetOpt.End;)
        {
            if (c is GetOpt.Unrecognized or GetOpt.MissingArgument)
                s.Append("prog: ").Append(g.Error).Append("\n63\n");
            else if (g.Value is { } v)
                s.Append(c).Append(' ').Append(v).Append('\n');
            else
                s.Append(c).Append('\n');
        }
        s.Append("operands:");
        foreach (string o in g.Operands)
            s.Append(' ').Append(o);
        return s.Append('\n').ToString();
    }

    private static List<string> Oracle(List<(bool Stop, string[] Arguments)> cases)
    {
        string folder = AppContext.BaseDirectory;
        string program = Path.Combine(folder, "getopt_oracle");
        using (var compile = Process.Start(new ProcessStartInfo("gcc", ["-O1", "-o", program, Path.Combine(folder, "getopt_oracle.c")]))!)
        {
            compile.WaitForExit();
            Assert.Equal(0, compile.ExitCode);
        }
        using var p = Process.Start(new ProcessStartInfo(program) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        var reading = p.StandardOutput.ReadToEndAsync();
        foreach (var (stop, arguments) in cases)
        {
            p.StandardInput.Write($"{arguments.Length}\0{(stop ? "+" : "-")}\0");
            foreach (string a in arguments)
                p.StandardInput.Write(a + "\0");
        }
        p.StandardInput.Close();
        var result = new List<string>();
        var s = new StringBuilder();
        foreach (string line in reading.Result.Split('\n'))
        {
            s.Append(line).Append('\n');
            if (line.StartsWith("operands:", StringComparison.Ordinal))
            {
                result.Add(s.ToString());
                s.Clear();
            }
        }
        return result;
    }
}
