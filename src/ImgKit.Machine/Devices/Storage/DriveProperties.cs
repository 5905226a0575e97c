namespace ImgKit.Machine.Devices.Storage;

/// <summary>What every disk device can be told on <c>-device</c>, and the drive that comes of it.</summary>
internal static class DriveProperties
{
    /// <summary>The declarations.</summary>
    internal static DeviceProperty[] All { get; } =
    [
        new("drive", "str", "Node name or ID of a block device to use as a backend"),
        new("serial", "str", "serial number"),
        new("bootindex", "int32", "place in the boot order"),
        new("rerror", "str", "failed reads: report, ignore, stop or auto"),
        new("werror", "str", "failed writes: report, ignore, stop, enospc or auto"),
        new("write-cache", "OnOffAuto", "the device's write cache at the start (default: as the drive's cache= has it)"),
        new("share-rw", "bool", "others may write the image, too"),
        new("logical_block_size", "size", "bytes a block (default: 512)"),
        new("physical_block_size", "size", "bytes that are written at once (default: a logical block)"),
        new("min_io_size", "size", "the least that is efficient"),
        new("opt_io_size", "size", "the best size of a request"),
        new("discard_granularity", "size", "what discards should be aligned to; 0: no discards"),
    ];

    /// <summary>Makes the drive that a device uses of the one that its options name, and puts it in its place in the machine's list.
    /// Throws <see cref="MachineException"/>.</summary>
    /// <param name="plug">what the factory was given.</param>
    /// <param name="mayBeEmpty">the medium can be taken out: a CD-ROM, or a floppy.</param>
    /// <param name="place">identifier for monitors where the user gave none.</param>
    /// <param name="name">name of the drive where none is named.</param>
    /// <param name="isFloppy">a floppy drive.</param>
    /// <param name="type">the device's type, for messages.</param>
    internal static Drive Make(DevicePlug plug, bool mayBeEmpty, string place, string name, string type, bool isFloppy = false)
    {
        bool isCdRom = mayBeEmpty && !isFloppy;
        var options = plug.Options;
        if (options.Text("drive") == null && type == "ide-hd")
            throw new MachineException("No drive specified");
        var source = mayBeEmpty && options.Text("drive") == null ? null : plug.Drive(type);
        CheckUse(plug, source, options.Text("id") ?? place);
        var drive = new Drive
        {
            Name = source?.Name ?? name,
            Media = source?.Media,
            Overlay = source?.Overlay,
            FileName = source?.FileName ?? "",
            IsCdRom = isCdRom,
            IsRemovable = mayBeEmpty,
            IsReadOnly = isCdRom || source is { IsReadOnly: true },
            Serial = options.Text("serial") ?? source?.Serial,
            OnReadError = Policy(options, "rerror", false) ?? source?.OnReadError ?? ErrorPolicy.Report,
            OnWriteError = Policy(options, "werror", true) ?? source?.OnWriteError ?? ErrorPolicy.StopOnNoSpace,
            Discard = source?.Discard ?? false,
            WriteCache = WriteCache(options) ?? source?.WriteCache ?? true,
            CacheMode = source?.CacheMode ?? "writeback",
            DetectZeroes = source?.DetectZeroes ?? "off",
            Limits = source?.Limits ?? new Dictionary<string, long>(),
            IsNode = source?.IsNode ?? false,
            IsNameless = source?.IsNode ?? false,
            Identity = type.StartsWith("ide-", StringComparison.Ordinal) ? Identity(options) : DriveIdentity.Default,
            Geometry = isFloppy ? DriveGeometry.Default : Geometry(options, isCdRom ? 2048 : 512),
            BootIndex = options.Text("bootindex") != null ? (int)options.Number("bootindex", 0) : source?.BootIndex ?? -1,
            AttachedTo = options.Text("id") ?? place,
        };
        if (!mayBeEmpty && drive.Media == null)
            throw new MachineException("Device needs media, but drive is empty");
        source?.AttachedTo = drive.AttachedTo;
        plug.Machine.ReplaceDrive(source, drive);
        return drive;
    }

    // A drive has one device. A node may have several, as they share it.
    private static void CheckUse(DevicePlug plug, Drive? source, string device)
    {
        if (source is { AttachedTo: not null, IsNode: false })
            throw new MachineException($"Drive '{source.Name}' is already in use by another device");
        if (source is not { IsNode: true, Media: { } node })
            return;
        bool shares = plug.Options.Flag("share-rw", false);
        plug.Machine.Nodes.Add(node, device, !source.IsReadOnly, shares);
        if (!shares && !source.IsReadOnly && node.IsShared)
            throw new MachineException($"Permission conflict on node '{source.Name}': permissions 'write' are both required by another node and "
                + $"unshared by block device '{device}' (uses node '{source.Name}' as 'root' child).");
    }

    private static DriveIdentity Identity(DeviceOptions options)
    {
        string? model = options.Text("model"), version = options.Text("ver");
        if (model is { Length: > 40 })
            throw new MachineException("model can't be longer than 40 bytes");
        if (version is { Length: > 8 })
            throw new MachineException("ver can't be longer than 8 bytes");
        return new DriveIdentity(model, version, options.Number("wwn", 0), (ushort)Math.Min(options.Number("rotation_rate", 0), 65535));
    }

    private static bool? WriteCache(DeviceOptions options) =>
        options.Text("write-cache") is null or "auto" ? null : options.Flag("write-cache", true);

    private static DriveGeometry Geometry(DeviceOptions options, int logicalDefault)
    {
        int logical = BlockSize(options, "logical_block_size", logicalDefault);
        int physical = BlockSize(options, "physical_block_size", logical);
        if (logical > physical)
            throw new MachineException("logical_block_size > physical_block_size not supported");
        int minimum = (int)Math.Min(options.Size("min_io_size", 0), int.MaxValue), optimal = (int)Math.Min(options.Size("opt_io_size", 0), int.MaxValue);
        if (minimum % logical != 0)
            throw new MachineException("min_io_size must be a multiple of logical_block_size");
        if (optimal % logical != 0)
            throw new MachineException("opt_io_size must be a multiple of logical_block_size");
        long granularity = options.Text("discard_granularity") == null ? -1 : (long)Math.Min(options.Size("discard_granularity", 0), int.MaxValue);
        if (granularity > 0 && granularity % logical != 0)
            throw new MachineException("discard_granularity must be a multiple of logical_block_size");
        return new DriveGeometry(logical, physical, minimum, optimal, granularity);
    }

    private static int BlockSize(DeviceOptions options, string name, int otherwise)
    {
        ulong size = options.Size(name, (ulong)otherwise);
        return size is >= 512 and <= 2 << 20 && (size & (size - 1)) == 0 ? (int)size
            : throw new MachineException($"Property .{name} doesn't take this value: a power of 2 from 512 to 2 MiB");
    }

    private static ErrorPolicy? Policy(DeviceOptions options, string name, bool write) => options.Text(name) switch
    {
        null or "auto" => null,
        "report" => ErrorPolicy.Report,
        "ignore" => ErrorPolicy.Ignore,
        "stop" => ErrorPolicy.Stop,
        "enospc" when write => ErrorPolicy.StopOnNoSpace,
        var other => throw new MachineException($"Parameter '{name}' does not accept value '{other}'"),
    };
}
