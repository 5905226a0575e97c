using System.Text;
using ImgKit.Cpu;
using ImgKit.Machine.CharDevices;
using ImgKit.Machine.Chipset;
using ImgKit.Machine.Devices.Input;
using ImgKit.Machine.Devices.Misc;
using ImgKit.Machine.Devices.Serial;
using ImgKit.Machine.Firmware;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Tests;

public sealed class BusTests : IDisposable
{
    private readonly TestBoard _board = new();

    public void Dispose() => _board.Dispose();

    private sealed class Recorder : IPortHandler, IMmioHandler
    {
        internal List<string> Log { get; } = [];

        public uint PortRead(ushort port, int size)
        {
            Log.Add($"in {port:x} {size}");
            return port & 0xFFu;
        }

        public void PortWrite(ushort port, uint value, int size) => Log.Add($"out {port:x} {value:x} {size}");

        public ulong MmioRead(ulong offset, int size)
        {
            Log.Add($"read {offset:x} {size}");
            return offset;
        }

        public void MmioWrite(ulong offset, ulong value, int size) => Log.Add($"write {offset:x} {value:x} {size}");
    }

    [Fact]
    public void Wide_port_accesses_are_split_for_narrow_devices_and_float_high_where_nobody_is()
    {
        var narrow = new Recorder();
        _board.Services.Ports.Register(0x300, 2, narrow);
        Assert.Equal(0xFFFF0100u, _board.In(0x300, 4));
        _board.Out(0x300, 0x1234, 2);
        Assert.Equal(["in 300 1", "in 301 1", "out 300 34 1", "out 301 12 1"], narrow.Log);
        var over = new Recorder();
        _board.Services.Ports.Register(0x301, 1, over);
        _board.In(0x301);
        _board.Services.Ports.Unregister(0x301, over);
        _board.In(0x301);
        Assert.Single(over.Log);
        Assert.Equal(5, narrow.Log.Count);
    }

    [Fact]
    public void The_test_device_keeps_what_it_is_given_and_drives_lines()
    {
        var device = new TestDevice(_board.Services);
        _board.Out(0xE0, 0x12345678, 4);
        _board.Out(0xE1, 0xAB);
        _board.Out(0xE4, 0xFFFFFFFF, 4);
        Assert.Equal((0x1234AB78u, 0x34ABu, 0x1234AB78u), (_board.In(0xE0, 4), _board.In(0xE1, 2), _board.In(0xE8, 4)));
        _board.Out(0x200E, 1);
        Assert.True(_board.Lines.Level[14]);
        _board.Out(0x200E, 0);
        _board.Out(0x2010, 1);
        Assert.DoesNotContain(true, _board.Lines.Level);
        device.MmioWrite(0x1234, 0x1122334455667788, 8);
        Assert.Equal((0x55UL, 0x1122UL), (device.MmioRead(0x1237, 1), device.MmioRead(0x123A, 2)));
    }

    [Fact]
    public void Odd_memory_accesses_come_in_aligned_pieces()
    {
        var device = new Recorder();
        _board.Services.Mmio.Register(0xF0000000, 0x100, device);
        _board.Services.Mmio.Write(0xF0000003, 0x11223344, 4);
        Assert.Equal(["write 3 44 1", "write 4 2233 2", "write 6 11 1"], device.Log);
        Assert.Equal(0xFFFFUL, _board.Services.Mmio.Read(0xE0000000, 2));
    }

    [Fact]
    public void Ranges_cover_each_other_by_priority_and_flatten()
    {
        var map = new PhysicalMemoryMap();
        var space = new AddressSpace(map);
        space.Add(0, 0, 0x100000, 0x10000000, MemoryKind.Ram);
        var hole = space.Add(1, 0xA0000, 0x20000, 0, MemoryKind.Ram);
        var rom = space.Add(2, 0xF0000, 0x10000, 0x20000000, MemoryKind.Rom);
        space.Update();
        Assert.Equal([(0UL, 0xA0000UL, MemoryKind.Ram), (0xC0000UL, 0x30000UL, MemoryKind.Ram), (0xF0000UL, 0x10000UL, MemoryKind.Rom)],
            map.Regions.Select(r => (r.Start, r.Length, r.Kind)));
        hole.Length = 0;
        rom.Length = 0;
        space.Update();
        Assert.Single(map.Regions);
    }

