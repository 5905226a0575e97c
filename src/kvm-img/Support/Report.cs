using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>Messages to the user, in the peer's form: the name that the program was called by, a colon, the message.</summary>
internal static class Report
{
    /// <summary>An error. What follows a line break is a hint and stands without the name.</summary>
    public static void Error(string message) => Write($"{ProgramName.Base}: {message}");

    /// <summary>A warning.</summary>
    public static void Warning(string message) => Write($"{ProgramName.Base}: warning: {message}");

    /// <summary>A line that is neither.</summary>
    public static void Write(string line) => OutputWriter.Error.WriteLine(line);
}

/// <summary>Ends a command with a message and an exit code.</summary>
internal class CommandException(string message, int exitCode = 1) : Exception(message)
{
    /// <summary>The program's exit code.</summary>
    public int ExitCode { get; } = exitCode;
}

/// <summary>The command line makes no sense: the message is followed by a hint at <c>--help</c>.</summary>
internal sealed class UsageException(string message) : CommandException(message);

/// <summary>Ends a command whose message has been printed already.</summary>
internal sealed class ReportedException(int exitCode = 1) : CommandException("", exitCode);
