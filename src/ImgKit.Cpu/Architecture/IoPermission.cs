namespace ImgKit.Cpu.Architecture;

/// <summary>Who may use an I/O port (Intel SDM 1, 19.5).</summary>
public static unsafe class IoPermission
{
    /// <summary>#GP where IN, OUT, INS or OUTS of <paramref name="size"/> bytes is forbidden.</summary>
    public static void Check(CpuContext* c, CpuServices s, ushort port, int size)
    {
        if (Mode.IsReal(c) || (c->Cpl <= Mode.Iopl(c) && !Mode.IsVirtual8086(c)))
            return;
        if (!IsMapped(c, s, port, size))
            throw Faults.GeneralProtection();
    }

    private static bool IsMapped(CpuContext* c, CpuServices s, ushort port, int size)
    {
        const uint baseField = 0x66;
        if ((c->Tr.Attributes & SegmentAttributes.Unusable) != 0 || !TaskState.Is32Bit(c) || c->Tr.Limit < baseField + 1)
            return false;
        // Two bytes are always read, so that a check across a byte needs no second look; both must be within the limit.
        uint offset = (uint)s.ReadLinear(c->Tr.Base + baseField, 2, LinearAccess.System) + (port / 8u);
        if (offset + 1 > c->Tr.Limit)
            return false;
        uint bits = (uint)s.ReadLinear(c->Tr.Base + offset, 2, LinearAccess.System) >> (port & 7);
        return (bits & ((1u << size) - 1)) == 0;
    }
}
