
namespace ImgKit.Programs.Nbd;

/// <summary>Which TLS clients are let in: object <c>authz-simple</c>, one distinguished name.</summary>
internal static class TlsAuthorization
{
    /// <summary>The decision that the options ask for, or null: all may come.</summary>
    public static Func<string?, bool>? Find(ServerOptions options)
    {
        if (options.TlsAuthorization is not { } id)
            return null;
        var definition = options.Objects.Find(id) ?? throw new ProgramException($"Failed to get TLS authz: No object with id '{id}'");
        string type = definition.TakeString("qom-type") ?? "";
        if (type != "authz-simple")
            throw new ProgramException($"Failed to get TLS authz: objects of type '{type}' are not supported here, only authz-simple");
        string identity = definition.TakeString("identity") ?? throw new ProgramException("Failed to get TLS authz: Parameter 'identity' is missing");
        string[] wanted = Parts(identity);
        return peer => peer is not null && Parts(peer).AsSpan().SequenceEqual(wanted);
    }

    /// <summary>The parts of a distinguished name; libraries differ in their order and in spaces.</summary>
    private static string[] Parts(string name)
    {
        string[] parts = name.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        for (int i = 0; i < parts.Length; i++)
            if (parts[i].StartsWith("S=", StringComparison.Ordinal))
                parts[i] = "ST" + parts[i][1..];
        Array.Sort(parts, StringComparer.Ordinal);
        return parts;
    }
}