    [Fact]
    public void Pam_shows_rom_ram_or_writes_through()
    {
        var memory = _board.Services.Memory;
        using var rom = Host.MemoryMapping.Anonymous(0x20000);
        unsafe
        {
            new Span<byte>((void*)rom.Address, 0x20000).Fill(0x5A);
        }
        var bus = new PciBus(new LineRecorder());
        var host = new I440Fx(_board.Services, bus, rom.Address);
        Assert.Equal(MemoryKind.Rom, Region(0xF0000).Kind);
        Assert.Equal(rom.Address + 0x10000, Region(0xF0000).HostAddress + (nint)(0xF0000 - Region(0xF0000).Start));
        host.ConfigWrite(0x59, 0x20, 1);
        _board.Services.Mmio.Write(0xF1234, 0xA5, 1);
        Assert.Equal(0xA5, memory.Ram(0xF1234, 1)[0]);
        Assert.Equal(MemoryKind.Rom, Region(0xF0000).Kind);
        host.ConfigWrite(0x59, 0x30, 1);
        Assert.Equal(MemoryKind.Ram, Region(0xF1234).Kind);
        host.ConfigWrite(0x59, 0x10, 1);
        Assert.Equal(MemoryKind.Rom, Region(0xF1234).Kind);
        Assert.Equal(0xA5, ReadByte(0xF1234));
        _board.Services.Mmio.Write(0xF1234, 0x11, 1);
        Assert.Equal(0xA5, ReadByte(0xF1234));
        host.Reset();
        Assert.Equal(0x5A, ReadByte(0xF1234));
    }

    private MemoryRegion Region(ulong address)
    {
        Assert.True(_board.Services.Space.Map.TryFind(address, out var region));
        return region;
    }

    private byte ReadByte(ulong address)
    {
        Span<byte> b = stackalloc byte[1];
        _board.Services.Memory.Read(address, b);
        return b[0];
    }

    [Fact]
    public void Smram_opens_and_locks()
    {
        _board.Services.Space.Add(AddressSpace.PciPriority, 0xA0000, 0x20000, 0, MemoryKind.Ram);
        var host = new I440Fx(_board.Services, new PciBus(new LineRecorder()), 0);
        Assert.False(_board.Services.Space.Map.TryFind(0xA0000, out _));
        host.ConfigWrite(0x72, 0x48, 1);
        Assert.True(_board.Services.Space.Map.TryFind(0xA0000, out _));
        host.ConfigWrite(0x72, 0x58, 1);
        Assert.False(_board.Services.Space.Map.TryFind(0xA0000, out _));
        host.ConfigWrite(0x72, 0x48, 1);
        Assert.Equal(0x1Au, host.ConfigRead(0x72, 1));
    }

    private sealed class TestFunction : PciDevice
    {
        internal TestFunction(MachineServices services, Recorder recorder) : base(services, 0x1234, 0x5678, 0xFF0000)
        {
            SetInterruptPin(1);
            AddPortBar(0, 0x20, recorder);
            AddMmioBar(1, 0x1000, recorder);
            AddMsix(4, 2);
        }

        public override string TypeName => "test";

        internal void Raise(bool on) => SetInterrupt(on);
    }

    [Fact]
    public void A_pci_function_is_sized_placed_and_interrupts_on_its_wire()
    {
        var wires = new LineRecorder();
        var bus = new PciBus(wires);
        _ = new I440Fx(_board.Services, bus, 0);
        var recorder = new Recorder();
        var function = new TestFunction(_board.Services, recorder);
        bus.Add(function, 3);
        void Write(int offset, uint value)
        {
            _board.Out(0xCF8, 0x80001800u | (uint)offset, 4);
            _board.Out(0xCFC, value, 4);
        }
        uint Read(int offset)
        {
            _board.Out(0xCF8, 0x80001800u | (uint)offset, 4);
            return _board.In(0xCFC, 4);
        }
        Assert.Equal(0x56781234u, Read(0));
        Write(0x10, uint.MaxValue);
        Assert.Equal(0xFFFFFFE1u, Read(0x10));
        Write(0x14, uint.MaxValue);
        Assert.Equal(0xFFFFF000u, Read(0x14));
        Write(0x10, 0xC100);
        Write(0x14, 0xFEB00000);
        Assert.Equal(0xFFu, _board.In(0xC104));
        Write(4, 3);
        Assert.Equal(4u, _board.In(0xC104));
        Assert.Equal(0x10UL, _board.Services.Mmio.Read(0xFEB00010, 4));
        Write(0x10, 0xC200);
        Assert.Equal(0xFFu, _board.In(0xC104));
        Assert.Equal(4u, _board.In(0xC204));
        function.Raise(true);
        Assert.True(wires.Level[2]);
        Assert.Equal(8u, Read(4) >> 16 & 8);
        Write(4, 0x403);
        Assert.False(wires.Level[2]);
        Write(4, 3);
        Assert.True(wires.Level[2]);
        function.Raise(false);
        Assert.False(wires.Level[2]);
        Assert.Equal(uint.MaxValue, bus.ConfigRead(4 << 3, 0, 4));
    }

