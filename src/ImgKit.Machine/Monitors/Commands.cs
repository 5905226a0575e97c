using ImgKit.Cpu;
using ImgKit.Host;
using ImgKit.Machine.Devices.Display;

namespace ImgKit.Machine.Monitors;

/// <summary>A command was given wrongly or could not be done; the message is for the monitor's user.</summary>
/// <param name="message">one line.</param>
/// <param name="kind">the class that QMP gives the error.</param>
public sealed class CommandException(string message, string kind = "GenericError") : Exception(message)
{
    /// <summary>The class that QMP gives the error.</summary>
    public string Kind => kind;

    /// <summary>There is no device of a name.</summary>
    public static CommandException NoDevice(string name) => new($"Device '{name}' not found", "DeviceNotFound");
}

/// <summary>What monitors do to a machine, whatever language the monitor speaks. On the control thread.</summary>
internal static class Commands
{
    /// <param name="pc">the machine.</param>
    /// <param name="file">where the picture goes.</param>
    /// <param name="format">png or ppm; null: by the file's name.</param>
    /// <param name="device">whose screen; null: the first.</param>
    internal static void ScreenDump(Pc pc, string file, string? format, string? device = null)
    {
        if (format is not (null or "png" or "ppm"))
            throw new CommandException($"Parameter 'format' does not accept value '{format}'");
        var screens = pc.Devices.Where(d => d is IScreenSource);
        if (device != null && pc.Devices.All(d => d.Id != device))
            throw CommandException.NoDevice(device);
        if (screens.FirstOrDefault(d => device == null || d.Id == device) is not IScreenSource screen)
            throw new CommandException("There is no console to take a screendump from");
        ScreenImage image;
        lock (pc.Services.Lock)
            image = screen.Capture();
        bool png = (format ?? (file.EndsWith(".png", StringComparison.OrdinalIgnoreCase) ? "png" : "ppm")) == "png";
        byte[] content = png ? image.ToPng() : image.ToPpm();
        Guarded(file, () => File.WriteAllBytes(file, content), "failed to open file");
    }

    /// <summary>Makes a file. Throws <see cref="CommandException"/>.</summary>
    internal static FileStream CreateFile(string file)
    {
        FileStream? made = null;
        Guarded(file, () => made = File.Create(file));
        return made!;
    }

    /// <summary>Works on a file; what fails is the user's.</summary>
    internal static void Guarded(string file, Action work, string what = "Could not open")
    {
        try
        {
            work();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new CommandException($"{what} '{file}': {(e is ArgumentException ? "No such file or directory" : HostException.TextOf(e))}");
        }
    }

    /// <summary>The processor of a number. Throws <see cref="CommandException"/>.</summary>
    internal static Vcpu Processor(Pc pc, int index) =>
        pc.Processors.ElementAtOrDefault(index) ?? throw new CommandException("Parameter 'cpu-index' expects a CPU number");

    internal static CpuState StateOf(Pc pc, int cpu) => pc.WithStandingProcessors(() =>
    {
        var state = new CpuState();
        Processor(pc, cpu).GetState(state);
        return state;
    });

    /// <summary>Presses keys, and lets them go again in the opposite order.</summary>
    internal static void SendKeys(Pc pc, IReadOnlyList<int> codes, int holdMilliseconds)
    {
        lock (pc.Services.Lock)
            foreach (int c in codes)
                pc.Keyboard.Keyboard.Key(c, true);
        pc.Services.Loop.After(holdMilliseconds, () =>
        {
            for (int i = codes.Count - 1; i >= 0; i--)
                pc.Keyboard.Keyboard.Key(codes[i], false);
        });
    }
}
