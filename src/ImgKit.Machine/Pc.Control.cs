using ImgKit.Cpu;

namespace ImgKit.Machine;

/// <summary>Something that observers of a machine are told: an event of QMP.</summary>
/// <param name="Name">as QMP names it: RESET, SHUTDOWN, STOP, RESUME, BLOCK_IO_ERROR, POWERDOWN ...</param>
/// <param name="Data">name and value pairs; values are text, bool or long.</param>
public readonly record struct MachineEvent(string Name, params (string Name, object Value)[] Data);

/// <summary>Running, stopping, resetting. All of it happens on the thread that called <see cref="RunUntilExit"/>, one action after the other,
/// outside the machine lock; requests come from any thread.</summary>
public sealed partial class Pc
{
    private readonly Queue<Action> _actions = new();
    private int? _exitStatus;
    private volatile RunState _state = RunState.Prelaunch;

    /// <summary>What it is doing.</summary>
    public RunState State => _state;

    /// <summary>The processors run.</summary>
    public bool IsRunning => _state == RunState.Running;

    /// <summary>Receives events. Called on any thread, perhaps under the machine lock: must not wait.</summary>
    public event Action<MachineEvent>? EventRaised;

    /// <summary>Receives one-line messages for the user.</summary>
    public Action<string>? Report { get; set; }

    /// <summary>Tells observers.</summary>
    public void RaiseEvent(MachineEvent e) => EventRaised?.Invoke(e);

    /// <summary>Has an action run on the control thread, outside the machine lock.</summary>
    public void Post(Action action)
    {
        lock (_actions)
        {
            _actions.Enqueue(action);
            Monitor.Pulse(_actions);
        }
    }

    private Action NextAction()
    {
        lock (_actions)
        {
            while (_actions.Count == 0)
                Monitor.Wait(_actions);
            return _actions.Dequeue();
        }
    }

    /// <summary>Opens media for monitors; null: they cannot be changed.</summary>
    public Devices.Storage.DriveOpener? MediaOpener { get; set; }

    /// <summary>The block nodes that have names, for monitors; null: there are none.</summary>
    public Devices.Storage.NodeOpener? NodeOpener { get; set; }

    /// <summary>The character devices, for monitors.</summary>
    public Func<IEnumerable<CharDevices.CharDevice>>? CharDeviceList { get; set; }

    /// <summary>The host's number of the thread that runs a processor.</summary>
    public int ThreadOf(int processor) => _vcpus.Threads[processor].HostId;

    /// <summary>Runs something while no processor runs. On the control thread.</summary>
    public T WithStandingProcessors<T>(Func<T> look)
    {
        if (!IsRunning)
            return look();
        _vcpus.StandAndWait();
        try
        {
            return look();
        }
        finally
        {
            _vcpus.Go();
        }
    }

    /// <summary>Starts the machine and serves it until it ends. Returns the exit status.</summary>
    public int RunUntilExit()
    {
        Services.Loop.Start();
        _vcpus.Stand();
        _vcpus.Start();
        ResetNow(null);
        if (!_options.StartStopped)
            Resume();
        while (_exitStatus == null)
            NextAction()();
        Halt(_state);
        Services.Workers.Drain();
        return _exitStatus.Value;
    }

    private void Halt(RunState state)
    {
        bool was = IsRunning;
        _vcpus.StandAndWait();
        lock (Services.Lock)
            Services.Clock.Stop();
        _state = state;
        if (!was)
            return;
        Engine.OnStopped();
        Services.Workers.Drain();
    }

    /// <summary>Stops the processors and the clock. On the control thread.</summary>
    public void Stop(RunState state = RunState.Paused)
    {
        if (!IsRunning)
        {
            _state = state;
            return;
        }
        Halt(state);
        RaiseEvent(new MachineEvent("STOP"));
    }

    /// <summary>Lets the machine go on. On the control thread.</summary>
    public void Resume()
    {
        if (IsRunning)
            return;
        bool first = _state == RunState.Prelaunch;
        _state = RunState.Running;
        if (!first)
            Engine.OnResumed();
        lock (Services.Lock)
            Services.Clock.Start();
        Retry();
        _vcpus.Go();
        RaiseEvent(new MachineEvent("RESUME"));
    }

    private readonly List<(Action Retry, Action Forget)> _retries = [];

    /// <inheritdoc/>
    public void RetryWhenResumed(Action retry, Action forget) => _retries.Add((retry, forget));

    private void Retry()
    {
        lock (Services.Lock)
        {
            foreach (var drive in _drives)
                drive.IoStatus = "ok";
            var due = _retries.ToArray();
            _retries.Clear();
            foreach (var (retry, _) in due)
                retry();
        }
    }

