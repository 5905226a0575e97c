using System.Globalization;
using System.Text;

namespace ImgKit.Machine.Monitors;

/// <summary>How <c>x</c>, <c>xp</c> and <c>print</c> show values: a count, a kind and a size in bytes.</summary>
/// <param name="Count">of values.</param>
/// <param name="Kind">x, d, u, o, c, or i for instructions.</param>
/// <param name="Size">1, 2, 4 or 8.</param>
internal sealed record MemoryFormat(int Count, char Kind, int Size)
{
    private const int Most = 65536;

    internal static MemoryFormat Default { get; } = new(1, 'x', 4);

    /// <summary>Parses what follows the slash. Throws <see cref="CommandException"/>.</summary>
    internal static MemoryFormat Parse(ReadOnlySpan<char> text)
    {
        int at = 0, count = 0;
        for (; at < text.Length && char.IsAsciiDigit(text[at]); at++)
            count = Math.Min(count * 10 + text[at] - '0', Most);
        char kind = 'x';
        int size = 4;
        foreach (char c in text[at..])
            switch (c)
            {
                case 'b' or 'h' or 'w' or 'g':
                    size = c switch { 'b' => 1, 'h' => 2, 'w' => 4, _ => 8 };
                    break;
                case 'x' or 'd' or 'u' or 'o' or 'c' or 'i':
                    kind = c;
                    break;
                default:
                    throw new CommandException($"invalid char in format: '{c}'");
            }
        return new(count == 0 ? 1 : count, kind, kind == 'c' ? 1 : size);
    }

    /// <summary>A number as <c>print</c> shows it.</summary>
    internal string Show(ulong value) => Kind switch
    {
        'd' => ((long)value).ToString(CultureInfo.InvariantCulture),
        'u' => value.ToString(CultureInfo.InvariantCulture),
        'o' => value == 0 ? "0" : "0" + Convert.ToString((long)value, 8),
        'c' => Character((byte)value),
        _ => value == 0 ? "0" : $"0x{value:x}",
    };

    private static string Character(byte value) => value switch
    {
        (byte)'\'' or (byte)'\\' => $"'\\{(char)value}'",
        (byte)'\n' => "'\\n'",
        (byte)'\r' => "'\\r'",
        >= 32 and < 127 => $"'{(char)value}'",
        _ => $"'\\x{value:x2}'",
    };

    // Columns stand below each other.
    private string InColumn(ulong value)
    {
        int decimals = (Size * 80 + 32) / 33;
        long signed = (long)(value << (64 - 8 * Size)) >> (64 - 8 * Size);
        return Kind switch
        {
            'd' => signed.ToString(CultureInfo.InvariantCulture).PadLeft(decimals),
            'u' => Show(value).PadLeft(decimals),
            'o' => Show(value).PadLeft((Size * 8 + 2) / 3),
            'c' => Show(value),
            _ => "0x" + value.ToString("x" + 2 * Size, CultureInfo.InvariantCulture),
        };
    }

    /// <summary>Memory as lines, each with its address.</summary>
    internal string Dump(MonitorMemory memory, ulong address)
    {
        if (Kind == 'i')
            return Disassembly.Text(memory, address, Count);
        int perLine = Kind != 'c' && Size == 1 ? 8 : 16 / Size;
        Span<byte> line = stackalloc byte[16];
        var text = new StringBuilder();
        for (int done = 0; done < Count; done += perLine)
        {
            int n = Math.Min(perLine, Count - done);
            ulong at = address + (ulong)(done * Size);
            text.Append(CultureInfo.InvariantCulture, $"{at:x16}:");
            if (memory.Read(at, line[..(n * Size)]) < n * Size)
                return text.Append(" Cannot access memory\n").ToString();
            for (int i = 0; i < n; i++)
            {
                ulong value = 0;
                for (int b = Size - 1; b >= 0; b--)
                    value = value << 8 | line[i * Size + b];
                text.Append(' ').Append(InColumn(value));
            }
            text.Append('\n');
        }
        return text.ToString();
    }
}
