using System.Buffers.Binary;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Devices.Virtio;

/// <summary>
/// A virtio device on the PCI bus: legacy, transitional or modern. Source: VIRTIO 1.2, section 4.1 (4.1.4.8 and 4.1.5.1.1.1 for legacy).
/// </summary>
public abstract partial class VirtioPci : PciDevice
{
    internal const ushort NoVector = 0xFFFF;

    private const int ModernBar = 4, MsixBar = 1;
    private const uint CommonAt = 0, IsrAt = 0x1000, DeviceAt = 0x2000, NotifyAt = 0x3000, PartSize = 0x1000;

    private readonly VirtQueue[] _queues;
    private readonly int _pciAccess;
    private readonly bool _hasLegacy;
    private byte _status, _isr, _generation;
    private ushort _configVector = NoVector, _select;
    private uint _deviceFeatureSelect, _driverFeatureSelect;
    private ulong _driverFeatures;
    private bool _legacyDriver, _resetting;

    /// <summary>Makes a function.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="type">virtio device type (section 5).</param>
    /// <param name="classCode">PCI class.</param>
    /// <param name="interfaces">what is offered.</param>
    /// <param name="queueSizes">size of each queue, powers of two.</param>
    protected VirtioPci(MachineServices services, ushort type, uint classCode, VirtioInterfaces interfaces, ReadOnlySpan<ushort> queueSizes)
        : base(services, 0x1AF4, interfaces == VirtioInterfaces.Modern ? (ushort)(0x1040 + type) : LegacyId(type), classCode,
            interfaces == VirtioInterfaces.Modern ? (byte)1 : (byte)0)
    {
        SetSubsystem(0x1AF4, interfaces == VirtioInterfaces.Modern ? (ushort)0x1100 : type);
        SetInterruptPin(1);
        _queues = new VirtQueue[queueSizes.Length];
        for (int i = 0; i < _queues.Length; i++)
            _queues[i] = new VirtQueue(services.Memory, i, queueSizes[i]);
        _hasLegacy = interfaces != VirtioInterfaces.Modern;
        if (_hasLegacy)
            AddPortBar(0, 128, new LegacyPorts(this), 4);
        AddMsix(MsixBar, Math.Min(128, queueSizes.Length + 1)).Changed += RouteChanged;
        if (interfaces == VirtioInterfaces.Legacy)
            return;
        OffersModern = true;
        AddMmioBar(ModernBar, 4 * PartSize, new ModernRegisters(this), true, true);
        AddVirtioCapability(1, CommonAt, PartSize, 16);
        AddVirtioCapability(3, IsrAt, PartSize, 16);
        AddVirtioCapability(4, DeviceAt, PartSize, 16);
        int notify = AddVirtioCapability(2, NotifyAt, PartSize, 20);
        BinaryPrimitives.WriteUInt32LittleEndian(Config[(notify + 16)..], 4); // notify_off_multiplier
        _pciAccess = AddVirtioCapability(5, 0, 0, 20);
        for (int i = 4; i < 20; i++)
            Writable[_pciAccess + i] = i is >= 5 and < 8 ? (byte)0 : (byte)0xFF; // bar, offset, length, data
    }

    /// <summary>The interfaces that the properties disable-legacy and disable-modern leave. Throws <see cref="MachineException"/>.</summary>
    internal static VirtioInterfaces Interfaces(DeviceOptions options)
    {
        bool noLegacy = options.Text("disable-legacy") != "auto" && options.Flag("disable-legacy", false);
        bool noModern = options.Flag("disable-modern", false);
        if (noLegacy && noModern)
            throw new MachineException("device cannot work as neither modern nor legacy mode is enabled");
        return noLegacy ? VirtioInterfaces.Modern : noModern ? VirtioInterfaces.Legacy : VirtioInterfaces.Transitional;
    }

