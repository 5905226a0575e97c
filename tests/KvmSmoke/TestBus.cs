using System.Collections.Concurrent;
using ImgKit.Cpu;

namespace ImgKit.KvmSmoke;

/// <summary>The smallest machine: remembers what the guest does, answers what the test says.</summary>
internal sealed class TestBus : IVcpuBus
{
    public ConcurrentQueue<(ushort Port, uint Value, int Size)> PortWrites { get; } = new();

    public ConcurrentQueue<(ulong Address, ulong Value, int Size)> MmioWrites { get; } = new();

    public ConcurrentQueue<int> Vectors { get; } = new();

    public Func<ushort, int, uint> OnPortRead { get; set; } = (_, _) => uint.MaxValue;

    public Action<ushort, uint, int> OnPortWrite { get; set; } = (_, _, _) => { };

    public Func<ulong, int, ulong> OnMmioRead { get; set; } = (_, _) => ulong.MaxValue;

    public Dictionary<uint, ulong> Msrs { get; } = [];

    public List<byte> EndedVectors { get; } = [];

    public ulong[]? Crash { get; private set; }

    public byte TaskPriority { get; set; }

    public uint PortRead(ushort port, int size) => OnPortRead(port, size);

    public void PortWrite(ushort port, uint value, int size)
    {
        PortWrites.Enqueue((port, value, size));
        OnPortWrite(port, value, size);
    }

    public ulong MmioRead(ulong physicalAddress, int size) => OnMmioRead(physicalAddress, size);

    public void MmioWrite(ulong physicalAddress, ulong value, int size) => MmioWrites.Enqueue((physicalAddress, value, size));

    public int AcknowledgeInterrupt(Vcpu cpu)
    {
        int vector = Vectors.TryDequeue(out int v) ? v : -1;
        if (Vectors.IsEmpty)
            cpu.SetInterruptLine(false);
        return vector;
    }

    public void Interrupt(Vcpu cpu, int vector)
    {
        Vectors.Enqueue(vector);
        cpu.SetInterruptLine(true);
    }

    public byte GetTaskPriority(Vcpu cpu) => TaskPriority;

    public void SetTaskPriority(Vcpu cpu, byte value) => TaskPriority = value;

    public bool ReadMsr(Vcpu cpu, uint index, out ulong value) => Msrs.TryGetValue(index, out value);

    public bool WriteMsr(Vcpu cpu, uint index, ulong value)
    {
        if (!Msrs.ContainsKey(index))
            return false;
        Msrs[index] = value;
        return true;
    }

    public ulong ReadTimeStampCounter(Vcpu cpu) => (ulong)System.Diagnostics.Stopwatch.GetTimestamp();

    public void ReportCrash(Vcpu cpu, ulong[] arguments) => Crash = arguments;

    public void EndOfInterrupt(Vcpu cpu, byte vector) => EndedVectors.Add(vector);

    /// <summary>All values written to a port, in order.</summary>
    public uint[] Written(ushort port) => PortWrites.Where(w => w.Port == port).Select(w => w.Value).ToArray();
}
