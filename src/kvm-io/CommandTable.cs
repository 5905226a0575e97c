namespace ImgKit.Programs.Io;

/// <summary>All commands, by name.</summary>
internal static class CommandTable
{
    public static IReadOnlyList<IoCommand> All { get; } =
    [
        ControlCommands.Abort,
        AsyncCommands.Flush,
        AsyncCommands.Read,
        AsyncCommands.Write,
        StateCommands.Alloc,
        BreakpointCommands.Break,
        ControlCommands.Close,
        StateCommands.Discard,
        StateCommands.Flush,
        ControlCommands.Help,
        StateCommands.Info,
        StateCommands.Length,
        StateCommands.Map,
        ControlCommands.Open,
        ControlCommands.Quit,
        ReadCommands.Read,
        ReadCommands.ReadVector,
        BreakpointCommands.RemoveBreak,
        ReopenCommand.Reopen,
        BreakpointCommands.Resume,
        ControlCommands.SigRaise,
        ControlCommands.Sleep,
        StateCommands.Truncate,
        BreakpointCommands.Wait,
        WriteCommands.Write,
        WriteCommands.WriteVector,
    ];

    /// <summary>The command of that name or short name, or null.</summary>
    public static IoCommand? Find(string name)
    {
        foreach (var c in All)
            if (c.Name == name || c.ShortName == name)
                return c;
        return null;
    }
}
