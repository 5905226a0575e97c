using ImgKit.Block;
using ImgKit.Cpu;
using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Tests;

/// <summary>A board without processors: buses, 2 MiB of RAM, and a clock that is moved by hand.</summary>
internal sealed class TestBoard : IMachineControl, IDisposable
{
    internal TestBoard()
    {
        var map = new PhysicalMemoryMap();
        var machineLock = new Lock();
        Loop = new EventLoop(machineLock);
        var space = new AddressSpace(map);
        var memory = new GuestMemory(2 << 20, map);
        space.Add(AddressSpace.RamPriority, 0, memory.LowSize, memory.Base, MemoryKind.Ram);
        space.Update();
        Services = new MachineServices
        {
            Lock = machineLock,
            Ports = new PortBus(),
            Mmio = new MmioBus(),
            Space = space,
            Memory = memory,
            Clock = new VirtualClock(_ => { }),
            Loop = Loop,
            Workers = new DiskWorkers(machineLock, 2),
            Control = this,
            IsaInterrupts = Lines,
        };
    }

    private EventLoop Loop { get; }

    internal MachineServices Services { get; }

    /// <summary>The device under test, where a test needs it again.</summary>
    internal Device? Controller { get; set; }

    internal LineRecorder Lines { get; } = new();

    internal List<string> Requests { get; } = [];

    internal uint In(ushort port, int size = 1)
    {
        lock (Services.Lock)
            return Services.Ports.Read(port, size);
    }

    internal void Out(ushort port, uint value, int size = 1)
    {
        lock (Services.Lock)
            Services.Ports.Write(port, value, size);
    }

    internal void Pass(long nanoseconds)
    {
        lock (Services.Lock)
            Services.Clock.AdvanceTo(Services.Clock.Now + nanoseconds);
    }

    /// <summary>Waits for disk requests; their completion takes the lock, so the test must not hold it.</summary>
    internal void Drain() => Services.Workers.Drain();

    public void RequestReset() => Requests.Add("reset");

    public void RequestPowerOff() => Requests.Add("power-off");

    public void RequestExit(int status) => Requests.Add($"exit {status}");

    public void RetryWhenResumed(Action retry, Action forget) => Retries.Add(retry);

    internal List<Action> Retries { get; } = [];

    public void ReportPanic(ulong[]? hyperV = null) => Requests.Add("panic");

    public void ReportTray(string device, bool open) => Requests.Add($"tray {device} {open}");

    public void ReportBlockError(string device, bool isRead, string action, bool noSpace) =>
        Requests.Add($"block-error {device} {(isRead ? "read" : "write")} {action} {noSpace}");

    public void Dispose()
    {
        Loop.Dispose();
        Services.Workers.Dispose();
        Services.Memory.Dispose();
    }
}

/// <summary>Remembers the level of lines, and how often each rose.</summary>
internal sealed class LineRecorder : IInterruptSink
{
    internal bool[] Level { get; } = new bool[32];

    internal int[] Rises { get; } = new int[32];

    public void SetLine(int line, bool asserted)
    {
        if (asserted && !Level[line])
            Rises[line]++;
        Level[line] = asserted;
    }
}

/// <summary>A processor for APICs to talk to.</summary>
internal sealed class TestProcessor : IApicProcessor
{
    internal bool Line { get; private set; }

    internal List<string> Signals { get; } = [];

    public void SetInterruptLine(bool asserted) => Line = asserted;

    public void RaiseNmi() => Signals.Add("nmi");

    public void RaiseSmi() => Signals.Add("smi");

    public void RaiseInit() => Signals.Add("init");

    public void RaiseStartup(byte vector) => Signals.Add($"startup {vector:x2}");
}

/// <summary>A disk in memory whose next requests can be made to fail.</summary>
internal sealed class MemoryDisk(long length) : BlockDevice
{
    internal byte[] Bytes { get; } = new byte[length];

    internal Exception? Failure { get; set; }

    internal int Flushes { get; private set; }

    internal int Reads { get; private set; }

    internal List<(long Offset, long Count)> Discards { get; } = [];

    public override long Length => Bytes.Length;

    public override string DriverName => "memory";

    /// <summary>Told of each read, on the thread that makes it.</summary>
    internal Action<long>? Reading { get; set; }

    public override void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        Reads++;
        Reading?.Invoke(offset);
        base.ReadVector(offset, buffers);
    }

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        if (Failure != null)
            throw Failure;
        Bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckRange(offset, source.Length);
        if (Failure != null)
            throw Failure;
        source.CopyTo(Bytes.AsSpan((int)offset));
    }

    public override void Discard(long offset, long count) => Discards.Add((offset, count));

    public override void Flush() => Flushes++;
}