    private sealed class Messages : IMessageInterruptSink
    {
        internal List<(ulong, uint)> Sent { get; } = [];

        public void SendMessage(ulong address, uint data) => Sent.Add((address, data));
    }

    [Fact]
    public void Msix_sends_masks_and_remembers()
    {
        var messages = new Messages();
        _board.Services.Messages = messages;
        var function = new TestFunction(_board.Services, new Recorder());
        new PciBus(new LineRecorder()).Add(function, 0);
        var msix = function.Msix!;
        msix.MmioWrite(16, 0xFEE01000, 4);
        msix.MmioWrite(24, 0x41, 4);
        msix.Notify(1);
        Assert.Empty(messages.Sent);
        function.ConfigWrite(0x42, 0x8000, 2);
        msix.Notify(1);
        Assert.Equal(2UL, msix.MmioRead(2048, 8));
        msix.MmioWrite(28, 0, 4);
        Assert.Equal([(0xFEE01000UL, 0x41u)], messages.Sent);
        Assert.Equal(0UL, msix.MmioRead(2048, 8));
        function.ConfigWrite(0x42, 0xC000, 2);
        msix.Notify(1);
        Assert.Single(messages.Sent);
        function.ConfigWrite(0x42, 0x8000, 2);
        Assert.Equal(2, messages.Sent.Count);
    }

    [Fact]
    public void The_isa_bridge_routes_wires_to_lines_and_resets()
    {
        var bridge = new Piix3(_board.Services, _board.Lines);
        bridge.SetLine(1, true);
        Assert.DoesNotContain(true, _board.Lines.Level);
        bridge.ConfigWrite(0x61, 11, 1);
        Assert.True(_board.Lines.Level[11]);
        bridge.ConfigWrite(0x60, 11, 1);
        bridge.SetLine(0, true);
        bridge.SetLine(1, false);
        Assert.True(_board.Lines.Level[11]);
        bridge.ConfigWrite(0x60, 0x80, 1);
        Assert.False(_board.Lines.Level[11]);
        bridge.WriteResetControl(2);
        bridge.WriteResetControl(6);
        Assert.Equal(["reset"], _board.Requests);
    }

    [Fact]
    public void The_power_button_raises_its_event_and_s5_powers_off()
    {
        int sleep = -1;
        var pm = new Piix4Pm(_board.Services, _board.Services.IsaLine(9), () => { }, false) { Sleep = s => sleep = s };
        pm.SetUpWithoutFirmware();
        _board.Out(0x602, 0x100, 2);
        pm.PressPowerButton();
        Assert.True(_board.Lines.Level[9]);
        Assert.Equal(0x100u, _board.In(0x600, 2) & 0x100);
        _board.Out(0x600, 0x100, 2);
        Assert.False(_board.Lines.Level[9]);
        uint before = _board.In(0x608, 4);
        _board.Pass(1_000_000_000);
        Assert.InRange(_board.In(0x608, 4) - before, 3579544u, 3579546u);
        _board.Out(0x604, 0x2001, 2);
        Assert.Equal(0, sleep);
    }

    private sealed class Loopback : CharDevice
    {
        internal List<byte> Sent { get; } = [];

        public override string Description => "test";

        public override void Write(ReadOnlySpan<byte> data) => Sent.AddRange(data);
    }

