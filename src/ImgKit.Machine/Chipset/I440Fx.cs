using ImgKit.Cpu;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Chipset;

/// <summary>
/// The i440FX host bridge: PCI configuration ports, the memory attributes of 0xC0000..0xFFFFF (PAM) and SMRAM.
/// Source: Intel 82441FX data sheet, sections 3.2.18 (PAM) and 3.2.22 (SMRAM).
/// </summary>
public sealed class I440Fx : PciDevice, IPortHandler, IMmioHandler
{
    private const int Pam0 = 0x59, Smram = 0x72;

    private readonly PciBus _bus;
    private readonly PamArea[] _areas = new PamArea[13];
    private readonly MappedRange _smram, _smramInSmm;
    private uint _address;

    private sealed record PamArea(MappedRange Range, uint Start, uint Length, nint Rom);

    /// <summary>Makes the bridge at device 0.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="bus">its bus.</param>
    /// <param name="romBelow1M">host address of what is at 0xE0000..0xFFFFF while RAM is not shown there (128 KiB); 0: nothing.</param>
    public I440Fx(MachineServices services, PciBus bus, nint romBelow1M) : base(services, 0x8086, 0x1237, 0x060000, 2)
    {
        SetSubsystem(0x1AF4, 0x1100);
        _bus = bus;
        Writable.Slice(Pam0, 7).Fill(0x33);
        Writable[Pam0] = 0x30;
        Writable[Smram] = 0x5F;
        Config[Smram] = 2;
        for (int i = 0; i < 13; i++)
        {
            uint start = i == 12 ? 0xF0000 : 0xC0000 + (uint)i * 0x4000, length = i == 12 ? 0x10000u : 0x4000;
            nint rom = romBelow1M != 0 && start >= 0xE0000 ? romBelow1M + (nint)(start - 0xE0000) : 0;
            var range = services.Space.Add(AddressSpace.ChipsetPriority, start, length, rom, MemoryKind.Rom);
            _areas[i] = new PamArea(range, start, length, rom);
        }
        services.Mmio.Register(0xC0000, 0x40000, this);
        _smram = services.Space.Add(AddressSpace.SmramPriority);
        _smramInSmm = services.Space.Add(AddressSpace.SmramPriority, true);
        foreach (var range in (MappedRange[])[_smram, _smramInSmm])
        {
            range.Start = 0xA0000;
            range.Host = services.Memory.Base + 0xA0000;
            range.Kind = MemoryKind.Ram;
        }
        services.Ports.Register(0xCF8, 4, this, 4);
        services.Ports.Register(0xCFC, 4, this, 4);
        bus.Add(this, 0);
        ApplyPam();
    }

    /// <inheritdoc/>
    public override string TypeName => "i440FX";

    // Area 12 (0xF0000) is governed by PAM0's high half; areas 0..11 by PAM1..PAM6, two each, low half first.
    private int Attribute(int area) => area == 12 ? Config[Pam0] >> 4 & 3 : Config[Pam0 + 1 + area / 2] >> (4 * (area & 1)) & 3;

    private unsafe void ApplyPam()
    {
        for (int i = 0; i < 13; i++)
        {
            var (range, start, _, rom) = _areas[i];
            int attribute = Attribute(i);
            range.Host = (attribute & 1) != 0 ? (nint)Services.Memory.RamPointer(start) : rom;
            range.Kind = attribute == 3 ? MemoryKind.Ram : MemoryKind.Rom;
        }
        byte smram = Config[Smram];
        bool enabled = (smram & 8) != 0, open = (smram & 0x40) != 0, inSmm = (smram & 0x20) == 0;
        _smram.Length = enabled && open ? 0x20000u : 0;
        _smramInSmm.Length = enabled && (open || inSmm) ? 0x20000u : 0;
        Services.Space.Update();
    }

    /// <summary>Shows RAM in all of 0xC0000..0xFFFFF, as firmware does when it is done.</summary>
    public void ShadowAll()
    {
        Config[Pam0] = 0x30;
        Config.Slice(Pam0 + 1, 6).Fill(0x33);
        ApplyPam();
    }

    /// <inheritdoc/>
    public override void ConfigWrite(int offset, uint value, int size)
    {
        byte lockedSmram = Config[Smram];
        base.ConfigWrite(offset, value, size);
        // D_LCK makes the register read-only and closes it until reset.
        if ((lockedSmram & 0x10) != 0)
            Config[Smram] = lockedSmram;
        else if ((Config[Smram] & 0x10) != 0)
            Config[Smram] &= 0xBF;
        Config[Smram] = (byte)(Config[Smram] & 0x78 | 2);
        if (offset + size > Pam0 && offset < Pam0 + 7 || (offset <= Smram && offset + size > Smram))
            ApplyPam();
    }

    // What comes here is not directly readable or writable memory: a write that PAM sends to RAM while reads see ROM, or nothing.
    /// <inheritdoc/>
    public ulong MmioRead(ulong offset, int size) => size == 8 ? ulong.MaxValue : (1UL << (8 * size)) - 1;

    /// <inheritdoc/>
    public unsafe void MmioWrite(ulong offset, ulong value, int size)
    {
        int area = offset >= 0x30000 ? 12 : (int)(offset / 0x4000);
        if (Attribute(area) != 2)
            return;
        byte* at = Services.Memory.RamPointer(0xC0000 + offset);
        for (int i = 0; i < size; i++)
            at[i] = (byte)(value >> (8 * i));
        Services.Memory.Map.NotifyDeviceWrite(0xC0000 + offset, (ulong)size);
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port < 0xCFC)
            return port == 0xCF8 && size == 4 ? _address : uint.MaxValue;
        if ((_address & 0x8000_0000) == 0 || (_address >> 16 & 0xFF) != 0)
            return uint.MaxValue;
        return _bus.ConfigRead((int)(_address >> 8 & 0xFF), (int)(_address & 0xFC) + (port & 3), size);
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (port < 0xCFC)
        {
            if (port == 0xCF8 && size == 4)
                _address = value & 0x80FF_FFFC;
            else if (port == 0xCF9 && size == 1)
                ResetControl?.Invoke((byte)value);
            return;
        }
        if ((_address & 0x8000_0000) != 0 && (_address >> 16 & 0xFF) == 0)
            _bus.ConfigWrite((int)(_address >> 8 & 0xFF), (int)(_address & 0xFC) + (port & 3), value, size);
    }

    /// <summary>A write to port 0xCF9, which lies amid the address register's.</summary>
    public Action<byte>? ResetControl { get; set; }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        _address = 0;
        ApplyPam();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("address", ref _address);
        if (state.IsLoading)
            ApplyPam();
    }
}
