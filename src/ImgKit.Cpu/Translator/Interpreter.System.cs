using Iced.Intel;
using ImgKit.Cpu.Architecture;
using Register = Iced.Intel.Register;

namespace ImgKit.Cpu.Translator;

internal sealed unsafe partial class Interpreter
{
    private void ExecuteSystem()
    {
        switch (_i.Mnemonic)
        {
            case Mnemonic.In:
            {
                int size = _i.Op0Register.GetSize();
                Set(_i.Op0Register, ReadPort((ushort)Operand(1, 1), size));
                return;
            }
            case Mnemonic.Out:
            {
                int size = _i.Op1Register.GetSize();
                WritePort((ushort)Operand(0, 1), (uint)Get(_i.Op1Register), size);
                return;
            }
            case Mnemonic.Cpuid:
            {
                CpuidInstruction.Execute(_c, memory, (uint)_c->Gpr[0], (uint)_c->Gpr[1], out uint a, out uint b, out uint cx, out uint d);
                _c->Gpr[0] = a;
                _c->Gpr[3] = b;
                _c->Gpr[1] = cx;
                _c->Gpr[2] = d;
                return;
            }
            case Mnemonic.Rdmsr:
                SetPair(Msrs.Read(_c, memory, (uint)_c->Gpr[1]));
                return;
            case Mnemonic.Wrmsr:
                Msrs.Write(_c, memory, (uint)_c->Gpr[1], Pair());
                return;
            case Mnemonic.Rdtsc:
                SetPair(Msrs.ReadTimeStamp(_c, memory));
                return;
            case Mnemonic.Rdtscp:
                SetPair(Msrs.ReadTimeStamp(_c, memory));
                _c->Gpr[1] = (uint)_c->TscAux;
                return;
            case Mnemonic.Rdpid:
                Set(_i.Op0Register, (uint)_c->TscAux);
                return;
            case Mnemonic.Rdpmc:
                SetPair(Msrs.ReadPerformanceCounter(_c, (uint)_c->Gpr[1]));
                return;
            case Mnemonic.Mov:
                ExecuteMov();
                return;
            case Mnemonic.Lgdt or Mnemonic.Lidt:
                LoadTable();
                return;
            case Mnemonic.Sgdt or Mnemonic.Sidt:
                StoreTable();
                return;
            case Mnemonic.Lldt:
                Segments.LoadLdt(_c, memory, (ushort)Operand(0, 2));
                return;
            case Mnemonic.Ltr:
                Segments.LoadTaskRegister(_c, memory, (ushort)Operand(0, 2));
                return;
            case Mnemonic.Sldt:
                StoreWord(Segments.StoreLdt(_c));
                return;
            case Mnemonic.Str:
                StoreWord(Segments.StoreTaskRegister(_c));
                return;
            case Mnemonic.Smsw:
                StoreWord(ControlRegisters.Smsw(_c));
                return;
            case Mnemonic.Lmsw:
                ControlRegisters.Lmsw(_c, memory, (ushort)Operand(0, 2));
                return;
            case Mnemonic.Clts:
                ControlRegisters.Clts(_c, memory);
                return;
            case Mnemonic.Invlpg:
                ControlRegisters.InvalidatePage(_c, memory, Is64
                    ? Linear(SegmentNumber(_i.MemorySegment), Offset(), 1, false)
                    : (uint)(Offset() + CpuContext.Segment(_c, SegmentNumber(_i.MemorySegment))->Base));
                return;
            case Mnemonic.Invpcid:
                ControlRegisters.InvalidatePcid(_c, memory, Get(_i.Op0Register), ReadMemory(8), ReadMemory(8, 8));
                return;
            case Mnemonic.Invd or Mnemonic.Wbinvd or Mnemonic.Wbnoinvd:
                ControlRegisters.RequireSupervisor(_c);
                return;
            case Mnemonic.Hlt:
                ControlRegisters.RequireSupervisor(_c);
                _c->Halted = 1;
                return;
            case Mnemonic.Monitor or Mnemonic.Monitorx:
                ControlRegisters.RequireSupervisor(_c);
                return;
            case Mnemonic.Mwait or Mnemonic.Mwaitx:
                // The wait may end at any time. With interrupts on, an interrupt is what ends it, where no other processor may write to the line.
                ControlRegisters.RequireSupervisor(_c);
                if ((_c->Rflags & Flags.If) != 0 && cpu.IsAlone)
                    _c->Halted = 1;
                else
                    Thread.Yield();
                return;
            case Mnemonic.Pushf or Mnemonic.Pushfd or Mnemonic.Pushfq:
            {
                int size = -_i.StackPointerIncrement;
                Push(FlagOps.PushfValue(_c, size), size);
                return;
            }
            case Mnemonic.Popf or Mnemonic.Popfd or Mnemonic.Popfq:
            {
                int size = _i.StackPointerIncrement;
                ulong old = _c->Gpr[4];
                ulong value = Pop(size);
                try
                {
                    FlagOps.Popf(_c, memory, value, size);
                }
                catch (GuestFault)
                {
                    _c->Gpr[4] = old;
                    throw;
                }
                return;
            }
            case Mnemonic.Cli:
                FlagOps.Cli(_c, memory);
                return;
            case Mnemonic.Sti:
                FlagOps.Sti(_c, memory);
                return;
            case Mnemonic.Cld or Mnemonic.Std:
                SetFlag(Flags.Df, _i.Mnemonic == Mnemonic.Std);
                memory.ModeChanged();
                return;
            case Mnemonic.Stac or Mnemonic.Clac:
                if (_c->Cpl != 0)
                    throw new GuestFault(6);
                SetFlag(Flags.Ac, _i.Mnemonic == Mnemonic.Stac);
                memory.ModeChanged();
                return;
            case Mnemonic.Swapgs:
                Segments.SwapGs(_c);
                return;
            case Mnemonic.Xgetbv:
                SetPair(ControlRegisters.ReadXcr(_c, memory, (uint)_c->Gpr[1]));
                return;
            case Mnemonic.Xsetbv:
                ControlRegisters.WriteXcr0(_c, memory, (uint)_c->Gpr[1], Pair());
                return;
            case Mnemonic.Lar or Mnemonic.Lsl:
            {
                ushort selector = (ushort)Operand(1, 2);
                uint value;
                bool valid = _i.Mnemonic == Mnemonic.Lar
                    ? Segments.Lar(_c, memory, selector, out value) : Segments.Lsl(_c, memory, selector, out value);
                if (valid)
                    Set(_i.Op0Register, value);
                SetFlag(Flags.Zf, valid);
                return;
            }
            case Mnemonic.Verr:
                SetFlag(Flags.Zf, Segments.Verr(_c, memory, (ushort)Operand(0, 2)));
                return;
            case Mnemonic.Verw:
                SetFlag(Flags.Zf, Segments.Verw(_c, memory, (ushort)Operand(0, 2)));
                return;
            case Mnemonic.Arpl:
            {
                bool raised = Segments.Arpl(_c, (ushort)Operand(0, 2), (ushort)Get(_i.Op1Register), out ushort result);
                if (raised && IsMemory(0))
                    WriteMemory(result, 2);
                else if (raised)
                    SetNumber(Number(_i.Op0Register), result, 2);
                SetFlag(Flags.Zf, raised);
                return;
            }
            case Mnemonic.Les:
                LoadFar(Segments.Es);
                return;
            case Mnemonic.Lds:
                LoadFar(Segments.Ds);
                return;
            case Mnemonic.Lss:
                LoadFar(Segments.Ss);
                return;
            case Mnemonic.Lfs:
                LoadFar(Segments.Fs);
                return;
            case Mnemonic.Lgs:
                LoadFar(Segments.Gs);
                return;
            case Mnemonic.Pop:
                ExecutePop();
                return;
            case Mnemonic.Rdfsbase or Mnemonic.Rdgsbase or Mnemonic.Wrfsbase or Mnemonic.Wrgsbase:
                ExecuteSegmentBase();
                return;
            case Mnemonic.Clflush or Mnemonic.Clflushopt or Mnemonic.Clwb:
                // Caches are the host's business; the address faults as one that is read.
                memory.ProbeLinear(OperandAddress(1, false), 1, false);
                return;
            case Mnemonic.Clzero:
            {
                ulong line = _c->Gpr[0] & Mask(_i.Op0Register.GetSize() * 8) & ~63UL;
                line = Linear(SegmentNumber(_i.MemorySegment), line, 64, true);
                for (int i = 0; i < 64; i += 8)
                    memory.WriteLinear(line + (ulong)i, 0, 8);
                return;
            }
            default:
                if (!ExecuteLegacy() && !ExecuteState())
                    throw new GuestFault(6);
                return;
        }
    }

