namespace ImgKit.Block.Jobs.Info;

/// <summary>What <c>info</c> says about an image.</summary>
public sealed record ImageInfo
{
    /// <summary>The name, as messages and scripts show it.</summary>
    public required string FileName { get; init; }

    /// <summary>The format.</summary>
    public required string Format { get; init; }

    /// <summary>Bytes.</summary>
    public required long VirtualSize { get; init; }

    /// <summary>Bytes on the host, or -1.</summary>
    public long ActualSize { get; init; } = -1;

    /// <summary>Whether it is encrypted.</summary>
    public bool IsEncrypted { get; init; }

    /// <summary>Bytes, or 0.</summary>
    public int ClusterSize { get; init; }

    /// <summary>Not closed properly; null where the format does not tell.</summary>
    public bool? IsDirty { get; init; }

    /// <summary>As it stands in the image, or null.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Usable from here, or null where that is not known.</summary>
    public string? FullBackingFile { get; init; }

    /// <summary>As it stands in the image, or null.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>Internal snapshots.</summary>
    public IReadOnlyList<SnapshotInfo> Snapshots { get; init; } = [];

    /// <summary>What only the format has, or null.</summary>
    public InfoObject? FormatSpecific { get; init; }

    /// <summary>Looks at an open image.</summary>
    public static ImageInfo Of(BlockDevice device)
    {
        var details = device as IImageDetails;
        var backed = device as IBackedImage;
        string? backing = string.IsNullOrEmpty(backed?.BackingFileName) ? null : backed.BackingFileName;
        return new ImageInfo
        {
            FileName = device.FileName,
            Format = device.DriverName,
            VirtualSize = device.Length,
            ActualSize = device.AllocatedHostBytes,
            IsEncrypted = details?.IsEncrypted ?? false,
            ClusterSize = details?.ClusterSize ?? 0,
            // Raw has no details, but cannot be dirty: the peer says so, too.
            IsDirty = details?.IsDirty ?? (device.DriverName == "raw" ? false : null),
            BackingFile = backing,
            FullBackingFile = backing is null ? null : Resolve(FileNames.BaseOf(device.FileName, device.Storage), backing),
            BackingFormat = backing is null || string.IsNullOrEmpty(backed!.BackingFormat) ? null : backed.BackingFormat,
            Snapshots = device is ISnapshotImage s ? s.Snapshots : [],
            FormatSpecific = details?.FormatSpecific,
        };
    }

    private static string? Resolve(string image, string name)
    {
        try
        {
            return FileNames.Resolve(image, name);
        }
        catch (ImageException)
        {
            return null;
        }
    }
}
