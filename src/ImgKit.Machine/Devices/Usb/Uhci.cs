using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Devices.Usb;

/// <summary>
/// The PIIX3's USB function: a universal host controller with two root ports, where nothing is plugged in. Schedules run: a transfer to a device that
/// is not there ends as on a real bus, after its retries. Source: Intel, Universal Host Controller Interface Design Guide 1.1, chapters 2 and 3.
/// </summary>
public sealed class Uhci : PciDevice, IPortHandler
{
    // USBCMD
    private const ushort Run = 0x01, HostReset = 0x02, GlobalReset = 0x04, SoftwareDebug = 0x20;

    // USBSTS
    private const ushort Interrupt = 0x01, ErrorInterrupt = 0x02, ProcessError = 0x10, Halted = 0x20;

    // Transfer descriptor, second word
    private const uint Active = 1u << 23, Stalled = 1u << 22, Timeout = 1u << 18, InterruptOnComplete = 1u << 24, Isochronous = 1u << 25;

    private const long Frame = 1_000_000;

    /// <summary>Descriptors that one frame goes through: a schedule that loops costs no more than that.</summary>
    private const int MostDescriptors = 256;

    private readonly ClockTimer _timer;
    private readonly ushort[] _ports = new ushort[2];
    private ushort _command, _status, _enable, _frame;
    private uint _list;
    private byte _startOfFrame = 0x40;

    /// <summary>Makes the function.</summary>
    public Uhci(MachineServices services) : base(services, 0x8086, 0x7020, 0x0C0300, 1)
    {
        SetSubsystem(0x1AF4, 0x1100);
        Config[7] = 2;
        Config[0x60] = 0x10;            // USB 1.0
        Config[0xC1] = 0x20;            // legacy support: the interrupt goes to PCI
        Writable[0xC0..0xC2].Fill(0xBF);
        SetInterruptPin(4);
        AddPortBar(4, 32, this, 4);
        _timer = services.Clock.CreateTimer(NextFrame);
    }

    /// <summary>The catalogue's entry.</summary>
    public static DeviceType Type { get; } = new("piix3-usb-uhci", DeviceBus.Pci, "USB", "USB host controller with two empty ports", [], static plug =>
    {
        var controller = new Uhci(plug.Services);
        plug.PlugPci(controller);
        return controller;
    });

    /// <inheritdoc/>
    public override string TypeName => "piix3-usb-uhci";

    private void UpdateInterrupt() => SetInterrupt(((_status & Interrupt) != 0 && (_enable & 0x0C) != 0)
        || ((_status & ErrorInterrupt) != 0 && (_enable & 0x01) != 0) || (_status & ProcessError) != 0);

    private void ResetController()
    {
        _timer.Cancel();
        _command = _enable = _frame = 0;
        _status = Halted;
        _list = 0;
        _startOfFrame = 0x40;
        _ports.AsSpan().Clear();
        UpdateInterrupt();
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        uint value = 0;
        for (int i = 0; i < size; i += 2)
            value |= (uint)ReadWord((port & ~1) + i) << (8 * i);
        return size == 1 && (port & 1) != 0 ? value >> 8 & 0xFF : size == 1 ? value & 0xFF : value;
    }

