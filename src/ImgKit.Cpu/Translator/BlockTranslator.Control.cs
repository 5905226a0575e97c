using Iced.Intel;

namespace ImgKit.Cpu.Translator;

internal sealed unsafe partial class BlockTranslator
{
    private int _jumpCache;

    /// <summary>The jump that follows needs no poll: one has been emitted.</summary>
    private bool _polled;

    // Short jumps to places that must lie near but out of the way: emitted behind the next unconditional jump.
    private readonly List<(nint Fix, Cold Cold)> _thunks = [];

    private void FlushThunks()
    {
        foreach (var (fix, cold) in _thunks)
        {
            _e.FixShortHere((byte*)fix);
            _cold.Add(cold with { Fix = _e.JmpForward() });
        }
        _thunks.Clear();
    }

    /// <summary>Leaves with RIP at the current instruction when asked to.</summary>
    private void EmitPoll()
    {
        if (_polled)
            return;
        LoadKeepRunning();
        _thunks.Add(((nint)_e.JrcxzForward(), new Cold
        {
            Kind = ColdKind.Poll,
            Rip = _instructions[_current].IP & _mode.RipMask,
            Spared = _flagsSpared,
            Repeated = _flagsRepeated + 1,
        }));
    }

    private void LoadKeepRunning()
    {
        _rcxWindow = -1;
        _e.LoadGs(Host.Rcx, Layout.KeepRunning, false);
    }

    /// <summary>Before an instruction that makes flags for a backward jump: the two stay together, as the processor likes them.</summary>
    private void PollBeforeCompare()
    {
        ref var instruction = ref _instructions[_current];
        ref var jump = ref _instructions[_current + 1];
        if (_mode.SingleStep || _continues[_current + 1] && _kind == BlockKind.Loop || instruction.FlowControl != FlowControl.Next ||
            instruction.IsInvalid || jump.IsInvalid || !jump.IsJccShortOrNear || BranchTarget(jump) > (jump.IP & _mode.RipMask) ||
            instruction.Mnemonic is not (Mnemonic.Cmp or Mnemonic.Test or Mnemonic.Add or Mnemonic.Sub or Mnemonic.Inc or Mnemonic.Dec or
            Mnemonic.And) || instruction.Op0Kind != OpKind.Register || instruction.Op1Kind == OpKind.Memory)
        {
            return;
        }
        EmitPoll();
        _polled = true;
    }

    /// <summary>The same where much code may follow.</summary>
    private void EmitPollInline()
    {
        LoadKeepRunning();
        byte* stop = _e.JrcxzForward();
        byte* go = _e.JmpShortForward();
        _e.FixShortHere(stop);
        _cold.Add(new Cold { Kind = ColdKind.Poll, Fix = _e.JmpForward(), Rip = _instructions[_current].IP & _mode.RipMask });
        _e.FixShortHere(go);
    }

    private ulong BranchTarget(in Instruction instruction) => instruction.NearBranchTarget & _mode.RipMask;

    private bool IsBackward(ulong target) => target <= (_instructions[_current].IP & _mode.RipMask);

    /// <summary>A target that the same translation reaches: same guest page, so the same mapping.</summary>
    private bool IsNear(ulong target) => _kind != BlockKind.Alone && !_mode.SingleStep && (target + _mode.CodeBase ^ _block.Rip + _mode.CodeBase) >> 12 == 0 &&
        target == (target & _mode.RipMask);

    /// <summary>CS's limit, outside 64-bit mode.</summary>
    private uint _codeLimit;

    /// <summary>A branch to it faults.</summary>
    private bool IsBad(ulong target) => _mode.Is64 ? !MemoryUnit.IsCanonical(target) : target > _codeLimit;

    /// <summary>Before a branch to the RIP in RBP or Scratch1, which C# looks at where it finds no code: notes whose it is and how far it has
    /// moved the stack pointer.</summary>
    private void NoteBranch(int size, int moved)
    {
        if (_mode.Is64 || _codeLimit < (size == 2 ? ushort.MaxValue : uint.MaxValue))
            _e.StoreGsImmediate(Layout.BranchSite, (int)NewSite((uint)moved), false);
    }

    /// <summary>Refuses a non-canonical target in Scratch1 before a call writes its return address; flags stay. Bits 63..47 are alike when their
    /// number plus 1 has, below its carry, no bit but the lowest.</summary>
    private void EmitCanonicalCheck()
    {
        _e.LoadGs(Host.Rcx, Layout.Scratch1);
        _e.Rorx(Host.Rcx, Host.Rcx, 47, true);
        _e.Lea(Host.Rcx, Host.Rcx, -1, 0, 1, false);
        _e.Rorx(Host.Rcx, Host.Rcx, 1, false);
        _e.MovzxWord(Host.Rcx, Host.Rcx);
        byte* right = _e.JrcxzForward();
        _cold.Add(new Cold { Kind = ColdKind.Interpret, Fix = _e.JmpForward(), Site = NewSite(0, interpreted: true), OpEnd = _e.P });
        _e.FixShortHere(right);
    }

