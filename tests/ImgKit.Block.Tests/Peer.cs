using System.Diagnostics;

namespace ImgKit.Block.Tests;

/// <summary>Runs the programs that others wrote: the oracle.</summary>
internal static class Peer
{
    /// <summary>Runs a program and expects exit code 0.</summary>
    /// <returns>what it printed.</returns>
    public static string Run(string program, params string[] arguments)
    {
        var (code, output) = TryRun(program, arguments);
        Assert.True(code == 0, $"{program} {string.Join(' ', arguments)}: exit code {code}\n{output}");
        return output;
    }

    /// <summary>Runs a program.</summary>
    /// <returns>its exit code, and what it printed on both streams.</returns>
    public static (int Code, string Output) TryRun(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        foreach (string a in arguments)
            start.ArgumentList.Add(a);
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + error.Result);
    }

    public static string QemuImg(params string[] arguments) => Run("qemu-img", arguments);

    /// <summary>Runs commands of qemu-io on an image.</summary>
    public static string QemuIo(string image, string format, params string[] commands)
    {
        string[] arguments = [.. commands.SelectMany(c => new[] { "-c", c }), "-f", format, image];
        return Run("qemu-io", arguments);
    }
}