    private ushort ReadWord(int register) => register switch
    {
        0x00 => _command,
        0x02 => _status,
        0x04 => _enable,
        0x06 => _frame,
        0x08 => (ushort)_list,
        0x0A => (ushort)(_list >> 16),
        0x0C => _startOfFrame,
        0x10 or 0x12 => (ushort)(_ports[register >> 1 & 1] | 0x80),
        // A port beyond the last: no driver takes it for one.
        _ => 0xFF7F,
    };

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (size == 1)
        {
            // Only the start-of-frame register has a byte of its own.
            if (port == 0x0C)
                _startOfFrame = (byte)(value & 0x7F);
            return;
        }
        for (int i = 0; i < size; i += 2)
            WriteWord((port & ~1) + i, (ushort)(value >> (8 * i)));
    }

    private void WriteWord(int register, ushort value)
    {
        switch (register)
        {
            case 0x00:
                WriteCommand(value);
                break;
            case 0x02:
                _status &= (ushort)~(value & 0x1F);
                UpdateInterrupt();
                break;
            case 0x04:
                _enable = (ushort)(value & 0x0F);
                UpdateInterrupt();
                break;
            case 0x06 when (_status & Halted) != 0:
                _frame = (ushort)(value & 0x7FF);
                break;
            case 0x08:
                _list = _list & 0xFFFF_0000 | value & 0xF000u;
                break;
            case 0x0A:
                _list = _list & 0xFFFF | (uint)value << 16;
                break;
            case 0x0C:
                _startOfFrame = (byte)(value & 0x7F);
                break;
            case 0x10 or 0x12:
                // Nothing is connected: a port cannot be enabled. Reset and suspend can be written.
                _ports[register >> 1 & 1] = (ushort)(value & 0x1200);
                break;
        }
    }

    private void WriteCommand(ushort value)
    {
        if ((value & HostReset) != 0)
        {
            ResetController();
            return;
        }
        if ((value & GlobalReset) != 0 && (_command & GlobalReset) == 0)
            ResetController();
        bool was = (_command & Run) != 0, now = (value & Run) != 0;
        _command = (ushort)(value & 0xFD);
        if (now && !was)
        {
            _status &= unchecked((ushort)~Halted);
            _timer.Arm(Services.Clock.Now + Frame);
        }
        else if (!now && was)
        {
            _timer.Cancel();
            _status |= Halted;
        }
    }

    private void NextFrame()
    {
        if ((_command & Run) == 0)
            return;
        bool good = IsBusMaster && RunFrame();
        _frame = (ushort)((_frame + 1) & 0x7FF);
        if (!good && IsBusMaster)
        {
            // A descriptor that does not make sense stops the controller.
            _status |= ProcessError | Halted;
            _command &= unchecked((ushort)~Run);
            UpdateInterrupt();
            return;
        }
        if ((_command & SoftwareDebug) != 0)
        {
            _command &= unchecked((ushort)~Run);
            _status |= Halted;
            return;
        }
        _timer.Arm(Services.Clock.Now + Frame);
    }

    private bool RunFrame()
    {
        Span<byte> b = stackalloc byte[4];
        if (!Services.Memory.Read(_list + 4u * (_frame & 1023u), b))
            return false;
        uint link = System.Buffers.Binary.BinaryPrimitives.ReadUInt32LittleEndian(b);
        int left = MostDescriptors;
        while ((link & 1) == 0 && left-- > 0)
        {
            ulong at = link & ~15u;
            if ((link & 2) != 0)
            {
                // A queue: its first element is tried, then the next queue.
                uint next = Services.Memory.ReadUInt32(at), element = Services.Memory.ReadUInt32(at + 4);
                if ((element & 3) == 0)
                    Transfer(element & ~15u);
                link = next;
            }
            else
            {
                Transfer(at);
                link = Services.Memory.ReadUInt32(at);
            }
        }
        return true;
    }

    // Nobody answers: one of the tries is used up, and after the last one the descriptor is stalled.
    private void Transfer(ulong at)
    {
        uint control = Services.Memory.ReadUInt32(at + 4);
        if ((control & Active) == 0)
            return;
        uint tries = control >> 27 & 3;
        bool last = tries <= 1 || (control & Isochronous) != 0;
        control = control & ~(3u << 27) & ~0x7FFu | (last ? 0 : tries - 1) << 27 | Timeout | 0x7FF;
        if (tries == 0 && (control & Isochronous) == 0)
        {
            // Zero means: for ever.
            Services.Memory.WriteUInt32(at + 4, control);
            return;
        }
        if (last)
            control = control & ~Active | ((control & Isochronous) == 0 ? Stalled : 0);
        Services.Memory.WriteUInt32(at + 4, control);
        if (!last)
            return;
        _status |= ErrorInterrupt;
        if ((control & InterruptOnComplete) != 0)
            _status |= Interrupt;
        UpdateInterrupt();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        ResetController();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("command", ref _command);
        state.Field("status", ref _status);
        state.Field("enable", ref _enable);
        state.Field("frame", ref _frame);
        state.Field("list", ref _list);
        state.Field("start-of-frame", ref _startOfFrame);
        state.Fields("ports", _ports);
        _timer.Describe(state, "timer");
        if (state.IsLoading)
            UpdateInterrupt();
    }
}
