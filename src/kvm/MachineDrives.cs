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
        foreach (var device in devices)
            if (device.Any(v => v is { Key: "share-rw", Value: "on" }) && device.FirstOrDefault(v => v.Key == "drive").Value is { } name)
                Opener.Shared.Add(name);
    }

    /// <summary>Opens media.</summary>
    internal DriveOpener Opener { get; }

    /// <summary>The drives of <c>-drive</c> and its short forms, in place.</summary>
    internal List<DriveOpener.Placed> Placed { get; } = [];

    /// <summary>The drive of an identifier or the node of a name; null when there is none.</summary>
    internal Drive? Find(string id)
    {
        if (_named.GetValueOrDefault(id) is { } found)
            return found;
        // A node inside another's description has no drive yet.
        return _images.Nodes.Find(id) is { } node ? NameNode(id, node, Placeholder(node)) : null;
    }

    private static OpenSettings Placeholder(BlockDevice node) => new() { ReadOnly = node.IsReadOnly };

    /// <summary>Opens everything. Throws <see cref="MachineException"/>, <see cref="ImageException"/>.</summary>
    internal void Open()
    {
        foreach (string text in _settings.BlockDevices)
            With($"-blockdev {text}", () => OpenNode(PropertyList.Parse(text)));
        // Those that say where they go come first, so that the others do not take their place.
        foreach (var spec in _settings.Drives.OrderBy(d => d.Values.Exists(v => v.Key is "index" or "unit" or "bus") ? 0 : 1))
            With(spec.Text, () => OpenDrive(spec));
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

    private void OpenNode(List<KeyValuePair<string, string>> values)
    {
        string? Value(string key) => values.Find(v => v.Key == key).Value;
        string driver = Value("driver") ?? throw new MachineException("Parameter 'driver' is missing");
        if (_images.Drivers.Find(driver) == null)
            throw new MachineException($"Parameter 'driver' does not accept value '{driver}'");
        string node = Value("node-name") ?? throw new MachineException("'node-name' must be specified for the root node");
        if (Value("detect-zeroes") == "unmap" && Value("discard") != "unmap")
            throw new MachineException("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        var options = new BlockOptions();
        foreach (var (key, value) in values)
            options.Set(key, value);
        bool Is(string key) => Value(key) is "on" or "yes" or "true";
        var settings = new OpenSettings
        {
            ReadOnly = Is("read-only"),
            UnshareWrite = !Opener.Shared.Contains(node),
            Unmap = Value("discard") is "unmap" or "on",
            Direct = Is("cache.direct"),
            NoFlush = Is("cache.no-flush"),
        };
        try
        {
            NameNode(node, Opener.OpenImage("", null, settings, options), settings);
        }
        catch (ImageException) when (Is("auto-read-only") && !settings.ReadOnly)
        {
            settings = settings with { ReadOnly = true };
            NameNode(node, Opener.OpenImage("", null, settings, options), settings);
        }
    }

    private Drive NameNode(string node, BlockDevice device, OpenSettings settings) => Name(node, new Drive
    {
        Name = node,
        Media = device,
        FileName = device.FileName,
        IsReadOnly = device.IsReadOnly,
        Discard = settings.Unmap,
        CacheMode = DriveOpener.CacheModeOf(settings, true),
        IsNode = true,
    });

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
        if (!_named.TryAdd(name, drive))
            throw new MachineException($"Duplicate ID '{name}' for drive");
        if (drive.IsNode)
            _all.Add(drive);
        return drive;
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
        foreach (var drive in _all.Concat(machine))
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
