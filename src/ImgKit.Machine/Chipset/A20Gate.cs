namespace ImgKit.Machine.Chipset;

/// <summary>
/// Address line 20 and port 0x92: the line is open when either the keyboard controller or port 0x92 says so. Bit 0 of the port
/// resets. Source: PIIX3 data sheet, port 92 register.
/// </summary>
public sealed class A20Gate : Device, IPortHandler
{
    private readonly MachineServices _services;
    private readonly Action<bool> _changed;
    private bool _keyboard = true, _fast;
    private byte _port92;

    /// <summary>Makes the gate.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="changed">told of the line: true is open (no wrapping at 1 MiB).</param>
    public A20Gate(MachineServices services, Action<bool> changed)
    {
        _services = services;
        _changed = changed;
        services.Ports.Register(0x92, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "port92";

    /// <summary>The line is open.</summary>
    public bool IsOpen => _keyboard || _fast;

    /// <summary>The keyboard controller's opinion.</summary>
    public bool KeyboardEnabled
    {
        get => _keyboard;
        set
        {
            bool was = IsOpen;
            _keyboard = value;
            Tell(was);
        }
    }

    private void Tell(bool was)
    {
        if (was != IsOpen)
            _changed(IsOpen);
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => (uint)(_port92 & ~2 | (_fast ? 2 : 0));

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        bool was = IsOpen, reset = (value & 1) != 0 && (_port92 & 1) == 0;
        _port92 = (byte)value;
        _fast = (value & 2) != 0;
        Tell(was);
        if (reset)
            _services.Control.RequestReset();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        bool was = IsOpen;
        // Firmware of PCs that have A20 open after reset expects so; the guest may close it.
        _keyboard = true;
        _fast = false;
        _port92 = 0;
        Tell(was);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        bool was = IsOpen;
        state.Field("keyboard", ref _keyboard);
        state.Field("fast", ref _fast);
        state.Field("port92", ref _port92);
        if (state.IsLoading)
            Tell(was);
    }
}
