using Iced.Intel;

namespace ImgKit.Cpu.Translator;

internal sealed unsafe partial class BlockTranslator
{
    private int StackBits => _mode.Is64 ? 64 : _mode.Stack32 ? 32 : 16;

    /// <summary>Opens the memory at SS:SP + displacement.</summary>
    private void BeginStack(int displacement, int size, bool write, bool leaves = false) =>
        BeginMemory(new MemoryOperand(4, -1, 0, displacement, 2, StackBits), size, write, false, leaves);

    /// <summary>Adds to the stack pointer; clobbers RBP with a 16-bit stack.</summary>
    private void AdjustStack(int delta)
    {
        if (StackBits == 16)
        {
            _e.Lea(Host.Rbp, Host.R15, -1, 0, delta, false);
            _e.MovWord(Host.R15, Host.Rbp);
        }
        else
        {
            _e.Lea(Host.R15, Host.R15, -1, 0, delta, StackBits == 64);
        }
    }

    /// <summary>op register, [operand of <see cref="BeginMemory"/>].</summary>
    private void OnOperand(int opcode, int register, bool wide) =>
        _e.Rm(opcode, register, _at.Base, _at.Index, 0, _at.Displacement, wide);

    /// <summary>mov register, [operand] of 1 (zero-extended), 2 (zero-extended), 4 or 8 bytes.</summary>
    private void LoadSized(int register, int size)
    {
        if (size <= 2)
            OnOperand(size == 1 ? 0x0FB6 : 0x0FB7, register, false);
        else
            OnOperand(0x8B, register, size == 8);
    }

    /// <summary>mov [operand], register; a byte only from AL or CL.</summary>
    private void StoreSized(int register, int size)
    {
        if (size == 2)
            _e.Byte(0x66);
        OnOperand(size == 1 ? 0x88 : 0x89, register, size == 8);
    }

    /// <summary>Writes RCX to a guest register as an instruction with this operand size does; not for bytes.</summary>
    private void WriteGuest(int guest, int from, int size)
    {
        int host = Host.OfGuest[guest];
        if (host == Host.Spilled)
        {
            if (size == 2)
            {
                _e.Byte(0x65);
                _e.Bytes([0x66, 0x89, (byte)(from << 3 | 4), 0x25]);
                _e.Int32(Layout.Gpr(guest));
                return;
            }
            if (size == 4)
                _e.Rr(0x8B, from, from, false);
            _e.StoreGs(Layout.Gpr(guest), from);
        }
        else if (size == 2)
        {
            _e.MovWord(host, from);
        }
        else
        {
            _e.MovRr(host, from, size == 8);
        }
    }

    private void EmitPushImmediate(ulong value, int size, bool leaves)
    {
        BeginStack(-size, size, true, leaves);
        if (size == 8 && (long)value != (int)value)
        {
            FoldMemory();
            _e.MovImmediate(Host.Rcx, value);
            StoreSized(Host.Rcx, 8);
        }
        else
        {
            if (size == 2)
                _e.Byte(0x66);
            OnOperand(0xC7, 0, size == 8);
            if (size == 2)
            {
                _e.Byte((int)value);
                _e.Byte((int)(value >> 8));
            }
            else
            {
                _e.Int32((int)value);
            }
        }
        AdjustStack(-size);
        EndMemory();
    }

    private void EmitPush(ref Instruction instruction)
    {
        int size = -instruction.StackPointerIncrement;
        switch (instruction.Op0Kind)
        {
            case OpKind.Register when instruction.Op0Register.IsGPR():
            {
                int guest = GuestNumber(instruction.Op0Register), host = Host.OfGuest[guest];
                BeginStack(-size, size, true);
                if (host == Host.Spilled)
                {
                    FoldMemory();
                    _e.LoadGs(Host.Rcx, Layout.Gpr(guest));
                    StoreSized(Host.Rcx, size);
                }
                else
                {
                    StoreSized(host, size);
                    _keepsWindows = StackBits != 16;
                }
                break;
            }
            case OpKind.Register:
                BeginStack(-size, size, true);
                FoldMemory();
                _e.Gs(0x0FB7, Host.Rcx, Layout.SegmentSelector(SegmentNumber(instruction.Op0Register)), false);
                StoreSized(Host.Rcx, size);
                break;
            case OpKind.Memory:
                BeginMemory(OperandOf(instruction), size, false);
                LoadSized(Host.Rcx, size);
                _e.StoreGs(Layout.Scratch0, Host.Rcx);
                EndMemory();
                BeginStack(-size, size, true);
                FoldMemory();
                _e.LoadGs(Host.Rcx, Layout.Scratch0);
                StoreSized(Host.Rcx, size);
                break;
            default:
                EmitPushImmediate(instruction.GetImmediate(0), size, false);
                return;
        }
        AdjustStack(-size);
        EndMemory();
    }

