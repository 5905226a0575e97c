using Iced.Intel;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>RFLAGS in the frame of a fault, which later instructions of the same block overwrite: random programs that fault somewhere, against
/// the host's processor and what its kernel tells of the signal.</summary>
[Collection("host comparison")]
public sealed class FlagsAtFaultTests
{
    private const ulong Readable = HostComparison.Data + 0x4000, Stack = HostComparison.Data + 0x8000;

    /// <summary>What programs compute with; the others are pointers.</summary>
    private static readonly int[] Numbers64 = [0, 1, 2, 8, 12, 13, 14], Numbers32 = [0, 1, 2];

    private static readonly Code[] FlagWriters =
    [
        Code.Add_rm32_r32, Code.Add_r32_rm32, Code.Add_rm8_imm8, Code.Or_rm32_r32, Code.Adc_rm32_r32, Code.Sbb_r32_rm32, Code.And_rm32_imm8,
        Code.Sub_rm32_r32, Code.Xor_r32_rm32, Code.Cmp_rm32_r32, Code.Cmp_rm32_imm8, Code.Cmp_r8_rm8, Code.Test_rm32_r32, Code.Test_rm8_imm8,
        Code.Inc_rm32, Code.Dec_rm32, Code.Neg_rm32, Code.Shl_rm32_imm8, Code.Shr_rm32_CL, Code.Sar_rm32_1, Code.Rol_rm32_imm8, Code.Rcr_rm32_1,
        Code.Shld_rm32_r32_imm8, Code.Imul_r32_rm32, Code.Mul_rm32, Code.Bt_rm32_imm8, Code.Bts_rm32_imm8, Code.Bsf_r32_rm32, Code.Xadd_rm32_r32,
        Code.Cmpxchg_rm32_r32, Code.Clc, Code.Stc, Code.Cmc, Code.Sahf, Code.Popcnt_r32_rm32, Code.Comiss_xmm_xmmm32, Code.Ptest_xmm_xmmm128,
    ];

    private static readonly Code[] Others =
    [
        Code.Mov_r32_rm32, Code.Mov_rm32_r32, Code.Mov_r8_rm8, Code.Movzx_r32_rm8, Code.Lea_r32_m, Code.Cmove_r32_rm32, Code.Setb_rm8, Code.Xchg_rm32_r32,
        Code.Movups_xmm_xmmm128, Code.Addss_xmm_xmmm32, Code.Not_rm32, Code.Lahf, Code.Fld_m32fp, Code.Movd_mm_rm32,
    ];

    private static readonly Code[] Wide = [Code.Mov_r64_rm64, Code.Mov_rm64_r64, Code.Add_r64_rm64, Code.Cmp_rm64_r64, Code.Xor_rm64_r64, Code.Sub_rm64_imm32,
        Code.Shr_rm64_imm8, Code.Test_rm64_r64, Code.Imul_r64_rm64, Code.Push_r64, Code.Pop_r64, Code.VEX_Andn_r32_r32_rm32, Code.VEX_Shlx_r64_rm64_r64, Code.Inc_rm64];

    private readonly List<byte> _code = [];
    private readonly List<string> _text = [];
    private Random _random = new();
    private int _bits;

    private Register Number(Register family)
    {
        int n = _bits == 64 ? Numbers64[_random.Next(Numbers64.Length)] : Numbers32[_random.Next(Numbers32.Length)];
        return family == Register.AL && n < 3 && _random.Next(3) == 0 ? Register.AH + n : family + n;
    }

    private void Append(in Instruction instruction)
    {
        var bytes = new Writer();
        if (!Encoder.Create(_bits, bytes).TryEncode(instruction, HostComparison.Code + (ulong)_code.Count, out _, out _))
            return;
        _code.AddRange(bytes.Bytes);
        _text.Add(instruction.ToString());
    }

