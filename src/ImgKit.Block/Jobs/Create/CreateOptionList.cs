using System.Globalization;
using System.Text;

namespace ImgKit.Block.Jobs.Create;

/// <summary>The options that an image can be created with: those of its format, and those of the protocol that holds its file.</summary>
public static class CreateOptionList
{
    /// <summary>Format's options first; where both have one of a name, the format's counts.</summary>
    /// <param name="format">of the image.</param>
    /// <param name="protocol">of its file, or null.</param>
    public static IReadOnlyList<DriverOption> For(BlockDriver format, BlockDriver? protocol)
    {
        if (protocol is null)
            return format.CreateOptions;
        var all = new List<DriverOption>(format.CreateOptions);
        foreach (var o in protocol.CreateOptions)
            if (Find(all, o.Name) is null)
                all.Add(o);
        return all;
    }

    /// <summary>The option of that name, or null.</summary>
    public static DriverOption? Find(IReadOnlyList<DriverOption> options, string name)
    {
        foreach (var o in options)
            if (o.Name == name)
                return o;
        return null;
    }

    /// <summary>Checks names and types. Sizes and numbers become <see cref="long"/>, the rest stays text.</summary>
    /// <exception cref="ImageException">an option is not known, or its value is of another type.</exception>
    public static BlockOptions Parse(IReadOnlyList<DriverOption> known, IEnumerable<KeyValuePair<string, string>> given)
    {
        var r = new BlockOptions();
        foreach (var (name, text) in given)
        {
            var option = Find(known, name) ?? throw Invalid($"Invalid parameter '{name}'");
            r.Set(name, option.Type switch
            {
                OptionType.Bool => text is "on" or "yes" or "true" or "y" or "off" or "no" or "false" or "n" ? text
                    : throw Invalid($"Parameter '{name}' expects 'on' or 'off'"),
                OptionType.Number => ParseNumber(name, text),
                OptionType.Size => ParseSize(name, text),
                _ => text,
            });
        }
        return r;
    }

    /// <summary>A size as the value of an option.</summary>
    /// <exception cref="ImageException">it is none.</exception>
    public static long ParseSize(string name, string text)
    {
        var outcome = SizeText.Parse(text, out ulong size);
        if (outcome == SizeParse.Invalid)
            throw Invalid($"Parameter '{name}' expects a non-negative number below 2^64\n"
                + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.");
        if (outcome == SizeParse.OutOfRange)
            throw Invalid($"Value '{text}' is out of range for parameter '{name}'");
        // Above this nothing can be that large; who checks a range says so.
        return (long)Math.Min(size, long.MaxValue);
    }

    /// <summary>The lines of <c>-o help</c>.</summary>
    public static IEnumerable<string> Help(IReadOnlyList<DriverOption> options)
    {
        var lines = new List<string>();
        foreach (var o in options)
        {
            string type = o.Type switch
            {
                OptionType.Bool => "bool (on/off)",
                OptionType.Number => "num",
                OptionType.Size => "size",
                _ => "str",
            };
            lines.Add($"  {o.Name}=<{type}>".PadRight(24) + $" - {o.Help}");
        }
        lines.Sort(StringComparer.Ordinal);
        return lines;
    }

    /// <summary>All options that have a value, given or by default, as <c>name=value</c> in the order of the list.</summary>
    public static string Describe(IReadOnlyList<DriverOption> known, BlockOptions given)
    {
        var s = new StringBuilder();
        foreach (var o in known)
        {
            object? value = given.Get(o.Name) ?? o.Default;
            if (value is null)
                continue;
            string text = value is long n ? n.ToString(CultureInfo.InvariantCulture) : (string)value;
            if (o.Type is OptionType.String or OptionType.Enum)
                text = text.Replace(",", ",,", StringComparison.Ordinal);
            if (s.Length > 0)
                s.Append(' ');
            s.Append(o.Name).Append('=').Append(text);
        }
        return s.ToString();
    }

    private static long ParseNumber(string name, string text)
    {
        string s = text.TrimStart();
        int radix = s.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? 16 : 10;
        UInt128 value = 0;
        int digits = 0;
        foreach (char c in radix == 16 ? s[2..] : s)
        {
            if (!(radix == 16 ? char.IsAsciiHexDigit(c) : char.IsAsciiDigit(c)))
                throw Invalid($"Parameter '{name}' expects a number");
            value = value * (uint)radix + (uint)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
            if (value > ulong.MaxValue)
                throw Invalid($"Value '{text}' is too large for parameter '{name}'");
            digits++;
        }
        if (digits == 0)
            throw Invalid($"Parameter '{name}' expects a number");
        return (long)(ulong)UInt128.Min(value, long.MaxValue);
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
