using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>What a model lacks is undefined for its guest, whatever the host's processor has.</summary>
[Collection("host comparison")]
public sealed class ModelInstructionTests
{
    private const string All = "486 pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom";

    [Theory]
    [InlineData("CPUID", "0FA2", All)]
    [InlineData("BSWAP", "0FC9", All)]
    [InlineData("XADD", "0FC1C9", All)]
    [InlineData("CMPXCHG", "0FB1C9", All)]
    [InlineData("INVLPG", "0F0138", All)]
    [InlineData("PAUSE", "F390", All)]
    [InlineData("TZCNT as BSF", "F30FBCC1", All)]
    [InlineData("LZCNT as BSR", "F30FBDC1", All)]
    [InlineData("FNINIT", "DBE3", All)]
    [InlineData("RDTSC", "0F31", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("RDMSR", "B9100000000F32", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("CMPXCHG8B", "0FC70E", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("PADDB", "0FFCC1", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("CMOVZ", "0F44C1", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("FCMOVE", "DAC9", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("FCOMI", "DBF1", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("FXSAVE", "0FAE06", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("NOP of several bytes", "0F1F06", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("XORPS", "0F57C0", "pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("SFENCE", "0FAEF8", "pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("XORPD", "660F57C0", "athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("MOVNTI", "0FC306", "athlon n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("CLFLUSH", "0FAE3E", "n270 coreduo core2duo qemu64 phenom")]
    [InlineData("HADDPS", "F20F7CC0", "n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("FISTTP", "DF0E", "n270 coreduo core2duo qemu32 qemu64 phenom")]
    [InlineData("PSHUFB", "660F3800C0", "n270 core2duo")]
    [InlineData("MOVBE", "0F38F006", "n270")]
    [InlineData("PTEST", "660F3817C0", "")]
    [InlineData("POPCNT", "F30FB8C1", "phenom")]
    [InlineData("EXTRQ", "660F79C1", "phenom")]
    [InlineData("RDTSCP", "0F01F9", "phenom")]
    [InlineData("VPXOR", "C5F9EFC0", "")]
    [InlineData("SHLX", "C4E271F7C0", "")]
    [InlineData("XGETBV", "31C90F01D0", "")]
    [InlineData("RDRAND", "0FC7F0", "")]
    [InlineData("STAC", "0F01CB", "")]
    [InlineData("CLZERO", "0F01FC", "")]
    [InlineData("MONITOR", "0F01C8", "")]
    [InlineData("SWAPGS outside 64-bit mode", "0F01F8", "")]
    public void An_instruction_exists_where_its_model_has_it(string what, string code, string models)
    {
        byte[] bytes = Convert.FromHexString(code);
        foreach (string model in All.Split(' '))
        {
            using var board = new Board(1 << 20, model);
            ulong vector = Run(board, bytes, model);
            bool expected = models.Split(' ').Contains(model) && !(what == "EXTRQ" && !CpuModel.Parse("max").Has(CpuFeature.Sse4a));
            Assert.True(vector == (expected ? 0xFFu : 6), $"{what} on {model}: vector {vector}");
        }
    }

    /// <summary>Runs an instruction in flat 32-bit code; the vector of its exception, or FF.</summary>
    private static unsafe ulong Run(Board board, byte[] code, string model)
    {
        const ulong idt = 0x2000, gdt = 0x3000, handlers = 0x5000, at = 0x7000;
        for (ulong v = 0; v < 32; v++)
        {
            board.Load(handlers + v * 16, [0xBB, (byte)v, 0, 0, 0, 0xF4]);
            *(ulong*)(board.Ram + idt + v * 8) = handlers + v * 16 | 8 << 16 | 0x8E00UL << 32;
        }
        ((ulong*)(board.Ram + gdt))[1] = 0x00CF9B000000FFFF;
        board.Load(at, [.. code, 0xBB, 0xFF, 0, 0, 0, 0xF4]);
        var s = new CpuState();
        board.Cpu.GetState(s);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0x10, 0, uint.MaxValue, i == 1 ? 0xC09Bu : 0xC093);
        s.Segments[1] = s.Segments[1] with { Selector = 8 };
        s.Gdtr = (gdt, 0xFF);
        s.Idtr = (idt, 0x7FF);
        s.Cr0 = 0x33;
        s.Cr4 = model is "486" or "pentium" ? 0 : model == "pentium2" ? 0x200u : 0x600;
        s.Rip = at;
        s.Gpr[4] = 0x9000;
        s.Gpr[6] = 0x8000;
        s.Halted = false;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        return s.Gpr[3];
    }
}
