using Iced.Intel;

namespace ImgKit.Cpu.Translator;

internal sealed unsafe partial class BlockTranslator
{
    /// <summary>What an instruction needs of the FPU.</summary>
    private enum FpuUse : byte
    {
        Unknown,
        None,
        X87,
        Wait,
        Mmx,
        Sse,
        Avx,
        Undefined,
    }

    private readonly FpuUse[] _fpuUse = new FpuUse[8192];

    /// <summary>Emits one instruction.</summary>
    /// <returns>true: it left the block for good.</returns>
    private bool EmitInstruction(ref Instruction instruction)
    {
        if (instruction.IsInvalid)
        {
            EmitRaise((byte)(instruction.Length == MaxLength ? 13 : 6), instruction.Length == MaxLength);
            return true;
        }
        var use = UseOf(instruction);
        if (use == FpuUse.Undefined || instruction.Encoding is not (EncodingKind.Legacy or EncodingKind.D3NOW) && !_mode.Protected)
        {
            if (!TryDowngrade(ref instruction))
            {
                EmitRaise(6);
                return true;
            }
            use = FpuUse.None;
        }
        if (use != FpuUse.None && FpuFault(use) is var vector and >= 0)
        {
            EmitRaise((byte)vector);
            return true;
        }
        if (instruction.FlowControl != FlowControl.Next)
        {
            if (instruction.Mnemonic is Mnemonic.Ud0 or Mnemonic.Ud1 or Mnemonic.Ud2)
            {
                EmitRaise(6);
                return true;
            }
            return EmitBranch(ref instruction);
        }
        if (IsInterpreted(instruction))
        {
            EmitInterpreted();
            return false;
        }
        if (use != FpuUse.None && !_fpuChecked)
        {
            _fpuChecked = true;
            ForgetWindowRegisters();
            _e.LoadGsByte(Host.Rcx, Layout.FpuLoaded);
            byte* load = _e.JrcxzForward();
            byte* ready = _e.JmpShortForward();
            _e.FixShortHere(load);
            _e.Call(_stubs.LoadFpu);
            _e.FixShortHere(ready);
        }
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Nop or Mnemonic.Reservednop or Mnemonic.Endbr64 or Mnemonic.Endbr32 or Mnemonic.Prefetch or
                Mnemonic.Prefetchnta or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2 or Mnemonic.Prefetchw or
                Mnemonic.Prefetchwt1 or Mnemonic.Cldemote or Mnemonic.Rdsspd or Mnemonic.Rdsspq or Mnemonic.Bndcl or Mnemonic.Bndcn or Mnemonic.Bndcu or
                Mnemonic.Bndldx or Mnemonic.Bndmk or Mnemonic.Bndmov or Mnemonic.Bndstx or Mnemonic.Prefetchit0 or
                Mnemonic.Prefetchit1:
                _keepsWindows = true;
                return false;
            case Mnemonic.Push:
                EmitPush(ref instruction);
                return false;
            case Mnemonic.Pop:
                EmitPop(ref instruction);
                return false;
            case Mnemonic.Pushfq:
                EmitPushFlags();
                return false;
            case Mnemonic.Popfq:
                EmitPopFlags();
                return false;
            case Mnemonic.Swapgs:
                _e.LoadGs(Host.Rcx, Layout.SegmentBase(5));
                _e.LoadGs(Host.Rbp, Layout.KernelGsBase);
                _e.StoreGs(Layout.SegmentBase(5), Host.Rbp);
                _e.StoreGs(Layout.KernelGsBase, Host.Rcx);
                return false;
            case Mnemonic.Leave:
                EmitLeave(instruction);
                return false;
            case Mnemonic.Lea:
                EmitLea(ref instruction);
                return false;
            case Mnemonic.Movsb or Mnemonic.Movsw or Mnemonic.Movsq or Mnemonic.Stosb or Mnemonic.Stosw or Mnemonic.Stosd or
                Mnemonic.Stosq or Mnemonic.Lodsb or Mnemonic.Lodsw or Mnemonic.Lodsd or Mnemonic.Lodsq or Mnemonic.Scasb or
                Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq or Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsq:
                EmitString(ref instruction);
                return false;
            case Mnemonic.Movsd or Mnemonic.Cmpsd when instruction.IsStringInstruction:
                EmitString(ref instruction);
                return false;
            case Mnemonic.Xlatb:
                EmitXlat(instruction);
                return false;
            case Mnemonic.Cli:
                if (!_mode.Kernel)
                    goto default;
                _e.StoreGsByte(Layout.LiveIf, 0);
                return false;
            case Mnemonic.Sti:
                if (!_mode.Kernel)
                    goto default;
                EmitSti();
                return false;
            case Mnemonic.Cld or Mnemonic.Std:
                if (_mode.Backwards != (instruction.Mnemonic == Mnemonic.Std))
                    EmitInterpreted();
                return false;
            case Mnemonic.Mov when UsesSegmentRegister(instruction):
                EmitMovSegment(ref instruction);
                return false;
            case Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc
                when instruction.Op0Kind == OpKind.Memory && instruction.Op1Kind == OpKind.Register:
                EmitBitString(ref instruction);
                return false;
            default:
                if (instruction.Mnemonic is Mnemonic.Cli or Mnemonic.Sti)
                {
                    EmitInterpreted();
                    return false;
                }
                ToLongModeForm(ref instruction);
                _note = use == FpuUse.X87 ? NoteOf(instruction) : default;
                EmitGeneric(ref instruction, use != FpuUse.None ||
                    instruction.Mnemonic is Mnemonic.Div or Mnemonic.Idiv or Mnemonic.Cmpxchg16b);
                return false;
        }
    }

    private static bool UsesSegmentRegister(in Instruction instruction) =>
        instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsSegmentRegister() ||
        instruction.Op1Kind == OpKind.Register && instruction.Op1Register.IsSegmentRegister();

    /// <summary>Encodings that 64-bit mode does not have become ones that it has.</summary>
    private static void ToLongModeForm(ref Instruction instruction)
    {
        instruction.Code = instruction.Code switch
        {
            Code.Femms => Code.Emms,
            Code.Inc_r16 => Code.Inc_rm16,
            Code.Inc_r32 => Code.Inc_rm32,
            Code.Dec_r16 => Code.Dec_rm16,
            Code.Dec_r32 => Code.Dec_rm32,
            Code.Mov_AL_moffs8 => Code.Mov_r8_rm8,
            Code.Mov_AX_moffs16 => Code.Mov_r16_rm16,
            Code.Mov_EAX_moffs32 => Code.Mov_r32_rm32,
            Code.Mov_RAX_moffs64 => Code.Mov_r64_rm64,
            Code.Mov_moffs8_AL => Code.Mov_rm8_r8,
            Code.Mov_moffs16_AX => Code.Mov_rm16_r16,
            Code.Mov_moffs32_EAX => Code.Mov_rm32_r32,
            Code.Mov_moffs64_RAX => Code.Mov_rm64_r64,
            Code.Add_rm8_imm8_82 => Code.Add_rm8_imm8,
            Code.Or_rm8_imm8_82 => Code.Or_rm8_imm8,
            Code.Adc_rm8_imm8_82 => Code.Adc_rm8_imm8,
            Code.Sbb_rm8_imm8_82 => Code.Sbb_rm8_imm8,
            Code.And_rm8_imm8_82 => Code.And_rm8_imm8,
            Code.Sub_rm8_imm8_82 => Code.Sub_rm8_imm8,
            Code.Xor_rm8_imm8_82 => Code.Xor_rm8_imm8,
            Code.Cmp_rm8_imm8_82 => Code.Cmp_rm8_imm8,
            var same => same,
        };
    }

    /// <summary>Instructions that older processors execute as others: prefixes they ignore.</summary>
    private static bool TryDowngrade(ref Instruction instruction)
    {
        var code = instruction.Code switch
        {
            Code.Tzcnt_r16_rm16 => Code.Bsf_r16_rm16,
            Code.Tzcnt_r32_rm32 => Code.Bsf_r32_rm32,
            Code.Tzcnt_r64_rm64 => Code.Bsf_r64_rm64,
            Code.Lzcnt_r16_rm16 => Code.Bsr_r16_rm16,
            Code.Lzcnt_r32_rm32 => Code.Bsr_r32_rm32,
            Code.Lzcnt_r64_rm64 => Code.Bsr_r64_rm64,
            Code.Endbr32 or Code.Endbr64 => Code.Nopd,
            Code.Pause => Code.Nopd,
            _ => Code.INVALID,
        };
        if (code == Code.INVALID)
            return false;
        instruction.Code = code;
        instruction.HasRepPrefix = false;
        return true;
    }

    private void EmitSti()
    {
        uint site = NewSite(0, interpreted: true);
        _e.LoadGsByte(Host.Rcx, Layout.InterruptLine);
        byte* none = _e.JrcxzForward();
        byte* pending = _e.JmpForward();
        _e.FixShortHere(none);
        _e.StoreGsByte(Layout.LiveIf, 1);
        _cold.Add(new Cold { Kind = ColdKind.Interpret, Fix = pending, Site = site, OpEnd = _e.P, Repeated = _flagsRepeated + 1 });
    }

    private void EmitLea(ref Instruction instruction)
    {
        var m = OperandOf(instruction);
        int size = instruction.Op0Register.GetSize(), guest = GuestNumber(instruction.Op0Register), host = Host.OfGuest[guest];
        bool spilled = m.Base >= 0 && Host.OfGuest[m.Base] == Host.Spilled || m.Index >= 0 && Host.OfGuest[m.Index] == Host.Spilled;
        bool wide = size == 8 && m.AddressBits == 64;
        if (size >= 4 && m.AddressBits >= 32 && host != Host.Spilled && !spilled && m.Base >= 0)
        {
            _e.Lea(host, Host.OfGuest[m.Base], m.Index < 0 ? -1 : Host.OfGuest[m.Index], m.Shift, (int)m.Displacement, wide);
            _keepsWindows = true;
            return;
        }
        EmitEffectiveAddress(m);
        WriteGuest(guest, Host.Rbp, size);
    }

    private void EmitMovSegment(ref Instruction instruction)
    {
        if (instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsSegmentRegister())
        {
            if (_mode.Protected || instruction.Op0Register == Register.CS)
            {
                EmitInterpreted();
                return;
            }
            if (instruction.Op1Kind == OpKind.Memory)
            {
                BeginMemory(OperandOf(instruction), 2, false);
                LoadSized(Host.Rcx, 2);
                EndMemory();
            }
            else
            {
                _e.MovzxWord(Host.Rcx, Host.OfGuest[GuestNumber(instruction.Op1Register)]);
            }
            StoreRealSegment(SegmentNumber(instruction.Op0Register));
            return;
        }
        int selector = Layout.SegmentSelector(SegmentNumber(instruction.Op1Register));
        if (instruction.Op0Kind == OpKind.Memory)
        {
            BeginMemory(OperandOf(instruction), 2, true);
            FoldMemory();
            _e.Gs(0x0FB7, Host.Rcx, selector, false);
            StoreSized(Host.Rcx, 2);
            EndMemory();
            return;
        }
        _e.Gs(0x0FB7, Host.Rcx, selector, false);
        WriteGuest(GuestNumber(instruction.Op0Register), Host.Rcx, instruction.Op0Register.GetSize());
    }

    /// <summary>BT and its kin with a register offset reach beyond the operand: the address moves by the offset's upper bits.</summary>
    private void EmitBitString(ref Instruction instruction)
    {
        var m = OperandOf(instruction);
        int size = instruction.Op1Register.GetSize(), guest = GuestNumber(instruction.Op1Register), host = Host.OfGuest[guest];
        bool write = instruction.Mnemonic != Mnemonic.Bt;
        bool live = _flagsLive[_current];
        SpareFlags();
        EmitEffectiveAddress(m);
        if (host == Host.Spilled)
            _e.LoadGs(Host.Rcx, Layout.Gpr(guest));
        if (live)
            _e.Byte(0x9C); // pushfq
        int from = host == Host.Spilled ? Host.Rcx : host;
        if (size == 2)
            _e.Rr(0x0FBF, Host.Rcx, from, true);
        else if (size == 4)
            _e.Rr(0x63, Host.Rcx, from, true);
        else
            _e.MovRr(Host.Rcx, from);
        _e.Bytes([0x48, 0xC1, 0xF9, 3, 0x48, 0x83, 0xE1, (byte)-size]); // sar rcx,3; and rcx,-size
        if (live)
            _e.Byte(0x9D); // popfq
        _e.Lea(Host.Rbp, Host.Rbp, Host.Rcx, 0, 0, m.AddressBits == 64);
        if (m.AddressBits == 16)
            _e.MovzxWord(Host.Rbp, Host.Rbp);
        BeginMemoryAtRbp(m.Segment, m.AddressBits, size, write, instruction.HasLockPrefix);
        FoldMemory();
        if (host == Host.Spilled)
            _e.LoadGs(Host.Rcx, Layout.Gpr(guest));
        else
            _e.MovRr(Host.Rcx, host);
        if (live)
            _e.Byte(0x9C);
        _e.Bytes([0x83, 0xE1, (byte)(size * 8 - 1)]); // and ecx,size*8-1
        if (live)
            _e.Byte(0x9D);
        if (instruction.HasLockPrefix)
            _e.Byte(0xF0);
        if (size == 2)
            _e.Byte(0x66);
        int opcode = instruction.Mnemonic switch
        {
            Mnemonic.Bt => 0x0FA3,
            Mnemonic.Bts => 0x0FAB,
            Mnemonic.Btr => 0x0FB3,
            _ => 0x0FBB,
        };
        OnOperand(opcode, Host.Rcx, size == 8);
        EndMemory();
    }

    private FpuUse UseOf(in Instruction instruction)
    {
        ref var use = ref _fpuUse[(int)instruction.Code];
        if (use == FpuUse.Unknown)
            use = Classify(instruction);
        return use;
    }

    private FpuUse Classify(in Instruction instruction)
    {
        // Control-flow enforcement is off; only what lies in the reserved-NOP space then does nothing.
        if (instruction.Mnemonic is Mnemonic.Incsspd or Mnemonic.Incsspq or Mnemonic.Rstorssp or Mnemonic.Saveprevssp or
            Mnemonic.Setssbsy or Mnemonic.Clrssbsy or Mnemonic.Wrssd or Mnemonic.Wrssq or Mnemonic.Wrussd or Mnemonic.Wrussq)
        {
            return FpuUse.Undefined;
        }
        bool x87 = false;
        foreach (var feature in instruction.CpuidFeatures)
        {
            if (!_owner.Model.Has(feature))
                return FpuUse.Undefined;
            x87 |= feature is CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387 or CpuidFeature.FPU387SL_ONLY;
        }
        bool vector = instruction.Mnemonic is Mnemonic.Ldmxcsr or Mnemonic.Stmxcsr or Mnemonic.Vldmxcsr or Mnemonic.Vstmxcsr or
            Mnemonic.Vzeroupper or Mnemonic.Vzeroall;
        bool mm = false;
        // By form, not by operands: a memory operand says nothing, and the answer is kept.
        var form = instruction.Code.ToOpCode();
        for (int i = 0; i < form.OpCount; i++)
        {
            var kind = form.GetOpKind(i);
            vector |= kind is >= OpCodeOperandKind.xmm_reg and <= OpCodeOperandKind.ymm_is5 or OpCodeOperandKind.xmm_or_mem or
                OpCodeOperandKind.ymm_or_mem or OpCodeOperandKind.mem_vsib32x or OpCodeOperandKind.mem_vsib64x or
                OpCodeOperandKind.mem_vsib32y or OpCodeOperandKind.mem_vsib64y;
            mm |= kind is OpCodeOperandKind.mm_reg or OpCodeOperandKind.mm_rm or OpCodeOperandKind.mm_or_mem;
        }
        if (instruction.Mnemonic is Mnemonic.Emms or Mnemonic.Femms)
            mm = true;
        if (instruction.Encoding == EncodingKind.D3NOW)
            return FpuUse.Mmx;
        if (instruction.Encoding != EncodingKind.Legacy)
            return vector ? instruction.Encoding == EncodingKind.EVEX ? FpuUse.Undefined : FpuUse.Avx : FpuUse.None;
        if (vector)
            return FpuUse.Sse;
        if (mm)
            return FpuUse.Mmx;
        if (instruction.Mnemonic == Mnemonic.Wait)
            return FpuUse.Wait;
        return x87 ? FpuUse.X87 : FpuUse.None;
    }

    /// <summary>Exception that an FPU instruction raises in this mode, -1 for none.</summary>
    private int FpuFault(FpuUse use)
    {
        const int undefined = 6, notAvailable = 7;
        switch (use)
        {
            case FpuUse.Wait:
                return _mode.MonitorCoprocessor && _mode.TaskSwitched ? notAvailable : -1;
            case FpuUse.X87:
                return _mode.Emulate || _mode.TaskSwitched ? notAvailable : -1;
            case FpuUse.Mmx:
                return _mode.Emulate ? undefined : _mode.TaskSwitched ? notAvailable : -1;
            case FpuUse.Sse:
                return _mode.Emulate || !_mode.SseEnabled ? undefined : _mode.TaskSwitched ? notAvailable : -1;
            case FpuUse.Avx:
                return !_mode.AvxEnabled ? undefined : _mode.TaskSwitched ? notAvailable : -1;
            default:
                return -1;
        }
    }

    /// <summary>Left to <see cref="Interpreter"/>.</summary>
    private bool IsInterpreted(in Instruction instruction)
    {
        if (instruction.Encoding == EncodingKind.D3NOW)
            return true;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Vzeroupper or Mnemonic.Vzeroall:
                // Outside 64-bit mode they leave registers 8 to 15 alone.
                return !_mode.Is64;
            case Mnemonic.Swapgs or Mnemonic.Pushfq or Mnemonic.Popfq:
                return !_mode.Kernel || !_mode.Is64 || _mode.SingleStep || instruction.HasLockPrefix;
            case Mnemonic.In or Mnemonic.Out or Mnemonic.Insb or Mnemonic.Insw or Mnemonic.Insd or Mnemonic.Outsb or Mnemonic.Outsw or
                Mnemonic.Outsd or Mnemonic.Cpuid or Mnemonic.Rdmsr or Mnemonic.Wrmsr or Mnemonic.Rdtsc or Mnemonic.Rdtscp or
                Mnemonic.Rdpmc or Mnemonic.Rdpid or Mnemonic.Lgdt or Mnemonic.Lidt or Mnemonic.Sgdt or Mnemonic.Sidt or
                Mnemonic.Lldt or Mnemonic.Ltr or Mnemonic.Sldt or Mnemonic.Str or Mnemonic.Lmsw or Mnemonic.Smsw or Mnemonic.Clts or
                Mnemonic.Invlpg or Mnemonic.Invlpga or Mnemonic.Invpcid or Mnemonic.Invd or Mnemonic.Wbinvd or Mnemonic.Wbnoinvd or
                Mnemonic.Hlt or Mnemonic.Popf or Mnemonic.Popfd or Mnemonic.Pushf or Mnemonic.Pushfd or
                Mnemonic.Xgetbv or Mnemonic.Xsetbv or Mnemonic.Lar or Mnemonic.Lsl or
                Mnemonic.Verr or Mnemonic.Verw or Mnemonic.Arpl or Mnemonic.Bound or Mnemonic.Enter or Mnemonic.Les or Mnemonic.Lds or
                Mnemonic.Lss or Mnemonic.Lfs or Mnemonic.Lgs or Mnemonic.Monitor or Mnemonic.Mwait or Mnemonic.Monitorx or
                Mnemonic.Mwaitx or Mnemonic.Rdfsbase or Mnemonic.Rdgsbase or Mnemonic.Wrfsbase or Mnemonic.Wrgsbase or
                Mnemonic.Stac or Mnemonic.Clac or Mnemonic.Pusha or Mnemonic.Pushad or Mnemonic.Popa or Mnemonic.Popad or
                Mnemonic.Daa or Mnemonic.Das or Mnemonic.Aaa or Mnemonic.Aas or Mnemonic.Aam or Mnemonic.Aad or Mnemonic.Salc or
                Mnemonic.Clflush or Mnemonic.Clflushopt or Mnemonic.Clwb or Mnemonic.Maskmovq or Mnemonic.Maskmovdqu or Mnemonic.Vmaskmovdqu or Mnemonic.Clzero or Mnemonic.Fxsave or
                Mnemonic.Fxsave64 or Mnemonic.Fxrstor or Mnemonic.Fxrstor64 or Mnemonic.Fnstenv or Mnemonic.Fldenv or Mnemonic.Fnsave or
                Mnemonic.Frstor:
                return true;
            case Mnemonic.Xsave or Mnemonic.Xsave64 or Mnemonic.Xsavec or Mnemonic.Xsavec64 or Mnemonic.Xsaveopt or Mnemonic.Xsaveopt64 or
                Mnemonic.Xsaves or Mnemonic.Xsaves64 or Mnemonic.Xrstor or Mnemonic.Xrstor64 or Mnemonic.Xrstors or Mnemonic.Xrstors64:
                return true;
        }
        for (int i = 0; i < instruction.OpCount; i++)
        {
            var kind = instruction.GetOpKind(i);
            if (kind == OpKind.Register)
            {
                var r = instruction.GetOpRegister(i);
                if (r.IsCR() || r.IsDR() || r.IsTR())
                    return true;
            }
            else if (kind == OpKind.Memory && (instruction.IsVsib || instruction.MemorySize.GetSize() is 0 or > 256))
            {
                return instruction.Mnemonic is not (Mnemonic.Lea or Mnemonic.Bndcl or Mnemonic.Bndcn or Mnemonic.Bndcu or
                    Mnemonic.Bndldx or Mnemonic.Bndmk or Mnemonic.Bndmov or Mnemonic.Bndstx or Mnemonic.Prefetchit0 or
                    Mnemonic.Prefetchit1 or Mnemonic.Nop or Mnemonic.Reservednop or Mnemonic.Clflush or
                    Mnemonic.Clflushopt or Mnemonic.Clwb or Mnemonic.Cldemote or Mnemonic.Prefetch or Mnemonic.Prefetchnta or
                    Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2 or Mnemonic.Prefetchw or Mnemonic.Prefetchwt1);
            }
        }
        return false;
    }
}
