namespace ImgKit.CommandLine;

/// <summary>What a program writes of itself: manual page and completions, from the declarations that its parser reads.</summary>
public static class GeneratedText
{
    /// <summary>The text, or null when <paramref name="what"/> is not <c>man</c>, <c>bash</c> or <c>zsh</c>.</summary>
    public static string? Write(ProgramSpec program, string what) => what switch
    {
        "man" => ManualPage.Write(program),
        "bash" => ShellCompletion.Bash(program),
        "zsh" => ShellCompletion.Zsh(program),
        _ => null,
    };

    /// <summary>The hidden option by which a program is asked.</summary>
    /// <param name="id">free in the program's table, above 255.</param>
    public static OptionSpec Option(int id) => new(id, "generate", "man|bash|zsh", "write the manual page or a completion") { Hidden = true };
}
