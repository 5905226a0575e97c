using ImgKit.Machine.Pci;

namespace ImgKit.Machine;

/// <summary>What a device's factory is given.</summary>
public sealed class DevicePlug
{
    /// <summary>What the machine gives to devices.</summary>
    public required MachineServices Services { get; init; }

    /// <summary>The user's property values.</summary>
    public required DeviceOptions Options { get; init; }

    /// <summary>The machine, for what plugs into its board (IDE channels, the floppy controller's DMA).</summary>
    public required Pc Machine { get; init; }

    /// <summary>Finds the drive of an identifier, or the node of a name; null when there is none.</summary>
    public Func<string, Drive?>? Drives { get; init; }

    /// <summary>Finds the character device of an identifier; throws <see cref="MachineException"/> when there is none.</summary>
    public Func<string, CharDevices.CharDevice>? CharDevices { get; init; }

    /// <summary>The drive that the option <c>drive=</c> names. Throws <see cref="MachineException"/>.</summary>
    /// <param name="type">the device's type, for messages.</param>
    public Drive Drive(string type)
    {
        if (Options.Text("drive") is not { } id)
            throw new MachineException("drive property not set");
        return Drives?.Invoke(id) ?? throw new MachineException($"Property '{type}.drive' can't find value '{id}'");
    }

    /// <summary>The PCI bus, where the machine has one.</summary>
    public PciBus? Pci { get; init; }

    /// <summary>Plugs a PCI device at the option <c>addr=SLOT[.FUNCTION]</c> (hexadecimal) or at the first free slot.
    /// Throws <see cref="MachineException"/>.</summary>
    public void PlugPci(PciDevice device)
    {
        if (Pci == null)
            throw new MachineException($"No 'PCI' bus found for device '{device.TypeName}'");
        int slot = -1, function = 0;
        if (Options.Text("addr") is { } addr)
        {
            string[] parts = addr.Split('.');
            if (parts.Length > 2 || !TryHex(parts[0], out slot) || (parts.Length == 2 && !TryHex(parts[1], out function))
                || slot > 31 || function > 7)
                throw new MachineException($"Property '{device.TypeName}.addr' doesn't take value '{addr}'");
        }
        Pci.Add(device, slot, function);
    }

    /// <summary>Throws <see cref="MachineException"/> where a device of a type has no bus to plug into, or not the one that it names.</summary>
    public void CheckBus(DeviceType type)
    {
        if (type.Bus != DeviceBus.Pci)
            return;
        if (Options.Text("bus") is { } bus && (Pci == null || bus is not ("pci.0" or "pci")))
            throw new MachineException($"Bus '{bus}' not found");
        if (Pci == null)
            throw new MachineException($"No 'PCI' bus found for device '{type.Name}'");
    }

    private static bool TryHex(string text, out int value)
    {
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            text = text[2..];
        return int.TryParse(text, System.Globalization.NumberStyles.AllowHexSpecifier, null, out value) && value >= 0;
    }
}
