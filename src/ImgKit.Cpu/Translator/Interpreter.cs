using Iced.Intel;
using ImgKit.Cpu.Architecture;
using Register = Iced.Intel.Register;

namespace ImgKit.Cpu.Translator;

/// <summary>Executes in C# what is not translated: system instructions, far transfers, I/O, repeated string instructions, and the
/// few that 64-bit mode does not have. Faults are thrown as <see cref="GuestFault"/>, or delivered where they are frequent.</summary>
internal sealed unsafe partial class Interpreter(TranslatorVcpu cpu, CpuContext* c, MemoryUnit memory, IVcpuBus bus)
{
    private readonly CpuContext* _c = c;
    private ulong _next;
    private Instruction _i;

    /// <summary>The last instruction ended in a fault that has been delivered already.</summary>
    public bool Faulted { get; private set; }

    /// <summary>Executes one instruction; RIP is its own before, and that of what follows afterwards.</summary>
    public void Execute(in Instruction instruction, ulong next)
    {
        _i = instruction;
        _next = next;
        Faulted = false;
        if (ExecuteControl() || ExecuteString())
            return;
        ExecuteSystem();
        if (!Faulted)
            _c->Rip = next;
    }

    // ---- operands ----

    private static int Number(Register r) => BlockTranslator.GuestNumber(r);

    private ulong Get(Register r)
    {
        ulong value = _c->Gpr[Number(r)];
        return r.GetSize() switch
        {
            1 => r is >= Register.AH and <= Register.BH ? value >> 8 & 0xFF : value & 0xFF,
            2 => value & 0xFFFF,
            4 => value & 0xFFFFFFFF,
            _ => value,
        };
    }

    private void Set(Register r, ulong value)
    {
        if (r is >= Register.AH and <= Register.BH)
            _c->Gpr[Number(r)] = _c->Gpr[Number(r)] & ~0xFF00UL | (value & 0xFF) << 8;
        else
            SetNumber(Number(r), value, r.GetSize());
    }

    private void SetNumber(int number, ulong value, int size) => _c->Gpr[number] = size switch
    {
        1 => _c->Gpr[number] & ~0xFFUL | value & 0xFF,
        2 => _c->Gpr[number] & ~0xFFFFUL | value & 0xFFFF,
        4 => (uint)value,
        _ => value,
    };

    private static int SegmentNumber(Register r) => r switch
    {
        Register.ES => 0,
        Register.CS => 1,
        Register.SS => 2,
        Register.DS => 3,
        Register.FS => 4,
        _ => 5,
    };

    private bool Is64 => Mode.Is64Bit(_c);

    private static ulong Mask(int bits) => bits switch { 16 => 0xFFFF, 32 => 0xFFFFFFFF, _ => ulong.MaxValue };

    private int AddressBits =>
        _i.IsIPRelativeMemoryOperand ? 64 :
        _i.MemoryBase != Register.None ? _i.MemoryBase.GetSize() * 8 :
        _i.MemoryIndex != Register.None && _i.MemoryIndex.IsGPR() ? _i.MemoryIndex.GetSize() * 8 :
        _i.MemoryDisplSize switch { 2 => 16, 4 => Is64 ? 64 : 32, 8 => 64, _ => Is64 ? 64 : 32 };

    private ulong Offset()
    {
        if (_i.IsIPRelativeMemoryOperand)
            return _i.IPRelativeMemoryAddress;
        ulong offset = _i.MemoryDisplacement64;
        if (_i.MemoryBase != Register.None)
            offset += _c->Gpr[Number(_i.MemoryBase)];
        if (_i.MemoryIndex != Register.None && _i.MemoryIndex.IsGPR())
            offset += _c->Gpr[Number(_i.MemoryIndex)] * (ulong)_i.MemoryIndexScale;
        return offset & Mask(AddressBits);
    }

