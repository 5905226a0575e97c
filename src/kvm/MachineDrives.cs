using ImgKit.Block;
using ImgKit.Machine;
using ImgKit.Machine.Devices.Storage;
using ImgKit.Machine.Devices.Storage.Floppy;

namespace ImgKit.Programs.Kvm;

/// <summary>The drives and block nodes of the command line: opened, by name, and closed at the end.</summary>
internal sealed class MachineDrives : IDisposable
{
    private readonly Settings _settings;
    private readonly ImageOpener _images = new() { Warn = Program.Say, Print = Program.Print };
    private readonly Dictionary<string, Drive> _named = [];
    private readonly List<Drive> _all = [];
    private readonly HashSet<Drive> _replaced = [];

    internal MachineDrives(Settings settings, IEnumerable<IReadOnlyList<KeyValuePair<string, string>>> devices)
    {
        _settings = settings;
        Opener = new DriveOpener(_images) { Warn = Program.Warn };
        Nodes = new NodeOpener(Opener, _images);
        foreach (var device in devices)
            if (device.Any(v => v is { Key: "share-rw", Value: "on" }) && device.FirstOrDefault(v => v.Key == "drive").Value is { } name)
                Opener.Shared.Add(name);
    }

    /// <summary>Opens media.</summary>
    internal DriveOpener Opener { get; }

    /// <summary>The nodes that have names.</summary>
    internal NodeOpener Nodes { get; }

    /// <summary>The drives of <c>-drive</c> and its short forms, in place.</summary>
    internal List<DriveOpener.Placed> Placed { get; } = [];

    /// <summary>The drive of an identifier or the node of a name; null when there is none.</summary>
    internal Drive? Find(string id)
    {
        if (_named.GetValueOrDefault(id) is { } found)
            return found;
        return Nodes.Find(id);
    }

    /// <summary>Opens everything. Throws <see cref="MachineException"/>, <see cref="ImageException"/>.</summary>
    internal void Open()
    {
        foreach (string text in _settings.BlockDevices)
            With($"-blockdev {text}", () => AddNode(PropertyList.Parse(text)));
        // Those that say where they go come first, so that the others do not take their place.
        foreach (var spec in _settings.Drives.OrderBy(d => d.Values.Exists(v => v.Key is "index" or "unit" or "bus") ? 0 : 1))
            With(spec.Text, () => OpenDrive(spec));
    }

    private void AddNode(List<KeyValuePair<string, string>> values)
    {
        var options = new BlockOptions();
        foreach (var (key, value) in values)
            options.Set(key, value);
        Nodes.Add(options);
    }

    // Errors name the option that they are about.
    private static void With(string option, Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (e is MachineException or ImageException or IOException)
        {
            throw new MachineException($"{option}: {e.Message}", e);
        }
    }

    private void OpenDrive(DriveSpec spec)
    {
        if (spec.Values.Exists(v => v is { Key: "format" or "driver", Value: "help" or "?" }))
            throw new Options.HelpRequested($"Supported formats: {string.Join(' ', _images.Drivers.All.Select(d => d.Name).Order(StringComparer.Ordinal))}\n");
        var p = Opener.Open(spec.Values, _settings.Snapshot);
        Placed.Add(p);
        _all.Add(p.Drive);
        if (p.Id != null || p.Interface != DriveInterface.Ide)
            Name(p.Drive.Name, p.Drive);
    }

    private Drive Name(string name, Drive drive)
    {
        return Nodes.Find(name) == null && _named.TryAdd(name, drive) ? drive : throw new MachineException($"Duplicate ID '{name}' for drive");
    }

    /// <summary>The drive has got another object in its place, which the machine lists.</summary>
    internal bool IsReplaced(Drive drive) => _replaced.Contains(drive);

    /// <summary>The floppy drive of <c>-global isa-fdc.driveA=ID</c> (0) or <c>driveB</c> (1); null: none. Throws <see cref="MachineException"/>.</summary>
    internal Drive? GlobalFloppy(int unit)
    {
        string letter = unit == 0 ? "A" : "B";
        if (_settings.Global("isa-fdc", "drive" + letter) is not { } id)
            return null;
        var named = Find(id) ?? throw new MachineException($"Property 'isa-fdc.drive{letter}' can't find value '{id}'");
        named.AttachedTo = $"/machine/unattached/floppy{unit}";
        _replaced.Add(named);
        return new Drive
        {
            Name = named.Name,
            Media = named.Media,
            Overlay = named.Overlay,
            FileName = named.FileName,
            IsRemovable = true,
            IsReadOnly = named.IsReadOnly,
            IsNode = named.IsNode,
            IsNameless = named.IsNode,
            OnReadError = named.OnReadError,
            OnWriteError = named.OnWriteError,
            BootIndex = _settings.Global("isa-fdc", "bootindex" + letter) is { } b && int.TryParse(b, out int n) ? n : named.BootIndex,
        };
    }

    /// <summary>The kind that <c>-global isa-fdc.fdtypeA=</c> gives a floppy drive.</summary>
    internal FloppyDriveKind GlobalFloppyKind(int unit) => FloppyDriveDevice.ParseKind(_settings.Global("isa-fdc", unit == 0 ? "fdtypeA" : "fdtypeB"));

    /// <summary>Closes drives, so that what the guest wrote is in them.</summary>
    /// <param name="machine">the machine's own list: media may have been changed since.</param>
    internal void Close(IEnumerable<Drive> machine)
    {
        var seen = new HashSet<BlockDevice>();
        foreach (var drive in _all.Concat(machine).Concat(Nodes.All))
            if (drive.Media is { } media && seen.Add(media))
                Close(drive, media);
    }

    private static void Close(Drive drive, BlockDevice media)
    {
        try
        {
            if (!media.IsReadOnly)
                media.Flush();
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            Program.Say($"{drive.Name}: {e.Message}");
        }
        media.Dispose();
        drive.Overlay?.Dispose();
    }

    public void Dispose() => Close([]);
}
