using System.Text.Json;

namespace ImgKit.Block;

/// <summary>The <c>json:{...}</c> form of a file name: nested objects and lists become flat, dotted options.</summary>
public static class JsonFileName
{
    /// <summary>Parses <c>json:{...}</c>.</summary>
    /// <exception cref="ImageException">not JSON, or not an object.</exception>
    public static BlockOptions Parse(string fileName)
    {
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(fileName["json:".Length..].Replace('\'', '"'), new JsonDocumentOptions { MaxDepth = 64 });
        }
        catch (JsonException e)
        {
            throw new ImageException(ImageErrorKind.InvalidArgument, "Could not parse the JSON options", fileName, inner: e);
        }
        using (document)
        {
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                throw new ImageException(ImageErrorKind.InvalidArgument, "Invalid JSON object given", fileName);
            var options = new BlockOptions();
            Flatten("", document.RootElement, options);
            return options;
        }
    }

    private static void Flatten(string prefix, JsonElement element, BlockOptions options)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                foreach (var p in element.EnumerateObject())
                    Flatten(prefix.Length == 0 ? p.Name : prefix + "." + p.Name, p.Value, options);
                break;
            case JsonValueKind.Array:
                int i = 0;
                foreach (var e in element.EnumerateArray())
                    Flatten($"{prefix}.{i++}", e, options);
                break;
            case JsonValueKind.String:
                options.Set(prefix, element.GetString() ?? "");
                break;
            case JsonValueKind.True:
                options.Set(prefix, true);
                break;
            case JsonValueKind.False:
                options.Set(prefix, false);
                break;
            case JsonValueKind.Number when element.TryGetInt64(out long n):
                options.Set(prefix, n);
                break;
            case JsonValueKind.Null:
                options.Set(prefix, "");
                break;
            default:
                options.Set(prefix, element.GetRawText());
                break;
        }
    }
}
