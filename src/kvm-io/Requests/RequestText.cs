using System.Globalization;

namespace ImgKit.Programs.Io;

/// <summary>Offsets and lengths of requests.</summary>
internal static class RequestText
{
    /// <summary>Offset and length; says what is wrong.</summary>
    public static bool TryParseRange(ReadOnlySpan<string> operands, out long offset, out long count)
    {
        count = 0;
        return Numbers.TryParse(operands[0], out offset) && Numbers.TryParse(operands[1], out count);
    }

    /// <summary>Offset and lengths; says what is wrong.</summary>
    public static bool TryParseVector(ReadOnlySpan<string> operands, out long offset, out long[] lengths, out long total)
    {
        lengths = new long[operands.Length - 1];
        total = 0;
        if (!Numbers.TryParse(operands[0], out offset))
            return false;
        for (int i = 0; i < lengths.Length; i++)
        {
            if (!Numbers.TryParse(operands[i + 1], out lengths[i]))
                return false;
            if (lengths[i] > Numbers.MaxRequest)
                return Refuse($"Argument '{operands[i + 1]}' exceeds maximum size {Numbers.MaxRequest}");
            total += lengths[i];
            if (total > Numbers.MaxRequest)
                return Refuse($"The total number of bytes exceed the maximum size {Numbers.MaxRequest}");
        }
        return true;
    }

    /// <summary>Whether both are whole sectors; says so when not.</summary>
    public static bool AreSectors(long offset, long count) =>
        offset % 512 != 0 ? Refuse($"{offset} is not a sector-aligned value for 'offset'")
        : count % 512 == 0 || Refuse($"{count} is not a sector-aligned value for 'count'");

    /// <summary>Prints what is wrong; false.</summary>
    public static bool Refuse(FormattableString message)
    {
        Console.Out(message.ToString(CultureInfo.InvariantCulture) + "\n");
        return false;
    }
}
