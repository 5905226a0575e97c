using System.Diagnostics;

namespace ImgKit.KvmRig;

/// <summary>One run of scripts/test-kvm, which all tests share.</summary>
public sealed class Rig
{
    private readonly Dictionary<string, string> _results = [];

    /// <summary>Runs it.</summary>
    public Rig()
    {
        var info = new ProcessStartInfo(Path.Combine(Root, "scripts/test-kvm"), "all") { RedirectStandardOutput = true, RedirectStandardError = true };
        info.Environment["PUBLISH"] = "0"; // what scripts/test has published
        using var process = Process.Start(info)!;
        process.ErrorDataReceived += (_, e) => Console.Error.WriteLine(e.Data);
        process.BeginErrorReadLine();
        while (process.StandardOutput.ReadLine() is { } line)
        {
            Log += line + "\n";
            // an emulated host that stood still, and was run again, must show even where all passed
            if (line.StartsWith("kvm-rig: ", StringComparison.Ordinal))
                Console.Error.WriteLine(line);
            string[] kinds = ["SMOKE ", "BOOT ", "PROGRAM ", "GUESTS "];
            int colon = line.IndexOf(": ", StringComparison.Ordinal);
            if (colon > 0 && kinds.Any(k => line.StartsWith(k, StringComparison.Ordinal)) && Verdict(line) is { } verdict)
                _results[line[..verdict]] = line[(verdict + 2)..];
        }
        process.WaitForExit();
    }

    /// <summary>All that was said.</summary>
    public string Log { get; private set; } = "";

    /// <summary>What begins with a word, with its result.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Of(string kind) =>
        [.. _results.Where(r => r.Key.StartsWith(kind + " ", StringComparison.Ordinal))];

    /// <summary>The result of one; null when it did not come to it.</summary>
    public string? this[string name] => _results.GetValueOrDefault(name);

    // Names have colons, too: the result begins at the last one before "pass" or "FAIL".
    private static int? Verdict(string line)
    {
        int pass = line.LastIndexOf(": pass", StringComparison.Ordinal), fail = line.IndexOf(": FAIL", StringComparison.Ordinal);
        return fail > 0 ? fail : pass > 0 ? pass : null;
    }

    internal static string Root
    {
        get
        {
            string at = AppContext.BaseDirectory;
            while (!File.Exists(Path.Combine(at, "global.json")))
                at = Path.GetDirectoryName(at) ?? throw new DirectoryNotFoundException("not inside the repository");
            return at;
        }
    }
}
