using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>A command: its declaration and what it does.</summary>
internal abstract class Command
{
    private CommandSpec? _spec;

    /// <summary>The declaration.</summary>
    public CommandSpec Spec => _spec ??= Declare();

    /// <summary>Makes the declaration.</summary>
    protected abstract CommandSpec Declare();

    /// <summary>Runs with the command's own name as first argument.</summary>
    /// <returns>the exit code.</returns>
    public abstract int Run(string[] arguments);

    /// <summary>Calls <paramref name="take"/> for each option, and returns the operands. Help, and options that every command knows, are
    /// dealt with here.</summary>
    protected ReadOnlySpan<string> Parse(string[] arguments, CommonOptions common, Action<int, string> take)
    {
        var options = new GetOpt(JoinProgressForm(arguments), Spec.Options);
        for (int c; (c = options.Next()) != GetOpt.End;)
        {
            switch (c)
            {
                case GetOpt.MissingArgument:
                    throw new UsageException($"missing argument for option '{options.LastTaken}'");
                case GetOpt.Unrecognized:
                    throw new UsageException($"unrecognized option '{options.LastTaken}'");
                case 'h':
                    OutputWriter.Out.Write(HelpText.Command(Spec, ProgramName.Base));
                    OutputWriter.Out.Flush();
                    throw new ReportedException(0);
                default:
                    if (!common.Take(c, options.Value ?? ""))
                        take(c, options.Value ?? "");
                    break;
            }
        }
        return options.Operands;
    }

    /// <summary>The peer's <c>--progress</c> has no value, so ours is optional and stands behind <c>=</c>; written as
    /// a word of its own, <c>--progress json</c> is understood, too. (An image of that name can be given as <c>./json</c>.)</summary>
    private static string[] JoinProgressForm(string[] arguments)
    {
        int at = Array.IndexOf(arguments, "--progress");
        if (at < 0 || at + 1 >= arguments.Length || arguments[at + 1] is not ("json" or "text"))
            return arguments;
        return [.. arguments[..at], "--progress=" + arguments[at + 1], .. arguments[(at + 2)..]];
    }
}
