namespace ImgKit.Machine;

/// <summary>A property of a device type, as <c>-device TYPE,help</c> lists it.</summary>
/// <param name="Name">its name in the option.</param>
/// <param name="Kind">the kind of value: <c>str</c>, <c>uint32</c>, <c>bool</c>, <c>size</c> ...</param>
/// <param name="Help">one line.</param>
public sealed record DeviceProperty(string Name, string Kind, string Help);

/// <summary>A bus that a device type plugs into.</summary>
public enum DeviceBus
{
    /// <summary>None: the board.</summary>
    System,

    /// <summary>ISA.</summary>
    Isa,

    /// <summary>PCI.</summary>
    Pci,

    /// <summary>IDE.</summary>
    Ide,

    /// <summary>SCSI.</summary>
    Scsi,

    /// <summary>Floppy.</summary>
    Floppy,

    /// <summary>USB.</summary>
    Usb,
}

/// <summary>Values of the properties that the user gave for one device.</summary>
public sealed class DeviceOptions(IReadOnlyDictionary<string, string> values)
{
    /// <summary>All values by name.</summary>
    public IReadOnlyDictionary<string, string> Values => values;

    /// <summary>A text, or null.</summary>
    public string? Text(string name) => values.GetValueOrDefault(name);

    /// <summary>A number in decimal or 0x notation; throws <see cref="MachineException"/> where the text is none.</summary>
    public ulong Number(string name, ulong otherwise)
    {
        if (!values.TryGetValue(name, out var text))
            return otherwise;
        bool hex = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        if (ulong.TryParse(hex ? text.AsSpan(2) : text, hex ? System.Globalization.NumberStyles.AllowHexSpecifier
                : System.Globalization.NumberStyles.None, null, out ulong n))
            return n;
        throw new MachineException($"Parameter '{name}' expects integer");
    }

    /// <summary>A number of bytes, with a suffix k, M, G or in 0x notation; throws <see cref="MachineException"/> where the text is none.</summary>
    public ulong Size(string name, ulong otherwise)
    {
        if (!values.TryGetValue(name, out var text))
            return otherwise;
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            return Number(name, otherwise);
        return Block.SizeText.TryParse(text, out long n) && n >= 0 ? (ulong)n : throw new MachineException($"Parameter '{name}' expects a non-negative number below 2^64");
    }

    /// <summary>on/off (also yes/no, true/false); throws <see cref="MachineException"/> for any other text.</summary>
    public bool Flag(string name, bool otherwise) => values.GetValueOrDefault(name) switch
    {
        null => otherwise,
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new MachineException($"Parameter '{name}' expects 'on' or 'off'"),
    };
}

/// <summary>An error in what the user asked of the machine; its message is the one line to print.</summary>
public sealed class MachineException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>A type of device, declared in one place: name, what it is, what can be set, and how to make one.</summary>
/// <param name="Name">as in <c>-device NAME</c>.</param>
/// <param name="Bus">what it plugs into.</param>
/// <param name="Category">heading in <c>-device help</c>: Storage, Network, Display, Sound, Input, USB, Misc, Bridge.</param>
/// <param name="Description">one line.</param>
/// <param name="Properties">what can be set, beyond <c>id</c>, <c>bus</c>, <c>addr</c>.</param>
/// <param name="Create">makes and plugs the device. Throws <see cref="MachineException"/> (or the block layer's exception).</param>
public sealed record DeviceType(string Name, DeviceBus Bus, string Category, string Description, DeviceProperty[] Properties,
    Func<DevicePlug, Device> Create);
