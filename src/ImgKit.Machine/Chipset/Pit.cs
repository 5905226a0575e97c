namespace ImgKit.Machine.Chipset;

/// <summary>
/// The 8254 timer: three channels at 1.193182 MHz, and the speaker port 0x61 that gates channel 2. Source: Intel 8254 data sheet.
/// </summary>
public sealed class Pit : Device, IPortHandler
{
    /// <summary>Input clock in Hz.</summary>
    public const long Frequency = 1193182;

    private readonly Channel[] _channels;
    private readonly VirtualClock _clock;
    private readonly TickLine _irq0;
    private readonly ClockTimer _timer;
    private byte _port61;
    private bool _irqDisabled;

    /// <summary>Makes the timer at its usual ports.</summary>
    public Pit(MachineServices services, TickLine irq0)
    {
        _clock = services.Clock;
        _irq0 = irq0;
        _channels = [new Channel(_clock), new Channel(_clock), new Channel(_clock)];
        _timer = _clock.CreateTimer(() => UpdateIrq(_timer!.Deadline));
        services.Ports.Register(0x40, 4, this);
        services.Ports.Register(0x61, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-pit";

    /// <summary>The frequency of channel 2 while the speaker is on, in Hz; 0 while it is silent.</summary>
    public double SpeakerFrequency => (_port61 & 3) == 3 ? Frequency / (double)_channels[2].Reload : 0;

    /// <summary>The HPET in legacy mode takes line 0 over.</summary>
    public void SetLegacyReplaced(bool replaced)
    {
        _irqDisabled = replaced;
        if (replaced)
        {
            _timer.Cancel();
            _irq0.Set(false);
        }
        _irq0.Restart();
        if (!replaced)
            UpdateIrq(_clock.Now);
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port == 0x61)
        {
            // Bit 4 toggles with each refresh request (about 15 us).
            uint refresh = (uint)(_clock.Now / 15085 & 1);
            return (uint)(_port61 & 0x0F) | refresh << 4 | (_channels[2].Output(_clock.Now) ? 0x20u : 0);
        }
        int n = port & 3;
        return n == 3 ? 0xFFu : _channels[n].Read();
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port == 0x61)
        {
            _channels[2].SetGate((value & 1) != 0);
            _port61 = (byte)(value & 0x0F);
            return;
        }
        int n = port & 3;
        if (n != 3)
            _channels[n].Write((byte)value);
        else if (value >> 6 == 3)
        {
            // Read-back: status and/or count of several channels.
            for (int i = 0; i < 3; i++)
                if ((value >> (i + 1) & 1) != 0)
                {
                    if ((value & 0x20) == 0)
                        _channels[i].LatchCount();
                    if ((value & 0x10) == 0)
                        _channels[i].LatchStatus();
                }
            return;
        }
        else if ((value & 0x30) == 0)
        {
            _channels[value >> 6].LatchCount();
            return;
        }
        else
            _channels[n = (int)(value >> 6)].SetMode((byte)value);
        if (n != 0)
            return;
        UpdateIrq(_clock.Now);
        if (!_irqDisabled)
            _irq0.Restart();
    }

    private void UpdateIrq(long now)
    {
        if (_irqDisabled)
            return;
        _irq0.Set(_channels[0].Output(now));
        long next = _channels[0].NextChange(now);
        if (next < 0)
            _timer.Cancel();
        else
            _timer.Arm(next);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        for (int i = 0; i < 3; i++)
            _channels[i].Reset(i != 2);
        _port61 = 0;
        _irqDisabled = false;
        UpdateIrq(_clock.Now);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        for (int i = 0; i < 3; i++)
            state.Part($"channel{i}", _channels[i]);
        state.Field("port61", ref _port61);
        state.Field("irq-disabled", ref _irqDisabled);
        _timer.Describe(state, "timer");
    }

    private sealed class Channel(VirtualClock clock) : IStateful
    {
        private int _reload = 0x10000;
        private byte _access = 3, _mode = 3;
        private bool _bcd, _gate = true, _loaded, _writeHigh, _readHigh, _latched, _statusLatched, _latchHigh;
        private byte _writeLow, _status;
        private ushort _latch;
        private long _start;        // virtual time at which the count was loaded

        internal int Reload => _reload;

        private long Ticks(long now) => (long)((Int128)(now - _start) * Frequency / 1_000_000_000);

        // The first nanosecond at which so many ticks have passed.
        private long TimeOf(long ticks) => _start + (long)(((Int128)ticks * 1_000_000_000 + Frequency - 1) / Frequency);

