using ImgKit.CommandLine;

namespace ImgKit.Programs.Io;

/// <summary>The letters of a command, taken one after the other.</summary>
internal sealed class CommandOptions
{
    private readonly string[] _arguments;
    private readonly GetOpt _options;

    /// <param name="arguments">with the command's name in front.</param>
    /// <param name="letters">as getopt takes them: a colon behind those that have a value.</param>
    public CommandOptions(string[] arguments, string letters)
    {
        _arguments = arguments;
        var specs = new List<OptionSpec>(letters.Length);
        for (int i = 0; i < letters.Length; i++)
        {
            bool value = i + 1 < letters.Length && letters[i + 1] == ':';
            specs.Add(new OptionSpec(letters[i], null, value ? "value" : null, ""));
            if (value)
                i++;
        }
        _options = new GetOpt(arguments, specs);
    }

    /// <summary>The value of the last option.</summary>
    public string Value => _options.Value ?? "";

    /// <summary>What is behind the options.</summary>
    public ReadOnlySpan<string> Operands => _options.Operands;

    /// <summary>Takes the next letter; '?' is one that is wrong, which has been said then.</summary>
    /// <returns>false at the end.</returns>
    public bool Next(out char letter)
    {
        int c = _options.Next();
        letter = c is GetOpt.Unrecognized or GetOpt.MissingArgument ? '?' : (char)Math.Max(c, 0);
        if (letter == '?')
            Console.Error($"{_arguments[0]}: {_options.Error}");
        return c != GetOpt.End;
    }
}
