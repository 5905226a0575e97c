using Iced.Intel;
using ImgKit.Cpu.Architecture;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Traps and NMIs between two instructions, where an instruction has a say in when they come. In R13: how often the handler ran.</summary>
[Collection("host comparison")]
public sealed class TrapTests
{
    private const ulong Code = 0x7000, Idt = 0x2000, Handler = 0x5900, Interrupt40 = 0x5800, Data = 0x30000, Device = 0x1000_0000, Tss = 0x31000;

    private static CpuState Run(Board board, CpuState s)
    {
        board.Cpu.SetState(s);
        var exit = board.Cpu.Run();
        Assert.True(exit == VcpuExit.Halted, $"{exit} {board.Cpu.Failure} {board.Cpu.FailureDetail}");
        board.Cpu.GetState(s);
        return s;
    }

    private static unsafe void Handle(Board board, byte vector, Action<Assembler> handler)
    {
        *(ulong*)(board.Ram + Idt + vector * 16) = Handler | 8 << 16 | 0x8E00UL << 32;
        board.Load(Handler, ProgramTests.Assemble(64, Handler, handler));
    }

    private static void Count(Assembler a)
    {
        a.inc(r13);
        a.mov(r12, __[rsp]);
        a.iretq();
    }

    [Fact]
    public void An_nmi_that_waits_is_taken_behind_an_iret_that_goes_to_the_next_instruction()
    {
        using var board = new Board(4 << 20);
        board.DeviceWritten = board.Cpu.RaiseNmi;
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.mov(__dword_ptr[Device], eax);
            a.nop();
            a.hlt();
        });
        Handle(board, 2, a =>
        {
            var nested = a.CreateLabel();
            var next = a.CreateLabel();
            a.inc(r13);
            a.cmp(r13, 2);
            a.je(nested);
            a.mov(__dword_ptr[Device], eax);
            a.mov(rdx, rsp);
            a.push(0x10);
            a.push(rdx);
            a.pushfq();
            a.push(8);
            a.lea(rax, __[next]);
            a.push(rax);
            a.iretq();
            a.Label(ref next);
            a.mov(r12, r13);
            a.hlt();
            a.Label(ref nested);
            a.iretq();
        });
        Assert.Equal(2UL, Run(board, s).Gpr[12]);
    }

    [Theory]
    [InlineData(0x40, 1, Interrupt40)]      // INT n: the handler is entered, then interrupted
    [InlineData(3, 1, Interrupt40)]         // INT3
    [InlineData(1, 1, Code + 8)]            // INT1: one exception for both
    [InlineData(0, 1, Code + 8)]            // NOP
    public unsafe void A_breakpoint_on_what_is_loaded_into_ss_comes_one_instruction_later(byte vector, ulong count, ulong address)
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.mov(ss, __word_ptr[Data]);
            switch (vector)
            {
                case 0: a.nop(); break;
                case 1: a.int1(); break;
                case 3: a.int3(); break;
                default: a.@int(vector); break;
            }
            a.hlt();
        });
        *(ulong*)(board.Ram + Idt + 3 * 16) = *(ulong*)(board.Ram + Idt + 0x40 * 16);
        *(ushort*)(board.Ram + Data) = 0x10;
        Handle(board, 1, Count);
        s.Dr[1] = Data;
        s.Dr[6] = 0xFFFF0FF4;
        s.Dr[7] = 0x70_0408;                // DR1: 2 bytes, read or written
        Run(board, s);
        Assert.Equal((count, address, vector > 1 ? 1UL : 0), (s.Gpr[13], s.Gpr[12], s.Gpr[14]));
        Assert.Equal(0xFFFF0FF2UL, s.Dr[6]);
    }

    [Fact]
    public void A_system_call_that_masks_tf_is_not_followed_by_a_trap()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.pushfq();
            a.or(__qword_ptr[rsp], 0x100);
            a.popfq();
            a.syscall();
        });
        board.Load(0x6000, [0x90, 0xF4]);
        Handle(board, 1, Count);
        s.Msrs[0xC0000080] = 0x501;
        s.Msrs[0xC0000081] = 8UL << 32;
        s.Msrs[0xC0000082] = 0x6000;
        s.Msrs[0xC0000084] = Flags.Tf;
        Assert.Equal((0UL, 0x6002UL), (Run(board, s).Gpr[13], s.Rip));
        Assert.NotEqual(0UL, s.Gpr[11] & Flags.Tf);
    }

    [Fact]
    public unsafe void A_return_from_a_system_call_that_sets_tf_is_a_trap_before_the_next_instruction()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a => a.sysretq());
        *(ulong*)(board.Ram + 0x10000) |= 4;
        *(ulong*)(board.Ram + 0x11000) |= 4;
        *(ulong*)(board.Ram + 0x12000) |= 4;
        *(ulong*)(board.Ram + Tss + 4) = 0x9000;
        Handle(board, 1, a =>
        {
            a.mov(r12, __[rsp]);
            a.hlt();
        });
        s.Tr = new SegmentRegister(0x20, Tss, 0x67, 0x8B);
        s.Msrs[0xC0000080] = 0x501;
        s.Msrs[0xC0000081] = 0x18UL << 48;
        s.Gpr[1] = 0x6000;
        s.Gpr[11] = 2 | Flags.Tf;
        Assert.Equal(0x6000UL, Run(board, s).Gpr[12]);
    }
}
