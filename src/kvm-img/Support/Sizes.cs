using ImgKit.Block;

namespace ImgKit.Programs.Img;

/// <summary>Numbers on the command line, with the peer's messages.</summary>
internal static class Sizes
{
    /// <summary>Bytes with suffix.</summary>
    /// <param name="name">what the number is, for the message.</param>
    /// <param name="text">as given.</param>
    /// <param name="min">smallest that makes sense.</param>
    /// <param name="max">largest.</param>
    public static long Parse(string name, string text, long min = 0, long max = long.MaxValue)
    {
        var outcome = SizeText.Parse(text, out ulong value);
        if (outcome == SizeParse.Invalid)
        {
            Report.Error($"Invalid {name} specified. You may use k, M, G, T, P or E suffixes for");
            throw new CommandException("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        }
        if (outcome == SizeParse.OutOfRange || value > (ulong)max || value < (ulong)min)
            throw new CommandException($"Invalid {name} specified. Must be between {min} and {max}.");
        return (long)value;
    }

    /// <summary>A whole number as C's <c>strtoul</c> with base 0 reads it (decimal, 0x, 0), or -1.</summary>
    public static long ParseCount(string text)
    {
        string s = text.TrimStart().TrimStart('+');
        long value = 0;
        int radix = s.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? 16 : s.Length > 1 && s[0] == '0' ? 8 : 10;
        if (radix == 16)
            s = s[2..];
        if (s.Length == 0)
            return -1;
        foreach (char c in s)
        {
            int digit = char.IsAsciiHexDigit(c) ? Convert.ToInt32(c.ToString(), 16) : 99;
            if (digit >= radix || value > (long.MaxValue - digit) / radix)
                return -1;
            value = value * radix + digit;
        }
        return value;
    }
}
