using ImgKit.Cpu.Translator;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>System-management mode belongs to one processor: the others go on seeing what lies over SMRAM.</summary>
public sealed class SystemManagementTests
{
    private const ulong Window = 0xA0000, Handler = 0xA8000, Flag = 0x500, Ready = 0x504;

    private static void StartReal(TranslatorVcpu cpu, ulong at, uint smbase)
    {
        var s = new CpuState();
        cpu.GetState(s);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0, 0, 0xFFFF, i == 1 ? 0x9Bu : 0x93u);
        s.Segments[0] = new SegmentRegister(0xA000, Window, 0xFFFF, 0x93);
        s.Rip = at;
        s.Gpr[4] = 0x6000;
        s.WaitingForStartup = false;
        s.Smbase = smbase;
        cpu.SetState(s);
    }

    [Fact]
    public unsafe void One_processor_in_system_management_mode_does_not_show_its_memory_to_another()
    {
        using var board = new Board(1 << 20);
        nint ram = (nint)board.Ram;
        board.Map.Replace([
            new MemoryRegion(0, Window, ram, MemoryKind.Ram), new MemoryRegion(0xC0000, 0x40000, ram + 0xC0000, MemoryKind.Ram)]);
        using var other = (TranslatorVcpu)board.Engine.CreateVcpu(1, board);
        // The handler counts in SMRAM until the flag is set; the code of the other processor lies at the same address in its own view.
        board.Load(Handler, ProgramTests.Assemble(16, 0x8000, a =>
        {
            var loop = a.CreateLabel();
            a.xor(ax, ax);
            a.mov(ds, ax);
            a.mov(es, ax);
            a.mov(bx, 0xA000);
            a.mov(fs, bx);
            a.mov(__dword_ptr.fs[0x9000], 0);
            a.mov(__dword_ptr[(int)Ready], 1);
            a.Label(ref loop);
            a.inc(__dword_ptr.fs[0x9000]);
            a.cmp(__dword_ptr[(int)Flag], 0);
            a.je(loop);
            a.rsm();
        }));
        board.Load(0x7000, ProgramTests.Assemble(16, 0x7000, a =>
        {
            a.hlt();
            a.mov(eax, __dword_ptr.es[0x9000]);
            a.hlt();
        }));
        board.Load(0x7100, ProgramTests.Assemble(16, 0x7100, a =>
        {
            var loop = a.CreateLabel();
            var wait = a.CreateLabel();
            a.Label(ref wait);
            a.cmp(__dword_ptr[(int)Ready], 0);
            a.je(wait);
            a.xor(edx, edx);
            a.mov(cx, 20000);
            a.Label(ref loop);
            a.mov(eax, __dword_ptr.es[0x9004]);
            a.xor(eax, 4);
            a.or(edx, eax);
            a.loop(loop);
            a.mov(__byte_ptr.es[0x9010], 0x77);
            a.inc(__dword_ptr[(int)Flag]);
            a.hlt();
        }));
        StartReal(board.Cpu, 0x7000, (uint)Window);
        StartReal(other, 0x7100, 0x30000);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.RaiseSmi();
        var exit = VcpuExit.InternalError;
        var thread = new Thread(() => exit = other.Run());
        thread.Start();
        // After RSM the processor is where it was: halted.
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        thread.Join();
        Assert.Equal(VcpuExit.Halted, exit);
        var s = new CpuState();
        other.GetState(s);
        Assert.Equal(0UL, s.Gpr[2]);
        board.Cpu.GetState(s);
        Assert.Equal((0x7001UL, false), (s.Rip, s.InSmm));
        Assert.True(*(uint*)(board.Ram + 0xA9000) > 1);
        Assert.Equal((0xA9010UL, 0x77UL, 1), Assert.Single(board.MmioWrites));
        // Behind HLT it sees what the others see.
        s.Halted = false;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(0UL, s.Gpr[0]);
    }
}
