using System.Text.Json;
using ImgKit.Block;

namespace ImgKit.Machine.Monitors;

/// <summary>Arguments of a QMP command. Members throw <see cref="CommandException"/> for what is missing or of the wrong type.</summary>
internal readonly struct QmpArguments(JsonElement element)
{
    /// <summary>Throws for an argument that is none of a command's.</summary>
    internal void Expect(string[] names)
    {
        if (element.ValueKind != JsonValueKind.Object || names == QmpCommands.Command.Any)
            return;
        foreach (var member in element.EnumerateObject())
            if (!names.Contains(member.Name))
                throw new CommandException($"Parameter '{member.Name}' is unexpected");
    }

    private JsonElement? Find(string name) => element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var v) ? v : null;

    private static CommandException WrongType(string name, string expected) => new($"Invalid parameter type for '{name}', expected: {expected}");

    internal bool Has(string name) => Find(name) != null;

    internal string? TextOrNull(string name) => Find(name) is not { } v ? null
        : v.ValueKind == JsonValueKind.String ? v.GetString() : throw WrongType(name, "string");

    internal string Text(string name) => TextOrNull(name) ?? throw new CommandException($"Parameter '{name}' is missing");

    internal long Number(string name, long? otherwise = null)
    {
        if (Find(name) is not { } v)
            return otherwise ?? throw new CommandException($"Parameter '{name}' is missing");
        if (v.ValueKind == JsonValueKind.Number)
        {
            if (v.TryGetInt64(out long n))
                return n;
            // Addresses above the middle.
            if (v.TryGetUInt64(out ulong u))
                return (long)u;
        }
        throw WrongType(name, "integer");
    }

    internal bool Flag(string name) => Find(name) is { } v && (v.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw WrongType(name, "boolean"),
    });

    internal IEnumerable<JsonElement> List(string name)
    {
        if (Find(name) is not { } v)
            throw new CommandException($"Parameter '{name}' is missing");
        return v.ValueKind == JsonValueKind.Array ? v.EnumerateArray() : throw WrongType(name, "array");
    }

    /// <summary>All of them as options of a block node: what is nested gets names with dots.</summary>
    internal BlockOptions Options()
    {
        var options = new BlockOptions { IsTyped = true };
        if (element.ValueKind == JsonValueKind.Object)
            Flatten(options, "", element);
        return options;
    }

    private static void Flatten(BlockOptions options, string name, JsonElement value)
    {
        string prefix = name.Length == 0 ? "" : name + ".";
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                foreach (var member in value.EnumerateObject())
                    Flatten(options, prefix + member.Name, member.Value);
                break;
            case JsonValueKind.Array:
                int i = 0;
                foreach (var item in value.EnumerateArray())
                    Flatten(options, $"{prefix}{i++}", item);
                break;
            case JsonValueKind.True or JsonValueKind.False:
                options.Set(name, value.GetBoolean());
                break;
            case JsonValueKind.Number when value.TryGetInt64(out long n):
                options.Set(name, n);
                break;
            case JsonValueKind.Null:
                options.Set(name, "");
                break;
            default:
                options.Set(name, value.ToString());
                break;
        }
    }

    /// <summary>The drive that <c>device</c> or <c>id</c> names.</summary>
    internal string Drive() => Has("device") != Has("id") ? TextOrNull("device") ?? Text("id") : throw new CommandException("Need exactly one of 'device' and 'id'");
}
