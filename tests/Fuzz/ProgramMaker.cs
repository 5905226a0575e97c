using Iced.Intel;
using ImgKit.Cpu.Models;

namespace ImgKit.Fuzz;

/// <summary>Makes a program of any bytes: they choose instructions, registers, addresses and constants. It ends by itself, by HLT or a fault: a
/// loop around it goes a few times, jumps in it go forward.</summary>
internal sealed class ProgramMaker
{
    private static readonly Register[] Pointers = [Register.RBX, Register.RSI, Register.RDI, Register.RSP, Register.RBP, Register.R12];
    private static readonly Register[] Numbers = [Register.RAX, Register.RCX, Register.RDX, Register.R8, Register.R9, Register.R11, Register.R13, Register.R14];
    private readonly int _bits;
    private readonly Code[] _codes;
    private byte[] _choices = [];
    private int _at;

    public ProgramMaker(int bits, CpuModel model)
    {
        _bits = bits;
        _codes = [.. Enum.GetValues<Code>().Where(c => IsGood(c, bits, model))];
    }

    private static bool IsGood(Code code, int bits, CpuModel model)
    {
        var info = code.ToOpCode();
        if (!info.IsInstruction || !(bits switch { 64 => info.Mode64, 32 => info.Mode32, _ => info.Mode16 }) || info.IsPrivileged
            || info.Encoding == EncodingKind.EVEX || bits == 16 && info.Encoding != EncodingKind.Legacy)
        {
            return false;
        }
        var i = new Instruction { Code = code };
        foreach (var feature in i.CpuidFeatures)
        {
            if (!model.Has(feature) || feature is CpuidFeature.CET_SS or CpuidFeature.CET_IBT or CpuidFeature.MPX)
                return false;
        }
        return i.FlowControl == FlowControl.Next && !IsOpen(i.Mnemonic);
    }

    /// <summary>What ends most programs, what has its own time, and what need not be the same twice: the last x87 instruction is forgotten when the
    /// host switches threads (AMD); bit tests keep flags that the manuals leave open, and here they may be dead.</summary>
    private static bool IsOpen(Mnemonic m) => m is Mnemonic.Bextr or Mnemonic.Bzhi or Mnemonic.Fxsave or Mnemonic.Fxsave64 or Mnemonic.Xsave or Mnemonic.Xsave64 or Mnemonic.Xsavec or Mnemonic.Xsavec64
        or Mnemonic.Xsaveopt or Mnemonic.Xsaveopt64 or Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc or Mnemonic.Fnstenv or Mnemonic.Fnsave
        or Mnemonic.Rdtsc or Mnemonic.Rdtscp or Mnemonic.Hlt or Mnemonic.Les or Mnemonic.Lds or Mnemonic.Lss or Mnemonic.Lfs or Mnemonic.Lgs
        or Mnemonic.Ldmxcsr or Mnemonic.Vldmxcsr or Mnemonic.Xrstor or Mnemonic.Xrstor64 or Mnemonic.Fxrstor or Mnemonic.Fxrstor64 or Mnemonic.Lldt
        or Mnemonic.Ltr or Mnemonic.In or Mnemonic.Out or Mnemonic.Popf or Mnemonic.Popfd or Mnemonic.Popfq or Mnemonic.Reservednop;

    private int Next(int count) => _at >= _choices.Length ? 0 : _choices[_at++] % count;

    private uint Word() => (uint)(Next(256) | Next(256) << 8);

    public byte[] Make(byte[] choices)
    {
        _choices = choices;
        _at = 0;
        var code = new List<byte>();
        var counter = _bits == 64 ? Register.R15D : Register.EDX;
        Append(code, Instruction.Create(_bits == 16 ? Code.Mov_r16_imm16 : Code.Mov_r32_imm32, _bits == 16 ? Register.DX : counter, 1 + Next(4)));
        int top = code.Count;
        while (_at < _choices.Length && code.Count < 3000)
        {
            if (Next(8) == 0)
                AppendMove(code);
            byte[]? one = Encode(MakeOne(_codes[Word() % _codes.Length]), code.Count);
            if (one == null)
                continue;
            if (Next(10) == 0)
                code.AddRange([(byte)(0x70 | Next(16)), (byte)one.Length]);
            code.AddRange(one);
        }
        if (_bits == 64)
        {
            Append(code, Instruction.Create(Code.Dec_rm32, counter));
            code.AddRange([0x0F, 0x85, .. BitConverter.GetBytes(top - (code.Count + 6))]);
        }
        code.Add(0xF4);
        return [.. code];
    }

