namespace ImgKit.Machine.Chipset;

/// <summary>The I/O APIC with 24 inputs, at 0xFEC00000. Source: Intel 82093AA data sheet.</summary>
public sealed class IoApic : Device, IInterruptSink, IMmioHandler
{
    /// <summary>Where it answers.</summary>
    public const ulong Address = 0xFEC0_0000;

    private const int Pins = 24;
    private const ulong RemoteIrr = 1 << 14, Level = 1 << 15, Masked = 1 << 16;

    private readonly MachineServices _services;
    private readonly ulong[] _entries = new ulong[Pins];
    private byte _select, _id;
    private uint _lines, _pending;

    /// <summary>Makes one.</summary>
    public IoApic(MachineServices services)
    {
        _services = services;
        services.Mmio.Register(Address, 0x1000, this);
        Reset();
    }

    /// <inheritdoc/>
    public override string TypeName => "ioapic";

    /// <summary>Told (pin, address, data, masked) of each change of an entry, for an engine whose local APICs must know.</summary>
    public Action<int, ulong, uint, bool>? RouteChanged { get; set; }

    /// <inheritdoc/>
    public void SetLine(int line, bool asserted)
    {
        if ((uint)line >= Pins)
            return;
        uint bit = 1u << line;
        bool was = (_lines & bit) != 0;
        if (asserted)
        {
            _lines |= bit;
            // An edge is not seen while its input is masked; a level is, afterwards.
            if ((_entries[line] & Level) != 0 || !was && (_entries[line] & Masked) == 0)
                _pending |= bit;
        }
        else
        {
            _lines &= ~bit;
            if ((_entries[line] & Level) != 0)
                _pending &= ~bit;
        }
        Service(line);
    }

    /// <summary>Whether an edge of an input is passed on to local APICs, and whether the last one waits there to be taken.</summary>
    /// <param name="pin">the input.</param>
    /// <param name="bus">who is asked.</param>
    public (bool IsOpen, bool IsWaiting) Look(int pin, ApicBus bus)
    {
        // Fixed and lowest-priority delivery; the other modes have no request that would wait.
        if ((_entries[pin] & (Masked | Level)) != 0 || (_entries[pin] >> 8 & 7) > 1)
            return (false, false);
        var (address, data) = Message(pin);
        return (true, bus.Waits(address, (byte)data));
    }

    /// <summary>The version register's low byte.</summary>
    public const byte Version = 0x11;

    /// <summary>Redirection entries by input.</summary>
    public ReadOnlySpan<ulong> Entries => _entries;

    /// <summary>Identifier, selected register, and the inputs whose requests are still to be passed on.</summary>
    public (byte Id, byte Selected, uint Pending) Registers => (_id, _select, _pending);

    private (ulong Address, uint Data) Message(int pin)
    {
        ulong e = _entries[pin];
        ulong address = 0xFEE0_0000 | (e >> 56 & 0xFF) << 12 | (e >> 11 & 1) << 2;
        uint data = (uint)(e & 0xFF) | (uint)(e >> 8 & 7) << 8 | (uint)(e >> 15 & 1) << 15 | 1u << 14;
        return (address, data);
    }

    private void Service(int pin)
    {
        uint bit = 1u << pin;
        ref ulong entry = ref _entries[pin];
        if ((_pending & bit) == 0 || (entry & Masked) != 0)
            return;
        if ((entry & Level) != 0)
        {
            if ((entry & RemoteIrr) != 0)
                return;
            entry |= RemoteIrr;
        }
        else
            _pending &= ~bit;
        var (address, data) = Message(pin);
        if ((data >> 8 & 7) == 7)
        {
            // ExtINT through the I/O APIC would need the PIC's acknowledge; PCs route it through LINT0.
            return;
        }
        _services.Messages?.SendMessage(address, data);
    }

    /// <summary>A processor has ended a level-triggered interrupt.</summary>
    public void EndOfInterrupt(byte vector)
    {
        for (int i = 0; i < Pins; i++)
        {
            if ((byte)_entries[i] != vector || (_entries[i] & RemoteIrr) == 0)
                continue;
            _entries[i] &= ~RemoteIrr;
            if ((_lines >> i & 1) != 0)
                _pending |= 1u << i;
            Service(i);
        }
    }

    /// <inheritdoc/>
    public ulong MmioRead(ulong offset, int size) => (offset & ~3UL) switch
    {
        0x00 => _select,
        0x10 => ReadRegister(),
        _ => 0,
    } >> (int)(8 * (offset & 3));

    private uint ReadRegister() => _select switch
    {
        0 or 2 => (uint)_id << 24,
        1 => (Pins - 1) << 16 | Version,
        >= 0x10 and < 0x10 + 2 * Pins => (uint)(_entries[(_select - 0x10) >> 1] >> (32 * (_select & 1))),
        _ => 0,
    };

    /// <inheritdoc/>
    public void MmioWrite(ulong offset, ulong value, int size)
    {
        switch (offset)
        {
            case 0:
                _select = (byte)value;
                break;
            case 0x10:
                WriteRegister((uint)value);
                break;
        }
    }

    private void WriteRegister(uint value)
    {
        if (_select == 0)
            _id = (byte)(value >> 24 & 15);
        if (_select is < 0x10 or >= 0x10 + 2 * Pins)
            return;
        int pin = (_select - 0x10) >> 1;
        ref ulong entry = ref _entries[pin];
        if ((_select & 1) != 0)
            entry = entry & 0xFFFF_FFFF | (ulong)value << 32;
        else
        {
            const ulong ReadOnly = RemoteIrr | 1 << 12;
            entry = entry & (0xFFFF_FFFF_0000_0000 | ReadOnly) | value & 0x1FFFF & ~ReadOnly;
            if ((entry & Level) == 0)
                entry &= ~RemoteIrr;
            else if ((_lines >> pin & 1) != 0)
                _pending |= 1u << pin;
            else
                _pending &= ~(1u << pin);
        }
        Report(pin);
        Service(pin);
    }

    private void Report(int pin)
    {
        var (address, data) = Message(pin);
        RouteChanged?.Invoke(pin, address, data, (_entries[pin] & Masked) != 0);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        Array.Fill(_entries, Masked);
        _select = _id = 0;
        _pending = 0;
        for (int i = 0; i < Pins; i++)
            Report(i);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Fields("entries", _entries);
        state.Field("select", ref _select);
        state.Field("id", ref _id);
        state.Field("lines", ref _lines);
        state.Field("pending", ref _pending);
        if (state.IsLoading)
            for (int i = 0; i < Pins; i++)
                Report(i);
    }
}
