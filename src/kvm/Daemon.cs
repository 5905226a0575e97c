using System.Diagnostics;
using ImgKit.Host;

namespace ImgKit.Programs.Kvm;

/// <summary>
/// <c>-daemonize</c>: a runtime with threads cannot fork, so the program starts itself again in a session of its own and returns when
/// that one says that its machine is set up, or why it is not.
/// </summary>
internal static class Daemon
{
    private const string Mark = "IMGKIT_KVM_DAEMON";

    internal static bool IsChild => Environment.GetEnvironmentVariable(Mark) == "1";

    internal static int Start(string[] args)
    {
        var info = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardOutput = true, RedirectStandardInput = true, UseShellExecute = false };
        foreach (string a in args)
            info.ArgumentList.Add(a);
        info.Environment[Mark] = "1";
        using var child = Process.Start(info)!;
        // This line means that it runs; the end of the stream, that it has said why not.
        while (child.StandardOutput.ReadLine() is { } line)
        {
            if (line == "ready")
                return 0;
            Program.Tell(line);
        }
        child.WaitForExit();
        return child.ExitCode == 0 ? 1 : child.ExitCode;
    }

    /// <summary>In the child: leaves the terminal, and lets the parent go.</summary>
    internal static void Ready()
    {
        if (!IsChild)
            return;
        Descriptors.WriteAll(1, "ready\n"u8);
        Descriptors.DetachFromTerminal();
    }
}