    private Register Cut(Register r) => _bits == 64 ? r : r == Register.R12 ? Register.EBP : Register.EAX + (r - Register.RAX & 7);

    // Pointers move by little, so that windows over a base register see it.
    private void AppendMove(List<byte> code)
    {
        var pointer = Cut(Pointers[Next(Pointers.Length)]);
        Append(code, Instruction.Create(_bits == 64 ? Code.Add_rm64_imm8 : Code.Add_rm32_imm8, pointer, (sbyte)(Next(8) == 0 ? Next(256) : Next(16) << 4)));
    }

    private void Append(List<byte> code, Instruction instruction) => code.AddRange(Encode(instruction, code.Count)!);

    private byte[]? Encode(Instruction? instruction, int at)
    {
        if (instruction is not { } i)
            return null;
        var bytes = new Writer();
        return Encoder.Create(_bits, bytes).TryEncode(i, (_bits == 16 ? 0 : CpuBoard.Code) + (ulong)at, out _, out _) ? [.. bytes.Bytes] : null;
    }

    private Instruction? MakeOne(Code code)
    {
        var i = new Instruction { Code = code };
        var info = code.ToOpCode();
        for (int op = 0; op < info.OpCount; op++)
        {
            if (!SetOperand(ref i, op, info.GetOpKind(op)))
                return null;
        }
        if (info.CanUseLockPrefix && i.Op0Kind == OpKind.Memory && Next(4) == 0)
            i.HasLockPrefix = true;
        return i;
    }

    private Register Number(Register family) => family + (_bits == 64 ? Numbers[Next(Numbers.Length)] - Register.RAX : Next(3) == 0 ? 1 : 0);

