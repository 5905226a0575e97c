using ImgKit.Block;
using ImgKit.Block.Jobs.Commit;
using ImgKit.Block.Jobs.Overlay;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>Opens the images of drives as <c>-drive</c> describes them.</summary>
public sealed class DriveOpener(ImageOpener opener)
{
    /// <summary>Where a drive plugs in.</summary>
    public enum Interface
    {
        /// <summary>IDE.</summary>
        Ide,

        /// <summary>Floppy.</summary>
        Floppy,

        /// <summary>SCSI.</summary>
        Scsi,

        /// <summary>A virtio-blk device of its own.</summary>
        Virtio,

        /// <summary>None: a -device names it.</summary>
        None,
    }

    /// <summary>A drive and its place.</summary>
    /// <param name="Drive">the drive, opened.</param>
    /// <param name="Interface">what it plugs into.</param>
    /// <param name="Index">place there; -1: the first that is free.</param>
    /// <param name="Id">identifier that the user gave, or null.</param>
    public sealed record Placed(Drive Drive, Interface Interface, int Index, string? Id);

    private readonly Dictionary<Interface, HashSet<int>> _taken = [];

    /// <summary>Opens what a list of names and values describes. Throws <see cref="MachineException"/> or <see cref="ImageException"/>.</summary>
    /// <param name="values">as after <c>-drive</c>.</param>
    /// <param name="snapshot">write to a temporary file.</param>
    public Placed Open(IReadOnlyList<KeyValuePair<string, string>> values, bool snapshot)
    {
        var settings = new OpenSettings();
        var options = new BlockOptions();
        string? file = null, format = null, id = null, serial = null, media = null;
        var kind = Interface.Ide;
        int index = -1, bus = -1, unit = -1, boot = -1;
        bool readOnly = false, discard = false;
        var onRead = ErrorPolicy.Report;
        var onWrite = ErrorPolicy.StopOnNoSpace;
        foreach (var (key, value) in values)
            switch (key)
            {
                case "file":
                    file = value;
                    break;
                case "format" or "driver":
                    format = value;
                    break;
                case "if":
                    kind = value switch
                    {
                        "ide" => Interface.Ide,
                        "floppy" => Interface.Floppy,
                        "scsi" => Interface.Scsi,
                        "virtio" => Interface.Virtio,
                        "none" => Interface.None,
                        _ => throw new MachineException($"unsupported bus type '{value}'"),
                    };
                    break;
                case "index":
                    index = Number(key, value);
                    break;
                case "bus":
                    bus = Number(key, value);
                    break;
                case "unit":
                    unit = Number(key, value);
                    break;
                case "media" when value is "disk" or "cdrom":
                    media = value;
                    break;
                case "id":
                    id = value;
                    break;
                case "serial":
                    serial = value;
                    break;
                case "bootindex":
                    boot = Number(key, value);
                    break;
                case "snapshot":
                    snapshot = Flag(key, value);
                    break;
                case "readonly" or "read-only":
                    readOnly = Flag(key, value);
                    break;
                case "cache":
                    settings = settings.WithCacheMode(value);
                    break;
                case "discard" when value is "ignore" or "off" or "unmap" or "on":
                    discard = value is "unmap" or "on";
                    settings = settings with { Unmap = discard };
                    break;
                case "detect-zeroes" when value is "off" or "on" or "unmap":
                    settings = settings with { DetectZeroes = value switch { "on" => 1, "unmap" => 2, _ => 0 } };
                    break;
                case "rerror" when value is "report" or "ignore" or "stop":
                    onRead = value switch { "ignore" => ErrorPolicy.Ignore, "stop" => ErrorPolicy.Stop, _ => ErrorPolicy.Report };
                    break;
                case "werror" when value is "report" or "ignore" or "stop" or "enospc":
                    onWrite = value switch
                    {
                        "ignore" => ErrorPolicy.Ignore,
                        "stop" => ErrorPolicy.Stop,
                        "report" => ErrorPolicy.Report,
                        _ => ErrorPolicy.StopOnNoSpace,
                    };
                    break;
                case "media" or "discard" or "detect-zeroes" or "rerror" or "werror":
                    throw new MachineException($"'{value}' invalid {key}");
                case "aio" or "copy-on-read" or "auto-read-only" or "addr":
                    break;
                default:
                    // Options of the format and of what is below it.
                    options.Set(key, value);
                    break;
            }
        if (bus >= 0 || unit >= 0)
        {
            if (index >= 0)
                throw new MachineException("index cannot be used with bus and unit");
            index = Math.Max(0, bus) * 2 + Math.Max(0, unit);
        }
        if (kind is Interface.Ide or Interface.Floppy && index >= 0 && !Taken(kind).Add(index))
            throw new MachineException($"drive with bus={index / 2}, unit={index % 2} (index={index}) exists");
        if (kind is Interface.Ide && index < 0)
        {
            index = 0;
            while (!Taken(kind).Add(index))
                index++;
        }
        if (kind is Interface.Floppy && index < 0)
        {
            index = 0;
            while (!Taken(kind).Add(index))
                index++;
        }
        bool cd = media == "cdrom";
        if (cd)
            readOnly = true;
        string name = id ?? kind switch
        {
            Interface.Ide => $"ide{index / 2}-{(cd ? "cd" : "hd")}{index % 2}",
            Interface.Floppy => $"floppy{index}",
            Interface.Scsi => $"scsi0-{(cd ? "cd" : "hd")}{Next(kind)}",
            Interface.Virtio => $"virtio{Next(kind)}",
            _ => $"none{Next(kind)}",
        };
        BlockDevice? device = null;
        TemporaryOverlay? overlay = null;
        if (file is { Length: > 0 } || (file == null && !options.IsEmpty))
        {
            if (snapshot && !readOnly)
                overlay = OpenOverlay(file ?? "", format, settings, options);
            device = overlay?.Disk ?? OpenImage(file ?? "", format, settings with { ReadOnly = readOnly }, options, kind == Interface.Floppy);
        }
        else if (!cd && kind is not (Interface.Floppy or Interface.None))
            throw new MachineException($"Device needs media, but drive is empty");
        var drive = new Drive
        {
            Name = name,
            Media = device,
            Overlay = overlay,
            FileName = file ?? device?.FileName ?? "",
            IsCdRom = cd,
            IsRemovable = cd || kind == Interface.Floppy,
            IsReadOnly = readOnly || device is { IsReadOnly: true },
            Serial = serial,
            OnReadError = onRead,
            OnWriteError = onWrite,
            Discard = discard,
            BootIndex = boot,
        };
        return new Placed(drive, kind, index, id);
    }