    /// <summary>PUSHFQ of the kernel: arithmetic flags from the host, IF from LiveIf, the rest from the context.</summary>
    private void EmitPushFlags()
    {
        const int @if = 1 << 9, rf = 1 << 16, vm = 1 << 17;
        BeginStack(-8, 8, true);
        FoldMemory();
        _e.Bytes([0x9C, 0x48, 0x8B, 0x0C, 0x24]); // pushfq; mov rcx,[rsp]
        AndRcx(Stubs.ArithmeticFlags);
        _e.StoreGs(Layout.Spill, Host.Rcx);
        _e.LoadGsByte(Host.Rcx, Layout.LiveIf);
        _e.Bytes([0xC1, 0xE1, 9]); // shl ecx,9
        _e.Gs(0x09, Host.Rcx, Layout.Spill, true); // or gs:[spill],rcx
        _e.LoadGs(Host.Rcx, Layout.Rflags);
        AndRcx(~(Stubs.ArithmeticFlags | @if | rf | vm));
        _e.Gs(0x0B, Host.Rcx, Layout.Spill, true);
        _e.Byte(0x9D); // popfq
        StoreSized(Host.Rcx, 8);
        AdjustStack(-8);
        EndMemory();
    }

    /// <summary>POPFQ of the kernel, where nothing but arithmetic flags and IF changes and no interrupt waits; C# does the rest.</summary>
    private void EmitPopFlags()
    {
        const int others = 1 << 8 | 1 << 10 | 3 << 12 | 1 << 14 | 7 << 18 | 1 << 21; // TF DF IOPL NT AC VIF VIP ID
        uint site = NewSite(0, interpreted: true);
        BeginStack(0, 8, false);
        LoadSized(Host.Rcx, 8);
        EndMemory();
        _e.StoreGs(Layout.Spill, Host.Rcx);
        _e.Gs(0x33, Host.Rcx, Layout.Rflags, true);
        _e.Bytes([0xF7, 0xC1]); // test ecx,others
        _e.Int32(others);
        byte* differs = _e.JccForward(5);
        _e.LoadGs(Host.Rcx, Layout.Spill);
        _e.Bytes([0xC1, 0xE9, 9, 0x83, 0xE1, 1]); // shr ecx,9; and ecx,1
        _e.LoadGsByte(Host.Rbp, Layout.InterruptLine);
        _e.Rr(0x85, Host.Rbp, Host.Rcx, false); // test ecx,ebp
        byte* interrupt = _e.JccForward(5);
        _e.Gs(0x88, Host.Rcx, Layout.LiveIf, false); // mov gs:[if],cl
        _e.LoadGs(Host.Rcx, Layout.Spill);
        AndRcx(Stubs.ArithmeticFlags);
        _e.Bytes([0x51, 0x9D]); // push rcx; popfq
        AdjustStack(8);
        _cold.Add(new Cold { Kind = ColdKind.Interpret, Fix = differs, Site = site, OpEnd = _e.P });
        _cold.Add(new Cold { Kind = ColdKind.Interpret, Fix = interrupt, Site = site, OpEnd = _e.P });
    }

    private void AndRcx(int mask)
    {
        _e.Bytes([0x48, 0x81, 0xE1]);
        _e.Int32(mask);
    }

    private void EmitPop(ref Instruction instruction)
    {
        int size = instruction.StackPointerIncrement;
        if (instruction.Op0Kind == OpKind.Memory)
        {
            var operand = OperandOf(instruction);
            if (operand.Base == 4)
            {
                EmitInterpreted();
                return;
            }
            BeginStack(0, size, false);
            LoadSized(Host.Rcx, size);
            _e.StoreGs(Layout.Scratch0, Host.Rcx);
            EndMemory();
            BeginMemory(operand, size, true);
            FoldMemory();
            _e.LoadGs(Host.Rcx, Layout.Scratch0);
            StoreSized(Host.Rcx, size);
            AdjustStack(size);
            EndMemory();
            return;
        }
        if (instruction.Op0Register.IsSegmentRegister())
        {
            if (_mode.Protected)
            {
                EmitInterpreted();
                return;
            }
            BeginStack(0, size, false);
            LoadSized(Host.Rcx, 2);
            AdjustStack(size);
            EndMemory();
            StoreRealSegment(SegmentNumber(instruction.Op0Register));
            return;
        }
        int guest = GuestNumber(instruction.Op0Register), host = Host.OfGuest[guest];
        BeginStack(0, size, false);
        if (size == 2 || host == Host.Spilled || guest == 4)
        {
            LoadSized(Host.Rcx, size);
            AdjustStack(size);
            WriteGuest(guest, Host.Rcx, size);
        }
        else
        {
            LoadSized(host, size);
            AdjustStack(size);
            _keepsWindows = StackBits != 16;
        }
        EndMemory();
    }

    /// <summary>Loads a segment register outside protected mode from RCX (zero-extended): only selector and base change.</summary>
    private void StoreRealSegment(int segment)
    {
        _e.Byte(0x65);
        _e.Bytes([0x66, 0x89, 0x0C, 0x25]); // mov gs:[disp], cx
        _e.Int32(Layout.SegmentSelector(segment));
        _e.LeaIndex(Host.Rcx, Host.Rcx, 3, 0, false);
        _e.Lea(Host.Rcx, Host.Rcx, Host.Rcx, 0, 0, false);
        _e.StoreGs(Layout.SegmentBase(segment), Host.Rcx);
    }

