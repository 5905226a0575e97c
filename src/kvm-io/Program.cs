using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Io;

/// <summary><c>kvm-io</c>: opens an image and runs commands on it, from <c>-c</c> or from standard input.</summary>
internal static class Program
{
    private static int Main(string[] args)
    {
        int code;
        OutputWriter.OpenStandardStreams();
        try
        {
            code = Run([ProgramName.Called, .. args]);
        }
        catch (Exception e) when (IoError.IsRequestError(e) || e is UnauthorizedAccessException or OverflowException)
        {
            Console.Report(e.Message);
            code = 1;
        }
        try
        {
            OutputWriter.Out.Close();
        }
        catch (OutputException e)
        {
            Console.Report(e.Message);
            code = 1;
        }
        return code;
    }

    private static int Run(string[] arguments)
    {
        var options = new GetOpt(arguments, IoProgram.Options);
        var commands = new List<string>();
        var objects = new BlockObjects();
        bool imageOpts = false, misaligned = false;
        OpenRequest? request = new();
        for (int c; (c = options.Next()) != GetOpt.End;)
        {
            string value = options.Value ?? "";
            switch (c)
            {
                case GetOpt.Unrecognized or GetOpt.MissingArgument:
                    Console.Error($"{ProgramName.Called}: {options.Error}");
                    Console.Out(IoProgram.Help());
                    return 1;
                case 'f':
                    request = request with { Format = value };
                    break;
                case 'c':
                    commands.Add(value);
                    break;
                case 'm':
                    misaligned = true;
                    break;
                case 'T' when value.Contains('='):
                    Console.Report($"trace events are not offered: {value}");
                    return 1;
                case 'T':
                    Console.Report($"warning: trace event '{value}' does not exist");
                    break;
                case 'V':
                    Console.Out(IoProgram.VersionText());
                    return 0;
                case 'h':
                    Console.Out(IoProgram.Help());
                    return 0;
                case IoProgram.GenerateOption:
                    if (GeneratedText.Write(IoProgram.Specification, value) is not { } text)
                    {
                        Console.Report("--generate takes man, bash or zsh");
                        return 1;
                    }
                    Console.Out(text);
                    return 0;
                case IoProgram.ObjectOption:
                    var definition = new BlockOptions();
                    OptionText.Parse(value, definition, "qom-type");
                    objects.Add(definition);
                    break;
                case IoProgram.ImageOptsOption:
                    imageOpts = true;
                    break;
                default:
                    request = request.With((char)c, value);
                    if (request is null)
                        return 1;
                    break;
            }
        }
        var operands = options.Operands;
        if (operands.Length > 1)
        {
            Console.Out(IoProgram.Help());
            return 1;
        }
        if (imageOpts && request.Format is not null)
        {
            Console.Report("--image-opts and -f are mutually exclusive");
            return 1;
        }

        using var session = new Session
        {
            Opener = new ImageOpener { Objects = objects, Warn = Console.Report, Print = Console.Error },
            Misaligned = misaligned,
        };
        if (operands.Length == 1)
        {
            if (imageOpts)
            {
                var all = new BlockOptions();
                OptionText.Parse(operands[0], all);
                request = request with { Options = all };
            }
            else
            {
                request = request with { FileName = operands[0] };
            }
            if (!session.Open(request))
                return 1;
        }
        if (commands.Count > 0)
        {
            foreach (string command in commands)
            {
                session.Execute(command);
                if (session.Quit)
                    break;
            }
        }
        else
        {
            ReadCommands(session);
        }
        session.Close();
        return session.Failed ? 1 : 0;
    }

    /// <summary>Runs the lines of standard input.</summary>
    private static void ReadCommands(Session session)
    {
        using var input = new StandardInput();
        while (!session.Quit)
        {
            Console.Out($"{ProgramName.Base}> ");
            OutputWriter.Out.Flush();
            if (input.ReadLine() is not { } line)
                return;
            session.Execute(line);
        }
    }
}
