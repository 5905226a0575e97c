namespace ImgKit.CommandLine;

/// <summary>A command of a program: its options and operands, declared once.</summary>
public sealed class CommandSpec
{
    /// <summary>The word that calls it.</summary>
    public required string Name { get; init; }

    /// <summary>One line: what it does.</summary>
    public required string Summary { get; init; }

    /// <summary>Operands as usage shows them: <c>FILE [SIZE]</c>.</summary>
    public string Operands { get; init; } = "";

    /// <summary>Each operand's meaning.</summary>
    public IReadOnlyList<(string Name, string Help)> OperandHelp { get; init; } = [];

    /// <summary>Paragraphs for the manual.</summary>
    public string Description { get; init; } = "";

    /// <summary>The options, in the order that help shows.</summary>
    public required IReadOnlyList<OptionSpec> Options { get; init; }

    /// <summary>Works, but is not listed.</summary>
    public bool Hidden { get; init; }
}

/// <summary>A program: what <see cref="HelpText"/>, <see cref="ManualPage"/> and <see cref="ShellCompletion"/> are made from.</summary>
public sealed class ProgramSpec
{
    /// <summary>Its own name, for the manual (messages use the name that it was called by).</summary>
    public required string Name { get; init; }

    /// <summary>One line: what it is.</summary>
    public required string Summary { get; init; }

    /// <summary>For example <c>0.1.0</c>.</summary>
    public required string Version { get; init; }

    /// <summary>Paragraphs for the manual.</summary>
    public string Description { get; init; } = "";

    /// <summary>Options before the command, or all options of a program without commands.</summary>
    public required IReadOnlyList<OptionSpec> Options { get; init; }

    /// <summary>Operands of a program without commands.</summary>
    public string Operands { get; init; } = "";

    /// <summary>The commands; empty for a program without.</summary>
    public IReadOnlyList<CommandSpec> Commands { get; init; } = [];

    /// <summary>More of the manual: heading and paragraphs, for example exit status.</summary>
    public IReadOnlyList<(string Title, string Text)> Sections { get; init; } = [];
}
