namespace ImgKit.Cpu.Architecture;

/// <summary>Reads of the current task-state segment (Intel SDM 3A 7.2.1, 7.6, 7.7).</summary>
internal static unsafe class TaskState
{
    /// <summary>The TSS in TR has the 32-bit layout (in long mode the 64-bit one).</summary>
    public static bool Is32Bit(CpuContext* c) => (c->Tr.Attributes & 8) != 0;

    /// <summary>SS:ESP of an inner level.</summary>
    /// <param name="c">state.</param>
    /// <param name="s">the processor.</param>
    /// <param name="cpl">0..2.</param>
    /// <param name="external">bit 0 of error codes.</param>
    public static (ushort Selector, uint Pointer) InnerStack(CpuContext* c, CpuServices s, int cpl, uint external)
    {
        bool wide = Is32Bit(c);
        uint offset = (uint)(wide ? 4 + (cpl * 8) : 2 + (cpl * 4));
        if ((c->Tr.Attributes & SegmentAttributes.Unusable) != 0 || offset + (wide ? 5u : 3u) > c->Tr.Limit)
            throw Faults.InvalidTss((c->Tr.Selector & Faults.SelectorMask) | external);
        ulong address = c->Tr.Base + offset;
        return wide
            ? ((ushort)s.ReadLinear(address + 4, 2, LinearAccess.System), (uint)s.ReadLinear(address, 4, LinearAccess.System))
            : ((ushort)s.ReadLinear(address + 2, 2, LinearAccess.System), (uint)s.ReadLinear(address, 2, LinearAccess.System));
    }

    /// <summary>A 64-bit stack pointer: RSP0..2 at 4, 12, 20; IST1..7 from 36.</summary>
    public static ulong StackPointer64(CpuContext* c, CpuServices s, int offset)
    {
        if ((c->Tr.Attributes & SegmentAttributes.Unusable) != 0 || (uint)offset + 7 > c->Tr.Limit)
            throw Faults.InvalidTss(c->Tr.Selector & Faults.SelectorMask);
        ulong pointer = s.ReadLinear(c->Tr.Base + (uint)offset, 8, LinearAccess.System);
        return PageWalker.IsCanonical(c, pointer) ? pointer : throw Faults.Stack();
    }
}
