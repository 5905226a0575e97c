using System.Globalization;
using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary>Numbers as this program reads and prints them.</summary>
internal static class Numbers
{
    /// <summary>The largest request, in bytes: what a signed 32-bit number holds, in whole sectors.</summary>
    public const long MaxRequest = int.MaxValue & ~511;

    /// <summary>Parses a size; prints what is wrong with it and returns false.</summary>
    public static bool TryParse(string text, out long value)
    {
        if (SizeText.TryParse(text, out value))
            return true;
        Console.Out(IsTooLarge(text)
            ? $"Parsing error: argument too large -- {text}\n"
            : $"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}\n");
        return false;
    }

    private static bool IsTooLarge(string text)
    {
        var digits = text.AsSpan().Trim();
        if (digits.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            return digits.Length > 2 && digits[2..].IndexOfAnyExcept("0123456789abcdefABCDEF") < 0;
        bool unit = digits.Length > 1 && "kKmMgGtTpPeE".Contains(digits[^1], StringComparison.Ordinal);
        if (unit || (digits.Length > 1 && digits[^1] is 'b' or 'B'))
            digits = digits[..^1];
        // A fraction needs a unit, and a digit in front.
        int point = digits.IndexOf('.');
        return point < 0 ? digits.Length > 0 && digits.IndexOfAnyExceptInRange('0', '9') < 0
            : unit && point > 0 && decimal.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out _);
    }

    /// <summary>Parses a pattern byte (decimal, 0x hexadecimal or 0 octal); prints what is wrong and returns false.</summary>
    public static bool TryParsePattern(string text, out byte pattern)
    {
        pattern = 0;
        if (TryParseInt(text, out long v) && v is >= 0 and <= 255)
        {
            pattern = (byte)v;
            return true;
        }
        Console.Out($"{text} is not a valid pattern byte\n");
        return false;
    }

    /// <summary>A whole number as C's strtol reads it with base 0.</summary>
    public static bool TryParseInt(string text, out long value)
    {
        value = 0;
        bool negative = text.StartsWith('-');
        string digits = negative || text.StartsWith('+') ? text[1..] : text;
        int radix = digits.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? 16 : digits.Length > 1 && digits[0] == '0' ? 8 : 10;
        if (radix == 16)
            digits = digits[2..];
        if (digits.Length is 0 or > 15)
            return false;
        foreach (char c in digits)
        {
            int d = char.IsAsciiHexDigit(c) ? Convert.ToInt32(c.ToString(), 16) : 99;
            if (d >= radix)
                return false;
            value = value * radix + d;
        }
        if (negative)
            value = -value;
        return true;
    }

    /// <summary>Bytes with a unit and three digits behind the point where there is a fraction: <c>64 KiB</c>, <c>1.500 MiB</c>.</summary>
    public static string Bytes(double value)
    {
        string[] units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        int u = 0;
        double v = value;
        while (v >= 1024 && u < units.Length - 1 && double.IsFinite(v))
        {
            v /= 1024;
            u++;
        }
        string text = Fixed(v, u == 0 ? 6 : 3);
        int zeroes = text.IndexOf(".000", StringComparison.Ordinal);
        return (zeroes < 0 ? text : text[..zeroes]) + " " + units[u];
    }

    /// <summary>As C's <c>%.Nf</c>.</summary>
    public static string Fixed(double value, int digits) =>
        double.IsFinite(value) ? value.ToString("F" + digits, CultureInfo.InvariantCulture) : double.IsNaN(value) ? "nan" : "inf";

    /// <summary>A time span; <paramref name="full"/>: with hours and minutes even if they are zero.</summary>
    public static string Time(TimeSpan t, bool full)
    {
        long seconds = t.Ticks / TimeSpan.TicksPerSecond;
        long hundredths = t.Ticks % TimeSpan.TicksPerSecond / (TimeSpan.TicksPerSecond / 100);
        return full || seconds >= 60
            ? string.Create(CultureInfo.InvariantCulture, $"{seconds / 3600}:{seconds / 60 % 60:00}:{seconds % 60:00}.{hundredths:00}")
            : string.Create(CultureInfo.InvariantCulture, $"{seconds:00}.{hundredths:00} sec");
    }
}
