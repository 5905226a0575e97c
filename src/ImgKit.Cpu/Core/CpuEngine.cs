namespace ImgKit.Cpu;

/// <summary>Where the interrupt controllers of the machine live.</summary>
public enum InterruptControllers
{
    /// <summary>All in the machine: PIC, I/O APIC, PIT and local APICs are devices; vCPUs use <see cref="IVcpuBus.AcknowledgeInterrupt"/>.</summary>
    Machine,

    /// <summary>Local APICs in the kernel; PIC, I/O APIC and PIT in the machine (kernel_irqchip=split).</summary>
    Split,

    /// <summary>PIC, I/O APIC, PIT and local APICs in the kernel (kernel_irqchip=on).</summary>
    Kernel,
}

/// <summary>A guest write that the engine turns into a write of 1 to an eventfd, without an exit.</summary>
/// <param name="Address">port or guest-physical address.</param>
/// <param name="Size">1, 2, 4 or 8; 0: any size (memory only).</param>
/// <param name="IsPort">port I/O.</param>
/// <param name="Match">only writes of this value; null: all.</param>
/// <param name="EventFd">the eventfd.</param>
public readonly record struct IoEvent(ulong Address, int Size, bool IsPort, ulong? Match, int EventFd);

/// <summary>
/// What executes the guest: makes the vCPUs of a machine, and offers what its kind can do beyond <see cref="Vcpu"/>. The machine asks for
/// properties and uses the methods that they allow; it never asks for the kind of engine. All methods may be called from any thread.
/// </summary>
public abstract class CpuEngine : IDisposable
{
    /// <summary>"kvm" or "soft".</summary>
    public abstract string Name { get; }

    /// <summary>Where the interrupt controllers live. In <see cref="InterruptControllers.Machine"/> all members about GSIs, MSIs and irqfd
    /// throw or return false.</summary>
    public virtual InterruptControllers InterruptControllers => InterruptControllers.Machine;

    /// <summary>RaiseSmi works and SMRAM is switched. Where false, the firmware must be told that there is no SMM.</summary>
    public virtual bool HasSystemManagementMode => true;

    /// <summary>Guest-physical range the engine needs for itself (Intel real mode: identity page and TSS), to be reserved in E820; length 0: none.</summary>
    public virtual (ulong Start, ulong Length) ReservedRange => default;

    /// <summary>Frequency of the guest's time-stamp counter in kHz; 0: the machine decides.</summary>
    public virtual long TimeStampCounterKilohertz => 0;

    /// <summary>Makes a vCPU. Only before the machine runs; indices from 0 without holes.</summary>
    public abstract Vcpu CreateVcpu(int index, IVcpuBus bus);

    /// <summary>The machine is set up: does what is left to do before vCPUs can run. Throws what the engine throws when the host cannot.</summary>
    public virtual void Prepare()
    {
    }

    /// <summary>The A20 gate of the machine, for all vCPUs. Does nothing where the engine leaves it to the map of memory.</summary>
    public virtual void SetA20(bool enabled)
    {
    }

    /// <summary>Level of an input of PIC and I/O APIC together (GSI 0..15 ISA lines, 16..23 I/O APIC only); <see cref="InterruptControllers.Kernel"/> only.</summary>
    public virtual void SetInterruptLine(int gsi, bool asserted) =>
        throw new InvalidOperationException("the interrupt controllers are not the engine's");

    /// <summary>Delivers a message-signalled interrupt to the kernel's local APICs (also the I/O APIC's own messages when split).</summary>
    public virtual void SignalMessage(ulong address, uint data) =>
        throw new InvalidOperationException("the local APICs are not the engine's");

    /// <summary>Split: tells the engine what an I/O APIC pin would send, so that it reports ends of interrupt for level-triggered
    /// vectors through <see cref="IVcpuBus.EndOfInterrupt"/>. Call on each change of a redirection entry.</summary>
    public virtual void SetIoApicRoute(int pin, ulong address, uint data, bool masked)
    {
    }

    /// <summary>Allocates a GSI that sends a message when its event fires; -1 when the engine has none left or cannot.</summary>
    public virtual int AddMessageRoute(ulong address, uint data) => -1;

    /// <summary>Changes the message of a GSI from <see cref="AddMessageRoute"/>.</summary>
    public virtual void UpdateMessageRoute(int gsi, ulong address, uint data)
    {
    }

    /// <summary>Frees a GSI from <see cref="AddMessageRoute"/>.</summary>
    public virtual void RemoveMessageRoute(int gsi)
    {
    }

    /// <summary>Lets writes to an eventfd raise a GSI in the kernel. <paramref name="resampleFd"/> not -1: level-triggered, that eventfd
    /// fires at end of interrupt. False when the engine cannot: the caller raises the interrupt itself.</summary>
    public virtual bool AttachInterruptEvent(int eventFd, int gsi, int resampleFd = -1) => false;

    /// <summary>Undoes <see cref="AttachInterruptEvent"/>.</summary>
    public virtual void DetachInterruptEvent(int eventFd, int gsi)
    {
    }

    /// <summary>Turns a guest write into an event. False when the engine cannot: the write comes over <see cref="IVcpuBus"/>.</summary>
    public virtual bool AttachIoEvent(in IoEvent ioEvent) => false;

    /// <summary>Undoes <see cref="AttachIoEvent"/>; the same values.</summary>
    public virtual void DetachIoEvent(in IoEvent ioEvent)
    {
    }

    /// <summary>Lets the engine collect writes to a range and hand them over at the next exit or <see cref="FlushCoalesced"/>: for registers
    /// whose writes have no immediate effect (a planar frame buffer). False when it cannot.</summary>
    public virtual bool AddCoalescedRange(ulong start, uint length, bool isPort) => false;

    /// <summary>Undoes <see cref="AddCoalescedRange"/>.</summary>
    public virtual void RemoveCoalescedRange(ulong start, uint length, bool isPort)
    {
    }

    /// <summary>Hands over collected writes now.</summary>
    public virtual void FlushCoalesced()
    {
    }

    /// <summary>Power-on reset of the kernel's interrupt controllers and timer; only while no vCPU runs.</summary>
    public virtual void ResetInterruptControllers()
    {
    }

    /// <summary>The HPET takes interrupt line 0 over from the timer of <see cref="InterruptControllers.Kernel"/>, or gives it back
    /// (IA-PC HPET 1.0a, 2.3.5, LEG_RT_CNF).</summary>
    public virtual void SetTimerReplaced(bool replaced)
    {
    }

    /// <summary>The machine stops: guest clocks of the engine stand still from now on. No vCPU runs.</summary>
    public virtual void OnStopped()
    {
    }

    /// <summary>The machine goes on after <see cref="OnStopped"/>.</summary>
    public virtual void OnResumed()
    {
    }

    /// <summary>Frees what the engine holds; vCPUs are disposed before.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}
