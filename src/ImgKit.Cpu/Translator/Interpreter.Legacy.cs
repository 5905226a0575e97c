using Iced.Intel;
using ImgKit.Cpu.Architecture;
using Register = Iced.Intel.Register;

namespace ImgKit.Cpu.Translator;

/// <summary>Decimal arithmetic and other instructions that 64-bit mode does not have. Source: Intel SDM volume 2.</summary>
internal sealed unsafe partial class Interpreter
{
    private byte Al
    {
        get => (byte)_c->Gpr[0];
        set => SetNumber(0, value, 1);
    }

    private byte Ah
    {
        get => (byte)(_c->Gpr[0] >> 8);
        set => Set(Register.AH, value);
    }

    private void SetResultFlags(byte result)
    {
        SetFlag(Flags.Zf, result == 0);
        SetFlag(Flags.Sf, (result & 0x80) != 0);
        SetFlag(Flags.Pf, (System.Numerics.BitOperations.PopCount(result) & 1) == 0);
    }

    private bool ExecuteLegacy()
    {
        bool carry = (_c->Rflags & Flags.Cf) != 0, adjust = (_c->Rflags & Flags.Af) != 0;
        byte al = Al;
        switch (_i.Mnemonic)
        {
            case Mnemonic.Daa:
            case Mnemonic.Das:
            {
                bool add = _i.Mnemonic == Mnemonic.Daa;
                bool newCarry = false, newAdjust = false;
                byte result = al;
                if ((al & 15) > 9 || adjust)
                {
                    newCarry = carry || (add ? al > 0xF9 : al < 6);
                    result = (byte)(add ? result + 6 : result - 6);
                    newAdjust = true;
                }
                if (al > 0x99 || carry)
                {
                    result = (byte)(add ? result + 0x60 : result - 0x60);
                    newCarry = true;
                }
                Al = result;
                SetFlag(Flags.Cf, newCarry);
                SetFlag(Flags.Af, newAdjust);
                SetResultFlags(result);
                return true;
            }
            case Mnemonic.Aaa:
            case Mnemonic.Aas:
            {
                bool doIt = (al & 15) > 9 || adjust;
                if (doIt)
                {
                    int ax = (int)_c->Gpr[0] & 0xFFFF;
                    ax = _i.Mnemonic == Mnemonic.Aaa ? ax + 0x106 : ax - 6 - 0x100;
                    SetNumber(0, (ushort)ax, 2);
                }
                Al = (byte)(Al & 15);
                SetFlag(Flags.Cf, doIt);
                SetFlag(Flags.Af, doIt);
                SetResultFlags(Al);
                return true;
            }
            case Mnemonic.Aam:
            {
                byte divisor = _i.Immediate8;
                if (divisor == 0)
                    throw new GuestFault(0);
                Ah = (byte)(al / divisor);
                Al = (byte)(al % divisor);
                SetResultFlags(Al);
                return true;
            }
            case Mnemonic.Aad:
                Al = (byte)(al + Ah * _i.Immediate8);
                Ah = 0;
                SetResultFlags(Al);
                return true;
            case Mnemonic.Salc:
                Al = (byte)(carry ? 0xFF : 0);
                return true;
            case Mnemonic.Bound:
            {
                int size = _i.Op0Register.GetSize();
                long index = Signed(Get(_i.Op0Register), size);
                if (index < Signed(ReadMemory(size), size) || index > Signed(ReadMemory(size, size), size))
                    throw new GuestFault(5);
                return true;
            }
            case Mnemonic.Pusha or Mnemonic.Pushad:
            {
                int size = _i.Mnemonic == Mnemonic.Pusha ? 2 : 4;
                ulong top = _c->Gpr[4];
                // All eight or none: what can fault is touched first.
                for (int i = 0; i < 8; i++)
                    memory.ProbeLinear(Linear(2, top - (ulong)((i + 1) * size) & StackMask, size, true), size, true);
                for (int i = 0; i < 8; i++)
                    WriteStack(top - (ulong)((i + 1) * size), _c->Gpr[i], size);
                SetStack(top - (ulong)(8 * size));
                return true;
            }
            case Mnemonic.Popa or Mnemonic.Popad:
            {
                int size = _i.Mnemonic == Mnemonic.Popa ? 2 : 4;
                ulong top = _c->Gpr[4];
                Span<ulong> values = stackalloc ulong[8];
                for (int i = 0; i < 8; i++)
                    values[i] = ReadStack(top + (ulong)(i * size), size);
                for (int i = 0; i < 8; i++)
                {
                    if (i != 3)
                        SetNumber(7 - i, values[i], size);
                }
                SetStack(top + (ulong)(8 * size));
                return true;
            }
            case Mnemonic.Enter:
                ExecuteEnter();
                return true;
            default:
                return false;
        }
    }

    private static long Signed(ulong value, int size) => size == 2 ? (short)value : size == 4 ? (int)value : (long)value;

    private void ExecuteEnter()
    {
        int size = _i.Code switch { Code.Enterw_imm16_imm8 => 2, Code.Enterd_imm16_imm8 => 4, _ => 8 };
        int allocate = _i.Immediate16, level = _i.Immediate8_2nd & 31;
        ulong top = _c->Gpr[4], frameBase = _c->Gpr[5];
        top -= (ulong)size;
        WriteStack(top, frameBase, size);
        ulong frame = top;
        if (level > 0)
        {
            for (int i = 1; i < level; i++)
            {
                frameBase -= (ulong)size;
                top -= (ulong)size;
                WriteStack(top, ReadStack(frameBase, size), size);
            }
            top -= (ulong)size;
            WriteStack(top, frame, size);
        }
        top -= (ulong)allocate;
        memory.ProbeLinear(Linear(2, top & StackMask, 1, true), 1, true);
        SetNumber(5, frame, size);
        SetStack(top);
    }
}
