namespace ImgKit.Machine.Chipset;

/// <summary>Which interrupt controller takes the timer's line to a processor, and whether the last tick still waits there.</summary>
/// <param name="Taker">0: none, all have it masked; else a number that stands for the controller.</param>
/// <param name="IsWaiting">no processor has taken the last tick yet.</param>
public readonly record struct TickState(int Taker, bool IsWaiting);

/// <summary>
/// The timer's line, which PIT and HPET share. A tick that comes while the one before still waits for a processor is not lost in it: it is owed, and follows
/// as soon as that one is taken. So a guest that counts ticks keeps its time on a host that lets it wait, and finds a timer that works. What is owed is
/// forgotten when the guest sets the timer anew, or leads its line elsewhere: then it does not count the old ticks.
/// </summary>
public sealed class TickLine : Device
{
    /// <summary>The most ticks that are owed: 10 s of a kernel's 1000 Hz, 9 minutes of the firmware's 18.2 Hz.</summary>
    public const int MostOwed = 10_000;

    private readonly InterruptLine _line;
    private readonly Func<TickState>? _look;
    private int _owed, _taker;
    private bool _source, _driven;

    /// <summary>Makes the line.</summary>
    /// <param name="line">the input of the interrupt controllers.</param>
    /// <param name="look">asks them; null: ticks that the guest could not take are lost.</param>
    public TickLine(InterruptLine line, Func<TickState>? look)
    {
        _line = line;
        _look = look;
    }

    /// <inheritdoc/>
    public override string TypeName => "tick-line";

    /// <summary>Ticks that are still to come.</summary>
    public int Owed => _owed;

    private bool Waits()
    {
        if (_look == null)
            return false;
        var state = _look();
        if (state.Taker != _taker)
            _owed = 0;
        _taker = state.Taker;
        return state.Taker != 0 && state.IsWaiting;
    }

    private void Drive(bool level)
    {
        _driven = level;
        _line.Set(level);
    }

    /// <summary>The timer's output. Each rise is a tick.</summary>
    public void Set(bool level)
    {
        if (level == _source)
            return;
        _source = level;
        bool waits = Waits();
        if (level && waits)
            _owed = Math.Min(_owed + 1, MostOwed);
        else if (level)
            Tick();
        else if (!waits)
            // A fall would take back what the controller has not passed on yet.
            Drive(false);
    }

    /// <summary>So many ticks have come at once, as short pulses.</summary>
    public void Pulse(ulong count)
    {
        if (count == 0)
            return;
        Set(true);
        if (_look != null && _taker != 0)
            _owed = (int)Math.Min((ulong)_owed + (count - 1), MostOwed);
        Set(false);
    }

    private void Tick()
    {
        if (_driven)
            Drive(false);
        Drive(true);
    }

    /// <summary>A processor has taken an interrupt, perhaps this line's.</summary>
    public void Taken()
    {
        if (_owed == 0 && _driven == _source || Waits())
            return;
        if (_owed > 0)
        {
            _owed--;
            Tick();
        }
        else if (_driven && !_source)
            Drive(false);
    }

    /// <summary>The guest sets the timer: what is owed is of the time before.</summary>
    public void Restart() => _owed = 0;

    /// <inheritdoc/>
    public override void Reset()
    {
        _owed = _taker = 0;
        _source = false;
        Drive(false);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("owed", ref _owed);
        state.Field("taker", ref _taker);
        state.Field("source", ref _source);
        state.Field("driven", ref _driven);
        if (state.IsLoading)
            _owed = Math.Clamp(_owed, 0, MostOwed);
    }
}
