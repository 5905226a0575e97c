using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Chipset;

/// <summary>
/// The PIIX4's power management function: ACPI PM registers (event, control, timer at 3.579545 MHz), general-purpose events, the SMI
/// command port 0xB2 and an SMBus host without devices. Source: Intel 82371AB data sheet, chapter 7; ACPI 6.4, section 4.8.
/// </summary>
public sealed class Piix4Pm : PciDevice, IPortHandler
{
    /// <summary>Where SeaBIOS puts the PM block, and a start without firmware.</summary>
    public const ushort DefaultPmBase = 0x600;

    /// <summary>Ports of the general-purpose event block.</summary>
    public const ushort GpeBase = 0xAFE0;

    /// <summary>PM timer frequency in Hz.</summary>
    public const long TimerFrequency = 3579545;

    private const ushort TimerStatus = 1, GlobalStatus = 0x20, PowerButton = 0x100, RtcStatus = 0x400, WakeStatus = 0x8000;

    private readonly InterruptLine _sci;
    private readonly ClockTimer _overflow;
    private readonly Action _smi;
    private readonly byte[] _gpe = new byte[4];
    private readonly byte[] _smbus = new byte[16];
    private readonly bool _hasSmm;
    private ushort _status, _enable, _control;
    private byte _apmCommand, _apmStatus;
    private ushort _mapped, _smbusMapped;

    /// <summary>Makes the function.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="sci">its interrupt, ISA line 9.</param>
    /// <param name="smi">raises SMI.</param>
    /// <param name="hasSmm">system-management mode works; else the firmware is told that it is set up already.</param>
    public Piix4Pm(MachineServices services, InterruptLine sci, Action smi, bool hasSmm) : base(services, 0x8086, 0x7113, 0x068000, 3)
    {
        SetSubsystem(0x1AF4, 0x1100);
        _sci = sci;
        _smi = smi;
        _hasSmm = hasSmm;
        _overflow = services.Clock.CreateTimer(UpdateSci);
        Config[7] = 2;
        Config[0x3D] = 1;
        Config[0x40] = 1;       // PM base is I/O
        Config[0x90] = 1;
        Config[0x63] = 0x60;
        Config[0x67] = 0x98;
        Writable[0x41] = 0xFF;
        Writable[0x40] = 0xC0;
        Writable[0x58..0x5C].Fill(0xFF);
        Writable[0x5F] = 0xFF;
        Writable[0x63] = Writable[0x67] = 0xFF;
        Writable[0x80] = 1;
        Writable[0x91] = 0xFF;
        Writable[0x90] = 0xF0;
        Writable[0xD2] = 1;
        if (!hasSmm)
            Config[0x5B] = 2;   // APMC_EN: the firmware takes it that SMM is in use already, and leaves it alone
        services.Ports.Register(0xB2, 2, this);
        services.Ports.Register(GpeBase, 4, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "PIIX4_PM";

    /// <summary>Told when the guest wants to sleep: 0 is power-off (S5), 1 suspend to RAM, 2 to disk, as this chip's SLP_TYP.</summary>
    public Action<int>? Sleep { get; set; }

    private long Ticks => (long)((Int128)Services.Clock.Now * TimerFrequency / 1_000_000_000);

    private ushort Status
    {
        get
        {
            // TMR_STS is set whenever bit 23 of the timer has changed since it was cleared.
            if (Ticks >> 23 != _lastOverflow)
            {
                _lastOverflow = Ticks >> 23;
                _status |= TimerStatus;
            }
            return _status;
        }
    }

    private long _lastOverflow;

    private void UpdateSci()
    {
        ushort status = Status;
        bool events = (status & _enable & (TimerStatus | GlobalStatus | PowerButton | RtcStatus)) != 0;
        bool general = ((_gpe[0] & _gpe[2]) | (_gpe[1] & _gpe[3])) != 0;
        _sci.Set((_control & 1) != 0 && (events || general));
        if ((_enable & TimerStatus) != 0 && (status & TimerStatus) == 0)
            _overflow.Arm((long)(((Int128)((Ticks >> 23) + 1) << 23) * 1_000_000_000 / TimerFrequency) + 1);
        else
            _overflow.Cancel();
    }

    /// <summary>Presses the power button.</summary>
    public void PressPowerButton()
    {
        _status |= PowerButton;
        UpdateSci();
    }

    /// <summary>The real-time clock's alarm is due.</summary>
    public void RaiseRtcAlarm()
    {
        _status |= RtcStatus;
        UpdateSci();
    }

    /// <summary>Wakes from suspend.</summary>
    public void SetWoken()
    {
        _status |= WakeStatus;
        UpdateSci();
    }

    /// <summary>Raises general-purpose event <paramref name="number"/> (0..15).</summary>
    public void RaiseEvent(int number)
    {
        _gpe[number >> 3] |= (byte)(1 << (number & 7));
        UpdateSci();
    }

    /// <summary>First port of the PM block, where the firmware has put it; before that, the default.</summary>
    public ushort PmBase => BaseRegister != 0 ? BaseRegister : DefaultPmBase;

    private ushort BaseRegister => (ushort)(Config[0x41] << 8 | Config[0x40] & 0xC0);

    private void Map()
    {
        ushort wanted = (Config[0x80] & 1) != 0 ? BaseRegister : (ushort)0;
        if (wanted != _mapped)
        {
            if (_mapped != 0)
                Services.Ports.Unregister(_mapped, this);
            _mapped = wanted;
            if (_mapped != 0)
                Services.Ports.Register(_mapped, 64, this, 4);
        }
        ushort smbus = (Config[0xD2] & 1) != 0 ? (ushort)(Config[0x91] << 8 | Config[0x90] & 0xF0) : (ushort)0;
        if (smbus != _smbusMapped)
        {
            if (_smbusMapped != 0)
                Services.Ports.Unregister(_smbusMapped, this);
            _smbusMapped = smbus;
            if (_smbusMapped != 0)
                Services.Ports.Register(_smbusMapped, 16, this);
        }
    }

    /// <summary>Does what the firmware would: the PM block where the tables say, ACPI mode on. For kernels started without firmware.</summary>
    public void SetUpWithoutFirmware()
    {
        Config[0x41] = DefaultPmBase >> 8;
        Config[0x80] = 1;
        Config[0x3C] = 9;
        Map();
        _control |= 1;
    }

    /// <inheritdoc/>
    public override void ConfigWrite(int offset, uint value, int size)
    {
        base.ConfigWrite(offset, value, size);
        Map();
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port is 0xB2)
            return _apmCommand;
        if (port is 0xB3)
            return _apmStatus;
        if (port - GpeBase is >= 0 and < 4)
            return _gpe[port - GpeBase];
        if (_smbusMapped != 0 && port - _smbusMapped is >= 0 and < 16)
            return _smbus[port - _smbusMapped];
        int offset = port - _mapped;
        if (offset == 8 && size == 4)
            return (uint)Ticks & 0xFFFFFF;
        uint value = (offset & ~3) switch
        {
            0 => (uint)(Status | _enable << 16),
            4 => _control,
            8 => (uint)Ticks & 0xFFFFFF,
            _ => 0,
        };
        return value >> (8 * (offset & 3));
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port is 0xB2)
        {
            _apmCommand = (byte)value;
            ApmCommand((byte)value);
            return;
        }
        if (port is 0xB3)
        {
            _apmStatus = (byte)value;
            return;
        }
        if (port - GpeBase is >= 0 and < 4)
        {
            int n = port - GpeBase;
            _gpe[n] = n < 2 ? (byte)(_gpe[n] & ~value) : (byte)value;
            UpdateSci();
            return;
        }
        if (_smbusMapped != 0 && port - _smbusMapped is >= 0 and < 16)
        {
            WriteSmbus(port - _smbusMapped, (byte)value);
            return;
        }
        int offset = port - _mapped;
        for (int i = 0; i < size; i++)
            WriteByte(offset + i, (byte)(value >> (8 * i)), i + 1 == size);
    }

