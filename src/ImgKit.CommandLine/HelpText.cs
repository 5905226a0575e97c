using System.Text;

namespace ImgKit.CommandLine;

/// <summary><c>--help</c> from the declarations.</summary>
public static class HelpText
{
    private const int Column = 27;
    private const int Width = 80;

    /// <summary>Usage, options and commands of a program.</summary>
    /// <param name="program">what.</param>
    /// <param name="called">the name that it was called by.</param>
    public static string Program(ProgramSpec program, string called)
    {
        var s = new StringBuilder();
        string rest = program.Commands.Count > 0 ? "[standard options] command [command options]" : $"[OPTIONS]... {program.Operands}";
        s.Append("usage: ").Append(called).Append(' ').Append(rest).Append('\n').Append(program.Summary).Append("\n\n");
        Options(s, program.Options);
        if (program.Commands.Count > 0)
        {
            s.Append("\nCommands ('").Append(called).Append(" COMMAND --help' tells more):\n");
            foreach (var c in program.Commands)
                if (!c.Hidden)
                    Entry(s, "  " + c.Name, c.Summary);
            s.Append("\nCommand syntax:\n");
            foreach (var c in program.Commands)
                if (!c.Hidden)
                    s.Append("  ").Append(Syntax(c)).Append('\n');
        }
        foreach (var (title, text) in program.Sections)
            s.Append('\n').Append(title).Append(":\n").Append(Wrapped(text, 2)).Append('\n');
        return s.ToString();
    }

    /// <summary>Usage and options of a command, in the peer's layout: each option on a line, its meaning indented below it.</summary>
    public static string Command(CommandSpec command, string called)
    {
        var s = new StringBuilder("Usage:\n");
        s.Append(Wrapped($"{called} {Syntax(command)}", 2, 8)).Append('\n').Append(command.Summary).Append(".\n\nArguments:\n");
        foreach (var o in command.Options)
            if (!o.Hidden)
                Argument(s, Spelling(o), o.Help);
        foreach (var (name, help) in command.OperandHelp)
            Argument(s, name, help);
        if (command.Description.Length > 0)
            s.Append('\n').Append(Wrapped(command.Description, 0)).Append('\n');
        return s.ToString();
    }

    /// <summary>One line: the command with all its options.</summary>
    public static string Syntax(CommandSpec command)
    {
        var s = new StringBuilder(command.Name);
        foreach (var o in command.Options)
        {
            if (o.Hidden)
                continue;
            s.Append(" [").Append(o.Letter != '\0' ? $"-{o.Letter}" : $"--{o.Name}");
            if (o.ValueName is not null)
                s.Append(o.Letter != '\0' ? " " : "=").Append(o.ValueName);
            s.Append(']');
        }
        if (command.Operands.Length > 0)
            s.Append(' ').Append(command.Operands);
        return s.ToString();
    }

    /// <summary>How an option is written: <c>-f, --format=FMT</c>.</summary>
    internal static string Spelling(OptionSpec o)
    {
        string value = o.ValueName ?? "";
        bool optional = o.Argument == ArgumentKind.Optional;
        if (o.Name is null)
            return value.Length == 0 ? $"-{o.Letter}" : optional ? $"-{o.Letter}[{value}]" : $"-{o.Letter} {value}";
        string longName = value.Length == 0 ? $"--{o.Name}" : optional ? $"--{o.Name}[={value}]" : $"--{o.Name}={value}";
        return o.Letter == '\0' ? longName : $"-{o.Letter}, {longName}";
    }

    private static void Options(StringBuilder s, IReadOnlyList<OptionSpec> options)
    {
        foreach (var o in options)
            if (!o.Hidden)
                Entry(s, o.Letter == '\0' ? "      " + Spelling(o) : "  " + Spelling(o), o.Help);
    }

    private static void Argument(StringBuilder s, string spelling, string help) =>
        s.Append("  ").Append(spelling).Append('\n').Append(Wrapped(help, 5)).Append('\n');

    private static void Entry(StringBuilder s, string left, string help)
    {
        s.Append(left);
        if (left.Length + 2 > Column)
            s.Append('\n').Append(' ', Column);
        else
            s.Append(' ', Column - left.Length);
        s.Append(Wrapped(help, Column).AsSpan(Column)).Append('\n');
    }

    /// <summary>Text in lines of at most 80 characters, each indented; paragraphs are kept apart. What stands in brackets is not
    /// broken.</summary>
    /// <param name="text">to wrap.</param>
    /// <param name="indent">of a paragraph's first line.</param>
    /// <param name="hanging">of its other lines; the same where it is not given.</param>
    internal static string Wrapped(string text, int indent, int hanging = -1)
    {
        hanging = hanging < 0 ? indent : hanging;
        var s = new StringBuilder();
        foreach (string paragraph in text.Split('\n'))
        {
            if (s.Length > 0)
                s.Append('\n');
            s.Append(' ', indent);
            int column = indent;
            bool first = true;
            foreach (string word in Words(paragraph))
            {
                if (!first && column + 1 + word.Length > Width)
                {
                    s.Append('\n').Append(' ', hanging);
                    column = hanging;
                    first = true;
                }
                if (!first)
                {
                    s.Append(' ');
                    column++;
                }
                first = false;
                s.Append(word);
                column += word.Length;
            }
        }
        return s.ToString();
    }

    private static IEnumerable<string> Words(string text)
    {
        int start = -1, depth = 0;
        for (int i = 0; i <= text.Length; i++)
        {
            char c = i < text.Length ? text[i] : ' ';
            depth += c == '[' ? 1 : c == ']' ? -1 : 0;
            if (c == ' ' && (depth <= 0 || i == text.Length))
            {
                if (start >= 0)
                    yield return text[start..i];
                start = -1;
            }
            else if (start < 0)
            {
                start = i;
            }
        }
    }
}
