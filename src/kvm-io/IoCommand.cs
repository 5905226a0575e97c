namespace ImgKit.Programs.Io;

/// <summary>What a command needs to be allowed to do with the image.</summary>
internal enum CommandAccess
{
    /// <summary>Nothing, or reading.</summary>
    Read,

    /// <summary>Writing.</summary>
    Write,
}

/// <summary>A command of the language.</summary>
internal sealed class IoCommand
{
    public required string Name { get; init; }

    public string? ShortName { get; init; }

    /// <summary>Arguments as help shows them.</summary>
    public string? Arguments { get; init; }

    public required string Summary { get; init; }

    /// <summary>More help, or null.</summary>
    public string? Help { get; init; }

    public int MinArguments { get; init; }

    /// <summary>-1: any number.</summary>
    public int MaxArguments { get; init; }

    /// <summary>Works without an open image.</summary>
    public bool NeedsNoFile { get; init; }

    public CommandAccess Access { get; init; }

    /// <summary>Runs it; <c>arguments[0]</c> is the command's name as typed.</summary>
    /// <returns>false when it failed (and said so).</returns>
    public required Func<Session, string[], bool> Run { get; init; }

    /// <summary>Prints one line of help.</summary>
    /// <param name="typed">the name by which it was asked for; null: its own.</param>
    public void PrintUsage(string? typed = null) => Console.Out($"{typed ?? Name} {(Arguments is null ? "" : Arguments + " ")}-- {Summary}\n");

    /// <summary>Prints the usage; false, for <see cref="Run"/> to return.</summary>
    public bool Misused()
    {
        PrintUsage();
        return false;
    }
}
