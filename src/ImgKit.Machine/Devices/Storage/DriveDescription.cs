using System.Globalization;
using ImgKit.Block;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>What a drive plugs into.</summary>
public enum DriveInterface
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

    /// <summary>Flash memory with the firmware (unit 0), and what it keeps (unit 1).</summary>
    Pflash,
}

/// <summary>A drive as <c>-drive</c> describes it, before anything is opened.</summary>
internal sealed class DriveDescription
{
    // Names of the limits before they were called throttling.*
    private static readonly (string Old, string New)[] Limits =
    [
        ("bps", "bps-total"), ("bps_rd", "bps-read"), ("bps_wr", "bps-write"), ("iops", "iops-total"), ("iops_rd", "iops-read"), ("iops_wr", "iops-write"),
        ("bps_max", "bps-total-max"), ("bps_rd_max", "bps-read-max"), ("bps_wr_max", "bps-write-max"),
        ("iops_max", "iops-total-max"), ("iops_rd_max", "iops-read-max"), ("iops_wr_max", "iops-write-max"), ("iops_size", "iops-size"), ("group", "group"),
    ];

    /// <summary>Those without bursts, by both names.</summary>
    internal static ReadOnlySpan<(string Old, string New)> PlainLimits => Limits.AsSpan(0, 6);

    private bool? _writeBack;
    private bool _errorsGiven;
    private int _bus = -1, _unit = -1;

    internal string? File { get; private set; }

    internal string? Format { get; private set; }

    internal string? Id { get; private set; }

    internal string? Serial { get; private set; }

    internal DriveInterface Interface { get; private set; }

    /// <summary>Place on its interface; -1: the first that is free.</summary>
    internal int Index { get; private set; } = -1;

    internal int BootIndex { get; private set; } = -1;

    internal bool IsCdRom { get; private set; }

    internal bool IsReadOnly { get; private set; }

    internal bool Snapshot { get; private set; }

    internal bool CopyOnRead { get; private set; }

    internal ErrorPolicy OnReadError { get; private set; } = ErrorPolicy.Report;

    internal ErrorPolicy OnWriteError { get; private set; } = ErrorPolicy.StopOnNoSpace;

    /// <summary>How the image is opened. Writes through the cache are the device's to make: it flushes when its own cache is off.</summary>
    internal OpenSettings Settings { get; private set; } = new() { UnshareWrite = true };

    /// <summary>The guest's device begins with its write cache on.</summary>
    internal bool WriteCache => _writeBack ?? true;

    /// <summary>Options of the format and of what is below it.</summary>
    internal BlockOptions Options { get; } = new();

    /// <summary>Devices on a bus of the interface.</summary>
    private int MostUnits => Interface switch { DriveInterface.Scsi => 7, DriveInterface.Ide or DriveInterface.Floppy => 2, _ => 0 };

    /// <summary>Takes a list of names and values. Throws <see cref="MachineException"/>.</summary>
    internal static DriveDescription Parse(IReadOnlyList<KeyValuePair<string, string>> values, bool snapshot)
    {
        var drive = new DriveDescription { Snapshot = snapshot };
        // cache= comes first, so that cache.direct= and its kind say more.
        foreach (var (_, value) in values.Where(v => v.Key == "cache"))
            drive.SetCacheMode(value);
        foreach (var (key, value) in values)
            drive.Take(key, value);
        drive.Check();
        return drive;
    }

    private void SetCacheMode(string mode)
    {
        try
        {
            Settings = Settings.WithCacheMode(mode);
        }
        catch (ImageException)
        {
            throw new MachineException("invalid cache option");
        }
        _writeBack = !Settings.WriteThrough;
        Settings = Settings with { WriteThrough = false };
    }

