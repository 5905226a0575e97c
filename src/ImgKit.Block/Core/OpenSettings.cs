namespace ImgKit.Block;

/// <summary>How an image is opened. Children of an image are opened with settings derived from its own.</summary>
public sealed record OpenSettings
{
    /// <summary>Read-only, shared with other readers.</summary>
    public static OpenSettings ReadOnlyDefault { get; } = new() { ReadOnly = true };

    /// <summary>Nothing is written.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Do not open the backing file.</summary>
    public bool NoBacking { get; init; }

    /// <summary>Only metadata will be read (<c>info</c>): files that hold data need not be there.</summary>
    public bool NoIo { get; init; }

    /// <summary>Open beside a writer, take no locks that exclude one (<c>-U</c>).</summary>
    public bool ForceShare { get; init; }

    /// <summary>Nobody else may write the image meanwhile, also where the format could bear it (raw): for disks of a virtual
    /// machine, and for what is copied.</summary>
    public bool UnshareWrite { get; init; }

    /// <summary>Opening in order to check or repair: damage that can be repaired is no error.</summary>
    public bool ForCheck { get; init; }

    /// <summary>Bypass the page cache.</summary>
    public bool Direct { get; init; }

    /// <summary>Every write reaches stable storage before it returns (writethrough, directsync).</summary>
    public bool WriteThrough { get; init; }

    /// <summary>Flushes do nothing (cache mode unsafe).</summary>
    public bool NoFlush { get; init; }

    /// <summary>Discards are passed on to storage (discard=unmap).</summary>
    public bool Unmap { get; init; }

    /// <summary>Zeroes written become WriteZeroes: 0 off, 1 on, 2 on and may unmap.</summary>
    public int DetectZeroes { get; init; }

    /// <summary>What is written takes nothing from the clock or from chance (content IDs).</summary>
    public bool Reproducible { get; init; }

    /// <summary>How hard to compress what is written, on the format's own scale; null: its default. Create options (<c>compression_level</c>)
    /// cannot be kept in most images, so whoever opens a new image for filling passes them on here.</summary>
    public int? CompressionLevel { get; init; }

    /// <summary>The image is new and is filled with large writes: space is reserved ahead of them where the file system works faster so.</summary>
    public bool FillsNew { get; init; }

    /// <summary>The depth of a chain, counted to refuse one that is too deep.</summary>
    public int Depth { get; init; }

    /// <summary>Sets the fields that a cache mode stands for.</summary>
    /// <exception cref="ImageException">no such mode.</exception>
    public OpenSettings WithCacheMode(string mode) => mode switch
    {
        "none" or "off" => this with { Direct = true, WriteThrough = false, NoFlush = false },
        "writeback" => this with { Direct = false, WriteThrough = false, NoFlush = false },
        "unsafe" => this with { Direct = false, WriteThrough = false, NoFlush = true },
        "directsync" => this with { Direct = true, WriteThrough = true, NoFlush = false },
        "writethrough" => this with { Direct = false, WriteThrough = true, NoFlush = false },
        _ => throw new ImageException(ImageErrorKind.InvalidArgument, $"Invalid cache option: {mode}"),
    };
}
