using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace ImgKit.Conformance;

/// <summary>Runs programs: ours, and those that others wrote.</summary>
internal static class Programs
{
    private static readonly string Root = FindRoot();

    /// <summary>One of ours: published (<c>out/bin</c>) or, where it is not, as built.</summary>
    public static string Ours(string name)
    {
        string[] places =
        [
            $"{Root}/out/bin/{name}",
            $"{Root}/src/{name}/bin/Release/net10.0/linux-x64/{name}",
            $"{Root}/src/{name}/bin/Debug/net10.0/linux-x64/{name}",
        ];
        // The newest, for a published one may be of yesterday.
        return places.Where(File.Exists).OrderByDescending(File.GetLastWriteTimeUtc).FirstOrDefault()
            ?? throw new FileNotFoundException($"{name} is neither published nor built");
    }

    /// <summary>Runs a program and expects exit code 0.</summary>
    /// <returns>what it printed on both streams.</returns>
    public static string Run(string program, params string[] arguments)
    {
        var (code, output) = TryRun(program, arguments);
        Assert.True(code == 0, $"{program} {string.Join(' ', arguments)}: exit code {code}\n{output}");
        return output;
    }

    /// <summary>Runs a program.</summary>
    public static (int Code, string Output) TryRun(string program, params string[] arguments)
    {
        using var p = Start(program, arguments);
        var output = Task.Run(p.StandardOutput.ReadToEnd);
        var errors = Task.Run(p.StandardError.ReadToEnd);
        if (!p.WaitForExit(60_000) || !Task.WaitAll([output, errors], 10_000))
        {
            p.Kill();
            Assert.Fail($"{program} {string.Join(' ', arguments)} does not end");
        }
        return (p.ExitCode, output.Result + errors.Result);
    }

    /// <summary>Runs a program in a folder, called by a name that may be another's.</summary>
    public static Outcome RunAs(string name, string program, string folder, params string[] arguments)
    {
        var info = new ProcessStartInfo("bash") { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        info.Environment["LC_ALL"] = "C";
        foreach (string a in (string[])["-c", "exec -a \"$0\" \"$@\"", name, program, .. arguments])
            info.ArgumentList.Add(a);
        using var p = Process.Start(info)!;
        p.StandardInput.Close();
        var error = p.StandardError.ReadToEndAsync();
        var output = p.StandardOutput.ReadToEndAsync();
        if (!p.WaitForExit(60_000))
        {
            p.Kill();
            Assert.Fail($"{program} {string.Join(' ', arguments)} does not end");
        }
        return new Outcome(p.ExitCode, output.Result, error.Result);
    }

    /// <summary>Starts a program.</summary>
    public static Process Start(string program, params string[] arguments)
    {
        var info = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        // The Python that has libnbd's module is the system's.
        info.Environment["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin";
        foreach (string a in arguments)
            info.ArgumentList.Add(a);
        var p = Process.Start(info)!;
        p.StandardInput.Close();
        return p;
    }

    private static string FindRoot([CallerFilePath] string here = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "../.."));
}