    private void EmitReturn(in Instruction instruction)
    {
        int size = instruction.Code switch
        {
            Code.Retnw or Code.Retnw_imm16 => 2,
            Code.Retnd or Code.Retnd_imm16 => 4,
            _ => 8,
        };
        int extra = instruction.OpCount > 0 ? instruction.Immediate16 : 0;
        BeginStack(0, size, false);
        LoadSized(Host.Rcx, size);
        AdjustStack(size + extra);
        _e.MovRr(Host.Rbp, Host.Rcx);
        EndMemory();
        NoteBranch(size, size + extra);
        EmitJumpIndirect();
    }

    private void EmitLeave(in Instruction instruction)
    {
        int size = instruction.Code switch { Code.Leavew => 2, Code.Leaved => 4, _ => 8 };
        BeginMemory(new MemoryOperand(5, -1, 0, 0, 2, StackBits), size, false);
        LoadSized(Host.Rcx, size);
        if (StackBits == 16)
        {
            _e.Lea(Host.Rbp, Host.R14, -1, 0, size, false);
            _e.MovWord(Host.R15, Host.Rbp);
        }
        else
        {
            _e.Lea(Host.R15, Host.R14, -1, 0, size, StackBits == 64);
        }
        WriteGuest(5, Host.Rcx, size);
        EndMemory();
    }

    private void EmitString(ref Instruction instruction)
    {
        if (instruction.HasRepPrefix || instruction.HasRepnePrefix)
        {
            EmitInterpreted();
            return;
        }
        int bits = 16, size = instruction.MemorySize.GetSize();
        for (int i = 0; i < instruction.OpCount; i++)
        {
            bits = instruction.GetOpKind(i) switch
            {
                OpKind.MemorySegESI or OpKind.MemoryESEDI => 32,
                OpKind.MemorySegRSI or OpKind.MemoryESRDI => 64,
                _ => bits,
            };
        }
        int step = _mode.Backwards ? -size : size;
        var source = new MemoryOperand(6, -1, 0, 0, SegmentNumber(instruction.MemorySegment), bits);
        var destination = new MemoryOperand(7, -1, 0, 0, 0, bits);
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Stosb or Mnemonic.Stosw or Mnemonic.Stosd or Mnemonic.Stosq:
                BeginMemory(destination, size, true);
                StoreSized(Host.Rax, size);
                Advance(Host.Rdi, step, bits);
                break;
            case Mnemonic.Lodsb or Mnemonic.Lodsw or Mnemonic.Lodsd or Mnemonic.Lodsq:
                BeginMemory(source, size, false);
                if (size == 2)
                    _e.Byte(0x66);
                OnOperand(size == 1 ? 0x8A : 0x8B, Host.Rax, size == 8);
                Advance(Host.Rsi, step, bits);
                break;
            case Mnemonic.Scasb or Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq:
                BeginMemory(destination, size, false);
                if (size == 2)
                    _e.Byte(0x66);
                OnOperand(size == 1 ? 0x3A : 0x3B, Host.Rax, size == 8);
                Advance(Host.Rdi, step, bits);
                break;
            default:
                bool compare = instruction.Mnemonic is Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsd or Mnemonic.Cmpsq;
                BeginMemory(source, size, false);
                LoadSized(Host.Rcx, size);
                _e.StoreGs(Layout.Scratch0, Host.Rcx);
                EndMemory();
                BeginMemory(destination, size, !compare);
                FoldMemory();
                _e.LoadGs(Host.Rcx, Layout.Scratch0);
                if (compare)
                {
                    if (size == 2)
                        _e.Byte(0x66);
                    OnOperand(size == 1 ? 0x3A : 0x3B, Host.Rcx, size == 8);
                }
                else
                {
                    StoreSized(Host.Rcx, size);
                }
                Advance(Host.Rsi, step, bits);
                Advance(Host.Rdi, step, bits);
                break;
        }
        EndMemory();
    }

    private void Advance(int register, int step, int bits)
    {
        if (bits == 16)
        {
            _e.Lea(Host.Rbp, register, -1, 0, step, false);
            _e.MovWord(register, Host.Rbp);
        }
        else
        {
            _e.Lea(register, register, -1, 0, step, bits == 64);
        }
    }

    private void EmitXlat(in Instruction instruction)
    {
        int bits = _mode.CodeBits;
        if (instruction.MemoryBase != Register.None)
            bits = instruction.MemoryBase.GetSize() * 8;
        _e.MovzxByte(Host.Rcx, Host.Rax);
        _e.Lea(Host.Rbp, Host.Rbx, Host.Rcx, 0, 0, bits == 64);
        if (bits == 16)
            _e.MovzxWord(Host.Rbp, Host.Rbp);
        BeginMemoryAtRbp(SegmentNumber(instruction.MemorySegment), bits, 1, false);
        OnOperand(0x8A, Host.Rax, false);
        EndMemory();
    }
}
