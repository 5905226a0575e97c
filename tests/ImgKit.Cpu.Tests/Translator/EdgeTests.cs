using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Corners of single instructions that need a guest's page tables or exceptions to be seen.</summary>
[Collection("host comparison")]
public sealed class EdgeTests
{
    private const ulong Data = 0x200000;

    [Fact]
    public unsafe void An_invalidated_page_is_walked_again_for_data_and_for_code()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.mov(rax, __qword_ptr[rbx]);
            a.call(rsi);
            a.mov(__qword_ptr[rcx], rdx);
            a.mov(r8, __qword_ptr[rbx]);
            a.invlpg(__[rbx]);
            a.mov(rdi, __qword_ptr[rbx]);
            a.mov(r12, r14);
            a.call(rsi);
            a.hlt();
        });
        ulong* tables = (ulong*)(board.Ram + 0x10000);
        ulong* leaf = (ulong*)(board.Ram + 0x20000);
        tables[1024 + 1] = 0x20003;
        leaf[0] = 0x300003;
        // The table itself lies below, in a large page that stays.
        foreach (uint page in (ReadOnlySpan<uint>)[0x300000, 0x301000])
        {
            *(ulong*)(board.Ram + page) = page;
            board.Load(page + 64, ProgramTests.Assemble(64, Data + 64, a =>
            {
                a.mov(r14d, page);
                a.ret();
            }));
        }
        s.Gpr[3] = Data;
        s.Gpr[6] = Data + 64;
        s.Gpr[1] = 0x20000;
        s.Gpr[2] = 0x301003;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal((0x300000UL, 0x301000UL), (s.Gpr[0], s.Gpr[7]));
        Assert.Equal((0x300000UL, 0x301000UL), (s.Gpr[12], s.Gpr[14]));
    }

    [Fact]
    public void Swapgs_exchanges_the_bases()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.mov(rax, __qword_ptr.gs[0]);
            a.swapgs();
            a.mov(rdx, __qword_ptr.gs[0]);
            a.swapgs();
            a.mov(rsi, __qword_ptr.gs[0]);
            a.swapgs();
            a.hlt();
        });
        board.Load(0x8000, [1]);
        board.Load(0x8100, [2]);
        s.Segments[5] = s.Segments[5] with { Base = 0x8000 };
        s.Msrs[0xC0000102] = 0x8100;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal((1UL, 2UL, 1UL), (s.Gpr[0], s.Gpr[2], s.Gpr[6]));
        Assert.Equal((0x8100UL, 0x8000UL), (s.Segments[5].Base, s.Msrs[0xC0000102]));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public unsafe void A_masked_element_beyond_the_last_page_does_not_fault(bool store)
    {
        if (!System.Runtime.Intrinsics.X86.Avx.IsSupported)
            return;
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            if (store)
                a.vmaskmovps(__[rbx], ymm1, ymm2);
            else
                a.vmaskmovps(ymm2, ymm1, __[rbx]);
            a.hlt();
        });
        ulong* tables = (ulong*)(board.Ram + 0x10000);
        ulong* leaf = (ulong*)(board.Ram + 0x20000);
        tables[1024 + 1] = 0x20003;
        leaf[0] = 0x300003;
        *(uint*)(board.Ram + 0x300FF8) = 0x1111;
        *(uint*)(board.Ram + 0x300FFC) = 0x2222;
        s.Gpr[3] = Data + 4096 - 8;
        s.Cr4 |= 1 << 18;
        s.Xcr0 = 7;
        Array.Clear(s.Xsave);
        s.Xsave[512] = 7;
        // Elements 0 and 1 of the mask; all of the data is 7.
        s.Xsave[160 + 16 + 3] = s.Xsave[160 + 16 + 7] = 0x80;
        s.Xsave.AsSpan(160 + 32, 16).Fill(7);
        s.Xsave.AsSpan(576 + 32, 16).Fill(7);
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(0UL, s.Gpr[15]);
        Assert.Equal(Data + 4096 - 8, s.Gpr[3]);
        if (store)
        {
            Assert.Equal(0x0707070707070707UL, *(ulong*)(board.Ram + 0x300FF8));
            return;
        }
        Assert.Equal(0x0000222200001111UL, BitConverter.ToUInt64(s.Xsave, 160 + 32));
        Assert.Equal(0UL, BitConverter.ToUInt64(s.Xsave, 160 + 40));
        Assert.Equal(0UL, BitConverter.ToUInt64(s.Xsave, 576 + 32));
    }

    [Theory]
    [InlineData(14, 6)]
    [InlineData(15, 13)]
    public void An_instruction_of_more_than_fifteen_bytes_is_a_protection_fault(int prefixes, int vector)
    {
        using var board = new Board(4 << 20);
        // 14 prefixes and NOP are fine, and what follows is undefined.
        var s = ProgramTests.Prepare64(board, a => a.db([.. Enumerable.Repeat((byte)0x66, prefixes), 0x90, 0x0F, 0x0B]));
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal((ulong)vector, s.Gpr[15]);
    }

    /// <summary>Pointers as they are, or none: the host's processor may lose them when its kernel switches threads.</summary>
    private static void CheckPointers(ulong code, ulong data, ulong wantCode, ulong wantData)
    {
        if ((code, data) != (0UL, 0UL))
            Assert.Equal((wantCode, wantData), (code, data));
    }

    [Fact]
    public unsafe void The_last_x87_instruction_and_its_operand_are_in_environments()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.fninit();
            a.fldpi();
            a.fld(__dword_ptr[rsi]);
            a.fnstenv(__[rbx]);
            // Across two pages, by way of a copy; then another access that has to be copied.
            a.fld(__qword_ptr[rdi]);
            a.add(__dword_ptr[rdi], 0);
            a.fnstcw(__word_ptr[rsi]);
            a.fnsave(__[rdx]);
            a.fxsave64(__[rcx]);
            a.hlt();
        });
        s.Gpr[3] = 0x8004;
        s.Gpr[1] = 0x8200;
        s.Gpr[2] = 0x8504;
        s.Gpr[6] = 0x8800;
        s.Gpr[7] = 0xAFFE;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(0UL, s.Gpr[15]);
        byte* environment = board.Ram + 0x8004;
        Assert.Equal((0xFFFF3000u, 0xFFFF1FFFu), (*(uint*)(environment + 4), *(uint*)(environment + 8)));
        CheckPointers(*(uint*)(environment + 12), *(uint*)(environment + 20), 0x7004, 0x8800);
        if (*(uint*)(environment + 12) != 0)
            Assert.Equal((0x01060008u, 0xFFFF0010u), (*(uint*)(environment + 16), *(uint*)(environment + 24)));
        byte* state = board.Ram + 0x8504;
        CheckPointers(*(uint*)(state + 12), *(uint*)(state + 20), 0x7008, 0xAFFE);
        // FNSAVE initialises.
        Assert.Equal((0UL, 0UL), (*(ulong*)(board.Ram + 0x8208), *(ulong*)(board.Ram + 0x8210)));
        // PI is below the two on the stack.
        Assert.Equal(0x4000, *(ushort*)(state + 28 + 20 + 8));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public unsafe void A_floating_point_exception_knows_its_instruction_and_operand(bool miss)
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.fninit();
            a.fldcw(__word_ptr[rsi]);
            a.fld1();
            if (miss)
                a.mov(eax, __dword_ptr[rdi + 0x200000]);
            a.fdiv(__dword_ptr[rdi]);
            a.nop();
            if (miss)
                a.inc(__dword_ptr[rdi + 0x300000]);
            a.wait();
            a.hlt();
        });
        *(ushort*)(board.Ram + 0x8000) = 0x37B;
        s.Gpr[6] = 0x8000;
        s.Gpr[7] = 0x8100;
        // The handler of #MF saves the state.
        board.Load(0x5000 + 16 * 32, ProgramTests.Assemble(64, 0x5000 + 16 * 32, a =>
        {
            a.fxsave64(__[0x8200]);
            a.fnstenv(__[0x8400]);
            a.mov(r15d, 16);
            a.hlt();
        }));
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(16UL, s.Gpr[15]);
        ulong at = 0x7000 + 2 + 2 + 2 + (miss ? 6u : 0);
        Assert.Equal((at, 0x8100UL), (*(ulong*)(board.Ram + 0x8208), *(ulong*)(board.Ram + 0x8210)));
        Assert.Equal(0x037, *(ushort*)(board.Ram + 0x8206));
        Assert.Equal((uint)at, *(uint*)(board.Ram + 0x840C));
        Assert.Equal(at + 3 + (miss ? 6u : 0), *(ulong*)(board.Ram + s.Gpr[4]));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public unsafe void Real_mode_environments_have_linear_addresses(bool wide)
    {
        using var board = new Board(1 << 20);
        var s = new CpuState();
        board.Cpu.GetState(s);
        board.Load(0x12340, ProgramTests.Assemble(16, 0x20, a =>
        {
            a.fninit();
            a.fld(__dword_ptr[0x123]);
            if (wide)
                a.db(0x66);
            a.db(0xD9, 0x36, 0x00, 0x05); // fnstenv [500h]
            if (wide)
                a.db(0x66);
            a.db(0xD9, 0x26, 0x00, 0x05); // fldenv [500h]
            if (wide)
                a.db(0x66);
            a.db(0xD9, 0x36, 0x00, 0x06); // fnstenv [600h]
            a.hlt();
        }));
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0, 0, 0xFFFF, 0x93);
        s.Segments[1] = new SegmentRegister(0x1232, 0x12320, 0xFFFF, 0x9B);
        s.Segments[3] = new SegmentRegister(0x3456, 0x34560, 0xFFFF, 0x93);
        s.Rip = 0x20;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        byte* image = board.Ram + 0x34560 + 0x500;
        Assert.Equal(0x3800, *(ushort*)(image + (wide ? 4 : 2)));
        uint code = wide ? *(ushort*)(image + 12) | (*(uint*)(image + 16) & 0xFFFF000) << 4 : *(ushort*)(image + 6) | (uint)(*(ushort*)(image + 8) & 0xF000) << 4;
        uint data = wide ? *(ushort*)(image + 20) | *(uint*)(image + 24) << 4 : *(ushort*)(image + 10) | (uint)*(ushort*)(image + 12) << 4;
        CheckPointers(code, data, 0x12342, 0x34683);
        if (code != 0)
            Assert.Equal(0x106, *(ushort*)(image + (wide ? 16 : 8)) & 0x7FF);
        int size = wide ? 28 : 14;
        Assert.Equal(Convert.ToHexString(new ReadOnlySpan<byte>(image, size)), Convert.ToHexString(new ReadOnlySpan<byte>(image + 0x100, size)));
    }
}
