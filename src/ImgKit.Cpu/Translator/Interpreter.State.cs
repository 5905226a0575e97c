using Iced.Intel;
using ImgKit.Cpu.Architecture;
using Register = Iced.Intel.Register;

namespace ImgKit.Cpu.Translator;

/// <summary>FXSAVE, XSAVE and their kin between the context's XSAVE area and guest memory; masked moves and gathers.
/// Source: Intel SDM volume 1, chapter 13.</summary>
internal sealed unsafe partial class Interpreter
{
    private const int LegacySize = 512, HeaderSize = 64, AvxOffset = 576;

    private uint MxcsrMask => ImgKit.Cpu.Models.InstructionSupport.MxcsrMask(memory.Model);

    private ulong* StateComponents => (ulong*)(_c->XsaveArea + LegacySize);

    private bool ExecuteState()
    {
        switch (_i.Mnemonic)
        {
            case Mnemonic.Fxsave or Mnemonic.Fxsave64:
                RequireFpu();
                SaveLegacy();
                return true;
            case Mnemonic.Fxrstor or Mnemonic.Fxrstor64:
                RequireFpu();
                RestoreLegacy();
                return true;
            case Mnemonic.Xsave or Mnemonic.Xsave64 or Mnemonic.Xsaveopt or Mnemonic.Xsaveopt64:
                Xsave(false, _i.Mnemonic is Mnemonic.Xsaveopt or Mnemonic.Xsaveopt64);
                return true;
            case Mnemonic.Xsavec or Mnemonic.Xsavec64:
                Xsave(true, true);
                return true;
            case Mnemonic.Xsaves or Mnemonic.Xsaves64:
                ControlRegisters.RequireSupervisor(_c);
                Xsave(true, true);
                return true;
            case Mnemonic.Xrstors or Mnemonic.Xrstors64:
                ControlRegisters.RequireSupervisor(_c);
                Xrstor();
                return true;
            case Mnemonic.Xrstor or Mnemonic.Xrstor64:
                Xrstor();
                return true;
            case Mnemonic.Maskmovq or Mnemonic.Maskmovdqu or Mnemonic.Vmaskmovdqu:
                MaskedMove();
                return true;
            case Mnemonic.Vmaskmovps or Mnemonic.Vmaskmovpd or Mnemonic.Vpmaskmovd or Mnemonic.Vpmaskmovq:
                MaskedVector();
                return true;
            case Mnemonic.Vzeroupper or Mnemonic.Vzeroall:
                Materialise();
                new Span<byte>(YmmHigh(0), 16 * 8).Clear();
                if (_i.Mnemonic == Mnemonic.Vzeroall)
                    new Span<byte>(Xmm(0), 16 * 8).Clear();
                return true;
            default:
                return ExecuteX87() || ExecuteThreeDNow() || _i.IsVsib && Gather();
        }
    }

    private void RequireFpu()
    {
        if ((_c->Cr0 & (Cr0.Em | Cr0.Ts)) != 0)
            throw new GuestFault(7);
    }

    private void RequireXsave()
    {
        if ((_c->Cr4 & Cr4.OsXsave) == 0)
            throw new GuestFault(6);
        if ((_c->Cr0 & Cr0.Ts) != 0)
            throw new GuestFault(7);
    }

    private ulong Area(int size, int alignment, bool write)
    {
        ulong linear = OperandAddress(size, write);
        if ((linear & (ulong)(alignment - 1)) != 0)
            throw new GuestFault(13, 0);
        memory.ProbeLinear(linear, size, write);
        return linear;
    }

    private void CopyOut(ulong linear, byte* from, int length)
    {
        for (int i = 0; i < length; i += 8)
            memory.WriteLinear(linear + (ulong)i, *(ulong*)(from + i), 8);
    }

    private void CopyIn(ulong linear, byte* to, int length)
    {
        for (int i = 0; i < length; i += 8)
            *(ulong*)(to + i) = memory.ReadLinear(linear + (ulong)i, 8);
    }

    private void Materialise() => cpu.MaterialiseFpu();

