using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

public sealed unsafe partial class KvmVm
{
    private void CreateInterruptControllers()
    {
        switch (_options.InterruptControllers)
        {
            case InterruptControllers.Kernel:
                if (_vm.Extension(KVM_CAP_IRQCHIP) == 0 || _vm.Extension(KVM_CAP_PIT2) == 0)
                    throw new KvmException("this kernel's KVM has no interrupt controllers: use kernel_irqchip=off");
                _vm.Call(KVM_CREATE_IRQCHIP, (nuint)0, "interrupt controllers");
                var pit = new kvm_pit_config { flags = KVM_PIT_SPEAKER_DUMMY };
                _vm.Call(KVM_CREATE_PIT2, &pit, "interval timer");
                if (!_options.ReinjectPitTicks)
                {
                    if (_vm.Extension(KVM_CAP_REINJECT_CONTROL) == 0)
                        throw new KvmException("this kernel's KVM cannot drop timer ticks");
                    var control = new kvm_reinject_control { pit_reinject = 0 };
                    _vm.Call(KVM_REINJECT_CONTROL, &control, "timer reinjection");
                }
                _initialChips = new kvm_irqchip[3];
                for (uint i = 0; i < 3; i++)
                    _initialChips[i] = GetChip(i);
                fixed (kvm_pit_state2* p = &_initialPit)
                    _vm.Call(KVM_GET_PIT2, p, "interval timer state");
                break;
            case InterruptControllers.Split:
                if (_vm.Extension(KVM_CAP_SPLIT_IRQCHIP) == 0)
                    throw new KvmException("this kernel's KVM has no split interrupt controllers: use kernel_irqchip=on or off");
                Enable(KVM_CAP_SPLIT_IRQCHIP, 24, "split interrupt controllers");
                break;
        }
    }

    private kvm_irqchip GetChip(uint id)
    {
        var chip = new kvm_irqchip { chip_id = id };
        _vm.Call(KVM_GET_IRQCHIP, &chip, "interrupt controller state");
        return chip;
    }

    /// <inheritdoc/>
    public override void ResetInterruptControllers()
    {
        if (_initialChips.Length == 0)
            return;
        for (int i = 0; i < 3; i++)
        {
            var chip = _initialChips[i];
            _vm.Call(KVM_SET_IRQCHIP, &chip, "interrupt controller state");
        }
        fixed (kvm_pit_state2* p = &_initialPit)
            _vm.Call(KVM_SET_PIT2, p, "interval timer state");
    }

    /// <inheritdoc/>
    public override void SetTimerReplaced(bool replaced)
    {
        if (_options.InterruptControllers != InterruptControllers.Kernel)
            return;
        kvm_pit_state2 pit;
        _vm.Call(KVM_GET_PIT2, &pit, "interval timer state");
        pit.flags = replaced ? pit.flags | KVM_PIT_FLAGS_HPET_LEGACY : pit.flags & ~KVM_PIT_FLAGS_HPET_LEGACY;
        _vm.Call(KVM_SET_PIT2, &pit, "interval timer state");
    }

    /// <inheritdoc/>
    public override void SetInterruptLine(int gsi, bool asserted)
    {
        var level = new kvm_irq_level { irq = (uint)gsi, level = asserted ? 1u : 0u };
        _vm.Call(KVM_IRQ_LINE, &level, "interrupt line");
    }

    /// <inheritdoc/>
    public override void SignalMessage(ulong address, uint data)
    {
        var msi = new kvm_msi { address_lo = (uint)address, address_hi = (uint)(address >> 32), data = data };
        // a message to no processor fails, as it does on a bus: the guest's affair
        _ = _vm.Try(KVM_SIGNAL_MSI, &msi);
    }

