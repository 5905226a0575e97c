using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Small programs: what cannot be seen in a single instruction.</summary>
[Collection("host comparison")]
public sealed class ProgramTests
{
    private const ulong CodeAt = 0x7000;
    private const ulong Idt = 0x2000, Gdt = 0x3000, Handler = 0x5000;

    internal static byte[] Assemble(int bits, ulong at, Action<Assembler> write)
    {
        var a = new Assembler(bits);
        write(a);
        var bytes = new MemoryStream();
        a.Assemble(new StreamCodeWriter(bytes), at);
        return bytes.ToArray();
    }

    private static CpuState RunReal(Board board, Action<Assembler> write)
    {
        board.Load(CodeAt, Assemble(16, CodeAt, write));
        var s = new CpuState();
        board.Cpu.GetState(s);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0, 0, 0xFFFF, i == 1 ? 0x9Bu : 0x93u);
        s.Rip = CodeAt;
        s.Gpr[4] = 0x6000;
        board.Cpu.SetState(s);
        var exit = board.Cpu.Run();
        Assert.True(exit == VcpuExit.Halted, $"{exit} {board.Cpu.Failure} {board.Cpu.FailureDetail}");
        board.Cpu.GetState(s);
        return s;
    }

    /// <summary>A 64-bit guest with an IDT whose handlers put the vector in R15 and halt; the low 4 GiB are mapped by 2 MiB pages.</summary>
    internal static unsafe CpuState Prepare64(Board board, Action<Assembler> write)
    {
        board.Load(CodeAt, Assemble(64, CodeAt, write));
        ulong* tables = (ulong*)(board.Ram + 0x10000);
        tables[0] = 0x11003;
        for (int i = 0; i < 4; i++)
            tables[512 + i] = 0x12003 + (ulong)i * 0x1000;
        for (int i = 0; i < 2048; i++)
            tables[1024 + i] = (ulong)i << 21 | 0x83;
        ulong* gdt = (ulong*)(board.Ram + Gdt);
        gdt[1] = 0x00AF9B000000FFFF;
        gdt[2] = 0x00CF93000000FFFF;
        for (ulong v = 0; v < 32; v++)
        {
            ulong at = Handler + v * 32;
            board.Load(at, Assemble(64, at, a =>
            {
                a.mov(r15d, (uint)v);
                a.hlt();
            }));
            ulong* gate = (ulong*)(board.Ram + Idt + v * 16);
            gate[0] = at & 0xFFFF | 8 << 16 | 0x8E00UL << 32 | (at >> 16) << 48;
            gate[1] = 0;
        }
        ulong* entry = (ulong*)(board.Ram + Idt + 0x40 * 16);
        entry[0] = 0x5800UL & 0xFFFF | 8 << 16 | 0x8E00UL << 32;
        board.Load(0x5800, Assemble(64, 0x5800, a =>
        {
            a.inc(r14);
            a.mov(rbx, 0);
            a.iretq();
        }));
        var s = new CpuState();
        board.Cpu.GetState(s);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0x10, 0, uint.MaxValue, 0xC093);
        s.Segments[1] = new SegmentRegister(8, 0, uint.MaxValue, 0xA09B);
        s.Cr0 = 0x80000033;
        s.Cr3 = 0x10000;
        s.Cr4 = 0x6A0;
        s.Msrs[0xC0000080] = 0x500;
        s.Gdtr = (Gdt, 0xFF);
        s.Idtr = (Idt, 0xFFF);
        s.Gpr[4] = 0x9000;
        s.Rip = CodeAt;
        s.Rflags = 2;
        s.Halted = false;
        board.Cpu.SetState(s);
        return s;
    }

    private static CpuState Run64(Board board, Action<Assembler> write)
    {
        var s = Prepare64(board, write);
        var exit = board.Cpu.Run();
        Assert.True(exit == VcpuExit.Halted, $"{exit} {board.Cpu.Failure} {board.Cpu.FailureDetail}");
        board.Cpu.GetState(s);
        return s;
    }

    [Fact]
    public void Real_mode_loops_calls_and_strings_work()
    {
        using var board = new Board(1 << 20);
        var s = RunReal(board, a =>
        {
            var loop = a.CreateLabel();
            var sub = a.CreateLabel();
            a.mov(cx, 10);
            a.xor(ax, ax);
            a.Label(ref loop);
            a.call(sub);
            a.loop(loop);
            a.mov(di, 0x500);
            a.mov(cx, 4);
            a.rep.stosw();
            a.mov(si, 0x500);
            a.lodsw();
            a.push(ax);
            a.pop(bx);
            a.pushf();
            a.pop(dx);
            a.mov(al, 0x1B);
            a.daa();
            a.hlt();
            a.Label(ref sub);
            a.add(ax, cx);
            a.ret();
        });
        Assert.Equal(55UL, s.Gpr[3] & 0xFFFF);
        Assert.Equal(0x508UL, s.Gpr[7] & 0xFFFF);
        Assert.Equal(0x21UL, s.Gpr[0] & 0xFF);
    }

    [Fact]
    public void Segments_bases_and_wrap_count_in_real_mode()
    {
        using var board = new Board(2 << 20);
        var s = RunReal(board, a =>
        {
            a.mov(ax, 0x1234);
            a.mov(ds, ax);
            a.mov(__word_ptr[0x10], 0xBEEF);
            a.mov(bx, 0xFFFF);
            a.mov(si, 0x21);
            a.mov(al, __byte_ptr[bx + si - 0x10]);
            a.mov(ax, ds);
            a.mov(es, ax);
            a.mov(dx, __word_ptr.es[0x10]);
            a.hlt();
        });
        Assert.Equal(0xBEEFUL, s.Gpr[2] & 0xFFFF);
        unsafe
        {
            Assert.Equal((ushort)0xBEEF, *(ushort*)(board.Ram + 0x12350));
        }
        Assert.Equal(0x12340UL, s.Segments[3].Base);
    }

    [Fact]
    public void A_page_fault_finds_the_exact_state()
    {
        using var board = new Board(4 << 20);
        var s = Run64(board, a =>
        {
            a.mov(rax, 0x123456789000);
            a.mov(ecx, 5);
            a.add(ecx, 1);
            a.mov(r9, __qword_ptr[rax + 8]);
            a.mov(ecx, 7);
            a.hlt();
        });
        Assert.Equal(14UL, s.Gpr[15]);
        Assert.Equal(0x123456789008UL, s.Cr2);
        Assert.Equal(6UL, s.Gpr[1]);
        unsafe
        {
            ulong* frame = (ulong*)(board.Ram + s.Gpr[4]);
            Assert.Equal(0UL, frame[0]);
            Assert.Equal(CodeAt + 18, frame[1]);
        }
    }

    [Fact]
    public void Division_errors_and_simd_exceptions_reach_the_guest()
    {
        using var board = new Board(4 << 20);
        var s = Run64(board, a =>
        {
            a.mov(eax, 1);
            a.xor(edx, edx);
            a.xor(esi, esi);
            a.div(esi);
        });
        Assert.Equal(0UL, s.Gpr[15]);
        Assert.Equal(1UL, s.Gpr[0]);
        s = Run64(board, a =>
        {
            a.mov(__dword_ptr[0x8000], 0x1F80 & ~0x200);
            a.ldmxcsr(__dword_ptr[0x8000]);
            a.xorps(xmm0, xmm0);
            a.mov(eax, 0x3F800000);
            a.movd(xmm1, eax);
            a.divss(xmm1, xmm0);
        });
        Assert.Equal(19UL, s.Gpr[15]);
    }

    [Fact]
    public void Misaligned_vectors_and_undefined_opcodes_fault()
    {
        using var board = new Board(4 << 20);
        Assert.Equal(13UL, Run64(board, a => a.movaps(xmm0, __xmmword_ptr[0x8004])).Gpr[15]);
        Assert.Equal(6UL, Run64(board, a => a.ud2()).Gpr[15]);
        Assert.Equal(3UL, Run64(board, a => a.int3()).Gpr[15]);
    }

    [Fact]
    public void Code_that_changes_itself_ahead_is_seen()
    {
        using var board = new Board(4 << 20);
        var s = Run64(board, a =>
        {
            var patched = a.CreateLabel();
            var again = a.CreateLabel();
            a.xor(r12d, r12d);
            a.Label(ref again);
            a.lea(rdi, __qword_ptr[patched]);
            a.inc(__byte_ptr[rdi + 1]);
            a.Label(ref patched);
            a.mov(eax, 0x10);
            a.add(r12d, eax);
            a.cmp(eax, 0x15);
            a.jne(again);
            a.hlt();
        });
        Assert.Equal(0x11UL + 0x12 + 0x13 + 0x14 + 0x15, s.Gpr[12]);
    }

    [Fact]
    public void Device_memory_is_reached_in_pieces_that_devices_know()
    {
        using var board = new Board(4 << 20);
        var s = Run64(board, a =>
        {
            a.mov(edi, 0xFEC00010);
            a.mov(eax, __dword_ptr[rdi]);
            a.mov(__dword_ptr[rdi + 4], 0x1234);
            a.or(__byte_ptr[rdi + 8], 1);
            a.mov(edi, 0x8FFE);
            a.mov(__dword_ptr[rdi], 0x11223344);
            a.mov(ebx, __dword_ptr[rdi]);
            a.hlt();
        });
        Assert.Equal(0x10UL, s.Gpr[0]);
        Assert.Equal(0x11223344UL, s.Gpr[3]);
        Assert.Equal(2, board.MmioWrites.Count);
        Assert.Equal((0xFEC00014UL, 0x1234UL, 4), board.MmioWrites[0]);
        Assert.Equal((0xFEC00018UL, 0x19UL, 1), board.MmioWrites[1]);
    }

    [Fact]
    public void An_interrupt_ends_a_tight_loop()
    {
        using var board = new Board(4 << 20);
        Prepare64(board, a =>
        {
            var wait = a.CreateLabel();
            var closed = a.CreateLabel();
            a.mov(ebx, 1);
            a.xor(r14d, r14d);
            a.sti();
            a.Label(ref wait);
            a.test(ebx, ebx);
            a.jne(wait);
            a.cli();
            a.hlt();
        });
        var raise = new Thread(() =>
        {
            Thread.Sleep(30);
            board.PendingVector = 0x40;
            board.Cpu.SetInterruptLine(true);
        });
        raise.Start();
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        raise.Join();
        var s = new CpuState();
        board.Cpu.GetState(s);
        Assert.Equal(1UL, s.Gpr[14]);
        Assert.Equal(0UL, s.Gpr[3]);
    }

    [Fact]
    public void A_single_step_trap_follows_each_instruction()
    {
        using var board = new Board(4 << 20);
        var s = Run64(board, a =>
        {
            a.pushfq();
            a.or(__qword_ptr[rsp], 0x100);
            a.popfq();
            a.mov(ecx, 1);
            a.mov(ecx, 2);
            a.hlt();
        });
        Assert.Equal(1UL, s.Gpr[15]);
        Assert.Equal(1UL, s.Gpr[1]);
        Assert.Equal(0x4000UL, s.Dr[6] & 0x4000);
    }

    [Fact]
    public void Programs_of_calls_stack_and_strings_match_the_processor()
    {
        using var comparison = new HostComparison();
        var random = new Random(7);
        for (int round = 0; round < 20; round++)
        {
            InstructionTests.RandomState(comparison, random);
            for (int i = 0; i < 16; i++)
                comparison.Gpr[i] = (ulong)random.NextInt64();
            comparison.Gpr[4] = HostComparison.Data + 0x8000 + (ulong)random.Next(64) * 8;
            comparison.Gpr[6] = HostComparison.Data + 0x100 + (ulong)random.Next(4096);
            comparison.Gpr[7] = HostComparison.Data + 0x2100 + (ulong)random.Next(4096);
            int count = random.Next(5000);
            string? difference = comparison.Compare(Assemble(64, HostComparison.Code, a =>
            {
                var top = a.CreateLabel();
                var function = a.CreateLabel();
                var after = a.CreateLabel();
                var skip = a.CreateLabel();
                a.push(r13);
                a.push(rsp);
                a.push(rax);
                a.push(r14);
                a.push(0x12345678);
                a.pop(rcx);
                a.pop(r15);
                a.push(__qword_ptr[rsi]);
                a.pop(__qword_ptr[rdi + 8]);
                a.push(cx);
                a.pop(dx);
                a.enter(0x20, 0);
                a.leave();
                a.mov(r8d, 50);
                a.Label(ref top);
                a.call(function);
                a.lea(r11, __qword_ptr[function]);
                a.call(r11);
                a.dec(r8d);
                a.jne(top);
                a.mov(ecx, count);
                a.rep.movsb();
                a.mov(ecx, 300);
                a.rep.stosq();
                a.mov(ecx, 40);
                a.repe.cmpsb();
                a.pushfq();
                a.and(__qword_ptr[rsp], 0xCD5);
                a.pop(r9);
                a.movsq();
                a.lodsd();
                a.scasw();
                a.cmpsb();
                a.mov(rdi, rsi);
                a.sub(rdi, 0x300);
                a.mov(ecx, 0x200);
                a.repne.scasb();
                a.xor(edx, edx);
                a.or(ebx, 1);
                a.div(ebx);
                a.mov(r14, rdx);
                a.xor(edx, edx);
                a.or(r13, 1);
                a.div(r13);
                a.jmp(after);
                a.Label(ref function);
                a.adc(rax, r8);
                a.rol(rbx, cl);
                a.jb(skip);
                a.inc(r10);
                a.Label(ref skip);
                a.setp(dl);
                a.cmovs(r13, rbx);
                a.ret();
                a.Label(ref after);
                a.nop();
            }));
            Assert.True(difference == null, difference ?? "");
        }
    }
}
