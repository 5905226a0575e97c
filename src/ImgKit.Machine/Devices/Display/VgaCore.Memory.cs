using ImgKit.Cpu;

namespace ImgKit.Machine.Devices.Display;

internal sealed unsafe partial class VgaCore
{
    // graphics controller registers
    private const int SetReset = 0, EnableSetReset = 1, ColorCompare = 2, Rotate = 3, ReadMap = 4, Mode = 5, Miscellaneous = 6, ColorDontCare = 7, BitMask = 8;

    /// <summary>The part of 0xA0000..0xBFFFF that is decoded.</summary>
    private (uint Start, uint Length) Decoded => (_graphics[Miscellaneous] >> 2 & 3) switch
    {
        0 => (0xA0000, 0x20000),
        1 => (0xA0000, 0x10000),
        2 => (0xB0000, 0x8000),
        _ => (0xB8000, 0x8000),
    };

    private bool IsChain4 => (_sequencer[4] & 8) != 0;

    /// <summary>The window is plain memory in these modes: let the processor have it.</summary>
    private void UpdateWindow()
    {
        ulong start = 0, length = 0;
        uint offset = 0;
        if (IsVbe && _dispi[DispiBpp] >= 8)
        {
            (start, length, offset) = (0xA0000, 0x10000, (uint)_dispi[DispiBank] << 16);
        }
        else if (IsChain4 && (_sequencer[2] & 15) == 15 && (_graphics[Mode] & 0xB) == 0 && (_graphics[EnableSetReset] & 15) == 0
            && _graphics[Rotate] == 0 && _graphics[BitMask] == 0xFF)
        {
            (start, length) = Decoded;
        }
        if (offset + length > _vramSize)
            length = 0;
        nint host = length == 0 ? 0 : (nint)(_vram + offset);
        if (_window.Start == start && _window.Length == length && _window.Host == host)
            return;
        (_window.Start, _window.Length, _window.Host, _window.Kind) = (start, length, host, MemoryKind.Ram);
        _window.DirtyLog = host == 0 ? 0 : (nint)(_dirty + (offset >> 12));
        _services.Space.Update();
    }

    private bool TryAddress(ulong windowOffset, out uint at)
    {
        var (start, length) = Decoded;
        at = (uint)(windowOffset + 0xA0000 - start);
        return windowOffset + 0xA0000 >= start && at < length;
    }

    private void Mark(uint vramOffset) => _dirty[vramOffset >> 12] = 1;

    public ulong MmioRead(ulong offset, int size)
    {
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= (ulong)ReadByte(offset + (ulong)i) << (8 * i);
        return value;
    }

    public void MmioWrite(ulong offset, ulong value, int size)
    {
        for (int i = 0; i < size; i++)
            WriteByte(offset + (ulong)i, (byte)(value >> (8 * i)));
    }

    /// <summary>What the processor would read at 0xA0000..0xBFFFF, without touching the latches; null where nothing answers.</summary>
    internal byte? Peek(ulong address)
    {
        if (address - 0xA0000 >= 0x20000)
            return null;
        _services.Engine?.FlushCoalesced();
        if (_window.Length > 0 && address - _window.Start < _window.Length)
            return ((byte*)_window.Host)[address - _window.Start];
        uint latch = _latch;
        byte value = ReadByte(address - 0xA0000);
        _latch = latch;
        return value;
    }

    private byte ReadByte(ulong windowOffset)
    {
        if (!TryAddress(windowOffset, out uint at))
            return 0xFF;
        if (IsChain4)
            return at < _vramSize ? _vram[at] : (byte)0xFF;
        uint bank = IsVbe ? (uint)_dispi[DispiBank] << 16 : 0;
        bool oddEven = (_graphics[Mode] & 0x10) != 0;
        uint plane = _graphics[ReadMap];
        if (oddEven)
        {
            plane = plane & ~1u | at & 1;
            at = at >> 1;
        }
        uint index = at + bank;
        if (index * 4 + 3 >= _vramSize)
            return 0xFF;
        _latch = *(uint*)(_vram + index * 4);
        if ((_graphics[Mode] & 8) == 0)
            return (byte)(_latch >> (int)(8 * plane));
        // read mode 1: bits that are 1 where all compared planes match
        byte differ = 0;
        for (int p = 0; p < 4; p++)
        {
            if ((_graphics[ColorDontCare] >> p & 1) == 0)
                continue;
            byte wanted = (_graphics[ColorCompare] >> p & 1) != 0 ? (byte)0xFF : (byte)0;
            differ |= (byte)((byte)(_latch >> (8 * p)) ^ wanted);
        }
        return (byte)~differ;
    }

    private static uint Spread(byte value) => value * 0x01010101u;

    private static uint PlaneMask(int planes) => (uint)(((planes & 1) != 0 ? 0xFF : 0) | ((planes & 2) != 0 ? 0xFF00 : 0) | ((planes & 4) != 0 ? 0xFF0000 : 0))
        | ((planes & 8) != 0 ? 0xFF000000 : 0);

    private void WriteByte(ulong windowOffset, byte value)
    {
        if (!TryAddress(windowOffset, out uint at))
            return;
        int planes = _sequencer[2];
        if (IsChain4)
        {
            if (at < _vramSize && (planes >> (int)(at & 3) & 1) != 0)
            {
                _vram[at] = value;
                Mark(at);
            }
            return;
        }
        uint bank = IsVbe ? (uint)_dispi[DispiBank] << 16 : 0;
        if ((_sequencer[4] & 4) == 0) // odd/even: even addresses go to planes 0 and 2
        {
            planes &= (at & 1) != 0 ? 0xA : 5;
            at >>= 1;
        }
        uint index = at + bank;
        if (index * 4 + 3 >= _vramSize)
            return;
        uint* cell = (uint*)(_vram + index * 4);
        uint data;
        uint mask = Spread(_graphics[BitMask]);
        switch (_graphics[Mode] & 3)
        {
            case 0:
                uint set = PlaneMask(_graphics[SetReset]), enable = PlaneMask(_graphics[EnableSetReset]);
                data = Spread(Rotated(value)) & ~enable | set & enable;
                break;
            case 1:
                *cell = *cell & ~PlaneMask(planes) | _latch & PlaneMask(planes);
                Mark(index * 4);
                return;
            case 2:
                data = PlaneMask(value & 15);
                break;
            default:
                mask &= Spread(Rotated(value));
                data = PlaneMask(_graphics[SetReset]);
                break;
        }
        data = (_graphics[Rotate] >> 3 & 3) switch
        {
            1 => data & _latch,
            2 => data | _latch,
            3 => data ^ _latch,
            _ => data,
        };
        data = data & mask | _latch & ~mask;
        *cell = *cell & ~PlaneMask(planes) | data & PlaneMask(planes);
        Mark(index * 4);
    }

    private byte Rotated(byte value)
    {
        int by = _graphics[Rotate] & 7;
        return (byte)(value >> by | value << (8 - by));
    }
}