    /// <summary>Linear address of an offset in a segment, checked.</summary>
    private ulong Linear(int segment, ulong offset, int size, bool write)
    {
        if (Is64)
            return segment >= 4 ? offset + CpuContext.Segment(_c, segment)->Base : offset;
        if (!cpu.IsAllowed(segment, offset, size, write))
            throw new GuestFault((byte)(segment == 2 ? 12 : 13), 0);
        return (uint)(offset + CpuContext.Segment(_c, segment)->Base);
    }

    private ulong OperandAddress(int size, bool write) => Linear(SegmentNumber(_i.MemorySegment), Offset(), size, write);

    private ulong ReadMemory(int size, int displacement = 0)
    {
        ulong offset = Offset() + (ulong)displacement & Mask(AddressBits);
        return memory.ReadLinear(Linear(SegmentNumber(_i.MemorySegment), offset, size, false), size);
    }

    private void WriteMemory(ulong value, int size, int displacement = 0)
    {
        ulong offset = Offset() + (ulong)displacement & Mask(AddressBits);
        memory.WriteLinear(Linear(SegmentNumber(_i.MemorySegment), offset, size, true), value, size);
    }

    private bool IsMemory(int operand) => _i.GetOpKind(operand) == OpKind.Memory;

    private ulong Operand(int operand, int size) => _i.GetOpKind(operand) switch
    {
        OpKind.Memory => ReadMemory(size),
        OpKind.Register => Get(_i.GetOpRegister(operand)),
        _ => _i.GetImmediate(operand),
    };

    // ---- stack ----

    private ulong StackMask => Is64 ? ulong.MaxValue : (_c->Ss.Attributes & 1 << 14) != 0 ? 0xFFFFFFFF : 0xFFFF;

    private void SetStack(ulong value)
    {
        ulong mask = StackMask;
        _c->Gpr[4] = _c->Gpr[4] & ~mask | value & mask;
        if (mask == 0xFFFFFFFF)
            _c->Gpr[4] = (uint)_c->Gpr[4];
    }

    private ulong ReadStack(ulong offset, int size) => memory.ReadLinear(Linear(2, offset & StackMask, size, false), size);

    private void WriteStack(ulong offset, ulong value, int size) =>
        memory.WriteLinear(Linear(2, offset & StackMask, size, true), value, size);

    private void Push(ulong value, int size)
    {
        WriteStack(_c->Gpr[4] - (ulong)size, value, size);
        SetStack(_c->Gpr[4] - (ulong)size);
    }

    private ulong Pop(int size)
    {
        ulong value = ReadStack(_c->Gpr[4], size);
        SetStack(_c->Gpr[4] + (ulong)size);
        return value;
    }

    private void SetFlag(ulong flag, bool value) => _c->Rflags = value ? _c->Rflags | flag : _c->Rflags & ~flag;

    // ---- transfers ----

    private bool ExecuteControl()
    {
        switch (_i.FlowControl)
        {
            case FlowControl.Interrupt:
                ExecuteInterrupt();
                return true;
            case FlowControl.Return:
                ExecuteReturn();
                return true;
            case FlowControl.UnconditionalBranch:
            case FlowControl.IndirectBranch:
            case FlowControl.Call:
            case FlowControl.IndirectCall:
                return ExecuteFar();
            case FlowControl.XbeginXabortXend:
            case FlowControl.Exception:
                throw new GuestFault(6);
            default:
                return false;
        }
    }

    private void ExecuteInterrupt()
    {
        switch (_i.Mnemonic)
        {
            case Mnemonic.Int3:
                Exceptions.SoftwareInterrupt(_c, memory, 3, _next, SoftwareInterruptKind.Int3);
                break;
            case Mnemonic.Int1:
                DebugRegisters.Report(_c, cpu.TakeBreakpoints());
                Exceptions.SoftwareInterrupt(_c, memory, 1, _next, SoftwareInterruptKind.Int1);
                break;
            case Mnemonic.Into:
                if ((_c->Rflags & Flags.Of) == 0)
                {
                    _c->Rip = _next;
                    return;
                }
                Exceptions.SoftwareInterrupt(_c, memory, 4, _next, SoftwareInterruptKind.Into);
                break;
            default:
                Exceptions.SoftwareInterrupt(_c, memory, _i.Immediate8, _next, SoftwareInterruptKind.IntN);
                break;
        }
        cpu.SuppressTrap();
    }

