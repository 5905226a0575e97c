using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>
/// A virtual machine of the kernel's KVM: the guest runs on the processor itself (VT-x or AMD-V). Documentation of the interface:
/// Documentation/virt/kvm/api.rst of Linux.
/// </summary>
public sealed unsafe partial class KvmVm : CpuEngine
{
    /// <summary>Page tables and TSS that Intel processors without unrestricted guest mode need; unused elsewhere. Below the firmware at
    /// the end of 4 GiB, between I/O APIC/local APIC and the largest ROM.</summary>
    private const ulong IdentityMapAddress = 0xFEFFC000;

    private readonly PhysicalMemoryMap _memory;
    private readonly KvmOptions _options;
    private readonly KvmSystem _system;
    private readonly KvmFd _vm;
    private readonly KvmMemorySlots _slots;
    private readonly KvmMemorySlots? _smmSlots;
    private readonly KvmIrqRouting? _routing;
    private readonly List<KvmVcpu> _vcpus = [];
    private readonly Lock _updateLock = new();
    private readonly ManualResetEventSlim _updateDone = new(true);
    private volatile bool _updating, _prepared;
    private kvm_irqchip[] _initialChips = [];
    private kvm_pit_state2 _initialPit;
    private ulong _clock;

    /// <summary>Makes a virtual machine. Throws <see cref="KvmException"/> when the host cannot, before anything has started.</summary>
    /// <param name="memory">what vCPUs see.</param>
    /// <param name="options">what it has.</param>
    /// <param name="system">/dev/kvm, closed with the machine; null: opened here.</param>
    public KvmVm(PhysicalMemoryMap memory, KvmOptions options, KvmSystem? system = null)
    {
        _memory = memory;
        _options = options;
        _system = system ?? KvmSystem.Open();
        var fd = _system.Fd;
        try
        {
            RunMapSize = fd.Call(KVM_GET_VCPU_MMAP_SIZE, (nuint)0, "size of the vCPU page");
            int most = fd.Extension(KVM_CAP_MAX_VCPUS);
            if (options.ProcessorCount > most)
                throw new KvmException($"{options.ProcessorCount} processors asked for, KVM has {most} at most");
            int vm;
            while ((vm = fd.Try(KVM_CREATE_VM, (nuint)0)) == -LibC.EINTR)
            {
                // a signal came while the kernel was at it
            }
            if (vm < 0)
                throw new KvmException($"KVM: cannot make a virtual machine: {LibC.ErrorText(-vm)}", -vm);
            _vm = new KvmFd(vm);
            int slots = Math.Max(32, _vm.Extension(KVM_CAP_NR_MEMSLOTS));
            _slots = new KvmMemorySlots(_vm, 0, slots);
            if (options.SystemManagementMemory is not null && _vm.Extension(KVM_CAP_X86_SMM) > 0
                && _vm.Extension(KVM_CAP_MULTI_ADDRESS_SPACE) > 1)
                _smmSlots = new KvmMemorySlots(_vm, 1, slots);
            ulong identity = IdentityMapAddress;
            if (_vm.Extension(KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
                _vm.Call(KVM_SET_IDENTITY_MAP_ADDR, &identity, "identity map");
            if (_vm.Extension(KVM_CAP_SET_TSS_ADDR) > 0)
                _vm.Call(KVM_SET_TSS_ADDR, (nuint)(IdentityMapAddress + 0x1000), "TSS address");
            if (options.HyperV != HyperVFeatures.None)
                HyperVFeatures = FindHyperV();
            CreateInterruptControllers();
            if (options.InterruptControllers != InterruptControllers.Machine && _vm.Extension(KVM_CAP_IRQ_ROUTING) > 24)
                _routing = new KvmIrqRouting(_vm, options.InterruptControllers);
            // unknown MSRs are the machine's to answer
            if (_vm.Extension(KVM_CAP_X86_USER_SPACE_MSR) > 0)
                Enable(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN, "MSR exits");
            CoalescedPage = _vm.Extension(KVM_CAP_COALESCED_MMIO);
        }
        catch
        {
            _vm?.Dispose();
            _system.Dispose();
            throw;
        }
        memory.Changed += OnMemoryChanged;
        memory.DirtyLogsWanted += OnDirtyLogsWanted;
        if (_smmSlots is not null)
            options.SystemManagementMemory!.Changed += OnMemoryChanged;
    }

    /// <inheritdoc/>
    public override string Name => "kvm";

    /// <inheritdoc/>
    public override InterruptControllers InterruptControllers => _options.InterruptControllers;

    /// <inheritdoc/>
    public override bool HasSystemManagementMode => _smmSlots is not null;

    /// <inheritdoc/>
    public override (ulong Start, ulong Length) ReservedRange => (IdentityMapAddress, 0x4000);

    /// <inheritdoc/>
    public override long TimeStampCounterKilohertz => _vcpus.Count > 0 ? _vcpus[0].TscKilohertz : 0;

    /// <summary>What KVM can show a guest, before the CPU model.</summary>
    public IReadOnlyList<CpuidLeaf> SupportedCpuid => _system.SupportedCpuid;

    internal KvmOptions Options => _options;

    /// <summary>Enlightenments that the guest gets.</summary>
    internal HyperVFeatures HyperVFeatures { get; }

    private HyperVFeatures FindHyperV()
    {
        if (_vm.Extension(KVM_CAP_HYPERV) == 0)
            throw new KvmException("this kernel's KVM has no Hyper-V interface");
        var supported = _system.Fd.Extension(KVM_CAP_SYS_HYPERV_CPUID) > 0 ? KvmCpuid.GetSupported(_system.Fd, KVM_GET_SUPPORTED_HV_CPUID) : null;
        return HyperV.Restrict(_options.HyperV, supported, _options.InterruptControllers != InterruptControllers.Machine);
    }

    internal KvmSystem System => _system;

    internal int RunMapSize { get; }

    /// <summary>Page of the vCPU map that holds the coalesced ring; 0: none.</summary>
    internal int CoalescedPage { get; }

    /// <inheritdoc/>
    public override Vcpu CreateVcpu(int index, IVcpuBus bus)
    {
        var vcpu = new KvmVcpu(this, _vm, index, bus);
        lock (_updateLock)
            _vcpus.Add(vcpu);
        return vcpu;
    }

    internal void Forget(KvmVcpu vcpu)
    {
        lock (_updateLock)
            _vcpus.Remove(vcpu);
    }

    internal int VmExtension(uint capability) => _vm.Extension(capability);

    /// <summary>Waits while slots are being changed.</summary>
    internal bool IsUpdating => _updating;

    internal void WaitForUpdate() => _updateDone.Wait();

    /// <inheritdoc/>
    public override void OnStopped()
    {
        kvm_clock_data clock;
        if (_vm.Extension(KVM_CAP_ADJUST_CLOCK) > 0 && _vm.Try(KVM_GET_CLOCK, &clock) >= 0)
            _clock = clock.clock;
    }

    /// <inheritdoc/>
    public override void OnResumed()
    {
        if (_clock == 0)
            return;
        SetClock(_clock);
        _clock = 0;
        foreach (var vcpu in _vcpus)
            vcpu.ClockStood();
    }

    /// <summary>kvm-clock now, ns.</summary>
    public ulong GetClock()
    {
        kvm_clock_data clock;
        _vm.Call(KVM_GET_CLOCK, &clock, "reading the clock");
        return clock.clock;
    }

    /// <summary>Sets kvm-clock, ns.</summary>
    public void SetClock(ulong nanoseconds)
    {
        var clock = new kvm_clock_data { clock = nanoseconds };
        _vm.Call(KVM_SET_CLOCK, &clock, "setting the clock");
    }

    // Until the first run the map may change as it likes, at no cost.
    private void OnMemoryChanged()
    {
        if (_prepared)
            UpdateSlots();
    }

    /// <inheritdoc/>
    public override void Prepare()
    {
        if (_prepared)
            return;
        lock (_updateLock)
        {
            if (!_prepared)
                UpdateSlots();
            _prepared = true;
        }
    }

    private void OnDirtyLogsWanted()
    {
        lock (_updateLock)
        {
            _slots.HarvestAll();
            _smmSlots?.HarvestAll();
        }
    }

    private void UpdateSlots()
    {
        lock (_updateLock)
        {
            var regions = _memory.Regions;
            var smm = _smmSlots is null ? [] : _options.SystemManagementMemory!.Regions;
            bool pause = _vcpus.Count > 0 && (_slots.NeedsPause(regions) || _smmSlots?.NeedsPause(smm) == true);
            if (pause)
            {
                _updateDone.Reset();
                _updating = true;
                Interlocked.MemoryBarrier();
                foreach (var vcpu in _vcpus)
                    vcpu.LeaveGuest();
            }
            try
            {
                _slots.Apply(regions);
                _smmSlots?.Apply(smm);
            }
            finally
            {
                if (pause)
                {
                    _updating = false;
                    _updateDone.Set();
                }
            }
        }
    }

    private void Enable(uint capability, ulong argument, string what)
    {
        var cap = new kvm_enable_cap { cap = capability };
        cap.args[0] = argument;
        _vm.Call(KVM_ENABLE_CAP, &cap, what);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _memory.Changed -= OnMemoryChanged;
        _memory.DirtyLogsWanted -= OnDirtyLogsWanted;
        if (_smmSlots is not null)
            _options.SystemManagementMemory!.Changed -= OnMemoryChanged;
        foreach (var vcpu in _vcpus.ToArray())
            vcpu.Dispose();
        _vm.Dispose();
        _system.Dispose();
        _updateDone.Dispose();
        base.Dispose();
    }
}
