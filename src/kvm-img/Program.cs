using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>kvm-img</c>: finds the command, and turns whatever goes wrong into one line and an exit code.</summary>
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
        catch (Exception e)
        {
            code = Failed(e);
        }
        try
        {
            OutputWriter.Out.Close();
        }
        catch (OutputException e)
        {
            code = Failed(e);
        }
        return code;
    }

    private static int Run(string[] arguments)
    {
        if (arguments.Length < 2)
            throw new UsageException("Not enough arguments");
        var options = new GetOpt(arguments, ImgProgram.StandardOptions, GetOptOrder.StopAtOperand);
        for (int c; (c = options.Next()) != GetOpt.End;)
        {
            switch (c)
            {
                case GetOpt.MissingArgument:
                    throw new UsageException($"missing argument for option '{options.LastTaken}'");
                case GetOpt.Unrecognized:
                    throw new UsageException($"unrecognized option '{options.LastTaken}'");
                case 'h':
                    OutputWriter.Out.Write(ImgProgram.Help());
                    return 0;
                case 'V':
                    OutputWriter.Out.Write(ImgProgram.VersionText);
                    return 0;
                case 'T':
                    ImgProgram.Trace(options.Value!);
                    break;
                case ImgProgram.GenerateOption:
                    OutputWriter.Out.Write(ImgProgram.Generate(options.Value!));
                    return 0;
            }
        }
        var rest = options.Operands;
        if (rest.IsEmpty)
            return 0;
        return ImgProgram.Find(rest[0]) is { } command
            ? command.Run(rest.ToArray())
            : throw new UsageException($"Command not found: {rest[0]}");
    }

    private static int Failed(Exception e)
    {
        switch (e)
        {
            case OutputException { IsClosedPipe: true }:
                return 1;
            case ReportedException r:
                return r.ExitCode;
            case UsageException u:
                Report.Error($"{u.Message}\nTry '{ProgramName.Base} --help' for more information");
                return u.ExitCode;
            case CommandException c:
                Report.Error(c.Message);
                return c.ExitCode;
            case ImageException { Operation.Length: > 0 } i:
                Report.Error($"{i.Message}: {i.Operation}");
                return 1;
            case ImageException or IOException or UnauthorizedAccessException or OverflowException or NotSupportedException:
                Report.Error(e.Message);
                return 1;
            case OutOfMemoryException:
                Report.Error("out of memory");
                return 1;
            case OperationCanceledException:
                return 1;
            default:
                Report.Error($"internal error: {e.GetType().Name}: {e.Message}");
                return 1;
        }
    }
}
