namespace ImgKit.Cpu.Translator;

/// <summary>Host registers by number.</summary>
internal static class Host
{
    public const int Rax = 0, Rcx = 1, Rdx = 2, Rbx = 3, Rsp = 4, Rbp = 5, Rsi = 6, Rdi = 7;
    public const int R8 = 8, R9 = 9, R10 = 10, R11 = 11, R12 = 12, R13 = 13, R14 = 14, R15 = 15;

    /// <summary>Guest registers R13..R15 live in the context.</summary>
    public const int Spilled = -1;

    /// <summary>Host register of each guest register. RCX and RBP are the scratch registers (RCX for JRCXZ and shifts, both so
    /// that AH..DH need no REX beside them), RSP is the host's stack.</summary>
    public static ReadOnlySpan<sbyte> OfGuest => [0, 13, 2, 3, 15, 14, 6, 7, 8, 9, 10, 11, 12, Spilled, Spilled, Spilled];
}

/// <summary>Writes host instructions at a moving pointer. Encodings: Intel SDM volume 2, chapter 2.</summary>
internal unsafe struct Emitter
{
    public byte* P;

    public void Byte(int value) => *P++ = (byte)value;

    public void Int32(int value)
    {
        *(int*)P = value;
        P += 4;
    }

    public void Int64(ulong value)
    {
        *(ulong*)P = value;
        P += 8;
    }

    public void Bytes(ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(new Span<byte>(P, bytes.Length));
        P += bytes.Length;
    }

    private void Rex(bool wide, int reg, int index, int rm)
    {
        int rex = (wide ? 8 : 0) | (reg >> 3 << 2) | (index >> 3 << 1) | (rm >> 3);
        if (rex != 0)
            Byte(0x40 | rex);
    }

    private void Opcode(int opcode)
    {
        if (opcode > 0xFF)
            Byte(opcode >> 8);
        Byte(opcode);
    }

    /// <summary>op reg, rm between registers; <paramref name="opcode"/> may have an 0F prefix (0x0FB6).</summary>
    public void Rr(int opcode, int reg, int rm, bool wide)
    {
        Rex(wide, reg, 0, rm);
        Opcode(opcode);
        Byte(0xC0 | (reg & 7) << 3 | rm & 7);
    }

    /// <summary>op reg, [base + index * 2^shift + disp]; index -1: none.</summary>
    public void Rm(int opcode, int reg, int rmBase, int index, int shift, int disp, bool wide)
    {
        Rex(wide, reg, index < 0 ? 0 : index, rmBase);
        Opcode(opcode);
        ModRm(reg, rmBase, index, shift, disp);
    }

    private void ModRm(int reg, int rmBase, int index, int shift, int disp)
    {
        int mod = disp == 0 && (rmBase & 7) != 5 ? 0 : disp == (sbyte)disp ? 0x40 : 0x80;
        if (index < 0 && (rmBase & 7) != 4)
        {
            Byte(mod | (reg & 7) << 3 | rmBase & 7);
        }
        else
        {
            Byte(mod | (reg & 7) << 3 | 4);
            Byte(shift << 6 | (index < 0 ? 4 : index & 7) << 3 | rmBase & 7);
        }
        if (mod == 0x40)
            Byte(disp);
        else if (mod == 0x80)
            Int32(disp);
    }

    /// <summary>op reg, gs:[disp].</summary>
    public void Gs(int opcode, int reg, int disp, bool wide)
    {
        Byte(0x65);
        Rex(wide, reg, 0, 0);
        Opcode(opcode);
        Byte((reg & 7) << 3 | 4);
        Byte(0x25);
        Int32(disp);
    }

    /// <summary>op reg, gs:[base + disp32], base with scale 1 or, through <paramref name="index8"/>, 8.</summary>
    public void GsIndexed(int opcode, int reg, int register, bool index8, int disp, bool wide)
    {
        Byte(0x65);
        if (index8)
        {
            Rex(wide, reg, register, 0);
            Opcode(opcode);
            Byte((reg & 7) << 3 | 4);
            Byte(3 << 6 | (register & 7) << 3 | 5);
        }
        else
        {
            Rex(wide, reg, 0, register);
            Opcode(opcode);
            Byte(0x80 | (reg & 7) << 3 | register & 7);
        }
        Int32(disp);
    }

    public void MovRr(int to, int from, bool wide = true)
    {
        if (to != from || !wide)
            Rr(0x8B, to, from, wide);
    }

    public void LoadGs(int register, int disp, bool wide = true) => Gs(0x8B, register, disp, wide);

    public void StoreGs(int disp, int register, bool wide = true) => Gs(0x89, register, disp, wide);

    /// <summary>movzx register, byte gs:[disp].</summary>
    public void LoadGsByte(int register, int disp) => Gs(0x0FB6, register, disp, false);

    /// <summary>mov byte gs:[disp], value.</summary>
    public void StoreGsByte(int disp, int value)
    {
        Gs(0xC6, 0, disp, false);
        Byte(value);
    }

    /// <summary>mov dword (or sign-extended qword) gs:[disp], value.</summary>
    public void StoreGsImmediate(int disp, int value, bool wide)
    {
        Gs(0xC7, 0, disp, wide);
        Int32(value);
    }

