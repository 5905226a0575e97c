using System.Globalization;
using System.Numerics;

namespace ImgKit.Block.Filters.Blkdebug;

/// <summary><c>blkdebug:CONFIG:IMAGE</c>, or options <c>image.*</c>, <c>config</c>, <c>inject-error.N.*</c>, <c>set-state.N.*</c>.</summary>
public static class BlkdebugFilter
{
    private static readonly string[] SizeLimits =
        ["max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"];

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "blkdebug",
        Kind = DriverKind.Filter,
        Description = "Injects errors into requests as rules say",
        FileNamePrefixes = ["blkdebug:"],
        ParseFileName = ParseFileName,
        Open = Open,
        OpenOptions =
        [
            new("config", OptionType.String, "Path to the configuration file"),
            new("x-image", OptionType.String, "[internal use only, will be removed]"),
            new("align", OptionType.Size, "Required alignment in bytes"),
            new("max-transfer", OptionType.Size, "Maximum transfer size in bytes"),
            new("opt-write-zero", OptionType.Size, "Optimum write zero alignment in bytes"),
            new("max-write-zero", OptionType.Size, "Maximum write zero size in bytes"),
            new("opt-discard", OptionType.Size, "Optimum discard alignment in bytes"),
            new("max-discard", OptionType.Size, "Maximum discard size in bytes"),
        ],
    };

    private static void ParseFileName(string name, BlockOptions options)
    {
        const string prefix = "blkdebug:";
        if (!name.StartsWith(prefix, StringComparison.Ordinal))
        {
            options.Set("x-image", name);
            return;
        }
        string rest = name[prefix.Length..];
        int colon = rest.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0)
            throw new ImageException(ImageErrorKind.InvalidArgument, "blkdebug requires both config file and image path", name);
        if (colon > 0)
            options.Set("config", rest[..colon]);
        options.Set("x-image", rest[(colon + 1)..]);
    }

    private static BlkdebugDevice Open(OpenContext context)
    {
        var o = context.Options;
        var rules = new BlkdebugRules();
        string? config = o.TakeString("config");
        if (config is not null)
            ReadConfiguration(config, rules);
        bool inline = o.ContainsChild("inject-error") || o.ContainsChild("set-state");
        AddAll(o.TakeChild("inject-error"), BlkdebugAction.InjectError, rules);
        AddAll(o.TakeChild("set-state"), BlkdebugAction.SetState, rules);
        long align = o.TakeSize("align") ?? 0;
        if (align != 0 && (align >= int.MaxValue || !BitOperations.IsPow2(align)))
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Cannot meet constraints with align {align}");
        bool limits = align != 0;
        foreach (string name in SizeLimits)
        {
            // Requests are passed on as they are: a limit is checked for sense, as the peer does, and otherwise met by any request below it.
            if (o.TakeSize(name) is not { } limit || limit == 0)
                continue;
            limits = true;
            if (limit >= int.MaxValue || (align > 1 && limit % align != 0))
                throw new ImageException(ImageErrorKind.InvalidArgument, $"Cannot meet constraints with {name} {limit}");
        }
        string? image = o.TakeString("x-image");
        var inner = context.Opener.OpenChild(context, "image", image, context.IsStorage);
        var device = new BlkdebugDevice(inner, rules, (int)align) { IgnoresFlushes = context.Settings.NoFlush };
        if (!inline && !limits)
            device.FileName = $"blkdebug:{config}:{inner.FileName}";
        else if (context.FileName.Length == 0)
            device.FileName = $"json:{{\"driver\": \"blkdebug\", \"image\": {{\"driver\": \"{inner.DriverName}\", \"filename\": \"{inner.FileName}\"}}}}";
        device.DebugEvent(BlockDebugEvent.None);
        return device;
    }

    /// <summary>Rules 0, 1, ... of a list.</summary>
    private static void AddAll(BlockOptions list, BlkdebugAction action, BlkdebugRules rules)
    {
        for (int i = 0; ; i++)
        {
            var one = list.TakeChild(i.ToString(CultureInfo.InvariantCulture));
            if (one.IsEmpty)
                break;
            rules.Add(BlkdebugRule.Parse(action, one));
        }
        if (!list.IsEmpty)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Invalid parameter '{list.Entries[0].Key}'");
    }

    /// <summary>The configuration file: sections <c>[inject-error]</c> and <c>[set-state]</c> with lines <c>name = "value"</c>.</summary>
    private static void ReadConfiguration(string path, BlkdebugRules rules)
    {
        string[] lines;
        try
        {
            lines = File.ReadAllLines(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ImageException(ImageErrorKind.NotFound, "Could not read blkdebug config file: No such file or directory", path, inner: e) { Errno = 2 };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ImageException(ImageErrorKind.Io, $"Could not read blkdebug config file: {e.Message}", path, inner: e);
        }
        BlkdebugAction? section = null;
        var options = new BlockOptions();
        for (int i = 0; i <= lines.Length; i++)
        {
            string line = i < lines.Length ? lines[i].Trim() : "[end]";
            if (line.Length == 0 || line[0] == '#')
                continue;
            if (line[0] == '[')
            {
                if (section is { } action)
                    rules.Add(BlkdebugRule.Parse(action, options));
                options = new BlockOptions();
                section = line switch
                {
                    "[inject-error]" => BlkdebugAction.InjectError,
                    "[set-state]" => BlkdebugAction.SetState,
                    "[end]" when i == lines.Length => null,
                    _ => throw BadLine(path, i),
                };
                continue;
            }
            int equals = line.IndexOf('=', StringComparison.Ordinal);
            if (equals < 0 || section is null)
                throw BadLine(path, i);
            string value = line[(equals + 1)..].Trim();
            if (value.Length < 2 || value[0] != '"' || value[^1] != '"')
                throw BadLine(path, i);
            options.Set(line[..equals].Trim(), value[1..^1]);
        }
    }

    private static ImageException BadLine(string path, int index) =>
        new(ImageErrorKind.InvalidArgument, $"Could not parse blkdebug config file: line {index + 1} of '{path}'", path);
}
