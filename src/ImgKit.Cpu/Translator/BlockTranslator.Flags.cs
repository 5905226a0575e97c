using Iced.Intel;

namespace ImgKit.Cpu.Translator;

// Lookups may change the host's flags where the guest's are overwritten before anything reads them. What a fault in between pushes has them
// still: the instruction that made them is done again on the slow path, or they are spared before, in the context (README.md, Flags).
internal sealed unsafe partial class BlockTranslator
{
    private enum FlagEffect : byte
    {
        None,

        /// <summary>Some arithmetic flags change, or all may stay.</summary>
        Some,

        /// <summary>All change.</summary>
        All,
    }

    private const RflagsBits Arithmetic = RflagsBits.CF | RflagsBits.PF | RflagsBits.AF | RflagsBits.ZF | RflagsBits.SF | RflagsBits.OF;

    private readonly bool[] _flagsLive = new bool[MaxInstructions];
    private readonly FlagEffect[] _flagEffects = new FlagEffect[MaxInstructions];

    /// <summary>The guest's flags are in <see cref="CpuContext.SparedFlags"/>, and the host's may be other ones.</summary>
    private bool _flagsSpared;

    /// <summary>The instruction that made the guest's flags, which are not in the host's, but can be made again; -1 for none.</summary>
    private int _flagsRepeated;

    /// <summary>The last instruction that made all flags; -1: it is not in the block, or others have changed some since.</summary>
    private int _flagsMadeBy;

    /// <summary>For each instruction: must the host have the guest's flags before it, for what comes?</summary>
    private void ComputeLiveFlags(int count)
    {
        var live = Arithmetic;
        // From here on something may fault before all flags have changed.
        bool exposed = true;
        for (int i = count - 1; i >= 0; i--)
        {
            ref var instruction = ref _instructions[i];
            var effect = FlagEffect.None;
            // A divide error finds the flags from before.
            if (instruction.FlowControl != FlowControl.Next || instruction.Mnemonic is Mnemonic.Div or Mnemonic.Idiv || IsInterpreted(instruction))
            {
                live = Arithmetic;
                exposed = true;
            }
            else
            {
                effect = EffectOnFlags(instruction);
                if (!KeepsFlagsAtTimes(instruction))
                    live &= ~(KeepsUndefinedFlags(instruction) ? instruction.RflagsModified & ~instruction.RflagsUndefined : instruction.RflagsModified);
                live |= instruction.RflagsRead & Arithmetic;
                // The others are those from before.
                if (effect == FlagEffect.Some && exposed)
                    live = Arithmetic;
                // Before what a jump looks at there may be a poll.
                exposed = exposed && effect != FlagEffect.All || MayFault(instruction) ||
                    effect == FlagEffect.All && i + 1 < count && _instructions[i + 1].FlowControl != FlowControl.Next;
            }
            _flagEffects[i] = effect;
            _flagsLive[i] = (live & Arithmetic) != 0;
        }
    }

    private static bool IsShift(in Instruction instruction) => instruction.Mnemonic is
        Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Sal or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr or
        Mnemonic.Shld or Mnemonic.Shrd;

    /// <summary>Shifts by a count that may be 0 and repeated compares leave the flags.</summary>
    private static bool KeepsFlagsAtTimes(in Instruction instruction) =>
        IsShift(instruction) || instruction.HasRepPrefix || instruction.HasRepnePrefix;

    /// <summary>What the manuals leave undefined after these, some processors leave as it was.</summary>
    private static bool KeepsUndefinedFlags(in Instruction instruction) => instruction.Mnemonic is
        Mnemonic.Mul or Mnemonic.Imul or Mnemonic.Bsf or Mnemonic.Bsr or Mnemonic.Tzcnt or Mnemonic.Lzcnt;

