using System.Runtime.CompilerServices;
using Iced.Intel;
using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>String instructions with REP, and string I/O. Blocks within pages are moved at once; registers are current after each
/// block, so that a fault or an interrupt finds the instruction half done and restartable.</summary>
internal sealed unsafe partial class Interpreter
{
    private int _stringBits;
    private int _stringSegment;

    private ulong GetPointer(int register) => _c->Gpr[register] & Mask(_stringBits);

    private void SetPointer(int register, ulong value) => SetNumber(register, value, _stringBits / 8);

    private void Step(int register, long bytes)
    {
        if (_stringBits == 16)
            SetNumber(register, _c->Gpr[register] + (ulong)bytes, 2);
        else
            SetPointer(register, _c->Gpr[register] + (ulong)bytes);
    }

    private bool ExecuteString()
    {
        if (!_i.IsStringInstruction)
            return false;
        _stringBits = Is64 ? 64 : (_c->Cs.Attributes & 1 << 14) != 0 ? 32 : 16;
        for (int i = 0; i < _i.OpCount; i++)
        {
            _stringBits = _i.GetOpKind(i) switch
            {
                OpKind.MemorySegSI or OpKind.MemoryESDI => 16,
                OpKind.MemorySegESI or OpKind.MemoryESEDI => 32,
                OpKind.MemorySegRSI or OpKind.MemoryESRDI => 64,
                _ => _stringBits,
            };
        }
        _stringSegment = SegmentNumber(_i.MemorySegment);
        int size = _i.MemorySize.GetSize();
        bool repeated = _i.HasRepPrefix || _i.HasRepnePrefix;
        ulong count = repeated ? GetPointer(1) : 1;
        bool done = _i.Mnemonic switch
        {
            Mnemonic.Movsb or Mnemonic.Movsw or Mnemonic.Movsd or Mnemonic.Movsq => Move(size, count, repeated),
            Mnemonic.Stosb or Mnemonic.Stosw or Mnemonic.Stosd or Mnemonic.Stosq => StoreString(size, count, repeated),
            Mnemonic.Lodsb or Mnemonic.Lodsw or Mnemonic.Lodsd or Mnemonic.Lodsq => LoadString(size, count, repeated),
            Mnemonic.Scasb or Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq => Compare(size, count, repeated, true),
            Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsd or Mnemonic.Cmpsq => Compare(size, count, repeated, false),
            Mnemonic.Insb or Mnemonic.Insw or Mnemonic.Insd => Input(size, count, repeated),
            _ => Output(size, count, repeated),
        };
        if (done)
            _c->Rip = _next;
        return true;
    }

    private bool Backwards => (_c->Rflags & Flags.Df) != 0;

    /// <summary>After each element debuggers may look: RFLAGS.TF, or a data breakpoint.</summary>
    private bool OneByOne => (_c->Rflags & Flags.Tf) != 0 || cpu.WatchesData;

    private bool Interrupted => Volatile.Read(ref _c->KeepRunning) == 0 || OneByOne;

    private void Count(bool repeated, ulong elements)
    {
        if (repeated)
            Step(1, -(long)elements);
    }

    /// <summary>Elements from an offset upwards that lie within its page and its segment's 16-bit wrap; 0 when the first crosses.</summary>
    private ulong Run(ulong linear, ulong offset, int size, ulong count)
    {
        ulong run = (4096 - (linear & 0xFFF)) / (ulong)size;
        if (_stringBits == 16)
            run = Math.Min(run, (0x10000 - offset) / (ulong)size);
        return Math.Min(run, OneByOne ? 1 : count);
    }

    /// <summary>Cuts a run so that it stays within the segment.</summary>
    private ulong Allowed(int segment, ulong offset, int size, ulong run, bool write)
    {
        if (Is64 || run == 0 || cpu.IsAllowed(segment, offset, (int)run * size, write))
            return run;
        return 0;
    }

    private bool Deliver(byte vector, uint code)
    {
        cpu.DeliverFromInterpreter(vector, code);
        Faulted = true;
        return false;
    }

    private bool Move(int size, ulong count, bool repeated)
    {
        while (count > 0)
        {
            ulong from = GetPointer(6), to = GetPointer(7);
            ulong source = Linear(_stringSegment, from, size, false), target = Linear(0, to, size, true);
            memory.CheckAlignment(source, size);
            memory.CheckAlignment(target, size);
            ulong run = Backwards ? 0 : Math.Min(Run(source, from, size, count), Run(target, to, size, count));
            run = Allowed(_stringSegment, from, size, run, false);
            run = Allowed(0, to, size, run, true);
            int bytes = (int)run * size;
            if (run != 0)
            {
                if (!memory.TryBlock(source, bytes, false, out byte* a, out _, out byte vector, out uint code) ||
                    !memory.TryBlock(target, bytes, true, out byte* b, out _, out vector, out code))
                {
                    return Deliver(vector, code);
                }
                if (a == null || b == null)
                    run = 0;
                else if ((ulong)(b - a) < (ulong)bytes)
                    Overlap(a, b, size, run);
                else
                    Buffer.MemoryCopy(a, b, bytes, bytes);
                memory.StoreDone();
            }
            if (run == 0)
            {
                run = 1;
                memory.WriteLinear(target, memory.ReadLinear(source, size), size);
            }
            long moved = Backwards ? -size : (long)run * size;
            Step(6, moved);
            Step(7, moved);
            Count(repeated, run);
            count -= run;
            if (count > 0 && Interrupted)
                return false;
        }
        return true;
    }

