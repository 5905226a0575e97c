namespace ImgKit.Cpu.Translator;

/// <summary>
/// Where things are relative to the context, which generated code addresses through GS. One native block holds the
/// <see cref="CpuContext"/>, the XSAVE area, the bounce buffer, the soft TLB and the jump caches.
/// </summary>
internal static unsafe class Layout
{
    public const int XsaveArea = 4096;
    public const int BounceBuffer = 8192;

    /// <summary>Entries of one soft-TLB set (direct-mapped by the low bits of the page number).</summary>
    public const int TlbEntries = 256;

    /// <summary>Sets: supervisor, user, supervisor with EFLAGS.AC under SMAP.</summary>
    public const int TlbSets = 3;

    /// <summary>Arrays of one set: minus the page's address for reads, the same for writes, host minus guest address, host page.</summary>
    public const int TlbArray = TlbEntries * 8;

    public const int TlbSet = 4 * TlbArray;
    public const int Tlb = 16384;

    public const int JumpEntries = 4096;

    /// <summary>Jump caches: modes share them modulo this.</summary>
    public const int JumpCaches = 8;

    /// <summary>An entry is minus the target's RIP, then the host address.</summary>
    public const int JumpCache = JumpEntries * 16;

    public const int Jump = 65536;
    public const int Total = Jump + JumpCaches * JumpCache;

    private static CpuContext* Null => null;

    public static readonly int Rip = (int)(nint)(&Null->Rip);
    public static readonly int Rflags = (int)(nint)(&Null->Rflags);
    public static readonly int KeepRunning = (int)(nint)(&Null->KeepRunning);
    public static readonly int LiveIf = (int)(nint)(&Null->LiveIf);
    public static readonly int FpuLoaded = (int)(nint)(&Null->FpuLoaded);
    public static readonly int PendingStore = (int)(nint)(&Null->PendingStore);
    public static readonly int InterruptLine = (int)(nint)(&Null->InterruptLine);
    public static readonly int ResumeAt = (int)(nint)(&Null->ResumeAt);
    public static readonly int HostFlags = (int)(nint)(&Null->HostFlags);
    public static readonly int FaultPc = (int)(nint)(&Null->FaultPc);
    public static readonly int FaultTrap = (int)(nint)(&Null->FaultTrap);
    public static readonly int FaultError = (int)(nint)(&Null->FaultError);
    public static readonly int ExitArgument = (int)(nint)(&Null->ExitArgument);
    public static readonly int Scratch0 = (int)(nint)(&Null->Scratch0);
    public static readonly int Scratch1 = (int)(nint)(&Null->Scratch1);
    public static readonly int Scratch2 = (int)(nint)(&Null->Scratch2);
    public static readonly int HostStack = (int)(nint)(&Null->HostStack);
    public static readonly int Self = (int)(nint)(&Null->Self);
    public static readonly int Es = (int)(nint)(&Null->Es);

    public static int Gpr(int index) => index * 8;

    public static int SegmentBase(int segment) => Es + segment * sizeof(SegmentState);

    public static int SegmentSelector(int segment) => SegmentBase(segment) + 16;

    public static int SegmentCheck(int segment) => SegmentBase(segment) + 24;

    public static int TlbRead(int set) => Tlb + set * TlbSet;

    public static int TlbWrite(int set) => Tlb + set * TlbSet + TlbArray;

    public static int TlbAddend(int set) => Tlb + set * TlbSet + 2 * TlbArray;

    public static int TlbHost(int set) => Tlb + set * TlbSet + 3 * TlbArray;
}
