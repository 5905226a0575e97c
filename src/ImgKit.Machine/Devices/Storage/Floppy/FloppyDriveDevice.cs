namespace ImgKit.Machine.Devices.Storage.Floppy;

/// <summary>A drive that <c>-device floppy</c> plugs into the board's controller, which keeps its state.</summary>
public sealed class FloppyDriveDevice : Device
{
    private FloppyDriveDevice()
    {
    }

    /// <summary>The catalogue's entry.</summary>
    public static DeviceType Type { get; } = new("floppy", DeviceBus.Floppy, "Storage", "virtual floppy drive",
    [
        .. DriveProperties.All,
        new("unit", "uint32", "0 for A, 1 for B (default: the first that is free)"),
        new("drive-type", "FdcDriveType", "144, 288, 120, none or auto"),
    ], Plug);

    /// <inheritdoc/>
    public override string TypeName => "floppy";

    /// <summary>The kind of a name of <c>drive-type</c>. Throws <see cref="MachineException"/>.</summary>
    public static FloppyDriveKind ParseKind(string? text) => text switch
    {
        null or "auto" or "none" => FloppyDriveKind.None,
        "120" => FloppyDriveKind.Kind120,
        "144" => FloppyDriveKind.Kind144,
        "288" => FloppyDriveKind.Kind288,
        _ => throw new MachineException($"Parameter 'drive-type' does not accept value '{text}'"),
    };

    private static FloppyDriveDevice Plug(DevicePlug plug)
    {
        var controller = plug.Machine.Floppy;
        int unit = plug.Options.Text("unit") != null ? (int)Math.Min(plug.Options.Number("unit", 0), 255)
            : controller.KindOf(0) == FloppyDriveKind.None ? 0 : 1;
        var drive = DriveProperties.Make(plug, true, $"floppy{unit}", $"floppy{unit}", "floppy", isFloppy: true);
        controller.Attach(unit, drive, ParseKind(plug.Options.Text("drive-type")));
        plug.Machine.AddFloppyBoot(unit, drive);
        return new FloppyDriveDevice();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        // the controller resets its drives
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        // the controller keeps the state of its drives
    }
}
