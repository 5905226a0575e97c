using System.Diagnostics;

namespace ImgKit.Guests;

/// <summary>Programs that prepare and judge images.</summary>
internal static class Tool
{
    /// <summary>Runs a program to its end, which must be a good one.</summary>
    /// <param name="program">a published program of ours by its name, one of the system's, or a path.</param>
    /// <param name="arguments">its arguments.</param>
    /// <returns>what it printed.</returns>
    internal static string Run(string program, params string[] arguments)
    {
        var (status, output, errors) = Try(program, arguments);
        Assert.True(status == 0, $"{program} {string.Join(' ', arguments)} ended with {status}:\n{output}{errors}");
        return output;
    }

    /// <summary>Runs a program to its end, within a minute or five.</summary>
    internal static (int Status, string Output, string Errors) Try(string program, params string[] arguments)
    {
        string own = Path.Combine(Repository.Root, "out/bin", program);
        var info = new ProcessStartInfo(!program.Contains('/') && File.Exists(own) ? own : program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(info)!;
        var errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(300_000), $"{program} does not end");
        // a paravirtual KVM comes with a warning, whatever else there is to say
        var lines = errors.Result.Split('\n').Where(l => !l.StartsWith("kvm: warning: KVM does not accelerate here: ", StringComparison.Ordinal));
        return (process.ExitCode, output, string.Join('\n', lines));
    }
}