    [Fact]
    public void The_uart_sends_receives_and_says_why_it_interrupts()
    {
        var back = new Loopback();
        _ = new Uart16550(_board.Services, 0x3F8, 4, back);
        _board.Out(0x3F8, 'A');
        Assert.Equal([(byte)'A'], back.Sent);
        _board.Out(0x3F9, 3);
        Assert.True(_board.Lines.Level[4]);
        Assert.Equal(2u, _board.In(0x3FA));
        Assert.Equal(1u, _board.In(0x3FA));
        Assert.False(_board.Lines.Level[4]);
        back.Receive("xyz"u8);
        Assert.Equal(0x61u, _board.In(0x3FD));
        Assert.Equal(4u, _board.In(0x3FA));
        Assert.Equal("xyz", string.Concat(Enumerable.Range(0, 3).Select(_ => (char)_board.In(0x3F8))));
        Assert.Equal(0x60u, _board.In(0x3FD));
        _board.Out(0x3FB, 0x80);
        _board.Out(0x3F8, 1);
        Assert.Equal(1u, _board.In(0x3F8));
        _board.Out(0x3FB, 3);
        _board.Out(0x3FC, 0x10);
        _board.Out(0x3F8, 0x55);
        Assert.Equal(0x55u, _board.In(0x3F8));
        Assert.Single(back.Sent);
    }

    [Fact]
    public void The_keyboard_controller_tests_translates_and_resets()
    {
        bool open = false;
        var a20 = new A20Gate(_board.Services, on => open = on);
        a20.Reset();
        var controller = new I8042(_board.Services, a20);
        controller.Reset();
        _board.Out(0x64, 0xAA);
        Assert.Equal(0x55u, _board.In(0x60));
        _board.Out(0x60, 0xFF);
        Assert.Equal(0xFAu, _board.In(0x60));
        Assert.Equal(0xAAu, _board.In(0x60));
        controller.Keyboard.Key(0x1E, true);
        Assert.True(_board.Lines.Level[1]);
        Assert.Equal(0x1Eu, _board.In(0x60));
        Assert.False(_board.Lines.Level[1]);
        controller.Keyboard.Key(0xE048, false);
        Assert.Equal([0xE0u, 0xC8u], [_board.In(0x60), _board.In(0x60)]);
        _board.Out(0x64, 0xD4);
        _board.Out(0x60, 0xF4);
        Assert.Equal(0x21u, _board.In(0x64) & 0x21);
        Assert.Equal(0xFAu, _board.In(0x60));
        controller.Mouse.Move(5, -3, 0, 1);
        Assert.Equal([0x09u, 5u, 3u], [_board.In(0x60), _board.In(0x60), _board.In(0x60)]);
        _board.Out(0x64, 0xD1);
        _board.Out(0x60, 0xCD);
        Assert.False(a20.IsOpen);
        _board.Out(0x92, 2);
        Assert.True(open);
        _board.Out(0x64, 0xFE);
        Assert.Equal(["reset"], _board.Requests);
    }

    [Fact]
    public void Firmware_configuration_reads_by_port_and_by_dma()
    {
        var config = new FwCfg(_board.Services);
        config.SetFile("etc/test", "hello"u8.ToArray());
        _board.Out(0x510, 0, 2);
        Assert.Equal("QEMU", string.Concat(Enumerable.Range(0, 4).Select(_ => (char)_board.In(0x511))));
        Assert.Equal(0u, _board.In(0x511));
        _board.Out(0x510, 0x19, 2);
        byte[] directory = [.. Enumerable.Range(0, 68).Select(_ => (byte)_board.In(0x511))];
        Assert.Equal([0, 0, 0, 1, 0, 0, 0, 5, 0, 0x20], directory[..10]);
        Assert.Equal("etc/test", Encoding.ASCII.GetString(directory, 12, 8));
        byte[] request = [0, 0x20, 0, 0x0A, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0];
        _board.Services.Memory.Write(0x8000, request);
        _board.Out(0x514, 0, 4);
        _board.Out(0x518, 0x00800000, 4);
        Assert.Equal(0u, _board.Services.Memory.ReadUInt32(0x8000));
        var read = new byte[8];
        _board.Services.Memory.Read(0x10000, read);
        Assert.Equal("hello\0\0\0", Encoding.ASCII.GetString(read));
        request[8] = 0x70;
        _board.Services.Memory.Write(0x8000, request);
        _board.Out(0x518, 0x00800000, 4);
        Assert.Equal(0x01000000u, _board.Services.Memory.ReadUInt32(0x8000));
    }

    [Fact]
    public void A_firmware_file_may_be_made_when_it_is_read()
    {
        var config = new FwCfg(_board.Services);
        byte value = 1;
        config.SetFile("etc/test", [0], () => [value]);
        _board.Out(0x510, 0x20, 2);
        Assert.Equal(1u, _board.In(0x511));
        value = 2;
        Assert.Equal(0u, _board.In(0x511));
        _board.Out(0x510, 0x20, 2);
        Assert.Equal(2u, _board.In(0x511));
    }