    /// <summary>An instance of a form: registers that are no pointers, memory through a pointer where there may be some.</summary>
    private void Append(Code code, Register pointer, bool memory)
    {
        var i = new Instruction { Code = code };
        var info = code.ToOpCode();
        for (int op = 0; op < info.OpCount; op++)
        {
            var kind = info.GetOpKind(op);
            switch (kind)
            {
                case OpCodeOperandKind.r8_or_mem or OpCodeOperandKind.r16_or_mem or OpCodeOperandKind.r32_or_mem or OpCodeOperandKind.r64_or_mem
                    or OpCodeOperandKind.xmm_or_mem when memory:
                case OpCodeOperandKind.mem:
                    i.SetOpKind(op, OpKind.Memory);
                    i.MemoryBase = pointer;
                    i.MemoryIndexScale = 1;
                    i.MemoryDisplSize = 1;
                    i.MemoryDisplacement64 = (ulong)(_random.Next(8) * 16);
                    break;
                case OpCodeOperandKind.r8_reg or OpCodeOperandKind.r8_or_mem:
                    i.SetOpKind(op, OpKind.Register);
                    i.SetOpRegister(op, Number(Register.AL));
                    break;
                case OpCodeOperandKind.r32_reg or OpCodeOperandKind.r32_or_mem or OpCodeOperandKind.r32_vvvv:
                    i.SetOpKind(op, OpKind.Register);
                    i.SetOpRegister(op, Number(Register.EAX));
                    break;
                case OpCodeOperandKind.r64_reg or OpCodeOperandKind.r64_or_mem or OpCodeOperandKind.r64_vvvv or OpCodeOperandKind.r64_opcode:
                    i.SetOpKind(op, OpKind.Register);
                    i.SetOpRegister(op, Number(Register.RAX));
                    break;
                case OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_or_mem:
                    i.SetOpKind(op, OpKind.Register);
                    i.SetOpRegister(op, Register.XMM0 + _random.Next(4));
                    break;
                case OpCodeOperandKind.mm_reg:
                    i.SetOpKind(op, OpKind.Register);
                    i.SetOpRegister(op, Register.MM0 + _random.Next(4));
                    break;
                case OpCodeOperandKind.cl:
                    i.SetOpKind(op, OpKind.Register);
                    i.SetOpRegister(op, Register.CL);
                    break;
                case OpCodeOperandKind.imm8_const_1:
                    i.SetOpKind(op, OpKind.Immediate8);
                    i.Immediate8 = 1;
                    break;
                case OpCodeOperandKind.imm8:
                    i.SetOpKind(op, OpKind.Immediate8);
                    i.Immediate8 = (byte)_random.Next(256);
                    break;
                case OpCodeOperandKind.imm8sex32:
                    i.SetOpKind(op, OpKind.Immediate8to32);
                    i.Immediate8to32 = (sbyte)_random.Next(256);
                    break;
                case OpCodeOperandKind.imm32sex64:
                    i.SetOpKind(op, OpKind.Immediate32to64);
                    i.Immediate32to64 = _random.Next();
                    break;
                default:
                    throw new InvalidOperationException($"{code} has {kind}");
            }
        }
        Append(i);
    }

    private Register Pointer(int number) => (_bits == 64 ? Register.RAX : Register.EAX) + number;

    private Code Pick() => _random.Next(_bits == 64 ? 5 : 4) switch
    {
        0 or 1 or 2 => FlagWriters[_random.Next(FlagWriters.Length)],
        3 => Others[_random.Next(Others.Length)],
        _ => Wide[_random.Next(Wide.Length)],
    };

    private void Start(HostComparison comparison, int bits, int seed)
    {
        _bits = bits;
        _random = new Random(seed);
        _code.Clear();
        _text.Clear();
        InstructionTests.RandomState(comparison, _random);
        for (int i = 0; i < 16; i++)
            comparison.Gpr[i] = _random.Next(3) == 0 ? (ulong)_random.Next(3) - 1 : (ulong)_random.NextInt64(long.MinValue, long.MaxValue);
        comparison.Gpr[3] = Readable;
        comparison.Gpr[4] = Stack;
        comparison.Gpr[5] = Readable + 0x1000 - 40;
        comparison.Gpr[6] = HostComparison.Hole + 0x100;
        comparison.Gpr[7] = HostComparison.ReadOnlyPage + 0x100;
        if (bits != 64)
        {
            for (int i = 0; i < 16; i++)
                comparison.Gpr[i] = (uint)comparison.Gpr[i];
        }
    }

