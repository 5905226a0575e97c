using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Makes and opens images as the programs do.</summary>
internal static class Images
{
    /// <summary>Creates an image; options as <c>name=value,name=value</c>.</summary>
    public static void Create(string path, long size, string options = "", string? backing = null, string? backingFormat = null) =>
        CreateJob.Run(new ImageOpener(), new CreateRequest
        {
            FileName = path,
            Format = "qcow2",
            Size = size,
            BackingFile = backing,
            BackingFormat = backingFormat,
            Options = Pairs(options),
        });

    public static BlockDevice Open(string path, bool readOnly = false, Func<OpenSettings, OpenSettings>? change = null, string format = "qcow2")
    {
        var settings = new OpenSettings { ReadOnly = readOnly, Unmap = true };
        return new ImageOpener().Open(path, format, change?.Invoke(settings) ?? settings);
    }

    public static byte[] Content(string path)
    {
        using var image = Open(path, true);
        return Content(image);
    }

    public static byte[] Content(BlockDevice device)
    {
        byte[] content = new byte[device.Length];
        for (int at = 0; at < content.Length;)
        {
            // In odd pieces, to meet every border.
            int n = Math.Min(content.Length - at, 777_777);
            device.Read(at, content.AsSpan(at, n));
            at += n;
        }
        return content;
    }

    private static List<KeyValuePair<string, string>> Pairs(string options)
    {
        var pairs = new List<KeyValuePair<string, string>>();
        foreach (string o in options.Split(',', StringSplitOptions.RemoveEmptyEntries))
            pairs.Add(new(o[..o.IndexOf('=', StringComparison.Ordinal)], o[(o.IndexOf('=', StringComparison.Ordinal) + 1)..]));
        return pairs;
    }
}
