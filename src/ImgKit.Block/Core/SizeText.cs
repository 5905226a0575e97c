using System.Globalization;

namespace ImgKit.Block;

/// <summary>Sizes as people type and read them: binary suffixes b, k, M, G, T, P, E.</summary>
public static class SizeText
{
    /// <summary>Parses <c>1.5G</c>, <c>0x200</c>, <c>64k</c>; a number without suffix is multiplied by <paramref name="defaultUnit"/>.</summary>
    /// <returns>false when it is not a size from 0 to 2^63 - 1.</returns>
    public static bool TryParse(string text, out long bytes, long defaultUnit = 1)
    {
        bytes = 0;
        var s = text.AsSpan().Trim();
        if (s.IsEmpty)
            return false;
        if (s.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            return long.TryParse(s[2..], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out bytes) && bytes >= 0;
        long unit = defaultUnit;
        int shift = char.ToUpperInvariant(s[^1]) switch
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
        if (shift >= 0)
        {
            unit = 1L << shift;
            s = s[..^1];
        }
        if (!decimal.TryParse(s, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal number))
            return false;
        try
        {
            decimal v = decimal.Truncate(number * unit);
            if (v > long.MaxValue)
                return false;
            bytes = (long)v;
            return true;
        }
        catch (OverflowException)
        {
            return false;
        }
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

    /// <summary>As C's <c>%0.3g</c> for numbers from 0 to 999.</summary>
    private static string General3(double v)
    {
        if (v == 0)
            return "0";
        int digits = Math.Max(0, 2 - (int)Math.Floor(Math.Log10(v)));
        string s = Math.Round(v, Math.Min(digits, 15), MidpointRounding.ToEven).ToString("F" + digits, CultureInfo.InvariantCulture);
        return s.Contains('.', StringComparison.Ordinal) ? s.TrimEnd('0').TrimEnd('.') : s;
    }
}
