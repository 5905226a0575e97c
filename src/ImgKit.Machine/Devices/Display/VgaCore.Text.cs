using System.Text;

namespace ImgKit.Machine.Devices.Display;

internal sealed unsafe partial class VgaCore
{
    private const int MostColumns = 256, MostRows = 128;

    private readonly uint[] _shown = new uint[MostColumns * MostRows]; // character, attribute, and what the cursor and blinking make of it
    private int _shownColumns, _shownRows;

    private int TextColumns => Math.Min(_crtc[1] + 1, MostColumns);

    private int CharacterHeight => (_crtc[9] & 31) + 1;

    private int CharacterWidth => ((_sequencer[1] & 1) != 0 ? 8 : 9) * ((_sequencer[1] & 8) != 0 ? 2 : 1);

    private int TextRows => Math.Clamp(CrtcHeight / CharacterHeight / ((_crtc[9] & 0x80) != 0 ? 2 : 1), 1, MostRows);

    private uint Cell(int row, int column) => (uint)(StartAddress + row * _crtc[0x13] * 2 + column) * 4 & (_vramSize - 1);

    /// <summary>Where the cursor is, as a plane address; -1 when it is off.</summary>
    private int Cursor => (_crtc[0x0A] & 0x20) != 0 ? -1 : _crtc[0x0E] << 8 | _crtc[0x0F];

    private ScreenArea UpdateText(ScreenImage image, bool all)
    {
        int columns = TextColumns, rows = TextRows, height = CharacterHeight, width = CharacterWidth;
        bool otherFont = TakeFontChange();
        all |= image.Resize(columns * width, rows * height) | otherFont || columns != _shownColumns || rows != _shownRows;
        (_shownColumns, _shownRows) = (columns, rows);
        long now = _services.Clock.Now / 266_000_000; // blinks every 16 (cursor) and 32 (characters) frames
        bool cursorOn = (now & 1) == 0, charactersOn = (now & 2) == 0;
        int left = int.MaxValue, top = int.MaxValue, right = -1, bottom = -1;
        for (int row = 0; row < rows; row++)
        {
            for (int column = 0; column < columns; column++)
            {
                uint at = Cell(row, column);
                byte character = _vram[at], attribute = _vram[at + 1];
                bool isCursor = cursorOn && Cursor == (int)(at >> 2);
                bool isHidden = (_attribute[0x10] & 8) != 0 && (attribute & 0x80) != 0 && !charactersOn;
                uint look = character | (uint)attribute << 8 | (isHidden ? 1u << 16 : 0)
                    | (isCursor ? 1u << 17 | (uint)_crtc[0x0A] << 18 | (uint)(_crtc[0x0B] & 31) << 26 : 0);
                ref uint shown = ref _shown[row * MostColumns + column];
                if (!all && shown == look)
                    continue;
                shown = look;
                Draw(image, column * width, row * height, width, height, character, attribute, isCursor, isHidden);
                left = Math.Min(left, column);
                right = Math.Max(right, column);
                top = Math.Min(top, row);
                bottom = Math.Max(bottom, row);
            }
        }
        return right < 0 ? default : new ScreenArea(left * width, top * height, (right - left + 1) * width, (bottom - top + 1) * height);
    }

    /// <summary>Fonts lie in plane 2; a written page may have held one, unless only text was written (page of the text itself).</summary>
    private bool TakeFontChange()
    {
        uint pages = Math.Min(_vramSize >> 12, 64); // 64 KiB of plane addresses
        uint sum = 0;
        _services.Space.Map.SynchronizeDirtyLogs();
        bool any = false;
        for (uint i = 0; i < pages; i++)
            any |= Volatile.Read(ref _dirty[i]) != 0 && Interlocked.Exchange(ref _dirty[i], 0) != 0;
        // As with pictures: a second look finds what was under way during the first.
        bool again = _lookAtFontAgain;
        _lookAtFontAgain = any;
        if (any)
            _services.Space.Map.BeginDirtyScan();
        else if (!again)
            return false;
        // the two fonts in use: 256 characters of 32 bytes each
        foreach (uint font in (ReadOnlySpan<uint>)[Font(false), Font(true)])
            for (uint i = 0; i < 8192; i++)
                sum = (sum ^ _vram[(font + i) * 4 + 2 & (_vramSize - 1)]) * 16777619;
        bool changed = sum != _fontSum;
        _fontSum = sum;
        return changed;
    }

    private uint _fontSum;
    private bool _lookAtFontAgain;

    /// <summary>Plane address of the font that attribute bit 3 selects (sequencer register 3).</summary>
    private uint Font(bool second)
    {
        int map = second ? _sequencer[3] >> 2 & 3 | _sequencer[3] >> 3 & 4 : _sequencer[3] & 3 | _sequencer[3] >> 2 & 4;
        return (uint)((map & 3) * 0x4000 + (map >> 2) * 0x2000);
    }

    private void Draw(ScreenImage image, int x0, int y0, int width, int height, byte character, byte attribute, bool isCursor, bool isHidden)
    {
        uint font = Font((attribute & 8) != 0) + character * 32u;
        int planes = _attribute[0x12] & 15;
        uint foreground = _palette16[attribute & 15 & planes];
        uint background = _palette16[((_attribute[0x10] & 8) != 0 ? attribute >> 4 & 7 : attribute >> 4) & planes];
        int scale = (_sequencer[1] & 8) != 0 ? 2 : 1;
        bool ninth = (_attribute[0x10] & 4) != 0 && character is >= 0xC0 and <= 0xDF;
        int from = _crtc[0x0A] & 31, to = _crtc[0x0B] & 31;
        for (int y = 0; y < height; y++)
        {
            int bits = isHidden ? 0 : _vram[(font + (uint)y) * 4 + 2 & (_vramSize - 1)];
            bits <<= 1;
            if (ninth && (bits & 2) != 0)
                bits |= 1;
            if (isCursor && y >= from && y <= to)
                bits = 0x1FF;
            var line = image.Row(y0 + y).Slice(x0, width);
            for (int x = 0; x < width; x++)
                line[x] = (bits >> (8 - x / scale) & 1) != 0 ? foreground : background;
        }
    }

    internal string[]? TextLines()
    {
        _services.Engine?.FlushCoalesced();
        if (CurrentShape != Shape.Text)
            return null;
        string[] lines = new string[TextRows];
        var line = new StringBuilder();
        for (int row = 0; row < lines.Length; row++)
        {
            line.Clear();
            for (int column = 0; column < TextColumns; column++)
                line.Append(CodePage437[_vram[Cell(row, column)]]);
            lines[row] = line.ToString().TrimEnd();
        }
        return lines;
    }

    private const string CodePage437 =
        " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼ !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂"
        + "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";
}
