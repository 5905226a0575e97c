namespace ImgKit.Cpu.Architecture;

/// <summary>How memory is about to be accessed.</summary>
[Flags]
public enum PageAccess : byte
{
    /// <summary>A supervisor's data read.</summary>
    Read = 0,

    /// <summary>Data write.</summary>
    Write = 1,

    /// <summary>With CPL 3 (and not one of the accesses that are always the supervisor's).</summary>
    User = 2,

    /// <summary>Instruction fetch.</summary>
    Fetch = 4,

    /// <summary>The processor's own access to a system structure: SMAP heeds no RFLAGS.AC.</summary>
    Implicit = 8,

    /// <summary>Look only: no accessed or dirty bit is set.</summary>
    Probe = 16,
}

/// <summary>Result of a page walk.</summary>
/// <param name="Physical">address of the byte asked for (A20 not applied).</param>
/// <param name="PageShift">log2 of the page's size: 12, 21, 22 or 30.</param>
/// <param name="User">U/S is set at every level: a user page.</param>
/// <param name="Writable">the privilege asked with may write, and the dirty bit is set: writes need no further walk.</param>
/// <param name="Executable">the privilege asked with may fetch.</param>
/// <param name="Global">stays in the TLB when CR3 is loaded (G with CR4.PGE).</param>
/// <param name="ErrorCode">of the page fault, when there is no translation (Intel SDM 3A 4.7).</param>
public readonly record struct PageTranslation(
    ulong Physical, byte PageShift, bool User, bool Writable, bool Executable, bool Global, uint ErrorCode)
{
    /// <summary>Bytes of the page.</summary>
    public ulong PageSize => 1UL << PageShift;
}
