namespace ImgKit.Cpu.Architecture;

/// <summary>How memory is about to be accessed.</summary>
[Flags]
public enum PageAccess : byte
{
    /// <summary>A supervisor's data read.</summary>
    Read = 0,

    /// <summary>Data write.</summary>
    Write = 1,

    /// <summary>Instruction fetch.</summary>
    Fetch = 2,

    /// <summary>With CPL 3 (and not one of the accesses that are always the supervisor's).</summary>
    User = 4,

    /// <summary>The processor's own access to a system structure: SMAP heeds no RFLAGS.AC.</summary>
    Implicit = 8,

    /// <summary>Look only: no accessed or dirty bit is set.</summary>
    Probe = 16,
}

/// <summary>What all levels of a translation allow together.</summary>
[Flags]
public enum PageRights : byte
{
    None = 0,

    /// <summary>R/W set at every level.</summary>
    Writable = 1,

    /// <summary>U/S set at every level: a user page.</summary>
    User = 2,

    /// <summary>XD (NX) set at no level.</summary>
    Executable = 4,

    /// <summary>Stays in the TLB when CR3 is loaded (G with CR4.PGE).</summary>
    Global = 8,

    /// <summary>The dirty bit is set: writes need no further walk.</summary>
    Dirty = 16,
}

/// <summary>Result of a page walk.</summary>
/// <param name="Physical">address of the byte asked for.</param>
/// <param name="PageShift">log2 of the page's size: 12, 21, 22 or 30.</param>
/// <param name="Rights">what the page allows.</param>
/// <param name="Faulted">no translation: #PF with <paramref name="ErrorCode"/>.</param>
/// <param name="ErrorCode">of the page fault (Intel SDM 3A 4.7).</param>
public readonly record struct PageWalk(ulong Physical, byte PageShift, PageRights Rights, bool Faulted, uint ErrorCode);