    [Fact]
    public void Acpi_tables_tell_the_ports_that_the_firmware_chose()
    {
        byte[] blob = new AcpiTables(new AcpiMachine([0], 0x80000000, 1UL << 32, true, true, 1, true, true, 0xB000)).Blob;
        int fadt = blob.AsSpan().IndexOf("FACP"u8);
        Assert.Equal(0xB000u, BitConverter.ToUInt32(blob, fadt + 56));
        Assert.Equal(0xB004u, BitConverter.ToUInt32(blob, fadt + 64));
        Assert.Equal(0xB008u, BitConverter.ToUInt32(blob, fadt + 212));
    }

    [Fact]
    public void Smbios_groups_processors_and_tells_of_no_errors()
    {
        var (table, structures, _) = SmbiosTables.Build(2, 4, 2, 512 << 20, Guid.Empty);
        var kinds = new List<byte>();
        for (int at = 0; at < table.Length;)
        {
            kinds.Add(table[at]);
            if (table[at] == 0)
                Assert.Equal(0x14, table[at + 19]);
            if (table[at] == 4)
                Assert.Equal((4, 4, 8), (table[at + 0x23], table[at + 0x24], table[at + 0x25]));
            if (table[at] is 16 or 17)
                Assert.Equal(0xFFFE, BitConverter.ToUInt16(table, at + (table[at] == 16 ? 0x0B : 6)));
            at += table[at + 1];
            at += table.AsSpan(at).IndexOf("\0\0"u8) + 2;
        }
        Assert.Equal(structures, kinds.Count);
        Assert.Equal(2, kinds.Count(k => k == 4));
    }

    [Fact]
    public void Acpi_names_the_firmware_configuration()
    {
        byte[] blob = new AcpiTables(new AcpiMachine([0], 0x80000000, 1UL << 32, false, false, 0, false, false)).Blob;
        int at = blob.AsSpan().IndexOf("QEMU0002"u8);
        Assert.True(at > 0 && blob.AsSpan(at).IndexOf((byte[])[0x47, 1, 0x10, 5, 0x10, 5, 1, 12]) > 0);
    }

    [Fact]
    public void Acpi_tables_have_right_checksums_lengths_and_pointers()
    {
        var tables = new AcpiTables(new AcpiMachine([0, 1], 0x80000000, 1UL << 32, true, true, 1, true, true));
        byte[] blob = tables.Relocated(0xF1000);
        int rsdt = tables.RsdtOffset;
        int count = (BitConverter.ToInt32(blob, rsdt + 4) - 36) / 4;
        string[] signatures = [.. Enumerable.Range(0, count).Select(i =>
        {
            int at = BitConverter.ToInt32(blob, rsdt + 36 + 4 * i) - 0xF1000;
            int length = BitConverter.ToInt32(blob, at + 4);
            Assert.Equal(0, blob.AsSpan(at, length).ToArray().Sum(b => b) & 0xFF);
            return Encoding.ASCII.GetString(blob, at, 4);
        })];
        Assert.Equal(["FACP", "APIC", "HPET"], signatures);
        Assert.Equal("RSDT", Encoding.ASCII.GetString(blob, rsdt, 4));
    }

    [Fact]
    public void Dma_moves_memory_within_its_page_and_counts_down()
    {
        var dma = new Dma8237(_board.Services);
        dma.Reset();
        _board.Out(0x0B, 0x46);
        _board.Out(0x0C, 0);
        _board.Out(0x04, 0xFE);
        _board.Out(0x04, 0xFF);
        _board.Out(0x05, 3);
        _board.Out(0x05, 0);
        _board.Out(0x81, 1);
        Assert.Equal(0, dma.Transfer(2, new byte[] { 1, 2, 3, 4 }, true, out _));
        _board.Out(0x0A, 2);
        Assert.Equal(4, dma.Transfer(2, new byte[] { 1, 2, 3, 4, 5 }, true, out bool terminal));
        Assert.True(terminal);
        Assert.Equal([1, 2], [ReadByte(0x1FFFE), ReadByte(0x1FFFF)]);
        Assert.Equal([3, 4], [ReadByte(0x10000), ReadByte(0x10001)]);
        Assert.Equal(4u, _board.In(0x08) & 4);
    }
}
