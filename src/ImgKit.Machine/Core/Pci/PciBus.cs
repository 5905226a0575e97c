namespace ImgKit.Machine.Pci;

/// <summary>PCI bus 0: up to 32 devices of 8 functions, and four interrupt wires that the board routes.</summary>
public sealed class PciBus(IInterruptSink wires)
{
    private readonly PciDevice?[] _functions = new PciDevice?[256];
    private readonly int[] _wireCount = new int[4];
    private readonly bool[] _pins = new bool[256 * 4];

    /// <summary>Every function, by device number and function.</summary>
    public IEnumerable<PciDevice> Functions => _functions.OfType<PciDevice>();

    /// <summary>The function at a device number * 8 + function; null where there is none.</summary>
    public PciDevice? this[int deviceFunction] => _functions[deviceFunction];

    /// <summary>Plugs a function.</summary>
    /// <param name="device">the function.</param>
    /// <param name="slot">device number; -1: the first that is free.</param>
    /// <param name="function">0..7.</param>
    /// <exception cref="MachineException">the place is taken, or there is none.</exception>
    public void Add(PciDevice device, int slot, int function = 0)
    {
        if (slot < 0)
        {
            slot = 0;
            while (slot < 32 && _functions[slot * 8] != null)
                slot++;
            if (slot == 32)
                throw new MachineException($"PCI: no slot/function available for {device.TypeName}, all in use");
        }
        int at = slot * 8 + function;
        if (_functions[at] is { } other)
            throw new MachineException($"PCI: slot {slot} function {function} not available for {device.TypeName}, in use by {other.TypeName}");
        _functions[at] = device;
        device.Bus = this;
        device.DeviceFunction = at;
        for (int f = 0; f < 8; f++)
            if (f != 0 && _functions[slot * 8 + f] != null && _functions[slot * 8] is { } head)
            {
                head.Config[0x0E] |= 0x80;
                head.Plugged();
            }
        device.Plugged();
        device.UpdateMappings();
    }

    internal void SetInterrupt(PciDevice device, int pin, bool asserted)
    {
        ref bool level = ref _pins[device.DeviceFunction * 4 + pin];
        if (level == asserted)
            return;
        level = asserted;
        int wire = WireOf(device.DeviceFunction, pin);
        _wireCount[wire] += asserted ? 1 : -1;
        if (_wireCount[wire] == (asserted ? 1 : 0))
            wires.SetLine(wire, asserted);
    }

    /// <summary>Which of the four wires (0..3) a pin (0..3) of a device is on: the i440FX boards' swizzle.</summary>
    public static int WireOf(int deviceFunction, int pin) => ((deviceFunction >> 3) - 1 + pin) & 3;

    /// <summary>Configuration read; all ones where there is no function.</summary>
    public uint ConfigRead(int deviceFunction, int offset, int size) =>
        _functions[deviceFunction]?.ConfigRead(offset, size) ?? (size == 4 ? uint.MaxValue : (1u << (8 * size)) - 1);

    /// <summary>Configuration write.</summary>
    public void ConfigWrite(int deviceFunction, int offset, uint value, int size) =>
        _functions[deviceFunction]?.ConfigWrite(offset, value, size);
}