    private bool SetOperand(ref Instruction i, int op, OpCodeOperandKind kind)
    {
        switch (kind)
        {
            case OpCodeOperandKind.r8_reg or OpCodeOperandKind.r8_opcode:
                return Set(ref i, op, Next(4) == 0 ? Register.AH + Next(2) : Number(Register.AL));
            case OpCodeOperandKind.r16_reg or OpCodeOperandKind.r16_rm or OpCodeOperandKind.r16_opcode:
                return Set(ref i, op, Number(Register.AX));
            case OpCodeOperandKind.r32_reg or OpCodeOperandKind.r32_rm or OpCodeOperandKind.r32_opcode or OpCodeOperandKind.r32_vvvv:
                return Set(ref i, op, Number(Register.EAX));
            case OpCodeOperandKind.r64_reg or OpCodeOperandKind.r64_rm or OpCodeOperandKind.r64_opcode or OpCodeOperandKind.r64_vvvv:
                return Set(ref i, op, Number(Register.RAX));
            case OpCodeOperandKind.r8_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Number(Register.AL));
            case OpCodeOperandKind.r16_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Number(Register.AX));
            case OpCodeOperandKind.r32_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Number(Register.EAX));
            case OpCodeOperandKind.r64_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Number(Register.RAX));
            case OpCodeOperandKind.mem:
                return SetMemory(ref i, op);
            case OpCodeOperandKind.mm_reg or OpCodeOperandKind.mm_rm:
                return Set(ref i, op, Register.MM0 + Next(8));
            case OpCodeOperandKind.mm_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Register.MM0 + Next(8));
            case OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_rm or OpCodeOperandKind.xmm_vvvv or OpCodeOperandKind.xmm_is4:
                return Set(ref i, op, Register.XMM0 + Next(8));
            case OpCodeOperandKind.xmm_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Register.XMM0 + Next(8));
            case OpCodeOperandKind.ymm_reg or OpCodeOperandKind.ymm_rm or OpCodeOperandKind.ymm_vvvv or OpCodeOperandKind.ymm_is4:
                return Set(ref i, op, Register.YMM0 + Next(8));
            case OpCodeOperandKind.ymm_or_mem:
                return Next(2) == 0 ? SetMemory(ref i, op) : Set(ref i, op, Register.YMM0 + Next(8));
            case OpCodeOperandKind.st0:
                return Set(ref i, op, Register.ST0);
            case OpCodeOperandKind.sti_opcode:
                return Set(ref i, op, Register.ST0 + Next(8));
            case OpCodeOperandKind.al or OpCodeOperandKind.cl or OpCodeOperandKind.ax or OpCodeOperandKind.eax or OpCodeOperandKind.rax:
                return Set(ref i, op, kind switch
                {
                    OpCodeOperandKind.al => Register.AL,
                    OpCodeOperandKind.cl => Register.CL,
                    OpCodeOperandKind.ax => Register.AX,
                    OpCodeOperandKind.eax => Register.EAX,
                    _ => Register.RAX,
                });
            case OpCodeOperandKind.imm8:
                i.SetOpKind(op, OpKind.Immediate8);
                i.Immediate8 = (byte)Next(256);
                return true;
            case OpCodeOperandKind.imm8_const_1:
                i.SetOpKind(op, OpKind.Immediate8);
                i.Immediate8 = 1;
                return true;
            case OpCodeOperandKind.imm8sex16 or OpCodeOperandKind.imm8sex32 or OpCodeOperandKind.imm8sex64:
                i.SetOpKind(op, kind == OpCodeOperandKind.imm8sex16 ? OpKind.Immediate8to16
                    : kind == OpCodeOperandKind.imm8sex32 ? OpKind.Immediate8to32 : OpKind.Immediate8to64);
                i.SetImmediate(op, (sbyte)Next(256));
                return true;
            case OpCodeOperandKind.imm16:
                i.SetOpKind(op, OpKind.Immediate16);
                i.Immediate16 = (ushort)Word();
                return true;
            case OpCodeOperandKind.imm32 or OpCodeOperandKind.imm32sex64:
                i.SetOpKind(op, kind == OpCodeOperandKind.imm32 ? OpKind.Immediate32 : OpKind.Immediate32to64);
                i.SetImmediate(op, (int)(Word() << 16 | Word()));
                return true;
            case OpCodeOperandKind.imm64:
                i.SetOpKind(op, OpKind.Immediate64);
                i.Immediate64 = (ulong)Word() << 48 | Word();
                return true;
            case OpCodeOperandKind.seg_rSI or OpCodeOperandKind.es_rDI:
                bool source = kind == OpCodeOperandKind.seg_rSI;
                i.SetOpKind(op, _bits == 64 ? source ? OpKind.MemorySegRSI : OpKind.MemoryESRDI : source ? OpKind.MemorySegESI : OpKind.MemoryESEDI);
                return true;
            default:
                return false;
        }
    }

    private static bool Set(ref Instruction i, int op, Register r)
    {
        i.SetOpKind(op, OpKind.Register);
        i.SetOpRegister(op, r);
        return true;
    }

    private bool SetMemory(ref Instruction i, int op)
    {
        i.SetOpKind(op, OpKind.Memory);
        i.MemoryBase = Cut(Pointers[Next(Pointers.Length)]);
        int displacement = (sbyte)Next(256) * (Next(4) == 0 ? 37 : 1);
        // Vectors that must lie well do so mostly.
        if (i.MemorySize.GetSize() >= 16 && Next(8) != 0)
            displacement &= ~63;
        else if (Next(8) != 0)
            displacement &= ~7;
        i.MemoryDisplacement64 = (ulong)displacement;
        i.MemoryDisplSize = displacement == 0 ? 0 : displacement == (sbyte)displacement ? 1 : 4;
        i.MemoryIndexScale = 1;
        return true;
    }

    private sealed class Writer : CodeWriter
    {
        public List<byte> Bytes { get; } = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }
}
