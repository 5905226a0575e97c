using Iced.Intel;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Every instruction form of the host's own processor, with random operands, against the processor itself.</summary>
[Collection("host comparison")]
public sealed class InstructionTests
{
    /// <summary>Instances of each form.</summary>
    private const int Rounds = 3;

    internal static bool IsComparable(Code code, int bits)
    {
        var info = code.ToOpCode();
        if (!info.IsInstruction || !(bits switch { 64 => info.Mode64, 32 => info.Mode32, _ => info.Mode16 }) || info.IsPrivileged || code == Code.INVALID || info.Encoding == EncodingKind.EVEX)
            return false;
        var instruction = new Instruction { Code = code };
        if (instruction.FlowControl != FlowControl.Next || instruction.IsPrivileged || instruction.IsStackInstruction || instruction.IsVsib)
            return false;
        var host = CpuModel.Parse("max");
        foreach (var feature in instruction.CpuidFeatures)
        {
            if (!host.Has(feature) || feature is CpuidFeature.CET_SS or CpuidFeature.CET_IBT or CpuidFeature.MPX)
                return false;
        }
        return instruction.Mnemonic is not (Mnemonic.Reservednop or Mnemonic.Lss or Mnemonic.Lfs or Mnemonic.Lgs or Mnemonic.Les or Mnemonic.Lds or Mnemonic.Cpuid or Mnemonic.Rdtsc or Mnemonic.Rdtscp or Mnemonic.Rdpmc or Mnemonic.Rdrand or
            Mnemonic.Rdseed or Mnemonic.Rdpid or Mnemonic.Xgetbv or Mnemonic.Xsetbv or Mnemonic.Div or Mnemonic.Idiv or Mnemonic.Sgdt or
            Mnemonic.Sidt or Mnemonic.Sldt or Mnemonic.Str or Mnemonic.Smsw or Mnemonic.Lar or Mnemonic.Lsl or Mnemonic.Verr or
            Mnemonic.Verw or Mnemonic.In or Mnemonic.Out or Mnemonic.Cli or Mnemonic.Sti or Mnemonic.Stac or Mnemonic.Clac or
            Mnemonic.Hlt or Mnemonic.Monitor or Mnemonic.Mwait or Mnemonic.Monitorx or Mnemonic.Mwaitx or Mnemonic.Rdfsbase or
            Mnemonic.Rdgsbase or Mnemonic.Wrfsbase or Mnemonic.Wrgsbase or Mnemonic.Ldmxcsr or Mnemonic.Vldmxcsr or Mnemonic.Fldcw or
            Mnemonic.Fstenv or Mnemonic.Fsave or
            Mnemonic.Fxrstor or Mnemonic.Fxrstor64 or Mnemonic.Xrstor or Mnemonic.Xrstor64 or Mnemonic.Xrstors or Mnemonic.Xrstors64 or
            Mnemonic.Fxsave or Mnemonic.Fxsave64 or Mnemonic.Xsave or Mnemonic.Xsave64 or Mnemonic.Xsavec or Mnemonic.Xsavec64 or
            Mnemonic.Xsaveopt or Mnemonic.Xsaveopt64 or Mnemonic.Xsaves or Mnemonic.Xsaves64 or Mnemonic.Umonitor or Mnemonic.Clzero or
            Mnemonic.Std or Mnemonic.Movdir64b or Mnemonic.Fnstsw or Mnemonic.Fstsw or Mnemonic.Bound or Mnemonic.Rdpru or
            Mnemonic.Maskmovdqu or Mnemonic.Maskmovq or Mnemonic.Vmaskmovdqu or Mnemonic.Swapgs or Mnemonic.Clui or Mnemonic.Stui) &&
            !instruction.IsStringInstruction;
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    [InlineData(16)]
    public void Every_form_does_what_the_processor_does(int bits)
    {
        var random = new Random(bits);
        using var comparison = new HostComparison(bits);
        var sampler = new InstructionSampler(random, bits);
        var failures = new List<string>();
        int forms = 0, runs = 0;
        foreach (Code code in Enum.GetValues<Code>())
        {
            if (!IsComparable(code, bits))
                continue;
            bool made = false;
            for (int round = 0; round < Rounds && failures.Count < 40; round++)
            {
                sampler.Registers();
                var bytes = sampler.Make(code, out var instruction);
                if (bytes == null || instruction.Mnemonic == Mnemonic.Aam && instruction.Immediate8 == 0)
                    continue;
                made = true;
                runs++;
                RandomState(comparison, random);
                sampler.Gpr.CopyTo(comparison.Gpr, 0);
                if (instruction.Mnemonic is (Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc) &&
                    !LimitBitOffset(comparison, instruction))
                {
                    continue;
                }
                string? difference = comparison.Compare(bytes, UndefinedFlags(instruction));
                if (difference != null)
                    failures.Add($"{instruction} [{code}] {Convert.ToHexString(bytes)}: {difference}");
            }
            if (made)
                forms++;
        }
        Assert.True(failures.Count == 0, $"{failures.Count} of {runs} ({forms} forms)\n{string.Join('\n', failures)}");
        Assert.True(forms > 1000, $"only {forms} forms");
    }

    /// <summary>What the architecture leaves open, as bits of RFLAGS.</summary>
    internal static ulong UndefinedFlags(in Instruction instruction)
    {
        var bits = instruction.RflagsUndefined;
        ulong flags = 0;
        foreach (var (bit, flag) in new[] { (RflagsBits.CF, 1u), (RflagsBits.PF, 4u), (RflagsBits.AF, 0x10u), (RflagsBits.ZF, 0x40u),
            (RflagsBits.SF, 0x80u), (RflagsBits.OF, 0x800u) })
        {
            if ((bits & bit) != 0)
                flags |= flag;
        }
        return flags;
    }

    /// <summary>A bit offset in a register reaches beyond the operand, but not out of the data. False: it is the address as well.</summary>
    private static bool LimitBitOffset(HostComparison comparison, in Instruction instruction)
    {
        if (instruction.Op0Kind != OpKind.Memory || instruction.Op1Kind != OpKind.Register)
            return true;
        var r = instruction.Op1Register;
        int number = r >= Register.RAX ? r - Register.RAX : r >= Register.EAX ? r - Register.EAX : r - Register.AX;
        if (instruction.MemoryBase.GetFullRegister() == Register.RAX + number || instruction.MemoryIndex.GetFullRegister() == Register.RAX + number)
            return false;
        comparison.Gpr[number] = (ulong)(long)(short)comparison.Gpr[number] >> 2;
        comparison.Gpr[number] = (ulong)((long)(comparison.Gpr[number] << 2) >> 2);
        return true;
    }

    internal static void RandomState(HostComparison comparison, Random random)
    {
        random.NextBytes(new Span<byte>(comparison.Xsave));
        var x = comparison.Xsave.AsSpan();
        x[..32].Clear();
        BitConverter.TryWriteBytes(x, (ushort)0x37F);
        x[4] = 0xFF;
        BitConverter.TryWriteBytes(x[24..], 0x1F80);
        x[512..576].Clear();
        x[512] = 7;
        for (int i = 0; i < 8; i++)
            x[(32 + 16 * i + 10)..(48 + 16 * i)].Clear();
        comparison.Flags = 2 | (ulong)random.Next() & 0x8D5;
        unsafe
        {
            random.NextBytes(new Span<byte>((void*)HostComparison.Data, HostComparison.DataSize));
        }
    }
}
