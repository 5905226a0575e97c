namespace ImgKit.Machine.Devices.Storage;

/// <summary>A drive that <c>-device ide-hd</c> or <c>ide-cd</c> plugs into a channel of the board; the channel keeps its state.</summary>
public sealed class IdeDriveDevice : Device
{
    private static readonly DeviceProperty[] Properties =
    [
        .. DriveProperties.All,
        new("bus", "str", "ide.0 or ide.1"),
        new("unit", "uint32", "0 master, 1 slave"),
        new("model", "str", "model, up to 40 characters"),
        new("ver", "str", "revision of the firmware, up to 8 characters"),
        new("wwn", "uint64", "world wide name"),
        new("rotation_rate", "uint16", "revolutions a minute; 1: a solid-state disk"),
    ];

    private readonly bool _isCdRom;

    private readonly int _channel;

    private IdeDriveDevice(bool isCdRom, int channel)
    {
        _isCdRom = isCdRom;
        _channel = channel;
    }

    /// <inheritdoc/>
    public override string BusName => $"ide.{_channel}";

    /// <summary>The catalogue's entry for hard disks.</summary>
    public static DeviceType HardDisk { get; } = new("ide-hd", DeviceBus.Ide, "Storage", "virtual IDE disk", Properties, p => Plug(p, false));

    /// <summary>The catalogue's entry for CD-ROMs.</summary>
    public static DeviceType CdRom { get; } = new("ide-cd", DeviceBus.Ide, "Storage", "virtual IDE CD-ROM", Properties, p => Plug(p, true));

    /// <inheritdoc/>
    public override string TypeName => _isCdRom ? "ide-cd" : "ide-hd";

    private static IdeDriveDevice Plug(DevicePlug plug, bool isCdRom)
    {
        int bus = plug.Options.Text("bus") switch
        {
            null => -1,
            "ide.0" => 0,
            "ide.1" => 1,
            var other => throw new MachineException($"Bus '{other}' not found"),
        };
        int unit = (int)plug.Options.Number("unit", uint.MaxValue);
        if (unit > 1)
            throw new MachineException("Can't create IDE unit " + unit + ", bus supports only 2 units");
        var channels = plug.Machine.IdeChannels;
        // The second channel comes first, as the peer has it.
        foreach (int i in (ReadOnlySpan<int>)[2, 3, 0, 1])
            if ((bus < 0 || bus == i >> 1) && (unit < 0 || unit == (i & 1)) && channels[i >> 1].Units[i & 1] == null)
            {
                var drive = DriveProperties.Make(plug, isCdRom, $"ide{i >> 1}-{i & 1}", $"ide{i >> 1}-cd{i & 1}", isCdRom ? "ide-cd" : "ide-hd");
                if (!isCdRom && drive.Geometry.LogicalBlock != 512)
                    throw new MachineException("logical_block_size must be 512 for IDE");
                channels[i >> 1].Attach(i & 1, drive);
                int place = i;
                if (drive.BootIndex >= 0)
                    plug.Machine.AddBootEntry(drive.BootIndex, () => $"/pci@i0cf8/ide@1,1/drive@{place >> 1}/disk@{place & 1}");
                return new IdeDriveDevice(isCdRom, place >> 1);
            }
        throw new MachineException(bus >= 0 && unit >= 0 ? $"IDE unit {unit} is in use" : "no free IDE unit");
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        // the channel resets its drives
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        // the channel keeps the state of its drives
    }
}
