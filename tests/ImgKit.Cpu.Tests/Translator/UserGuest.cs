namespace ImgKit.Cpu.Tests.Translator;

/// <summary>What a guest in long mode needs so that a program at privilege level 3 can fault: page tables, an IDT whose handlers halt, a TSS.</summary>
internal sealed unsafe class UserGuest
{
    private const ulong Idt = 0x2000, Gdt = 0x3000, Tss = 0x4000, Handlers = 0x5000, KernelStack = 0x9000;
    private readonly Board _board;
    private readonly int _bits;

    public UserGuest(Board board, int bits, ulong pageTables)
    {
        _board = board;
        _bits = bits;
        ulong* tables = (ulong*)(board.Ram + pageTables);
        tables[0] |= 4;
        tables[512] |= 4;
        for (int i = 0; i < 512; i++)
            tables[1024 + i] |= 4;
        // The comparison's memory in small pages, two of them as the host has them.
        tables[1024 + (int)(HostComparison.Region >> 21)] = pageTables + 0x3007;
        for (int i = 0; i < 512; i++)
            tables[1536 + i] = HostComparison.Region + (ulong)i * 4096 | 7;
        tables[1536 + (int)((HostComparison.ReadOnlyPage - HostComparison.Region) >> 12)] &= ~2UL;
        tables[1536 + (int)((HostComparison.Hole - HostComparison.Region) >> 12)] = 0;
        *(ulong*)(board.Ram + Gdt + 8) = 0x00AF9B000000FFFF;
        *(ulong*)(board.Ram + Tss + 4) = KernelStack;
        for (ulong v = 0; v < 32; v++)
        {
            *(board.Ram + Handlers + v * 16) = 0xF4;
            *(ulong*)(board.Ram + Idt + v * 16) = Handlers + v * 16 | 8 << 16 | 0x8E00UL << 32 | (v is 3 or 4 ? 0x6000UL << 32 : 0);
        }
    }

    public readonly record struct Fault(ulong Vector, ulong Error, ulong Rip);

    /// <summary>Long mode at privilege level 3, with a state that has everything else.</summary>
    public void Prepare(CpuState s)
    {
        var data = new SegmentRegister(0x2B, 0, uint.MaxValue, 0xC0F3);
        var code = new SegmentRegister(0x33, 0, uint.MaxValue, 0xA0FB);
        if (_bits == 32)
            code = code with { Selector = 0x23, Attributes = 0xC0FB };
        if (_bits == 16)
        {
            code = new SegmentRegister(7, HostComparison.Code, 0xFFFF, 0x00FB);
            data = new SegmentRegister(0xF, HostComparison.Data, 0xFFFF, 0x40F3);
        }
        for (int i = 0; i < 6; i++)
            s.Segments[i] = i == 1 ? code : data;
        if (_bits == 64)
            s.Segments[4] = s.Segments[5] = data with { Selector = 0, Attributes = 0x10000 };
        s.Tr = new SegmentRegister(0x40, Tss, 0x67, 0x8B);
        s.Gdtr = (Gdt, 0x3F);
        s.Idtr = (Idt, 0x1FF);
        s.Cr0 = 0x80050033;
        s.Msrs[0xC0000080] = 0xD00;
    }

    /// <summary>Takes the frame off the handler's stack: registers become those of the program.</summary>
    public bool TryTakeFault(CpuState s, out Fault fault)
    {
        fault = default;
        ulong vector = (s.Rip - 1 - Handlers) / 16;
        if (vector > 31 || s.Gpr[4] >= KernelStack || s.Gpr[4] < KernelStack - 64)
            return false;
        ulong* frame = (ulong*)(_board.Ram + s.Gpr[4]);
        ulong error = vector is 8 or (>= 10 and <= 14) or 17 ? *frame++ : 0;
        fault = new Fault(vector, error, frame[0]);
        s.Rip = frame[0];
        s.Rflags = frame[2];
        s.Gpr[4] = frame[3];
        return true;
    }
}