    private void SaveLegacy()
    {
        Materialise();
        bool sse = (_c->Cr4 & Cr4.OsFxsr) != 0;
        ulong linear = Area(LegacySize, 16, true);
        StorePointers(linear);
        CopyOut(linear + 24, _c->XsaveArea + 24, 8);
        memory.WriteLinear(linear + 28, MxcsrMask, 4);
        CopyOut(linear + 32, _c->XsaveArea + 32, sse ? 128 + (Is64 ? 256 : 128) : 128);
    }

    private void RestoreLegacy()
    {
        bool sse = (_c->Cr4 & Cr4.OsFxsr) != 0;
        ulong linear = Area(LegacySize, 16, false);
        if (sse && ((uint)memory.ReadLinear(linear + 24, 4) & ~MxcsrMask) != 0)
            throw new GuestFault(13, 0);
        Materialise();
        uint mxcsr = *(uint*)(_c->XsaveArea + 24);
        LoadPointers(linear);
        CopyIn(linear + 24, _c->XsaveArea + 24, 8);
        *(uint*)(_c->XsaveArea + 28) = MxcsrMask;
        if (!sse)
            *(uint*)(_c->XsaveArea + 24) = mxcsr;
        CopyIn(linear + 32, _c->XsaveArea + 32, sse ? 128 + (Is64 ? 256 : 128) : 128);
        ClearReserved();
    }

    /// <summary>Behind each of the x87 registers, whatever an image had there.</summary>
    private void ClearReserved()
    {
        for (int i = 0; i < 8; i++)
            new Span<byte>(_c->XsaveArea + RegistersField + 16 * i + RegisterSize, 6).Clear();
    }

    private ulong RequestedComponents => Pair() & _c->Xcr0 & 7;

    /// <summary>XSAVE and its kin.</summary>
    /// <param name="compact">XSAVEC and XSAVES: the header says which components there are.</param>
    /// <param name="skips">What is in its initial state is not written.</param>
    private void Xsave(bool compact, bool skips)
    {
        const uint initialMxcsr = 0x1F80;
        RequireXsave();
        ulong mask = RequestedComponents;
        int size = (mask & 4) != 0 ? AvxOffset + 256 : AvxOffset;
        ulong linear = Area(size, 64, true);
        ulong inUse = *StateComponents & mask;
        uint mxcsr = *(uint*)(_c->XsaveArea + 24);
        if (compact && mxcsr != initialMxcsr)
            inUse |= mask & 2;
        ulong written = skips ? inUse : mask;
        Materialise();
        if ((written & 1) != 0)
        {
            StorePointers(linear);
            CopyOut(linear + 32, _c->XsaveArea + 32, 128);
        }
        if ((compact ? written & 2 : mask & 6) != 0)
        {
            memory.WriteLinear(linear + 24, mxcsr, 4);
            memory.WriteLinear(linear + 28, MxcsrMask, 4);
        }
        if ((written & 2) != 0)
            CopyOut(linear + 160, _c->XsaveArea + 160, Is64 ? 256 : 128);
        if ((written & 4) != 0)
            CopyOut(linear + AvxOffset, _c->XsaveArea + AvxOffset, Is64 ? 256 : 128);
        ulong old = compact ? 0 : memory.ReadLinear(linear + LegacySize, 8);
        memory.WriteLinear(linear + LegacySize, old & ~mask | inUse, 8);
        if (compact)
            memory.WriteLinear(linear + LegacySize + 8, mask | 1UL << 63, 8);
    }

    /// <summary>Whether XRSTOR refuses an image for its header (Intel SDM 1, 13.8.1 and 13.8.2).</summary>
    private bool IsBadHeader(ulong header, ulong present, ulong compaction)
    {
        if (compaction >> 63 == 0)
            return (present & ~_c->Xcr0) != 0 || compaction != 0 || memory.ReadLinear(header + 16, 8) != 0;
        ulong reserved = 0;
        for (uint at = 16; at < HeaderSize; at += 8)
            reserved |= memory.ReadLinear(header + at, 8);
        compaction &= ~(1UL << 63);
        return reserved != 0 || (compaction & ~_c->Xcr0) != 0 || (present & ~compaction) != 0;
    }

