using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Devices.Storage.Floppy;

/// <summary>
/// The 82077AA floppy disk controller of a PC: ports 0x3F0 to 0x3F5 and 0x3F7, line 6, DMA channel 2, two drives. Registers and phases here; the
/// commands and the transfers are in the other parts. Source: Intel 82077AA data sheet, sections 2 (registers), 5 (commands) and 6 (status).
/// </summary>
public sealed partial class FloppyController : Device, IPortHandler, IDmaClient
{
    private const int Channel = 2;

    // Main status register
    private const byte Request = 0x80, ToHost = 0x40, NonDma = 0x20, CommandBusy = 0x10;

    // Digital output register
    private const byte NotReset = 0x04, Gate = 0x08;

    private enum Phase : byte
    {
        /// <summary>Command bytes come in.</summary>
        Command,

        /// <summary>Work on a disk is under way: nothing is asked of the host.</summary>
        Working,

        /// <summary>Data goes by DMA as soon as the channel allows it.</summary>
        Dma,

        /// <summary>The host reads data.</summary>
        DataIn,

        /// <summary>The host writes data.</summary>
        DataOut,

        /// <summary>Result bytes go out.</summary>
        Result,
    }

    private readonly MachineServices _services;
    private readonly Dma8237 _dma;
    private readonly InterruptLine _irq;
    private readonly FloppyDrive?[] _drives = new FloppyDrive?[4];
    private readonly DriveRequest?[] _requests = new DriveRequest?[4];
    private readonly byte[] _fifo = new byte[16];
    private Phase _phase;
    private byte _fifoAt, _fifoLength, _dor = NotReset | Gate, _rate, _tape, _pollsLeft, _seekStatus;
    private byte _config = 0x20, _precompensation, _specify0, _specify1, _perpendicular;
    private bool _interrupt, _locked, _seekDone;

