using ImgKit.Block;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>The block nodes that the user makes by name (<c>-blockdev</c>, QMP's <c>blockdev-add</c>), each as the drive that a device of the machine may have
/// of it. Messages are QEMU's (its qapi/block-core.json describes the options).</summary>
public sealed class NodeOpener(DriveOpener opener, ImageOpener images)
{
    private readonly Dictionary<string, Drive> _nodes = new(StringComparer.Ordinal), _inner = new(StringComparer.Ordinal);

    /// <summary>Those that the user has made and not deleted.</summary>
    public IReadOnlyCollection<Drive> All => _nodes.Values;

    /// <summary>The drive of a node, also of one inside another's description; null when there is none.</summary>
    public Drive? Find(string name)
    {
        if (_nodes.GetValueOrDefault(name) is { } own)
            return own;
        if (images.Nodes.Find(name) is not { } inner)
            return null;
        if (_inner.GetValueOrDefault(name) is not { } drive || drive.Media != inner)
            drive = _inner[name] = Of(name, inner, new OpenSettings { ReadOnly = inner.IsReadOnly }, "off");
        return drive;
    }

    /// <summary>Opens a node. Throws <see cref="MachineException"/>, <see cref="ImageException"/>, <see cref="IOException"/>.</summary>
    /// <param name="options">as the user gave them, flat.</param>
    public Drive Add(BlockOptions options)
    {
        string driver = options.GetString("driver") ?? throw new MachineException("Parameter 'driver' is missing");
        if (images.Drivers.Find(driver) is not { } found)
            throw new MachineException($"Parameter 'driver' does not accept value '{driver}'");
        if (found.Kind == DriverKind.Format && !options.Contains("file") && !options.ContainsChild("file"))
            throw new MachineException("Parameter 'file' is missing");
        Check(options.GetString("detect-zeroes"), "detect-zeroes", "off", "on", "unmap");
        Check(options.GetString("discard"), "discard", "ignore", "unmap");
        string node = options.GetString("node-name") ?? throw new MachineException("'node-name' must be specified for the root node");
        bool unmaps = options.GetString("discard") == "unmap";
        if (options.GetString("detect-zeroes") == "unmap" && !unmaps)
            throw new MachineException("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        bool Is(string key) => options.GetString(key) is "on" or "yes" or "true";
        var settings = new OpenSettings
        {
            ReadOnly = Is("read-only"),
            UnshareWrite = !opener.Shared.Contains(node),
            Unmap = unmaps,
            Direct = Is("cache.direct"),
            NoFlush = Is("cache.no-flush"),
        };
        return _nodes[node] = Of(node, Open(options, settings, Is("auto-read-only")), settings, options.GetString("detect-zeroes") ?? "off");
    }

    private static void Check(string? value, string name, params ReadOnlySpan<string> allowed)
    {
        if (value != null && !allowed.Contains(value))
            throw new MachineException($"Parameter '{name}' does not accept value '{value}'");
    }

    private BlockDevice Open(BlockOptions options, OpenSettings settings, bool maybeReadOnly)
    {
        try
        {
            return opener.OpenImage("", null, settings, options);
        }
        catch (ImageException e) when (e.UnknownOption != null)
        {
            throw new MachineException($"Parameter '{e.UnknownOption}' is unexpected", e);
        }
        catch (ImageException) when (maybeReadOnly && !settings.ReadOnly)
        {
            return opener.OpenImage("", null, settings with { ReadOnly = true }, options);
        }
    }

    private static Drive Of(string node, BlockDevice device, OpenSettings settings, string detectZeroes) => new()
    {
        Name = node,
        Media = device,
        FileName = device.FileName,
        IsReadOnly = device.IsReadOnly,
        Discard = settings.Unmap,
        CacheMode = DriveOpener.CacheModeOf(settings, true),
        DetectZeroes = detectZeroes,
        IsNode = true,
    };

    /// <summary>Closes a node that nothing uses. Throws <see cref="MachineException"/>.</summary>
    /// <param name="name">the node.</param>
    /// <param name="isUsed">a device of the machine has it.</param>
    public void Delete(string name, Func<BlockDevice, bool> isUsed)
    {
        if (images.Nodes.Find(name) is not { } device)
            throw new MachineException($"Failed to find node with node-name='{name}'");
        if (isUsed(device))
            throw new MachineException($"Node {name} is in use");
        if (!_nodes.TryGetValue(name, out var drive) || drive.Media == null)
            throw new MachineException($"Node {name} is not owned by the monitor");
        if (device.IsShared)
            throw new MachineException($"Block device {name} is in use");
        if (!device.IsReadOnly)
            device.Flush();
        _nodes.Remove(name);
        device.Dispose();
    }
}
