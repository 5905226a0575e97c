using System.Diagnostics;

namespace ImgKit.Guests;

/// <summary>Where things are: the program as published, and the guests that packages bring.</summary>
internal static class Repository
{
    internal static string Root { get; } = FindRoot();

    internal static string Program
    {
        get
        {
            string published = Path.Combine(Root, "out/bin/kvm");
            return File.Exists(published) ? published : throw new FileNotFoundException("publish the program first: scripts/publish kvm", published);
        }
    }

    /// <summary>Debian's cloud kernel and a busybox initramfs that prints, then powers off; made once.</summary>
    internal static (string Kernel, string InitialRamDisk) CloudKernel { get; } = MakeKernel("cloud");

    /// <summary>One of Debian's kernels (amd64: with all drivers; 686: without PAE), and its initramfs.</summary>
    internal static (string Kernel, string InitialRamDisk) MakeKernel(string flavour)
    {
        var info = new ProcessStartInfo(Path.Combine(Root, "scripts/guest-kernel"), [flavour]) { RedirectStandardOutput = true };
        using var process = System.Diagnostics.Process.Start(info)!;
        string[] lines = process.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
        process.WaitForExit();
        return process.ExitCode == 0 && lines.Length == 2 ? (lines[0], lines[1])
            : throw new InvalidOperationException("scripts/guest-kernel has failed");
    }

    private static string FindRoot()
    {
        string at = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(at, "global.json")))
            at = Path.GetDirectoryName(at) ?? throw new DirectoryNotFoundException("not inside the repository");
        return at;
    }
}
