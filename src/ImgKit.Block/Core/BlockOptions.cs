using System.Globalization;

namespace ImgKit.Block;

/// <summary>
/// Options of a device and of the devices below it, flat: <c>file.driver</c> belongs to the child <c>file</c>. In the order
/// given. Values are text, <see cref="bool"/> or <see cref="long"/>. Opening takes the options that it uses out; what is left
/// over was not known to anybody.
/// </summary>
public sealed class BlockOptions
{
    private readonly List<KeyValuePair<string, object>> _entries = [];

    /// <summary>Where the options of a child stand in the user's own: <c>file.</c>, or nothing.</summary>
    public string Path { get; private init; } = "";

    /// <summary>Values have the types of JSON, and another type is an error: <c>"on"</c> is no switch.</summary>
    public bool IsTyped { get; init; }

    /// <summary>What is there, in order.</summary>
    public IReadOnlyList<KeyValuePair<string, object>> Entries => _entries;

    /// <summary>True when nothing is left.</summary>
    public bool IsEmpty => _entries.Count == 0;

    /// <summary>Sets a value, replacing one that is there.</summary>
    public void Set(string name, object value)
    {
        if (value is not (string or bool or long))
            value = Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
        int at = _entries.FindIndex(e => e.Key == name);
        var entry = new KeyValuePair<string, object>(name, value);
        if (at >= 0)
            _entries[at] = entry;
        else
            _entries.Add(entry);
    }

    /// <summary>The value, or null.</summary>
    public object? Get(string name)
    {
        foreach (var e in _entries)
            if (e.Key == name)
                return e.Value;
        return null;
    }

    /// <summary>Whether there is such an option.</summary>
    public bool Contains(string name) => Get(name) is not null;

    /// <summary>Whether there is an option of a child: <c>backing.</c>...</summary>
    public bool ContainsChild(string child) => _entries.Exists(e => e.Key.StartsWith(child + ".", StringComparison.Ordinal));

    /// <summary>An option as text, or null; it stays.</summary>
    public string? GetString(string name) =>
        Get(name) is { } v ? v is bool b ? (b ? "on" : "off") : Convert.ToString(v, CultureInfo.InvariantCulture) : null;

    /// <summary>Removes an option and returns it as text, or null.</summary>
    public string? TakeString(string name)
    {
        string? text = GetString(name);
        int at = _entries.FindIndex(e => e.Key == name);
        if (at >= 0)
            _entries.RemoveAt(at);
        return text;
    }

    private string? TakeTyped<T>(string name, string expected) => IsTyped && Get(name) is not (null or T)
        ? throw new ImageException(ImageErrorKind.InvalidArgument, $"Invalid parameter type for '{Path}{name}', expected: {expected}")
        : TakeString(name);

    /// <summary>Removes an option and returns it as a switch, or null.</summary>
    /// <exception cref="ImageException">not on or off.</exception>
    public bool? TakeBool(string name) => TakeTyped<bool>(name, "boolean") switch
    {
        null => null,
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new ImageException(ImageErrorKind.InvalidArgument, $"Parameter '{name}' expects 'on' or 'off'"),
    };

    /// <summary>Removes an option and returns it as bytes (suffixes as in <see cref="SizeText"/>), or null.</summary>
    /// <exception cref="ImageException">not a size.</exception>
    public long? TakeSize(string name)
    {
        string? s = TakeTyped<long>(name, "integer");
        if (s is null)
            return null;
        return SizeText.TryParse(s, out long v) ? v
            : throw new ImageException(ImageErrorKind.InvalidArgument, $"Parameter '{name}' expects a non-negative number below 2^64");
    }

    /// <summary>Removes an option and returns it as a whole number, or null.</summary>
    /// <exception cref="ImageException">not a number.</exception>
    public long? TakeNumber(string name)
    {
        string? s = TakeTyped<long>(name, "integer");
        if (s is null)
            return null;
        return long.TryParse(s, NumberStyles.None, CultureInfo.InvariantCulture, out long v) ? v
            : throw new ImageException(ImageErrorKind.InvalidArgument, $"Parameter '{name}' expects a number");
    }

    /// <summary>Removes the options of a child and returns them, without the prefix.</summary>
    public BlockOptions TakeChild(string child)
    {
        string prefix = child + ".";
        var r = new BlockOptions { Path = Path + prefix, IsTyped = IsTyped };
        foreach (var e in _entries)
            if (e.Key.StartsWith(prefix, StringComparison.Ordinal))
                r.Set(e.Key[prefix.Length..], e.Value);
        _entries.RemoveAll(e => e.Key.StartsWith(prefix, StringComparison.Ordinal));
        return r;
    }

    /// <summary>A copy that also has <paramref name="others"/>; where both have one, it keeps its own.</summary>
    public BlockOptions With(BlockOptions others)
    {
        var r = Clone();
        foreach (var e in others._entries)
            if (!r.Contains(e.Key))
                r._entries.Add(e);
        return r;
    }

    /// <summary>A copy.</summary>
    public BlockOptions Clone()
    {
        var r = new BlockOptions { Path = Path, IsTyped = IsTyped };
        r._entries.AddRange(_entries);
        return r;
    }
}
