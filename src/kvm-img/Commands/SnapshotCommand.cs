using System.Runtime.InteropServices;
using System.Text;
using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>snapshot</c>: internal snapshots.</summary>
internal sealed class SnapshotCommand : Command
{
    private const string NoSuchFile = "No such file or directory";

    protected override CommandSpec Declare() => new()
    {
        Name = "snapshot",
        Summary = "List, create, apply or delete internal snapshots",
        Operands = "FILE",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('l', "list", null, "list the snapshots (the default)"),
            new('c', "create", "SNAPSHOT", "create one of this name"),
            new('a', "apply", "SNAPSHOT", "make the disk's content that of one, found by id or name"),
            new('d', "delete", "SNAPSHOT", "delete one, found by name"),
            CommonOptions.ForceShareOption,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        int action = 0;
        string name = "";
        var operands = Parse(arguments, common, (id, value) =>
        {
            if (action != 0)
                throw new UsageException("Cannot mix '-l', '-a', '-c', '-d'");
            action = id;
            name = value;
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        bool list = action is 0 or 'l';
        using var device = ImageAccess.Open(common, operands[0], new OpenSettings { ReadOnly = list });
        var image = device as ISnapshotImage;
        switch (action)
        {
            case 0 or 'l':
                if (image is { Snapshots.Count: > 0 })
                {
                    var s = new StringBuilder();
                    InfoText.AppendSnapshots(s, image.Snapshots);
                    OutputWriter.Out.Write(s.ToString());
                }
                break;
            case 'c':
                Create(image, name);
                break;
            case 'a':
                Apply(image, name);
                break;
            case 'd':
                Delete(image, name);
                break;
        }
        return 0;
    }

    private static void Create(ISnapshotImage? image, string name)
    {
        const int notSupported = 95, ioError = 5;
        if (image is null)
            throw new CommandException($"Could not create snapshot '{name}': -{notSupported} (Operation not supported)");
        try
        {
            image.CreateSnapshot(name, DateTimeOffset.UtcNow);
        }
        catch (ImageException e)
        {
            throw new CommandException($"Could not create snapshot '{name}': -{(e.Errno > 0 ? e.Errno : ioError)} ({e.Message})");
        }
    }

    private static void Apply(ISnapshotImage? image, string name)
    {
        if (image is null)
            throw new CommandException($"Could not apply snapshot '{name}': Block driver does not support snapshots");
        // What differs from then on from what was backed up last, no bitmap knows.
        if (image is IBitmapImage { Bitmaps.Count: > 0 })
            throw new CommandException($"Could not apply snapshot '{name}': Device has active dirty bitmaps");
        try
        {
            image.ApplySnapshot(name);
        }
        catch (ImageException e)
        {
            string why = e.Kind == ImageErrorKind.NotFound ? NoSuchFile : e.Errno > 0 ? Marshal.GetPInvokeErrorMessage(e.Errno) : e.Message;
            throw new CommandException($"Could not apply snapshot '{name}': Failed to load snapshot: {why}");
        }
    }

    /// <summary>By name alone, as the peer: an id may be another snapshot's name.</summary>
    private static void Delete(ISnapshotImage? image, string name)
    {
        string? id = image?.Snapshots.FirstOrDefault(s => s.Name == name)?.Id;
        if (image is null || id is null)
            throw new CommandException($"Could not delete snapshot '{name}': snapshot not found");
        try
        {
            image.DeleteSnapshot(id);
        }
        catch (ImageException e)
        {
            throw new CommandException($"Could not delete snapshot '{name}': {e.Message}");
        }
    }
}