    private static void Overlap(byte* from, byte* to, int size, ulong run)
    {
        for (ulong i = 0; i < run; i++, from += size, to += size)
        {
            switch (size)
            {
                case 1:
                    *to = *from;
                    break;
                case 2:
                    Unsafe.WriteUnaligned(to, Unsafe.ReadUnaligned<ushort>(from));
                    break;
                case 4:
                    Unsafe.WriteUnaligned(to, Unsafe.ReadUnaligned<uint>(from));
                    break;
                default:
                    Unsafe.WriteUnaligned(to, Unsafe.ReadUnaligned<ulong>(from));
                    break;
            }
        }
    }

    private bool StoreString(int size, ulong count, bool repeated)
    {
        ulong value = _c->Gpr[0];
        while (count > 0)
        {
            ulong to = GetPointer(7);
            ulong target = Linear(0, to, size, true);
            memory.CheckAlignment(target, size);
            ulong run = Backwards ? 0 : Allowed(0, to, size, Run(target, to, size, count), true);
            if (run != 0)
            {
                if (!memory.TryBlock(target, (int)run * size, true, out byte* b, out _, out byte vector, out uint code))
                    return Deliver(vector, code);
                if (b == null)
                    run = 0;
                else if (size == 1)
                    new Span<byte>(b, (int)run).Fill((byte)value);
                else if (size == 2)
                    new Span<ushort>(b, (int)run).Fill((ushort)value);
                else if (size == 4)
                    new Span<uint>(b, (int)run).Fill((uint)value);
                else
                    new Span<ulong>(b, (int)run).Fill(value);
                memory.StoreDone();
            }
            if (run == 0)
            {
                run = 1;
                memory.WriteLinear(target, value, size);
            }
            Step(7, Backwards ? -size : (long)run * size);
            Count(repeated, run);
            count -= run;
            if (count > 0 && Interrupted)
                return false;
        }
        return true;
    }

    private bool LoadString(int size, ulong count, bool repeated)
    {
        while (count > 0)
        {
            SetNumber(0, memory.ReadLinear(Linear(_stringSegment, GetPointer(6), size, false), size), size);
            Step(6, Backwards ? -size : size);
            Count(repeated, 1);
            count--;
            if (count > 0 && Interrupted)
                return false;
        }
        return true;
    }

    private bool Compare(int size, ulong count, bool repeated, bool scan)
    {
        bool whileEqual = _i.HasRepPrefix;
        ulong mask = Mask(size * 8) & (size == 1 ? 0xFFUL : ulong.MaxValue);
        while (count > 0)
        {
            ulong to = GetPointer(7);
            ulong b = memory.ReadLinear(Linear(0, to, size, false), size);
            ulong a = scan ? _c->Gpr[0] & mask : memory.ReadLinear(Linear(_stringSegment, GetPointer(6), size, false), size);
            long step = Backwards ? -size : size;
            if (!scan)
                Step(6, step);
            Step(7, step);
            Count(repeated, 1);
            count--;
            bool last = !repeated || count == 0 || a == b != whileEqual;
            bool pause = !last && Interrupted;
            if (last || pause)
            {
                SetCompareFlags(a, b, size);
                return last;
            }
        }
        return true;
    }

    private void SetCompareFlags(ulong a, ulong b, int size)
    {
        ulong sign = 1UL << (size * 8 - 1);
        ulong result = a - b & (sign | sign - 1);
        SetFlag(Flags.Cf, a < b);
        SetFlag(Flags.Zf, result == 0);
        SetFlag(Flags.Sf, (result & sign) != 0);
        SetFlag(Flags.Of, ((a ^ b) & (a ^ result) & sign) != 0);
        SetFlag(Flags.Af, ((a ^ b ^ result) & 0x10) != 0);
        SetFlag(Flags.Pf, (System.Numerics.BitOperations.PopCount(result & 0xFF) & 1) == 0);
    }

    private bool Input(int size, ulong count, bool repeated)
    {
        ushort port = (ushort)_c->Gpr[2];
        if (count > 0)
            IoPermission.Check(_c, memory, port, size);
        while (count > 0)
        {
            ulong target = Linear(0, GetPointer(7), size, true);
            // The device is asked only when the store cannot fault.
            memory.CheckAlignment(target, size);
            memory.ProbeLinear(target, size, true);
            cpu.NoteBreakpoint(DebugRegisters.MatchPort(_c, port, size));
            memory.WriteLinear(target, bus.PortRead(port, size), size);
            Step(7, Backwards ? -size : size);
            Count(repeated, 1);
            count--;
            if (count > 0 && Interrupted)
                return false;
        }
        return true;
    }

    private bool Output(int size, ulong count, bool repeated)
    {
        ushort port = (ushort)_c->Gpr[2];
        if (count > 0)
            IoPermission.Check(_c, memory, port, size);
        while (count > 0)
        {
            ulong value = memory.ReadLinear(Linear(_stringSegment, GetPointer(6), size, false), size);
            cpu.NoteBreakpoint(DebugRegisters.MatchPort(_c, port, size));
            bus.PortWrite(port, (uint)value, size);
            Step(6, Backwards ? -size : size);
            Count(repeated, 1);
            count--;
            if (count > 0 && Interrupted)
                return false;
        }
        return true;
    }
}
