using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;
using ImgKit.Machine.Chipset;

namespace ImgKit.Machine;

/// <summary>The thread of one virtual processor: runs it, lets it sleep in HLT, parks it while the machine stands still.</summary>
internal sealed class VcpuThread : IApicProcessor
{
    private readonly VcpuGroup _group;
    private readonly object _sleep = new();
    private bool _woken;

    internal VcpuThread(VcpuGroup group, Vcpu cpu)
    {
        _group = group;
        Cpu = cpu;
        Thread = new Thread(Loop, 1 << 20) { IsBackground = true, Name = $"CPU {cpu.Index}" };
    }

    internal Vcpu Cpu { get; }

    internal Thread Thread { get; }

    /// <summary>The host's number of the thread; 0 before it has started.</summary>
    internal int HostId { get; private set; }

    private void Wake()
    {
        lock (_sleep)
        {
            _woken = true;
            Monitor.Pulse(_sleep);
        }
    }

    internal void Kick()
    {
        Cpu.Kick();
        Wake();
    }

    public void SetInterruptLine(bool asserted)
    {
        Cpu.SetInterruptLine(asserted);
        if (asserted)
            Wake();
    }

    public void RaiseNmi()
    {
        Cpu.RaiseNmi();
        Wake();
    }

    public void RaiseSmi()
    {
        Cpu.RaiseSmi();
        Wake();
    }

    public void RaiseInit()
    {
        Cpu.RaiseInit();
        Wake();
    }

    public void RaiseStartup(byte vector)
    {
        Cpu.RaiseStartup(vector);
        Wake();
    }

    private void Loop()
    {
        HostId = Host.HostThread.CurrentId;
        try
        {
            while (_group.Park())
            {
                switch (Cpu.Run())
                {
                    case VcpuExit.Halted:
                        lock (_sleep)
                        {
                            while (!_woken)
                                Monitor.Wait(_sleep);
                            _woken = false;
                        }
                        break;
                    case VcpuExit.Shutdown:
                        _group.Stand();
                        _group.TripleFault(Cpu);
                        break;
                    case VcpuExit.InternalError:
                        _group.Stand();
                        _group.Failed(Cpu, Cpu.Failure);
                        break;
                    case VcpuExit.Debug:
                        _group.Stand();
                        _group.Debugged(Cpu);
                        break;
                }
            }
        }
        catch (Exception e)
        {
            _group.Stand();
            _group.Failed(Cpu, e is KvmException ? e.Message : e.ToString());
            while (_group.Park())
            {
                // nothing that this processor could still do
            }
        }
    }
}

/// <summary>All processors of a machine, and the gate where they stand while it is stopped.</summary>
internal sealed class VcpuGroup
{
    private readonly object _gate = new();
    private readonly List<VcpuThread> _threads = [];
    private int _standing, _parked;
    private bool _ending, _started;

    internal IReadOnlyList<VcpuThread> Threads => _threads;

    internal required Action<Vcpu> TripleFault { get; init; }

    internal required Action<Vcpu, string> Failed { get; init; }

    internal required Action<Vcpu> Debugged { get; init; }

    internal VcpuThread Add(Vcpu cpu)
    {
        var thread = new VcpuThread(this, cpu);
        _threads.Add(thread);
        return thread;
    }

    /// <summary>Starts the threads, all at the gate (which is closed until <see cref="Go"/>).</summary>
    internal void Start()
    {
        _started = true;
        foreach (var t in _threads)
            t.Thread.Start();
    }

    /// <summary>Closes the gate without waiting: each processor stops before its next run. From any thread.</summary>
    internal void Stand()
    {
        lock (_gate)
            _standing = 1;
        foreach (var t in _threads)
            t.Kick();
    }

    /// <summary>Closes the gate and waits until all stand. Neither under the machine lock nor on a processor's thread.</summary>
    internal void StandAndWait()
    {
        if (!_started)
            return;
        Stand();
        lock (_gate)
            while (_parked < _threads.Count)
                Monitor.Wait(_gate);
    }

    /// <summary>Opens the gate.</summary>
    internal void Go()
    {
        lock (_gate)
        {
            _standing = 0;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Lets the threads end, and waits for them.</summary>
    internal void End()
    {
        lock (_gate)
        {
            _ending = true;
            Monitor.PulseAll(_gate);
        }
        if (!_started)
            return;
        foreach (var t in _threads)
        {
            t.Kick();
            t.Thread.Join();
        }
    }

    /// <summary>On a processor's thread: waits while the gate is closed; false when the thread must end.</summary>
    internal bool Park()
    {
        lock (_gate)
        {
            if (_standing != 0 && !_ending)
            {
                _parked++;
                Monitor.PulseAll(_gate);
                while (_standing != 0 && !_ending)
                    Monitor.Wait(_gate);
                _parked--;
            }
            return !_ending;
        }
    }
}
