namespace ImgKit.Machine.Chipset;

/// <summary>
/// The pair of 8259A interrupt controllers of a PC, cascaded on line 2. Source: Intel 8259A data sheet; edge/level registers:
/// PIIX3 data sheet, ELCR1 and ELCR2.
/// </summary>
public sealed class Pic : Device, IInterruptSink, IPortHandler
{
    private readonly Chip _master, _slave;
    private readonly Action<bool> _output;
    private bool _outputLevel;

    /// <summary>Makes the pair at its usual ports.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="output">the INTR output of the master.</param>
    public Pic(MachineServices services, Action<bool> output)
    {
        _output = output;
        _master = new Chip(true);
        _slave = new Chip(false);
        services.Ports.Register(0x20, 2, this);
        services.Ports.Register(0xA0, 2, this);
        services.Ports.Register(0x4D0, 2, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-pic";

    /// <summary>The INTR output.</summary>
    public bool Output => _outputLevel;

    /// <summary>Told when the processor has taken a request of the master: for a line's device that must know.</summary>
    public Action? Taken { get; set; }

    /// <summary>Whether a line 0..7 is let through, and whether its request waits to be taken.</summary>
    public (bool IsOpen, bool IsWaiting) Look(int line) => _master.Look(line);

    /// <summary>The state of the slave (1) or the master (0), as monitors show it.</summary>
    public string Describe(int chip) => (chip == 0 ? _master : _slave).Text();

    /// <inheritdoc/>
    public void SetLine(int line, bool asserted)
    {
        if (line is < 0 or > 15 or 2)
            return;
        (line < 8 ? _master : _slave).SetLine(line & 7, asserted);
        Update();
    }

    /// <summary>The processor acknowledges: the vector of the highest request, now in service. Without one, the spurious
    /// vector of line 7.</summary>
    public int Acknowledge()
    {
        int line = _master.Pending();
        int vector;
        if (line < 0)
            vector = _master.VectorBase + 7;
        else if (line == 2)
        {
            _master.Accept(2);
            int second = _slave.Pending();
            if (second < 0)
                vector = _slave.VectorBase + 7;
            else
            {
                _slave.Accept(second);
                vector = _slave.VectorBase + second;
            }
        }
        else
        {
            _master.Accept(line);
            vector = _master.VectorBase + line;
        }
        Update();
        Taken?.Invoke();
        return vector;
    }

    private void Update()
    {
        _master.SetLine(2, _slave.Pending() >= 0, true);
        bool level = _master.Pending() >= 0;
        if (level == _outputLevel)
            return;
        _outputLevel = level;
        _output(level);
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port is 0x4D0)
            return _master.Elcr;
        if (port is 0x4D1)
            return _slave.Elcr;
        var chip = port < 0x80 ? _master : _slave;
        uint value = chip.Read(port & 1, out bool polled);
        if (polled)
        {
            Update();
            Taken?.Invoke();
        }
        return value;
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port is 0x4D0)
            _master.Elcr = (byte)(value & 0xF8);
        else if (port is 0x4D1)
            _slave.Elcr = (byte)(value & 0xDE);
        else
            (port < 0x80 ? _master : _slave).Write(port & 1, (byte)value);
        Update();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _master.Reset();
        _slave.Reset();
        _master.Elcr = _slave.Elcr = 0;
        Update();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Part("master", _master);
        state.Part("slave", _slave);
        if (state.IsLoading)
            Update();
    }

    private sealed class Chip(bool isMaster) : IStateful
    {
        private byte _irr, _imr, _isr, _lines, _base, _elcr;
        private byte _lowest = 7;       // the line of lowest priority
        private byte _initStep;         // 0: operating; 2, 3, 4: waits for that ICW
        private bool _needIcw4, _single, _readIsr, _poll, _autoEoi, _rotateOnAutoEoi, _specialMask, _fullyNested, _levelAll;

        internal int VectorBase => _base;

        internal byte Elcr
        {
            get => _elcr;
            set => _elcr = value;
        }

        internal string Text() => $"irr={_irr:x2} imr={_imr:x2} isr={_isr:x2} hprio={(_lowest + 1) & 7} irq_base={_base:x2} rr_sel={(_readIsr ? 1 : 0)} "
            + $"elcr={_elcr:x2} fnm={(_fullyNested ? 1 : 0)}";

        internal (bool IsOpen, bool IsWaiting) Look(int line) => ((_imr >> line & 1) == 0 && _initStep == 0, (_irr >> line & 1) != 0);

        private bool IsLevel(int line) => _levelAll || (_elcr >> line & 1) != 0;

        internal void SetLine(int line, bool asserted, bool cascade = false)
        {
            byte bit = (byte)(1 << line);
            bool was = (_lines & bit) != 0;
            if (asserted)
            {
                _lines |= bit;
                if (!was || IsLevel(line) || cascade)
                    _irr |= bit;
            }
            else
            {
                _lines &= (byte)~bit;
                // A level's request goes with it. An edge is kept for the acknowledge: the HPET and the printer port give pulses, which are over at once.
                if (IsLevel(line) || cascade)
                    _irr &= (byte)~bit;
            }
        }

