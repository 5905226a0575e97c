using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>A virtual processor that the kernel's KVM runs. See <see cref="Vcpu"/> for the contract.</summary>
public sealed unsafe partial class KvmVcpu : Vcpu
{
    [Flags]
    private enum Requests
    {
        None = 0,
        Kick = 1,
        Nmi = 2,
        Smi = 4,
        Init = 8,
        Startup = 16,
        Wake = 32,
    }

    private readonly KvmVm _machine;
    private readonly KvmFd _fd;
    private readonly IVcpuBus _bus;
    private readonly kvm_run* _run;
    private readonly bool _kernelApic;
    private readonly bool _userPic;
    private readonly bool _hasXcrs;
    private readonly long[] _exits = new long[KvmExits.Reasons];
    private readonly Action _drain;

    private int _requests;
    private volatile bool _line;
    private volatile int _startupVector;
    private volatile bool _waitingForStartup;
    private bool _halted;
    private ulong _apicBase;
    private volatile int _inGuest;
    private int _thread;
    private int _threadManaged = -1;
    private string _failure = "";

    internal KvmVcpu(KvmVm machine, KvmFd vm, int index, IVcpuBus bus)
    {
        _machine = machine;
        _bus = bus;
        Index = index;
        _kernelApic = machine.InterruptControllers != InterruptControllers.Machine;
        _userPic = machine.InterruptControllers != InterruptControllers.Kernel;
        _hasXcrs = machine.VmExtension(KVM_CAP_XCRS) > 0;
        _drain = DrainUnderLock;
        KvmSignal.Install();
        _fd = new KvmFd(vm.Call(KVM_CREATE_VCPU, (nuint)index, $"vCPU {index}"));
        const int PROT_READ_WRITE = 3, MAP_SHARED = 1;
        void* map = LibC.mmap(null, (nuint)machine.RunMapSize, PROT_READ_WRITE, MAP_SHARED, _fd.Value, 0);
        if ((nint)map == -1)
        {
            _fd.Dispose();
            throw new KvmException($"KVM: page of vCPU {index}: {LibC.LastErrorText()}");
        }
        _run = (kvm_run*)map;
        try
        {
            if (machine.Options.TscKilohertz is > 0 and var khz)
                _fd.Call(KVM_SET_TSC_KHZ, (nuint)khz, $"TSC frequency of {khz} kHz");
            KvmCpuid.Apply(machine, _fd, index);
            if (machine.HyperVFeatures.HasFlag(HyperVFeatures.SyntheticInterrupts))
                EnableSyntheticInterrupts();
            SetUpMachineCheck();
            kvm_sregs sregs;
            _fd.Call(KVM_GET_SREGS, &sregs, "segment registers");
            _apicBase = sregs.apic_base;
        }
        catch
        {
            _ = LibC.munmap(_run, (nuint)machine.RunMapSize);
            _fd.Dispose();
            throw;
        }
        _waitingForStartup = index != 0 && !_kernelApic;
    }

    /// <inheritdoc/>
    public override int Index { get; }

    /// <inheritdoc/>
    public override string Failure => _failure;

    internal int TscKilohertz => Math.Max(0, _fd.Try(KVM_GET_TSC_KHZ, (nuint)0));

    /// <inheritdoc/>
    public override IEnumerable<(string Name, long Count)> Exits => KvmExits.Named(_exits);

    /// <inheritdoc/>
    public override VcpuExit Run()
    {
        if (_threadManaged != Environment.CurrentManagedThreadId)
        {
            _thread = LibC.gettid();
            _threadManaged = Environment.CurrentManagedThreadId;
        }
        Touch();
        _machine.Prepare();
        bool kicked = false;
        for (; ; )
        {
            _run->immediate_exit = 0;
            Interlocked.MemoryBarrier();
            var requests = (Requests)Interlocked.Exchange(ref _requests, 0);
            if (requests != Requests.None)
            {
                kicked |= (requests & Requests.Kick) != 0;
                Serve(requests);
            }
            if (_waitingForStartup && !_kernelApic || _halted && !CanWake())
                return kicked ? VcpuExit.Kicked : VcpuExit.Halted;
            _halted = false;
            if (kicked)
                _run->immediate_exit = 1; // what is under way (the end of an I/O instruction) is finished first
            else if (_userPic)
                Inject();
            ulong cr8 = 0;
            if (!_kernelApic)
                _run->cr8 = cr8 = _bus.GetTaskPriority(this);

            int r = Enter();
            _exits[r < 0 ? 0 : Math.Min(_run->exit_reason, (uint)_exits.Length - 1)]++;

            if (!_kernelApic)
                SynchronizeApic(cr8);
            if (HasCoalesced)
                DrainCoalesced();
            if (r < 0)
            {
                if (r is not (-LibC.EINTR or -LibC.EAGAIN))
                {
                    Fail($"KVM_RUN: {LibC.ErrorText(-r)}");
                    return Leave(VcpuExit.InternalError, kicked);
                }
                if (kicked)
                    return VcpuExit.Kicked;
                continue;
            }
            if (Handle(out var exit))
                return Leave(exit, kicked);
        }
    }

