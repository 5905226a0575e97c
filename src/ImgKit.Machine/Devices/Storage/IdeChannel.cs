namespace ImgKit.Machine.Devices.Storage;

/// <summary>
/// An IDE channel with up to two drives, and its bus master when it is on PCI. Sources: ATA/ATAPI-7 volume 2; Programming Interface
/// for Bus Master IDE Controller, revision 1.0.
/// </summary>
public sealed class IdeChannel : Device, IPortHandler
{
    private const byte MasterActive = 1, MasterError = 2, MasterInterrupt = 4;

    private readonly IdeUnit?[] _units = new IdeUnit?[2];
    private readonly InterruptLine _irq;
    private ushort _command, _controlPort;
    private byte _selected, _control, _masterCommand, _masterStatus;
    private uint _descriptors;
    private bool _pending;

    /// <summary>Makes a channel without drives.</summary>
    public IdeChannel(MachineServices services, InterruptLine irq)
    {
        Services = services;
        _irq = irq;
    }

    /// <inheritdoc/>
    public override string TypeName => "ide-bus";

    /// <summary>What the machine gives.</summary>
    public MachineServices Services { get; }

    /// <summary>0 primary, 1 secondary.</summary>
    public int Number { get; init; }

    /// <summary>The drives.</summary>
    public IReadOnlyList<IdeUnit?> Units => _units;

    /// <summary>Answers at the legacy ports.</summary>
    public void RegisterPorts(ushort command, ushort control)
    {
        _command = command;
        _controlPort = control;
        Services.Ports.Register(command, 8, this, 4);
        Services.Ports.Register(control, 1, this);
    }

    /// <summary>Plugs a drive: 0 master, 1 slave. Throws <see cref="MachineException"/> when the place is taken.</summary>
    public IdeUnit Attach(int unit, Drive drive)
    {
        if (_units[unit] != null)
            throw new MachineException($"IDE unit {unit} is in use");
        _units[unit] = drive.IsCdRom ? new AtapiDrive(this, unit, drive) : new AtaDisk(this, unit, drive);
        return _units[unit]!;
    }

    private IdeUnit? Selected => _units[_selected];

