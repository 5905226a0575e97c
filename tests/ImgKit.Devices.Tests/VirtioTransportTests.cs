using ImgKit.Machine;
using ImgKit.Machine.Devices.Virtio;

namespace ImgKit.Devices.Tests;

public sealed class VirtioTransportTests : IDisposable
{
    private readonly Board _board = new();

    public void Dispose() => _board.Dispose();

    private (VirtioRng Device, VirtioDriver Driver) Start(bool legacy = false, ulong features = 0, int vector = 0xFFFF)
    {
        var device = _board.Plug(new VirtioRng(_board.Services));
        return (device, new VirtioDriver(_board, device, legacy, features, vector: vector));
    }

    [Theory]
    [InlineData(VirtioInterfaces.Transitional, 0x1005, 0)]
    [InlineData(VirtioInterfaces.Modern, 0x1044, 1)]
    [InlineData(VirtioInterfaces.Legacy, 0x1005, 0)]
    public void Identity_and_capabilities_follow_the_interfaces(VirtioInterfaces interfaces, int id, int revision)
    {
        var device = _board.Plug(new VirtioRng(_board.Services, interfaces));
        Assert.Equal(0x1AF4, device.VendorId);
        Assert.Equal(id, device.DeviceId);
        Assert.Equal((uint)revision, _board.Bus.ConfigRead(device.DeviceFunction, 8, 1));
        var types = new List<uint>();
        for (uint at = _board.Bus.ConfigRead(device.DeviceFunction, 0x34, 1); at != 0; at = _board.Bus.ConfigRead(device.DeviceFunction, (int)at + 1, 1))
            if (_board.Bus.ConfigRead(device.DeviceFunction, (int)at, 1) == 9)
                types.Add(_board.Bus.ConfigRead(device.DeviceFunction, (int)at + 3, 1));
        uint[] expected = interfaces == VirtioInterfaces.Legacy ? [] : [1, 2, 3, 4, 5];
        Assert.Equal(expected, types.Order());
        Assert.Equal(interfaces != VirtioInterfaces.Modern, _board.In(0xC00C, 2) == 8);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Random_bytes_come_and_the_pin_interrupts(bool legacy)
    {
        var (_, driver) = Start(legacy);
        ulong buffer = driver.Allocate(256);
        driver.Offer(false, (buffer, 256, true));
        driver.Notify();
        Assert.Equal(256u, driver.Take().Written);
        byte[] got = new byte[256];
        _board.Services.Memory.Read(buffer, got);
        Assert.True(got.Distinct().Count() > 50);
        Assert.Contains(true, _board.Wires);
        Assert.Equal(1u, legacy ? _board.In(0xC013, 1) : (uint)_board.Load(VirtioDriver.Common + 0x1000, 1));
        Assert.DoesNotContain(true, _board.Wires);
    }

    [Fact]
    public void Message_interrupts_go_to_the_queues_vector()
    {
        var device = _board.Plug(new VirtioRng(_board.Services));
        int msix = 0;
        for (uint at = _board.Bus.ConfigRead(device.DeviceFunction, 0x34, 1); at != 0; at = _board.Bus.ConfigRead(device.DeviceFunction, (int)at + 1, 1))
            if (_board.Bus.ConfigRead(device.DeviceFunction, (int)at, 1) == 0x11)
                msix = (int)at;
        _board.Bus.ConfigWrite(device.DeviceFunction, msix + 2, 0x8000, 2);
        ulong table = Board.BarAddress(1);
        _board.Store(table + 16, 0xFEE00000, 4);
        _board.Store(table + 20, 0, 4);
        _board.Store(table + 24, 0x41, 4);
        _board.Store(table + 28, 0, 4);
        var driver = new VirtioDriver(_board, device, false, 0, vector: 1);
        Assert.Equal(1ul, _board.Load(VirtioDriver.Common + 26, 2));
        driver.Offer(false, (driver.Allocate(16), 16, true));
        driver.Notify();
        driver.Take();
        Assert.Equal([(0xFEE00000ul, 0x41u)], _board.Messages);
        Assert.DoesNotContain(true, _board.Wires);
        _board.Store(VirtioDriver.Common + 26, 9, 2);
        Assert.Equal(0xFFFFul, _board.Load(VirtioDriver.Common + 26, 2));
    }

    [Fact]
    public void Event_index_holds_interrupts_back()
    {
        var (_, driver) = Start(features: VirtioDriver.EventIndex);
        bool Round()
        {
            driver.Offer(false, (driver.Allocate(16), 16, true));
            driver.Notify();
            driver.Take();
            return _board.Load(VirtioDriver.Common + 0x1000, 1) != 0;
        }
        driver.SetUsedEvent(0);
        Assert.True(Round());
        driver.SetUsedEvent(3);
        Assert.False(Round());
        Assert.False(Round());
        Assert.True(Round());
        Assert.Equal(4, driver.AvailEvent);
    }

    [Fact]
    public void Interrupts_are_suppressed_by_the_flag()
    {
        var (_, driver) = Start();
        _board.Services.Memory.WriteUInt16(driver.Avail, 1);
        driver.Offer(false, (driver.Allocate(16), 16, true));
        driver.Notify();
        driver.Take();
        Assert.Equal(0ul, _board.Load(VirtioDriver.Common + 0x1000, 1));
    }

    [Fact]
    public void Features_that_were_not_offered_are_not_accepted()
    {
        var device = _board.Plug(new VirtioRng(_board.Services));
        ulong common = VirtioDriver.Common;
        _board.Store(common + 20, 0, 1);
        _board.Store(common + 20, 3, 1);
        _board.Store(common + 8, 1, 4);
        _board.Store(common + 12, 1 | 0x10, 4);
        _board.Store(common + 20, 11, 1);
        Assert.Equal(3ul, _board.Load(common + 20, 1));
        _board.Store(common + 12, 0, 4); // VERSION_1 is not optional for a modern driver
        _board.Store(common + 20, 11, 1);
        Assert.Equal(3ul, _board.Load(common + 20, 1));
        _board.Store(common + 12, 1, 4);
        _board.Store(common + 20, 11, 1);
        Assert.Equal(11ul, _board.Load(common + 20, 1));
        Assert.Null(device.DriverError);
    }

    [Fact]
    public void Registers_are_reachable_through_configuration_space()
    {
        var (device, _) = Start();
        int at = 0;
        for (uint c = _board.Bus.ConfigRead(device.DeviceFunction, 0x34, 1); c != 0; c = _board.Bus.ConfigRead(device.DeviceFunction, (int)c + 1, 1))
            if (_board.Bus.ConfigRead(device.DeviceFunction, (int)c, 1) == 9 && _board.Bus.ConfigRead(device.DeviceFunction, (int)c + 3, 1) == 5)
                at = (int)c;
        _board.Bus.ConfigWrite(device.DeviceFunction, at + 4, 4, 1);
        _board.Bus.ConfigWrite(device.DeviceFunction, at + 8, 18, 4);
        _board.Bus.ConfigWrite(device.DeviceFunction, at + 12, 2, 4);
        Assert.Equal(1u, _board.Bus.ConfigRead(device.DeviceFunction, at + 16, 4));
    }

    public static TheoryData<string> BadChains => ["loop", "head", "next", "empty", "outside", "order", "nested", "too many", "table length", "table outside", "flood"];

    [Theory]
    [MemberData(nameof(BadChains))]
    public void A_driver_that_breaks_the_rules_stops_its_device_alone(string what)
    {
        var (device, driver) = Start(features: VirtioDriver.Indirect);
        ulong d = driver.Desc, buffer = driver.Allocate(4096);
        switch (what)
        {
            case "loop":
                driver.Descriptor(d, 0, buffer, 16, 3, 1);
                driver.Descriptor(d, 1, buffer, 16, 3, 0);
                break;
            case "next":
                driver.Descriptor(d, 0, buffer, 16, 3, 60000);
                break;
            case "empty":
                driver.Descriptor(d, 0, buffer, 0, 2, 0);
                break;
            case "outside":
                driver.Descriptor(d, 0, 0xFFFFFFFFFFFFF000, 0x2000, 2, 0);
                break;
            case "order":
                driver.Descriptor(d, 0, buffer, 16, 3, 1);
                driver.Descriptor(d, 1, buffer, 16, 0, 0);
                break;
            case "nested":
                driver.Descriptor(d, 0, buffer, 32, 4, 0);
                driver.Descriptor(buffer, 0, buffer, 32, 4, 0);
                break;
            case "table length":
                driver.Descriptor(d, 0, buffer, 33, 4, 0);
                break;
            case "table outside":
                driver.Descriptor(d, 0, 0x7FFFFFFF0000, 0x10000, 4, 0);
                break;
        }
        if (what == "flood")
        {
            _board.Services.Memory.WriteUInt16(driver.Avail + 2, 40000);
        }
        else if (what == "too many")
        {
            driver.Descriptor(d, 0, 0x200000, 16 * 60000, 4, 0);
            for (int i = 0; i < 60000; i++)
                driver.Descriptor(0x200000, i, buffer, 1, 3, i + 1);
            driver.Publish(0);
        }
        else
        {
            driver.Publish(what == "head" ? (ushort)8 : (ushort)0);
        }
        driver.Notify();
        Assert.NotNull(device.DriverError);
        Assert.Equal(64, driver.Status & 64);
        Assert.Equal(0, driver.UsedCount);
        // a reset makes it good again
        var again = new VirtioDriver(_board, device, false, 0, 0x300000);
        again.Offer(false, (again.Allocate(16), 16, true));
        again.Notify();
        Assert.Equal(16u, again.Take().Written);
    }

    [Fact]
    public void Rings_outside_memory_do_no_harm()
    {
        var (device, driver) = Start();
        foreach (ulong address in new ulong[] { 0xA0000ul, 0x3FFFF0, 0xFFFFFFFFFFFFFFF0, 0xE0000000 })
        {
            var again = new VirtioDriver(_board, device, false, 0, start: true);
            again.Status = 0;
            _board.Store(VirtioDriver.Common + 20, 3, 1);
            _board.Store(VirtioDriver.Common + 8, 1, 4);
            _board.Store(VirtioDriver.Common + 12, 1, 4);
            _board.Store(VirtioDriver.Common + 20, 11, 1);
            foreach (ulong register in new ulong[] { 32ul, 40, 48 })
                _board.Store(VirtioDriver.Common + register, address, 8);
            _board.Store(VirtioDriver.Common + 28, 1, 2);
            _board.Store(VirtioDriver.Common + 20, 15, 1);
            again.Notify();
            Assert.True(device.DriverError != null || again.Status == 15);
        }
        Assert.NotNull(driver);
    }

    [Fact]
    public void Random_rings_and_registers_never_harm_the_host()
    {
        var disk = new MemoryDisk(1 << 20);
        var drive = new Drive { Name = "d", Media = disk, Discard = true };
        var blk = _board.Plug(new VirtioBlk(_board.Services, drive, queues: 2));
        var random = new Random(20261125);
        byte[] noise = new byte[0x8000];
        for (int round = 0; round < 300; round++)
        {
            var driver = new VirtioDriver(_board, blk, false, ulong.MaxValue, 0x100000, round & 1);
            // plausible garbage: small numbers where sizes and indices are, addresses inside the page area
            random.NextBytes(noise);
            for (int i = 0; i < noise.Length; i += 16)
            {
                if (random.Next(8) == 0)
                    continue;
                BitConverter.TryWriteBytes(noise.AsSpan(i), 0x100000ul + (ulong)random.Next(0x20000));
                BitConverter.TryWriteBytes(noise.AsSpan(i + 8), (uint)random.Next(1, 2000));
                BitConverter.TryWriteBytes(noise.AsSpan(i + 12), (ushort)random.Next(8));
                BitConverter.TryWriteBytes(noise.AsSpan(i + 14), (ushort)random.Next(70));
            }
            _board.Services.Memory.Write(driver.Desc, noise.AsSpan(0, 16 * driver.Size));
            _board.Services.Memory.Write(0x110000, noise);
            for (int i = 0; i < 20; i++)
            {
                driver.Publish((ushort)random.Next(driver.Size + 1));
                driver.Notify();
                _board.Store(VirtioDriver.Common + (ulong)random.Next(0x3010), (ulong)random.NextInt64(), 1 << random.Next(4));
            }
            driver.Status = 0;
            Assert.True(SpinWait.SpinUntil(() => driver.Status == 0, 10000));
        }
        // and it still works
        var last = new VirtioDriver(_board, blk, false, 0, 0x300000);
        ulong header = last.Allocate(16), data = last.Allocate(512), status = last.Allocate(1);
        _board.Services.Memory.Write(header, new byte[16]);
        last.Offer(false, (header, 16, false), (data, 512, true), (status, 1, true));
        last.Notify();
        Assert.Equal(513u, last.Take().Written);
    }

    [Fact]
    public void State_goes_to_another_device()
    {
        var (device, driver) = Start(features: VirtioDriver.EventIndex);
        driver.Offer(false, (driver.Allocate(16), 16, true));
        driver.Notify();
        driver.Take();
        var writer = new StateWriter();
        device.Describe(writer);
        using var other = new Board();
        var copy = other.Plug(new VirtioRng(other.Services));
        byte[] ram = new byte[3 << 20];
        _board.Services.Memory.Read(0x100000, ram);
        other.Services.Memory.Write(0x100000, ram);
        copy.Describe(new StateReader(writer.ToArray()));
        Assert.Equal(15ul, other.Load(VirtioDriver.Common + 20, 1));
        var again = new StateWriter();
        copy.Describe(again);
        Assert.Equal(writer.ToArray(), again.ToArray());
    }
}