    public void MovImmediate(int register, ulong value)
    {
        if (value <= uint.MaxValue)
        {
            Rex(false, 0, 0, register);
            Byte(0xB8 | register & 7);
            Int32((int)value);
        }
        else if ((long)value == (int)value)
        {
            Rex(true, 0, 0, register);
            Byte(0xC7);
            Byte(0xC0 | register & 7);
            Int32((int)value);
        }
        else
        {
            Rex(true, 0, 0, register);
            Byte(0xB8 | register & 7);
            Int64(value);
        }
    }

    public void Lea(int register, int rmBase, int index, int shift, int disp, bool wide) =>
        Rm(0x8D, register, rmBase, index, shift, disp, wide);

    /// <summary>lea register, [index * 2^shift + disp32] without a base.</summary>
    public void LeaIndex(int register, int index, int shift, int disp, bool wide)
    {
        Rex(wide, register, index, 0);
        Byte(0x8D);
        Byte((register & 7) << 3 | 4);
        Byte(shift << 6 | (index & 7) << 3 | 5);
        Int32(disp);
    }

    /// <summary>shrx to, from, rsp: the host stack pointer is kept at 12 modulo 64 (see Layout.StackTag): a flag-free shift by a page.</summary>
    public void ShiftPage(int to, int from)
    {
        Byte(0xC4);
        Byte((to < 8 ? 0x80 : 0) | 0x40 | (from < 8 ? 0x20 : 0) | 2);
        Byte(0x80 | (~Host.Rsp & 15) << 3 | 3);
        Byte(0xF7);
        Byte(0xC0 | (to & 7) << 3 | from & 7);
    }

    /// <summary>bextr to, from, rsp: the bits of a TLB index, which the host stack pointer's low half describes. Changes flags.</summary>
    public void PageIndex(int to, int from)
    {
        Byte(0xC4);
        Byte((to < 8 ? 0x80 : 0) | 0x40 | (from < 8 ? 0x20 : 0) | 2);
        Byte(0x80 | (~Host.Rsp & 15) << 3);
        Byte(0xF7);
        Byte(0xC0 | (to & 7) << 3 | from & 7);
    }

    /// <summary>rorx to, from, count.</summary>
    public void Rorx(int to, int from, int count, bool wide)
    {
        Byte(0xC4);
        Byte((to < 8 ? 0x80 : 0) | 0x40 | (from < 8 ? 0x20 : 0) | 3);
        Byte((wide ? 0x80 : 0) | 0x78 | 3);
        Byte(0xF0);
        Byte(0xC0 | (to & 7) << 3 | from & 7);
        Byte(count);
    }

    public void MovzxByte(int to, int from)
    {
        // SPL..DIL need a REX prefix.
        int rex = 0x40 | (to >> 3 << 2) | (from >> 3);
        if (rex != 0x40 || from >= 4)
            Byte(rex);
        Byte(0x0F);
        Byte(0xB6);
        Byte(0xC0 | (to & 7) << 3 | from & 7);
    }

    public void MovzxWord(int to, int from) => Rr(0x0FB7, to, from, false);

    /// <summary>mov to16, from16.</summary>
    public void MovWord(int to, int from)
    {
        Byte(0x66);
        Rr(0x8B, to, from, false);
    }

    public void Push(int register)
    {
        Rex(false, 0, 0, register);
        Byte(0x50 | register & 7);
    }

    public void Pop(int register)
    {
        Rex(false, 0, 0, register);
        Byte(0x58 | register & 7);
    }

    public void Jmp(byte* target)
    {
        Byte(0xE9);
        Int32((int)(target - (P + 4)));
    }

    /// <summary>jmp rel32 to be fixed; returns where the displacement is.</summary>
    public byte* JmpForward()
    {
        Byte(0xE9);
        P += 4;
        return P - 4;
    }

    /// <summary>jcc rel32 to be fixed.</summary>
    public byte* JccForward(int condition)
    {
        Byte(0x0F);
        Byte(0x80 | condition);
        P += 4;
        return P - 4;
    }

    public void Jcc(int condition, byte* target)
    {
        Byte(0x0F);
        Byte(0x80 | condition);
        Int32((int)(target - (P + 4)));
    }

    /// <summary>jrcxz rel8 to be fixed.</summary>
    public byte* JrcxzForward()
    {
        Byte(0xE3);
        return P++;
    }

    public byte* JmpShortForward()
    {
        Byte(0xEB);
        return P++;
    }

    public void Call(byte* target)
    {
        Byte(0xE8);
        Int32((int)(target - (P + 4)));
    }

    public static void Fix(byte* at, byte* target) => *(int*)at = (int)(target - (at + 4));

    public readonly void FixHere(byte* at) => Fix(at, P);

    public readonly void FixShortHere(byte* at) => *at = checked((byte)(sbyte)(P - (at + 1)));

    /// <summary>cmp register, imm32.</summary>
    public void CmpImmediate(int register, int value, bool wide)
    {
        Rex(wide, 0, 0, register);
        Byte(0x81);
        Byte(0xC0 | 7 << 3 | register & 7);
        Int32(value);
    }
}
