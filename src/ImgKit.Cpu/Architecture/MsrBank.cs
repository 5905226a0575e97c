namespace ImgKit.Cpu.Architecture;

/// <summary>Model-specific registers of one processor that no generated code needs. The others are in <see cref="CpuContext"/>.</summary>
public sealed class MsrBank
{
    /// <summary>Banks of machine-check registers.</summary>
    public const int McaBanks = 10;

    /// <summary>Pairs of variable-range MTRRs.</summary>
    public const int VariableRanges = 8;

    /// <summary>IA32_MTRR_DEF_TYPE.</summary>
    public ulong MtrrDefaultType { get; set; }

    /// <summary>IA32_MTRR_PHYSBASE0, PHYSMASK0, PHYSBASE1...</summary>
    public ulong[] MtrrVariable { get; } = new ulong[VariableRanges * 2];

    /// <summary>The eleven fixed-range MTRRs, in order of address.</summary>
    public ulong[] MtrrFixed { get; } = new ulong[11];

    /// <summary>IA32_MCi_CTL, STATUS, ADDR, MISC.</summary>
    public ulong[] Mca { get; } = new ulong[McaBanks * 4];

    /// <summary>Registers that only keep what was written, by index.</summary>
    public Dictionary<uint, ulong> Plain { get; } = [];

    /// <summary>Power-on values.</summary>
    public void Reset()
    {
        MtrrDefaultType = 0;
        Array.Clear(MtrrVariable);
        Array.Clear(MtrrFixed);
        Array.Clear(Mca);
        for (int i = 0; i < McaBanks; i++)
            Mca[i * 4] = ulong.MaxValue;
        Plain.Clear();
    }
}
