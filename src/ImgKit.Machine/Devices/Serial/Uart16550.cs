using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Devices.Serial;

/// <summary>A 16550A UART. Characters go out at once, whatever the rate, as long as the host takes them. Source: National Semiconductor PC16550D data sheet.</summary>
public sealed class Uart16550 : Device, IPortHandler
{
    private const byte IerReceive = 1, IerTransmit = 2, IerLine = 4, IerModem = 8;
    private const byte LsrData = 1, LsrOverrun = 2, LsrBreak = 0x10, LsrEmpty = 0x60;
    private const int FifoSize = 16;

    private readonly InterruptLine _irq;
    private readonly CharDevice _back;
    private readonly ushort _base;
    private readonly byte[] _fifo = new byte[FifoSize];
    private byte _ier, _fcr, _lcr, _mcr, _scratch, _lsr = LsrEmpty, _msrDelta, _fifoHead, _fifoCount;
    private ushort _divisor = 12;
    private bool _transmitPending;

    /// <summary>Makes one.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="port">first of its eight ports.</param>
    /// <param name="irq">ISA line.</param>
    /// <param name="back">the host's end.</param>
    public Uart16550(MachineServices services, ushort port, int irq, CharDevice back)
    {
        _base = port;
        _irq = services.IsaLine(irq);
        _back = back;
        _back.InputAvailable = Pull;
        _back.OutputDrained = Sent;
        services.Ports.Register(port, 8, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-serial";

    private bool UsesFifo => (_fcr & 1) != 0;

    private int Trigger => !UsesFifo ? 1 : (_fcr >> 6) switch { 0 => 1, 1 => 4, 2 => 8, _ => 14 };

    private void Pull()
    {
        if ((_mcr & 0x10) != 0)
            return;
        int room = UsesFifo ? FifoSize : 1;
        while (_fifoCount < room && _back.TryTake(out byte b))
            Push(b);
        Update();
    }

    // A host that does not take what is sent looks like a slow line: the transmitter stays full.
    private void Send(byte value)
    {
        _back.Write([value]);
        if (_back.IsCongested)
        {
            _lsr &= unchecked((byte)~LsrEmpty);
            _transmitPending = false;
        }
        else
            _transmitPending = true;
    }

    private void Sent()
    {
        if ((_lsr & LsrEmpty) == LsrEmpty)
            return;
        _lsr |= LsrEmpty;
        _transmitPending = true;
        Update();
    }

    private void Push(byte value)
    {
        int room = UsesFifo ? FifoSize : 1;
        if (_fifoCount == room)
        {
            _lsr |= LsrOverrun;
            return;
        }
        _fifo[(_fifoHead + _fifoCount++) % FifoSize] = value;
        _lsr |= LsrData;
    }

    private byte Identify()
    {
        byte fifo = (byte)(UsesFifo ? 0xC0 : 0);
        if ((_ier & IerLine) != 0 && (_lsr & (LsrOverrun | LsrBreak)) != 0)
            return (byte)(fifo | 6);
        if ((_ier & IerReceive) != 0 && (_lsr & LsrData) != 0)
            return (byte)(fifo | (_fifoCount >= Trigger ? 4 : 0x0C));
        if ((_ier & IerTransmit) != 0 && _transmitPending)
            return (byte)(fifo | 2);
        if ((_ier & IerModem) != 0 && _msrDelta != 0)
            return fifo;
        return (byte)(fifo | 1);
    }

    private void Update() => _irq.Set((Identify() & 1) == 0);

    private byte ModemStatus()
    {
        if ((_mcr & 0x10) != 0)
            return (byte)((_mcr & 1) << 5 | (_mcr & 2) << 3 | (_mcr & 4) << 4 | (_mcr & 8) << 4);
        return (byte)(_back.IsConnected ? 0xB0 : 0x30);      // CTS and DSR, DCD with a peer
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        switch (port - _base)
        {
            case 0:
                if ((_lcr & 0x80) != 0)
                    return (byte)_divisor;
                if (_fifoCount == 0)
                    return 0;
                byte b = _fifo[_fifoHead];
                _fifoHead = (byte)((_fifoHead + 1) % FifoSize);
                if (--_fifoCount == 0)
                    _lsr &= unchecked((byte)~LsrData);
                if (_back.HasInput)
                    Pull();
                Update();
                return b;
            case 1:
                return (_lcr & 0x80) != 0 ? (uint)_divisor >> 8 : _ier;
            case 2:
                byte iir = Identify();
                if ((iir & 0x0F) == 2)
                {
                    _transmitPending = false;
                    Update();
                }
                return iir;
            case 3:
                return _lcr;
            case 4:
                return _mcr;
            case 5:
                byte lsr = _lsr;
                _lsr &= unchecked((byte)~(LsrOverrun | LsrBreak));
                Update();
                return lsr;
            case 6:
                byte msr = (byte)(ModemStatus() | _msrDelta);
                _msrDelta = 0;
                Update();
                return msr;
            default:
                return _scratch;
        }
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        byte v = (byte)value;
        switch (port - _base)
        {
            case 0:
                if ((_lcr & 0x80) != 0)
                {
                    _divisor = (ushort)(_divisor & 0xFF00 | v);
                    break;
                }
                if ((_mcr & 0x10) != 0)
                {
                    Push(v);
                    _transmitPending = true;
                }
                else
                    Send(v);
                break;
            case 1:
                if ((_lcr & 0x80) != 0)
                {
                    _divisor = (ushort)(_divisor & 0xFF | v << 8);
                    break;
                }
                // Turning the interrupt on with an empty transmitter raises it (data sheet, note to table 4).
                if ((v & IerTransmit) != 0 && (_ier & IerTransmit) == 0 && (_lsr & LsrEmpty) != 0)
                    _transmitPending = true;
                _ier = (byte)(v & 0x0F);
                break;
            case 2:
                if (((_fcr ^ v) & 1) != 0 || (v & 2) != 0)
                {
                    _fifoHead = _fifoCount = 0;
                    _lsr &= unchecked((byte)~LsrData);
                }
                _fcr = (byte)(v & 0xC9);
                break;
            case 3:
                _lcr = v;
                break;
            case 4:
                byte before = ModemStatus();
                _mcr = (byte)(v & 0x1F);
                byte changed = (byte)(before ^ ModemStatus());
                _msrDelta |= (byte)(changed >> 4 & 0x0B | ((changed & before & 0x40) != 0 ? 4 : 0));
                if (_back.HasInput)
                    Pull();
                break;
            case 7:
                _scratch = v;
                break;
        }
        Update();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _ier = _fcr = _lcr = _mcr = _scratch = _msrDelta = _fifoHead = _fifoCount = 0;
        _lsr = _back.IsCongested ? (byte)0 : LsrEmpty;
        _divisor = 12;
        _transmitPending = false;
        _irq.Set(false);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Bytes("fifo", _fifo);
        state.Field("fifo-head", ref _fifoHead);
        state.Field("fifo-count", ref _fifoCount);
        state.Field("ier", ref _ier);
        state.Field("fcr", ref _fcr);
        state.Field("lcr", ref _lcr);
        state.Field("mcr", ref _mcr);
        state.Field("scratch", ref _scratch);
        state.Field("lsr", ref _lsr);
        state.Field("msr-delta", ref _msrDelta);
        state.Field("divisor", ref _divisor);
        state.Field("transmit-pending", ref _transmitPending);
        _fifoHead %= FifoSize;
        _fifoCount = Math.Min(_fifoCount, (byte)FifoSize);
        if (state.IsLoading)
        {
            if (!_back.IsCongested)
                _lsr |= LsrEmpty;
            Update();
        }
    }
}
