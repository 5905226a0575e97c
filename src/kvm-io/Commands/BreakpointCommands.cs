using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary>Commands for images below which is a <c>blkdebug</c> device.</summary>
internal static class BreakpointCommands
{
    public static IoCommand Break { get; } = new()
    {
        Name = "break",
        Arguments = "event tag",
        Summary = "sets a breakpoint on event and tags the stopped request as tag",
        MinArguments = 2,
        MaxArguments = 2,
        Run = (session, a) => Debugger(session) is not { } d ? Failed("Could not set breakpoint: Operation not supported")
            : d.AddBreakpoint(a[1], a[2]) || Failed("Could not set breakpoint: No such file or directory"),
    };

    public static IoCommand RemoveBreak { get; } = new()
    {
        Name = "remove_break",
        Arguments = "tag",
        Summary = "remove a breakpoint by tag",
        MinArguments = 1,
        MaxArguments = 1,
        Run = (session, a) => Debugger(session) is not { } d ? Failed($"Could not remove breakpoint {a[1]}: Operation not supported")
            : d.RemoveBreakpoint(a[1]) || Failed($"Could not remove breakpoint {a[1]}: No such file or directory"),
    };

    public static IoCommand Resume { get; } = new()
    {
        Name = "resume",
        Arguments = "tag",
        Summary = "resumes the request tagged as tag",
        MinArguments = 1,
        MaxArguments = 1,
        Run = (session, a) => Debugger(session) is not { } d ? Failed("Could not resume request: Operation not supported")
            : d.Resume(a[1]) || Failed("Could not resume request: No such file or directory"),
    };

    public static IoCommand Wait { get; } = new()
    {
        Name = "wait_break",
        Arguments = "tag",
        Summary = "waits for the suspension of a request",
        MinArguments = 1,
        MaxArguments = 1,
        Run = (session, a) =>
        {
            // The peer waits for ever where nothing can be stopped.
            if (Debugger(session) is not { } d)
                return Failed("Could not wait for a breakpoint: Operation not supported");
            session.Async.Wait(long.MaxValue, () => d.IsSuspended(a[1]));
            return true;
        },
    };

    private static IBlockDebugger? Debugger(Session session)
    {
        for (BlockDevice? d = session.Device; d is not null; d = d.Storage)
            if (d is IBlockDebugger debugger)
                return debugger;
        return null;
    }

    private static bool Failed(string message)
    {
        Console.Out(message + "\n");
        return false;
    }
}