    private void ExecuteReturn()
    {
        switch (_i.Code)
        {
            case Code.Retfw:
            case Code.Retfw_imm16:
                FarTransfers.Return(_c, memory, 2, _i.OpCount > 0 ? _i.Immediate16 : 0u);
                break;
            case Code.Retfd:
            case Code.Retfd_imm16:
                FarTransfers.Return(_c, memory, 4, _i.OpCount > 0 ? _i.Immediate16 : 0u);
                break;
            case Code.Retfq:
            case Code.Retfq_imm16:
                FarTransfers.Return(_c, memory, 8, _i.OpCount > 0 ? _i.Immediate16 : 0u);
                break;
            case Code.Iretw:
                InterruptReturn.Execute(_c, memory, 2, _next);
                cpu.KeepResumeFlag();
                break;
            case Code.Iretd:
                InterruptReturn.Execute(_c, memory, 4, _next);
                cpu.KeepResumeFlag();
                break;
            case Code.Iretq:
                InterruptReturn.Execute(_c, memory, 8, _next);
                cpu.KeepResumeFlag();
                break;
            case Code.Sysretd:
                Syscalls.Sysret(_c, memory, false);
                cpu.AfterSystemCall();
                break;
            case Code.Sysretq:
                Syscalls.Sysret(_c, memory, true);
                cpu.AfterSystemCall();
                break;
            case Code.Sysexitd:
                Syscalls.Sysexit(_c, memory, false);
                break;
            case Code.Sysexitq:
                Syscalls.Sysexit(_c, memory, true);
                break;
            case Code.Rsm:
                Smm.Resume(_c, memory);
                break;
            default:
                throw new GuestFault(6);
        }
    }

    private bool ExecuteFar()
    {
        if (_i.Mnemonic == Mnemonic.Syscall)
        {
            Syscalls.Syscall(_c, memory, _next);
            cpu.AfterSystemCall();
            return true;
        }
        if (_i.Mnemonic == Mnemonic.Sysenter)
        {
            Syscalls.Sysenter(_c, memory);
            return true;
        }
        if (_i.Mnemonic is not (Mnemonic.Jmp or Mnemonic.Call))
            throw new GuestFault(6);
        if (_i.IsCallNearIndirect)
        {
            // Comes here when its target is not canonical; what is wrong with the stack counts first.
            ulong top = _c->Gpr[4] - 8;
            memory.CheckAlignment(top, 8);
            memory.ProbeLinear(top, 8, true);
            throw new GuestFault(13, 0);
        }
        ushort selector;
        ulong offset;
        int size;
        switch (_i.Code)
        {
            case Code.Jmp_ptr1616 or Code.Call_ptr1616:
                size = 2;
                selector = _i.FarBranchSelector;
                offset = _i.FarBranch16;
                break;
            case Code.Jmp_ptr1632 or Code.Call_ptr1632:
                size = 4;
                selector = _i.FarBranchSelector;
                offset = _i.FarBranch32;
                break;
            default:
                size = _i.Code switch
                {
                    Code.Jmp_m1616 or Code.Call_m1616 => 2,
                    Code.Jmp_m1632 or Code.Call_m1632 => 4,
                    Code.Jmp_m1664 or Code.Call_m1664 => 8,
                    _ => throw new GuestFault(6),
                };
                offset = ReadMemory(size);
                selector = (ushort)ReadMemory(2, size);
                break;
        }
        if (_i.Mnemonic == Mnemonic.Jmp)
            FarTransfers.Jump(_c, memory, selector, offset, size, _next);
        else
            FarTransfers.Call(_c, memory, selector, offset, size, _next);
        return true;
    }
}
