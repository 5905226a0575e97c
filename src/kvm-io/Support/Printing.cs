using System.Globalization;
using System.Text;

namespace ImgKit.Programs.Io;

/// <summary>What requests print.</summary>
internal static class Printing
{
    /// <summary>The two lines (or with <c>-C</c> the comma-separated one) that report a request.</summary>
    public static void Report(string verb, TimeSpan time, IoRequest request)
    {
        const int operations = 1;
        bool terse = request.Has(RequestFlags.Terse);
        long total = request.Total;
        double seconds = time.TotalSeconds;
        string text = Numbers.Time(time, terse);
        Console.Out(terse
            ? string.Create(CultureInfo.InvariantCulture,
                $"{total},{operations},{text},{Numbers.Fixed(total / seconds, 3)},{Numbers.Fixed(operations / seconds, 3)}\n")
            : string.Create(CultureInfo.InvariantCulture,
                $"{verb} {total}/{total} bytes at offset {request.Offset}\n{Numbers.Bytes(total)}, {operations} ops; {text} ")
                + $"({Numbers.Bytes(total / seconds)}/sec and {Numbers.Fixed(operations / seconds, 4)} ops/sec)\n");
    }

    /// <summary>Hexadecimal and text, 16 bytes a line.</summary>
    public static void Dump(ReadOnlySpan<byte> data, long offset)
    {
        var line = new StringBuilder(96);
        for (int at = 0; at < data.Length; at += 16)
        {
            var row = data[at..Math.Min(at + 16, data.Length)];
            line.Clear().Append((offset + at).ToString("x8", CultureInfo.InvariantCulture)).Append(":  ");
            foreach (byte b in row)
                line.Append(b.ToString("x2", CultureInfo.InvariantCulture)).Append(' ');
            line.Append(' ');
            foreach (byte b in row)
                line.Append(char.IsAsciiLetterOrDigit((char)b) ? (char)b : '.');
            Console.Out(line.Append('\n').ToString());
        }
    }

    /// <summary>Whether all bytes are the pattern; says so when not.</summary>
    public static bool Verify(ReadOnlySpan<byte> data, byte pattern, long offset)
    {
        if (!data.ContainsAnyExcept(pattern))
            return true;
        Console.Out(string.Create(CultureInfo.InvariantCulture, $"Pattern verification failed at offset {offset}, {data.Length} bytes\n"));
        return false;
    }
}
