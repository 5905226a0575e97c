using ImgKit.Block;
using ImgKit.Block.Jobs.Create;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>-o</c> options as they come together from the command line.</summary>
internal sealed class CreateOptionText
{
    private string? _text;

    /// <summary>Whether any were given.</summary>
    public bool IsGiven => _text is not null;

    /// <summary>Whether <c>help</c> is among them.</summary>
    public bool AsksForHelp => _text is not null && OptionList.AsksForHelp(_text);

    /// <summary>Appends one option's value.</summary>
    public void Add(string text)
    {
        if (!OptionList.IsWellFormed(text))
            throw new CommandException($"Invalid option list: {text}");
        _text = _text is null ? text : $"{_text},{text}";
    }

    /// <summary>Names and values.</summary>
    public List<KeyValuePair<string, string>> Parse() => _text is null ? [] : OptionList.Parse(_text);

    /// <summary>Prints what options there are for creating an image.</summary>
    /// <returns>the exit code.</returns>
    public static int PrintHelp(ImageOpener opener, string? fileName, string format)
    {
        var driver = opener.Drivers.Find(format);
        if (driver is null || driver.Kind == DriverKind.Filter)
            throw new CommandException($"Unknown file format '{format}'");
        if (driver.Create is null)
            throw new CommandException($"Format driver '{format}' does not support image creation");
        BlockDriver? protocol = null;
        if (fileName is not null)
        {
            protocol = opener.DriverForFile(fileName);
            if (protocol.Create is null)
                throw new CommandException($"Protocol driver '{protocol.Name}' does not support image creation");
        }
        var w = OutputWriter.Out;
        w.WriteLine(fileName is null ? $"Supported {format} options:" : "Supported options:");
        foreach (string line in CreateOptionList.Help(CreateOptionList.For(driver, protocol)))
            w.WriteLine(line);
        if (fileName is null)
            w.Write("\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n");
        return 0;
    }
}