    /// <summary>Code of a near target, if it is known for good.</summary>
    private byte* FindKnown(ulong target)
    {
        if (target == _block.Rip && (_block.ModeKey & CarefulKey) == 0)
            return _isLoop ? null : _block.Code;
        var known = _owner.FindKnownBlock(_block.PhysicalPage, target, _mode.Key);
        return known == null ? null : known.Code;
    }

    private ColdKind ChainTo(ulong target) => _isLoop && target == _block.Rip ? ColdKind.Loop : ColdKind.Chain;

    private void EmitJumpTo(ulong target)
    {
        if (_mode.SingleStep)
        {
            EmitDataCall(_stubs.StepDone, target);
        }
        else if (IsNear(target))
        {
            byte* known = FindKnown(target);
            if (known != null)
                _e.Jmp(known);
            else
                _cold.Add(new Cold { Kind = ChainTo(target), Fix = _e.JmpForward(), Rip = target });
        }
        else
        {
            EmitLookupConstant(target);
        }
    }

    private void EmitConditionalJumpTo(int condition, ulong target)
    {
        if (IsBad(target))
        {
            _cold.Add(new Cold { Kind = ColdKind.BadTarget, Fix = _e.JccForward(condition), Site = NewSite(13 | Site.ErrorCode) });
        }
        else if (IsNear(target))
        {
            byte* known = FindKnown(target);
            if (known != null)
                _e.Jcc(condition, known);
            else
                _cold.Add(new Cold { Kind = ChainTo(target), Fix = _e.JccForward(condition), Rip = target });
        }
        else
        {
            _cold.Add(new Cold { Kind = ColdKind.FarChain, Fix = _e.JccForward(condition), Rip = target });
        }
    }

    /// <summary>Jumps through the jump cache to a fixed RIP.</summary>
    private void EmitLookupConstant(ulong target)
    {
        if (_mode.SingleStep)
        {
            EmitDataCall(_stubs.StepDone, target);
            return;
        }
        if (IsBad(target))
        {
            // No branch, but the instruction behind the last one: it faults itself.
            EmitDataCall(_stubs.Goto, target);
            return;
        }
        _e.MovImmediate(Host.Rbp, target);
        _e.Gs(0xFF, 4, _jumpCache + TranslatorVcpu.JumpIndex(target) * 8, false);
    }

    /// <summary>Jumps to the RIP in RBP (already cut to the code size), with a poll.</summary>
    private void EmitJumpIndirect()
    {
        if (_mode.SingleStep)
        {
            _e.Jmp(_stubs.StepDoneRbp);
            return;
        }
        _e.LoadGs(Host.Rcx, Layout.KeepRunning, false);
        byte* poll = _e.JrcxzForward();
        // The index, as TranslatorVcpu.JumpIndex computes it.
        _e.ShiftPage(Host.Rcx, Host.Rbp);
        _e.Lea(Host.Rcx, Host.Rcx, Host.Rbp, 0, 0, false);
        _e.MovzxWord(Host.Rcx, Host.Rcx);
        _e.GsIndexed(0xFF, 4, Host.Rcx, true, _jumpCache, false);
        _e.FixShortHere(poll);
        _e.Jmp(_stubs.PollRbp);
    }

    /// <summary>The entry for jumps through the jump cache: goes on to the block's code when RBP is the block's RIP.</summary>
    private void EmitCheckedEntry(ulong rip)
    {
        if (-(long)rip == (int)-(long)rip)
        {
            _e.Lea(Host.Rcx, Host.Rbp, -1, 0, (int)-(long)rip, true);
        }
        else
        {
            _e.MovImmediate(Host.Rcx, (ulong)-(long)rip);
            _e.Lea(Host.Rcx, Host.Rcx, Host.Rbp, 0, 0, true);
        }
        byte* right = _e.JrcxzForward();
        _e.Jmp(_stubs.LookupRbp);
        _e.FixShortHere(right);
    }

    private bool EmitConditional(in Instruction instruction)
    {
        ulong target = BranchTarget(instruction), next = instruction.NextIP & _mode.RipMask;
        int condition = ConditionOf(instruction.ConditionCode);
        if (_kind == BlockKind.Loop && _continues[_current])
        {
            EmitConditionalJumpTo(condition ^ 1, next);
            _keepsWindows = true;
            return false;
        }
        bool last = IsBackward(target) || IsLast();
        if (IsBackward(target) && !_mode.SingleStep)
            EmitPoll();
        EmitConditionalJumpTo(condition, target);
        _keepsWindows = true;
        if (!last)
            return false;
        EmitJumpTo(next);
        FlushThunks();
        return true;
    }

