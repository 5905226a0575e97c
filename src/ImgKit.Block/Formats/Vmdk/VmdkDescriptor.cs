using System.Globalization;
using System.Text;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// The descriptor of a virtual disk: lines of text, <c>key = value</c>, extent lines and comments (Virtual Disk Format, "The Disk
/// Descriptor File"). Keys are found as keys, whatever their case and spacing; what is not changed is written back as it was.
/// </summary>
internal sealed class VmdkDescriptor
{
    /// <summary>No parent.</summary>
    public const uint NoParent = 0xFFFFFFFF;

    /// <summary>Longer descriptors are not read.</summary>
    public const int MaxSize = (1 << 20) - 1;

    private readonly List<string> _lines;
    private readonly string _newline;
    private readonly Encoding _encoding;

    private VmdkDescriptor(List<string> lines, string newline, Encoding encoding)
    {
        _lines = lines;
        _newline = newline;
        _encoding = encoding;
    }

    /// <summary>Parses text up to the first NUL.</summary>
    public static VmdkDescriptor Parse(ReadOnlySpan<byte> bytes)
    {
        int end = bytes.IndexOf((byte)0);
        if (end >= 0)
            bytes = bytes[..end];
        // What is not UTF-8 is in some code page; byte for byte it is kept as it is.
        var encoding = System.Text.Unicode.Utf8.IsValid(bytes) ? Encoding.UTF8 : Encoding.Latin1;
        string text = encoding.GetString(bytes);
        string newline = text.Contains("\r\n", StringComparison.Ordinal) ? "\r\n" : "\n";
        var lines = text.Split('\n').Select(l => l.TrimEnd('\r')).ToList();
        if (lines.Count > 0 && lines[^1].Length == 0)
            lines.RemoveAt(lines.Count - 1);
        return new VmdkDescriptor(lines, newline, encoding);
    }

    /// <summary>The bytes to store.</summary>
    public byte[] ToBytes()
    {
        var s = new StringBuilder();
        foreach (string l in _lines)
            s.Append(l).Append(_newline);
        return _encoding.GetBytes(s.ToString());
    }

    /// <summary>The value of a key without its quotes, or null.</summary>
    public string? Get(string key)
    {
        foreach (string l in _lines)
            if (ValueOf(l, key) is { } v)
                return v;
        return null;
    }

    /// <summary>Whether there is a comment or key that marks a descriptor at all.</summary>
    public bool HasKey(string key) => Get(key) is not null;

    public string? CreateType => Get("createType");

    public uint? Cid => Hex(Get("CID"));

    public uint? ParentCid => Hex(Get("parentCID"));

    public string? ParentFileNameHint => Get("parentFileNameHint") is { Length: > 0 } s ? s : null;

    /// <summary>The extent lines, in order, each with its line number.</summary>
    public List<(int Line, ExtentLine Extent)> Extents()
    {
        var r = new List<(int, ExtentLine)>();
        for (int i = 0; i < _lines.Count; i++)
            if (ExtentLine.TryParse(_lines[i], out var e))
                r.Add((i, e));
        return r;
    }

    /// <summary>Replaces an extent line.</summary>
    public void SetExtent(int line, ExtentLine extent) => _lines[line] = extent.ToString();

    /// <summary>Puts extent lines in front of a line.</summary>
    public void InsertExtents(int line, List<ExtentLine> extents) => _lines.InsertRange(line, extents.ConvertAll(e => e.ToString()));

    /// <summary>Sets the content's identity, also where it is repeated: the last 32 bits of <c>ddb.longContentID</c>.</summary>
    public void SetCid(uint cid)
    {
        Set("CID", Hex(cid), quoted: false, after: "version");
        if (Get("ddb.longContentID") is { Length: 32 } content)
            Set("ddb.longContentID", content[..24] + Hex(cid), quoted: true, after: null);
    }

    /// <summary>Sets or removes the parent.</summary>
    public void SetParent(uint cid, string? fileName)
    {
        Set("parentCID", Hex(cid), quoted: false, after: "CID");
        if (fileName is null)
            _lines.RemoveAll(l => ValueOf(l, "parentFileNameHint") is not null);
        else
            Set("parentFileNameHint", fileName, quoted: true, after: "createType");
    }

    /// <summary>Sets a key that is there already; does nothing when it is not.</summary>
    public void Update(string key, string value)
    {
        if (HasKey(key))
            Set(key, value, quoted: true, after: null);
    }

    public static string Hex(uint v) => v.ToString("x8", CultureInfo.InvariantCulture);

    private void Set(string key, string value, bool quoted, string? after)
    {
        string v = quoted ? $"\"{value}\"" : value;
        for (int i = 0; i < _lines.Count; i++)
        {
            if (ValueOf(_lines[i], key) is null)
                continue;
            // Keeps the key as it is spelled, and the spacing around the sign.
            int eq = _lines[i].IndexOf('=', StringComparison.Ordinal);
            string head = _lines[i][..(eq + 1)];
            _lines[i] = head + (_lines[i].AsSpan(eq + 1).StartsWith(" ") ? " " : "") + v;
            return;
        }
        int at = after is null ? -1 : _lines.FindIndex(l => ValueOf(l, after) is not null);
        _lines.Insert(at < 0 ? _lines.Count : at + 1, key + "=" + v);
    }

    private static uint? Hex(string? text) =>
        text is not null && uint.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint v) ? v : null;

    /// <summary>The value when the line is <c>key = value</c> for this key.</summary>
    private static string? ValueOf(string line, string key)
    {
        var s = line.AsSpan().TrimStart();
        if (!s.StartsWith(key, StringComparison.OrdinalIgnoreCase))
            return null;
        s = s[key.Length..].TrimStart();
        if (!s.StartsWith("="))
            return null;
        s = s[1..].Trim();
        if (s.StartsWith("\""))
        {
            s = s[1..];
            int end = s.IndexOf('"');
            return (end < 0 ? s : s[..end]).ToString();
        }
        // A comment may follow an unquoted value.
        int hash = s.IndexOf(" #");
        return (hash < 0 ? s : s[..hash].TrimEnd()).ToString();
    }
}
