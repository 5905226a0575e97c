using ImgKit.Block;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>Who writes the nodes of <c>-blockdev</c>, and who does not want others to: two devices of a machine must not write one image without having
/// agreed to it (<c>share-rw</c>), be it by different nodes.</summary>
public sealed class NodeUses
{
    private readonly Dictionary<BlockDevice, string> _writers = [], _unsharers = [];

    /// <summary>Adds a device's use of a node and of those below it that hold its content. Throws <see cref="MachineException"/>.</summary>
    /// <param name="node">the node.</param>
    /// <param name="device">the device, for messages.</param>
    /// <param name="writes">it writes.</param>
    /// <param name="shares">others may write.</param>
    internal void Add(BlockDevice node, string device, bool writes, bool shares)
    {
        string user = $"block device '{device}'", link = "root";
        for (var at = node; at != null; at = at.Storage)
        {
            string name = at.NodeName ?? at.DriverName, use = $"{user} (uses node '{name}' as '{link}' child)";
            if (!shares && _writers.GetValueOrDefault(at) is { } writer)
                throw Conflict(name, writer, use);
            if (writes && _unsharers.GetValueOrDefault(at) is { } unsharer)
                throw Conflict(name, use, unsharer);
            if (writes)
                _writers.TryAdd(at, use);
            if (!shares)
                _unsharers.TryAdd(at, use);
            (user, link) = ($"node '{name}'", "file");
        }
    }

    private static MachineException Conflict(string node, string writer, string unsharer) =>
        new($"Permission conflict on node '{node}': permissions 'write' are both required by {writer} and unshared by {unsharer}.");
}
