namespace ImgKit.Machine.Chipset;

/// <summary>The high-precision event timer: a 64-bit counter at 100 MHz and three comparators, at 0xFED00000.
/// Source: IA-PC HPET specification 1.0a, section 2.3.</summary>
public sealed class Hpet : Device, IMmioHandler
{
    /// <summary>Where it answers.</summary>
    public const ulong Address = 0xFED0_0000;

    private const int Timers = 3;
    private const long TickNanoseconds = 10;
    private const ulong LevelTriggered = 2, Enabled = 4, Periodic = 8, SetAccumulator = 0x40, Force32 = 0x100;

    private readonly VirtualClock _clock;
    private readonly IInterruptSink _gsi;
    private readonly TickLine _irq0;
    private readonly Action<bool> _legacy;
    private readonly ClockTimer[] _timers = new ClockTimer[Timers];
    private readonly ulong[] _config = new ulong[Timers], _comparator = new ulong[Timers], _period = new ulong[Timers];
    private ulong _general, _status, _counter;
    private long _countStart;

    /// <summary>Makes one.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="gsi">I/O APIC inputs (and, for 0..15, PIC lines).</param>
    /// <param name="irq0">the timer's line, for timer 0 when it takes that over.</param>
    /// <param name="legacy">told when the timer takes lines 0 and 8 over from PIT and RTC, or gives them back.</param>
    public Hpet(MachineServices services, IInterruptSink gsi, TickLine irq0, Action<bool> legacy)
    {
        _clock = services.Clock;
        _gsi = gsi;
        _irq0 = irq0;
        _legacy = legacy;
        for (int i = 0; i < Timers; i++)
        {
            int n = i;
            _timers[i] = _clock.CreateTimer(() => Due(n));
        }
        services.Mmio.Register(Address, 0x400, this);
        Reset();
    }

    /// <inheritdoc/>
    public override string TypeName => "hpet";

    /// <summary>General capabilities: period in femtoseconds, vendor 8086, legacy route, 64 bits, three timers, revision 1.</summary>
    public const ulong Capabilities = (ulong)(TickNanoseconds * 1_000_000) << 32 | 0x8086_0000 | 0x8000 | 0x2000 | (Timers - 1) << 8 | 1;

    private bool Running => (_general & 1) != 0;

    private bool IsLegacy => (_general & 2) != 0;

    private ulong Counter => Running ? _counter + (ulong)((_clock.Now - _countStart) / TickNanoseconds) : _counter;

    // What software may set, and the inputs 2 and 4..23 that each timer can be routed to.
    private const ulong Fixed = 0x00F0_0004_0000_0000UL | 0x30;

    private int Route(int n) => IsLegacy && n == 0 ? 0 : IsLegacy && n == 1 ? 8 : (int)(_config[n] >> 9 & 31);

    private void Arm(int n)
    {
        if (!Running)
        {
            _timers[n].Cancel();
            return;
        }
        ulong now = Counter;
        ulong left = _comparator[n] - now;
        if ((_config[n] & Force32) != 0)
            left = (uint)left;
        if ((_config[n] & Periodic) == 0 && (_config[n] & Enabled) == 0 || left > long.MaxValue / 32)
        {
            _timers[n].Cancel();
            return;
        }
        _timers[n].Arm(_countStart + ((long)(now - _counter) + (long)left) * TickNanoseconds);
    }

    private void Due(int n)
    {
        ulong ticks = 1;
        if ((_config[n] & Periodic) != 0 && _period[n] != 0)
        {
            ulong now = Counter, behind = now - _comparator[n];
            if ((_config[n] & Force32) != 0)
                behind = (uint)behind;
            if (behind < ulong.MaxValue / 2)
            {
                ticks += behind / _period[n];
                _comparator[n] += ticks * _period[n];
            }
            // Anything faster than 20 us is a storm.
            if (_period[n] >= 20_000 / TickNanoseconds)
                Arm(n);
            else
            {
                ticks = 1;
                _timers[n].Arm(_clock.Now + 20_000);
            }
        }
        if ((_config[n] & LevelTriggered) != 0)
        {
            _status |= 1UL << n;
            if ((_config[n] & Enabled) != 0)
                _gsi.SetLine(Route(n), true);
        }
        else if ((_config[n] & Enabled) != 0 && IsLegacy && n == 0)
            _irq0.Pulse(ticks);
        else if ((_config[n] & Enabled) != 0)
        {
            _gsi.SetLine(Route(n), true);
            _gsi.SetLine(Route(n), false);
        }
    }

