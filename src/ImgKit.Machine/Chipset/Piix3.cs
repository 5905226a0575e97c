using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Chipset;

/// <summary>
/// The PIIX3's ISA bridge: routes the four PCI interrupt wires to ISA lines and holds the reset control register.
/// Source: Intel 82371SB data sheet, sections 2.2 and 2.5.
/// </summary>
public sealed class Piix3 : PciDevice, IInterruptSink
{
    private const int PirqRoute = 0x60;
    private readonly IInterruptSink _isa;
    private readonly bool[] _wires = new bool[4];
    private readonly bool[] _driven = new bool[16];
    private byte _resetControl;

    /// <summary>Makes the bridge; plug it as function 0.</summary>
    public Piix3(MachineServices services, IInterruptSink isa) : base(services, 0x8086, 0x7000, 0x060100)
    {
        SetSubsystem(0x1AF4, 0x1100);
        _isa = isa;
        Config[7] = 2;          // medium DEVSEL timing
        Config[0x4C] = 0x4D;
        Config[0x4E] = 0x03;
        Config[0x69] = 0x02;
        Config[0x70] = 0x80;
        Config[0x76] = Config[0x77] = 0x0C;
        Config[0x78] = 0x02;
        Config[0xA0] = 0x08;
        for (int i = 0; i < 4; i++)
        {
            Config[PirqRoute + i] = 0x80;
            Writable[PirqRoute + i] = 0x8F;
        }
        Writable[0x4C..0x50].Fill(0xFF);
        Writable[0x69] = 0xFE;
        Writable[0x6A..0x84].Fill(0xFF);
        Writable[0xA0..0xB0].Fill(0xFF);
    }

    /// <inheritdoc/>
    public override string TypeName => "PIIX3";

    /// <summary>A wire of the PCI bus: PIRQA to PIRQD.</summary>
    public void SetLine(int line, bool asserted)
    {
        _wires[line & 3] = asserted;
        Route();
    }

    private void Route()
    {
        Span<bool> wanted = stackalloc bool[16];
        wanted.Clear();
        for (int i = 0; i < 4; i++)
            if (_wires[i] && (Config[PirqRoute + i] & 0x80) == 0)
                wanted[Config[PirqRoute + i] & 15] = true;
        for (int i = 0; i < 16; i++)
            if (wanted[i] != _driven[i])
            {
                _driven[i] = wanted[i];
                _isa.SetLine(i, wanted[i]);
            }
    }

    /// <summary>A write to port 0xCF9: bit 2 going up resets.</summary>
    public void WriteResetControl(byte value)
    {
        if ((value & 4) != 0 && (_resetControl & 4) == 0)
            Services.Control.RequestReset();
        _resetControl = (byte)(value & 2);
    }

    /// <inheritdoc/>
    public override void ConfigWrite(int offset, uint value, int size)
    {
        base.ConfigWrite(offset, value, size);
        if (offset < PirqRoute + 4 && offset + size > PirqRoute)
            Route();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        Array.Clear(_wires);
        _resetControl = 0;
        Route();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Fields("wires", _wires);
        state.Field("reset-control", ref _resetControl);
        if (state.IsLoading)
            Route();
    }
}
