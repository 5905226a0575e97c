using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Io;

/// <summary>Lists of options on command lines.</summary>
internal static class OptionText
{
    /// <summary>Adds the options of a list to others.</summary>
    /// <param name="text">the list.</param>
    /// <param name="options">receives them.</param>
    /// <param name="implied">the name of a first value without one, or null.</param>
    public static void Parse(string text, BlockOptions options, string? implied = null)
    {
        foreach (var (name, value) in OptionList.Parse(text, implied, static w => Console.Report("warning: " + w)))
            options.Set(name, value);
    }
}