    private static ushort LegacyId(ushort type) => type switch
    {
        1 => 0x1000,
        2 => 0x1001,
        5 => 0x1002,
        3 => 0x1003,
        8 => 0x1004,
        4 => 0x1005,
        9 => 0x1009,
        _ => throw new ArgumentOutOfRangeException(nameof(type), "this virtio device has no legacy interface"),
    };

    /// <summary>Features of the device itself.</summary>
    protected abstract ulong DeviceFeatures { get; }

    /// <summary>Bytes of the device configuration.</summary>
    protected abstract int ConfigLength { get; }

    /// <summary>The device configuration now.</summary>
    protected abstract void ReadConfig(Span<byte> config);

    /// <summary>The driver writes a byte of the device configuration.</summary>
    protected virtual void WriteConfig(int offset, byte value)
    {
    }

    /// <summary>The driver has made buffers available: at most a queue's length of them are to be taken.</summary>
    private protected abstract void Notified(VirtQueue queue);

    /// <summary>The driver has reset the device: what is under way must not touch its queues any more.</summary>
    protected abstract void DriverReset();

    /// <summary>Requests that still use guest memory: the status register shows the reset only when there are none.</summary>
    protected virtual bool IsBusy => false;

    /// <summary>The driver said that it is ready, and the features are agreed on.</summary>
    protected virtual void DriverReady()
    {
    }

    private protected ReadOnlySpan<VirtQueue> Queues => _queues;

    private bool OffersModern { get; }

    /// <summary>Agreed on.</summary>
    protected bool HasFeature(ulong feature) => (_driverFeatures & feature) != 0;

    /// <summary>The device is in use.</summary>
    protected bool IsRunning => (_status & (VirtioStatus.DriverOk | VirtioStatus.NeedsReset)) == VirtioStatus.DriverOk && !_resetting;

    /// <summary>For messages: the last violation of the rules by the driver.</summary>
    public string? DriverError { get; private set; }

    private ulong Offered => DeviceFeatures | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex
        | (OffersModern ? VirtioFeatures.Version1 : 0) | (_hasLegacy ? VirtioFeatures.NotifyOnEmpty | VirtioFeatures.AnyLayout : 0);

    private int AddVirtioCapability(byte type, uint offset, uint length, byte size)
    {
        int at = AddCapability(9, size);
        Config[at + 2] = size;
        Config[at + 3] = type;
        Config[at + 4] = type == 5 ? (byte)0 : (byte)ModernBar;
        BinaryPrimitives.WriteUInt32LittleEndian(Config[(at + 8)..], offset);
        BinaryPrimitives.WriteUInt32LittleEndian(Config[(at + 12)..], length);
        return at;
    }

    /// <summary>Takes the next chain of a queue; a driver that breaks the rules stops the device until it is reset.</summary>
    private protected bool TryPop(VirtQueue queue, VirtioChain chain)
    {
        if (!IsRunning)
            return false;
        if (queue.TryPop(chain, HasFeature(VirtioFeatures.IndirectDescriptors), HasFeature(VirtioFeatures.EventIndex), out string? error))
            return true;
        if (error != null)
            Break(error);
        return false;
    }

    /// <summary>The driver broke the rules: nothing more is done until it resets the device (section 2.1.2).</summary>
    private protected void Break(string error)
    {
        DriverError = error;
        _status |= VirtioStatus.NeedsReset;
        if (!_legacyDriver)
            NotifyConfigChange();
    }

    /// <summary>Hands a chain back and interrupts where the driver wants it.</summary>
    private protected void Complete(VirtQueue queue, ushort head, uint written)
    {
        queue.Push(head, written);
        if (!queue.TakeInterruptRequest(HasFeature(VirtioFeatures.EventIndex)))
            return;
        Interrupt(queue.Vector, 1);
    }

    /// <summary>Tells the driver that the device configuration has changed.</summary>
    protected void NotifyConfigChange()
    {
        _generation++;
        if ((_status & VirtioStatus.DriverOk) != 0)
            Interrupt(_configVector, 3);
    }

