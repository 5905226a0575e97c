using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;

namespace ImgKit.Block.Tests;

/// <summary>
/// Runs the programs that others wrote: the oracle. A few shells, started before the tests, do the starting: a process that forks hands
/// its open files, and the locks on them, to the child for a moment, in which other tests would find images in use.
/// </summary>
internal static class Peer
{
    private const int Shells = 6;
    private static readonly BlockingCollection<Process> Idle = [];

    [ModuleInitializer]
    internal static void StartShells()
    {
        for (int i = 0; i < Shells; i++)
            Idle.Add(Process.Start(new ProcessStartInfo("/bin/sh") { RedirectStandardInput = true, RedirectStandardOutput = true })!);
    }

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
        string output = Path.GetTempFileName();
        var shell = Idle.Take();
        try
        {
            string command = string.Join(' ', arguments.Prepend(program).Select(Quote));
            shell.StandardInput.WriteLine($"{command} >{Quote(output)} 2>&1 </dev/null; echo $?");
            shell.StandardInput.Flush();
            string? code = shell.StandardOutput.ReadLine();
            return (int.Parse(code ?? "255", CultureInfo.InvariantCulture), File.ReadAllText(output));
        }
        finally
        {
            Idle.Add(shell);
            File.Delete(output);
        }
    }

    public static string QemuImg(params string[] arguments) => Run("qemu-img", arguments);

    /// <summary>Runs commands of qemu-io on an image.</summary>
    public static string QemuIo(string image, string format, params string[] commands)
    {
        string[] arguments = [.. commands.SelectMany(c => new[] { "-c", c }), "-f", format, image];
        return Run("qemu-io", arguments);
    }

    private static string Quote(string s) => "'" + s.Replace("'", "'\\''", StringComparison.Ordinal) + "'";
}
