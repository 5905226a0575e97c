using System.Globalization;

namespace ImgKit.Machine.CharDevices;

/// <summary>Names and values that describe a character device; what nobody has asked for at the end is an error.</summary>
internal sealed class CharDeviceOptions(IReadOnlyList<KeyValuePair<string, string>> values)
{
    private readonly HashSet<string> _known = [];

    /// <summary>Parses <c>name=value,switch,noswitch</c>.</summary>
    internal static CharDeviceOptions Parse(string text)
    {
        var list = new List<KeyValuePair<string, string>>();
        foreach (string word in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
            if (word.Split('=', 2) is [var name, var value])
                list.Add(new(name, value));
            else if (word != "nodelay" && word.StartsWith("no", StringComparison.Ordinal))
                list.Add(new(word[2..], "off"));
            else
                list.Add(new(word, "on"));
        return new CharDeviceOptions(list);
    }

    /// <summary>The last value of a name; null: none.</summary>
    internal string? Text(string name)
    {
        _known.Add(name);
        return values.LastOrDefault(v => v.Key == name).Value;
    }

    internal bool Given(string name) => Text(name) != null;

    internal string Needed(string name, string? message = null) => Text(name) ?? throw new MachineException(message ?? $"Parameter '{name}' is missing");

    internal bool Flag(string name, bool otherwise) => Text(name) switch
    {
        null => otherwise,
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new MachineException($"Parameter '{name}' expects 'on' or 'off'"),
    };

    internal int Number(string name) => Text(name) is not { } text ? 0
        : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n <= 86400 ? n
        : throw new MachineException($"Parameter '{name}' expects a number");

    /// <summary>Throws for a name that is none of the device's.</summary>
    internal void Finish()
    {
        foreach (var (name, _) in values)
            if (!_known.Contains(name))
                throw new MachineException($"Invalid parameter '{name}'");
    }
}
