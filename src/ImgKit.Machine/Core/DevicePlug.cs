using ImgKit.Machine.Pci;

namespace ImgKit.Machine;

/// <summary>What a device's factory is given.</summary>
public sealed class DevicePlug
{
    /// <summary>What the machine gives to devices.</summary>
    public required MachineServices Services { get; init; }

    /// <summary>The user's property values.</summary>
    public required DeviceOptions Options { get; init; }

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
                throw new MachineException($"Parameter 'addr' expects a PCI address, not '{addr}'");
        }
        Pci.Add(device, slot, function);
    }

    private static bool TryHex(string text, out int value)
    {
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            text = text[2..];
        return int.TryParse(text, System.Globalization.NumberStyles.AllowHexSpecifier, null, out value) && value >= 0;
    }
}