    private void Xrstor()
    {
        RequireXsave();
        ulong mask = RequestedComponents;
        ulong linear = Area(LegacySize + HeaderSize, 64, false);
        ulong present = memory.ReadLinear(linear + LegacySize, 8);
        ulong compaction = memory.ReadLinear(linear + LegacySize + 8, 8);
        bool compact = compaction >> 63 != 0;
        if (IsBadHeader(linear + LegacySize, present, compaction))
            throw new GuestFault(13, 0);
        if ((mask & 6) != 0 && !compact || (mask & present & 2) != 0)
        {
            uint mxcsr = (uint)memory.ReadLinear(linear + 24, 4);
            if ((mxcsr & ~MxcsrMask) != 0)
                throw new GuestFault(13, 0);
            Materialise();
            *(uint*)(_c->XsaveArea + 24) = mxcsr;
        }
        Materialise();
        ulong load = mask & present, clear = mask & ~present;
        if ((load & 1) != 0)
        {
            LoadPointers(linear);
            CopyIn(linear + 32, _c->XsaveArea + 32, 128);
            ClearReserved();
        }
        if ((load & 2) != 0)
            CopyIn(linear + 160, _c->XsaveArea + 160, Is64 ? 256 : 128);
        if ((load & 4) != 0)
            CopyIn(linear + AvxOffset, _c->XsaveArea + AvxOffset, Is64 ? 256 : 128);
        if (compact && (clear & 2) != 0)
            *(uint*)(_c->XsaveArea + 24) = 0x1F80;
        *StateComponents &= ~clear;
    }

    /// <summary>A read that is not checked for alignment: of a part of an operand that has rules of its own.</summary>
    private ulong ReadPieces(ulong linear, int size)
    {
        if ((linear & (ulong)(size - 1)) == 0)
            return memory.ReadLinear(linear, size);
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= memory.ReadLinear(linear + (ulong)i, 1) << (8 * i);
        return value;
    }

    private void WritePieces(ulong linear, ulong value, int size)
    {
        if ((linear & (ulong)(size - 1)) == 0)
        {
            memory.WriteLinear(linear, value, size);
            return;
        }
        memory.ProbeLinear(linear, size, true);
        for (int i = 0; i < size; i++)
            memory.WriteLinear(linear + (ulong)i, (byte)(value >> (8 * i)), 1);
    }

    private byte* Xmm(int number) => _c->XsaveArea + 160 + 16 * number;

    private byte* YmmHigh(int number) => _c->XsaveArea + AvxOffset + 16 * number;

    private void MaskedMove()
    {
        Materialise();
        bool mmx = _i.Mnemonic == Mnemonic.Maskmovq;
        var data = _i.GetOpRegister(1);
        var select = _i.GetOpRegister(2);
        byte* from = mmx ? _c->XsaveArea + 32 + 16 * (data - Register.MM0) : Xmm(data - Register.XMM0);
        byte* mask = mmx ? _c->XsaveArea + 32 + 16 * (select - Register.MM0) : Xmm(select - Register.XMM0);
        int bits = _i.Op0Kind switch { OpKind.MemorySegDI => 16, OpKind.MemorySegEDI => 32, _ => 64 };
        ulong offset = _c->Gpr[7];
        for (int i = 0; i < (mmx ? 8 : 16); i++)
        {
            if ((mask[i] & 0x80) != 0)
                memory.WriteLinear(Linear(SegmentNumber(_i.MemorySegment), offset + (ulong)i & Mask(bits), 1, true), from[i], 1);
        }
    }

    private byte* Lane(int register, int at) => at < 16 ? Xmm(register) + at : YmmHigh(register) + at - 16;

    private static int VectorNumber(Register r) =>
        r >= Register.YMM0 && r <= Register.YMM31 ? r - Register.YMM0 : r - Register.XMM0;

