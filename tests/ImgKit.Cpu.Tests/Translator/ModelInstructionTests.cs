using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>What a model lacks is undefined for its guest, whatever the host's processor has.</summary>
[Collection("host comparison")]
public sealed class ModelInstructionTests
{
    private const string All = "486 pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom";

    // What, its code, and the models that have it.
    private static readonly (string What, string Code, string Models)[] Instructions =
    [
        ("CPUID", "0FA2", All),
        ("BSWAP", "0FC9", All),
        ("XADD", "0FC1C9", All),
        ("CMPXCHG", "0FB1C9", All),
        ("INVLPG", "0F0138", All),
        ("PAUSE", "F390", All),
        ("TZCNT as BSF", "F30FBCC1", All),
        ("LZCNT as BSR", "F30FBDC1", All),
        ("FNINIT", "DBE3", All),
        ("RDTSC", "0F31", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("RDMSR", "B9100000000F32", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("CMPXCHG8B", "0FC70E", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("PADDB", "0FFCC1", "pentium pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("CMOVZ", "0F44C1", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("FCMOVE", "DAC9", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("FCOMI", "DBF1", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("FXSAVE", "0FAE06", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("NOP of several bytes", "0F1F06", "pentium2 pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("XORPS", "0F57C0", "pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("SFENCE", "0FAEF8", "pentium3 athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("XORPD", "660F57C0", "athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("MOVNTI", "0FC306", "athlon n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("CLFLUSH", "0FAE3E", "n270 coreduo core2duo qemu64 phenom"),
        ("HADDPS", "F20F7CC0", "n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("FISTTP", "DF0E", "n270 coreduo core2duo qemu32 qemu64 phenom"),
        ("PSHUFB", "660F3800C0", "n270 core2duo"),
        ("MOVBE", "0F38F006", "n270"),
        ("PTEST", "660F3817C0", ""),
        ("POPCNT", "F30FB8C1", "phenom"),
        ("EXTRQ", "660F79C1", "phenom"),
        ("RDTSCP", "0F01F9", "phenom"),
        ("PFADD", "0F0FC19E", "athlon phenom"),
        ("PSWAPD", "0F0FC1BB", "athlon phenom"),
        ("FEMMS", "0F0E", "athlon phenom"),
        ("VPXOR", "C5F9EFC0", ""),
        ("SHLX", "C4E271F7C0", ""),
        ("XGETBV", "31C90F01D0", ""),
        ("RDRAND", "0FC7F0", ""),
        ("STAC", "0F01CB", ""),
        ("CLZERO", "0F01FC", ""),
        ("MONITOR", "0F01C8", ""),
        ("SWAPGS outside 64-bit mode", "0F01F8", ""),
    ];

    [Theory]
    [InlineData("486")]
    [InlineData("pentium")]
    [InlineData("pentium2")]
    [InlineData("pentium3")]
    [InlineData("athlon")]
    [InlineData("n270")]
    [InlineData("coreduo")]
    [InlineData("core2duo")]
    [InlineData("qemu32")]
    [InlineData("qemu64")]
    [InlineData("phenom")]
    public void Instructions_exist_where_the_model_has_them(string model)
    {
        using var board = new Board(1 << 20, model);
        var failures = new List<string>();
        foreach (var (what, code, models) in Instructions)
        {
            ulong vector = Run(board, Convert.FromHexString(code), model);
            bool expected = models.Split(' ').Contains(model) && !(what == "EXTRQ" && !CpuModel.Parse("max").Has(CpuFeature.Sse4a));
            if (vector != (expected ? 0xFFu : 6))
                failures.Add($"{what}: {vector}");
        }
        Assert.Empty(failures);
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
