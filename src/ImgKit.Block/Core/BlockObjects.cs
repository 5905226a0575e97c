using System.Collections.Concurrent;

namespace ImgKit.Block;

/// <summary>
/// Helper objects that the user defines beside images (<c>--object</c>) and that options name by id: TLS credentials, throttle groups.
/// </summary>
public sealed class BlockObjects
{
    private readonly ConcurrentDictionary<string, BlockOptions> _definitions = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, object> _instances = new(StringComparer.Ordinal);

    /// <summary>The types that can be defined.</summary>
    public static IReadOnlyList<string> Types { get; } = ["authz-list", "authz-simple", "secret", "throttle-group", "tls-creds-psk", "tls-creds-x509"];

    /// <summary>Defines an object.</summary>
    /// <param name="definition">with <c>qom-type</c> and <c>id</c>, and the type's own properties.</param>
    /// <exception cref="ImageException">no such type, or the id is missing or taken.</exception>
    public void Add(BlockOptions definition)
    {
        var options = definition.Clone();
        string type = options.TakeString("qom-type")
            ?? throw new ImageException(ImageErrorKind.InvalidArgument, "Parameter 'qom-type' is missing");
        string? id = options.TakeString("id");
        if (!Types.Contains(type))
            throw new ImageException(ImageErrorKind.InvalidArgument,
                type == "tls-creds-anon"
                    ? "objects of type 'tls-creds-anon' are not supported: they protect from nobody who sits in between"
                    : $"Parameter 'qom-type' does not accept value '{type}'");
        if (id is null)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Parameter 'id' is missing");
        if (type == "secret" && options.Contains("data") == options.Contains("file"))
            throw new ImageException(ImageErrorKind.InvalidArgument,
                options.Contains("data") ? "'file' and 'data' are mutually exclusive" : "Either 'file' or 'data' must be provided");
        options.Set("qom-type", type);
        if (!_definitions.TryAdd(id, options))
            throw new ImageException(ImageErrorKind.InvalidArgument, $"attempt to add duplicate property '{id}' to object (type 'container')");
    }

    /// <summary>The definition of an object: its properties and <c>qom-type</c>; null when there is none.</summary>
    public BlockOptions? Find(string id) => _definitions.TryGetValue(id, out var d) ? d.Clone() : null;

    /// <summary>What was made of a definition, made now if need be: all who name it share it.</summary>
    /// <param name="id">of the definition.</param>
    /// <param name="make">makes it from the definition (null when there is none).</param>
    public T Instance<T>(string id, Func<BlockOptions?, T> make)
        where T : class
    {
        lock (_instances)
        {
            if (!_instances.TryGetValue(id, out object? found))
                _instances[id] = found = make(Find(id));
            return found as T ?? throw new ImageException(ImageErrorKind.InvalidArgument, $"Object '{id}' is of another type");
        }
    }
}