    /// <summary>Makes the controller without drives.</summary>
    public FloppyController(MachineServices services, Dma8237 dma)
    {
        _services = services;
        _dma = dma;
        _irq = services.IsaLine(6);
        dma.Connect(Channel, this);
        services.Ports.Register(0x3F0, 6, this);
        services.Ports.Register(0x3F7, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-fdc";

    /// <summary>Check that the data rate is one of the disk's, as a real drive cannot but do.</summary>
    public bool ChecksRate { get; set; } = true;

    /// <summary>Plugs a drive. Throws <see cref="MachineException"/>.</summary>
    /// <param name="unit">0 is A, 1 is B.</param>
    /// <param name="drive">what it holds.</param>
    /// <param name="kind">its kind; None: the kind for the disk that it holds.</param>
    public void Attach(int unit, Drive drive, FloppyDriveKind kind = FloppyDriveKind.None)
    {
        if (unit is < 0 or > 1)
            throw new MachineException($"Can't create floppy unit {unit}, bus supports only 2 units");
        if (_drives[unit] != null)
            throw new MachineException($"Floppy unit {unit} is in use");
        _drives[unit] = new FloppyDrive(drive, kind);
        _requests[unit] = new DriveRequest(_services, drive, Completed);
    }

    /// <summary>The kind of a drive, for CMOS memory and ACPI.</summary>
    public FloppyDriveKind KindOf(int unit) => _drives[unit]?.Kind ?? FloppyDriveKind.None;

    /// <summary>Tracks, heads and sectors of what is in a drive, as the firmware's tables have them; null without a drive.</summary>
    public (int Tracks, int Heads, int Sectors)? GeometryOf(int unit) =>
        _drives[unit] is { } d ? (d.Format.Tracks, d.Format.Heads, d.Format.Sectors) : null;

    private bool IsDma => (_specify1 & 1) == 0;

    private void SetInterrupt(bool level)
    {
        _interrupt = level;
        _irq.Set(level && (_dor & Gate) != 0);
    }

    private byte MainStatus
    {
        get
        {
            if ((_dor & NotReset) == 0)
                return 0;
            return _phase switch
            {
                Phase.Command => (byte)(Request | (_fifoAt > 0 ? CommandBusy : 0)),
                Phase.Result => Request | ToHost | CommandBusy,
                Phase.DataIn => Request | ToHost | NonDma | CommandBusy,
                Phase.DataOut => Request | NonDma | CommandBusy,
                _ => CommandBusy,
            };
        }
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        switch (port & 7)
        {
            case 0:
                // Status register A: interrupt, second drive absent, track 0 (active low), write protection (active low)
                var drive = _drives[_dor & 3];
                return (uint)((_interrupt ? 0x80 : 0) | (_drives[1] == null ? 0x40 : 0) | (drive is { Track: 0 } ? 0 : 0x10)
                    | (drive is { Drive.IsReadOnly: true } ? 0 : 2));
            case 1:
                return (uint)(0xC0 | (_dor & 1) << 5 | _dor >> 4 & 3);
            case 2:
                return _dor;
            case 3:
                return (uint)(_tape & 3);
            case 4:
                return MainStatus;
            case 5:
                return ReadFifo();
            default:
                // Digital input register: the change line of the selected drive while its motor runs
                bool running = (_dor >> 4 >> (_dor & 3) & 1) != 0;
                return running && _drives[_dor & 3] is { } d ? d.IsChanged ? 0x80u : 0 : 0;
        }
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        byte v = (byte)value;
        switch (port & 7)
        {
            case 2:
                bool was = (_dor & NotReset) != 0, now = (v & NotReset) != 0;
                _dor = v;
                if (was && !now)
                    ResetController();
                else if (!was && now)
                    LeaveReset();
                else
                    SetInterrupt(_interrupt);
                break;
            case 3:
                _tape = v;
                break;
            case 4:
                _rate = (byte)(v & 3);
                if ((v & 0x80) != 0 && (_dor & NotReset) != 0)
                {
                    ResetController();
                    LeaveReset();
                }
                break;
            case 5:
                WriteFifo(v);
                break;
            case 7:
                _rate = (byte)(v & 3);
                break;
        }
    }

    // What a software reset leaves alone: the data rate, SPECIFY, and with LOCK what CONFIGURE set.
    private void ResetController()
    {
        Abandon();
        _phase = Phase.Command;
        _fifoAt = _fifoLength = _pollsLeft = 0;
        _seekDone = false;
        _perpendicular = (byte)(_perpendicular & ~3);
        if (!_locked)
        {
            _config = 0x20;         // no implied seek, no FIFO, polling
            _precompensation = 0;
        }
        SetInterrupt(false);
    }

    private void LeaveReset()
    {
        // With polling, the state of each of four drives has changed.
        if ((_config & 0x10) != 0)
            return;
        _pollsLeft = 4;
        SetInterrupt(true);
    }

    private byte ReadFifo()
    {
        switch (_phase)
        {
            case Phase.DataIn:
                return ReadData();
            case Phase.Result:
                SetInterrupt(false);
                byte value = _fifo[_fifoAt++];
                if (_fifoAt >= _fifoLength)
                {
                    _phase = Phase.Command;
                    _fifoAt = _fifoLength = 0;
                }
                return value;
            default:
                return 0;
        }
    }

    private void WriteFifo(byte value)
    {
        if ((_dor & NotReset) == 0)
            return;
        if (_phase == Phase.DataOut)
            WriteData(value);
        else if (_phase == Phase.Command)
        {
            if (_fifoAt == 0)
                _fifoLength = CommandLength(value);
            _fifo[_fifoAt++] = value;
            if (_fifoAt >= _fifoLength)
            {
                _fifoAt = 0;
                Execute();
            }
        }
    }

    /// <summary>Ends a command with result bytes.</summary>
    private void Reply(ReadOnlySpan<byte> result, bool interrupt)
    {
        result.CopyTo(_fifo);
        _fifoAt = 0;
        _fifoLength = (byte)result.Length;
        _phase = Phase.Result;
        if (interrupt)
            SetInterrupt(true);
    }

    /// <summary>Ends a command that has no result.</summary>
    private void Done()
    {
        _fifoAt = _fifoLength = 0;
        _phase = Phase.Command;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _locked = false;
        _dor = NotReset | Gate;
        _rate = 2;
        _tape = _specify0 = _specify1 = _perpendicular = 0;
        ResetController();
        foreach (var d in _drives)
            d?.Reset();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        byte phase = (byte)_phase;
        state.Field("phase", ref phase);
        _phase = (Phase)Math.Min(phase, (byte)Phase.Result);
        state.Bytes("fifo", _fifo);
        state.Field("fifo-at", ref _fifoAt);
        state.Field("fifo-length", ref _fifoLength);
        _fifoLength = Math.Min(_fifoLength, (byte)_fifo.Length);
        _fifoAt = Math.Min(_fifoAt, (byte)(_fifo.Length - 1));
        state.Field("dor", ref _dor);
        state.Field("rate", ref _rate);
        state.Field("tape", ref _tape);
        state.Field("polls-left", ref _pollsLeft);
        state.Field("seek-status", ref _seekStatus);
        state.Field("config", ref _config);
        state.Field("precompensation", ref _precompensation);
        state.Field("specify0", ref _specify0);
        state.Field("specify1", ref _specify1);
        state.Field("perpendicular", ref _perpendicular);
        state.Field("interrupt", ref _interrupt);
        state.Field("locked", ref _locked);
        state.Field("seek-done", ref _seekDone);
        DescribeTransfer(state);
        for (int i = 0; i < 2; i++)
            if (_drives[i] is { } d)
                state.Part($"drive{i}", d);
        if (state.IsLoading)
            SetInterrupt(_interrupt);
    }
}
