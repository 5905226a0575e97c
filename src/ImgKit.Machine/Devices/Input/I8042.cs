using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Devices.Input;

/// <summary>
/// The keyboard controller at ports 0x60 and 0x64 with a PS/2 keyboard (line 1) and a PS/2 mouse (line 12). It also holds A20 and the
/// processor's reset line. Source: IBM PS/2 technical reference, keyboard/auxiliary device controller.
/// </summary>
public sealed class I8042 : Device, IPortHandler
{
    private const byte StatusOutput = 1, StatusSystem = 4, StatusCommand = 8, StatusUnlocked = 0x10, StatusMouse = 0x20;
    private const byte ModeKeyboardIrq = 1, ModeMouseIrq = 2, ModeSystem = 4, ModeKeyboardOff = 0x10, ModeMouseOff = 0x20;

    private readonly InterruptLine _irq1, _irq12;
    private readonly MachineServices _services;
    private readonly A20Gate _a20;
    private byte _status, _mode, _command, _data, _outputPort;
    private bool _hasData, _dataFromMouse, _breaking;

    /// <summary>Makes the controller with its two devices.</summary>
    public I8042(MachineServices services, A20Gate a20)
    {
        _services = services;
        _a20 = a20;
        _irq1 = services.IsaLine(1);
        _irq12 = services.IsaLine(12);
        Keyboard = new Ps2Keyboard(Update);
        Mouse = new Ps2Mouse(Update);
        services.Ports.Register(0x60, 1, this);
        services.Ports.Register(0x64, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "i8042";

    /// <summary>The keyboard.</summary>
    public Ps2Keyboard Keyboard { get; }

    /// <summary>The mouse.</summary>
    public Ps2Mouse Mouse { get; }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port == 0x64)
            return _status;
        if (_hasData)
        {
            _hasData = false;
            _status &= unchecked((byte)~(StatusOutput | StatusMouse));
            byte value = _data;
            _irq1.Set(false);
            _irq12.Set(false);
            Update();
            return value;
        }
        return _data;
    }

    private void Put(byte value, bool mouse)
    {
        _data = value;
        _hasData = true;
        _dataFromMouse = mouse;
        _status |= (byte)(StatusOutput | (mouse ? StatusMouse : 0));
        UpdateLines();
    }

    private void UpdateLines()
    {
        _irq1.Set(_hasData && !_dataFromMouse && (_mode & ModeKeyboardIrq) != 0);
        _irq12.Set(_hasData && _dataFromMouse && (_mode & ModeMouseIrq) != 0);
    }

    // Takes the next byte of a device when the output buffer is free.
    private void Update()
    {
        while (!_hasData && (_mode & ModeKeyboardOff) == 0 && Keyboard.TryTake(out byte value))
        {
            if ((_mode & 0x40) == 0)
                Put(value, false);
            else if (value == 0xF0)
                _breaking = true;       // becomes bit 7 of the code that follows
            else
                Put(Ps2Keyboard.ToSet1(value, ref _breaking), false);
        }
        if (!_hasData && (_mode & ModeMouseOff) == 0 && Mouse.TryTake(out byte moved))
            Put(moved, true);
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        byte v = (byte)value;
        if (port == 0x64)
        {
            _status |= StatusCommand;
            Command(v);
            return;
        }
        _status &= unchecked((byte)~StatusCommand);
        byte command = _command;
        _command = 0;
        switch (command)
        {
            case 0x60:
                _mode = v;
                _status = (byte)(_status & ~StatusSystem | v & ModeSystem);
                UpdateLines();
                Update();
                break;
            case 0xD1:
                WriteOutputPort(v);
                break;
            case 0xD2:
                _hasData = false;
                Put(v, false);
                break;
            case 0xD3:
                _hasData = false;
                Put(v, true);
                break;
            case 0xD4:
                Mouse.Write(v);
                Update();
                break;
            default:
                // A byte for the keyboard turns its interface on.
                _mode &= unchecked((byte)~ModeKeyboardOff);
                Keyboard.Write(v);
                Update();
                break;
        }
    }

    private void Reply(byte value)
    {
        _hasData = false;
        Put(value, false);
    }

    private void Command(byte command)
    {
        switch (command)
        {
            case 0x20:
                Reply(_mode);
                break;
            case 0x60 or 0xD1 or 0xD2 or 0xD3 or 0xD4:
                _command = command;
                break;
            case 0xA7:
                _mode |= ModeMouseOff;
                break;
            case 0xA8:
                _mode &= unchecked((byte)~ModeMouseOff);
                Update();
                break;
            case 0xA9:
                Reply(0);
                break;
            case 0xAA:
                _status |= StatusSystem;
                Reply(0x55);
                break;
            case 0xAB:
                Reply(0);
                break;
            case 0xAD:
                _mode |= ModeKeyboardOff;
                break;
            case 0xAE:
                _mode &= unchecked((byte)~ModeKeyboardOff);
                Update();
                break;
            case 0xC0:
                Reply(0x80);
                break;
            case 0xD0:
                Reply((byte)(_outputPort & ~2 | (_a20.KeyboardEnabled ? 2 : 0) | 1));
                break;
            case 0xDD:
                _a20.KeyboardEnabled = false;
                break;
            case 0xDF:
                _a20.KeyboardEnabled = true;
                break;
            case >= 0xF0:
                // Pulses output lines that are 0 in the low bits; line 0 is the reset.
                if ((command & 1) == 0)
                    _services.Control.RequestReset();
                break;
        }
    }

    private void WriteOutputPort(byte value)
    {
        _outputPort = value;
        _a20.KeyboardEnabled = (value & 2) != 0;
        if ((value & 1) == 0)
            _services.Control.RequestReset();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _status = StatusSystem | StatusUnlocked;
        _mode = ModeKeyboardIrq | ModeMouseIrq | 0x40;
        _command = _data = 0;
        _outputPort = 0xCF;
        _hasData = _dataFromMouse = _breaking = false;
        Keyboard.Reset();
        Mouse.Reset();
        UpdateLines();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("status", ref _status);
        state.Field("mode", ref _mode);
        state.Field("command", ref _command);
        state.Field("data", ref _data);
        state.Field("output-port", ref _outputPort);
        state.Field("has-data", ref _hasData);
        state.Field("from-mouse", ref _dataFromMouse);
        state.Field("breaking", ref _breaking);
        state.Part("keyboard", Keyboard);
        state.Part("mouse", Mouse);
        if (state.IsLoading)
            UpdateLines();
    }
}
