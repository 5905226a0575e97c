using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>The PIIX3's IDE function: two channels at the legacy ports, bus master at BAR 4. Source: Intel 82371SB data sheet, section 2.3.</summary>
public sealed class PiixIde : PciDevice, IPortHandler
{
    private readonly IdeChannel[] _channels;

    /// <summary>Makes the function.</summary>
    public PiixIde(MachineServices services) : base(services, 0x8086, 0x7010, 0x010180)
    {
        SetSubsystem(0x1AF4, 0x1100);
        Config[7] = 2;
        Writable[0x40..0x48].Fill(0xFF);
        AddPortBar(4, 16, this);
        _channels = [new IdeChannel(services, services.IsaLine(14)), new IdeChannel(services, services.IsaLine(15)) { Number = 1 }];
        _channels[0].RegisterPorts(0x1F0, 0x3F6);
        _channels[1].RegisterPorts(0x170, 0x376);
    }

    /// <inheritdoc/>
    public override string TypeName => "piix3-ide";

    /// <summary>Primary and secondary.</summary>
    public IReadOnlyList<IdeChannel> Channels => _channels;

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => _channels[port >> 3 & 1].ReadMaster(port & 7, size);

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size) => _channels[port >> 3 & 1].WriteMaster(port & 7, value, size);

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        foreach (var c in _channels)
            c.Reset();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Part("primary", _channels[0]);
        state.Part("secondary", _channels[1]);
    }
}
