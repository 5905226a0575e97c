namespace ImgKit.Cpu.Models;

/// <summary>How the processors of a machine are grouped (<c>-smp</c>). All counts at least 1.</summary>
/// <param name="Sockets">packages.</param>
/// <param name="Cores">cores a package.</param>
/// <param name="Threads">threads a core.</param>
public readonly record struct CpuTopology(int Sockets, int Cores, int Threads)
{
    /// <summary>One processor.</summary>
    public static CpuTopology Single => new(1, 1, 1);

    /// <summary>Bits of an APIC id that number the thread in its core.</summary>
    public int ThreadBits => BitsFor(Threads);

    /// <summary>Bits of an APIC id that number the core in its package.</summary>
    public int CoreBits => BitsFor(Cores);

    /// <summary>The initial APIC id of a processor. Where a count is not a power of two, ids have gaps (Intel SDM 3A 9.9.1).</summary>
    public uint ApicId(int index)
    {
        int thread = index % Threads, core = index / Threads % Cores, socket = index / (Threads * Cores);
        return (uint)((socket << (CoreBits + ThreadBits)) | (core << ThreadBits) | thread);
    }

    private static int BitsFor(int count) => count <= 1 ? 0 : 32 - System.Numerics.BitOperations.LeadingZeroCount((uint)(count - 1));
}
