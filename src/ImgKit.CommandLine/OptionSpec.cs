namespace ImgKit.CommandLine;

/// <summary>Whether an option takes a value.</summary>
public enum ArgumentKind
{
    /// <summary>It takes none.</summary>
    None,

    /// <summary>The value is attached, or is the next argument.</summary>
    Required,

    /// <summary>The value, if any, is attached: <c>-xVALUE</c>, <c>--long=VALUE</c>.</summary>
    Optional,
}

/// <summary>
/// An option, declared once: the parser, <c>--help</c>, the manual page and the shell completions read this.
/// </summary>
public sealed class OptionSpec
{
    /// <summary>An option with a short and perhaps a long name; its <see cref="Id"/> is the letter.</summary>
    /// <param name="letter">short name.</param>
    /// <param name="name">long name without dashes, or null.</param>
    /// <param name="value">what the value is called in help, or null: the option takes none.</param>
    /// <param name="help">a phrase.</param>
    public OptionSpec(char letter, string? name, string? value, string help)
        : this((int)letter, name, value, help)
    {
        Letter = letter;
    }

    /// <summary>An option with a long name only.</summary>
    /// <param name="id">what <see cref="GetOpt.Next"/> returns; above 255, so that it is no letter. Two names with one id (and one
    /// kind of argument) are one option: a common prefix of theirs is not ambiguous.</param>
    /// <param name="name">long name without dashes.</param>
    /// <param name="value">what the value is called in help, or null: the option takes none.</param>
    /// <param name="help">a phrase.</param>
    public OptionSpec(int id, string? name, string? value, string help)
    {
        Id = id;
        Name = name;
        ValueName = value;
        Help = help;
        Argument = value is null ? ArgumentKind.None : ArgumentKind.Required;
    }

    /// <summary>What the parser returns for it.</summary>
    public int Id { get; }

    /// <summary>Short name, or <c>'\0'</c>.</summary>
    public char Letter { get; }

    /// <summary>Long name without dashes, or null.</summary>
    public string? Name { get; }

    /// <summary>What the value is called in help.</summary>
    public string? ValueName { get; }

    /// <summary>A phrase, or sentences for the manual after a line break.</summary>
    public string Help { get; }

    /// <summary>Whether it takes a value.</summary>
    public ArgumentKind Argument { get; init; }

    /// <summary>Accepted, but not shown.</summary>
    public bool Hidden { get; init; }

    /// <summary>The words that the value can be, for completion.</summary>
    public IReadOnlyList<string>? Choices { get; init; }

    /// <summary>The value is a file name, for completion.</summary>
    public bool IsFile { get; init; }
}
