using System.Collections.Concurrent;
using ImgKit.Block;
using ImgKit.Boards;
using ImgKit.Machine;
using ImgKit.Machine.Pci;

namespace ImgKit.Devices.Tests;

/// <summary>Memory with a hole for the screen, a PCI bus, and time that passes.</summary>
internal sealed class Board : BareBoard, IInterruptSink, IMessageInterruptSink
{
    private const uint BarStep = 0x2000000;

    public Board(ulong ram = 4 << 20) : base(ram, [(0, 0xA0000), (0x100000, ram - 0x100000)], 4, true)
    {
        Services.Messages = this;
        Bus = new PciBus(this);
    }

    public PciBus Bus { get; }

    public ConcurrentQueue<(ulong Address, uint Data)> Messages { get; } = new();

    public bool[] Wires { get; } = new bool[4];

    /// <summary>A BAR-placed, enabled function.</summary>
    public T Plug<T>(T device) where T : PciDevice
    {
        Bus.Add(device, -1);
        PlaceBars(device, BarStep);
        return device;
    }

    public static ulong BarAddress(int bar) => 0xE0000000u + BarStep * (uint)bar;

    public void SetLine(int line, bool asserted) => Wires[line] = asserted;

    public void SendMessage(ulong address, uint data) => Messages.Enqueue((address, data));
}

/// <summary>A disk in memory that can be told to fail.</summary>
internal sealed class MemoryDisk(int length) : BlockDevice
{
    public byte[] Content { get; private set; } = new byte[length];

    public Func<Exception?> Fault { get; set; } = () => null;

    public int Flushes;

    public List<(long Offset, long Count)> Discards { get; } = [];

    public override long Length => Content.Length;

    public override string DriverName => "memory";

    private void Check(long offset, long count)
    {
        CheckRange(offset, count);
        if (Fault() is { } e)
            throw e;
    }

    public override void Read(long offset, Span<byte> destination)
    {
        Check(offset, destination.Length);
        Content.AsSpan((int)offset, destination.Length).CopyTo(destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        Check(offset, source.Length);
        source.CopyTo(Content.AsSpan((int)offset));
    }

    public override void Discard(long offset, long count)
    {
        Check(offset, count);
        lock (Discards)
            Discards.Add((offset, count));
    }

    public override void Flush() => Interlocked.Increment(ref Flushes);

    public void Grow(int newLength)
    {
        var content = new byte[newLength];
        Content.CopyTo(content, 0);
        Content = content;
    }
}

internal static class MemoryExtensions
{
    public static void WriteUInt64(this GuestMemory memory, ulong address, ulong value) => memory.Write(address, BitConverter.GetBytes(value));
}
