using ImgKit.Cpu;
using ImgKit.Host;
using ImgKit.Machine.Monitors;

namespace ImgKit.Machine.Devices.Display;

/// <summary>The VGA of a machine without PCI: video BIOS at 0xC0000, frame buffer of the DISPI modes at 0xE0000000.</summary>
public sealed unsafe class IsaVga : Device, IScreenSource, IPhysicalWindow
{
    private const uint Size = 8 << 20;
    private readonly MemoryMapping _vram;
    private readonly MemoryMapping _dirty;
    private readonly MemoryMapping _rom;
    private readonly VgaCore _core;

    /// <summary>Makes one.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="bios">the video BIOS (vgabios-isavga.bin), at most 64 KiB.</param>
    public IsaVga(MachineServices services, ReadOnlySpan<byte> bios)
    {
        if (bios.Length > 64 << 10)
            throw new MachineException("the video BIOS is larger than 64 KiB");
        _vram = MemoryMapping.Anonymous(Size);
        _dirty = MemoryMapping.Anonymous(4096);
        uint romSize = (uint)Math.Max(4096, bios.Length + 4095 & ~4095);
        _rom = MemoryMapping.Anonymous(romSize);
        bios.CopyTo(new Span<byte>((void*)_rom.Address, bios.Length));
        services.Space.Add(AddressSpace.ChipsetPriority, 0xC0000, romSize, _rom.Address, MemoryKind.Rom);
        var frameBuffer = services.Space.Add(AddressSpace.PciPriority, 0xE0000000, Size, _vram.Address, MemoryKind.Ram);
        frameBuffer.DirtyLog = _dirty.Address;
        services.Space.Update();
        _core = new VgaCore(services, (byte*)_vram.Address, Size, (byte*)_dirty.Address);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-vga";

    /// <inheritdoc/>
    public ScreenArea Update(ScreenImage image) => _core.Update(image);

    /// <inheritdoc/>
    public string[]? TextLines() => _core.TextLines();

    /// <inheritdoc/>
    public byte? Peek(ulong address) => _core.Peek(address);

    /// <inheritdoc/>
    public override void Reset() => _core.Reset();

    /// <inheritdoc/>
    public override void Describe(StateVisitor state) => state.Part("vga", _core);

    /// <inheritdoc/>
    public override void Close()
    {
        _vram.Dispose();
        _dirty.Dispose();
        _rom.Dispose();
    }

    /// <summary>The type in the catalogue.</summary>
    public static DeviceType Type { get; } = new("isa-vga", DeviceBus.Isa, "Display", "standard VGA on the ISA bus",
    [
        new("romfile", "str", "video BIOS (default: vgabios-isavga.bin of SeaBIOS)"),
    ], plug => new IsaVga(plug.Services, VideoBios.Load(plug.Options.Text("romfile"), "vgabios-isavga.bin")));
}