    private bool IsLast() => _current == _lastIndex;

    private int _lastIndex;

    private static int ConditionOf(ConditionCode code) => code switch
    {
        ConditionCode.o => 0,
        ConditionCode.no => 1,
        ConditionCode.b => 2,
        ConditionCode.ae => 3,
        ConditionCode.e => 4,
        ConditionCode.ne => 5,
        ConditionCode.be => 6,
        ConditionCode.a => 7,
        ConditionCode.s => 8,
        ConditionCode.ns => 9,
        ConditionCode.p => 10,
        ConditionCode.np => 11,
        ConditionCode.l => 12,
        ConditionCode.ge => 13,
        ConditionCode.le => 14,
        _ => 15,
    };

    /// <summary>LOOP, LOOPE, LOOPNE, JCXZ, JECXZ, JRCXZ. The address size chooses CX, ECX or RCX.</summary>
    private bool EmitLoop(in Instruction instruction)
    {
        ulong target = BranchTarget(instruction), next = instruction.NextIP & _mode.RipMask;
        if (!_mode.SingleStep)
            EmitPollInline();
        bool counts = instruction.Mnemonic is Mnemonic.Loop or Mnemonic.Loope or Mnemonic.Loopne;
        int size = instruction.Code switch
        {
            Code.Loop_rel8_16_CX or Code.Loop_rel8_32_CX or Code.Loope_rel8_16_CX or Code.Loope_rel8_32_CX or Code.Loopne_rel8_16_CX or
                Code.Loopne_rel8_32_CX or Code.Jcxz_rel8_16 or Code.Jcxz_rel8_32 => 2,
            Code.Loop_rel8_64_RCX or Code.Loop_rel8_16_RCX or Code.Loope_rel8_64_RCX or Code.Loope_rel8_16_RCX or
                Code.Loopne_rel8_64_RCX or Code.Loopne_rel8_16_RCX or Code.Jrcxz_rel8_64 or Code.Jrcxz_rel8_16 => 8,
            _ => 4,
        };
        if (counts && !IsBad(target))
            CountDown(size);
        if (size == 2)
            _e.MovzxWord(Host.Rcx, Host.R13);
        else
            _e.MovRr(Host.Rcx, Host.R13, size == 8);
        if (counts && IsBad(target))
        {
            EmitBadLoop(instruction.Mnemonic, size, target);
            EmitJumpTo(next);
            FlushThunks();
            return true;
        }
        byte* zero = _e.JrcxzForward();
        if (!counts)
        {
            // A jump around: the displacement is short.
            byte* around = _e.JmpForward();
            _e.FixShortHere(zero);
            EmitBranchTo(target);
            _e.FixHere(around);
            EmitJumpTo(next);
        }
        else
        {
            if (instruction.Mnemonic == Mnemonic.Loope)
                EmitConditionalJumpToOrStep(4, target);
            else if (instruction.Mnemonic == Mnemonic.Loopne)
                EmitConditionalJumpToOrStep(5, target);
            else
                EmitJumpToFixed(target);
            _e.FixShortHere(zero);
            EmitJumpTo(next);
        }
        FlushThunks();
        return true;
    }

    private void CountDown(int size)
    {
        if (size == 2)
        {
            _e.Lea(Host.Rcx, Host.R13, -1, 0, -1, false);
            _e.MovWord(Host.R13, Host.Rcx);
        }
        else
        {
            _e.Lea(Host.R13, Host.R13, -1, 0, -1, size == 8);
        }
    }

    /// <summary>LOOP to where nothing can be executed: the count, which RCX has, changes only where it does not branch.</summary>
    private void EmitBadLoop(Mnemonic mnemonic, int size, ulong target)
    {
        _e.Lea(Host.Rcx, Host.Rcx, -1, 0, -1, size == 8);
        if (size == 2)
            _e.MovzxWord(Host.Rcx, Host.Rcx);
        byte* zero = _e.JrcxzForward();
        if (mnemonic == Mnemonic.Loop)
            EmitRaise(13, true);
        else
            EmitConditionalJumpTo(mnemonic == Mnemonic.Loope ? 4 : 5, target);
        _e.FixShortHere(zero);
        CountDown(size);
    }

    /// <summary>A jump, not to the next instruction.</summary>
    private void EmitBranchTo(ulong target)
    {
        if (IsBad(target))
            EmitRaise(13, true);
        else
            EmitJumpTo(target);
    }

    private void EmitConditionalJumpToOrStep(int condition, ulong target) => EmitConditionalJumpTo(condition, target);

