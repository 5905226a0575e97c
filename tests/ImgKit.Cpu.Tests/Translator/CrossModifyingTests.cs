using ImgKit.Cpu.Translator;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>One processor rewrites what another executes.</summary>
[Collection("host comparison")]
public sealed class CrossModifyingTests
{
    private const ulong Code = 0x200000, Sequence = 0x300000, Answer = 0x301000;
    private const int Rounds = 400;

    /// <summary>The reader also executes the code at moments that nobody agreed on, so that it is translated while it changes.</summary>
    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public unsafe void What_is_announced_is_what_the_other_processor_executes(bool unannounced, bool strings)
    {
        using var board = new Board(4 << 20);
        using var other = (TranslatorVcpu)board.Engine.CreateVcpu(1, board);
        board.Load(Code, ProgramTests.Assemble(64, Code, a =>
        {
            a.mov(eax, 0);
            a.ret();
        }));
        var writer = ProgramTests.Prepare64(board, a =>
        {
            var next = a.CreateLabel();
            var wait = a.CreateLabel();
            a.xor(edx, edx);
            a.Label(ref next);
            a.inc(edx);
            a.mov(__dword_ptr[rbx - 64], edx);
            if (strings)
            {
                a.mov(eax, edx);
                a.lea(rdi, __[rbx + 1]);
                a.mov(ecx, 1);
                a.rep.stosd();
            }
            else
            {
                a.mov(__dword_ptr[rbx + 1], edx);
            }
            a.mov(__dword_ptr[rbx + 64], edx);
            a.mov(__dword_ptr[r8], edx);
            a.Label(ref wait);
            a.pause();
            a.cmp(__dword_ptr[r9], edx);
            a.jb(wait);
            a.cmp(edx, Rounds);
            a.jb(next);
            a.hlt();
        });
        const ulong readerAt = 0xA000;
        board.Load(readerAt, ProgramTests.Assemble(64, readerAt, a =>
        {
            var next = a.CreateLabel();
            var wait = a.CreateLabel();
            var wrong = a.CreateLabel();
            a.xor(r10d, r10d);
            a.Label(ref next);
            a.inc(r10d);
            a.Label(ref wait);
            if (unannounced)
            {
                a.call(Code);
                a.cmp(eax, r10d);
                a.ja(wrong);
            }
            a.pause();
            a.cmp(__dword_ptr[r8], r10d);
            a.jne(wait);
            a.xor(eax, eax);
            a.cpuid();
            a.call(Code);
            a.cmp(eax, r10d);
            a.jne(wrong);
            a.mov(__dword_ptr[r9], r10d);
            a.cmp(r10d, Rounds);
            a.jb(next);
            a.Label(ref wrong);
            // The writer, too, comes to its end.
            a.mov(__dword_ptr[r9], Rounds);
            a.hlt();
        }));
        writer.Gpr[3] = Code;
        writer.Gpr[8] = Sequence;
        writer.Gpr[9] = Answer;
        board.Cpu.SetState(writer);
        writer.Rip = readerAt;
        writer.Gpr[4] = 0x9800;
        other.SetState(writer);
        var thread = new Thread(() => other.Run());
        thread.Start();
        var deadline = new Timer(_ =>
        {
            board.Cpu.Kick();
            other.Kick();
        }, null, 60000, 100);
        var exit = board.Cpu.Run();
        thread.Join();
        deadline.Dispose();
        var s = new CpuState();
        other.GetState(s);
        Assert.Equal(((uint)Rounds, (ulong)Rounds), ((uint)s.Gpr[0], s.Gpr[10]));
        Assert.Equal(VcpuExit.Halted, exit);
    }

    [Fact]
    public unsafe void A_store_looked_up_before_its_page_had_code_is_seen_by_what_runs_there_since()
    {
        using var board = new Board(4 << 20);
        using var other = (TranslatorVcpu)board.Engine.CreateVcpu(1, board);
        ulong* leaf = (ulong*)(board.Ram + 0x20000);
        // A store, a device, and a store beside the first one.
        var state = ProgramTests.Prepare64(board, a =>
        {
            a.mov(__dword_ptr[rbx + 64], edx);
            a.mov(__dword_ptr[rsi], edx);
            a.mov(__dword_ptr[rbx + 1], edx);
            a.hlt();
        });
        ((ulong*)(board.Ram + 0x10000))[1024 + 2] = 0x20003;
        leaf[0] = 0xFE000003;
        board.Load(Code, ProgramTests.Assemble(64, Code, a =>
        {
            a.mov(eax, 1);
            a.hlt();
        }));
        state.Gpr[3] = Code;
        state.Gpr[2] = 2;
        state.Gpr[6] = 0x400000;
        board.Cpu.SetState(state);
        var s = new CpuState();
        void Execute(ulong expected)
        {
            state.Rip = Code;
            other.SetState(state);
            Assert.Equal(VcpuExit.Halted, other.Run());
            other.GetState(s);
            Assert.Equal(expected, s.Gpr[0]);
        }
        Exception? failure = null;
        board.DeviceWritten = () =>
        {
            var thread = new Thread(() => failure = Record.Exception(() => Execute(1)));
            thread.Start();
            thread.Join();
        };
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        Assert.Null(failure);
        Assert.Single(board.MmioWrites);
        Execute(2);
    }
}