    /// <summary>VMASKMOV*, VPMASKMOV*: elements whose mask is clear are not accessed, and load as 0.</summary>
    private void MaskedVector()
    {
        Materialise();
        bool store = IsMemory(0);
        int element = _i.Mnemonic is Mnemonic.Vmaskmovpd or Mnemonic.Vpmaskmovq ? 8 : 4;
        var data = store ? _i.Op2Register : _i.Op0Register;
        int size = data >= Register.YMM0 ? 32 : 16, number = VectorNumber(data), mask = VectorNumber(_i.Op1Register);
        int segment = SegmentNumber(_i.MemorySegment);
        ulong origin = Offset();
        ulong* values = stackalloc ulong[8];
        for (int at = 0; at < size; at += element)
        {
            values[at / element] = 0;
            if ((Lane(mask, at)[element - 1] & 0x80) == 0)
                continue;
            ulong linear = Linear(segment, origin + (ulong)at & Mask(AddressBits), element, store);
            if (store)
                memory.ProbeLinear(linear, element, true);
            else
                values[at / element] = ReadPieces(linear, element);
        }
        for (int at = 0; at < size; at += element)
        {
            byte* lane = Lane(number, at);
            if (!store)
            {
                new ReadOnlySpan<byte>(values + at / element, element).CopyTo(new Span<byte>(lane, element));
            }
            else if ((Lane(mask, at)[element - 1] & 0x80) != 0)
            {
                ulong linear = Linear(segment, origin + (ulong)at & Mask(AddressBits), element, true);
                WritePieces(linear, element == 8 ? *(ulong*)lane : *(uint*)lane, element);
            }
        }
        if (!store && size == 16)
            new Span<byte>(YmmHigh(number), 16).Clear();
    }

    /// <summary>VGATHER*, VPGATHER* of AVX2: the mask is in the third operand, and is cleared as elements arrive.</summary>
    private bool Gather()
    {
        (int element, int index) = _i.Mnemonic switch
        {
            Mnemonic.Vgatherdps or Mnemonic.Vpgatherdd => (4, 4),
            Mnemonic.Vgatherdpd or Mnemonic.Vpgatherdq => (8, 4),
            Mnemonic.Vgatherqps or Mnemonic.Vpgatherqd => (4, 8),
            Mnemonic.Vgatherqpd or Mnemonic.Vpgatherqq => (8, 8),
            _ => (0, 0),
        };
        if (element == 0)
            return false;
        Materialise();
        int destination = VectorNumber(_i.Op0Register), mask = VectorNumber(_i.Op2Register), indices = VectorNumber(_i.MemoryIndex);
        int indexBytes = _i.MemoryIndex >= Register.YMM0 ? 32 : 16;
        int destinationBytes = _i.Op0Register >= Register.YMM0 ? 32 : 16;
        int count = Math.Min(indexBytes / index, destinationBytes / element);
        ulong origin = _i.MemoryDisplacement64 + (_i.MemoryBase == Register.None ? 0 : _c->Gpr[Interpreter.Number(_i.MemoryBase)]);
        for (int i = 0; i < count; i++)
        {
            byte* m = Lane(mask, i * element);
            if ((m[element - 1] & 0x80) == 0)
                continue;
            byte* x = Lane(indices, i * index);
            long scaled = (index == 4 ? *(int*)x : *(long*)x) * _i.MemoryIndexScale;
            ulong offset = origin + (ulong)scaled & Mask(_i.MemoryBase == Register.None || _i.MemoryBase.GetSize() == 8 ? Is64 ? 64 : 32 : 32);
            ulong value = memory.ReadLinear(Linear(SegmentNumber(_i.MemorySegment), offset, element, false), element);
            byte* d = Lane(destination, i * element);
            if (element == 4)
                *(uint*)d = (uint)value;
            else
                *(ulong*)d = value;
            new Span<byte>(m, element).Clear();
        }
        // What is beyond the elements becomes zero, in the destination and in the mask.
        for (int at = 0; at < 32; at++)
        {
            if (at >= count * element)
                *Lane(destination, at) = 0;
            *Lane(mask, at) = 0;
        }
        return true;
    }
}