    /// <inheritdoc/>
    public override void SetIoApicRoute(int pin, ulong address, uint data, bool masked)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)pin, 23u, nameof(pin));
        if (_options.InterruptControllers == InterruptControllers.Split)
            _routing?.SetPin(pin, address, data, masked);
    }

    /// <inheritdoc/>
    public override int AddMessageRoute(ulong address, uint data) => _routing?.Add(address, data) ?? -1;

    /// <inheritdoc/>
    public override void UpdateMessageRoute(int gsi, ulong address, uint data) => _routing?.Update(gsi, address, data);

    /// <inheritdoc/>
    public override void RemoveMessageRoute(int gsi) => _routing?.Remove(gsi);

    /// <inheritdoc/>
    public override bool AttachInterruptEvent(int eventFd, int gsi, int resampleFd = -1)
    {
        if (_options.InterruptControllers == InterruptControllers.Machine || _vm.Extension(KVM_CAP_IRQFD) == 0)
            return false;
        if (resampleFd >= 0 && (_options.InterruptControllers != InterruptControllers.Kernel || _vm.Extension(KVM_CAP_IRQFD_RESAMPLE) == 0))
            return false;
        var irqfd = new kvm_irqfd { fd = (uint)eventFd, gsi = (uint)gsi };
        if (resampleFd >= 0)
        {
            irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
            irqfd.resamplefd = (uint)resampleFd;
        }
        _vm.Call(KVM_IRQFD, &irqfd, "interrupt event");
        return true;
    }

    /// <inheritdoc/>
    public override void DetachInterruptEvent(int eventFd, int gsi)
    {
        var irqfd = new kvm_irqfd { fd = (uint)eventFd, gsi = (uint)gsi, flags = KVM_IRQFD_FLAG_DEASSIGN };
        _vm.Call(KVM_IRQFD, &irqfd, "interrupt event");
    }

    /// <inheritdoc/>
    public override bool AttachIoEvent(in IoEvent ioEvent)
    {
        if (_vm.Extension(KVM_CAP_IOEVENTFD) == 0
            || (ioEvent.Size == 0 && (ioEvent.IsPort || _vm.Extension(KVM_CAP_IOEVENTFD_ANY_LENGTH) == 0)))
            return false;
        Event(ioEvent, 0);
        return true;
    }

    /// <inheritdoc/>
    public override void DetachIoEvent(in IoEvent ioEvent) => Event(ioEvent, KVM_IOEVENTFD_FLAG_DEASSIGN);

    private void Event(in IoEvent e, uint flags)
    {
        var io = new kvm_ioeventfd
        {
            addr = e.Address,
            len = (uint)e.Size,
            fd = e.EventFd,
            datamatch = e.Match ?? 0,
            flags = flags | (e.IsPort ? KVM_IOEVENTFD_FLAG_PIO : 0) | (e.Match is null ? 0 : KVM_IOEVENTFD_FLAG_DATAMATCH),
        };
        _vm.Call(KVM_IOEVENTFD, &io, "I/O event");
    }

    /// <inheritdoc/>
    public override bool AddCoalescedRange(ulong start, uint length, bool isPort)
    {
        if (CoalescedPage == 0 || (isPort && _vm.Extension(KVM_CAP_COALESCED_PIO) == 0))
            return false;
        var zone = new kvm_coalesced_mmio_zone { addr = start, size = length, pio = isPort ? 1u : 0u };
        _vm.Call(KVM_REGISTER_COALESCED_MMIO, &zone, "coalesced range");
        return true;
    }

    /// <inheritdoc/>
    public override void RemoveCoalescedRange(ulong start, uint length, bool isPort)
    {
        var zone = new kvm_coalesced_mmio_zone { addr = start, size = length, pio = isPort ? 1u : 0u };
        _vm.Call(KVM_UNREGISTER_COALESCED_MMIO, &zone, "coalesced range");
    }

    /// <inheritdoc/>
    public override void FlushCoalesced()
    {
        if (_vcpus.Count > 0)
            _vcpus[0].DrainCoalesced();
    }
}
