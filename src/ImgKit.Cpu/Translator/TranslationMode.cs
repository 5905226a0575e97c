using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>What generated code may assume of a segment.</summary>
internal enum SegmentClass
{
    /// <summary>Base 0, whole 4 GiB (or long mode): nothing to do.</summary>
    Flat,

    /// <summary>A base to add, no limit below 4 GiB.</summary>
    Based,

    /// <summary>A base to add, a limit of 64 KiB or more: 16-bit addresses need no check.</summary>
    Based64K,

    /// <summary>Every access is compared with <see cref="SegmentState.CheckLimit"/>.</summary>
    Checked,
}

/// <summary>The part of the processor's state that translated code is specialised for, as one number.</summary>
internal readonly struct TranslationMode(ulong key)
{
    public ulong Key => key;

    /// <summary>16, 32 or 64.</summary>
    public int CodeBits => 16 << (int)(key & 3);

    /// <summary>The stack pointer has 32 bits (outside 64-bit mode).</summary>
    public bool Stack32 => (key & 1 << 2) != 0;

    public int TlbSet => (int)(key >> 3 & 3);

    /// <summary>Protected mode without virtual 8086.</summary>
    public bool Protected => (key & 1 << 5) != 0;

    public bool Virtual8086 => (key & 1 << 6) != 0;

    public bool Kernel => (key & 1 << 7) != 0;

    public bool Emulate => (key & 1 << 8) != 0;

    public bool TaskSwitched => (key & 1 << 9) != 0;

    public bool MonitorCoprocessor => (key & 1 << 10) != 0;

    public bool SseEnabled => (key & 1 << 11) != 0;

    public bool AvxEnabled => (key & 1 << 12) != 0;

    /// <summary>DF.</summary>
    public bool Backwards => (key & 1 << 13) != 0;

    /// <summary>One instruction a block, then back to C#.</summary>
    public bool SingleStep => (key & 1 << 14) != 0;

    /// <summary>Accesses must be aligned (CR0.AM, RFLAGS.AC, CPL 3).</summary>
    public bool ChecksAlignment => (key & 1 << 28) != 0;

    /// <summary>Limits of the code segment that a key can tell apart.</summary>
    public const int CodeLimits = 8;

    private const int CodeLimitShift = 29;

    public TranslationMode WithCodeLimit(int number) => new(key | (ulong)number << CodeLimitShift);

    public ulong KeyWithoutCodeLimit => key & ~((ulong)(CodeLimits - 1) << CodeLimitShift);

    public SegmentClass Segment(int index) => (SegmentClass)(key >> (16 + 2 * index) & 3);

    public uint CodeBase => (uint)(key >> 32);

    public bool Is64 => (key & 3) == 2;

    /// <summary>Mask for instruction pointers. 16-bit code has 32 bits, too: IP does not wrap from one instruction to the next, and branches
    /// with a 32-bit operand may go anywhere in the segment.</summary>
    public ulong RipMask => Is64 ? ulong.MaxValue : 0xFFFFFFFF;

    /// <summary>Derives the mode and the segments' <see cref="SegmentState.CheckLimit"/>.</summary>
    public static unsafe TranslationMode From(CpuContext* c, bool singleStep)
    {
        ulong key = 0;
        bool isProtected = (c->Cr0 & 1) != 0;
        bool v86 = (c->Rflags & 1 << 17) != 0;
        bool longMode = (c->Efer & 1 << 10) != 0;
        bool code64 = longMode && (c->Cs.Attributes & 1 << 13) != 0;
        key |= code64 ? 2u : (c->Cs.Attributes & 1 << 14) != 0 ? 1u : 0u;
        if ((c->Ss.Attributes & 1 << 14) != 0 && !code64)
            key |= 1 << 2;
        if (c->Cpl == 3)
            key |= 1 << 3;
        else if ((c->Cr4 & 1 << 21) != 0 && (c->Rflags & 1 << 18) != 0)
            key |= 2 << 3;
        if (isProtected && !v86)
            key |= 1 << 5;
        if (v86)
            key |= 1 << 6;
        if (c->Cpl == 0)
            key |= 1 << 7;
        if ((c->Cr0 & 4) != 0)
            key |= 1 << 8;
        if ((c->Cr0 & 8) != 0)
            key |= 1 << 9;
        if ((c->Cr0 & 2) != 0)
            key |= 1 << 10;
        if ((c->Cr4 & 1 << 9) != 0)
            key |= 1 << 11;
        if ((c->Cr4 & 1 << 18) != 0 && (c->Xcr0 & 6) == 6 && isProtected && !v86)
            key |= 1 << 12;
        if ((c->Rflags & 1 << 10) != 0)
            key |= 1 << 13;
        if (singleStep)
            key |= 1 << 14;
        if (Mode.ChecksAlignment(c))
            key |= 1 << 28;
        if (code64)
        {
            key |= (ulong)SegmentClass.Based << (16 + 2 * 4) | (ulong)SegmentClass.Based << (16 + 2 * 5);
            return new TranslationMode(key);
        }
        for (int i = 0; i < 6; i++)
            key |= (ulong)Classify(c, i, isProtected && !v86) << (16 + 2 * i);
        key |= c->Cs.Base << 32;
        return new TranslationMode(key);
    }

    private static unsafe SegmentClass Classify(CpuContext* c, int index, bool isProtected)
    {
        var s = CpuContext.Segment(c, index);
        s->CheckLimit = -((long)s->Limit + 1);
        if (isProtected)
        {
            uint type = s->Attributes & 15;
            bool usable = (s->Attributes & 1 << 16) == 0 && (s->Attributes & 0x90) == 0x90;
            bool code = (type & 8) != 0;
            // Generated code refuses stores through CS by itself; other code segments and read-only data take the slow way.
            bool fine = index == 1 ? code && (type & 2) != 0 : !code && (type & 2) != 0 && (type & 4) == 0;
            if (!usable || !fine)
            {
                s->CheckLimit = 0;
                return SegmentClass.Checked;
            }
            if (s->Limit == uint.MaxValue)
                return s->Base == 0 ? SegmentClass.Flat : SegmentClass.Based;
        }
        else if (s->Limit == uint.MaxValue)
        {
            return SegmentClass.Based;
        }
        return s->Limit >= 0xFFFF ? SegmentClass.Based64K : SegmentClass.Checked;
    }
}