    private static FlagEffect EffectOnFlags(in Instruction instruction)
    {
        var modified = instruction.RflagsModified & Arithmetic;
        if (instruction.IsStringInstruction && (instruction.HasRepPrefix || instruction.HasRepnePrefix))
            return modified == 0 ? FlagEffect.None : FlagEffect.Some;
        if (IsShift(instruction))
        {
            int last = instruction.OpCount - 1;
            if (instruction.GetOpKind(last) != OpKind.Immediate8)
                return FlagEffect.Some;
            int mask = instruction.GetOpKind(0) == OpKind.Register ? instruction.Op0Register.GetSize() : instruction.MemorySize.GetSize();
            if ((instruction.GetImmediate(last) & (mask == 8 ? 63u : 31)) == 0)
                return FlagEffect.None;
        }
        if (KeepsUndefinedFlags(instruction))
            modified &= ~instruction.RflagsUndefined;
        return modified == 0 ? FlagEffect.None : modified == Arithmetic ? FlagEffect.All : FlagEffect.Some;
    }

    /// <summary>False for what only computes with general registers.</summary>
    private bool MayFault(in Instruction instruction)
    {
        if (UseOf(instruction) != FpuUse.None || instruction.IsStackInstruction || instruction.Mnemonic == Mnemonic.Xlatb)
            return true;
        if (instruction.Mnemonic == Mnemonic.Lea)
            return false;
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) >= OpKind.MemorySegSI || instruction.GetOpKind(i) == OpKind.Register && !instruction.GetOpRegister(i).IsGPR())
                return true;
        }
        return false;
    }

    /// <summary>Before code that changes the host's flags where the guest's are dead: keeps them for a fault. Clobbers RCX.</summary>
    private void SpareFlags()
    {
        if (_flagsLive[_current] || _flagsSpared || _flagsRepeated >= 0)
            return;
        if (_flagsMadeBy >= 0 && CanRepeat(_flagsMadeBy))
        {
            _flagsRepeated = _flagsMadeBy;
            return;
        }
        _rcxWindow = -1;
        _e.MovRr(Host.Rcx, Host.Rax);
        _e.Bytes([0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
        _e.StoreGs(Layout.SparedFlags, Host.Rax, false);
        _e.MovRr(Host.Rax, Host.Rcx);
        _flagsSpared = true;
    }

    /// <summary>The spared flags become the host's; no register changes.</summary>
    private void EmitTakeSpared()
    {
        _e.StoreGs(Layout.Spill, Host.Rax);
        _e.LoadGs(Host.Rax, Layout.SparedFlags, false);
        _e.Bytes([0x04, 0x7F, 0x9E]); // add al,0x7f; sahf
        _e.LoadGs(Host.Rax, Layout.Spill);
    }

    private void StartFlags()
    {
        _flagsSpared = false;
        _flagsRepeated = _flagsMadeBy = -1;
    }

    /// <summary>The host has the guest's flags: an instruction has made them, or C#, where it is none of the block's.</summary>
    private void HaveFlags(int instruction)
    {
        StartFlags();
        _flagsMadeBy = instruction;
    }

    private void NoteFlags(int instruction)
    {
        switch (_flagEffects[instruction])
        {
            case FlagEffect.All:
                HaveFlags(instruction);
                break;
            case FlagEffect.Some:
                _flagsMadeBy = -1;
                break;
        }
    }

    /// <summary>The same here and now: what follows hands the host's flags to C#, if not the spared ones.</summary>
    private void EmitFlagsHere()
    {
        if (_flagsRepeated >= 0)
            EmitAgain(_instructions[_flagsRepeated]);
    }

    /// <summary>The form that undoes an addition or subtraction; INVALID for anything else.</summary>
    private static Code InverseOf(Code code) => code switch
    {
        >= Code.Add_rm8_r8 and <= Code.Add_RAX_imm32 => code + (Code.Sub_rm8_r8 - Code.Add_rm8_r8),
        >= Code.Sub_rm8_r8 and <= Code.Sub_RAX_imm32 => code - (Code.Sub_rm8_r8 - Code.Add_rm8_r8),
        Code.Add_rm8_imm8 => Code.Sub_rm8_imm8,
        Code.Add_rm16_imm16 => Code.Sub_rm16_imm16,
        Code.Add_rm32_imm32 => Code.Sub_rm32_imm32,
        Code.Add_rm64_imm32 => Code.Sub_rm64_imm32,
        Code.Add_rm16_imm8 => Code.Sub_rm16_imm8,
        Code.Add_rm32_imm8 => Code.Sub_rm32_imm8,
        Code.Add_rm64_imm8 => Code.Sub_rm64_imm8,
        Code.Sub_rm8_imm8 => Code.Add_rm8_imm8,
        Code.Sub_rm16_imm16 => Code.Add_rm16_imm16,
        Code.Sub_rm32_imm32 => Code.Add_rm32_imm32,
        Code.Sub_rm64_imm32 => Code.Add_rm64_imm32,
        Code.Sub_rm16_imm8 => Code.Add_rm16_imm8,
        Code.Sub_rm32_imm8 => Code.Add_rm32_imm8,
        Code.Sub_rm64_imm8 => Code.Add_rm64_imm8,
        _ => Code.INVALID,
    };

    /// <summary>An instruction can make its flags again wherever they may be asked for from here on: its operands are registers, and stay, and
    /// no signal comes before the flags change.</summary>
    private bool CanRepeat(int maker)
    {
        ref var made = ref _instructions[maker];
        bool again = made.Mnemonic is Mnemonic.Cmp or Mnemonic.Test, inverse = InverseOf(made.Code) != Code.INVALID;
        if (!again && !inverse && !IsOfResult(made) || made.OpCount != 2 || !IsPlainRegister(made, 0))
            return false;
        int second = -1, first = GuestNumber(made.Op0Register);
        if (made.Op1Kind == OpKind.Register && !IsOfResult(made))
        {
            if (!IsPlainRegister(made, 1))
                return false;
            second = GuestNumber(made.Op1Register);
        }
        if (made.Op1Kind == OpKind.Memory && !IsOfResult(made) || inverse && first == second)
            return false;
        bool changed = false;
        for (int i = maker + 1; i <= _lastIndex; i++)
        {
            ref var instruction = ref _instructions[i];
            if (i >= _current)
            {
                if (UseOf(instruction) != FpuUse.None || changed && MayFault(instruction))
                    return false;
                if (_flagEffects[i] == FlagEffect.All)
                    return !changed || i == _lastIndex || _instructions[i + 1].FlowControl == FlowControl.Next;
            }
            foreach (var used in _infos.GetInfo(instruction).GetUsedRegisters())
            {
                changed |= used.Register.IsGPR() && used.Access is not (OpAccess.Read or OpAccess.CondRead or OpAccess.None or OpAccess.NoMemAccess) &&
                    GuestNumber(used.Register) is var guest && (guest == first || guest == second);
            }
            if (i < _current && changed)
                return false;
        }
        return false;
    }

    /// <summary>Its flags depend on its result alone.</summary>
    private static bool IsOfResult(in Instruction instruction) => instruction.Mnemonic is Mnemonic.And or Mnemonic.Or or Mnemonic.Xor;

    private static bool IsPlainRegister(in Instruction instruction, int operand) => instruction.GetOpKind(operand) == OpKind.Register &&
        instruction.GetOpRegister(operand) is var r && r.IsGPR() && !IsHighByte(r) && Host.OfGuest[GuestNumber(r)] != Host.Spilled;

    /// <summary>Makes the host's flags the guest's, from what <see cref="Cold"/> knows of them. No register changes.</summary>
    private void EmitFlagsOf(in Cold item)
    {
        if (item.Spared)
            EmitTakeSpared();
        if (item.Repeated > 0)
            EmitAgain(_instructions[item.Repeated - 1]);
    }

    private void EmitAgain(Instruction made)
    {
        if (IsOfResult(made))
        {
            var result = OnHost(made.Op0Register);
            Encode(Instruction.Create(result.GetSize() switch { 1 => Code.Test_rm8_r8, 2 => Code.Test_rm16_r16, 4 => Code.Test_rm32_r32, _ => Code.Test_rm64_r64 },
                result, result));
            return;
        }
        made.Op0Register = OnHost(made.Op0Register);
        if (made.Op1Kind == OpKind.Register)
            made.Op1Register = OnHost(made.Op1Register);
        var inverse = InverseOf(made.Code);
        if (inverse != Code.INVALID)
        {
            var undone = made;
            undone.Code = inverse;
            Encode(undone);
        }
        Encode(made);
    }

    private static Register OnHost(Register r) => WithSizeOf(r, Host.OfGuest[GuestNumber(r)]);
}