    /// <summary>A jump of exactly five bytes: the long forms go to the cold part.</summary>
    private void EmitJumpToFixed(ulong target)
    {
        if (IsNear(target))
            EmitJumpTo(target);
        else
            _cold.Add(new Cold { Kind = ColdKind.FarChain, Fix = _e.JmpForward(), Rip = target });
    }

    private bool EmitBranch(ref Instruction instruction)
    {
        switch (instruction.FlowControl)
        {
            case FlowControl.ConditionalBranch:
                if (instruction.IsJccShortOrNear)
                    return EmitConditional(instruction);
                if (instruction.IsLoop || instruction.IsLoopcc || instruction.IsJcxShort)
                    return EmitLoop(instruction);
                break;
            case FlowControl.UnconditionalBranch when instruction.IsJmpShortOrNear:
            {
                ulong target = BranchTarget(instruction);
                if (_kind == BlockKind.Loop && _continues[_current])
                {
                    _keepsWindows = true;
                    return false;
                }
                if (IsBackward(target) && !_mode.SingleStep)
                    EmitPoll();
                EmitBranchTo(target);
                FlushThunks();
                return true;
            }
            case FlowControl.Call when instruction.IsCallNear:
            {
                ulong target = BranchTarget(instruction);
                if (IsBackward(target) && !_mode.SingleStep)
                    EmitPollInline();
                if (IsBad(target))
                {
                    EmitRaise(13, true);
                    return true;
                }
                EmitPushImmediate(instruction.NextIP & _mode.RipMask, -instruction.StackPointerIncrement, true);
                EmitJumpTo(target);
                FlushThunks();
                return true;
            }
            case FlowControl.IndirectBranch when instruction.IsJmpNearIndirect:
                NoteBranch(EmitLoadTarget(ref instruction), 0);
                _e.LoadGs(Host.Rbp, Layout.Scratch1);
                EmitJumpIndirect();
                return true;
            case FlowControl.IndirectCall when instruction.IsCallNearIndirect:
                int targetSize = EmitLoadTarget(ref instruction);
                if (_mode.Is64)
                    EmitCanonicalCheck();
                else
                    NoteBranch(targetSize, instruction.StackPointerIncrement);
                EmitPushImmediate(instruction.NextIP & _mode.RipMask, -instruction.StackPointerIncrement, true);
                _e.LoadGs(Host.Rbp, Layout.Scratch1);
                EmitJumpIndirect();
                return true;
            case FlowControl.Return when instruction.Mnemonic == Mnemonic.Ret:
                EmitReturn(instruction);
                return true;
        }
        EmitInterpreted();
        // It may go on behind itself: INTO without overflow, a far jump to the next instruction.
        EmitJumpTo(instruction.NextIP & _mode.RipMask);
        FlushThunks();
        return true;
    }

    /// <summary>Target of an indirect near branch, zero-extended, to Scratch1.</summary>
    /// <returns>its size in bytes.</returns>
    private int EmitLoadTarget(ref Instruction instruction)
    {
        int size;
        if (instruction.Op0Kind == OpKind.Memory)
        {
            size = instruction.MemorySize.GetSize();
            BeginMemory(OperandOf(instruction), size, false);
            if (size == 2)
                OnOperand(0x0FB7, Host.Rcx, false);
            else
                OnOperand(0x8B, Host.Rcx, size == 8);
            _e.StoreGs(Layout.Scratch1, Host.Rcx);
            EndMemory();
            ForgetWindowRegisters();
            return size;
        }
        ForgetWindowRegisters();
        var register = instruction.Op0Register;
        size = register.GetSize();
        int guest = GuestNumber(register), host = Host.OfGuest[guest];
        if (host == Host.Spilled)
        {
            _e.LoadGs(Host.Rcx, Layout.Gpr(guest));
            host = Host.Rcx;
        }
        if (size == 2)
            _e.MovzxWord(Host.Rcx, host);
        else
            _e.MovRr(Host.Rcx, host, size == 8);
        _e.StoreGs(Layout.Scratch1, Host.Rcx);
        return size;
    }

    /// <summary>Leaves the current instruction to C#; the block goes on behind it where the interpreter says so.</summary>
    private void EmitInterpreted()
    {
        EmitFlagsHere();
        uint kind = _instructions[_current].Code switch
        {
            Code.Syscall => Site.Syscall,
            Code.Sysretq => Site.Sysret,
            Code.Rdtsc => Site.ReadTimeStamp,
            _ => 0,
        };
        _e.MovImmediate(Host.Rcx, NewSite(kind, interpreted: true));
        _e.Call(_stubs.Interpret);
        HaveFlags(-1);
    }

    private void EmitRaise(byte vector, bool errorCode = false)
    {
        EmitFlagsHere();
        _e.MovImmediate(Host.Rcx, NewSite(vector | (errorCode ? Site.ErrorCode : 0)));
        _e.Call(_stubs.Raise);
    }
}