    private ulong Pair() => (uint)_c->Gpr[0] | _c->Gpr[2] << 32;

    private void SetPair(ulong value)
    {
        _c->Gpr[0] = (uint)value;
        _c->Gpr[2] = value >> 32;
    }

    private ulong ReadPort(ushort port, int size)
    {
        IoPermission.Check(_c, memory, port, size);
        cpu.NoteBreakpoint(DebugRegisters.MatchPort(_c, port, size));
        return bus.PortRead(port, size);
    }

    private void WritePort(ushort port, uint value, int size)
    {
        IoPermission.Check(_c, memory, port, size);
        cpu.NoteBreakpoint(DebugRegisters.MatchPort(_c, port, size));
        bus.PortWrite(port, size == 4 ? value : value & (1u << (8 * size)) - 1, size);
    }

    private void ExecuteMov()
    {
        var to = _i.Op0Kind == OpKind.Register ? _i.Op0Register : Register.None;
        var from = _i.Op1Kind == OpKind.Register ? _i.Op1Register : Register.None;
        if (to.IsCR())
        {
            ControlRegisters.WriteCr(_c, memory, to - Register.CR0, Get(from));
        }
        else if (from.IsCR())
        {
            Set(to, ControlRegisters.ReadCr(_c, memory, from - Register.CR0));
        }
        else if (to.IsDR())
        {
            DebugRegisters.WriteDr(_c, memory, to - Register.DR0, Get(from));
        }
        else if (from.IsDR())
        {
            Set(to, DebugRegisters.ReadDr(_c, memory, from - Register.DR0));
        }
        else if (to.IsSegmentRegister() && to != Register.CS)
        {
            LoadSegment(SegmentNumber(to), (ushort)Operand(1, 2));
        }
        else
        {
            throw new GuestFault(6);
        }
    }

