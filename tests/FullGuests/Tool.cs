using System.Diagnostics;

namespace ImgKit.Guests;

/// <summary>Programs that prepare and judge images.</summary>
internal static class Tool
{
    /// <summary>Runs a program to its end, which must be a good one.</summary>
    /// <param name="program">a published program of ours by its name, or a path.</param>
    /// <param name="arguments">its arguments.</param>
    /// <returns>what it printed.</returns>
    internal static string Run(string program, params string[] arguments)
    {
        var info = new ProcessStartInfo(program.Contains('/') ? program : Path.Combine(Repository.Root, "out/bin", program))
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (string argument in arguments)
            info.ArgumentList.Add(argument);
        using var process = Process.Start(info)!;
        var errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)} ended with {process.ExitCode}:\n{output}{errors.Result}");
        return output;
    }
}
