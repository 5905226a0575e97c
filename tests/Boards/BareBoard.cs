using ImgKit.Cpu;
using ImgKit.Machine;
using ImgKit.Machine.Pci;

namespace ImgKit.Boards;

/// <summary>A board without processors, whose guest a test plays: buses, memory, workers, and a record of what devices ask of the machine. Compiled into
/// each test project that has one.</summary>
internal abstract class BareBoard : IMachineControl, IDisposable
{
    /// <summary>Makes one.</summary>
    /// <param name="memorySize">bytes of memory, of which <paramref name="ram"/> says where they show.</param>
    /// <param name="ram">ranges of it, each at its own address.</param>
    /// <param name="workers">threads for disk requests.</param>
    /// <param name="isLive">time passes by itself; else <see cref="Pass"/> moves the clock.</param>
    protected BareBoard(ulong memorySize, (ulong Start, ulong Length)[] ram, int workers, bool isLive = false)
    {
        var machineLock = new Lock();
        var loop = new EventLoop(machineLock);
        var map = new PhysicalMemoryMap();
        var memory = new GuestMemory(memorySize, map);
        var space = new AddressSpace(map);
        foreach (var (start, length) in ram)
            space.Add(AddressSpace.RamPriority, start, length, memory.Base + (nint)start, MemoryKind.Ram);
        space.Update();
        var clock = new VirtualClock(isLive ? loop.WakeAt : _ => { });
        Services = new MachineServices
        {
            Lock = machineLock,
            Ports = new PortBus(),
            Mmio = new MmioBus(),
            Space = space,
            Memory = memory,
            Clock = clock,
            Loop = loop,
            Workers = new DiskWorkers(machineLock, workers),
            Control = this,
        };
        if (!isLive)
            return;
        loop.TimersDue = clock.RunDue;
        loop.Start();
    }

    internal MachineServices Services { get; }

    /// <summary>What devices asked of the machine.</summary>
    internal List<string> Requests { get; } = [];

    /// <summary>Requests that wait until the machine goes on.</summary>
    internal List<Action> Retries { get; } = [];

    internal uint In(int port, int size = 1)
    {
        lock (Services.Lock)
            return Services.Ports.Read((ushort)port, size);
    }

    internal void Out(int port, uint value, int size = 1)
    {
        lock (Services.Lock)
            Services.Ports.Write((ushort)port, value, size);
    }

    internal ulong Load(ulong address, int size)
    {
        lock (Services.Lock)
            return Services.Mmio.Read(address, size);
    }

    internal void Store(ulong address, ulong value, int size)
    {
        lock (Services.Lock)
            Services.Mmio.Write(address, value, size);
    }

    internal void Pass(long nanoseconds)
    {
        lock (Services.Lock)
            Services.Clock.AdvanceTo(Services.Clock.Now + nanoseconds);
    }

    /// <summary>Waits for disk requests; their completion takes the lock, so the test must not hold it.</summary>
    internal void Drain() => Services.Workers.Drain();

    /// <summary>Places a PCI function's BARs: ports from 0xC000, 256 apart, memory from 0xE0000000; and lets it answer and be a bus master.</summary>
    protected static void PlaceBars(PciDevice device, uint memoryStep)
    {
        for (int bar = 0; bar < 6; bar++)
        {
            int at = 0x10 + 4 * bar;
            uint old = device.ConfigRead(at, 4);
            device.ConfigWrite(at, uint.MaxValue, 4);
            if (device.ConfigRead(at, 4) == 0)
                continue;
            device.ConfigWrite(at, (old & 1) != 0 ? 0xC000u + 0x100u * (uint)bar : 0xE0000000u + memoryStep * (uint)bar, 4);
            if ((old & 7) == 4)
                device.ConfigWrite(0x10 + 4 * ++bar, 0, 4);
        }
        device.ConfigWrite(4, 7, 2);
    }

    public void RequestReset() => Requests.Add("reset");

    public void RequestPowerOff() => Requests.Add("power-off");

    public void RequestExit(int status) => Requests.Add($"exit {status}");

    public void RetryWhenResumed(Action retry, Action forget) => Retries.Add(retry);

    public void ReportPanic(ulong[]? hyperV = null) => Requests.Add("panic");

    public void ReportTray(string device, bool open) => Requests.Add($"tray {device} {open}");

    public void ReportBlockError(string device, bool isRead, string action, bool noSpace) =>
        Requests.Add($"block-error {device} {(isRead ? "read" : "write")} {action} {noSpace}");

    public void Dispose()
    {
        Services.Loop.Dispose();
        Services.Workers.Dispose();
        Services.Memory.Dispose();
    }
}