    private void WriteByte(int offset, byte value, bool last)
    {
        switch (offset)
        {
            case 0:
                _ = Status;
                _status = (ushort)(_status & ~value);
                break;
            case 1:
                _status = (ushort)(_status & ~(value << 8));
                break;
            case 2:
                _enable = (ushort)(_enable & 0xFF00 | value);
                break;
            case 3:
                _enable = (ushort)(_enable & 0xFF | value << 8);
                break;
            case 4:
                _control = (ushort)(_control & 0xFF00 | value & ~4);
                break;
            case 5:
                _control = (ushort)(_control & 0xFF | (value & ~0x20) << 8);
                if ((value & 0x20) != 0)
                    Sleep?.Invoke(value >> 2 & 7);
                break;
        }
        if (last)
            UpdateSci();
    }

    private void ApmCommand(byte value)
    {
        // The FADT names 0xF1 and 0xF0 to turn ACPI mode on and off; the chipset does it without help from SMM.
        if (value == 0xF1)
            _control |= 1;
        else if (value == 0xF0)
            _control &= 0xFFFE;
        UpdateSci();
        if (_hasSmm && (Config[0x5B] & 2) != 0)
            _smi();
    }

    // Every transaction ends with "no device": DEV_ERR in the status register.
    private void WriteSmbus(int register, byte value)
    {
        if (register == 0)
            _smbus[0] &= (byte)~value;
        else if (register == 2)
        {
            _smbus[2] = (byte)(value & 0x1F);
            if ((value & 0x40) != 0)
                _smbus[0] |= 4;
        }
        else
            _smbus[register] = value;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        _status = _enable = _control = 0;
        _apmCommand = _apmStatus = 0;
        Array.Clear(_gpe);
        Array.Clear(_smbus);
        Map();
        UpdateSci();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("status", ref _status);
        state.Field("enable", ref _enable);
        state.Field("control", ref _control);
        state.Field("last-overflow", ref _lastOverflow);
        state.Field("apm-command", ref _apmCommand);
        state.Field("apm-status", ref _apmStatus);
        state.Bytes("gpe", _gpe);
        state.Bytes("smbus", _smbus);
        if (!state.IsLoading)
            return;
        Map();
        UpdateSci();
    }
}
