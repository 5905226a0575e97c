using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Blocks look a page up once for several accesses: whatever the base register does in between, and wherever pages end, the
/// result is that of one instruction at a time.</summary>
[Collection("host comparison")]
public sealed class WindowTests
{
    private const ulong Code = 0x7000, Data = 0x200000;

    private static readonly AssemblerRegister64[] Bases = [rbx, rsp, rbp, rsi, r12, r13, r15, rcx];

    /// <summary>Straight code of pushes, pops, loads, stores, read-modify-writes and changes of base registers.</summary>
    private static void Write(Assembler a, Random random)
    {
        for (int i = 0; i < 24; i++)
        {
            var at = Bases[random.Next(Bases.Length)];
            int displacement = random.Next(-3, 12) * 8 + (random.Next(8) == 0 ? random.Next(8) : 0);
            switch (random.Next(17))
            {
                case 0 or 1:
                    a.push(random.Next(2) == 0 ? rax : r14);
                    break;
                case 2 or 3:
                    a.pop(random.Next(2) == 0 ? rdx : r8);
                    break;
                case 4 or 5 or 6:
                    a.mov(rax, __qword_ptr[at + displacement]);
                    break;
                case 7 or 8:
                    a.mov(__qword_ptr[at + displacement], rdi);
                    break;
                case 9:
                    a.add(__dword_ptr[at + displacement], 0x1234567);
                    break;
                case 10:
                    a.adc(r14, __qword_ptr[at + displacement]);
                    break;
                case 11:
                    // AH and a REX prefix exclude each other.
                    a.mov(__byte_ptr[Bases[random.Next(4)] + displacement], ah);
                    break;
                case 12:
                    a.add(at, 8 * random.Next(-4, 5));
                    break;
                case 13:
                    a.lea(at, __[at + 8 * random.Next(-4, 5)]);
                    break;
                case 14:
                    a.xchg(__qword_ptr[at + displacement], rdi);
                    break;
                case 15:
                    a.pushfq();
                    a.push(random.Next(0x10000) & (0xAD5 | 1 << 21) | 2);
                    a.popfq();
                    a.pop(rax);
                    break;
                default:
                    a.mov(at, random.Next(2) == 0 ? r9 : r10);
                    break;
            }
        }
        a.hlt();
    }

    /// <summary>A loop of some dozens of rounds: accesses through a base and an index that advance, ways out of its middle.</summary>
    private static void WriteLoop(Assembler a, Random random)
    {
        AssemblerRegister64[] bases = [rbx, rsi, r12, r15], indices = [rcx, r9, r13];
        var head = a.CreateLabel();
        var done = a.CreateLabel();
        int way = random.Next(3), body = random.Next(2, 9);
        foreach (var index in indices)
            a.mov(index, (long)random.Next(16));
        a.mov(r11, (long)random.Next(2, 70));
        a.Label(ref head);
        if (way == 2)
        {
            a.dec(r11);
            a.je(done);
        }
        for (int i = 0; i < body; i++)
        {
            var register = bases[random.Next(bases.Length)];
            int displacement = random.Next(-3, 4) * 8;
            var at = random.Next(2) == 0
                ? register + indices[random.Next(indices.Length)] * (1 << random.Next(4)) + displacement
                : register + displacement;
            switch (random.Next(12))
            {
                case 0 or 1:
                    a.add(rdx, __qword_ptr[at]);
                    break;
                case 2:
                    a.adc(r14, __qword_ptr[at]);
                    break;
                case 3 or 4:
                    a.mov(__qword_ptr[at], rdx);
                    break;
                case 5:
                    a.add(__byte_ptr[at], 0x47);
                    break;
                case 6:
                    a.mov(__byte_ptr[at], dl);
                    break;
                case 7:
                    a.movzx(eax, __word_ptr[at]);
                    break;
                case 8:
                    a.cmp(__byte_ptr[at], random.Next(256));
                    a.je(done);
                    break;
                case 9:
                    a.add(bases[random.Next(bases.Length)], 8 * random.Next(-1, 3));
                    break;
                case 10:
                    a.inc(indices[random.Next(indices.Length)]);
                    break;
                default:
                    a.push(rdx);
                    a.pop(rdi);
                    break;
            }
        }
        if (way == 0)
        {
            a.dec(r11);
            a.jne(head);
        }
        else if (way == 1)
        {
            a.sub(r11, 1);
            a.ja(head);
        }
        else
        {
            a.jmp(head);
        }
        a.Label(ref done);
        a.hlt();
    }