    /// <inheritdoc/>
    public ulong MmioRead(ulong offset, int size)
    {
        ulong value = 0;
        int register = (int)(offset & ~7UL);
        if (register == 0)
            value = Capabilities;
        else if (register == 0x10)
            value = _general;
        else if (register == 0x20)
            value = _status;
        else if (register == 0xF0)
            value = Counter;
        else if (register is >= 0x100 and < 0x100 + 0x20 * Timers)
        {
            int n = (register - 0x100) >> 5;
            value = (register & 0x18) switch
            {
                0 => _config[n] | Fixed,
                8 => _comparator[n],
                _ => 0,
            };
        }
        value >>= (int)(offset & 7) * 8;
        return size == 8 ? value : value & ((1UL << (8 * size)) - 1);
    }

    private static ulong Merge(ulong old, ulong offset, ulong value, int size)
    {
        if (size == 8)
            return value;
        int shift = (int)(offset & 7) * 8;
        ulong mask = ((1UL << (8 * size)) - 1) << shift;
        return old & ~mask | value << shift & mask;
    }

    /// <inheritdoc/>
    public void MmioWrite(ulong offset, ulong value, int size)
    {
        int register = (int)(offset & ~7UL);
        if (register == 0x10)
            SetGeneral(Merge(_general, offset, value, size));
        else if (register == 0x20)
        {
            ulong cleared = Merge(0, offset, value, size) & _status;
            _status &= ~cleared;
            for (int i = 0; i < Timers; i++)
                if ((cleared >> i & 1) != 0)
                    _gsi.SetLine(Route(i), false);
        }
        else if (register == 0xF0)
        {
            if (!Running)
                _counter = Merge(_counter, offset, value, size);
        }
        else if (register is >= 0x100 and < 0x100 + 0x20 * Timers)
        {
            int n = (register - 0x100) >> 5;
            if ((register & 0x18) == 0)
            {
                _config[n] = Merge(_config[n], offset, value, size) & 0x7F4E;
                if ((_config[n] & LevelTriggered) == 0)
                    _status &= ~(1UL << n);
            }
            else if ((register & 0x18) == 8)
                SetComparator(n, offset, value, size);
            if (n == 0 && IsLegacy)
                _irq0.Restart();
            Arm(n);
        }
    }

    private void SetComparator(int n, ulong offset, ulong value, int size)
    {
        if ((_config[n] & Force32) != 0)
        {
            if ((offset & 7) != 0)
                return;
            value = (uint)value;
        }
        if ((_config[n] & Periodic) == 0)
            _comparator[n] = Merge(_comparator[n], offset, value, size);
        else
        {
            if ((_config[n] & SetAccumulator) != 0)
                _comparator[n] = Merge(_comparator[n], offset, value, size);
            // The period register is 32 bits wide in effect: a longer one would never tick within a lifetime of tests.
            _period[n] = Merge(_period[n], offset, value, size) & 0x7FFF_FFFF;
        }
        if (size == 8 || (offset & 4) != 0 || (_config[n] & Force32) != 0 || (_config[n] & Periodic) != 0)
            _config[n] &= ~SetAccumulator;
    }

    private void SetGeneral(ulong value)
    {
        value &= 3;
        bool was = Running, legacy = IsLegacy;
        if (was && (value & 1) == 0)
            _counter = Counter;
        if (!was && (value & 1) != 0)
            _countStart = _clock.Now;
        _general = value;
        for (int i = 0; i < Timers; i++)
            Arm(i);
        if (legacy != IsLegacy)
            _legacy(IsLegacy);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        bool legacy = IsLegacy;
        _general = _status = _counter = 0;
        for (int i = 0; i < Timers; i++)
        {
            _config[i] = 0;
            _comparator[i] = ulong.MaxValue;
            _period[i] = 0;
            _timers[i].Cancel();
        }
        if (legacy)
            _legacy(false);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("general", ref _general);
        state.Field("status", ref _status);
        state.Field("counter", ref _counter);
        state.Field("count-start", ref _countStart);
        state.Fields("config", _config);
        state.Fields("comparator", _comparator);
        state.Fields("period", _period);
        for (int i = 0; i < Timers; i++)
            _timers[i].Describe(state, $"timer{i}");
    }
}
