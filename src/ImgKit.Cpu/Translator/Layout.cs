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

    /// <summary>Arrays of one set, for reads and then for writes: minus the page's address, host minus guest address, host page.</summary>
    public const int TlbArray = TlbEntries * 8;

    public const int TlbSet = 6 * TlbArray;
    public const int Tlb = 16384;

    /// <summary>Where generated code keeps what it learned of a page for the rest of a block: a host address, by the instruction that
    /// looked it up.</summary>
    public const int Windows = 3072;

    /// <summary>The host's stack pointer in generated code, modulo 64 KiB: a shift count of 12 for SHRX, a field of 8 bits from bit 12
    /// for BEXTR.</summary>
    public const int StackTag = 8 << 8 | 12;

    public const int JumpEntries = 65536;

    /// <summary>Jump caches: modes share them modulo this.</summary>
    public const int JumpCaches = 8;

    /// <summary>An entry is a host address that takes the target's RIP in RBP: the checked entry of a block, or
    /// <see cref="Stubs.LookupRbp"/>.</summary>
    public const int JumpCache = JumpEntries * 8;

    public const int Jump = 65536;
    /// <summary>Entries of one table of the second-level TLB.</summary>
    public const int SecondEntries = 4096;

    /// <summary>Tables of the second level, by set, for reads and then for writes. An entry is the page's address with the generation in its
    /// low 12 bits, then the host page.</summary>
    public const int Second = Jump + JumpCaches * JumpCache;

    public const int SecondTable = SecondEntries * 16;
    public const int Total = Second + 2 * TlbSets * SecondTable;

    /// <summary>The present generation of the second level (8 bytes).</summary>
    public const int SecondGeneration = Windows + 48 * 8;

    /// <summary>Address of the map of code pages.</summary>
    public const int CodeMasks = SecondGeneration + 8;

    /// <summary>Registers that stubs set aside.</summary>
    public const int Spill = CodeMasks + 8;

    /// <summary>An x87 environment (28 bytes).</summary>
    public const int Environment = Spill + 64;

    public static readonly int Rip;
    public static readonly int Rflags;
    public static readonly int KeepRunning;
    public static readonly int LiveIf;
    public static readonly int FpuLoaded;
    public static readonly int PendingStore;
    public static readonly int InterruptLine;
    public static readonly int ResumeAt;
    public static readonly int HostFlags;
    public static readonly int FaultPc;
    public static readonly int FaultTrap;
    public static readonly int FaultError;
    public static readonly int ExitArgument;
    public static readonly int BranchSite;
    public static readonly int SparedFlags;
    public static readonly int Scratch0;
    public static readonly int Scratch1;
    public static readonly int Scratch2;
    public static readonly int HostStack;
    public static readonly int Self;
    public static readonly int Es;
    public static readonly int KernelGsBase;

    static Layout()
    {
        CpuContext c;
        byte* start = (byte*)&c;
        Rip = (int)((byte*)&c.Rip - start);
        Rflags = (int)((byte*)&c.Rflags - start);
        KeepRunning = (int)((byte*)&c.KeepRunning - start);
        LiveIf = (int)((byte*)&c.LiveIf - start);
        FpuLoaded = (int)((byte*)&c.FpuLoaded - start);
        PendingStore = (int)((byte*)&c.PendingStore - start);
        InterruptLine = (int)((byte*)&c.InterruptLine - start);
        ResumeAt = (int)((byte*)&c.ResumeAt - start);
        HostFlags = (int)((byte*)&c.HostFlags - start);
        FaultPc = (int)((byte*)&c.FaultPc - start);
        FaultTrap = (int)((byte*)&c.FaultTrap - start);
        FaultError = (int)((byte*)&c.FaultError - start);
        ExitArgument = (int)((byte*)&c.ExitArgument - start);
        BranchSite = (int)((byte*)&c.BranchSite - start);
        SparedFlags = (int)((byte*)&c.SparedFlags - start);
        Scratch0 = (int)((byte*)&c.Scratch0 - start);
        Scratch1 = (int)((byte*)&c.Scratch1 - start);
        Scratch2 = (int)((byte*)&c.Scratch2 - start);
        HostStack = (int)((byte*)&c.HostStack - start);
        Self = (int)((byte*)&c.Self - start);
        Es = (int)((byte*)&c.Es - start);
        KernelGsBase = (int)((byte*)&c.KernelGsBase - start);
    }

    public static int Gpr(int index) => index * 8;

    public static int SegmentBase(int segment) => Es + segment * sizeof(SegmentState);

    public static int SegmentSelector(int segment) => SegmentBase(segment) + 16;

    public static int SegmentCheck(int segment) => SegmentBase(segment) + 24;

    public static int TlbTag(int set, bool write) => Tlb + set * TlbSet + (write ? 3 * TlbArray : 0);

    public static int TlbAddend(int set, bool write) => TlbTag(set, write) + TlbArray;

    public static int SecondOf(int set, bool write) => Second + (set * 2 + (write ? 1 : 0)) * SecondTable;

    public static int TlbHost(int set, bool write) => TlbTag(set, write) + 2 * TlbArray;
}