        /// <summary>Priority 0 (highest) to 7 of the best line in a set; 8 for none.</summary>
        private int Priority(byte set)
        {
            if (set == 0)
                return 8;
            int p = 0;
            while ((set >> ((_lowest + 1 + p) & 7) & 1) == 0)
                p++;
            return p;
        }

        internal int Pending()
        {
            int request = Priority((byte)(_irr & ~_imr));
            if (request == 8)
                return -1;
            byte served = _isr;
            if (_specialMask)
                served &= (byte)~_imr;
            // In special fully nested mode the master lets a higher line of a slave in service through.
            if (_fullyNested && isMaster)
                served &= 0xFB;
            return request < Priority(served) ? (_lowest + 1 + request) & 7 : -1;
        }

        internal void Accept(int line)
        {
            if (_autoEoi)
            {
                if (_rotateOnAutoEoi)
                    _lowest = (byte)line;
            }
            else
                _isr |= (byte)(1 << line);
            if (!IsLevel(line) || (isMaster && line == 2))
                _irr &= (byte)~(1 << line);
        }

        internal uint Read(int address, out bool polled)
        {
            polled = _poll;
            if (_poll)
            {
                _poll = false;
                int line = Pending();
                if (line < 0)
                    return 0;
                Accept(line);
                return 0x80u | (uint)line;
            }
            return address != 0 ? _imr : _readIsr ? _isr : _irr;
        }

        internal void Write(int address, byte value)
        {
            if (address == 0 && (value & 0x10) != 0)
            {
                byte elcr = _elcr;
                Reset();
                _elcr = elcr;
                _initStep = 2;
                _needIcw4 = (value & 1) != 0;
                _single = (value & 2) != 0;
                _levelAll = (value & 8) != 0;
                return;
            }
            if (address == 0)
            {
                if ((value & 8) != 0)
                    Ocw3(value);
                else
                    Ocw2(value);
                return;
            }
            switch (_initStep)
            {
                case 0:
                    _imr = value;
                    break;
                case 2:
                    _base = (byte)(value & 0xF8);
                    _initStep = (byte)(_single ? _needIcw4 ? 4 : 0 : 3);
                    break;
                case 3:
                    _initStep = (byte)(_needIcw4 ? 4 : 0);
                    break;
                default:
                    _fullyNested = (value & 0x10) != 0;
                    _autoEoi = (value & 2) != 0;
                    _initStep = 0;
                    break;
            }
        }

        private void Ocw3(byte value)
        {
            if ((value & 4) != 0)
                _poll = true;
            if ((value & 2) != 0)
                _readIsr = (value & 1) != 0;
            if ((value & 0x40) != 0)
                _specialMask = (value & 0x20) != 0;
        }

        private void Ocw2(byte value)
        {
            int line = value & 7;
            switch (value >> 5)
            {
                case 0:
                case 4:
                    _rotateOnAutoEoi = value >> 5 == 4;
                    break;
                case 1:
                case 5:
                {
                    int p = Priority(_isr);
                    if (p == 8)
                        break;
                    line = (_lowest + 1 + p) & 7;
                    _isr &= (byte)~(1 << line);
                    if (value >> 5 == 5)
                        _lowest = (byte)line;
                    break;
                }
                case 3:
                    _isr &= (byte)~(1 << line);
                    break;
                case 6:
                    _lowest = (byte)line;
                    break;
                case 7:
                    _isr &= (byte)~(1 << line);
                    _lowest = (byte)line;
                    break;
            }
        }

        internal void Reset()
        {
            // Edge-triggered requests are forgotten; a level that is still there asks again.
            _irr = (byte)(_lines & _elcr);
            _imr = _isr = 0;
            _lowest = 7;
            _initStep = 0;
            _needIcw4 = _single = _readIsr = _poll = _autoEoi = _rotateOnAutoEoi = _specialMask = _fullyNested = _levelAll = false;
        }

        public void Describe(StateVisitor state)
        {
            state.Field("irr", ref _irr);
            state.Field("imr", ref _imr);
            state.Field("isr", ref _isr);
            state.Field("lines", ref _lines);
            state.Field("base", ref _base);
            state.Field("elcr", ref _elcr);
            state.Field("lowest", ref _lowest);
            state.Field("init-step", ref _initStep);
            state.Field("need-icw4", ref _needIcw4);
            state.Field("single", ref _single);
            state.Field("read-isr", ref _readIsr);
            state.Field("poll", ref _poll);
            state.Field("auto-eoi", ref _autoEoi);
            state.Field("rotate-on-auto-eoi", ref _rotateOnAutoEoi);
            state.Field("special-mask", ref _specialMask);
            state.Field("special-fully-nested", ref _fullyNested);
            state.Field("level-all", ref _levelAll);
        }
    }
}
