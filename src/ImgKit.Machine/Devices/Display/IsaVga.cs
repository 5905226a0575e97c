using ImgKit.Cpu;
using ImgKit.Host;
using ImgKit.Machine.Monitors;

namespace ImgKit.Machine.Devices.Display;

/// <summary>The VGA of a machine without PCI: frame buffer of the DISPI modes at 0xE0000000.</summary>
public sealed unsafe class IsaVga : Device, IScreenSource, IPhysicalWindow
{
    private const uint Size = 8 << 20;
    private readonly MemoryMapping _vram;
    private readonly MemoryMapping _dirty;
    private readonly VgaCore _core;

    /// <summary>Makes one.</summary>
    public IsaVga(MachineServices services)
    {
        _vram = MemoryMapping.Anonymous(Size);
        _dirty = MemoryMapping.Anonymous(4096);
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
    }

    /// <summary>The type in the catalogue.</summary>
    public static DeviceType Type { get; } = new("isa-vga", DeviceBus.Isa, "Display", "standard VGA on the ISA bus",
    [
        new("romfile", "str", "video BIOS (default: vgabios-isavga.bin of SeaBIOS)"),
    ], plug =>
    {
        // Without a PCI slot of its own, its BIOS comes from the firmware's configuration, and is put into the memory at C0000h by the firmware.
        plug.Machine.Options.FirmwareFiles["vgaroms/vgabios-isavga.bin"] = VideoBios.Load(plug.Options.Text("romfile"), "vgabios-isavga.bin");
        return new IsaVga(plug.Services);
    });
}
