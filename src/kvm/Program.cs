using System.Globalization;
using System.Runtime.InteropServices;
using ImgKit.Block;
using ImgKit.CommandLine;
using ImgKit.Cpu.Kvm;
using ImgKit.Cpu.Models;
using ImgKit.Host;
using ImgKit.Machine;
using ImgKit.Machine.Monitors;

namespace ImgKit.Programs.Kvm;

/// <summary><c>kvm</c>: a PC, with the command line of qemu-system-x86_64.</summary>
internal static class Program
{
    private static int Main(string[] args)
    {
        try
        {
            return Run(args);
        }
        catch (Options.HelpRequested help)
        {
            OutputWriter.Out.Write(help.Text);
            OutputWriter.Out.Flush();
            return help.ExitCode;
        }
        catch (Exception e) when (e is UsageException or MachineException or ImageException or IOException or KvmException or CpuModelException
            or UnauthorizedAccessException or PlatformNotSupportedException or OutOfMemoryException)
        {
            Say(e.Message);
            return 1;
        }
    }

    /// <summary>A line for the user, with the program's name in front.</summary>
    internal static void Say(string message) => Print($"{ProgramName.Base}: {message}");

    /// <summary>A line that programs read.</summary>
    internal static void Tell(string message)
    {
        OutputWriter.Out.WriteLine(message);
        OutputWriter.Out.Flush();
    }

    /// <summary>A line for the user that stands by itself.</summary>
    internal static void Print(string message)
    {
        OutputWriter.Error.WriteLine(message);
        OutputWriter.Error.Flush();
    }

    /// <summary>A warning.</summary>
    internal static void Warn(string message) => Say("warning: " + message);

    private static int Run(string[] args)
    {
        var settings = Options.Parse(args);
        if (settings.Daemonize && !Daemon.IsChild)
            return Daemon.Start(args);
        using var builder = new MachineBuilder(settings);
        var pc = builder.Build();
        int log = OpenLog(settings, pc);
        var execution = settings.LogExecution ? new ExecutionLog(log, pc) : null;
        WritePidFile(settings);
        if (settings.ProcessName != null)
            File.WriteAllText("/proc/self/comm", settings.ProcessName);
        using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, c => Ask(c, pc));
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, c => Ask(c, pc));
        using var hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, c => Ask(c, pc));
        try
        {
            Daemon.Ready();
            builder.Start();
            int status = pc.RunUntilExit();
            if (settings.LogExits)
                Write(log, Registers.Exits(pc.Processors));
            return status;
        }
        finally
        {
            execution?.End();
            if (settings.PidFile != null)
                File.Delete(settings.PidFile);
        }
    }

    private static void Ask(PosixSignalContext context, Pc pc)
    {
        context.Cancel = true;
        pc.Quit(0, "host-signal");
    }

    private static void WritePidFile(Settings settings)
    {
        if (settings.PidFile == null)
            return;
        try
        {
            File.WriteAllText(settings.PidFile, Environment.ProcessId.ToString(CultureInfo.InvariantCulture) + "\n");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MachineException($"cannot create PID file: Could not create '{settings.PidFile}': {HostException.TextOf(e)}", e);
        }
    }

    private static int OpenLog(Settings settings, Pc pc)
    {
        if (settings.LogFile == null)
            return -1;
        int fd;
        try
        {
            fd = settings.LogFile == "-" ? 2 : Descriptors.Create(settings.LogFile);
        }
        catch (IOException e)
        {
            throw new MachineException($"Error opening logfile {e.Message}", e);
        }
        if (settings.LogEvents || settings is { LogExits: false, LogExecution: false })
            pc.EventRaised += e => Write(fd, $"{DateTime.UtcNow:HH:mm:ss.fff} {e.Name}{string.Concat(e.Data.Select(d => $" {d.Name}={d.Value}"))}\n");
        return fd;
    }

    private static void Write(int log, string text) => Descriptors.WriteAll(log, System.Text.Encoding.UTF8.GetBytes(text));
}
