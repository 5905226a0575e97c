using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>The snapshot that <c>-l</c> names: by <c>snapshot.id=</c> and <c>snapshot.name=</c>, or by a word that is either.</summary>
internal sealed class SnapshotChoice
{
    private string? _id;
    private string? _name;
    private string? _either;

    /// <summary>Reads the option's value.</summary>
    public static SnapshotChoice Parse(string text)
    {
        if (!text.StartsWith("snapshot.", StringComparison.Ordinal))
            return new SnapshotChoice { _either = text };
        var choice = new SnapshotChoice();
        foreach (var (name, value) in OptionList.Parse(text))
        {
            switch (name)
            {
                case "snapshot.id":
                    choice._id = value;
                    break;
                case "snapshot.name":
                    choice._name = value;
                    break;
                default:
                    Report.Error($"Invalid parameter '{name}'");
                    throw new CommandException($"Failed in parsing snapshot param '{text}'");
            }
        }
        return choice;
    }

    /// <summary>The snapshot's content, as a device that lives as long as the image.</summary>
    public BlockDevice OpenIn(BlockDevice device)
    {
        if (device is not ISnapshotImage image)
            throw new CommandException(
                $"Failed to load snapshot: Block format '{device.DriverName}' used by device '' does not support temporarily loading internal snapshots");
        foreach (var s in image.Snapshots)
        {
            bool fits = _either is not null ? s.Id == _either || s.Name == _either : (_id is null || s.Id == _id) && (_name is null || s.Name == _name);
            if (!fits || (_either is null && _id is null && _name is null))
                continue;
            try
            {
                return image.OpenSnapshot(s.Id);
            }
            catch (ImageException e)
            {
                throw new CommandException($"Failed to load snapshot: {e.Message}");
            }
        }
        throw new CommandException("Failed to load snapshot: Can't find snapshot");
    }
}
