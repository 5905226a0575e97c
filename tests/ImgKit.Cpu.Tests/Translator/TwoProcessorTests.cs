using ImgKit.Cpu.Translator;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Two processors in the same memory: atomic accesses, also across pages, and code that one writes while the other runs it.</summary>
[Collection("host comparison")]
public sealed class TwoProcessorTests
{
    private const ulong Second = 0x7800;
    private const int Rounds = 20000;

    private static (CpuState First, CpuState Second) Run(Board board, Action<Assembler> first, Action<Assembler> second, Action? prepare = null)
    {
        var a = ProgramTests.Prepare64(board, first);
        board.Load(Second, ProgramTests.Assemble(64, Second, second));
        prepare?.Invoke();
        using var other = (TranslatorVcpu)board.Engine.CreateVcpu(1, board);
        a.Rip = Second;
        a.Gpr[4] = 0xA000;
        other.SetState(a);
        var exit = VcpuExit.InternalError;
        var thread = new Thread(() => exit = other.Run());
        thread.Start();
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        thread.Join();
        Assert.True(exit == VcpuExit.Halted, $"{exit} {other.Failure} {other.FailureDetail}");
        var b = new CpuState();
        board.Cpu.GetState(a);
        other.GetState(b);
        return (a, b);
    }

    private static void Repeat(Assembler a, Action body)
    {
        var loop = a.CreateLabel();
        a.mov(ecx, Rounds);
        a.Label(ref loop);
        body();
        a.dec(ecx);
        a.jne(loop);
        a.hlt();
    }

    [Theory]
    [InlineData(0x200FFE, 0x200FFE, false)]
    [InlineData(0x200FFE, 0x200FFE, true)]
    [InlineData(0x200FFC, 0x200FFE, false)]
    public unsafe void Locked_additions_across_pages_lose_nothing(int dwordAt, int wordAt, bool apart)
    {
        using var board = new Board(4 << 20);
        // Both add to the same 16 bits: one as part of a doubleword, which may lie in two pages.
        Run(board, a => Repeat(a, () => a.@lock.inc(__dword_ptr[dwordAt])),
            a => Repeat(a, () =>
            {
                if (apart)
                    a.@lock.add(__dword_ptr[wordAt], 1);
                else
                    a.@lock.add(__word_ptr[wordAt], 1);
            }),
            () =>
            {
                // Small pages, and not one behind the other where they are to be apart.
                ulong* tables = (ulong*)(board.Ram + 0x10000);
                tables[1024 + 1] = 0x20003;
                for (ulong i = 0; i < 512; i++)
                    ((ulong*)(board.Ram + 0x20000))[i] = 0x200000 + i * 4096 | 3;
                if (apart)
                    ((ulong*)(board.Ram + 0x20000))[1] = 0x303003;
            });
        ulong low = *(ushort*)(board.Ram + 0x200FFE), high = *(ushort*)(board.Ram + (apart ? 0x303000 : 0x201000));
        ulong before = *(ushort*)(board.Ram + 0x200FFC);
        Assert.Equal(dwordAt == wordAt ? (0UL, 2UL * Rounds, 0UL) : (Rounds, Rounds, 0UL), (before, low, high));
    }

    [Fact]
    public unsafe void An_exchange_of_sixteen_bytes_is_one_access()
    {
        if (!CpuModelHas16())
            return;
        using var board = new Board(4 << 20);
        void Add(Assembler a)
        {
            var again = a.CreateLabel();
            var loop = a.CreateLabel();
            a.mov(r8d, Rounds);
            a.Label(ref loop);
            a.mov(rax, __qword_ptr[0x200000]);
            a.mov(rdx, __qword_ptr[0x200008]);
            a.Label(ref again);
            a.mov(rbx, rax);
            a.mov(rcx, rdx);
            a.inc(rbx);
            a.sub(rcx, 3);
            a.@lock.cmpxchg16b(__xmmword_ptr[0x200000]);
            a.jne(again);
            a.dec(r8d);
            a.jne(loop);
            a.hlt();
        }
        Run(board, Add, Add);
        Assert.Equal((2L * Rounds, -6L * Rounds), (*(long*)(board.Ram + 0x200000), *(long*)(board.Ram + 0x200008)));
    }

    private static bool CpuModelHas16() => ImgKit.Cpu.Models.CpuModel.Parse("max").Has(ImgKit.Cpu.Models.CpuFeature.Cx16);

    [Fact]
    public void Code_that_another_processor_changes_is_run_as_it_is_then()
    {
        const int function = 0x200000, last = 2000;
        using var board = new Board(4 << 20);
        board.Load(function, ProgramTests.Assemble(64, function, a =>
        {
            a.nop();
            a.nop();
            a.nop();
            a.mov(eax, 0);
            a.ret();
        }));
        // The constant lies at a multiple of four; it only grows.
        var (first, second) = Run(board, a =>
        {
            var loop = a.CreateLabel();
            var wait = a.CreateLabel();
            a.xor(ecx, ecx);
            a.Label(ref loop);
            a.inc(ecx);
            a.mov(__dword_ptr[function + 4], ecx);
            a.mov(edx, 50);
            a.Label(ref wait);
            a.dec(edx);
            a.jne(wait);
            a.cmp(ecx, last);
            a.jne(loop);
            a.hlt();
        }, a =>
        {
            var loop = a.CreateLabel();
            var bad = a.CreateLabel();
            a.xor(r12d, r12d);
            a.xor(r13d, r13d);
            a.mov(rsi, function);
            a.Label(ref loop);
            a.call(rsi);
            a.cmp(eax, r12d);
            a.jb(bad);
            a.setne(dl);
            a.movzx(edx, dl);
            a.add(r13d, edx);
            a.mov(r12d, eax);
            a.cmp(eax, last);
            a.jne(loop);
            a.Label(ref bad);
            a.hlt();
        });
        Assert.Equal((ulong)last, first.Gpr[1]);
        Assert.Equal((ulong)last, second.Gpr[12]);
        Assert.True(second.Gpr[13] > 0);
    }
}
