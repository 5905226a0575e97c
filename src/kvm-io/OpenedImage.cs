using ImgKit.Block;
using ImgKit.Block.Filters;
using ImgKit.Block.Jobs.Overlay;

namespace ImgKit.Programs.Io;

/// <summary>How an image is to be opened.</summary>
internal sealed record OpenRequest
{
    /// <summary>As given, or null: the options say.</summary>
    public string? FileName { get; init; }

    /// <summary>A driver's name, or null.</summary>
    public string? Format { get; init; }

    /// <summary>Flat options, or null.</summary>
    public BlockOptions? Options { get; init; }

    public OpenSettings Settings { get; init; } = new() { Unmap = true };

    /// <summary>Write to a temporary overlay.</summary>
    public bool Snapshot { get; init; }

    /// <summary>Keep what is read from the backing file.</summary>
    public bool CopyOnRead { get; init; }

    /// <summary>The request as letters change it (<c>-r -s -n -U -C -t -d -i -k</c>, the same for the program and for <c>open</c>).</summary>
    /// <returns>null: the value makes no sense, which has been said.</returns>
    public OpenRequest? With(char letter, string value)
    {
        switch (letter)
        {
            case 'r':
                return this with { Settings = Settings with { ReadOnly = true } };
            case 's':
                return this with { Snapshot = true };
            case 'n':
                return this with { Settings = Settings with { Direct = true, WriteThrough = false, NoFlush = false } };
            case 'U':
                return this with { Settings = Settings with { ForceShare = true } };
            case 'C':
                return this with { CopyOnRead = true };
            case 't':
                return WithCacheMode(value);
            case 'd':
                if (value is not ("ignore" or "off" or "unmap" or "on"))
                    return Invalid("discard", value);
                return this with { Settings = Settings with { Unmap = value is "unmap" or "on" } };
            case 'k':
                return this with { Aio = "native" };
            case 'i':
                return value is "threads" or "native" or "io_uring" ? this with { Aio = value } : Invalid("aio", value);
            default:
                throw new ArgumentOutOfRangeException(nameof(letter));
        }
    }

    /// <summary>The host's way of I/O that was asked for, or null.</summary>
    public string? Aio { get; init; }

    /// <summary>With another cache mode; null: there is no such, which has been said.</summary>
    public OpenRequest? WithCacheMode(string mode)
    {
        try
        {
            return this with { Settings = Settings.WithCacheMode(mode) };
        }
        catch (ImageException)
        {
            return Invalid("cache", mode);
        }
    }

    private static OpenRequest? Invalid(string what, string value)
    {
        Console.Report($"Invalid {what} option: {value}");
        return null;
    }
}

/// <summary>An open image, and how it was opened.</summary>
internal sealed class OpenedImage : IDisposable
{
    private readonly TemporaryOverlay? _overlay;

    private OpenedImage(BlockDevice device, OpenRequest request, TemporaryOverlay? overlay)
    {
        _overlay = overlay;
        Device = device;
        Request = request;
    }

    public BlockDevice Device { get; }

    public OpenRequest Request { get; }

    /// <summary>Opens an image.</summary>
    public static OpenedImage Open(ImageOpener opener, OpenRequest request)
    {
        var settings = request.Settings;
        if (settings.ForceShare && !settings.ReadOnly)
            throw new ImageException(ImageErrorKind.InvalidArgument, "force-share=on can only be used with read-only images");
        if (request.Aio == "native" && !settings.Direct)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                "aio=native was specified, but it requires cache.direct=on, which was not specified.");
        if (request.Snapshot)
            settings = settings with { ReadOnly = true };
        var device = request.FileName is null
            ? opener.Open(request.Options ?? new BlockOptions(), settings)
            : opener.Open(request.FileName, request.Format, settings, request.Options);
        TemporaryOverlay? overlay = null;
        try
        {
            if (request.Snapshot)
            {
                overlay = TemporaryOverlay.Over(opener, device);
                device = overlay.Disk;
            }
            if (request.CopyOnRead)
                device = new CopyOnReadDevice(device);
            return new OpenedImage(device, request, overlay);
        }
        catch
        {
            device.Dispose();
            overlay?.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        Device.Dispose();
        _overlay?.Dispose();
    }
}
