using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary><c>reopen</c>: the image is closed and opened again with other options; if that fails, as it was.</summary>
internal static class ReopenCommand
{
    public static IoCommand Reopen { get; } = new()
    {
        Name = "reopen",
        MinArguments = 0,
        MaxArguments = -1,
        Arguments = "[(-r|-w)] [-c cache] [-o options]",
        Summary = "reopens an image with new options",
        Help = """

             Changes the open options of an already opened image

             Example:
             'reopen -o lazy-refcounts=on' - activates lazy refcount writeback on a qcow2 image

             -r, -- Reopen the image read-only
             -w, -- Reopen the image read-write
             -c, -- Change the cache mode to the given value
             -o, -- Changes block driver options (cf. 'open' command)


            """,
        Run = Run,
    };

    private static bool Run(Session session, string[] arguments)
    {
        var letters = new CommandOptions(arguments, "c:o:rw");
        bool? readOnly = null;
        bool cacheGiven = false;
        var old = session.Image!.Request;
        OpenRequest? request = old;
        var options = new BlockOptions();
        while (letters.Next(out char c))
        {
            switch (c)
            {
                case 'c':
                    request = request.WithCacheMode(letters.Value);
                    if (request is null)
                        return false;
                    cacheGiven = true;
                    break;
                case 'o':
                    OptionText.Parse(letters.Value, options);
                    break;
                case 'r' or 'w':
                    if (readOnly is not null)
                    {
                        Console.Report("Only one -r/-w option may be given");
                        return false;
                    }
                    readOnly = c == 'r';
                    break;
                default:
                    return Reopen.Misused();
            }
        }
        if (letters.Operands.Length > 0)
            return Reopen.Misused();
        if (readOnly is not null && options.Contains("read-only"))
        {
            Console.Report("Cannot set both -r/-w and 'read-only'");
            return false;
        }
        if (cacheGiven && (options.Contains("cache.direct") || options.Contains("cache.no-flush")))
        {
            Console.Report("Cannot set both -c and the cache options");
            return false;
        }
        if (Refusal(session, options) is { } refusal)
        {
            Console.Report(refusal);
            return false;
        }
        request = request with { Options = options.With(Kept(old.Options, options)) };
        if (readOnly is { } r)
            request = request with { Settings = request.Settings with { ReadOnly = r } };
        return Exchange(session, old, request);
    }

    /// <summary>Why an option cannot be changed, or null; what may be given but changes nothing is taken out.</summary>
    private static string? Refusal(Session session, BlockOptions options)
    {
        var device = session.Device;
        var driver = session.Opener.Drivers.Find(device.DriverName);
        var old = session.Image!.Request.Options ?? new BlockOptions();
        foreach (var (name, value) in options.Entries.ToArray())
        {
            string last = name[(name.LastIndexOf('.') + 1)..];
            if (last is "driver" or "node-name")
            {
                string? now = last == "node-name" ? old.Get(name) as string : DriverOf(device, name);
                if (value as string != now)
                    return $"Cannot change the option '{last}'";
                _ = options.TakeString(name);
                continue;
            }
            if (last is "read-only" or "direct" or "no-flush" or "discard" or "detect-zeroes" or "force-share" or "auto-read-only"
                || name.Contains('.', StringComparison.Ordinal))
                continue;
            if (driver?.OpenOptions.Any(o => o.Name == name) != true)
                return $"Cannot change the option '{name}'";
        }
        return null;
    }

    private static string? DriverOf(BlockDevice device, string option) => option switch
    {
        "driver" => device.DriverName,
        "file.driver" => device.Storage?.DriverName,
        "backing.driver" => device.Backing?.DriverName,
        _ => null,
    };

    /// <summary>The old options, without those that new ones exclude.</summary>
    private static BlockOptions Kept(BlockOptions? old, BlockOptions options)
    {
        var kept = old?.Clone() ?? new BlockOptions();
        foreach (string[] group in (ReadOnlySpan<string[]>)
            [["overlap-check", "overlap-check.template"], ["cache-size", "l2-cache-size", "refcount-cache-size"]])
            if (group.Any(options.Contains))
                foreach (string name in group)
                    _ = kept.TakeString(name);
        return kept;
    }

    private static bool Exchange(Session session, OpenRequest old, OpenRequest request)
    {
        session.Async.WaitForAll();
        session.Image!.Dispose();
        session.Replace(null);
        try
        {
            session.Replace(OpenedImage.Open(session.Opener, request));
            return true;
        }
        catch (Exception e) when (IoError.IsRequestError(e) || e is UnauthorizedAccessException)
        {
            Console.Report(e.Message);
            _ = session.Open(old);
            return false;
        }
    }
}
