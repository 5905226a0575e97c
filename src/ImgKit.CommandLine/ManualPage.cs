using System.Text;

namespace ImgKit.CommandLine;

/// <summary>A manual page (roff, man(7) macros) from the declarations.</summary>
public static class ManualPage
{
    /// <summary>The page of a program, section 1.</summary>
    public static string Write(ProgramSpec program)
    {
        var s = new StringBuilder();
        s.Append(".TH ").Append(Escaped(program.Name.ToUpperInvariant())).Append(" 1 \"\" \"ImgKit ").Append(program.Version)
            .Append("\" \"ImgKit\"\n.SH NAME\n")
            .Append(Escaped(program.Name)).Append(" \\- ").Append(Escaped(program.Summary)).Append("\n.SH SYNOPSIS\n.B ")
            .Append(Escaped(program.Name)).Append('\n')
            .Append(program.Commands.Count > 0 ? "[\\fIoptions\\fR] \\fIcommand\\fR [\\fIcommand options\\fR] ...\n"
                : $"[\\fIoptions\\fR] {Escaped(program.Operands)}\n");
        if (program.Description.Length > 0)
            Section(s, "DESCRIPTION", program.Description);
        s.Append(".SH OPTIONS\n");
        Options(s, program.Options);
        if (program.Commands.Count > 0)
            s.Append(".SH COMMANDS\n");
        foreach (var c in program.Commands)
        {
            if (c.Hidden)
                continue;
            s.Append(".SS ").Append(Escaped(c.Name)).Append(" [\\fIoptions\\fR] ").Append(Escaped(c.Operands)).Append('\n')
                .Append(Escaped(c.Summary)).Append(".\n");
            Paragraphs(s, c.Description);
            foreach (var (name, help) in c.OperandHelp)
                s.Append(".TP\n.I ").Append(Escaped(name)).Append('\n').Append(Escaped(help)).Append('\n');
            Options(s, c.Options);
        }
        foreach (var (title, text) in program.Sections)
            Section(s, title.ToUpperInvariant(), text);
        return s.ToString();
    }

    private static void Section(StringBuilder s, string title, string text)
    {
        s.Append(".SH ").Append(Escaped(title)).Append('\n');
        bool first = true;
        foreach (string paragraph in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (!first)
                s.Append(".PP\n");
            first = false;
            s.Append(Escaped(paragraph)).Append('\n');
        }
    }

    private static void Paragraphs(StringBuilder s, string text)
    {
        foreach (string paragraph in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            s.Append(".PP\n").Append(Escaped(paragraph)).Append('\n');
    }

    private static void Options(StringBuilder s, IReadOnlyList<OptionSpec> options)
    {
        foreach (var o in options)
        {
            if (o.Hidden)
                continue;
            s.Append(".TP\n.BR \"").Append(Escaped(HelpText.Spelling(o))).Append("\"\n");
            foreach (string line in o.Help.Split('\n', StringSplitOptions.RemoveEmptyEntries))
                s.Append(Escaped(line)).Append('\n');
        }
    }

    /// <summary>A backslash, a dash, and a dot or quote at a line's start mean something to roff.</summary>
    private static string Escaped(string text)
    {
        string s = text.Trim().Replace("\\", "\\e", StringComparison.Ordinal).Replace("-", "\\-", StringComparison.Ordinal);
        return s.StartsWith('.') || s.StartsWith('\'') ? "\\&" + s : s;
    }
}
