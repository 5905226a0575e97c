
namespace ImgKit.Machine.Devices.Display;

internal sealed unsafe partial class VgaCore
{
    private enum Shape
    {
        Blank,
        Text,
        Planar,
        Cga4,
        Palette256,
        Vbe,
    }

    private bool _everything = true;
    private ScreenImage? _lastImage;
    private readonly uint[] _palette = new uint[256];
    private readonly uint[] _palette16 = new uint[16];

    private bool IsBlank => (_attributeIndex & 0x20) == 0 || (_sequencer[1] & 0x20) != 0;

    private Shape CurrentShape
    {
        get
        {
            if (IsVbe)
                return Shape.Vbe;
            if (IsBlank)
                return Shape.Blank;
            if ((_graphics[Miscellaneous] & 1) == 0)
                return Shape.Text;
            return (_graphics[Mode] >> 5 & 3) switch { 0 => Shape.Planar, 1 => Shape.Cga4, _ => Shape.Palette256 };
        }
    }

    private int CrtcHeight => (_crtc[0x12] | (_crtc[7] & 2) << 7 | (_crtc[7] & 0x40) << 3) + 1;

    private int LineCompare => _crtc[0x18] | (_crtc[7] & 0x10) << 4 | (_crtc[9] & 0x40) << 3;

    private int StartAddress => _crtc[0x0C] << 8 | _crtc[0x0D];

    /// <summary>Scan lines that show one row of memory (or of characters).</summary>
    private int LinesPerRow => ((_crtc[9] & 31) + 1) * ((_crtc[9] & 0x80) != 0 && (_graphics[Miscellaneous] & 1) != 0 ? 2 : 1);

    internal ScreenArea Update(ScreenImage image)
    {
        _services.Engine?.FlushCoalesced();
        var shape = CurrentShape;
        bool all = _everything || !ReferenceEquals(image, _lastImage);
        _lastImage = image;
        _everything = false;
        FillPalette();
        switch (shape)
        {
            case Shape.Text:
                return UpdateText(image, all);
            case Shape.Vbe:
                all |= image.Resize(_dispi[DispiXres], _dispi[DispiYres]);
                return DrawRows(image, all, shape);
            case Shape.Blank:
                image.Resize(Math.Max(image.Width, 640), Math.Max(image.Height, 400));
                if (!all)
                    return default;
                image.Pixels.AsSpan(0, image.Width * image.Height).Clear();
                return new ScreenArea(0, 0, image.Width, image.Height);
            default:
                int width = (_crtc[1] + 1) * (shape == Shape.Palette256 ? 4 : 8);
                int height = Math.Min(CrtcHeight, 2048);
                if (LinesPerRow == 2)
                    height /= 2; // double-scanned: each row of memory once
                all |= image.Resize(width, Math.Max(1, height));
                return DrawRows(image, all, shape);
        }
    }

    /// <summary>The 256 colours of the DAC, and the 16 that planar and text modes pick from them.</summary>
    private void FillPalette()
    {
        int shift = Dac8Bit ? 0 : 2;
        for (int i = 0; i < 256; i++)
        {
            int c = (i & _dacMask) * 3;
            // As the peer widens six bits to eight, so that pictures of both are equal.
            uint Level(byte v) => (uint)(shift == 0 ? v : v << 2 | (v & 1) * 3);
            _palette[i] = Level(_dac[c]) << 16 | Level(_dac[c + 1]) << 8 | Level(_dac[c + 2]);
        }
        for (int i = 0; i < 16; i++)
        {
            int c = _attribute[i] & 0x3F;
            c = (_attribute[0x10] & 0x80) != 0 ? c & 15 | (_attribute[0x14] & 15) << 4 : c | (_attribute[0x14] & 12) << 4;
            _palette16[i] = _palette[c];
        }
    }

    private ScreenArea DrawRows(ScreenImage image, bool all, Shape shape)
    {
        int first = -1, last = -1;
        bool doubled = shape != Shape.Vbe && LinesPerRow == 2;
        uint used = 0;
        Span<uint> before = image.Width <= 4096 ? stackalloc uint[image.Width] : new uint[image.Width];
        Span<bool> dirty = _vramSize >> 12 <= 16384 ? stackalloc bool[(int)(_vramSize >> 12)] : new bool[_vramSize >> 12];
        TakeDirty(dirty);
        for (int y = 0; y < image.Height; y++)
        {
            uint at;
            uint length;
            if (shape == Shape.Vbe)
            {
                uint bits = _dispi[DispiBpp] == 15 ? 16u : _dispi[DispiBpp];
                at = (uint)(_dispi[DispiYOffset] + y) * DispiStride + _dispi[DispiXOffset] * bits / 8;
                length = DispiStride;
            }
            else
            {
                at = RowAddress(doubled ? 2 * y : y);
                length = (uint)image.Width; // bytes: 8 pixels take 4, 256-colour pixels one
                if (shape != Shape.Palette256)
                    length = (uint)image.Width / 2;
            }
            used = Math.Max(used, at + length);
            if (!all && !IsDirty(dirty, at, length))
                continue;
            var row = image.Row(y);
            row.CopyTo(before);
            switch (shape)
            {
                case Shape.Vbe:
                    DrawVbe(row, at);
                    break;
                case Shape.Planar:
                    DrawPlanar(row, at);
                    break;
                case Shape.Cga4:
                    DrawCga4(row, at);
                    break;
                default:
                    for (int x = 0; x < row.Length; x++)
                        row[x] = _palette[_vram[at + (uint)x & (_vramSize - 1)]];
                    break;
            }
            if (!all && before.SequenceEqual(row))
                continue;
            if (first < 0)
                first = y;
            last = y;
        }
        return first < 0 ? default : new ScreenArea(0, first, image.Width, last - first + 1);
    }

