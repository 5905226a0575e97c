using ImgKit.Cpu;
using ImgKit.Host;
using ImgKit.Machine.Monitors;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Devices.Display;

/// <summary>
/// The standard VGA on the PCI bus: frame buffer in BAR 0, registers in BAR 2, video BIOS as expansion ROM.
/// Layout: QEMU's docs/specs/standard-vga.
/// </summary>
public sealed unsafe class StdVga : PciDevice, IScreenSource, IPhysicalWindow, IMmioHandler
{
    private readonly MemoryMapping _vram;
    private readonly MemoryMapping _dirty;
    private readonly MemoryMapping? _rom;
    private readonly VgaCore _core;

    /// <summary>Makes one.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="bios">the video BIOS (vgabios-stdvga.bin), or empty.</param>
    /// <param name="megabytes">display memory: a power of two from 1 to 256.</param>
    public StdVga(MachineServices services, ReadOnlySpan<byte> bios, int megabytes = 16)
        : base(services, 0x1234, 0x1111, 0x030000, 2)
    {
        if (megabytes is < 1 or > 256 || (megabytes & (megabytes - 1)) != 0)
            throw new MachineException("vgamem_mb must be a power of 2 between 1 and 256");
        if (bios.Length > 256 << 10)
            throw new MachineException("the video BIOS is larger than 256 KiB");
        uint size = (uint)megabytes << 20;
        _vram = MemoryMapping.Anonymous(size);
        _dirty = MemoryMapping.Anonymous(Math.Max(4096, size >> 12));
        SetSubsystem(0x1AF4, 0x1100);
        var frameBuffer = services.Space.Add(AddressSpace.PciPriority);
        frameBuffer.Host = _vram.Address;
        frameBuffer.DirtyLog = _dirty.Address;
        AddMemoryBar(0, size, frameBuffer);
        AddMmioBar(2, 4096, this);
        if (bios.Length > 0)
        {
            uint romSize = Math.Max(4096, System.Numerics.BitOperations.RoundUpToPowerOf2((uint)bios.Length));
            _rom = MemoryMapping.Anonymous(romSize);
            bios.CopyTo(new Span<byte>((void*)_rom.Address, bios.Length));
            var rom = services.Space.Add(AddressSpace.PciPriority);
            rom.Host = _rom.Address;
            rom.Kind = MemoryKind.Rom;
            AddRom(romSize, rom);
        }
        _core = new VgaCore(services, (byte*)_vram.Address, size, (byte*)_dirty.Address);
    }

    /// <inheritdoc/>
    public override string TypeName => "VGA";

    /// <inheritdoc/>
    public ScreenArea Update(ScreenImage image) => _core.Update(image);

    /// <inheritdoc/>
    public string[]? TextLines() => _core.TextLines();

    /// <inheritdoc/>
    public byte? Peek(ulong address) => _core.Peek(address);

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        _core.Reset();
    }

    /// <summary>Registers in BAR 2: VGA ports 0x3C0..0x3DF from 0x400, DISPI registers from 0x500, byte order at 0x604.</summary>
    public ulong MmioRead(ulong offset, int size) => offset switch
    {
        >= 0x400 and < 0x420 when size == 1 => _core.PortRead((ushort)(offset - 0x400 + 0x3C0), 1),
        >= 0x400 and < 0x41F when size == 2 => _core.PortRead((ushort)(offset - 0x400 + 0x3C0), 1)
            | _core.PortRead((ushort)(offset - 0x3FF + 0x3C0), 1) << 8,
        >= 0x500 and < 0x516 => _core.ReadDispi((int)(offset - 0x500) / 2),
        0x600 => 8,             // bytes of this structure
        0x604 => 0x1E1E1E1E,    // little-endian
        >= 0x000 and < 0x400 => 0,  // no EDID
        _ => size == 8 ? ulong.MaxValue : (1ul << 8 * size) - 1,
    };

    /// <inheritdoc/>
    public void MmioWrite(ulong offset, ulong value, int size)
    {
        switch (offset)
        {
            case >= 0x400 and < 0x420:
                _core.PortWrite((ushort)(offset - 0x400 + 0x3C0), (byte)value, 1);
                if (size >= 2)
                    _core.PortWrite((ushort)(offset - 0x3FF + 0x3C0), (byte)(value >> 8), 1);
                break;
            case >= 0x500 and < 0x516:
                _core.WriteDispi((int)(offset - 0x500) / 2, (ushort)value);
                break;
        }
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Part("vga", _core);
    }

    /// <inheritdoc/>
    public override void Close()
    {
        _vram.Dispose();
        _dirty.Dispose();
        _rom?.Dispose();
    }

    /// <summary>The type in the catalogue.</summary>
    public static DeviceType Type { get; } = new("VGA", DeviceBus.Pci, "Display", "standard VGA with VESA modes",
    [
        new("vgamem_mb", "uint32", "display memory in MiB (default: 16)"),
        new("romfile", "str", "video BIOS (default: vgabios-stdvga.bin of SeaBIOS)"),
    ], plug =>
    {
        byte[] bios = VideoBios.Load(plug.Options.Text("romfile"), "vgabios-stdvga.bin");
        var device = new StdVga(plug.Services, bios, (int)Math.Min(plug.Options.Number("vgamem_mb", 16), 1024));
        plug.PlugPci(device);
        return device;
    });
}

/// <summary>Finds the video BIOS that SeaBIOS comes with.</summary>
public static class VideoBios
{
    private static readonly string[] s_folders = ["/usr/share/seabios", "/usr/share/qemu", "/usr/share/vgabios", "/usr/lib/qemu", "/usr/share/seavgabios"];

    /// <summary>Reads a named file, or looks for <paramref name="standard"/> in the usual folders (<paramref name="extraFolder"/> first).
    /// An empty name means none. Throws <see cref="MachineException"/> with one line.</summary>
    public static byte[] Load(string? file, string standard, string? extraFolder = null)
    {
        if (file is { Length: 0 })
            return [];
        try
        {
            if (file != null)
                return File.ReadAllBytes(file);
            foreach (string folder in extraFolder == null ? s_folders : [extraFolder, .. s_folders])
                if (File.Exists(Path.Combine(folder, standard)))
                    return File.ReadAllBytes(Path.Combine(folder, standard));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MachineException($"failed to find romfile \"{file ?? standard}\": {HostException.TextOf(e)}", e);
        }
        throw new MachineException($"failed to find romfile \"{standard}\" (install the package seabios)");
    }
}
