namespace ImgKit.Machine;

/// <summary>What a machine is doing, with the names that <c>info status</c> and <c>query-status</c> print.</summary>
public enum RunState
{
    /// <summary>Made, not started yet (<c>-S</c>).</summary>
    Prelaunch,

    /// <summary>Running.</summary>
    Running,

    /// <summary>Stopped by the user.</summary>
    Paused,

    /// <summary>Stopped by a disk error.</summary>
    IoError,

    /// <summary>The guest has powered off, and <c>-no-shutdown</c> keeps the machine.</summary>
    Shutdown,

    /// <summary>The guest's kernel panicked and the machine was told to stop then.</summary>
    GuestPanicked,

    /// <summary>An engine could not go on.</summary>
    InternalError,
}

/// <summary>Names of run states.</summary>
public static class RunStateNames
{
    /// <summary>The name in monitors.</summary>
    public static string Name(this RunState state) => state switch
    {
        RunState.Prelaunch => "prelaunch",
        RunState.Running => "running",
        RunState.Paused => "paused",
        RunState.IoError => "io-error",
        RunState.Shutdown => "shutdown",
        RunState.GuestPanicked => "guest-panicked",
        _ => "internal-error",
    };
}
