using ImgKit.CommandLine;

namespace ImgKit.Programs.Io;

/// <summary>Where this program prints.</summary>
internal static class Console
{
    /// <summary>To standard output, buffered.</summary>
    public static void Out(string text) => OutputWriter.Out.Write(text);

    /// <summary>A line to standard error, at once.</summary>
    public static void Error(string line) => OutputWriter.Error.WriteLine(line);

    /// <summary>A message with the program's name in front, to standard error.</summary>
    public static void Report(string message) => Error($"{ProgramName.Base}: {message}");
}