    private void Take(string key, string value)
    {
        switch (key)
        {
            case "file":
                File = value;
                break;
            case "format" or "driver":
                Format = value;
                break;
            case "if":
                Interface = value switch
                {
                    "ide" => DriveInterface.Ide,
                    "floppy" => DriveInterface.Floppy,
                    "scsi" => DriveInterface.Scsi,
                    "virtio" => DriveInterface.Virtio,
                    "none" => DriveInterface.None,
                    "pflash" => DriveInterface.Pflash,
                    "mtd" or "sd" or "xen" => throw new MachineException($"machine type does not support if={value},bus=0,unit=0"),
                    _ => throw new MachineException($"unsupported bus type '{value}'"),
                };
                break;
            case "index":
                Index = Number(key, value);
                break;
            case "bus":
                _bus = Number(key, value);
                break;
            case "unit":
                _unit = Number(key, value);
                break;
            case "media":
                IsCdRom = value is "cdrom" or "disk" ? value == "cdrom" : throw new MachineException($"'{value}' invalid media");
                break;
            case "id":
                Id = value;
                break;
            case "serial":
                Serial = value;
                break;
            case "bootindex":
                BootIndex = Number(key, value);
                break;
            case "snapshot":
                Snapshot = Flag(key, value);
                break;
            case "readonly" or "read-only":
                IsReadOnly = Flag(key, value);
                break;
            case "copy-on-read":
                CopyOnRead = Flag(key, value);
                break;
            case "cache":
                break;
            case "cache.writeback":
                _writeBack = Flag(key, value);
                break;
            case "cache.direct":
                Settings = Settings with { Direct = Flag(key, value) };
                break;
            case "cache.no-flush":
                Settings = Settings with { NoFlush = Flag(key, value) };
                break;
            case "discard":
                Settings = Settings with
                {
                    Unmap = value is "unmap" or "on" || (value is "ignore" or "off" ? false : throw new MachineException("Invalid discard option")),
                };
                break;
            case "detect-zeroes":
                Settings = Settings with
                {
                    DetectZeroes = value switch { "off" => 0, "on" => 1, "unmap" => 2, _ => throw new MachineException($"invalid parameter value: {value}") },
                };
                break;
            case "rerror" or "werror" when Policy(value, key == "werror") is var policy:
                if (key == "rerror")
                    OnReadError = policy;
                else
                    OnWriteError = policy;
                _errorsGiven = true;
                break;
            case "aio":
                // Requests run on threads, whatever is asked for; what may be asked for is the same.
                if (value is not ("threads" or "native" or "io_uring"))
                    throw new MachineException("invalid aio option");
                _aio = value;
                break;
            case "auto-read-only":
                _ = Flag(key, value);
                break;
            default:
                if (Array.Find(Limits, l => l.Old == key) is { New: { } name })
                {
                    if (Options.Contains("throttling." + name))
                        throw new MachineException($"'throttling.{name}' and its alias '{key}' can't be used at the same time");
                    _aliases["throttling." + name] = key;
                    key = "throttling." + name;
                }
                else if (_aliases.TryGetValue(key, out string? alias))
                    throw new MachineException($"'{key}' and its alias '{alias}' can't be used at the same time");
                Options.Set(key, value);
                break;
        }
    }

    private readonly Dictionary<string, string> _aliases = [];
    private string _aio = "threads";

    private static ErrorPolicy Policy(string value, bool write) => value switch
    {
        "report" => ErrorPolicy.Report,
        "ignore" => ErrorPolicy.Ignore,
        "stop" => ErrorPolicy.Stop,
        "enospc" when write => ErrorPolicy.StopOnNoSpace,
        _ => throw new MachineException($"'{value}' invalid {(write ? "write" : "read")} error action"),
    };

    private void Check()
    {
        if (_aio == "native" && !Settings.Direct)
            throw new MachineException("aio=native was specified, but it requires cache.direct=on, which was not specified.");
        if (_errorsGiven && Interface == DriveInterface.Floppy)
            throw new MachineException("werror is not supported by this bus type");
        if (Settings is { DetectZeroes: 2, Unmap: false })
            throw new MachineException("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        IsReadOnly |= IsCdRom;
        int most = MostUnits;
        if (_bus >= 0 || _unit >= 0)
        {
            if (Index >= 0)
                throw new MachineException("index cannot be used with bus and unit");
            if (most > 0 && _unit >= most)
                throw new MachineException($"unit {_unit} too big (max is {most - 1})");
            Index = Math.Max(0, _bus) * Math.Max(1, most) + Math.Max(0, _unit);
        }
        if (Index >= (Interface switch { DriveInterface.Ide => 4, DriveInterface.Floppy or DriveInterface.Pflash => 2, DriveInterface.Scsi => 28, _ => int.MaxValue }))
            throw new MachineException($"machine type does not support if={Interface.ToString().ToLowerInvariant()},bus={(most == 0 ? 0 : Index / most)},unit={(most == 0 ? Index : Index % most)}");
    }

    private static int Number(string key, string value) =>
        int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n < 256 ? n
            : throw new MachineException($"Parameter '{key}' expects a number");

    private static bool Flag(string key, string value) => value switch
    {
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new MachineException($"Parameter '{key}' expects 'on' or 'off'"),
    };
}
