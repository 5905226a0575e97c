using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Numeric errors with CR0.NE clear: FERR#, an interrupt, IGNNE#, as programs of DOS have them.</summary>
public sealed class NumericErrorTests
{
    private const ulong Code = 0x7000, Handler = 0x6000;
    private const int Vector = 0x75;

    private static unsafe CpuState Run(Board board, Action<Assembler> program, Action<Assembler> handler, VcpuExit expected = VcpuExit.Halted)
    {
        board.Load(Code, ProgramTests.Assemble(16, Code, a =>
        {
            a.fninit();
            a.fldcw(__word_ptr[0x500]);
            a.fld1();
            a.fdiv(__dword_ptr[0x510]);
            program(a);
        }));
        board.Load(Handler, ProgramTests.Assemble(16, Handler, handler));
        *(ushort*)(board.Ram + 0x500) = 0x37B;
        *(ushort*)(board.Ram + 0x502) = 0x37F;
        *(uint*)(board.Ram + Vector * 4) = (uint)Handler;
        var s = new CpuState();
        board.Cpu.GetState(s);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0, 0, 0xFFFF, i == 1 ? 0x9Bu : 0x93u);
        s.Rip = Code;
        s.Gpr[4] = 0x5000;
        s.Rflags = 0x202;
        s.Halted = false;
        s.Idtr = (0, 0x3FF);
        board.Cpu.SetState(s);
        var exit = board.Cpu.Run();
        Assert.True(exit == expected, $"{exit} {board.Cpu.Failure} {board.Cpu.FailureDetail}");
        board.Cpu.GetState(s);
        return s;
    }

    [Fact]
    public void A_waiting_instruction_stands_until_the_interrupt_has_been_served()
    {
        using var board = new Board(1 << 20) { FpuErrorVector = Vector };
        var s = Run(board, a =>
        {
            a.inc(si);
            a.wait();
            a.inc(di);
            a.hlt();
        }, a =>
        {
            a.inc(bx);
            a.@out(0xF0, al);
            a.fnstsw(__word_ptr[0x520]);
            a.fnclex();
            a.iret();
        });
        Assert.Equal((1UL, 1UL, 1UL, 1), (s.Gpr[3], s.Gpr[6], s.Gpr[7], board.FpuErrors));
        unsafe
        {
            Assert.Equal(0x8084, *(ushort*)(board.Ram + 0x520) & 0xC0FF);
            // The frame was that of FWAIT.
            Assert.Equal(Code + 2 + 4 + 2 + 4 + 1, *(ushort*)(board.Ram + 0x4FFA));
        }
        // A second error is a new one.
        s = Run(board, a => a.fld1(), a =>
        {
            a.inc(bx);
            a.hlt();
        });
        Assert.Equal((2UL, 2), (s.Gpr[3], board.FpuErrors));
    }

    [Fact]
    public void Ignored_errors_stay_until_they_are_cleared_and_come_back_afterwards()
    {
        using var board = new Board(1 << 20) { FpuErrorVector = Vector };
        var s = Run(board, a =>
        {
            a.wait();
            a.fld1();
            a.fdiv(__dword_ptr[0x510]);
            a.wait();
            a.hlt();
        }, a =>
        {
            a.inc(bx);
            a.@out(0xF0, al);
            // Waiting instructions go on beside the error...
            a.fld1();
            a.fstp(__dword_ptr[0x530]);
            a.fldcw(__word_ptr[0x502]);
            a.fnstsw(__word_ptr[0x520]);
            a.fldcw(__word_ptr[0x500]);
            a.fnstsw(__word_ptr[0x522]);
            a.fnstcw(__word_ptr[0x524]);
            // ... and FSAVE ends it.
            a.fnsave(__[0x600]);
            a.fldcw(__word_ptr[0x500]);
            a.iret();
        });
        Assert.Equal((2UL, 2), (s.Gpr[3], board.FpuErrors));
        unsafe
        {
            Assert.Equal(0x3F800000u, *(uint*)(board.Ram + 0x530));
            // Masked, it is no error, but a flag; then it is one again.
            Assert.Equal((0x04, 0x8084, 0x37B), (*(ushort*)(board.Ram + 0x520) & 0xC0FF, *(ushort*)(board.Ram + 0x522) & 0xC0FF, *(ushort*)(board.Ram + 0x524)));
        }
    }

    [Fact]
    public void Without_an_interrupt_the_processor_stands()
    {
        using var board = new Board(1 << 20);
        var s = Run(board, a =>
        {
            a.cli();
            a.fldenv(__[0x700]);
            a.inc(di);
            a.hlt();
        }, a => a.hlt());
        Assert.Equal((0UL, 1, true), (s.Gpr[7], board.FpuErrors, s.Halted));
        Assert.Equal(Code + 2 + 4 + 2 + 4 + 1, s.Rip);
        // Real hardware goes on when IGNNE# comes; here any event lets it look again.
        board.Cpu.IgnoreFpuErrors();
        s.Halted = false;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(1UL, s.Gpr[7]);
    }

    [Fact]
    public void With_ne_it_is_an_exception()
    {
        using var board = new Board(1 << 20) { FpuErrorVector = Vector };
        unsafe
        {
            *(uint*)(board.Ram + 16 * 4) = (uint)Handler;
        }
        var s = Run(board, a =>
        {
            a.mov(eax, cr0);
            a.or(al, 0x20);
            a.mov(cr0, eax);
            a.wait();
            a.hlt();
        }, a =>
        {
            a.inc(bx);
            a.hlt();
        });
        Assert.Equal((1UL, 0), (s.Gpr[3], board.FpuErrors));
    }
}