    private void Interrupt(ushort vector, byte isr)
    {
        if (Msix!.IsEnabled)
        {
            if (vector != NoVector && !SignalRoute(vector))
                Msix.Notify(vector);
            return;
        }
        _isr |= isr;
        SetInterrupt(true);
    }

    private byte TakeIsr()
    {
        byte isr = _isr;
        _isr = 0;
        SetInterrupt(false);
        return isr;
    }

    private byte ReadStatus()
    {
        if (_resetting && !IsBusy)
            FinishReset();
        return _status;
    }

    private void WriteStatus(byte value)
    {
        if (value == 0)
        {
            BeginReset();
            return;
        }
        if (_resetting)
            return;
        byte rising = (byte)(value & ~_status);
        if (!_legacyDriver && (rising & VirtioStatus.FeaturesOk) != 0
            && ((_driverFeatures & ~Offered) != 0 || (_driverFeatures & VirtioFeatures.Version1) == 0))
            value &= unchecked((byte)~VirtioStatus.FeaturesOk);
        _status = (byte)(value | _status & VirtioStatus.NeedsReset);
        if ((rising & VirtioStatus.DriverOk) == 0)
            return;
        DriverReady();
        AttachEvents();
        // a legacy driver may have filled its queues before
        foreach (var queue in _queues)
            if (queue.HasWork)
                Serve(queue);
    }

    private void BeginReset()
    {
        DriverReset();
        _resetting = true;
        if (!IsBusy)
            FinishReset();
    }

    private void FinishReset()
    {
        _resetting = false;
        _status = _isr = 0;
        _configVector = NoVector;
        _select = 0;
        _deviceFeatureSelect = _driverFeatureSelect = 0;
        _driverFeatures = 0;
        DetachEvents();
        _legacyDriver = false;
        DriverError = null;
        foreach (var queue in _queues)
            queue.Reset();
        SetInterrupt(false);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        DriverReset();
        FinishReset();
        _generation = 0;
        base.Reset();
    }

    private VirtQueue? Selected => _select < _queues.Length ? _queues[_select] : null;

    private ushort AcceptVector(uint value) => value < (uint)Msix!.Vectors ? (ushort)value : NoVector;

    private void Notify(uint queue)
    {
        if (queue < (uint)_queues.Length && IsRunning)
            Serve(_queues[queue]);
    }

    /// <summary>Lets the device empty a queue; what is left after a queue's length (another processor refills it) waits for the event loop.</summary>
    private void Serve(VirtQueue queue)
    {
        Notified(queue);
        if (!IsRunning || !queue.HasWork || queue.IsDeferred)
            return;
        queue.IsDeferred = true;
        Services.Loop.Post(() =>
        {
            queue.IsDeferred = false;
            if (IsRunning)
                Serve(queue);
        });
    }

    private uint ReadDeviceConfig(int offset, int size)
    {
        Span<byte> config = stackalloc byte[256];
        config = config[..ConfigLength];
        ReadConfig(config);
        uint value = 0;
        for (int i = 0; i < size; i++)
            value |= (uint)(offset + i < config.Length ? config[offset + i] : 0) << (8 * i);
        return value;
    }

    private void WriteDeviceConfig(int offset, uint value, int size)
    {
        for (int i = 0; i < size && offset + i < ConfigLength; i++)
            WriteConfig(offset + i, (byte)(value >> (8 * i)));
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("status", ref _status);
        state.Field("isr", ref _isr);
        state.Field("generation", ref _generation);
        state.Field("config-vector", ref _configVector);
        state.Field("queue-select", ref _select);
        state.Field("device-feature-select", ref _deviceFeatureSelect);
        state.Field("driver-feature-select", ref _driverFeatureSelect);
        state.Field("driver-features", ref _driverFeatures);
        state.Field("legacy-driver", ref _legacyDriver);
        foreach (var queue in _queues)
            state.Part($"queue{queue.Index}", queue);
        if (!state.IsLoading)
            return;
        DetachEvents();
        AttachEvents();
    }
}
