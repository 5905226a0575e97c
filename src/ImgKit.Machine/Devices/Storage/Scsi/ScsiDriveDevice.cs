using System.Globalization;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>A drive that <c>-device scsi-hd</c> or <c>scsi-cd</c> plugs into a SCSI bus; the adapter keeps its state.</summary>
public sealed class ScsiDriveDevice : Device
{
    private static readonly DeviceProperty[] Properties =
    [
        .. DriveProperties.All,
        new("bus", "str", "the adapter's bus: scsi.0, or the adapter's id and .0"),
        new("channel", "uint32", "0"),
        new("scsi-id", "uint32", "target, 0 to 15 but 7 (default: the first free one)"),
        new("lun", "uint32", "logical unit, 0 to 7"),
        new("vendor", "str", "vendor, up to 8 characters"),
        new("product", "str", "product, up to 16 characters"),
        new("ver", "str", "revision, up to 4 characters"),
        new("device_id", "str", "identifier for those who look at page 83h"),
        new("wwn", "uint64", "world wide name"),
        new("rotation_rate", "uint16", "revolutions a minute; 1: a solid-state disk"),
    ];

    private readonly bool _isCdRom;

    private ScsiDriveDevice(bool isCdRom, string bus)
    {
        _isCdRom = isCdRom;
        BusName = bus;
    }

    /// <inheritdoc/>
    public override string BusName { get; }

    /// <summary>The catalogue's entry for hard disks.</summary>
    public static DeviceType HardDisk { get; } = new("scsi-hd", DeviceBus.Scsi, "Storage", "virtual SCSI disk", Properties, p => Plug(p, false));

    /// <summary>The catalogue's entry for CD-ROMs.</summary>
    public static DeviceType CdRom { get; } = new("scsi-cd", DeviceBus.Scsi, "Storage", "virtual SCSI CD-ROM", Properties, p => Plug(p, true));

    /// <inheritdoc/>
    public override string TypeName => _isCdRom ? "scsi-cd" : "scsi-hd";

    private static ScsiDriveDevice Plug(DevicePlug plug, bool isCdRom)
    {
        var options = plug.Options;
        var buses = plug.Machine.Devices.OfType<Lsi53C895A>().Select(a => a.Scsi).ToList();
        string? wanted = options.Text("bus");
        var bus = buses.Find(b => wanted == null || b.Name == wanted) ?? throw new MachineException(wanted != null ? $"Bus '{wanted}' not found"
            : $"No 'SCSI' bus found for device '{(isCdRom ? "scsi-cd" : "scsi-hd")}'");
        if (options.Number("channel", 0) != 0)
            throw new MachineException("bad scsi channel id: " + options.Text("channel"));
        int target = options.Text("scsi-id") == null ? -1 : (int)Math.Min(options.Number("scsi-id", 0), 255);
        int lun = (int)Math.Min(options.Number("lun", 0), 255);
        string at = $"{bus.Name}-{(target < 0 ? "x" : target.ToString(CultureInfo.InvariantCulture))}-{lun}";
        var drive = DriveProperties.Make(plug, isCdRom, at, "scsi0-cd" + at, isCdRom ? "scsi-cd" : "scsi-hd");
        string? serial = drive.Serial;
        var identity = new ScsiIdentity(options.Text("vendor") ?? "QEMU", options.Text("product") ?? (isCdRom ? "QEMU CD-ROM" : "QEMU HARDDISK"),
            options.Text("ver") ?? "2.5+", serial, options.Text("device_id") ?? (options.Text("drive") == null ? "" : drive.Name), options.Number("wwn", 0),
            (ushort)Math.Min(options.Number("rotation_rate", 0), 65535));
        ScsiUnit unit = isCdRom ? new ScsiCdRom(plug.Services, drive, identity) : new ScsiDisk(plug.Services, drive, identity);
        (target, lun) = bus.Add(unit, target, lun);
        if (drive.BootIndex >= 0)
            plug.Machine.AddBootEntry(drive.BootIndex, () => $"{bus.FirmwarePath()}/channel@0/disk@{target:x},{lun:x}");
        return new ScsiDriveDevice(isCdRom, bus.Name);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        // the adapter resets its bus
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        // the adapter keeps the state of its units
    }
}
