using Iced.Intel;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Makes random instances of an instruction form whose memory operands stay within the data of a <see cref="HostComparison"/>.</summary>
internal sealed class InstructionSampler(Random random, int bits = 64)
{
    private readonly ulong[] _gpr = new ulong[16];

    /// <summary>What offsets of memory operands are relative to: 16-bit code has its data at the segment's beginning.</summary>
    private readonly ulong _data = bits == 16 ? 0 : HostComparison.Data;

    public ulong[] Gpr => _gpr;

    /// <summary>Operands of vector instructions lie at multiples of 64; otherwise, of any power of two.</summary>
    public bool AlignsVectors { get; init; } = true;

    /// <summary>Where memory operands lie; null: anywhere in the data.</summary>
    public Func<ulong>? Target { get; init; }

    private static readonly ulong[] Corners =
        [0, 1, 2, 7, 8, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000,
            0x7FFFFFFFFFFFFFFF, 0x8000000000000000, ulong.MaxValue, ulong.MaxValue - 1];

    public ulong Value() => random.Next(3) == 0 ? Corners[random.Next(Corners.Length)] : (ulong)random.NextInt64(long.MinValue, long.MaxValue);

    /// <summary>Random registers; RSP points into the data.</summary>
    public void Registers()
    {
        for (int i = 0; i < 16; i++)
            _gpr[i] = bits == 64 ? Value() : (uint)Value();
        _gpr[4] = HostComparison.Data + 0x8000 + (ulong)random.Next(0x800) * 8;
    }

    /// <summary>Encodes one instance; null where the form cannot be made.</summary>
    public byte[]? Make(Code code, out Instruction instruction)
    {
        instruction = new Instruction { Code = code };
        var info = code.ToOpCode();
        bool hasRegister8High = false, needsRex = false;
        for (int i = 0; i < info.OpCount; i++)
        {
            if (!SetOperand(ref instruction, i, info.GetOpKind(i), ref hasRegister8High, ref needsRex))
                return null;
        }
        if (info.CanUseLockPrefix && instruction.Op0Kind == OpKind.Memory && random.Next(4) == 0)
            instruction.HasLockPrefix = true;
        var bytes = new Writer();
        return Encoder.Create(bits, bytes).TryEncode(instruction, bits == 16 ? 0 : HostComparison.Code, out _, out _) ? bytes.Bytes.ToArray() : null;
    }

    private Register R(Register first, int count = 16) => first + random.Next(bits == 64 ? count : 8);

    private Register Register8(ref bool high)
    {
        int n = random.Next(bits == 64 ? 20 : 8);
        if (n < 4)
        {
            high = true;
            return Register.AH + n;
        }
        n -= 4;
        return n < 4 ? Register.AL + n : Register.SPL + (n - 4);
    }

