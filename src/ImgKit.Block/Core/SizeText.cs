using System.Globalization;

namespace ImgKit.Block;

/// <summary>What came of reading a size.</summary>
public enum SizeParse
{
    /// <summary>It is one.</summary>
    Ok,

    /// <summary>It is none.</summary>
    Invalid,

    /// <summary>It is 2^64 or more.</summary>
    OutOfRange,
}

/// <summary>Sizes as people type and read them: binary suffixes b, k, M, G, T, P, E.</summary>
public static class SizeText
{
    /// <summary>Parses <c>1.5G</c>, <c>0x200</c>, <c>64k</c>. A fraction needs a suffix; a sign is none of it.</summary>
    public static SizeParse Parse(string text, out ulong bytes, char defaultSuffix = 'B')
    {
        bytes = 0;
        var s = text.AsSpan().TrimStart();
        if (s.Length > 0 && s[0] == '+')
            s = s[1..];
        UInt128 number = 0;
        UInt128 fraction = 0;       // 64 bits behind the point
        int i;
        bool hex = s.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        int start = hex ? 2 : 0;
        for (i = start; i < s.Length && (hex ? char.IsAsciiHexDigit(s[i]) : char.IsAsciiDigit(s[i])); i++)
        {
            number = number * (hex ? 16u : 10u) + (uint)DigitOf(s[i]);
            if (number > ulong.MaxValue)
                return SizeParse.OutOfRange;
        }
        if (i == start)
            return SizeParse.Invalid;
        if (!hex && i < s.Length && s[i] == '.')
        {
            int point = ++i;
            while (i < s.Length && char.IsAsciiDigit(s[i]))
                i++;
            if (i > point)
                fraction = (UInt128)(double.Parse("0." + s[point..i].ToString(), CultureInfo.InvariantCulture) * Math.Pow(2, 64));
        }
        char suffix = i < s.Length ? s[i++] : defaultSuffix;
        int shift = ShiftOf(suffix);
        if (shift < 0 || i < s.Length)
            return SizeParse.Invalid;
        if (shift == 0)
        {
            if (fraction != 0)
                return SizeParse.Invalid;
        }
        else
        {
            // Half a byte counts as one.
            number = (number << shift) + (((fraction << shift) + (UInt128.One << 63)) >> 64);
            if (number > ulong.MaxValue)
                return SizeParse.OutOfRange;
        }
        bytes = (ulong)number;
        return SizeParse.Ok;
    }

    /// <summary>As <see cref="Parse"/>; a number without suffix is multiplied by <paramref name="defaultUnit"/>, a power of 1024.</summary>
    /// <returns>false when it is not a size from 0 to 2^63 - 1.</returns>
    public static bool TryParse(string text, out long bytes, long defaultUnit = 1)
    {
        char suffix = "BKMGTPE"[System.Numerics.BitOperations.Log2((ulong)defaultUnit) / 10];
        bool ok = Parse(text, out ulong value, suffix) == SizeParse.Ok && value <= long.MaxValue;
        bytes = ok ? (long)value : 0;
        return ok;
    }

    /// <summary>Three significant digits and a unit: <c>1.5 GiB</c>, <c>64 KiB</c>.</summary>
    public static string ToHuman(long bytes)
    {
        string[] units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        // The unit in which the number is below 1000: 1000 KiB are shown as 0.977 MiB.
        double v = bytes;
        int u = 0;
        while (v >= 1000 && u < units.Length - 1)
        {
            v /= 1024;
            u++;
        }
        return General3(v) + " " + units[u];
    }

    /// <summary>As C's <c>%0.3g</c> for numbers from 0 to 1000.</summary>
    private static string General3(double v)
    {
        if (v == 0)
            return "0";
        if (v >= 999.5)
            return "1e+03";
        int digits = Math.Max(0, 2 - (int)Math.Floor(Math.Log10(v)));
        string s = Math.Round(v, Math.Min(digits, 15), MidpointRounding.ToEven).ToString("F" + digits, CultureInfo.InvariantCulture);
        return s.Contains('.', StringComparison.Ordinal) ? s.TrimEnd('0').TrimEnd('.') : s;
    }

    private static int DigitOf(char c) => c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;

    private static int ShiftOf(char suffix) => char.ToUpperInvariant(suffix) switch
    {
        'B' => 0,
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        'P' => 50,
        'E' => 60,
        _ => -1,
    };
}
