using System.Buffers.Binary;

namespace ImgKit.Machine.Pci;

/// <summary>
/// A function on the PCI bus: its configuration space, base address registers, interrupt pin and message interrupts.
/// Layout: PCI Local Bus Specification 3.0, chapter 6.
/// </summary>
public abstract class PciDevice : Device
{
    private readonly byte[] _config = new byte[256];
    private readonly byte[] _writable = new byte[256];
    private readonly byte[] _writeOneClears = new byte[256];
    private byte[] _initial = [];
    private byte _nextCapability = 0x40;
    private bool _interrupt;

    /// <summary>Makes a function of header type 0.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="vendor">vendor ID.</param>
    /// <param name="device">device ID.</param>
    /// <param name="classCode">class, subclass and interface: 0xCCSSII.</param>
    /// <param name="revision">revision ID.</param>
    protected PciDevice(MachineServices services, ushort vendor, ushort device, uint classCode, byte revision = 0)
    {
        Services = services;
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(0), vendor);
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(2), device);
        _config[8] = revision;
        _config[9] = (byte)classCode;
        _config[10] = (byte)(classCode >> 8);
        _config[11] = (byte)(classCode >> 16);
        _writable[4] = 0x47;        // I/O, memory, bus master, parity response
        _writable[5] = 0x05;        // SERR enable, interrupt disable
        _writeOneClears[7] = 0xF9;  // error bits of the status register
        _writable[0x0C] = 0xFF;     // cache line size
        _writable[0x0D] = 0xFF;     // latency timer
        _writable[0x3C] = 0xFF;     // interrupt line
    }

    /// <summary>What the machine gives.</summary>
    protected MachineServices Services { get; }

    /// <summary>The bus, once plugged.</summary>
    public PciBus? Bus { get; internal set; }

    /// <summary>Device number on the bus * 8 + function.</summary>
    public int DeviceFunction { get; internal set; }

    /// <summary>Base address registers 0..5, and the expansion ROM at 6.</summary>
    internal PciBar?[] Bars { get; } = new PciBar?[7];

    /// <summary>Configuration space. A device may change read-only fields here.</summary>
    protected internal Span<byte> Config => _config;

    /// <summary>Bits of configuration space that the guest can write.</summary>
    protected Span<byte> Writable => _writable;

    /// <summary>Bits that a written 1 clears.</summary>
    protected Span<byte> WriteOneClears => _writeOneClears;

    /// <summary>Command register.</summary>
    public ushort Command => BinaryPrimitives.ReadUInt16LittleEndian(_config.AsSpan(4));

    /// <summary>Vendor ID.</summary>
    public ushort VendorId => BinaryPrimitives.ReadUInt16LittleEndian(_config.AsSpan(0));

    /// <summary>Device ID.</summary>
    public ushort DeviceId => BinaryPrimitives.ReadUInt16LittleEndian(_config.AsSpan(2));

    /// <summary>Class and subclass.</summary>
    public ushort ClassId => BinaryPrimitives.ReadUInt16LittleEndian(_config.AsSpan(10));

    /// <summary>The device may read and write memory.</summary>
    public bool IsBusMaster => (Command & 4) != 0;

    /// <summary>MSI-X state, when the function has it.</summary>
    public PciMsix? Msix { get; private set; }

    /// <summary>Sets the subsystem IDs.</summary>
    protected void SetSubsystem(ushort vendor, ushort id)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(0x2C), vendor);
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(0x2E), id);
    }

    /// <summary>Gives the function an interrupt pin: 1 (INTA#) to 4.</summary>
    protected void SetInterruptPin(int pin) => _config[0x3D] = (byte)pin;

    /// <summary>A base address register for I/O ports.</summary>
    /// <param name="index">0..5.</param>
    /// <param name="size">ports, a power of two from 4.</param>
    /// <param name="handler">gets port numbers relative to the base.</param>
    /// <param name="widest">widest access.</param>
    protected void AddPortBar(int index, uint size, IPortHandler handler, int widest = 4) =>
        AddBar(new PciPortBar(Services, index, size, handler, widest), 1, size, false);

    /// <summary>A base address register for memory-mapped registers.</summary>
    /// <param name="index">0..5.</param>
    /// <param name="size">bytes, a power of two from 16.</param>
    /// <param name="handler">who answers.</param>
    /// <param name="is64">takes two registers.</param>
    /// <param name="prefetchable">no side effects of reads.</param>
    protected void AddMmioBar(int index, ulong size, IMmioHandler handler, bool is64 = false, bool prefetchable = false) =>
        AddBar(new PciMmioBar(Services, index, size, handler, is64), (is64 ? 4u : 0) | (prefetchable ? 8u : 0), size, is64);

    /// <summary>A base address register for memory of the device, such as a frame buffer.</summary>
    /// <param name="index">0..5.</param>
    /// <param name="size">bytes, a power of two from 4096.</param>
    /// <param name="range">made by <see cref="AddressSpace.Add(int, bool)"/> with its host address set; it is moved here.</param>
    /// <param name="prefetchable">as a rule true.</param>
    protected void AddMemoryBar(int index, ulong size, MappedRange range, bool prefetchable = true) =>
        AddBar(new PciMemoryBar(index, size, range), prefetchable ? 8u : 0, size, false);

    /// <summary>An expansion ROM.</summary>
    /// <param name="size">bytes, a power of two from 4096.</param>
    /// <param name="range">as for <see cref="AddMemoryBar"/>, of the ROM kind.</param>
    protected void AddRom(uint size, MappedRange range)
    {
        Bars[6] = new PciMemoryBar(6, size, range);
        BinaryPrimitives.WriteUInt32LittleEndian(_writable.AsSpan(0x30), ~(size - 1) & 0xFFFFF800 | 1);
    }

    private void AddBar(PciBar bar, uint flags, ulong size, bool is64)
    {
        Bars[bar.Index] = bar;
        int at = 0x10 + 4 * bar.Index;
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(at), flags);
        ulong mask = ~(size - 1);
        BinaryPrimitives.WriteUInt32LittleEndian(_writable.AsSpan(at), (uint)mask & ((flags & 1) != 0 ? ~3u : ~15u));
        if (is64)
            BinaryPrimitives.WriteUInt32LittleEndian(_writable.AsSpan(at + 4), (uint)(mask >> 32));
    }

    /// <summary>Adds a capability to the list and returns its offset in configuration space; the two header bytes are set.</summary>
    protected int AddCapability(byte id, int size)
    {
        int at = _nextCapability;
        if (at + size > 256)
            throw new InvalidOperationException("no room for a PCI capability");
        _nextCapability = (byte)((at + size + 3) & ~3);
        _config[at] = id;
        _config[at + 1] = _config[0x34];
        _config[0x34] = (byte)at;
        _config[6] |= 0x10;
        return at;
    }

    /// <summary>Adds MSI-X: the table at offset 0 of <paramref name="bar"/> (a memory BAR of its own, 4096 bytes) and the pending bits
    /// at 2048. At most 128 vectors.</summary>
    protected PciMsix AddMsix(int bar, int vectors)
    {
        int at = AddCapability(0x11, 12);
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(at + 2), (ushort)(vectors - 1));
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(at + 4), (uint)bar);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(at + 8), 2048u | (uint)bar);
        _writable[at + 3] = 0xC0;
        Msix = new PciMsix(this, Services, at, vectors);
        AddMmioBar(bar, 4096, Msix);
        return Msix;
    }

    /// <summary>Drives the interrupt pin (honouring the interrupt-disable bit).</summary>
    protected internal void SetInterrupt(bool asserted)
    {
        _interrupt = asserted;
        UpdateInterrupt();
    }

    private void UpdateInterrupt()
    {
        _config[6] = (byte)(_config[6] & ~8 | (_interrupt ? 8 : 0));
        if (_config[0x3D] != 0)
            Bus?.SetInterrupt(this, _config[0x3D] - 1, _interrupt && (Command & 0x400) == 0);
    }

    /// <summary>Configuration read of 1, 2 or 4 bytes, aligned.</summary>
    public virtual uint ConfigRead(int offset, int size) => size switch
    {
        1 => _config[offset],
        2 => BinaryPrimitives.ReadUInt16LittleEndian(_config.AsSpan(offset)),
        _ => BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(offset)),
    };

    /// <summary>Configuration write of 1, 2 or 4 bytes, aligned. Overriders call the base first and look at <see cref="Config"/> afterwards.</summary>
    public virtual void ConfigWrite(int offset, uint value, int size)
    {
        for (int i = 0; i < size; i++, value >>= 8)
        {
            int at = offset + i;
            byte v = (byte)value;
            _config[at] = (byte)(_config[at] & ~_writable[at] | v & _writable[at]);
            _config[at] &= (byte)~(v & _writeOneClears[at]);
        }
        if (offset < 6 || (offset >= 0x10 && offset < 0x34))
            UpdateMappings();
        if (offset < 6 && offset + size > 4)
            UpdateInterrupt();
        Msix?.ConfigWritten(offset, size);
    }

    /// <summary>Puts every BAR where its register says.</summary>
    internal void UpdateMappings()
    {
        bool moved = false;
        foreach (var bar in Bars)
            if (bar != null)
                moved |= bar.Place(AddressOf(bar));
        if (moved)
            Services.Space.Update();
    }

    /// <summary>Address of a base address register as programmed; 0 while the function does not decode it.</summary>
    public ulong BarAddress(int index) => Bars[index] is { } bar && AddressOf(bar) is var a && a != ulong.MaxValue ? a : 0;

    /// <summary>What the base address registers place, and the expansion ROM.</summary>
    public IEnumerable<PciRegion> Regions
    {
        get
        {
            foreach (var bar in Bars)
                if (bar != null)
                    yield return new PciRegion(bar.Index, bar.Size, AddressOf(bar) is var at && at == ulong.MaxValue ? null : at, bar.IsPort, bar.Is64,
                        bar.Index < 6 && (_config[0x10 + 4 * bar.Index] & 8) != 0);
        }
    }

    private ulong AddressOf(PciBar bar)
    {
        int at = bar.Index == 6 ? 0x30 : 0x10 + 4 * bar.Index;
        uint low = BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(at));
        bool enabled = bar.IsPort ? (Command & 1) != 0 : (Command & 2) != 0 && (bar.Index != 6 || (low & 1) != 0);
        ulong address = bar.IsPort ? low & ~3u : bar.Index == 6 ? low & ~0x7FFu : low & ~15u;
        if (bar.Is64)
            address |= (ulong)BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(at + 4)) << 32;
        // A register that was sized (all ones), or never set, decodes nothing.
        ulong last = address + bar.Size - 1;
        bool sane = address != 0 && last > address
            && (bar.IsPort ? last <= 0xFFFF : bar.Is64 ? last < 1UL << 46 : last < 0xFFFF_FFFF);
        return enabled && sane ? address : ulong.MaxValue;
    }

    /// <summary>Called by the bus when the function is plugged: what configuration space holds now is what a reset restores.</summary>
    internal void Plugged() => _initial = [.. _config];

    /// <inheritdoc/>
    public override void Reset()
    {
        _interrupt = false;
        _initial.CopyTo(_config, 0);
        UpdateMappings();
        UpdateInterrupt();
        Msix?.Reset();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Bytes("config", _config);
        state.Field("intx", ref _interrupt);
        if (Msix != null)
            state.Part("msix", Msix);
        if (state.IsLoading)
        {
            UpdateMappings();
            UpdateInterrupt();
        }
    }
}