    private bool SetOperand(ref Instruction i, int op, OpCodeOperandKind kind, ref bool high, ref bool rex)
    {
        _ = rex;
        switch (kind)
        {
            case OpCodeOperandKind.r8_reg or OpCodeOperandKind.r8_opcode:
                return SetRegister(ref i, op, Register8(ref high));
            case OpCodeOperandKind.r8_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, Register8(ref high));
            case OpCodeOperandKind.r16_reg or OpCodeOperandKind.r16_rm or OpCodeOperandKind.r16_opcode or OpCodeOperandKind.r16_reg_mem:
                return SetRegister(ref i, op, R(Register.AX));
            case OpCodeOperandKind.r32_reg or OpCodeOperandKind.r32_rm or OpCodeOperandKind.r32_opcode or OpCodeOperandKind.r32_vvvv or
                OpCodeOperandKind.r32_reg_mem:
                return SetRegister(ref i, op, R(Register.EAX));
            case OpCodeOperandKind.r64_reg or OpCodeOperandKind.r64_rm or OpCodeOperandKind.r64_opcode or OpCodeOperandKind.r64_vvvv or
                OpCodeOperandKind.r64_reg_mem:
                return SetRegister(ref i, op, R(Register.RAX));
            case OpCodeOperandKind.r16_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, R(Register.AX));
            case OpCodeOperandKind.r32_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, R(Register.EAX));
            case OpCodeOperandKind.r64_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, R(Register.RAX));
            case OpCodeOperandKind.mem:
                return SetMemory(ref i, op);
            case OpCodeOperandKind.mem_offs:
                i.SetOpKind(op, OpKind.Memory);
                i.MemoryDisplacement64 = _data + 0x1000 + (ulong)random.Next(0x6000);
                i.MemoryDisplSize = bits / 8;
                return true;
            case OpCodeOperandKind.mm_reg or OpCodeOperandKind.mm_rm:
                return SetRegister(ref i, op, R(Register.MM0, 8));
            case OpCodeOperandKind.mm_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, R(Register.MM0, 8));
            case OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_rm or OpCodeOperandKind.xmm_vvvv or OpCodeOperandKind.xmm_is4 or
                OpCodeOperandKind.xmm_is5:
                return SetRegister(ref i, op, R(Register.XMM0));
            case OpCodeOperandKind.xmm_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, R(Register.XMM0));
            case OpCodeOperandKind.ymm_reg or OpCodeOperandKind.ymm_rm or OpCodeOperandKind.ymm_vvvv or OpCodeOperandKind.ymm_is4 or
                OpCodeOperandKind.ymm_is5:
                return SetRegister(ref i, op, R(Register.YMM0));
            case OpCodeOperandKind.ymm_or_mem:
                return random.Next(2) == 0 ? SetMemory(ref i, op) : SetRegister(ref i, op, R(Register.YMM0));
            case OpCodeOperandKind.al:
                return SetRegister(ref i, op, Register.AL);
            case OpCodeOperandKind.cl:
                return SetRegister(ref i, op, Register.CL);
            case OpCodeOperandKind.ax:
                return SetRegister(ref i, op, Register.AX);
            case OpCodeOperandKind.eax:
                return SetRegister(ref i, op, Register.EAX);
            case OpCodeOperandKind.rax:
                return SetRegister(ref i, op, Register.RAX);
            case OpCodeOperandKind.st0:
                return SetRegister(ref i, op, Register.ST0);
            case OpCodeOperandKind.sti_opcode:
                return SetRegister(ref i, op, R(Register.ST0, 8));
            case OpCodeOperandKind.imm8:
                i.SetOpKind(op, OpKind.Immediate8);
                i.Immediate8 = (byte)Value();
                return true;
            case OpCodeOperandKind.imm8_const_1:
                i.SetOpKind(op, OpKind.Immediate8);
                i.Immediate8 = 1;
                return true;
            case OpCodeOperandKind.imm8sex16:
                i.SetOpKind(op, OpKind.Immediate8to16);
                i.Immediate8to16 = (short)(sbyte)Value();
                return true;
            case OpCodeOperandKind.imm8sex32:
                i.SetOpKind(op, OpKind.Immediate8to32);
                i.Immediate8to32 = (sbyte)Value();
                return true;
            case OpCodeOperandKind.imm8sex64:
                i.SetOpKind(op, OpKind.Immediate8to64);
                i.Immediate8to64 = (sbyte)Value();
                return true;
            case OpCodeOperandKind.imm16:
                i.SetOpKind(op, OpKind.Immediate16);
                i.Immediate16 = (ushort)Value();
                return true;
            case OpCodeOperandKind.imm32:
                i.SetOpKind(op, OpKind.Immediate32);
                i.Immediate32 = (uint)Value();
                return true;
            case OpCodeOperandKind.imm32sex64:
                i.SetOpKind(op, OpKind.Immediate32to64);
                i.Immediate32to64 = (int)Value();
                return true;
            case OpCodeOperandKind.imm64:
                i.SetOpKind(op, OpKind.Immediate64);
                i.Immediate64 = Value();
                return true;
            default:
                return false;
        }
    }

    private static bool SetRegister(ref Instruction i, int op, Register register)
    {
        i.SetOpKind(op, OpKind.Register);
        i.SetOpRegister(op, register);
        return true;
    }

    /// <summary>A memory operand of any form whose address lies in the data, 64-byte aligned half of the time.</summary>
    private bool SetMemory(ref Instruction i, int op)
    {
        i.SetOpKind(op, OpKind.Memory);
        bool vector = AlignsVectors && i.Code.ToOpCode().Encoding != EncodingKind.Legacy || AlignsVectors && i.MemorySize.GetSize() >= 16;
        ulong target = _data + 0x1000 + (ulong)random.Next(0x6000);
        if (vector || random.Next(2) == 0)
            target &= ~63UL;
        else if (!AlignsVectors)
            target &= ~0UL << random.Next(5);
        else if (random.Next(8) == 0)
            target = target & ~0xFFFUL | 0xFFCUL;
        if (Target != null)
            target = Target();
        switch (random.Next(6))
        {
            case 0 when bits == 64:
                i.MemoryBase = Register.RIP;
                i.MemoryDisplacement64 = target;
                i.MemoryDisplSize = 8;
                return true;
            case 1:
                i.MemoryDisplacement64 = target;
                i.MemoryDisplSize = bits == 16 && random.Next(2) == 0 ? 2 : 4;
                i.MemoryIndexScale = 1;
                return true;
        }
        if (bits == 16 && random.Next(3) != 0)
        {
            SetMemory16(ref i, target, vector);
            return true;
        }
        bool small = bits != 64 || random.Next(5) == 0;
        int baseNumber = PickAddressRegister(-1), indexNumber = random.Next(2) == 0 ? PickAddressRegister(baseNumber) : -1;
        int scale = 1 << random.Next(4);
        int displacement = random.Next(3) == 0 ? 0 : random.Next(2) == 0 ? random.Next(-128, 128) : random.Next(-100000, 100000);
        if (vector)
            displacement &= ~63;
        ulong rest = target - (ulong)displacement;
        if (indexNumber >= 0)
        {
            ulong index = (ulong)random.Next(0x1000) & (vector ? ~63UL : ulong.MaxValue);
            _gpr[indexNumber] = index;
            rest -= index * (ulong)scale;
        }
        _gpr[baseNumber] = rest;
        var first = small ? Register.EAX : Register.RAX;
        if (bits != 64)
        {
            _gpr[baseNumber] = (uint)_gpr[baseNumber];
        }
        else if (small)
        {
            _gpr[baseNumber] |= Value() << 32;
            if (indexNumber >= 0)
                _gpr[indexNumber] |= Value() << 32;
        }
        i.MemoryBase = first + baseNumber;
        i.MemoryIndex = indexNumber < 0 ? Register.None : first + indexNumber;
        i.MemoryIndexScale = indexNumber < 0 ? 1 : scale;
        i.MemoryDisplacement64 = (ulong)displacement;
        i.MemoryDisplSize = displacement == 0 ? 0 : displacement == (sbyte)displacement ? 1 : 4;
        return true;
    }

    /// <summary>One of the eight forms of 16-bit addressing; the registers' upper halves do not count.</summary>
    private void SetMemory16(ref Instruction i, ulong target, bool vector)
    {
        var (first, second) = random.Next(8) switch
        {
            0 => (Register.BX, Register.SI),
            1 => (Register.BX, Register.DI),
            2 => (Register.BP, Register.SI),
            3 => (Register.BP, Register.DI),
            4 => (Register.SI, Register.None),
            5 => (Register.DI, Register.None),
            6 => (Register.BP, Register.None),
            _ => (Register.BX, Register.None),
        };
        int displacement = random.Next(3) == 0 && first != Register.BP ? 0 : random.Next(2) == 0 ? random.Next(-128, 128) : random.Next(-30000, 30000);
        if (vector)
            displacement &= ~63;
        ulong rest = target - (ulong)displacement;
        if (second != Register.None)
        {
            ulong index = (ulong)random.Next(0x10000) & (vector ? ~63UL : ulong.MaxValue);
            _gpr[second - Register.AX] = _gpr[second - Register.AX] & 0xFFFF0000 | index;
            rest -= index;
        }
        _gpr[first - Register.AX] = _gpr[first - Register.AX] & 0xFFFF0000 | rest & 0xFFFF;
        i.MemoryBase = first;
        i.MemoryIndex = second;
        i.MemoryIndexScale = 1;
        i.MemoryDisplacement64 = (ushort)displacement;
        i.MemoryDisplSize = displacement == 0 && (first != Register.BP || second != Register.None) ? 0 : displacement == (sbyte)displacement ? 1 : 2;
    }

    private int PickAddressRegister(int not)
    {
        while (true)
        {
            int n = random.Next(bits == 64 ? 16 : 8);
            if (n != 4 && n != not)
                return n;
        }
    }

    private sealed class Writer : CodeWriter
    {
        public List<byte> Bytes { get; } = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }
}
