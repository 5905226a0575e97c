using ImgKit.Machine.Devices.Usb;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Tests;

public sealed class UhciTests : IDisposable
{
    private const ushort Ports = 0xC040;
    private readonly TestBoard _board = new();
    private readonly LineRecorder _wires = new();
    private readonly Uhci _controller;

    public UhciTests()
    {
        _controller = new Uhci(_board.Services);
        var bus = new PciBus(_wires);
        bus.Add(_controller, 1, 2);
        _controller.Reset();
        _controller.ConfigWrite(0x20, Ports, 4);
        _controller.ConfigWrite(4, 5, 2);
    }

    public void Dispose() => _board.Dispose();

    private bool Line => _wires.Level.Any(l => l);

    [Fact]
    public void It_has_two_ports_with_nothing_in_them_and_counts_frames()
    {
        Assert.Equal(0x20u, _board.In(Ports + 2, 2));
        Assert.Equal(0x80u, _board.In(Ports + 0x10, 2));
        Assert.Equal(0x80u, _board.In(Ports + 0x12, 2));
        // No third port: bit 7 reads as 0.
        Assert.Equal(0u, _board.In(Ports + 0x14, 2) & 0x80);
        _board.Out(Ports + 8, 0x10000, 4);
        for (int i = 0; i < 1024; i++)
            _board.Services.Memory.WriteUInt32(0x10000 + 4UL * (ulong)i, 1);
        _board.Out(Ports, 0xC1, 2);
        Assert.Equal(0u, _board.In(Ports + 2, 2));
        _board.Pass(10_500_000);
        Assert.Equal(10u, _board.In(Ports + 6, 2));
        _board.Out(Ports, 0xC0, 2);
        Assert.Equal(0x20u, _board.In(Ports + 2, 2));
        _board.Pass(5_000_000);
        Assert.Equal(10u, _board.In(Ports + 6, 2));
    }

    [Fact]
    public void A_transfer_to_nobody_stalls_after_its_tries()
    {
        var memory = _board.Services.Memory;
        _board.Out(Ports + 8, 0x10000, 4);
        for (int i = 0; i < 1024; i++)
            memory.WriteUInt32(0x10000 + 4UL * (ulong)i, 0x11002);
        // A queue that leads to itself, with one descriptor: three tries, an interrupt at its end
        memory.WriteUInt32(0x11000, 0x11002);
        memory.WriteUInt32(0x11004, 0x12000);
        memory.WriteUInt32(0x12000, 1);
        memory.WriteUInt32(0x12004, 3u << 27 | 1u << 24 | 1u << 23);
        memory.WriteUInt32(0x12008, 0x2D | 5 << 8 | 7 << 21);
        _board.Out(Ports + 4, 0xF, 2);
        _board.Out(Ports, 1, 2);
        _board.Pass(5_000_000);
        Assert.Equal(1u << 24 | 1u << 22 | 1u << 18 | 0x7FF, memory.ReadUInt32(0x12004));
        Assert.Equal(3u, _board.In(Ports + 2, 2));
        Assert.True(Line);
        _board.Out(Ports + 2, 3, 2);
        Assert.False(Line);
    }

    [Fact]
    public void A_frame_list_where_there_is_no_memory_stops_it()
    {
        _board.Out(Ports + 8, 0xF0000000, 4);
        _board.Out(Ports, 1, 2);
        _board.Pass(2_000_000);
        Assert.Equal(0x30u, _board.In(Ports + 2, 2));
        Assert.True(Line);
        _board.Out(Ports, 2, 2);
        Assert.Equal(0x20u, _board.In(Ports + 2, 2));
        Assert.False(Line);
    }
}