    /// <summary>Another exit takes precedence over a kick already seen: the kick stays for the next run.</summary>
    private VcpuExit Leave(VcpuExit exit, bool kicked)
    {
        if (kicked)
            Interlocked.Or(ref _requests, (int)Requests.Kick);
        return exit;
    }

    private int Enter()
    {
        for (; ; )
        {
            _inGuest = 1;
            Interlocked.MemoryBarrier();
            if (!_machine.IsUpdating)
                break;
            _inGuest = 0;
            _machine.WaitForUpdate();
        }
        int r = _fd.Try(KVM_RUN, (nuint)0);
        _inGuest = 0;
        return r;
    }

    /// <summary>True when Run is over.</summary>
    private bool Handle(out VcpuExit exit)
    {
        exit = VcpuExit.Kicked;
        switch (_run->exit_reason)
        {
            case KVM_EXIT_IO:
                PortAccess();
                return false;
            case KVM_EXIT_MMIO:
                MemoryAccess();
                return false;
            case KVM_EXIT_HLT:
                _halted = !_kernelApic;
                return false;
            case KVM_EXIT_IRQ_WINDOW_OPEN or KVM_EXIT_INTR or KVM_EXIT_SET_TPR:
                return false;
            case KVM_EXIT_IOAPIC_EOI:
                _bus.EndOfInterrupt(this, _run->eoi);
                return false;
            case KVM_EXIT_X86_RDMSR:
                _run->msr.error = _bus.ReadMsr(this, _run->msr.index, out ulong value) ? (byte)0 : (byte)1;
                _run->msr.data = value;
                return false;
            case KVM_EXIT_X86_WRMSR:
                _run->msr.error = _bus.WriteMsr(this, _run->msr.index, _run->msr.data) ? (byte)0 : (byte)1;
                return false;
            case KVM_EXIT_SHUTDOWN:
                exit = VcpuExit.Shutdown;
                return true;
            case KVM_EXIT_HYPERV:
                HyperVExit();
                return false;
            case KVM_EXIT_SYSTEM_EVENT when _run->system_event.type is KVM_SYSTEM_EVENT_SHUTDOWN or KVM_SYSTEM_EVENT_RESET:
                exit = VcpuExit.Shutdown;
                return true;
            case KVM_EXIT_SYSTEM_EVENT when _run->system_event.type == KVM_SYSTEM_EVENT_CRASH:
                ReportCrash();
                return false;
            case KVM_EXIT_DEBUG:
                exit = VcpuExit.Debug;
                return HandleDebug();
            default:
                Fail(DescribeExit());
                exit = VcpuExit.InternalError;
                return true;
        }
    }

    private void PortAccess()
    {
        ref var io = ref _run->io;
        byte* data = (byte*)_run + io.data_offset;
        int size = io.size;
        ushort port = io.port;
        uint count = io.count;
        bool input = io.direction == KVM_EXIT_IO_IN;
        for (uint i = 0; i < count; i++, data += size)
        {
            if (input)
            {
                uint value = _bus.PortRead(port, size);
                switch (size)
                {
                    case 1: *data = (byte)value; break;
                    case 2: *(ushort*)data = (ushort)value; break;
                    default: *(uint*)data = value; break;
                }
            }
            else
            {
                _bus.PortWrite(port, size switch { 1 => *data, 2 => *(ushort*)data, _ => *(uint*)data }, size);
            }
        }
    }

    private void MemoryAccess()
    {
        ref var mmio = ref _run->mmio;
        int size = (int)Math.Min(mmio.len, 8);
        fixed (byte* data = mmio.data)
        {
            if (mmio.is_write != 0)
            {
                _bus.MmioWrite(mmio.phys_addr, *(ulong*)data & (ulong.MaxValue >> (64 - 8 * size)), size);
            }
            else
            {
                // only `size` bytes belong to the access
                ulong value = _bus.MmioRead(mmio.phys_addr, size);
                new ReadOnlySpan<byte>(&value, size).CopyTo(new Span<byte>(data, size));
            }
        }
    }

    /// <summary>Hands the kernel the next interrupt of the machine's own controllers, or asks to hear when it can take one.</summary>
    private void Inject()
    {
        _run->request_interrupt_window = 0;
        if (!_line)
            return;
        if (_run->ready_for_interrupt_injection != 0)
        {
            int vector = _bus.AcknowledgeInterrupt(this);
            if (vector >= 0)
            {
                var interrupt = new kvm_interrupt { irq = (uint)vector };
                _fd.Call(KVM_INTERRUPT, &interrupt, "interrupt");
                _run->ready_for_interrupt_injection = 0; // until the next exit says otherwise
            }
        }
        if (_line)
            _run->request_interrupt_window = 1;
    }

