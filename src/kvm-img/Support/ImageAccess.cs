using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>Opens images as commands name them.</summary>
internal static class ImageAccess
{
    /// <summary>Opens an image, or ends the command with the peer's message.</summary>
    /// <param name="common">format, <c>--image-opts</c>, <c>-U</c> and the policy.</param>
    /// <param name="name">a file name, or a list of options.</param>
    /// <param name="settings">how.</param>
    /// <param name="exitCode">of the command when it cannot be opened.</param>
    public static BlockDevice Open(CommonOptions common, string name, OpenSettings settings, int exitCode = 1) =>
        Open(common, name, common.Format, common.IsImageOpts, settings with { ForceShare = common.ForceShare }, exitCode);

    /// <summary>Opens an image of a given format.</summary>
    public static BlockDevice Open(CommonOptions common, string name, string? format, bool imageOpts, OpenSettings settings, int exitCode = 1)
    {
        try
        {
            if (!imageOpts)
                return common.Opener.Open(name, format, settings);
            if (format is not null)
                throw new CommandException("--image-opts and --format are mutually exclusive", exitCode);
            return common.Opener.Open(ParseImageOpts(name, settings.ForceShare, exitCode), settings);
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            throw new CommandException($"Could not open '{name}': {e.Message}", exitCode);
        }
    }

    private static BlockOptions ParseImageOpts(string text, bool forceShare, int exitCode)
    {
        var options = new BlockOptions();
        foreach (var (name, value) in OptionList.Parse(text, "file", Report.Warning))
        {
            if (name == "id" && !IsWellFormedId(value))
                throw new CommandException("Parameter 'id' expects an identifier\n"
                    + "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.", exitCode);
            if (name != "id")
                options.Set(name, value);
        }
        if (forceShare && options.Get("force-share") is string share && share != "on")
            throw new CommandException("--force-share/-U conflicts with image options", exitCode);
        return options;
    }

    private static bool IsWellFormedId(string id)
    {
        if (id.Length == 0 || !char.IsAsciiLetter(id[0]))
            return false;
        foreach (char c in id)
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('-' or '.' or '_'))
                return false;
        return true;
    }

    /// <summary>The settings of a cache mode.</summary>
    /// <param name="settings">to be changed.</param>
    /// <param name="mode">as given.</param>
    /// <param name="message">in front of the mode when there is no such.</param>
    /// <param name="exitCode">of the command then.</param>
    public static OpenSettings WithCacheMode(this OpenSettings settings, string mode, string message, int exitCode = 1)
    {
        try
        {
            return settings.WithCacheMode(mode);
        }
        catch (ImageException)
        {
            throw new CommandException($"{message}: {mode}", exitCode);
        }
    }
}
