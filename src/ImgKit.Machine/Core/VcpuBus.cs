using ImgKit.Cpu;
using ImgKit.Machine.Chipset;

namespace ImgKit.Machine;

/// <summary>What one processor reaches: ports, devices' memory, its local APIC. Takes the machine lock around each access.</summary>
internal sealed class VcpuBus(MachineServices services) : IVcpuBus
{
    /// <summary>This processor's APIC; null where the engine has it.</summary>
    internal LocalApic? Apic { get; set; }

    /// <summary>Acknowledges the PIC, where there is no APIC of ours before it.</summary>
    internal Func<int>? Acknowledge { get; set; }

    internal Action<byte>? Ended { get; set; }

    internal Action? FpuError { get; set; }

    public uint PortRead(ushort port, int size)
    {
        lock (services.Lock)
            return services.Ports.Read(port, size);
    }

    public void PortWrite(ushort port, uint value, int size)
    {
        lock (services.Lock)
            services.Ports.Write(port, value, size);
    }

    private bool IsApic(ulong address) => Apic is { } a && address >> 12 == (a.Base & 0xFF_FFFF_F000) >> 12;

    public ulong MmioRead(ulong physicalAddress, int size)
    {
        lock (services.Lock)
            return IsApic(physicalAddress) ? Apic!.MmioRead((int)(physicalAddress & 0xFFF), size)
                : services.Mmio.Read(physicalAddress, size);
    }

    public void MmioWrite(ulong physicalAddress, ulong value, int size)
    {
        lock (services.Lock)
        {
            if (IsApic(physicalAddress))
                Apic!.MmioWrite((int)(physicalAddress & 0xFFF), value, size);
            else
                services.Mmio.Write(physicalAddress, value, size);
        }
    }

    public int AcknowledgeInterrupt(Vcpu cpu)
    {
        lock (services.Lock)
            return Apic?.Acknowledge() ?? Acknowledge?.Invoke() ?? -1;
    }

    public byte GetTaskPriority(Vcpu cpu)
    {
        lock (services.Lock)
            return Apic?.TaskPriority ?? 0;
    }

    public void SetTaskPriority(Vcpu cpu, byte value)
    {
        if (Apic == null)
            return;
        lock (services.Lock)
            Apic.TaskPriority = value;
    }

    public bool ReadMsr(Vcpu cpu, uint index, out ulong value)
    {
        value = 0;
        if (Apic == null)
            return false;
        lock (services.Lock)
        {
            if (index != 0x1B)
                return index is >= 0x800 and <= 0x8FF or 0x6E0 && Apic.ReadMsr(index, out value);
            value = Apic.Base;
            return true;
        }
    }

    public bool WriteMsr(Vcpu cpu, uint index, ulong value)
    {
        if (Apic == null)
            return false;
        lock (services.Lock)
            return index == 0x1B ? Apic.SetBase(value) : index is >= 0x800 and <= 0x8FF or 0x6E0 && Apic.WriteMsr(index, value);
    }

    // So late may the event loop be before a processor that sees the time does its work.
    private const long LatestTimers = 500_000;

    /// <summary>The time, and what the devices' timers have done until then: on a busy host this thread may have got a processor before the event loop's,
    /// and a guest that counts ticks over a time must not see the time without the ticks.</summary>
    public ulong ReadTimeStampCounter(Vcpu cpu)
    {
        long now = services.Clock.Now;
        if (services.Clock.Behind(now) > LatestTimers && !services.Lock.IsHeldByCurrentThread)
            lock (services.Lock)
                services.Clock.RunDue();
        return (ulong)now;
    }

    public void EndOfInterrupt(Vcpu cpu, byte vector)
    {
        lock (services.Lock)
            Ended?.Invoke(vector);
    }

    public void RaiseFpuError(Vcpu cpu)
    {
        lock (services.Lock)
            FpuError?.Invoke();
    }

    public void ReportCrash(Vcpu cpu, ulong[] arguments)
    {
        lock (services.Lock)
            services.Control.ReportPanic(arguments);
    }

    public void UnderLock(Action work)
    {
        lock (services.Lock)
            work();
    }
}