    /// <summary>The machine holds the local APIC: carry the task priority and the APIC base over.</summary>
    private void SynchronizeApic(ulong before)
    {
        if (_run->cr8 != before)
            _bus.SetTaskPriority(this, (byte)_run->cr8);
        if (_run->apic_base != _apicBase)
        {
            _apicBase = _run->apic_base;
            const uint IA32_APIC_BASE = 0x1B;
            _ = _bus.WriteMsr(this, IA32_APIC_BASE, _apicBase);
        }
    }

    private bool CanWake() => _line && _run->if_flag != 0;

    private void Serve(Requests requests)
    {
        if ((requests & Requests.Init) != 0)
            Initialize();
        if ((requests & Requests.Startup) != 0 && IsWaitingForStartup)
            StartUp((byte)_startupVector);
        if ((requests & Requests.Nmi) != 0)
        {
            _fd.Call(KVM_NMI, (nuint)0, "NMI");
            _halted = false;
        }
        if ((requests & Requests.Smi) != 0 && _machine.HasSystemManagementMode)
        {
            _fd.Call(KVM_SMI, (nuint)0, "SMI");
            _halted = false;
        }
    }

    private void Post(Requests request)
    {
        Interlocked.Or(ref _requests, (int)request);
        _run->immediate_exit = 1;
        Interlocked.MemoryBarrier();
        if (_inGuest != 0)
            KvmSignal.Send(_thread);
    }

    /// <inheritdoc/>
    public override void Kick() => Post(Requests.Kick);

    /// <summary>Waits until this vCPU is out of the kernel (it will not enter while the VM is updating). Not from its own thread's Run.</summary>
    internal void LeaveGuest()
    {
        var wait = default(SpinWait);
        while (_inGuest != 0)
        {
            _run->immediate_exit = 1;
            Interlocked.MemoryBarrier();
            if (_inGuest != 0)
                KvmSignal.Send(_thread);
            wait.SpinOnce();
        }
    }

    /// <inheritdoc/>
    public override void SetInterruptLine(bool asserted)
    {
        if (!_userPic)
            return;
        bool was = _line;
        _line = asserted;
        if (asserted && !was && _threadManaged != Environment.CurrentManagedThreadId)
            Post(Requests.Wake);
    }

    /// <inheritdoc/>
    public override void RaiseNmi() => Post(Requests.Nmi);

    /// <inheritdoc/>
    public override void RaiseSmi() => Post(Requests.Smi);

    /// <inheritdoc/>
    public override void RaiseInit() => Post(Requests.Init);

    /// <inheritdoc/>
    public override void RaiseStartup(byte vector)
    {
        _startupVector = vector;
        Post(Requests.Startup);
    }

    /// <inheritdoc/>
    public override bool IsWaitingForStartup
    {
        get
        {
            if (!_kernelApic || _inGuest != 0)
                return _waitingForStartup;
            return GetMpState() is KVM_MP_STATE_UNINITIALIZED or KVM_MP_STATE_INIT_RECEIVED;
        }
    }

    /// <inheritdoc/>
    public override bool IsHalted => _kernelApic ? _inGuest == 0 && GetMpState() == KVM_MP_STATE_HALTED : _halted && !CanWake();

    private bool HasCoalesced
    {
        get
        {
            if (_machine.CoalescedPage == 0)
                return false;
            var ring = Ring;
            return Volatile.Read(ref ring->first) != Volatile.Read(ref ring->last);
        }
    }

    private kvm_coalesced_mmio_ring* Ring => (kvm_coalesced_mmio_ring*)((byte*)_run + (_machine.CoalescedPage << 12));

    internal void DrainCoalesced()
    {
        if (HasCoalesced)
            _bus.UnderLock(_drain);
    }

    private void DrainUnderLock()
    {
        var ring = Ring;
        uint most = (uint)((4096 - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio));
        var entries = (kvm_coalesced_mmio*)(ring + 1);
        while (Volatile.Read(ref ring->first) != Volatile.Read(ref ring->last))
        {
            ref var e = ref entries[ring->first % most];
            int size = (int)Math.Min(e.len, 8);
            ulong value;
            fixed (byte* data = e.data)
                value = *(ulong*)data & (size == 0 ? 0 : ulong.MaxValue >> (64 - 8 * size));
            if (e.pio != 0)
                _bus.PortWrite((ushort)e.phys_addr, (uint)value, size);
            else
                _bus.MmioWrite(e.phys_addr, value, size);
            Volatile.Write(ref ring->first, (ring->first + 1) % most);
        }
    }

    /// <summary>After a stop: tells the guest's watchdogs that time passed without it.</summary>
    internal void ClockStood() => _ = _fd.Try(KVM_KVMCLOCK_CTRL, (nuint)0);

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_fd.Value < 0)
            return;
        _machine.Forget(this);
        _ = LibC.munmap(_run, (nuint)_machine.RunMapSize);
        _fd.Dispose();
    }
}
