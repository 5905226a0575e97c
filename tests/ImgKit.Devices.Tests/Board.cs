using System.Collections.Concurrent;
using ImgKit.Block;
using ImgKit.Cpu;
using ImgKit.Machine;
using ImgKit.Machine.Pci;

namespace ImgKit.Devices.Tests;

/// <summary>Buses, memory and threads without a processor: a test plays the guest.</summary>
internal sealed class Board : IMachineControl, IInterruptSink, IMessageInterruptSink, IDisposable
{
    public Board(ulong ram = 4 << 20)
    {
        var machineLock = new Lock();
        Loop = new EventLoop(machineLock);
        var map = new PhysicalMemoryMap();
        var memory = new GuestMemory(ram, map);
        var space = new AddressSpace(map);
        space.Add(AddressSpace.RamPriority, 0, 0xA0000, memory.Base, MemoryKind.Ram);
        space.Add(AddressSpace.RamPriority, 0x100000, ram - 0x100000, memory.Base + 0x100000, MemoryKind.Ram);
        space.Update();
        var clock = new VirtualClock(Loop.WakeAt);
        Loop.TimersDue = clock.RunDue;
        Services = new MachineServices
        {
            Lock = machineLock,
            Ports = new PortBus(),
            Mmio = new MmioBus(),
            Space = space,
            Memory = memory,
            Clock = clock,
            Loop = Loop,
            Workers = new DiskWorkers(machineLock, 4),
            Control = this,
            Messages = this,
        };
        Bus = new PciBus(this);
        Loop.Start();
    }

    public MachineServices Services { get; }

    public EventLoop Loop { get; }

    public PciBus Bus { get; }

    public ConcurrentQueue<(ulong Address, uint Data)> Messages { get; } = new();

    public bool[] Wires { get; } = new bool[4];

    public List<string> BlockErrors { get; } = [];

    public List<Action> Retries { get; } = [];

    /// <summary>A BAR-placed, enabled function.</summary>
    public T Plug<T>(T device) where T : PciDevice
    {
        Bus.Add(device, -1);
        int df = device.DeviceFunction;
        for (int bar = 0; bar < 6; bar++)
        {
            int at = 0x10 + 4 * bar;
            uint old = Bus.ConfigRead(df, at, 4);
            Bus.ConfigWrite(df, at, uint.MaxValue, 4);
            uint sized = Bus.ConfigRead(df, at, 4);
            if (sized == 0)
                continue;
            Bus.ConfigWrite(df, at, (old & 1) != 0 ? 0xC000u + 0x100u * (uint)bar : 0xE0000000u + 0x2000000u * (uint)bar, 4);
            if ((old & 7) == 4)
            {
                bar++;
                Bus.ConfigWrite(df, at + 4, 0, 4);
            }
        }
        Bus.ConfigWrite(df, 4, 7, 2);
        return device;
    }

    public static ulong BarAddress(int bar) => 0xE0000000u + 0x2000000u * (uint)bar;

    public uint In(int port, int size)
    {
        lock (Services.Lock)
            return Services.Ports.Read((ushort)port, size);
    }

    public void Out(int port, uint value, int size)
    {
        lock (Services.Lock)
            Services.Ports.Write((ushort)port, value, size);
    }

    public ulong Load(ulong address, int size)
    {
        lock (Services.Lock)
            return Services.Mmio.Read(address, size);
    }

    public void Store(ulong address, ulong value, int size)
    {
        lock (Services.Lock)
            Services.Mmio.Write(address, value, size);
    }

    public void SetLine(int line, bool asserted) => Wires[line] = asserted;

    public void SendMessage(ulong address, uint data) => Messages.Enqueue((address, data));

    public void RequestReset()
    {
    }

    public void RequestPowerOff()
    {
    }

    public void RequestExit(int status)
    {
    }

    public void RetryWhenResumed(Action retry, Action forget) => Retries.Add(retry);

    public void ReportPanic(ulong[]? hyperV = null)
    {
    }

    public void ReportTray(string device, bool open)
    {
    }

    public void ReportBlockError(string device, bool isRead, string action, bool noSpace) => BlockErrors.Add($"{device} {(isRead ? "read" : "write")} {action}");

    public void Dispose()
    {
        Loop.Dispose();
        Services.Workers.Dispose();
        Services.Memory.Dispose();
    }
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
