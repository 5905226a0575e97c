namespace ImgKit.Block;

/// <summary>The devices that <c>node-name</c> has given a name, for others to be put on top of them (<c>file=NAME</c>, <c>backing=NAME</c>). Who
/// refers to a node shares it: it is closed with the last of its users.</summary>
public sealed class BlockNodes
{
    private const int MaxName = 31;

    private readonly Dictionary<string, BlockDevice> _nodes = new(StringComparer.Ordinal);

    /// <summary>The node of a name; null when there is none.</summary>
    public BlockDevice? Find(string name)
    {
        lock (_nodes)
            return _nodes.GetValueOrDefault(name);
    }

    /// <summary>Throws unless a new node may have the name.</summary>
    internal void Check(string? name)
    {
        if (name is null)
            return;
        bool fits = name.Length is > 0 and <= MaxName && char.IsAsciiLetter(name[0]);
        foreach (char c in name)
            fits &= char.IsAsciiLetterOrDigit(c) || c is '-' or '.' or '_';
        if (!fits)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Invalid node-name: '{name}'");
        if (Find(name) is not null)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Duplicate nodes with node-name='{name}'");
    }

    /// <summary>Gives a device its name (null: none). When that is taken, the device is closed.</summary>
    internal BlockDevice Add(string? name, BlockDevice device)
    {
        if (name is null)
            return device;
        bool added;
        lock (_nodes)
            added = _nodes.TryAdd(name, device);
        if (!added)
        {
            device.Dispose();
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Duplicate nodes with node-name='{name}'");
        }
        device.NodeName = name;
        device.Closed += () =>
        {
            lock (_nodes)
                _nodes.Remove(name);
        };
        return device;
    }

    /// <summary>The node that an option refers to, with one more owner.</summary>
    /// <param name="name">the option's value.</param>
    /// <param name="device">what the message calls the device, where the peer leaves that out; null: the name.</param>
    /// <exception cref="ImageException">there is none.</exception>
    internal BlockDevice Take(string name, string? device = null)
    {
        var node = Find(name)
            ?? throw new ImageException(ImageErrorKind.InvalidArgument, $"Cannot find device='{device ?? name}' nor node-name='{name}'");
        node.AddOwner();
        return node;
    }
}
