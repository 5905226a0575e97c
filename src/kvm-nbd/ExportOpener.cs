using ImgKit.Block;
using ImgKit.Block.Filters;
using ImgKit.Block.Jobs.Overlay;
using ImgKit.CommandLine;
using ImgKit.Nbd;

namespace ImgKit.Programs.Nbd;

/// <summary>The image that is exported, and the devices that it takes.</summary>
internal sealed class ExportOpener : IDisposable
{
    private readonly BlockDevice _image;
    private readonly BlockDevice _device;
    private readonly TemporaryOverlay? _overlay;

    private ExportOpener(BlockDevice image, BlockDevice device, TemporaryOverlay? overlay)
    {
        _image = image;
        _device = device;
        _overlay = overlay;
    }

    /// <summary>Opens what the options name.</summary>
    public static ExportOpener Open(ServerOptions options)
    {
        var opener = new ImageOpener { Objects = options.Objects, Warn = Warn, Print = OutputWriter.Error.WriteLine };
        var settings = options.Settings;
        if (options.Snapshot)
            settings = settings with { ReadOnly = true };
        BlockDevice image;
        try
        {
            if (options.NeedsDirect && !settings.Direct)
                throw new ImageException(ImageErrorKind.InvalidArgument,
                    "aio=native was specified, but it requires cache.direct=on, which was not specified.");
            image = options.ImageOpts ? opener.Open(Parse(options.File!), settings) : opener.Open(options.File!, options.Format, settings);
        }
        catch (Exception e) when (e is ImageException or IOException or UnauthorizedAccessException)
        {
            throw new ProgramException($"Failed to blk_new_open '{options.File}': {e.Message}");
        }
        TemporaryOverlay? overlay = null;
        try
        {
            var device = image;
            if (options.Snapshot)
            {
                overlay = TemporaryOverlay.Over(opener, image);
                device = overlay.Disk;
            }
            if (options.LoadSnapshot is { } snapshot)
                device = LoadSnapshot(image, snapshot);
            return new ExportOpener(image, ExportDevice.Of(device, options.Offset), overlay);
        }
        catch
        {
            overlay?.Dispose();
            image.Dispose();
            throw;
        }
    }

    /// <summary>The export.</summary>
    public NbdExport Export(ServerOptions options)
    {
        bool readOnly = options.ReadOnly || _device.IsReadOnly;
        var bitmaps = new List<(string, IBitmapImage)>();
        foreach (string name in options.Bitmaps)
            bitmaps.Add((name, FindBitmap(name, readOnly)));
        return new NbdExport
        {
            Name = options.ExportName,
            Description = options.Description,
            Device = _device,
            ReadOnly = readOnly,
            IsShared = options.Shared != 1,
            AllocationDepth = options.AllocationDepth,
            Bitmaps = bitmaps,
        };
    }

    private IBitmapImage FindBitmap(string name, bool readOnly)
    {
        for (BlockDevice? d = DetectZeroesDevice.Below(_image); d is not null; d = d.Backing)
        {
            if (d is not IBitmapImage image || image.Bitmaps.FirstOrDefault(b => b.Name == name) is not { } bitmap)
                continue;
            if (bitmap.InUse)
                throw new ProgramException($"Bitmap '{name}' is inconsistent and cannot be used\n"
                    + "Try block-dirty-bitmap-remove to delete this bitmap from disk");
            if (bitmap.Auto && readOnly && !d.IsReadOnly)
                throw new ProgramException($"Enabled bitmap '{name}' incompatible with readonly export");
            return image;
        }
        throw new ProgramException($"Bitmap '{name}' is not found");
    }

    private static BlockDevice LoadSnapshot(BlockDevice image, string parameter)
    {
        string name = parameter;
        if (parameter.StartsWith("snapshot.", StringComparison.Ordinal))
        {
            var list = OptionList.Parse(parameter);
            name = list.FirstOrDefault(static p => p.Key == "snapshot.id").Value ?? list.FirstOrDefault(static p => p.Key == "snapshot.name").Value
                ?? throw new ProgramException($"Invalid snapshot parameter '{parameter}'");
        }
        if (DetectZeroesDevice.Below(image) is not ISnapshotImage snapshots)
            throw new ProgramException("Failed to load snapshot: "
                + $"Block format '{image.DriverName}' used by device '' does not support temporarily loading internal snapshots");
        try
        {
            return snapshots.OpenSnapshot(name);
        }
        catch (ImageException e)
        {
            throw new ProgramException($"Failed to load snapshot: {e.Message}");
        }
    }

    private static BlockOptions Parse(string text)
    {
        var options = new BlockOptions();
        foreach (var (name, value) in OptionList.Parse(text, "file", static w => OutputWriter.Error.WriteLine($"{ProgramName.Base}: warning: {w}")))
            options.Set(name, value);
        return options;
    }

    private static void Warn(string text) => OutputWriter.Error.WriteLine($"{ProgramName.Base}: {text}");

    public void Dispose()
    {
        _device.Dispose();
        _overlay?.Dispose();
        _image.Dispose();
    }
}
