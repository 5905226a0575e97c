using System.Diagnostics;

namespace ImgKit.Machine;

/// <summary>
/// Virtual time in nanoseconds. It follows the host's monotonic clock while the machine runs and stands still while it is stopped.
/// Members are called under the machine lock, except <see cref="Now"/>.
/// </summary>
public sealed class VirtualClock
{
    private readonly List<ClockTimer> _armed = [];
    private readonly Action<long> _wakeAt;
    private long _offset;       // Now = host - _offset while running
    private long _stoppedAt;
    private volatile bool _running;
    private long _first = long.MaxValue;    // no deadline is earlier

    /// <summary>Makes a stopped clock at time 0.</summary>
    /// <param name="wakeAt">told of an earlier deadline, in host monotonic nanoseconds (long.MaxValue: none).</param>
    public VirtualClock(Action<long> wakeAt) => _wakeAt = wakeAt;

    /// <summary>The host's monotonic clock in nanoseconds.</summary>
    public static long HostNow
    {
        get
        {
            // Stopwatch counts nanoseconds on Linux; multiply only where it would not.
            long ticks = Stopwatch.GetTimestamp();
            return Stopwatch.Frequency == 1_000_000_000 ? ticks : (long)((Int128)ticks * 1_000_000_000 / Stopwatch.Frequency);
        }
    }

    /// <summary>Virtual nanoseconds since the machine was made. From any thread.</summary>
    public long Now => _running ? HostNow - Volatile.Read(ref _offset) : Volatile.Read(ref _stoppedAt);

    /// <summary>How far behind the event loop is: nanoseconds since the first deadline that it has not served yet; negative when none is due. From any thread.</summary>
    public long Behind(long now) => now - Volatile.Read(ref _first);

    /// <summary>True between <see cref="Start"/> and <see cref="Stop"/>.</summary>
    public bool IsRunning => _running;

    /// <summary>Time goes on.</summary>
    public void Start()
    {
        if (_running)
            return;
        Volatile.Write(ref _offset, HostNow - _stoppedAt);
        _running = true;
        Wake();
    }

    /// <summary>Time stands still.</summary>
    public void Stop()
    {
        if (!_running)
            return;
        Volatile.Write(ref _stoppedAt, Now);
        _running = false;
    }

    /// <summary>Sets the time, for a machine whose state is loaded; only while stopped.</summary>
    public void Set(long now) => Volatile.Write(ref _stoppedAt, now);

    /// <summary>Moves the time of a stopped clock on and runs what falls due on the way, each at its own time: a run by hand, exactly
    /// repeatable.</summary>
    public void AdvanceTo(long now)
    {
        if (_running)
            throw new InvalidOperationException("the clock runs by itself");
        while (true)
        {
            ClockTimer? first = null;
            foreach (var t in _armed)
                if (t.Deadline <= now && (first == null || t.Deadline < first.Deadline))
                    first = t;
            if (first == null)
                break;
            Disarm(first);
            Volatile.Write(ref _stoppedAt, Math.Max(_stoppedAt, first.Deadline));
            first.Expired();
        }
        Volatile.Write(ref _stoppedAt, Math.Max(_stoppedAt, now));
    }

    /// <summary>Makes a timer that is not armed.</summary>
    public ClockTimer CreateTimer(Action expired) => new(this, expired);

    internal void Arm(ClockTimer timer)
    {
        if (!timer.Listed)
        {
            timer.Listed = true;
            _armed.Add(timer);
        }
        if (timer.Deadline < _first)
            Volatile.Write(ref _first, timer.Deadline);
        if (_running)
            _wakeAt(timer.Deadline + _offset);
    }

    internal void Disarm(ClockTimer timer)
    {
        if (timer.Listed)
        {
            timer.Listed = false;
            _armed.Remove(timer);
        }
    }

    /// <summary>Runs what is due and asks to be woken for the next; called under the machine lock, by the event loop or whoever finds it late.</summary>
    public void RunDue()
    {
        if (!_running)
            return;
        while (true)
        {
            ClockTimer? first = null;
            foreach (var t in _armed)
                if (first == null || t.Deadline < first.Deadline)
                    first = t;
            if (first == null || first.Deadline > Now)
                break;
            Disarm(first);
            first.Expired();
        }
        Wake();
    }

    private void Wake()
    {
        long next = long.MaxValue;
        foreach (var t in _armed)
            next = Math.Min(next, t.Deadline);
        Volatile.Write(ref _first, next);
        if (next != long.MaxValue)
            _wakeAt(next + _offset);
    }
}

/// <summary>A timer on the virtual clock. Its action runs once, under the machine lock, on the event loop's thread or a processor's.</summary>
public sealed class ClockTimer
{
    private readonly VirtualClock _clock;

    internal ClockTimer(VirtualClock clock, Action expired)
    {
        _clock = clock;
        Expired = expired;
    }

    internal Action Expired { get; }

    internal bool Listed { get; set; }

    /// <summary>True between <see cref="Arm"/> and its expiry or <see cref="Cancel"/>.</summary>
    public bool IsArmed => Listed;

    /// <summary>Virtual nanoseconds, as last armed.</summary>
    public long Deadline { get; private set; }

    /// <summary>Expires at a virtual time (at once if it is past), in place of any earlier setting.</summary>
    public void Arm(long deadline)
    {
        Deadline = Math.Min(deadline, long.MaxValue / 4);
        _clock.Arm(this);
    }

    /// <summary>Forgets the setting.</summary>
    public void Cancel() => _clock.Disarm(this);

    /// <summary>Declares the timer's state; loading arms or cancels it.</summary>
    public void Describe(StateVisitor state, string name)
    {
        long at = IsArmed ? Deadline : -1;
        state.Field(name, ref at);
        if (!state.IsLoading)
            return;
        if (at < 0)
            Cancel();
        else
            Arm(at);
    }
}