    /// <summary>Resets everything. On the control thread.</summary>
    /// <param name="cause">as QMP's <c>reason</c>; null: power-on.</param>
    public void ResetNow(string? cause)
    {
        bool was = IsRunning;
        if (was)
            _vcpus.StandAndWait();
        Services.Workers.Drain();
        lock (Services.Lock)
        {
            foreach (var t in _vcpus.Threads)
                t.Cpu.Reset();
            foreach (var d in _devices)
                d.Reset();
            // What failed before belongs to nobody now.
            var left = _retries.ToArray();
            _retries.Clear();
            foreach (var (_, forget) in left)
                forget();
            Engine.ResetInterruptControllers();
            PrepareBoot();
            Engine.Prepare();
        }
        if (cause != null)
            RaiseEvent(new MachineEvent("RESET", ("guest", cause != "host-qmp-system-reset"), ("reason", cause)));
        if (was)
            _vcpus.Go();
        else if (_state is RunState.Shutdown or RunState.InternalError or RunState.GuestPanicked)
            _state = RunState.Paused;
    }

    /// <summary>Ends the machine. From any thread.</summary>
    /// <param name="status">exit status.</param>
    /// <param name="reason">as QMP's SHUTDOWN event has it.</param>
    public void Quit(int status = 0, string reason = "host-qmp-quit") => Post(() => End(status, reason));

    private void End(int status, string reason)
    {
        if (_exitStatus != null)
            return;
        _exitStatus = status;
        RaiseEvent(new MachineEvent("SHUTDOWN", ("guest", reason.StartsWith("guest", StringComparison.Ordinal)), ("reason", reason)));
    }

    /// <summary>The power button.</summary>
    public void PressPowerButton()
    {
        RaiseEvent(new MachineEvent("POWERDOWN"));
        lock (Services.Lock)
            _pm?.PressPowerButton();
    }

    /// <summary>A non-maskable interrupt to every processor.</summary>
    public void InjectNmi()
    {
        lock (Services.Lock)
        {
            if (_apicBus != null)
                _apicBus.PulseNmi();
            else
                foreach (var t in _vcpus.Threads)
                    t.RaiseNmi();
        }
    }

    /// <inheritdoc/>
    public void RequestReset()
    {
        _vcpus.Stand();
        Post(() => GuestReset("guest-reset"));
    }

    private void GuestReset(string cause)
    {
        if (_options.NoReboot)
            PowerOff(cause);
        else
            ResetNow(cause);
    }

    private void PowerOff(string cause)
    {
        if (!_options.NoShutdown)
        {
            End(0, cause);
            return;
        }
        RaiseEvent(new MachineEvent("SHUTDOWN", ("guest", true), ("reason", cause)));
        Stop(RunState.Shutdown);
    }

    /// <inheritdoc/>
    public void RequestPowerOff()
    {
        _vcpus.Stand();
        Post(() => PowerOff("guest-shutdown"));
    }

    /// <inheritdoc/>
    public void RequestExit(int status)
    {
        _vcpus.Stand();
        Post(() => End(status, "guest-shutdown"));
    }

    /// <inheritdoc/>
    public void ReportPanic(ulong[]? hyperV = null)
    {
        (string, object) action = ("action", _options.NoShutdown ? "pause" : "poweroff");
        RaiseEvent(hyperV is null ? new MachineEvent("GUEST_PANICKED", action)
            : new MachineEvent("GUEST_PANICKED", action, ("info", new (string, object)[]
            {
                ("type", "hyper-v"), ("arg1", hyperV[0]), ("arg2", hyperV[1]), ("arg3", hyperV[2]), ("arg4", hyperV[3]), ("arg5", hyperV[4]),
            })));
        _vcpus.Stand();
        Post(() =>
        {
            if (_options.NoShutdown)
                Stop(RunState.GuestPanicked);
            else
                End(0, "guest-panic");
        });
    }

    /// <inheritdoc/>
    public void ReportBlockError(string device, bool isRead, string action, bool noSpace)
    {
        RaiseEvent(new MachineEvent("BLOCK_IO_ERROR", ("device", device), ("node-name", device),
            ("operation", isRead ? "read" : "write"), ("action", action), ("nospace", noSpace), ("reason", noSpace ? "No space left on device" : "Input/output error")));
        if (action == "stop")
        {
            _vcpus.Stand();
            Post(() => Stop(RunState.IoError));
        }
    }

    /// <inheritdoc/>
    public void ReportTray(string device, bool open) =>
        RaiseEvent(new MachineEvent("DEVICE_TRAY_MOVED", ("device", device),
            ("id", _drives.Find(d => d.Name == device)?.AttachedTo ?? device), ("tray-open", open)));

    private void OnSleep(int kind)
    {
        if (kind == 0)
            RequestPowerOff();
    }

    private void OnTripleFault(Vcpu cpu) => Post(() => GuestReset("guest-reset"));

    private void OnDebug(Vcpu cpu) => Post(() => Stop(RunState.Paused));

    private void OnEngineFailure(Vcpu? cpu, string text) => Post(() =>
    {
        Stop(RunState.InternalError);
        Report?.Invoke(cpu == null ? text : $"CPU {cpu.Index}: {text}");
        if (cpu != null)
        {
            var state = new CpuState();
            cpu.GetState(state);
            Report?.Invoke(Monitors.Registers.Text(state).TrimEnd('\n'));
        }
        End(1, "host-error");
    });
}
