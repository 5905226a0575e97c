namespace ImgKit.Cpu;

/// <summary>Why <see cref="Vcpu.Run"/> returned.</summary>
public enum VcpuExit
{
    /// <summary>Asked to: <see cref="Vcpu.Kick"/>, or a stop requested through it.</summary>
    Kicked,

    /// <summary>HLT with nothing to deliver. The caller waits for an interrupt (or start-up) and runs again.</summary>
    Halted,

    /// <summary>Triple fault: the machine resets or stops.</summary>
    Shutdown,

    /// <summary>A breakpoint or a single step that the host asked for.</summary>
    Debug,

    /// <summary>The engine cannot go on; <see cref="Vcpu.Failure"/> says why.</summary>
    InternalError,
}

/// <summary>
/// What a virtual CPU needs of its machine. Called on the CPU's own thread, while the guest instruction is under way;
/// the machine takes its own lock.
/// </summary>
public interface IVcpuBus
{
    /// <summary>Port input. <paramref name="size"/> 1, 2 or 4; an access nobody answers gives all ones.</summary>
    uint PortRead(ushort port, int size);

    /// <summary>Port output. <paramref name="size"/> 1, 2 or 4.</summary>
    void PortWrite(ushort port, uint value, int size);

    /// <summary>Read of physical memory that is not RAM (A20 already applied). 1 to 8 bytes, never across a page.</summary>
    ulong MmioRead(ulong physicalAddress, int size);

    /// <summary>Write of physical memory that is not RAM (writes to ROM come here, too). 1 to 8 bytes, never across a page.</summary>
    void MmioWrite(ulong physicalAddress, ulong value, int size);

    /// <summary>Interrupt acknowledge: the vector to deliver now, or -1 when the request went away. Called only when the CPU
    /// can take it, after <see cref="Vcpu.SetInterruptLine"/>(true).</summary>
    int AcknowledgeInterrupt(Vcpu cpu);

    /// <summary>MOV to or from CR8 and the local APIC's task priority (bits 7..4 of the TPR).</summary>
    byte GetTaskPriority(Vcpu cpu);

    /// <inheritdoc cref="GetTaskPriority"/>
    void SetTaskPriority(Vcpu cpu, byte value);

    /// <summary>RDMSR of a register that the processor core does not hold (APIC base, x2APIC).</summary>
    /// <returns>false: no such register, the guest gets #GP.</returns>
    bool ReadMsr(Vcpu cpu, uint index, out ulong value);

    /// <summary>WRMSR, likewise.</summary>
    bool WriteMsr(Vcpu cpu, uint index, ulong value);

    /// <summary>The time-stamp counter now (guest ticks, before IA32_TSC_ADJUST).</summary>
    ulong ReadTimeStampCounter(Vcpu cpu);

    /// <summary>A numeric error that CR0.NE keeps from being an exception: FERR# goes to the interrupt controllers. Called each time the
    /// processor stops for it.</summary>
    void RaiseFpuError(Vcpu cpu)
    {
    }

    /// <summary>The guest says, by the registers of Hyper-V, that it has crashed.</summary>
    /// <param name="cpu">the processor that said so.</param>
    /// <param name="arguments">the five values that it leaves.</param>
    void ReportCrash(Vcpu cpu, ulong[] arguments)
    {
    }

    /// <summary>Does work while the machine's lock is held (it may be held already by this thread): hand-over of collected writes, which
    /// must keep their order.</summary>
    void UnderLock(Action work)
    {
        lock (this)
            work();
    }

    /// <summary>A level-triggered interrupt of a kernel local APIC ended; only with <see cref="InterruptControllers.Split"/>: the
    /// I/O APIC looks for entries with this vector.</summary>
    void EndOfInterrupt(Vcpu cpu, byte vector)
    {
    }
}

/// <summary>
/// A virtual processor. KVM and the translator fulfil this contract alike; the machine never asks which one runs.
/// One thread calls <see cref="Run"/> and the state accessors; <see cref="Kick"/>, <see cref="SetInterruptLine"/>,
/// <see cref="RaiseNmi"/>, <see cref="RaiseSmi"/>, <see cref="RaiseInit"/> and <see cref="RaiseStartup"/> come from any thread.
/// </summary>
public abstract class Vcpu : IDisposable
{
    /// <summary>Index from 0; 0 is the bootstrap processor. Also the initial APIC id.</summary>
    public abstract int Index { get; }

    /// <summary>Executes until something needs the caller.</summary>
    public abstract VcpuExit Run();

    /// <summary>What went wrong after <see cref="VcpuExit.InternalError"/>; the registers are in <see cref="GetState"/>.</summary>
    public virtual string Failure => "";

    /// <summary>How often, and what for, the guest has been left so far: "name count" each; empty where the engine does not count.</summary>
    public virtual IEnumerable<(string Name, long Count)> Exits => [];

    /// <summary>Makes <see cref="Run"/> return <see cref="VcpuExit.Kicked"/> soon, also when it is called only afterwards (once).</summary>
    public abstract void Kick();

    /// <summary>Level of the INTR input (from PIC or local APIC). Ignored where the kernel has the interrupt controllers.</summary>
    public abstract void SetInterruptLine(bool asserted);

    /// <summary>Edge of NMI.</summary>
    public abstract void RaiseNmi();

    /// <summary>Edge of SMI.</summary>
    public abstract void RaiseSmi();

    /// <summary>IGNNE#: the CPU goes on after the numeric error it has reported (<see cref="IVcpuBus.RaiseFpuError"/>) until the program has cleared it.
    /// Does nothing where the engine reports such errors as exceptions.</summary>
    public virtual void IgnoreFpuErrors()
    {
    }

    /// <summary>INIT: the CPU resets its core and, unless it is the bootstrap processor, waits for start-up.</summary>
    public abstract void RaiseInit();

    /// <summary>SIPI with its vector (start at vector * 4096); ignored unless waiting.</summary>
    public abstract void RaiseStartup(byte vector);

    /// <summary>Power-on reset of this CPU; only while it does not run.</summary>
    public abstract void Reset();

    /// <summary>True after INIT (or reset, on other than the bootstrap processor) until start-up. <see cref="Run"/> then
    /// returns <see cref="VcpuExit.Halted"/>.</summary>
    public abstract bool IsWaitingForStartup { get; }

    /// <summary>True while <see cref="Run"/> would return <see cref="VcpuExit.Halted"/> at once: halted and nothing deliverable.</summary>
    public abstract bool IsHalted { get; }

    /// <summary>Copies the architectural state out. Only while it does not run.</summary>
    public abstract void GetState(CpuState state);

    /// <summary>Sets the architectural state. Only while it does not run.</summary>
    public abstract void SetState(CpuState state);

    /// <summary>Translates a linear address with the present page tables, without side effects; -1 where nothing is mapped.</summary>
    public abstract long TranslateAddress(ulong linear);

    /// <summary>Frees what the engine holds.</summary>
    public abstract void Dispose();
}
