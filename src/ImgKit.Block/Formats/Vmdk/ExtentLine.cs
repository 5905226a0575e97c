using System.Globalization;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>What a guest may do with an extent.</summary>
internal enum ExtentAccess
{
    ReadWrite,
    ReadOnly,
    None,
}

/// <summary>An extent line of a descriptor: <c>ACCESS SECTORS TYPE "file" [OFFSET]</c> (Virtual Disk Format, "The Extent Descriptions").</summary>
/// <param name="Access">RW, RDONLY or NOACCESS.</param>
/// <param name="Sectors">size, at least 1.</param>
/// <param name="Type">FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE, SESPARSE and others.</param>
/// <param name="FileName">as it stands there; empty for ZERO.</param>
/// <param name="Offset">sectors into the file where a flat extent starts; -1 when not given.</param>
internal readonly record struct ExtentLine(ExtentAccess Access, long Sectors, string Type, string FileName, long Offset)
{
    /// <summary>2^63 bytes.</summary>
    private const long MaxSectors = long.MaxValue / 512;

    /// <summary>Parses a line that starts like an extent line.</summary>
    /// <returns>false when it is none (a comment, a key).</returns>
    /// <exception cref="ImageException">it is one, and wrong.</exception>
    public static bool TryParse(string text, out ExtentLine line)
    {
        line = default;
        var rest = text.AsSpan().Trim();
        var access = NextWord(ref rest);
        ExtentAccess kind;
        if (access.Equals("RW", StringComparison.OrdinalIgnoreCase))
            kind = ExtentAccess.ReadWrite;
        else if (access.Equals("RDONLY", StringComparison.OrdinalIgnoreCase))
            kind = ExtentAccess.ReadOnly;
        else if (access.Equals("NOACCESS", StringComparison.OrdinalIgnoreCase))
            kind = ExtentAccess.None;
        else
            return false;
        if (!long.TryParse(NextWord(ref rest), NumberStyles.None, CultureInfo.InvariantCulture, out long sectors)
            || sectors is <= 0 or > MaxSectors)
            throw Invalid(text);
        string type = NextWord(ref rest).ToString().ToUpperInvariant();
        string file = "";
        if (rest.StartsWith("\""))
        {
            int end = rest[1..].IndexOf('"');
            if (end <= 0 || end > 4095)
                throw Invalid(text);
            file = rest.Slice(1, end).ToString();
            rest = rest[(end + 2)..].Trim();
        }
        long offset = -1;
        var word = NextWord(ref rest);
        if (!word.IsEmpty && (!long.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out offset) || offset > MaxSectors))
            throw Invalid(text);
        bool ok = type switch
        {
            "ZERO" => true,
            "FLAT" => file.Length > 0 && offset >= 0,
            "" => false,
            _ => file.Length > 0 && offset < 0,
        };
        if (!ok)
            throw Invalid(text);
        line = new ExtentLine(kind, sectors, type, file, offset);
        return true;
    }

    public override string ToString()
    {
        string access = Access switch { ExtentAccess.ReadWrite => "RW", ExtentAccess.ReadOnly => "RDONLY", _ => "NOACCESS" };
        string text = $"{access} {Sectors.ToString(CultureInfo.InvariantCulture)} {Type}";
        if (FileName.Length > 0)
            text += $" \"{FileName}\"";
        if (Offset >= 0)
            text += " " + Offset.ToString(CultureInfo.InvariantCulture);
        return text;
    }

    private static ImageException Invalid(string text) => new(ImageErrorKind.InvalidFormat, $"Invalid extent line: {text}");

    private static ReadOnlySpan<char> NextWord(ref ReadOnlySpan<char> rest)
    {
        rest = rest.TrimStart();
        int n = 0;
        while (n < rest.Length && rest[n] is not (' ' or '\t' or '"'))
            n++;
        var word = rest[..n];
        rest = rest[n..].TrimStart();
        return word;
    }
}
