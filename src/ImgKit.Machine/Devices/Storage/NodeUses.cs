using ImgKit.Block;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>Who writes the nodes of <c>-blockdev</c>, and who does not want others to: two devices of a machine must not write one image without having
/// agreed to it (<c>share-rw</c>), be it by different nodes.</summary>
public sealed class NodeUses
{
    private sealed record Use(string Device, BlockDevice Node, string Text, bool Writes, bool Shares);

    private readonly List<Use> _uses = [];

    /// <summary>Adds a device's use of a node and of those below it that hold its content. Throws <see cref="MachineException"/>.</summary>
    /// <param name="node">the node.</param>
    /// <param name="device">the device, for messages.</param>
    /// <param name="writes">it writes.</param>
    /// <param name="shares">others may write.</param>
    internal void Add(BlockDevice node, string device, bool writes, bool shares)
    {
        var added = new List<Use>();
        string user = $"block device '{device}'", link = "root";
        for (var at = node; at != null; at = at.Storage)
        {
            string name = at.NodeName ?? at.DriverName;
            var use = new Use(device, at, $"{user} (uses node '{name}' as '{link}' child)", writes, shares);
            foreach (var other in _uses)
                if (other.Node == at && !shares && other.Writes)
                    throw Conflict(name, other, use);
                else if (other.Node == at && writes && !other.Shares)
                    throw Conflict(name, use, other);
            added.Add(use);
            (user, link) = ($"node '{name}'", "file");
        }
        _uses.AddRange(added);
    }

    /// <summary>A device does not use what it used any more.</summary>
    internal void Remove(string device) => _uses.RemoveAll(u => u.Device == device);

    private static MachineException Conflict(string node, Use writer, Use unsharer) =>
        new($"Permission conflict on node '{node}': permissions 'write' are both required by {writer.Text} and unshared by {unsharer.Text}.");
}