    /// <summary>Takes the log and clears it: an atomic exchange a page, before the page is looked at. A store that a processor was about to make when its
    /// page's mark was taken lands behind the look: pages are looked at once more the next time.</summary>
    private void TakeDirty(Span<bool> dirty)
    {
        _services.Space.Map.SynchronizeDirtyLogs();
        bool any = false;
        for (int i = 0; i < dirty.Length; i++)
        {
            bool now = Volatile.Read(ref _dirty[i]) != 0 && Interlocked.Exchange(ref _dirty[i], 0) != 0;
            any |= now;
            dirty[i] = now || _lookAgain[i];
            _lookAgain[i] = now;
        }
        if (any)
            _services.Space.Map.BeginDirtyScan();
    }

    private bool IsDirty(ReadOnlySpan<bool> dirty, uint at, uint length)
    {
        for (uint page = at >> 12; page <= at + length - 1 >> 12; page++)
            if (dirty[(int)(page & (_vramSize >> 12) - 1)])
                return true;
        return false;
    }

    /// <summary>Offset in display memory of what scan line <paramref name="line"/> shows, with split screen and CGA/Hercules row interleave.</summary>
    private uint RowAddress(int line)
    {
        uint start = (uint)StartAddress;
        if (line > LineCompare)
        {
            line -= LineCompare + 1;
            start = 0;
        }
        int perRow = LinesPerRow;
        uint address = start + (uint)(line / perRow) * (uint)_crtc[0x13] * 2;
        int scan = line % perRow;
        bool byteMode = (_crtc[0x17] & 0x40) != 0;
        if ((_crtc[0x17] & 1) == 0)
        {
            int bit = byteMode ? 13 : 12;
            address = address & ~(1u << bit) | (uint)(scan & 1) << bit;
        }
        if ((_crtc[0x17] & 2) == 0)
        {
            int bit = byteMode ? 14 : 13;
            address = address & ~(1u << bit) | (uint)(scan >> 1 & 1) << bit;
        }
        return address * 4 & (_vramSize - 1);
    }

    private void DrawPlanar(Span<uint> row, uint at)
    {
        int planes = _attribute[0x12] & 15;
        for (int x = 0; x < row.Length; x += 8, at += 4)
        {
            uint cell = *(uint*)(_vram + (at & (_vramSize - 1) & ~3u));
            for (int b = 0; b < 8 && x + b < row.Length; b++)
            {
                int shift = 7 - b;
                int color = (int)(cell >> shift & 1 | cell >> (shift + 7) & 2 | cell >> (shift + 14) & 4 | cell >> (shift + 21) & 8);
                row[x + b] = _palette16[color & planes];
            }
        }
    }

    // Two bits a pixel, bytes of planes 0 and 1 (then 2 and 3 for the high bits) in turn.
    private void DrawCga4(Span<uint> row, uint at)
    {
        int planes = _attribute[0x12] & 15;
        for (int x = 0; x < row.Length; x += 8, at += 4)
        {
            byte* cell = _vram + (at & (_vramSize - 1) & ~3u);
            for (int b = 0; b < 8 && x + b < row.Length; b++)
            {
                int shift = 6 - 2 * (b & 3), half = b >> 2;
                int color = cell[half] >> shift & 3 | (cell[half + 2] >> shift & 3) << 2;
                row[x + b] = _palette16[color & planes];
            }
        }
    }

    private void DrawVbe(Span<uint> row, uint at)
    {
        uint mask = _vramSize - 1;
        switch (_dispi[DispiBpp])
        {
            case 4:
                DrawPlanar(row, (uint)((at & ~3u) & mask));
                break;
            case 8:
                for (int x = 0; x < row.Length; x++)
                    row[x] = _palette[_vram[at + (uint)x & mask]];
                break;
            case 15:
                for (int x = 0; x < row.Length; x++)
                {
                    uint p = *(ushort*)(_vram + (at + 2 * (uint)x & mask));
                    row[x] = (p & 0x7C00) << 9 | (p & 0x3E0) << 6 | (p & 0x1F) << 3;
                }
                break;
            case 16:
                for (int x = 0; x < row.Length; x++)
                {
                    uint p = *(ushort*)(_vram + (at + 2 * (uint)x & mask));
                    row[x] = Wide(p >> 11, 5) << 16 | Wide(p >> 5 & 63, 6) << 8 | Wide(p & 31, 5);
                }
                break;
            case 24:
                for (int x = 0; x < row.Length; x++)
                {
                    uint o = at + 3 * (uint)x;
                    row[x] = (uint)(_vram[o & mask] | _vram[o + 1 & mask] << 8 | _vram[o + 2 & mask] << 16);
                }
                break;
            default:
                for (int x = 0; x < row.Length; x++)
                    row[x] = *(uint*)(_vram + (at + 4 * (uint)x & mask & ~3u)) & 0xFFFFFF;
                break;
        }
    }

    private static uint Wide(uint value, int bits) => value << (8 - bits) | value >> (2 * bits - 8);
}