        private int Count(long now)
        {
            long d = Ticks(now);
            int n = _mode switch
            {
                2 => _reload - (int)(d % _reload),
                3 => _reload - (int)(2 * d % _reload),
                _ => (int)((_reload - d) & 0xFFFF),
            };
            if (!_bcd)
                return n;
            n %= 10000;
            return n / 1000 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10;
        }

        internal bool Output(long now)
        {
            if (!_loaded)
                return _mode != 0;
            long d = Ticks(now);
            return _mode switch
            {
                0 => d >= _reload,
                1 => d >= _reload,
                2 => !_gate || d % _reload != _reload - 1 || d == 0,
                3 => !_gate || d % _reload < (_reload + 1) / 2,
                _ => d != _reload,
            };
        }

        /// <summary>Virtual time of the next change of the output; -1: none.</summary>
        internal long NextChange(long now)
        {
            if (!_loaded)
                return -1;
            long d = Ticks(now);
            switch (_mode)
            {
                case 0:
                case 1:
                    return d < _reload ? TimeOf(_reload) : -1;
                case 2:
                {
                    long period = d / _reload * _reload;
                    return TimeOf(d - period < _reload - 1 ? period + _reload - 1 : period + _reload);
                }
                case 3:
                {
                    long period = d / _reload * _reload;
                    int half = (_reload + 1) / 2;
                    return TimeOf(d - period < half ? period + half : period + _reload);
                }
                default:
                    return d < _reload ? TimeOf(_reload) : d == _reload ? TimeOf(_reload + 1) : -1;
            }
        }

        internal void SetMode(byte control)
        {
            _access = (byte)(control >> 4 & 3);
            _mode = (byte)(control >> 1 & 7);
            if (_mode > 5)
                _mode -= 4;
            _bcd = (control & 1) != 0;
            _loaded = _writeHigh = _readHigh = _latched = _statusLatched = false;
        }

        internal void Write(byte value)
        {
            switch (_access)
            {
                case 1:
                    Load(value);
                    break;
                case 2:
                    Load(value << 8);
                    break;
                case 3 when !_writeHigh:
                    _writeLow = value;
                    _writeHigh = true;
                    break;
                case 3:
                    _writeHigh = false;
                    Load(value << 8 | _writeLow);
                    break;
            }
        }

        private void Load(int value)
        {
            if (_bcd)
                value = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15);
            if (value == 0)
                value = _bcd ? 10000 : 0x10000;
            // A count of 1 has no meaning in the periodic modes and would make a timer storm.
            if (value == 1 && _mode is 2 or 3)
                value = 2;
            _reload = value;
            _start = clock.Now;
            _loaded = true;
        }

        internal void SetGate(bool gate)
        {
            if (gate && !_gate && _mode is 1 or 2 or 3 or 5)
                _start = clock.Now;
            _gate = gate;
        }

        internal void LatchCount()
        {
            if (_latched)
                return;
            _latched = true;
            _latchHigh = false;
            _latch = (ushort)Count(clock.Now);
        }

        internal void LatchStatus()
        {
            if (_statusLatched)
                return;
            _statusLatched = true;
            _status = (byte)((Output(clock.Now) ? 0x80 : 0) | (_loaded ? 0 : 0x40) | _access << 4 | _mode << 1 | (_bcd ? 1 : 0));
        }

        internal uint Read()
        {
            if (_statusLatched)
            {
                _statusLatched = false;
                return _status;
            }
            if (_latched)
            {
                bool high = _access == 2 || _latchHigh;
                if (_access == 3 && !_latchHigh)
                    _latchHigh = true;
                else
                    _latched = _latchHigh = false;
                return high ? (uint)_latch >> 8 : _latch & 0xFFu;
            }
            uint count = (uint)Count(clock.Now);
            if (_access == 3)
            {
                _readHigh = !_readHigh;
                return _readHigh ? count & 0xFF : count >> 8 & 0xFF;
            }
            return _access == 2 ? count >> 8 & 0xFF : count & 0xFF;
        }

        internal void Reset(bool gate)
        {
            SetMode(0x36);
            _reload = 0x10000;
            _gate = gate;
            _start = clock.Now;
            _loaded = true;
        }

        public void Describe(StateVisitor state)
        {
            state.Field("reload", ref _reload);
            state.Field("access", ref _access);
            state.Field("mode", ref _mode);
            state.Field("bcd", ref _bcd);
            state.Field("gate", ref _gate);
            state.Field("loaded", ref _loaded);
            state.Field("write-high", ref _writeHigh);
            state.Field("read-high", ref _readHigh);
            state.Field("latched", ref _latched);
            state.Field("status-latched", ref _statusLatched);
            state.Field("latch-high", ref _latchHigh);
            state.Field("write-low", ref _writeLow);
            state.Field("status", ref _status);
            state.Field("latch", ref _latch);
            state.Field("start", ref _start);
        }
    }
}
