using Iced.Intel;

namespace ImgKit.Cpu.Translator;

/// <summary>What the FPU's pointers need to know of an x87 instruction: opcode in bits 0..10, segment in 12..14, TLB set in 16..17; and of
/// any, in bit 18, that the guest's flags are spared.</summary>
internal readonly record struct X87Note(uint Bits)
{
    public ushort Opcode => (ushort)(Bits & 0x7FF);

    public int Segment => (int)(Bits >> 12 & 7);

    public int TlbSet => (int)(Bits >> 16 & 3);

    public bool Spared => (Bits & SparedBit) != 0;

    public const uint SparedBit = 1 << 18;
}

internal sealed unsafe partial class BlockTranslator
{
    /// <summary>Host addresses (relative to the slot, ascending) and guest addresses of what may fault natively.</summary>
    private sealed class Places
    {
        private uint[] _host = new uint[1024];
        private (ulong Rip, X87Note Note)[] _guest = new (ulong, X87Note)[1024];
        private int _count;

        public void Clear() => _count = 0;

        public void Add(uint host, ulong rip, X87Note note)
        {
            if (_count == _host.Length)
            {
                Array.Resize(ref _host, _count * 2);
                Array.Resize(ref _guest, _count * 2);
            }
            _host[_count] = host;
            _guest[_count++] = (rip, note);
        }

        public bool TryFind(uint host, out ulong rip, out X87Note note)
        {
            int i = Array.BinarySearch(_host, 0, _count, host);
            if (i < 0)
                i = ~i - 1;
            (rip, note) = i < 0 ? default : _guest[i];
            return i >= 0;
        }
    }

    private readonly Places _hotPlaces = new();
    private readonly Places _coldPlaces = new();

    /// <summary>Of the present instruction.</summary>
    private X87Note _note;

    /// <summary>Segment of the block's last operand of an x87 instruction.</summary>
    private int _operandSegment;

    /// <summary>Guest address of the instruction that generated code at a host address belongs to.</summary>
    public bool TryFindGuestAddress(ulong hostAddress, out ulong rip, out X87Note note)
    {
        (rip, note) = (0, default);
        if (hostAddress >= (ulong)_slot && hostAddress < (ulong)_e.P)
            return _hotPlaces.TryFind((uint)(hostAddress - (ulong)_slot), out rip, out note);
        return hostAddress >= (ulong)_coldStart && hostAddress < (ulong)_coldEnd &&
            _coldPlaces.TryFind((uint)(hostAddress - (ulong)_slot), out rip, out note);
    }

    private X87Note NoteHere => _flagsSpared ? new X87Note(_note.Bits | X87Note.SparedBit) : _note;

    private void MarkFaultable(byte* at, ulong rip, X87Note note) =>
        (at >= _coldStart ? _coldPlaces : _hotPlaces).Add((uint)(at - _slot), rip, note);

    /// <summary>The note of the present instruction; its bytes are those that the block is translated from.</summary>
    private X87Note NoteOf(in Instruction instruction)
    {
        byte* at = _bytes + (int)(instruction.IP - _instructions[0].IP);
        byte* end = at + instruction.Length - 1;
        while (at < end && (*at & 0xF8) != 0xD8)
            at++;
        // What has no operand in memory leaves the pointer to the last one.
        if (at[1] < 0xC0)
            _operandSegment = SegmentNumber(instruction.MemorySegment);
        return new X87Note((uint)(*at & 7) << 8 | at[1] | (uint)_operandSegment << 12 | (uint)_mode.TlbSet << 16);
    }
}
