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

    [Fact]
    public unsafe void Host_addresses_stay_out_of_x87_environments()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.fninit();
            a.fldpi();
            a.fld(__dword_ptr[rsi]);
            a.fnstenv(__[rbx]);
            a.fxsave64(__[rcx]);
            a.fnsave(__[rdx]);
            a.hlt();
        });
        s.Gpr[3] = 0x8004;
        s.Gpr[1] = 0x8200;
        s.Gpr[2] = 0x8504;
        s.Gpr[6] = 0x8800;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(0UL, s.Gpr[15]);
        foreach (int at in (ReadOnlySpan<int>)[0x8004, 0x8504])
        {
            Assert.Equal(0x3000, *(ushort*)(board.Ram + at + 4));
            Assert.Equal((0UL, 0UL), (*(ulong*)(board.Ram + at + 12), *(ulong*)(board.Ram + at + 20)));
        }
        // Processors differ in whether they keep them without an exception; what they keep is the load's address.
        Assert.Contains(*(ulong*)(board.Ram + 0x8208), (ulong[])[0, 0x7004]);
        Assert.Equal(0UL, *(ulong*)(board.Ram + 0x8210));
        // PI is below the zero on the stack.
        Assert.Equal(0x4000, *(ushort*)(board.Ram + 0x8504 + 28 + 10 + 8));
    }
}
