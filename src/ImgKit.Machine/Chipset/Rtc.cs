namespace ImgKit.Machine.Chipset;

/// <summary>
/// The MC146818 real-time clock with 128 bytes of CMOS memory, ports 0x70 and 0x71, line 8. Source: Motorola MC146818A data sheet;
/// the bytes that firmware reads are those of the IBM AT and of SeaBIOS's documentation.
/// </summary>
public sealed class Rtc : Device, IPortHandler
{
    private const int A = 10, B = 11, C = 12, D = 13;
    private const byte PeriodicFlag = 0x40, AlarmFlag = 0x20, UpdateFlag = 0x10;

    private readonly byte[] _memory = new byte[128];
    private readonly VirtualClock _clock;
    private readonly InterruptLine _irq8;
    private readonly ClockTimer _periodic, _update;
    private byte _index;
    private long _offset;           // seconds since 1970 of the clock's date, less virtual time
    private long _periodStart;
    private bool _irqDisabled;
    private int _owed, _inRow;

    // So many late interrupts follow one another at once, so that the guest gets to its work between them.
    private const int MostInRow = 20;

    /// <summary>Makes the clock.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="irq8">its line.</param>
    /// <param name="start">the date and time that it shows at first.</param>
    public Rtc(MachineServices services, InterruptLine irq8, DateTime start)
    {
        _clock = services.Clock;
        _irq8 = irq8;
        _periodic = _clock.CreateTimer(PeriodicDue);
        _update = _clock.CreateTimer(UpdateDue);
        _offset = (long)(start - DateTime.UnixEpoch).TotalSeconds - _clock.Now / 1_000_000_000;
        _memory[A] = 0x26;
        _memory[B] = 0x02;
        _memory[D] = 0x80;
        services.Ports.Register(0x70, 2, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "mc146818rtc";

    /// <summary>Periodic interrupts that the guest was not able to take follow late (<c>-rtc driftfix=slew</c>): each when it has read register C.</summary>
    public bool DeliversLateTicks { get; init; }

    /// <summary>Called after the guest has set the date, with the seconds by which it now differs from the start's.</summary>
    public event Action<long>? DateChanged;

    /// <summary>Called when an alarm that the guest has asked for is due, whoever has the interrupt line.</summary>
    public Action? AlarmDue { get; set; }

    /// <summary>A byte of CMOS memory, as the board's firmware expects it.</summary>
    public byte this[int index]
    {
        get => _memory[index];
        set => _memory[index] = value;
    }

    private bool Binary => (_memory[B] & 4) != 0;

    private bool Hours24 => (_memory[B] & 2) != 0;

    private bool Halted => (_memory[B] & 0x80) != 0 || (_memory[A] & 0x60) == 0x60;

    private DateTime Date => DateTime.UnixEpoch.AddSeconds(Math.Clamp(_offset + _clock.Now / 1_000_000_000, 0, 250_000_000_000));

    private byte Encode(int value) => Binary ? (byte)value : (byte)(value / 10 << 4 | value % 10);

    private int Decode(byte value) => Binary ? value : (value >> 4) * 10 + (value & 15);

    /// <summary>The HPET in legacy mode takes line 8 over.</summary>
    public void SetLegacyReplaced(bool replaced)
    {
        _irqDisabled = replaced;
        if (replaced)
            _irq8.Set(false);
    }

    private void StoreDate()
    {
        if (Halted)
            return;
        var d = Date;
        int hour = d.Hour;
        _memory[0] = Encode(d.Second);
        _memory[2] = Encode(d.Minute);
        _memory[4] = Hours24 ? Encode(hour) : (byte)(Encode(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0));
        _memory[6] = Encode((int)d.DayOfWeek + 1);
        _memory[7] = Encode(d.Day);
        _memory[8] = Encode(d.Month);
        _memory[9] = Encode(d.Year % 100);
        _memory[0x32] = Encode(d.Year / 100);
    }

    private void LoadDate()
    {
        int hour = Decode((byte)(_memory[4] & 0x7F));
        if (!Hours24)
            hour = hour % 12 + ((_memory[4] & 0x80) != 0 ? 12 : 0);
        int year = Decode(_memory[0x32]) * 100 + Decode(_memory[9]), month = Decode(_memory[8]), day = Decode(_memory[7]);
        if (year is < 1970 or > 9990 || month is < 1 or > 12 || day < 1 || day > DateTime.DaysInMonth(year, month))
            return;
        var d = new DateTime(year, month, day, 0, 0, 0, DateTimeKind.Utc)
            .AddSeconds(hour * 3600L + Decode(_memory[2]) * 60L + Decode(_memory[0]));
        long before = _offset;
        _offset = (long)(d - DateTime.UnixEpoch).TotalSeconds - _clock.Now / 1_000_000_000;
        if (_offset != before)
            DateChanged?.Invoke(_offset - before);
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port == 0x70)
            return 0xFF;
        switch (_index)
        {
            case <= 9 or 0x32:
                StoreDate();
                return _memory[_index];
            case A:
                // Update in progress: the last 244 us of a second.
                bool updating = !Halted && _clock.Now % 1_000_000_000 >= 1_000_000_000 - 244_000;
                return (uint)(_memory[A] & 0x7F | (updating ? 0x80 : 0));
            case C:
            {
                byte flags = _memory[C];
                if (!_update.IsArmed && _clock.Now / 1_000_000_000 != _lastUpdate)
                {
                    _lastUpdate = _clock.Now / 1_000_000_000;
                    flags |= UpdateFlag;
                }
                _memory[C] = 0;
                _irq8.Set(false);
                if (_owed > 0 && _inRow < MostInRow)
                {
                    _owed--;
                    _inRow++;
                    Raise(PeriodicFlag);
                }
                return flags;
            }
            default:
                return _memory[_index];
        }
    }

    private long _lastUpdate;

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port == 0x70)
        {
            _index = (byte)(value & 0x7F);
            return;
        }
        byte v = (byte)value;
        switch (_index)
        {
            case 0 or 2 or 4 or 6 or 7 or 8 or 9 or 0x32:
                StoreDate();
                _memory[_index] = v;
                if (!Halted)
                    LoadDate();
                break;
            case A:
                bool halted = Halted;
                StoreDate();
                long oldPeriod = Period;
                _memory[A] = (byte)(v & 0x7F);
                // The guest takes late ones for ticks of the new rate.
                _owed = Period == 0 ? 0 : (int)Math.Min(_owed * oldPeriod / Period, TickLine.MostOwed);
                if (halted && !Halted)
                    LoadDate();
                Rearm();
                break;
            case B:
            {
                bool before = Halted;
                StoreDate();
                _memory[B] = v;
                if (before && !Halted)
                    LoadDate();
                Raise(0);
                Rearm();
                break;
            }
            case C or D:
                break;
            default:
                _memory[_index] = v;
                if (_index is 1 or 3 or 5)
                    Rearm();
                break;
        }
    }

    // Rate 1 and 2 are those of 8 and 9 with this divider (data sheet, table 5).
    private long Period
    {
        get
        {
            int rate = _memory[A] & 15;
            if (rate == 0)
                return 0;
            if (rate <= 2)
                rate += 7;
            return 1L << (rate - 1);        // in ticks of 32768 Hz
        }
    }

    private void Rearm()
    {
        if ((_memory[B] & PeriodicFlag) != 0 && Period != 0)
        {
            if (!_periodic.IsArmed)
                _periodStart = _clock.Now;
            ArmPeriodic();
        }
        else
        {
            _periodic.Cancel();
            _owed = 0;
        }
        if ((_memory[B] & (AlarmFlag | UpdateFlag)) != 0 && !Halted)
            _update.Arm((_clock.Now / 1_000_000_000 + 1) * 1_000_000_000);
        else
            _update.Cancel();
    }

    private void ArmPeriodic()
    {
        long ticks = (long)((Int128)(_clock.Now - _periodStart) * 32768 / 1_000_000_000);
        long next = (ticks / Period + 1) * Period;
        _periodic.Arm(_periodStart + (long)(((Int128)next * 1_000_000_000 + 32767) / 32768));
    }

    private void PeriodicDue()
    {
        if (DeliversLateTicks && !_irqDisabled)
        {
            long missed = (_clock.Now - _periodic.Deadline) * 32768 / 1_000_000_000 / Period + ((_memory[C] & PeriodicFlag) != 0 ? 1 : 0);
            _owed = (int)Math.Min(_owed + missed, TickLine.MostOwed);
            _inRow = 0;
        }
        Raise(PeriodicFlag);
        ArmPeriodic();
    }

    private void UpdateDue()
    {
        StoreDate();
        bool alarm = Matches(1, 0) && Matches(3, 2) && Matches(5, 4);
        Raise((byte)(UpdateFlag | (alarm ? AlarmFlag : 0)));
        if (alarm && (_memory[B] & AlarmFlag) != 0)
            AlarmDue?.Invoke();
        Rearm();
    }

    private bool Matches(int alarm, int time) => _memory[alarm] >= 0xC0 || _memory[alarm] == _memory[time];

    private void Raise(byte flags)
    {
        _memory[C] |= flags;
        if ((_memory[C] & _memory[B] & 0x70) != 0)
        {
            _memory[C] |= 0x80;
            if (!_irqDisabled)
                _irq8.Set(true);
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _memory[B] &= 0x87;
        _memory[C] = 0;
        _index = 0;
        _irqDisabled = false;
        _owed = _inRow = 0;
        _irq8.Set(false);
        Rearm();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Bytes("memory", _memory);
        state.Field("index", ref _index);
        state.Field("offset", ref _offset);
        state.Field("period-start", ref _periodStart);
        state.Field("irq-disabled", ref _irqDisabled);
        state.Field("last-update", ref _lastUpdate);
        state.Field("owed", ref _owed);
        state.Field("in-row", ref _inRow);
        _periodic.Describe(state, "periodic");
        _update.Describe(state, "update");
    }
}
