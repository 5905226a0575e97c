using System.Diagnostics;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Runs the peer's programs: the oracle.</summary>
internal static class Peer
{
    /// <summary>Runs a program that must succeed.</summary>
    /// <returns>what it printed.</returns>
    public static string Run(string program, params string[] arguments)
    {
        var (code, output) = TryRun(program, arguments);
        Assert.True(code == 0, $"{program} {string.Join(' ', arguments)}: exit code {code}\n{output}");
        return output;
    }

    public static (int Code, string Output) TryRun(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string a in arguments)
            start.ArgumentList.Add(a);
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd() + error.Result;
        process.WaitForExit();
        return (process.ExitCode, output);
    }

    public static string Img(params string[] arguments) => Run("qemu-img", arguments);

    public static string Io(params string[] arguments) => Run("qemu-io", arguments);

    /// <summary>The peer finds nothing to complain of.</summary>
    public static void CheckClean(string image) => Img("check", "-q", image);

    /// <summary>The image's content as the peer reads it.</summary>
    public static byte[] Content(string image, params string[] more)
    {
        string raw = image + ".raw";
        Img(["convert", .. more, "-O", "raw", image, raw]);
        byte[] content = File.ReadAllBytes(raw);
        File.Delete(raw);
        return content;
    }
}
