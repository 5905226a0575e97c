namespace ImgKit.Machine.Pci;

/// <summary>What a base address register places.</summary>
internal abstract class PciBar(int index, ulong size, bool isPort, bool is64)
{
    private ulong _at = ulong.MaxValue;

    internal int Index => index;

    internal ulong Size => size;

    internal bool IsPort => isPort;

    internal bool Is64 => is64;

    /// <summary>Moves it (ulong.MaxValue: nowhere). True when the flat map must be made again.</summary>
    internal bool Place(ulong address)
    {
        if (address == _at)
            return false;
        if (_at != ulong.MaxValue)
            Unmap(_at);
        _at = address;
        if (address != ulong.MaxValue)
            Map(address);
        return this is PciMemoryBar;
    }

    protected abstract void Map(ulong address);

    protected abstract void Unmap(ulong address);
}

internal sealed class PciPortBar(MachineServices services, int index, uint size, IPortHandler handler, int widest)
    : PciBar(index, size, true, false), IPortHandler
{
    private ushort _base;

    protected override void Map(ulong address)
    {
        _base = (ushort)address;
        services.Ports.Register(_base, (int)Size, this, widest);
    }

    protected override void Unmap(ulong address) => services.Ports.Unregister((ushort)address, this);

    public uint PortRead(ushort port, int size) => handler.PortRead((ushort)(port - _base), size);

    public void PortWrite(ushort port, uint value, int size) => handler.PortWrite((ushort)(port - _base), value, size);
}

internal sealed class PciMmioBar(MachineServices services, int index, ulong size, IMmioHandler handler, bool is64)
    : PciBar(index, size, false, is64)
{
    protected override void Map(ulong address) => services.Mmio.Register(address, Size, handler);

    protected override void Unmap(ulong address) => services.Mmio.Unregister(address, handler);
}

internal sealed class PciMemoryBar(int index, ulong size, MappedRange range)
    : PciBar(index, size, false, false)
{
    protected override void Map(ulong address)
    {
        range.Start = address;
        range.Length = Size;
    }

    protected override void Unmap(ulong address) => range.Length = 0;
}
