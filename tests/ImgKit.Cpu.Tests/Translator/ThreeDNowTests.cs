using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>3DNow!, which the host's processor no longer has to compare with.</summary>
[Collection("host comparison")]
public sealed class ThreeDNowTests
{
    private static ulong Pair(float low, float high) => BitConverter.SingleToUInt32Bits(low) | (ulong)BitConverter.SingleToUInt32Bits(high) << 32;

    private static ulong Run(byte opcode, ulong destination, ulong source, bool fromMemory)
    {
        using var board = new Board(4 << 20, "phenom");
        var s = ProgramTests.Prepare64(board, a =>
        {
            a.femms();
            a.movq(mm3, rax);
            a.movq(mm5, rdx);
            if (fromMemory)
                a.db([0x0F, 0x0F, 0x1E, opcode]); // op mm3,[rsi]
            else
                a.db([0x0F, 0x0F, 0xDD, opcode]); // op mm3,mm5
            a.movq(rbx, mm3);
            a.femms();
            a.hlt();
        });
        unsafe
        {
            *(ulong*)(board.Ram + 0x8000) = source;
        }
        s.Gpr[0] = destination;
        s.Gpr[2] = source;
        s.Gpr[6] = 0x8000;
        board.Cpu.SetState(s);
        Assert.Equal(VcpuExit.Halted, board.Cpu.Run());
        board.Cpu.GetState(s);
        Assert.Equal(0UL, s.Gpr[15]);
        Assert.Equal(0, s.Xsave[4]);
        return s.Gpr[3];
    }

    [Theory]
    [InlineData(0x9E, 1.5f, -2f, 0.25f, 3e38f, 1.75f, 3e38f)]
    [InlineData(0x9E, 3e38f, 1e-39f, 3e38f, 1e-39f, float.MaxValue, 0f)]
    [InlineData(0x9A, 1.5f, -2f, 0.25f, 3f, 1.25f, -5f)]
    [InlineData(0xAA, 1.5f, -2f, 0.25f, 3f, -1.25f, 5f)]
    [InlineData(0xB4, 1.5f, -2f, 4f, 3f, 6f, -6f)]
    [InlineData(0xAE, 1.5f, -2f, 4f, 3f, -0.5f, 7f)]
    [InlineData(0x8A, 1.5f, -2f, 4f, 3f, 3.5f, 1f)]
    [InlineData(0x8E, 1.5f, -2f, 4f, 3f, 3.5f, 7f)]
    [InlineData(0xA4, 1.5f, -2f, 4f, -3f, 4f, -2f)]
    [InlineData(0x94, 1.5f, -2f, 4f, -3f, 1.5f, -3f)]
    [InlineData(0x96, 9f, 9f, 4f, 7f, 0.25f, 0.25f)]
    [InlineData(0x97, 9f, 9f, 4f, 7f, 0.5f, 0.5f)]
    [InlineData(0xB6, 9f, 8f, 4f, 7f, 4f, 7f)]
    public void Numbers_are_calculated_in_pairs(int opcode, float d0, float d1, float s0, float s1, float low, float high)
    {
        Assert.Equal(Pair(low, high), Run((byte)opcode, Pair(d0, d1), Pair(s0, s1), false));
        Assert.Equal(Pair(low, high), Run((byte)opcode, Pair(d0, d1), Pair(s0, s1), true));
    }

    [Fact]
    public void Integers_and_comparisons()
    {
        Assert.Equal(0xFFFFFFFF00000000UL, Run(0xB0, Pair(1, 2), Pair(3, 2), false));
        Assert.Equal(0xFFFFFFFF00000000UL, Run(0x90, Pair(1, 2), Pair(3, 2), false));
        Assert.Equal(0x00000000FFFFFFFFUL, Run(0xA0, Pair(4, 2), Pair(3, 2), false));
        Assert.Equal(Pair(-7, 16777217 - 1), Run(0x0D, 0, 0x01000001FFFFFFF9, false));
        Assert.Equal(Pair(-7, 5), Run(0x0C, 0, 0x00010005FFFFFFF9, false));
        Assert.Equal(0x7FFFFFFFFFFFFFFEUL, Run(0x1D, 0, Pair(-2.75f, 1e10f), false));
        Assert.Equal(0x00007FFFFFFF8000UL, Run(0x1C, 0, Pair(-1e6f, 40000f), false));
        Assert.Equal(0x5566778811223344UL, Run(0xBB, 0, 0x1122334455667788, false));
        Assert.Equal(0x8001000000000002UL, Run(0xBF, 0xFF00000000000002, 0x0001000000000001, false));
        Assert.Equal(0xFFFF000000000001UL, Run(0xB7, 0xFFFE000000000002, 0x7FFF000000004000, false));
    }
}
