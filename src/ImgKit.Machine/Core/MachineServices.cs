namespace ImgKit.Machine;

/// <summary>What a machine gives to its devices. A device takes what it needs in its constructor and knows nothing else of the machine.</summary>
public sealed class MachineServices
{
    /// <summary>The machine lock: held whenever registers or the state of a device are touched. Never held over disk I/O.</summary>
    public required Lock Lock { get; init; }

    /// <summary>I/O ports.</summary>
    public required PortBus Ports { get; init; }

    /// <summary>Memory-mapped I/O.</summary>
    public required MmioBus Mmio { get; init; }

    /// <summary>The flat map's builder.</summary>
    public required AddressSpace Space { get; init; }

    /// <summary>Guest memory, for DMA.</summary>
    public required GuestMemory Memory { get; init; }

    /// <summary>Virtual time.</summary>
    public required VirtualClock Clock { get; init; }

    /// <summary>The event loop.</summary>
    public required EventLoop Loop { get; init; }

    /// <summary>Threads for disk requests.</summary>
    public required DiskWorkers Workers { get; init; }

    /// <summary>Requests to the machine as a whole.</summary>
    public required IMachineControl Control { get; init; }

    /// <summary>What runs the processors: for events that it takes without an exit. Null while there is none.</summary>
    public Cpu.CpuEngine? Engine { get; set; }

    /// <summary>ISA interrupt lines 0..15.</summary>
    public IInterruptSink? IsaInterrupts { get; set; }

    /// <summary>Where message-signalled interrupts go.</summary>
    public IMessageInterruptSink? Messages { get; set; }

    /// <summary>An ISA interrupt line.</summary>
    public InterruptLine IsaLine(int number) => new(IsaInterrupts, number);
}

/// <summary>What a device may ask of the machine. Under the machine lock; the effect comes after the guest's present instruction.</summary>
public interface IMachineControl
{
    /// <summary>Resets everything (the reset line).</summary>
    void RequestReset();

    /// <summary>Powers off.</summary>
    void RequestPowerOff();

    /// <summary>Ends the process with an exit status (isa-debug-exit).</summary>
    void RequestExit(int status);

    /// <summary>Has an action run, under the machine lock, when the machine goes on after it was stopped.</summary>
    void RetryWhenResumed(Action retry, Action forget);

    /// <summary>The guest's kernel says that it panicked.</summary>
    /// <param name="hyperV">the five values that it gave to Hyper-V; null: it spoke to another device.</param>
    void ReportPanic(ulong[]? hyperV = null);

    /// <summary>The guest has moved a drive's tray.</summary>
    void ReportTray(string device, bool open);

    /// <summary>A disk request failed and the policy is to stop: the machine pauses, the request is tried again when it goes on.</summary>
    /// <param name="device">the drive's name.</param>
    /// <param name="isRead">a read, else a write.</param>
    /// <param name="action"><c>stop</c>, <c>report</c> or <c>ignore</c>: told to observers.</param>
    /// <param name="noSpace">the host's disk is full.</param>
    void ReportBlockError(string device, bool isRead, string action, bool noSpace);
}