    private HashSet<int> Taken(Interface kind) => _taken.TryGetValue(kind, out var set) ? set : _taken[kind] = [];

    private int Next(Interface kind)
    {
        int n = Taken(kind).Count;
        Taken(kind).Add(n);
        return n;
    }

    /// <summary>Opens a file, or what <c>-blockdev</c> options describe when <paramref name="file"/> is empty.</summary>
    public BlockDevice OpenImage(string file, string? format, OpenSettings settings, BlockOptions options, bool maybeReadOnly = false)
    {
        try
        {
            return file.Length > 0 ? opener.Open(file, format, settings, options) : opener.Open(options, settings);
        }
        catch (ImageException) when (maybeReadOnly && !settings.ReadOnly && File.Exists(file) && !IsWritable(file))
        {
            return OpenImage(file, format, settings with { ReadOnly = true }, options);
        }
    }

    private static bool IsWritable(string file)
    {
        try
        {
            using var _ = new FileStream(file, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    // The image below is open for writing where it can be, so that the monitor's commit works; nothing else writes to it.
    private TemporaryOverlay OpenOverlay(string file, string? format, OpenSettings settings, BlockOptions options)
    {
        BlockDevice original;
        try
        {
            original = OpenImage(file, format, settings, options);
        }
        catch (Exception e) when (e is ImageException or IOException && !settings.ReadOnly)
        {
            original = OpenImage(file, format, settings with { ReadOnly = true }, options);
        }
        return TemporaryOverlay.Over(opener, original);
    }

    /// <summary>Writes what a drive's overlay, temporary or not, holds into the image below.</summary>
    public void Commit(Drive drive)
    {
        if (drive.Overlay != null)
            drive.Overlay.Commit();
        else
            CommitJob.Run(opener, new CommitRequest { Top = drive.Media! });
    }

    private static int Number(string key, string value) =>
        int.TryParse(value, System.Globalization.NumberStyles.None, null, out int n) && n < 256 ? n
            : throw new MachineException($"Parameter '{key}' expects a number");

    private static bool Flag(string key, string value) => value switch
    {
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new MachineException($"Parameter '{key}' expects 'on' or 'off'"),
    };
}
