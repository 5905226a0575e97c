namespace ImgKit.Machine.Devices.Misc;

/// <summary>The PC's test device, for programs that test a processor: ports and memory that keep what is written, and ports that drive the ISA
/// interrupt lines. Facts: QEMU's pc-testdev; its users are kvm-unit-tests.</summary>
/// <remarks>Ports 0xE0..0xE3 (and 0xE8..0xEB, a byte at a time) are one register of 32 bits; 0xE4 takes the address of a page that the host
/// is to touch, which nothing here needs; a byte to 0x2000 + n drives interrupt line n; 64 KiB at 0xFF000000 are memory that is reached as a device.</remarks>
public sealed class TestDevice : Device, IPortHandler, IMmioHandler
{
    private const ushort Register = 0xE0, FlushPage = 0xE4, ByteRegister = 0xE8, Interrupts = 0x2000;
    private const int Lines = 24, IsaLines = 16, MemorySize = 0x10000;
    private const ulong MemoryStart = 0xFF000000;

    private readonly MachineServices _services;
    private readonly byte[] _register = new byte[4];
    private readonly byte[] _memory = new byte[MemorySize];

    /// <summary>Makes one: its places are fixed.</summary>
    public TestDevice(MachineServices services)
    {
        _services = services;
        services.Ports.Register(Register, 4, this, 4);
        services.Ports.Register(FlushPage, 4, this, 4);
        services.Ports.Register(ByteRegister, 4, this);
        services.Ports.Register(Interrupts, Lines, this);
        services.Mmio.Register(MemoryStart, MemorySize, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "pc-testdev";

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port is >= FlushPage and < ByteRegister or >= Interrupts)
            return 0;
        uint value = 0;
        for (int i = 0; i < size; i++)
            value |= (uint)_register[(port + i) & 3] << (8 * i);
        return value;
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port >= Interrupts)
        {
            if (port - Interrupts < IsaLines)
                _services.IsaLine(port - Interrupts).Set((byte)value != 0);
        }
        else if (port is < FlushPage or >= ByteRegister)
        {
            for (int i = 0; i < size; i++)
                _register[(port + i) & 3] = (byte)(value >> (8 * i));
        }
    }

    /// <inheritdoc/>
    public ulong MmioRead(ulong offset, int size)
    {
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= (ulong)_memory[((int)offset + i) % MemorySize] << (8 * i);
        return value;
    }

    /// <inheritdoc/>
    public void MmioWrite(ulong offset, ulong value, int size)
    {
        for (int i = 0; i < size; i++)
            _memory[((int)offset + i) % MemorySize] = (byte)(value >> (8 * i));
    }

    /// <inheritdoc/>
    public override void Reset()
    {
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Bytes("register", _register);
        state.Bytes("memory", _memory);
    }
}