    private void LoadSegment(int segment, ushort selector)
    {
        Segments.Load(_c, memory, segment, selector);
        if (segment == Segments.Ss)
            _c->InterruptShadow = TranslatorVcpu.StackShadow;
    }

    private void ExecutePop()
    {
        int size = _i.StackPointerIncrement;
        ulong old = _c->Gpr[4];
        ulong value = Pop(size);
        try
        {
            // A memory operand addressed by the stack pointer sees it after the pop.
            if (_i.Op0Kind == OpKind.Memory)
                WriteMemory(value, size);
            else
                LoadSegment(SegmentNumber(_i.Op0Register), (ushort)value);
        }
        catch (GuestFault)
        {
            _c->Gpr[4] = old;
            throw;
        }
    }

    private void LoadFar(int segment)
    {
        int size = _i.Op0Register.GetSize();
        ulong offset = ReadMemory(size);
        Segments.Load(_c, memory, segment, (ushort)ReadMemory(2, size));
        Set(_i.Op0Register, offset);
    }

    private void LoadTable()
    {
        int operandSize = _i.Code switch
        {
            Code.Lgdt_m1632_16 or Code.Lidt_m1632_16 => 2,
            Code.Lgdt_m1664 or Code.Lidt_m1664 => 8,
            _ => 4,
        };
        ControlRegisters.RequireSupervisor(_c);
        ushort limit = (ushort)ReadMemory(2);
        ulong address = ReadMemory(operandSize == 8 ? 8 : 4, 2);
        if (_i.Mnemonic == Mnemonic.Lgdt)
            Segments.LoadGdt(_c, address, limit, operandSize);
        else
            Segments.LoadIdt(_c, address, limit, operandSize);
    }

    private void StoreTable()
    {
        Segments.CheckUserModePrevention(_c);
        bool gdt = _i.Mnemonic == Mnemonic.Sgdt;
        int size = _i.Code is Code.Sgdt_m1664 or Code.Sidt_m1664 ? 8 : 4;
        ulong linear = OperandAddress(2 + size, true);
        // Checked as a whole (Intel SDM 3A table 6-7).
        memory.CheckAlignment(linear, 4);
        memory.ProbeLinear(linear, 2 + size, true);
        WritePieces(linear, gdt ? _c->GdtrLimit : _c->IdtrLimit, 2);
        WritePieces(linear + 2, gdt ? _c->GdtrBase : _c->IdtrBase, size);
    }

    private void StoreWord(ulong value)
    {
        if (IsMemory(0))
            WriteMemory(value, 2);
        else
            Set(_i.Op0Register, value);
    }

    private void ExecuteSegmentBase()
    {
        if ((_c->Cr4 & Cr4.FsGsBase) == 0 || !Is64)
            throw new GuestFault(6);
        var segment = CpuContext.Segment(_c, _i.Mnemonic is Mnemonic.Rdfsbase or Mnemonic.Wrfsbase ? 4 : 5);
        if (_i.Mnemonic is Mnemonic.Rdfsbase or Mnemonic.Rdgsbase)
        {
            Set(_i.Op0Register, segment->Base);
            return;
        }
        ulong value = Get(_i.Op0Register);
        if (!PageWalker.IsCanonical(_c, value))
            throw new GuestFault(13, 0);
        segment->Base = value;
    }
}