    /// <summary>Compares programs that <paramref name="write"/> appends, of which a quarter at least must fault.</summary>
    private void Run(int bits, int programs, Action<HostComparison> write)
    {
        using var comparison = new HostComparison(bits, user: true);
        var failures = new List<string>();
        int faults = 0;
        for (int seed = 0; seed < programs && failures.Count < 10; seed++)
        {
            Start(comparison, bits, seed);
            write(comparison);
            if (comparison.Compare([.. _code], 0) is { } difference)
                failures.Add($"{seed}: {string.Join("; ", _text)}: {difference}");
            if (comparison.LastTrap == 14)
                faults++;
        }
        Assert.True(failures.Count == 0, $"{failures.Count}\n{string.Join('\n', failures)}");
        Assert.True(faults > programs / 4, $"only {faults} faults");
    }

    /// <summary>Flags from before the block, from instructions in it, some of each; then a fault; then what overwrites them.</summary>
    [Theory]
    [InlineData(64, 2000)]
    [InlineData(32, 1000)]
    public void Faults_in_the_middle_of_a_block_show_the_flags_of_what_came_before(int bits, int programs) => Run(bits, programs, _ =>
    {
        int before = _random.Next(7), after = _random.Next(1, 4);
        for (int i = 0; i < before; i++)
        {
            if (_random.Next(8) == 0)
            {
                // Forward to the next instruction: a side exit.
                _code.AddRange([(byte)(0x70 | _random.Next(16)), 0]);
                _text.Add("jcc");
            }
            Append(Pick(), Pointer(_random.Next(3) == 0 ? 5 : 3), _random.Next(2) == 0);
        }
        Append(Pick(), Pointer(_random.Next(2) == 0 ? 6 : 7), true);
        for (int i = 0; i < after; i++)
            Append(FlagWriters[_random.Next(FlagWriters.Length)], Pointer(3), _random.Next(2) == 0);
    });

    /// <summary>A loop that walks into a page that is not there, after enough rounds to be translated as one.</summary>
    [Theory]
    [InlineData(64, 300)]
    [InlineData(32, 150)]
    public void Faults_in_a_later_round_of_a_loop_show_the_flags_of_that_round(int bits, int programs) => Run(bits, programs, comparison =>
    {
        comparison.Gpr[3] = HostComparison.Hole - (ulong)_random.Next(20, 60) * 64 - (ulong)_random.Next(4) * 16;
        comparison.Gpr[6] = 70;
        int count = _random.Next(1, 6);
        for (int i = 0; i < count; i++)
        {
            var code = Pick();
            // What is beside the data is not restored between the two runs: nothing may write there.
            bool reads = code is Code.Cmp_rm32_r32 or Code.Test_rm32_r32 or Code.Add_r32_rm32 or Code.Mov_r32_rm32 or Code.Movzx_r32_rm8 or Code.Cmp_r8_rm8 or
                Code.Imul_r32_rm32 or Code.Mov_r64_rm64 or Code.Add_r64_rm64 or Code.Cmp_rm64_r64 or Code.Sbb_r32_rm32 or Code.Comiss_xmm_xmmm32;
            if (code is Code.Push_r64 or Code.Pop_r64)
                continue;
            Append(code, Pointer(reads ? 3 : 5), reads || _random.Next(4) == 0);
        }
        Append(Code.Mov_r32_rm32, Pointer(3), true);
        Append(_random.Next(2) == 0 ? Instruction.Create(bits == 64 ? Code.Add_rm64_imm8 : Code.Add_rm32_imm8, Pointer(3), 64)
            : Instruction.Create(bits == 64 ? Code.Lea_r64_m : Code.Lea_r32_m, Pointer(3), new MemoryOperand(Pointer(3), 64)));
        Append(bits == 64 ? Instruction.Create(Code.Dec_rm64, Pointer(6)) : Instruction.Create(Code.Sub_rm32_imm8, Pointer(6), 1));
        _code.AddRange([0x0F, 0x85, .. BitConverter.GetBytes(-(_code.Count + 6))]);
        _text.Add("jne");
    });

    private sealed class Writer : CodeWriter
    {
        public List<byte> Bytes { get; } = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }
}
