using Iced.Intel;
using Register = Iced.Intel.Register;

namespace ImgKit.Cpu.Translator;

/// <summary>3DNow!, which hosts no longer have: pairs of single-precision numbers in MMX registers. Source: AMD APM volume 5, and the 3DNow!
/// technology manual: denormals count as zero, what is too large becomes the largest number, there are no exceptions.</summary>
internal sealed unsafe partial class Interpreter
{
    private bool ExecuteThreeDNow()
    {
        if (_i.Encoding != EncodingKind.D3NOW)
            return false;
        Materialise();
        ulong source = IsMemory(1) ? ReadMemory(8) : *MmxRegister(_i.Op1Register);
        ulong* target = MmxRegister(_i.Op0Register);
        *target = Calculate(_i.Mnemonic, *target, source);
        // As any MMX instruction: all registers valid, the top of the stack 0, ones above the register.
        SetStatus((ushort)(StatusWord & ~0x3800));
        FullRegisters = 0xFF;
        *(ushort*)(MmxRegister(_i.Op0Register) + 1) = 0xFFFF;
        return true;
    }

    private ulong* MmxRegister(Register register)
    {
        // The area begins with the top of the stack.
        int number = register - Register.MM0 - (StatusWord >> 11) & 7;
        return (ulong*)(_c->XsaveArea + RegistersField + 16 * number);
    }

    private static ulong Calculate(Mnemonic what, ulong d, ulong s)
    {
        float d0 = Number(d), d1 = Number(d >> 32), s0 = Number(s), s1 = Number(s >> 32);
        switch (what)
        {
            case Mnemonic.Pfadd:
                return Pair(d0 + s0, d1 + s1);
            case Mnemonic.Pfsub:
                return Pair(d0 - s0, d1 - s1);
            case Mnemonic.Pfsubr:
                return Pair(s0 - d0, s1 - d1);
            case Mnemonic.Pfmul:
                return Pair(d0 * s0, d1 * s1);
            case Mnemonic.Pfacc:
                return Pair(d0 + d1, s0 + s1);
            case Mnemonic.Pfnacc:
                return Pair(d0 - d1, s0 - s1);
            case Mnemonic.Pfpnacc:
                return Pair(d0 - d1, s0 + s1);
            case Mnemonic.Pfmax:
                return Pair(d0 > s0 ? d0 : s0, d1 > s1 ? d1 : s1);
            case Mnemonic.Pfmin:
                return Pair(d0 < s0 ? d0 : s0, d1 < s1 ? d1 : s1);
            case Mnemonic.Pfcmpeq:
                return Masks2(d0 == s0, d1 == s1);
            case Mnemonic.Pfcmpge:
                return Masks2(d0 >= s0, d1 >= s1);
            case Mnemonic.Pfcmpgt:
                return Masks2(d0 > s0, d1 > s1);
            // The approximations are exact at once, so that their refinements have nothing to add: the last of them takes the value over.
            case Mnemonic.Pfrcp:
                return Pair(1 / s0, 1 / s0);
            case Mnemonic.Pfrsqrt:
                float root = MathF.CopySign(1 / MathF.Sqrt(MathF.Abs(s0)), s0);
                return Pair(root, root);
            case Mnemonic.Pfrcpit1 or Mnemonic.Pfrsqit1:
                return d;
            case Mnemonic.Pfrcpit2:
                return s;
            case Mnemonic.Pi2fd:
                return Pair(Truncated((int)s), Truncated((int)(s >> 32)));
            case Mnemonic.Pi2fw:
                return Pair((short)s, (short)(s >> 32));
            case Mnemonic.Pf2id:
                return (uint)Saturated(s0, int.MinValue, int.MaxValue) | (ulong)Saturated(s1, int.MinValue, int.MaxValue) << 32;
            case Mnemonic.Pf2iw:
                return (uint)Saturated(s0, short.MinValue, short.MaxValue) | (ulong)Saturated(s1, short.MinValue, short.MaxValue) << 32;
            case Mnemonic.Pswapd:
                return s >> 32 | s << 32;
            case Mnemonic.Pavgusb:
                return ByLane(d, s, 8, (a, b) => (long)((byte)a + (byte)b + 1 >> 1));
            case Mnemonic.Pmulhrw:
                return ByLane(d, s, 16, (a, b) => (short)a * (short)b + 0x8000 >> 16);
            default:
                throw new GuestFault(6);
        }
    }

    private static float Number(ulong bits)
    {
        float value = BitConverter.UInt32BitsToSingle((uint)bits);
        return float.IsSubnormal(value) ? MathF.CopySign(0, value) : value;
    }

    private static ulong Pair(float low, float high) => Bits(low) | (ulong)Bits(high) << 32;

    private static uint Bits(float value)
    {
        if (float.IsSubnormal(value))
            value = MathF.CopySign(0, value);
        else if (float.IsInfinity(value))
            value = MathF.CopySign(float.MaxValue, value);
        return BitConverter.SingleToUInt32Bits(value);
    }

    private static ulong Masks2(bool low, bool high) => (low ? 0xFFFFFFFFUL : 0) | (high ? 0xFFFFFFFFUL << 32 : 0);

    /// <summary>The number, or the next towards zero.</summary>
    private static float Truncated(int value)
    {
        float rounded = value;
        if (Math.Abs((double)rounded) > Math.Abs((double)value))
            rounded = rounded > 0 ? MathF.BitDecrement(rounded) : MathF.BitIncrement(rounded);
        return rounded;
    }

    private static long Saturated(float value, int least, int most) => value <= least ? least : value >= most ? most : (long)value;

    private static ulong ByLane(ulong d, ulong s, int bits, Func<ulong, ulong, long> calculate)
    {
        ulong result = 0, mask = (1UL << bits) - 1;
        for (int at = 0; at < 64; at += bits)
            result |= ((ulong)calculate(d >> at & mask, s >> at & mask) & mask) << at;
        return result;
    }
}