    private bool IsEmpty => _units[0] == null && _units[1] == null;

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port == _controlPort)
            return Selected?.Status ?? 0;
        int register = port - _command;
        if (register == 0)
            return Selected?.ReadData(size) ?? uint.MaxValue;
        if (size != 1)
        {
            uint value = 0;
            for (int i = 0; i < size; i++)
                value |= (register + i < 8 ? PortRead((ushort)(port + i), 1) : 0xFF) << (8 * i);
            return value;
        }
        if (IsEmpty)
            return 0;
        if (register == 7)
            ClearInterrupt();
        if (Selected == null)
            return register == 6 ? (uint)(_selected << 4 | 0xA0) : 0;
        return Selected.ReadRegister(register, (_control & 0x80) != 0);
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port == _controlPort)
        {
            WriteControl((byte)value);
            return;
        }
        int register = port - _command;
        if (register == 0)
        {
            Selected?.WriteData(value, size);
            return;
        }
        if (size != 1)
        {
            for (int i = 0; i < size && register + i < 8; i++)
                PortWrite((ushort)(port + i), value >> (8 * i) & 0xFF, 1);
            return;
        }
        byte v = (byte)value;
        _control &= 0x7F;       // any write ends reading the previous content
        if (register == 6)
            _selected = (byte)(v >> 4 & 1);
        if (register != 7)
        {
            // Both drives hear the task file.
            _units[0]?.WriteRegister(register, v);
            _units[1]?.WriteRegister(register, v);
            return;
        }
        ClearInterrupt();
        // DIAGNOSTICS is for both drives; the master answers.
        if (v == 0x90)
        {
            foreach (var u in _units)
                u?.Reset();
            _selected = 0;
            if (_units[0] != null)
                RaiseInterrupt(_units[0]!);
            return;
        }
        Selected?.Execute(v);
    }

    private void WriteControl(byte value)
    {
        bool reset = (value & 4) != 0 && (_control & 4) == 0;
        _control = value;
        if (reset)
        {
            _selected = 0;
            foreach (var u in _units)
                u?.Reset();
            ClearInterrupt();
        }
        UpdateInterrupt();
    }

    internal void RaiseInterrupt(IdeUnit unit)
    {
        _pending = true;
        _masterStatus |= MasterInterrupt;
        UpdateInterrupt();
    }

    private void ClearInterrupt()
    {
        _pending = false;
        UpdateInterrupt();
    }

    private void UpdateInterrupt() => _irq.Set(_pending && (_control & 2) == 0);

    internal void DmaRequested(IdeUnit unit)
    {
        if ((_masterCommand & 1) != 0)
            unit.StartDma();
    }

    internal void DmaEnded(bool failed)
    {
        _masterStatus &= unchecked((byte)~MasterActive);
        if (failed)
            _masterStatus |= MasterError;
    }

    /// <summary>Walks the table of physical region descriptors. At most 8192 entries (64 KiB, the table's own limit).</summary>
    internal bool CollectDescriptors(List<DmaSegment> segments, long length, bool toMemory)
    {
        ulong at = _descriptors;
        for (int i = 0; i < 8192 && length > 0; i++, at += 8)
        {
            uint address = Services.Memory.ReadUInt32(at), control = Services.Memory.ReadUInt32(at + 4);
            int count = (int)(control & 0xFFFE);
            if (count == 0)
                count = 0x10000;
            long n = Math.Min(count, length);
            if (!Services.Memory.TryAdd(segments, address & ~1u, n, toMemory))
                return false;
            length -= n;
            if ((control & 0x8000_0000) != 0)
                break;
        }
        return length == 0;
    }

    /// <summary>Reads a register 0..7 of the bus master.</summary>
    public uint ReadMaster(int register, int size) => register switch
    {
        0 => _masterCommand,
        2 => _masterStatus,
        >= 4 => _descriptors >> (8 * (register - 4)),
        _ => 0,
    };

    /// <summary>Writes a register of the bus master.</summary>
    public void WriteMaster(int register, uint value, int size)
    {
        switch (register)
        {
            case 0:
                bool start = (value & 1) != 0 && (_masterCommand & 1) == 0;
                _masterCommand = (byte)(value & 9);
                if (start)
                {
                    _masterStatus |= MasterActive;
                    if (Selected is { IsWaitingForDma: true } unit)
                        unit.StartDma();
                }
                else if ((value & 1) == 0)
                    _masterStatus &= unchecked((byte)~MasterActive);
                break;
            case 2:
                // Bits 5 and 6 say that the drives are set up for DMA; interrupt and error clear by writing 1.
                _masterStatus = (byte)(_masterStatus & ~0x60 & ~(value & 6) | value & 0x60);
                break;
            case >= 4 and < 8:
                int shift = 8 * (register - 4);
                uint mask = (size == 4 ? uint.MaxValue : (1u << (8 * size)) - 1) << shift;
                _descriptors = (_descriptors & ~mask | value << shift & mask) & ~3u;
                break;
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _selected = _control = _masterCommand = _masterStatus = 0;
        _descriptors = 0;
        foreach (var u in _units)
            u?.Reset();
        ClearInterrupt();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("selected", ref _selected);
        state.Field("control", ref _control);
        state.Field("master-command", ref _masterCommand);
        state.Field("master-status", ref _masterStatus);
        state.Field("descriptors", ref _descriptors);
        state.Field("pending", ref _pending);
        _selected &= 1;
        for (int i = 0; i < 2; i++)
            if (_units[i] is { } unit)
                state.Part($"unit{i}", unit);
        if (state.IsLoading)
            UpdateInterrupt();
    }
}