    private static unsafe (ulong[] Registers, ulong Flags, ulong Sum) Run(int seed, bool alone, bool mmio, bool loop)
    {
        using var board = new Board(4 << 20);
        var random = new Random(seed);
        var s = ProgramTests.Prepare64(board, a =>
        {
            if (loop)
                WriteLoop(a, random);
            else
                Write(a, random);
        });
        // Two pages that follow each other, at physical addresses that do not; perhaps the second is a device's, or has code on it.
        ulong* tables = (ulong*)(board.Ram + 0x10000);
        ulong* leaf = (ulong*)(board.Ram + 0x20000);
        tables[1024 + 1] = 0x20003;
        for (int i = 0; i < 512; i++)
            leaf[i] = 0x300003 + (ulong)((i * 7 & 15) << 12);
        if (mmio)
            leaf[1] = 0xFE000003;
        for (int i = 0; i < 0x10000; i++)
            board.Ram[0x300000 + i] = (byte)(i * 31 >> 3);
        for (int i = 0; i < 16; i++)
            s.Gpr[i] = (ulong)random.NextInt64();
        foreach (int i in (ReadOnlySpan<int>)[1, 3, 4, 5, 6, 9, 10, 12, 13, 15])
            s.Gpr[i] = Data + 4096 + (ulong)random.Next(-24, 10) * 8 + (random.Next(4) == 0 ? 3u : 0u);
        board.Cpu.SetState(s);
        if (alone)
            board.Cpu.Trace = _ => { };
        var exit = board.Cpu.Run();
        Assert.True(exit == VcpuExit.Halted, $"{exit} {board.Cpu.Failure} {board.Cpu.FailureDetail}");
        board.Cpu.GetState(s);
        ulong sum = 0;
        for (int i = 0; i < 0x10000; i++)
            sum = sum * 31 + board.Ram[0x300000 + i];
        foreach (var (address, value, size) in board.MmioWrites)
            sum = sum * 31 + address + value * 7 + (ulong)size;
        return ([.. s.Gpr], s.Rflags & 0x8D5, sum);
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(true, true)]
    public void Accesses_near_one_base_give_what_single_steps_give(bool mmio, bool loop)
    {
        for (int seed = 0; seed < (loop ? 120 : 60); seed++)
        {
            var together = Run(seed, false, mmio, loop);
            var alone = Run(seed, true, mmio, loop);
            for (int i = 0; i < 16; i++)
                Assert.True(together.Registers[i] == alone.Registers[i], $"seed {seed}, register {i}");
            Assert.Equal((seed, alone.Flags, alone.Sum), (seed, together.Flags, together.Sum));
        }
    }

    [Fact]
    public unsafe void A_fault_in_the_second_page_comes_at_the_instruction_that_touches_it()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.mov(rax, __qword_ptr[rbx]);
            a.mov(__qword_ptr[rbx + 8], rax);
            a.mov(__qword_ptr[rbx + 16], rax);
            a.mov(__qword_ptr[rbx + 24], rax);
            a.hlt();
        });
        ulong* tables = (ulong*)(board.Ram + 0x10000);
        ulong* leaf = (ulong*)(board.Ram + 0x20000);
        tables[1024 + 1] = 0x20003;
        leaf[0] = 0x300003;
        *(ulong*)(board.Ram + 0x300FF0) = 77;
        s.Gpr[3] = Data + 4096 - 16;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(14UL, s.Gpr[15]);
        Assert.Equal(Data + 4096, s.Cr2);
        Assert.Equal(77UL, *(ulong*)(board.Ram + 0x300FF8));
        ulong* frame = (ulong*)(board.Ram + s.Gpr[4]);
        Assert.Equal(2UL, frame[0]);
        Assert.Equal(Code + 7, frame[1]);
    }

    [Fact]
    public unsafe void A_read_only_page_may_be_read_before_the_store_faults()
    {
        using var board = new Board(4 << 20);
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.mov(rax, __qword_ptr[rbx]);
            a.mov(rdx, __qword_ptr[rbx + 8]);
            a.mov(__qword_ptr[rbx + 16], rax);
            a.mov(__qword_ptr[rbx + 24], rax);
            a.hlt();
        });
        ulong* tables = (ulong*)(board.Ram + 0x10000);
        ulong* leaf = (ulong*)(board.Ram + 0x20000);
        tables[1024 + 1] = 0x20003;
        leaf[0] = 0x300001;
        s.Cr0 |= 1 << 16;
        s.Gpr[3] = Data;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal((14UL, Data + 16), (s.Gpr[15], s.Cr2));
        Assert.Equal(0x21UL, leaf[0] & 0x61);
        Assert.Equal(Code + 7, ((ulong*)(board.Ram + s.Gpr[4]))[1]);
    }
}
