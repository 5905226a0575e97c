using ImgKit.Block;
using ImgKit.Block.Filters;
using ImgKit.Block.Jobs.Commit;
using ImgKit.Block.Jobs.Overlay;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>Opens the images of drives as <c>-drive</c> describes them.</summary>
public sealed class DriveOpener(ImageOpener opener)
{
    /// <summary>A drive and its place.</summary>
    /// <param name="Drive">the drive, opened.</param>
    /// <param name="Interface">what it plugs into.</param>
    /// <param name="Index">place there; -1: none of its own.</param>
    /// <param name="Id">identifier that the user gave, or null.</param>
    public sealed record Placed(Drive Drive, DriveInterface Interface, int Index, string? Id);

    private readonly Dictionary<DriveInterface, HashSet<int>> _taken = [];

    /// <summary>Receives warnings: one line each.</summary>
    public Action<string>? Warn { get; init; }

    /// <summary>Drives that others may write, too: identifiers or node names (<c>share-rw=on</c> of their devices).</summary>
    public HashSet<string> Shared { get; } = [];

    /// <summary>Opens what a list of names and values describes. Throws <see cref="MachineException"/> or <see cref="ImageException"/>.</summary>
    /// <param name="values">as after <c>-drive</c>.</param>
    /// <param name="snapshot">write to a temporary file.</param>
    public Placed Open(IReadOnlyList<KeyValuePair<string, string>> values, bool snapshot)
    {
        var d = DriveDescription.Parse(values, snapshot);
        var kind = d.Interface;
        int index = TakePlace(kind, d.Index);
        string type = d.IsCdRom ? "cd" : "hd";
        string name = d.Id ?? kind switch
        {
            DriveInterface.Ide => $"ide{index / 2}-{type}{index % 2}",
            DriveInterface.Floppy => $"floppy{index}",
            DriveInterface.Scsi => $"scsi{index / 7}-{type}{index % 7}",
            DriveInterface.Virtio => $"virtio{index}",
            DriveInterface.Pflash => $"pflash{index}",
            _ => $"none{index}",
        };
        var limits = LimitsOf(d.Options);
        BlockDevice? device = null;
        TemporaryOverlay? overlay = null;
        if (d.File is { Length: > 0 } || (d.File == null && !d.Options.IsEmpty))
            (device, overlay) = OpenMedia(d, Shared.Contains(name) ? d.Settings with { UnshareWrite = false } : d.Settings);
        else if (!d.IsCdRom && kind is not (DriveInterface.Floppy or DriveInterface.None))
            throw new MachineException("Device needs media, but drive is empty");
        var drive = new Drive
        {
            Name = name,
            Media = device,
            Overlay = overlay,
            FileName = d.File ?? device?.FileName ?? "",
            IsCdRom = d.IsCdRom,
            IsRemovable = d.IsCdRom || kind == DriveInterface.Floppy,
            IsReadOnly = d.IsReadOnly || device is { IsReadOnly: true },
            Serial = d.Serial,
            OnReadError = d.OnReadError,
            OnWriteError = d.OnWriteError,
            Discard = d.Settings.Unmap,
            WriteCache = d.WriteCache,
            CacheMode = CacheModeOf(d.Settings, d.WriteCache),
            DetectZeroes = d.Settings.DetectZeroes switch { 0 => "off", 1 => "on", _ => "unmap" },
            Limits = limits,
            BootIndex = d.BootIndex,
        };
        return new Placed(drive, kind, index, d.Id);
    }

    private static Dictionary<string, long> LimitsOf(BlockOptions options)
    {
        const string Prefix = "throttling.";
        var limits = new Dictionary<string, long>();
        foreach (var (key, value) in options.Entries)
            if (key.StartsWith(Prefix, StringComparison.Ordinal) && SizeText.TryParse(value.ToString() ?? "", out long n, 1))
                limits[key[Prefix.Length..]] = n;
        return limits;
    }

    /// <summary>How <c>info block</c> calls a cache mode.</summary>
    public static string CacheModeOf(OpenSettings settings, bool writeBack) =>
        (writeBack ? "writeback" : "writethrough") + (settings.Direct ? ", direct" : "") + (settings.NoFlush ? ", ignore flushes" : "");

    private (BlockDevice Device, TemporaryOverlay? Overlay) OpenMedia(DriveDescription d, OpenSettings settings)
    {
        TemporaryOverlay? overlay = null;
        if (d is { Snapshot: true, IsReadOnly: false })
            overlay = OpenOverlay(d.File ?? "", d.Format, settings, d.Options);
        var device = overlay?.Disk ?? OpenImage(d.File ?? "", d.Format, settings with { ReadOnly = d.IsReadOnly }, d.Options, d.Interface == DriveInterface.Floppy);
        if (!d.CopyOnRead)
            return (device, overlay);
        if (device.IsReadOnly)
        {
            Warn?.Invoke("disabling copy-on-read on read-only drive");
            return (device, overlay);
        }
        return (new CopyOnReadDevice(device), overlay);
    }

    private int TakePlace(DriveInterface kind, int index)
    {
        var taken = _taken.TryGetValue(kind, out var set) ? set : _taken[kind] = [];
        if (index >= 0)
        {
            int units = kind == DriveInterface.Scsi ? 7 : kind is DriveInterface.Ide or DriveInterface.Floppy ? 2 : 1;
            return taken.Add(index) ? index : throw new MachineException($"drive with bus={index / units}, unit={index % units} (index={index}) exists");
        }
        for (index = 0; !taken.Add(index);)
            index++;
        if (kind == DriveInterface.Ide && index > 3)
            throw new MachineException($"machine type does not support if=ide,bus={index / 2},unit={index % 2}");
        if (kind == DriveInterface.Floppy && index > 1)
            throw new MachineException("machine type does not support if=floppy,bus=1,unit=0");
        if (kind == DriveInterface.Pflash && index > 1)
            throw new MachineException($"machine type does not support if=pflash,bus=0,unit={index}");
        return index;
    }

    /// <summary>Opens a file, or what <c>-blockdev</c> options describe when <paramref name="file"/> is empty.</summary>
    public BlockDevice OpenImage(string file, string? format, OpenSettings settings, BlockOptions options, bool maybeReadOnly = false)
    {
        if (file.Length == 0 && format != null)
        {
            options = options.Clone();
            options.Set("driver", format);
        }
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

    // The image below is read only, so that others may read it, too, until the monitor's commit opens it for writing.
    private TemporaryOverlay OpenOverlay(string file, string? format, OpenSettings settings, BlockOptions options)
    {
        BlockDevice Open(bool readOnly) => OpenImage(file, format, settings with { ReadOnly = readOnly, Unmap = !readOnly && settings.Unmap, DetectZeroes = 0 }, options);
        return TemporaryOverlay.Over(opener, Open(true), reopen: Open);
    }

    /// <summary>Writes what a drive's overlay, temporary or not, holds into the image below.</summary>
    public void Commit(Drive drive)
    {
        if (drive.Overlay != null)
            drive.Overlay.Commit();
        else
            CommitJob.Run(opener, new CommitRequest { Top = FilterDevice.ImageBelow(drive.Media!) });
    }
}
