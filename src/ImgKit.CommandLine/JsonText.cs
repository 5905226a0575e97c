using System.Globalization;
using System.Text;

namespace ImgKit.CommandLine;

/// <summary>Members of a JSON object.</summary>
public sealed class JsonObject : List<KeyValuePair<string, object>>
{
    /// <summary>Adds a member; null is left out.</summary>
    public void Add(string name, object? value)
    {
        if (value is not null)
            Add(new KeyValuePair<string, object>(name, value));
    }
}

/// <summary>
/// JSON as the peer prints it, byte for byte: four spaces a level, members in the order of its hash table, everything
/// but printable ASCII escaped.
/// </summary>
/// <remarks>Values are string, bool, long, int, ulong, double, lists of pairs (objects) and other lists (arrays).</remarks>
public static class JsonText
{
    private const int Buckets = 512;

    /// <summary>Several lines, without a line break at the end.</summary>
    public static string Pretty(object value)
    {
        var s = new StringBuilder();
        Append(s, value, 0, pretty: true);
        return s.ToString();
    }

    /// <summary>One line.</summary>
    public static string Compact(object value)
    {
        var s = new StringBuilder();
        Append(s, value, 0, pretty: false);
        return s.ToString();
    }

    /// <summary>Members in the order in which the peer prints them: that of its hash table's buckets, and in a bucket whoever was added
    /// last first.</summary>
    public static KeyValuePair<string, object>[] Ordered(IReadOnlyList<KeyValuePair<string, object>> members)
    {
        var keys = new ulong[members.Count];
        var ordered = new KeyValuePair<string, object>[members.Count];
        for (int i = 0; i < keys.Length; i++)
        {
            keys[i] = ((ulong)(Hash(members[i].Key) % Buckets) << 32) | (uint)(keys.Length - i);
            ordered[i] = members[i];
        }
        Array.Sort(keys, ordered);
        return ordered;
    }

    private static void Append(StringBuilder s, object value, int depth, bool pretty)
    {
        switch (value)
        {
            case string text:
                AppendString(s, text);
                break;
            case bool b:
                s.Append(b ? "true" : "false");
                break;
            case double d:
                s.Append(d.ToString("R", CultureInfo.InvariantCulture));
                break;
            case IFormattable number and (long or int or ulong or uint or short or ushort or byte):
                s.Append(number.ToString(null, CultureInfo.InvariantCulture));
                break;
            case IReadOnlyList<KeyValuePair<string, object>> members:
                AppendObject(s, members, depth, pretty);
                break;
            case IReadOnlyList<object> elements:
                s.Append('[');
                for (int i = 0; i < elements.Count; i++)
                {
                    Separate(s, i, depth + 1, pretty);
                    Append(s, elements[i], depth + 1, pretty);
                }
                Close(s, depth, pretty);
                s.Append(']');
                break;
            default:
                throw new ArgumentException($"a {value.GetType()} is no JSON value", nameof(value));
        }
    }

    private static void AppendObject(StringBuilder s, IReadOnlyList<KeyValuePair<string, object>> members, int depth, bool pretty)
    {
        int index = 0;
        s.Append('{');
        foreach (var (name, value) in Ordered(members))
        {
            Separate(s, index++, depth + 1, pretty);
            AppendString(s, name);
            s.Append(": ");
            Append(s, value, depth + 1, pretty);
        }
        Close(s, depth, pretty);
        s.Append('}');
    }

    private static void Separate(StringBuilder s, int index, int depth, bool pretty)
    {
        if (index > 0)
            s.Append(pretty ? "," : ", ");
        NewLine(s, depth, pretty);
    }

    private static void Close(StringBuilder s, int depth, bool pretty) => NewLine(s, depth, pretty);

    private static void NewLine(StringBuilder s, int depth, bool pretty)
    {
        if (pretty)
            s.Append('\n').Append(' ', depth * 4);
    }

    /// <summary>The hash of the trivial database (Samba's TDB), on which the peer's dictionaries are built.</summary>
    private static uint Hash(string name)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        unchecked
        {
            uint value = 0x238F13AFu * (uint)bytes.Length;
            for (int i = 0; i < bytes.Length; i++)
                value += (uint)bytes[i] << (i * 5 % 24);
            return 1103515243u * value + 12345u;
        }
    }

    private static void AppendString(StringBuilder s, string text)
    {
        s.Append('"');
        foreach (char c in text)
        {
            switch (c)
            {
                case '"':
                    s.Append("\\\"");
                    break;
                case '\\':
                    s.Append("\\\\");
                    break;
                case '\b':
                    s.Append("\\b");
                    break;
                case '\f':
                    s.Append("\\f");
                    break;
                case '\n':
                    s.Append("\\n");
                    break;
                case '\r':
                    s.Append("\\r");
                    break;
                case '\t':
                    s.Append("\\t");
                    break;
                default:
                    if (c is < ' ' or >= '\x7F')
                        s.Append("\\u").Append(((int)c).ToString("X4", CultureInfo.InvariantCulture));
                    else
                        s.Append(c);
                    break;
            }
        }
        s.Append('"');
    }
}
