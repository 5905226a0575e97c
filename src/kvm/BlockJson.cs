using System.Text.Json;
using ImgKit.Machine;

namespace ImgKit.Programs.Kvm;

/// <summary>Options in JSON, as <c>-blockdev '{...}'</c> has them: nested objects become names with dots.</summary>
internal static class BlockJson
{
    internal static List<KeyValuePair<string, string>> Parse(string text)
    {
        try
        {
            using var document = JsonDocument.Parse(text);
            var list = new List<KeyValuePair<string, string>>();
            Flatten("", document.RootElement, list);
            return list;
        }
        catch (JsonException e)
        {
            throw new MachineException($"JSON parse error: {e.Message}", e);
        }
    }

    private static void Flatten(string prefix, JsonElement element, List<KeyValuePair<string, string>> list)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                foreach (var p in element.EnumerateObject())
                    Flatten(prefix.Length == 0 ? p.Name : $"{prefix}.{p.Name}", p.Value, list);
                break;
            case JsonValueKind.Array:
                int i = 0;
                foreach (var e in element.EnumerateArray())
                    Flatten($"{prefix}.{i++}", e, list);
                break;
            case JsonValueKind.True or JsonValueKind.False:
                list.Add(new(prefix, element.ValueKind == JsonValueKind.True ? "on" : "off"));
                break;
            default:
                list.Add(new(prefix, element.ToString()));
                break;
        }
    }
}
