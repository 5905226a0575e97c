using System.Text;

namespace ImgKit.CommandLine;

/// <summary>Completion for bash and zsh from the declarations.</summary>
public static class ShellCompletion
{
    /// <summary>A bash script that completes commands, options, and options' values.</summary>
    public static string Bash(ProgramSpec program)
    {
        var s = new StringBuilder();
        string function = "_" + program.Name.Replace('-', '_');
        s.Append("# bash completion for ").Append(program.Name).Append('\n')
            .Append(function).Append("()\n{\n")
            .Append("    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= i\n")
            .Append("    COMPREPLY=()\n");
        if (program.Commands.Count > 0)
        {
            s.Append("    for ((i = 1; i < COMP_CWORD; i++)); do\n        case ${COMP_WORDS[i]} in\n            ")
                .AppendJoin('|', Names(program)).Append(") cmd=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n");
        }
        s.Append("    case $cmd in\n");
        foreach (var c in program.Commands)
            if (!c.Hidden)
                BashCase(s, c.Name, c.Options, "");
        BashCase(s, "*", program.Options, program.Commands.Count > 0 ? string.Join(' ', Names(program)) : "");
        s.Append("    esac\n}\ncomplete -F ").Append(function).Append(" -o filenames ").Append(program.Name).Append('\n');
        return s.ToString();
    }

    private static void BashCase(StringBuilder s, string name, IReadOnlyList<OptionSpec> options, string words)
    {
        s.Append("        ").Append(name).Append(")\n            case $prev in\n");
        foreach (var o in options)
        {
            if (o.Hidden || o.Argument != ArgumentKind.Required)
                continue;
            s.Append("                ").AppendJoin('|', Spellings(o)).Append(") ")
                .Append(o.Choices is { } choices ? $"COMPREPLY=($(compgen -W '{string.Join(' ', choices)}' -- \"$cur\")); "
                    : o.IsFile ? "COMPREPLY=($(compgen -f -- \"$cur\")); " : "")
                .Append("return ;;\n");
        }
        s.Append("            esac\n            if [[ $cur == -* ]]; then\n                COMPREPLY=($(compgen -W '")
            .AppendJoin(' ', options.Where(static o => !o.Hidden).SelectMany(Spellings)).Append("' -- \"$cur\"))\n")
            .Append("            else\n                ")
            .Append(words.Length > 0 ? $"COMPREPLY=($(compgen -W '{words}' -- \"$cur\"))" : "COMPREPLY=($(compgen -f -- \"$cur\"))")
            .Append("\n            fi ;;\n");
    }

    /// <summary>A zsh function file.</summary>
    public static string Zsh(ProgramSpec program)
    {
        var s = new StringBuilder();
        s.Append("#compdef ").Append(program.Name).Append('\n');
        if (program.Commands.Count == 0)
        {
            ZshArguments(s, program.Options, "");
            return s.ToString();
        }
        s.Append("local state line context\nlocal -A opt_args\n_arguments -C \\\n");
        foreach (var o in program.Options)
            ZshOption(s, o, "    ");
        s.Append("    '1:command:->command' '*::argument:->argument' && return\ncase $state in\n    command)\n        local -a commands=(\n");
        foreach (var c in program.Commands)
            if (!c.Hidden)
                s.Append("            '").Append(c.Name).Append(':').Append(ZshText(c.Summary)).Append("'\n");
        s.Append("        )\n        _describe command commands ;;\n    argument)\n        case $words[1] in\n");
        foreach (var c in program.Commands)
        {
            if (c.Hidden)
                continue;
            s.Append("            ").Append(c.Name).Append(")\n");
            ZshArguments(s, c.Options, "                ");
            s.Append("                ;;\n");
        }
        return s.Append("        esac ;;\nesac\n").ToString();
    }

    private static void ZshArguments(StringBuilder s, IReadOnlyList<OptionSpec> options, string indent)
    {
        s.Append(indent).Append("_arguments -s \\\n");
        foreach (var o in options)
            ZshOption(s, o, indent + "    ");
        s.Append(indent).Append("    '*:file:_files'\n");
    }

    private static void ZshOption(StringBuilder s, OptionSpec o, string indent)
    {
        if (o.Hidden)
            return;
        string value = o.Argument == ArgumentKind.None ? ""
            : $":{ZshText(o.ValueName ?? "value")}:" + (o.Choices is { } c ? $"({string.Join(' ', c)})" : o.IsFile ? "_files" : "");
        foreach (string spelling in Spellings(o))
            s.Append(indent).Append('\'').Append(spelling)
                .Append(o.Argument != ArgumentKind.None && spelling.StartsWith("--", StringComparison.Ordinal) ? "=" : "")
                .Append('[').Append(ZshText(o.Help.Split('\n')[0])).Append(']').Append(value).Append("' \\\n");
    }

    private static string ZshText(string text) =>
        text.Replace("'", "", StringComparison.Ordinal).Replace("[", "(", StringComparison.Ordinal).Replace("]", ")", StringComparison.Ordinal)
            .Replace(":", "\\:", StringComparison.Ordinal);

    private static IEnumerable<string> Spellings(OptionSpec o)
    {
        if (o.Letter != '\0')
            yield return $"-{o.Letter}";
        if (o.Name is not null)
            yield return $"--{o.Name}";
    }

    private static IEnumerable<string> Names(ProgramSpec program) => program.Commands.Where(static c => !c.Hidden).Select(static c => c.Name);
}
