using System.Runtime.CompilerServices;
using System.Text.Json;
using ImgKit.Block;
using ImgKit.Machine.Devices.Storage;

namespace ImgKit.Machine.Monitors;

/// <summary>What programs do to the nodes of the block layer. On the control thread.</summary>
internal static class NodeCommands
{
    private static readonly ConditionalWeakTable<BlockDevice, string> Nameless = [];
    private static int _lastNameless;

    private static NodeOpener Nodes(Pc pc) => pc.NodeOpener ?? throw new CommandException("there are no block nodes here");

    /// <summary>Makes a node.</summary>
    internal static void Add(Pc pc, BlockOptions options) => Guarded(() => Nodes(pc).Add(options));

    /// <summary>Closes a node.</summary>
    internal static void Delete(Pc pc, string name)
    {
        pc.Services.Workers.RunAlone(() => Guarded(() => Nodes(pc).Delete(name, node => pc.Drives.Any(d => d.Media == node))));
    }

    private static void Guarded(Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (e is MachineException or ImageException or IOException)
        {
            throw new CommandException(e.Message);
        }
    }

    /// <summary>Writes all nodes: of drives, of the user's own, and below them.</summary>
    internal static Action<Utf8JsonWriter> Write(Pc pc, bool isFlat) => w =>
    {
        var seen = new HashSet<BlockDevice>();
        w.WriteStartArray();
        foreach (var drive in pc.Drives.Concat(pc.NodeOpener?.All ?? []))
            if (drive.Media is { } top)
                WriteWithThoseBelow(w, drive, top, isFlat, seen);
        w.WriteEndArray();
    };

    private static void WriteWithThoseBelow(Utf8JsonWriter w, Drive drive, BlockDevice node, bool isFlat, HashSet<BlockDevice> seen)
    {
        if (!seen.Add(node))
            return;
        BlockInfo.WriteNode(w, drive, node, NameOf(drive, node), isFlat);
        if (node.Storage is { } storage)
            WriteWithThoseBelow(w, drive, storage, isFlat, seen);
        if (node.Backing is { } backing)
            WriteWithThoseBelow(w, drive, backing, isFlat, seen);
    }

    // Each node has a name; whoever got none is numbered.
    private static string NameOf(Drive drive, BlockDevice node) => node.NodeName ?? (node == drive.Media ? drive.Name
        : Nameless.GetValue(node, _ => $"#block{Interlocked.Increment(ref _lastNameless):000}"));
}
