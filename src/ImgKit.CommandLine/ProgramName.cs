namespace ImgKit.CommandLine;

/// <summary>The name that this program was called by.</summary>
public static class ProgramName
{
    private static string? _called;

    /// <summary>The first argument as the caller gave it: a name or a path.</summary>
    public static string Called => _called ??= Read();

    /// <summary>Its last part, which stands in front of messages.</summary>
    public static string Base
    {
        get
        {
            string called = Called;
            return called[(called.LastIndexOf('/') + 1)..];
        }
    }

    private static string Read()
    {
        string[] all = Environment.GetCommandLineArgs();
        // Not compiled ahead of time, the first argument is the assembly's path: ask the system instead.
        if (all.Length > 0 && all[0].EndsWith(".dll", StringComparison.Ordinal))
            all = File.ReadAllText("/proc/self/cmdline").Split('\0');
        return all.Length > 0 && all[0].Length > 0 ? all[0] : "program";
    }
}
