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
    ];

    /// <summary>Makes the drive that a device uses of the one that its options name, and puts it in its place in the machine's list.
    /// Throws <see cref="MachineException"/>.</summary>
    /// <param name="plug">what the factory was given.</param>
    /// <param name="mayBeEmpty">the medium can be taken out: a CD-ROM, or a floppy.</param>
    /// <param name="place">identifier for monitors where the user gave none.</param>
    /// <param name="name">name of the drive where none is named.</param>
    /// <param name="isFloppy">a floppy drive.</param>
    internal static Drive Make(DevicePlug plug, bool mayBeEmpty, string place, string name, bool isFloppy = false)
    {
        bool isCdRom = mayBeEmpty && !isFloppy;
        var options = plug.Options;
        var source = mayBeEmpty && options.Text("drive") == null ? null : plug.Drive();
        if (source is { AttachedTo: not null })
            throw new MachineException($"Drive '{source.Name}' is already in use by another block device");
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
            BootIndex = options.Text("bootindex") != null ? (int)options.Number("bootindex", 0) : source?.BootIndex ?? -1,
            AttachedTo = options.Text("id") ?? place,
        };
        if (!mayBeEmpty && drive.Media == null)
            throw new MachineException("Device needs media, but drive is empty");
        source?.AttachedTo = drive.AttachedTo;
        plug.Machine.ReplaceDrive(source, drive);
        return drive;
    }

    private static ErrorPolicy? Policy(DeviceOptions options, string name, bool write) => options.Text(name) switch
    {
        null or "auto" => null,
        "report" => ErrorPolicy.Report,
        "ignore" => ErrorPolicy.Ignore,
        "stop" => ErrorPolicy.Stop,
        "enospc" when write => ErrorPolicy.StopOnNoSpace,
        var other => throw new MachineException($"'{other}' invalid {name}"),
    };
}
