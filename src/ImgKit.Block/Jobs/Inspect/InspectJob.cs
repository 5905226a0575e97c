namespace ImgKit.Block.Jobs.Inspect;

/// <summary>Something about an image that matters when it comes from a stranger.</summary>
/// <param name="Check">which check found it: <c>backing-file</c>, <c>data-file</c>, <c>extent</c>, <c>malformed</c>, <c>unsupported</c>,
/// <c>tables</c>, <c>bomb</c>, <c>ambiguous</c>, <c>locked</c>, <c>unreadable</c>.</param>
/// <param name="Detail">one line.</param>
/// <param name="Offset">byte offset in the file, or -1.</param>
public sealed record InspectFinding(string Check, string Detail, long Offset = -1);

/// <summary>What an inspection found.</summary>
public sealed record InspectResult
{
    /// <summary>As given.</summary>
    public required string FileName { get; init; }

    /// <summary>The format, or null when the file could not be opened at all.</summary>
    public string? Format { get; init; }

    /// <summary>Virtual size in bytes, or -1.</summary>
    public long VirtualSize { get; init; } = -1;

    /// <summary>Size of the file in bytes, or -1.</summary>
    public long FileSize { get; init; } = -1;

    /// <summary>What speaks against the image.</summary>
    public required IReadOnlyList<InspectFinding> Findings { get; init; }

    /// <summary>Nothing does.</summary>
    public bool IsSafe => Findings.Count == 0;
}

/// <summary>Bounds for an image that comes from a stranger.</summary>
public sealed record InspectLimits
{
    /// <summary>Largest virtual size, in bytes.</summary>
    public long MaximumVirtualSize { get; init; } = 16L << 40;

    /// <summary>Largest number of bytes that reading everything would give, for each byte of the file. Deflate cannot exceed 1032;
    /// what does shares clusters.</summary>
    public long MaximumExpansion { get; init; } = 1100;
}

/// <summary>
/// Says whether an image is safe to take from a stranger. Opens no file but the image itself: what the image names is recorded and
/// refused by the same gate that decides on every reference.
/// </summary>
public static class InspectJob
{
    /// <summary>Inspects.</summary>
    /// <param name="drivers">formats to try.</param>
    /// <param name="fileName">a plain file.</param>
    /// <param name="format">a format's name, or null to probe.</param>
    /// <param name="limits">bounds.</param>
    /// <param name="settings">for locks; read-only is added.</param>
    public static InspectResult Run(DriverCatalogue drivers, string fileName, string? format, InspectLimits limits, OpenSettings? settings = null)
    {
        var findings = new List<InspectFinding>();
        var gate = new Recorder(findings);
        var opener = new ImageOpener(drivers, gate);
        settings = (settings ?? new OpenSettings()) with { ReadOnly = true };
        long fileSize = -1;
        try
        {
            using var storage = opener.Open(fileName, "file", settings);
            fileSize = storage.Length;
            if (format is null)
                format = Probe(drivers, storage, fileName, findings);
        }
        catch (ImageException e)
        {
            findings.Add(Of(e));
            return new InspectResult { FileName = fileName, Findings = findings };
        }
        try
        {
            using var image = opener.Open(fileName, format, settings with { NoBacking = true });
            if (image is IBackedImage { BackingFileName: { } backing })
                findings.Add(new("backing-file", $"names the backing file '{backing}'"));
            Bombs(image, fileSize, limits, findings);
            Tables(image, findings);
            return new InspectResult { FileName = fileName, Format = format, VirtualSize = image.Length, FileSize = fileSize, Findings = findings };
        }
        catch (ImageException e)
        {
            // What the gate refused has been recorded, and is the reason.
            if (e.Kind != ImageErrorKind.Denied || findings.Count == 0)
                findings.Add(Of(e));
            return new InspectResult { FileName = fileName, Format = format, FileSize = fileSize, Findings = findings };
        }
    }

    private static string Probe(DriverCatalogue drivers, BlockDevice storage, string fileName, List<InspectFinding> findings)
    {
        byte[] head = new byte[Math.Min(2048, storage.Length)];
        storage.Read(0, head);
        var sure = new List<string>();
        foreach (var d in drivers.All)
            if (d.Kind == DriverKind.Format && d.Name != "raw" && d.Probe?.Invoke(head, fileName, storage) > 0)
                sure.Add(d.Name);
        if (sure.Count > 1)
            findings.Add(new("ambiguous", $"can be taken for {string.Join(" and for ", sure)}: what a program sees depends on the program"));
        return drivers.ProbeFormat(storage, fileName).Name;
    }

    private static void Bombs(BlockDevice image, long fileSize, InspectLimits limits, List<InspectFinding> findings)
    {
        if (image.Length > limits.MaximumVirtualSize)
            findings.Add(new("bomb", $"its virtual size of {image.Length} bytes is above the limit of {limits.MaximumVirtualSize}"));
        // Data that has to be read, not the holes between: a large empty disk is no bomb.
        long data = 0;
        for (long at = 0; at < image.Length;)
        {
            var e = image.GetExtent(at, image.Length - at);
            if (e.IsData && !e.IsZero)
                data += e.Length;
            at += e.Length;
        }
        if (data / limits.MaximumExpansion > fileSize)
            findings.Add(new("bomb", $"a file of {fileSize} bytes unfolds to {data} bytes of data"));
    }

    private static void Tables(BlockDevice image, List<InspectFinding> findings)
    {
        if (image is not ICheckableImage checkable)
            return;
        string? first = null;
        var result = checkable.Check(CheckRepair.None, line => first ??= line);
        if (result.Corruptions > 0 || result.CheckErrors > 0)
            findings.Add(new("tables", $"{result.Corruptions} errors in its tables, the first: {first?.Trim()}"));
    }

    private static InspectFinding Of(ImageException e) => new(e.Kind switch
    {
        ImageErrorKind.Unsupported => "unsupported",
        ImageErrorKind.Locked => "locked",
        ImageErrorKind.Io or ImageErrorKind.NotFound => "unreadable",
        _ => "malformed",
    }, e.Message.ReplaceLineEndings(" "), e.Offset);

    private sealed class Recorder(List<InspectFinding> findings) : ReferencePolicy
    {
        public override string? Refuse(ImageReference reference)
        {
            findings.Add(new(reference.Kind switch
            {
                ReferenceKind.Backing => "backing-file",
                ReferenceKind.DataFile => "data-file",
                _ => "extent",
            }, $"names the file '{reference.Name}'"));
            return "an inspection opens nothing but the image itself";
        }
    }
}
