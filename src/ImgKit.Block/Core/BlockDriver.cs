namespace ImgKit.Block;

/// <summary>What a driver is for.</summary>
public enum DriverKind
{
    /// <summary>Interprets the bytes of another device (its <c>file</c> child).</summary>
    Format,

    /// <summary>Where bytes live: takes a file name or an address.</summary>
    Protocol,

    /// <summary>A device around a device, that passes its content on.</summary>
    Filter,
}

/// <summary>
/// The one place where a format, protocol or filter is declared: name, probe, open, create and options.
/// Option parsing, <c>-o help</c>, probing, man page and completion read it. See <see cref="DriverCatalogue"/>.
/// </summary>
public sealed class BlockDriver
{
    /// <summary>The name in <c>-f</c>, <c>-O</c> and <c>driver=</c>.</summary>
    public required string Name { get; init; }

    /// <summary>Format, protocol or filter.</summary>
    public required DriverKind Kind { get; init; }

    /// <summary>One line for lists and the manual.</summary>
    public required string Description { get; init; }

    /// <summary>How sure the format is of an image, 0 (not mine) to 100, from its first bytes, its name and, for formats
    /// whose mark is elsewhere, the device. Null: never found by probing.</summary>
    public ProbeImage? Probe { get; init; }

    /// <summary>Prefixes of file names that belong to a protocol, with the colon: <c>nbd:</c>, <c>https:</c>.</summary>
    public IReadOnlyList<string> FileNamePrefixes { get; init; } = [];

    /// <summary>Turns such a file name into options (protocols with prefixes); throws <see cref="ImageException"/>.</summary>
    public Action<string, BlockOptions>? ParseFileName { get; init; }

    /// <summary>Opens a device. Takes the options that it knows out of the context; those left over are an error
    /// that the opener reports.</summary>
    public required Func<OpenContext, BlockDevice> Open { get; init; }

    /// <summary>Options of <see cref="Open"/>, beyond the general ones.</summary>
    public IReadOnlyList<DriverOption> OpenOptions { get; init; } = [];

    /// <summary>Makes a new, empty image; null: this driver cannot.</summary>
    public Action<CreateContext>? Create { get; init; }

    /// <summary>Options of <see cref="Create"/>, in the order in which <c>create</c> shows them (help sorts them).</summary>
    public IReadOnlyList<DriverOption> CreateOptions { get; init; } = [];

    /// <summary>The options that <c>amend</c> takes; empty: this format cannot be amended.</summary>
    public IReadOnlyList<DriverOption> AmendOptions { get; init; } = [];

    /// <summary>Some images of this format can hold compressed clusters (<c>convert -c</c>); a format without is refused before anything
    /// is touched.</summary>
    public bool SupportsCompression { get; init; }

    /// <summary>Images can have a backing file (<c>create -b</c>).</summary>
    public bool SupportsBacking { get; init; }

    /// <summary>Under <see cref="OpenSettings.WriteThrough"/> the format flushes at the end of each request by itself: what is below it need
    /// not sync after every single write.</summary>
    public bool FlushesRequests { get; init; }

    /// <summary>What an image of this format will take for given content (<c>measure</c>); null: not offered.</summary>
    public Func<MeasureContext, MeasureResult>? Measure { get; init; }

    /// <summary>Opens an image that comes front to back through a pipe, as an <see cref="ISequentialImage"/>; gives null, and has taken nothing, when
    /// this one cannot be read so. Null: not offered.</summary>
    public Func<Jobs.Streams.PipeReader, BlockDevice?>? ReadStream { get; init; }

    /// <summary>Writes an image front to back to something that cannot seek (<c>convert ... -</c>); null: not offered.</summary>
    public Action<StreamWriteContext>? WriteStream { get; init; }
}

/// <summary>See <see cref="BlockDriver.Probe"/>.</summary>
/// <param name="head">the first bytes, up to 2048, fewer where the file is shorter.</param>
/// <param name="fileName">as given.</param>
/// <param name="storage">to look elsewhere; reading may throw <see cref="IOException"/>.</param>
public delegate int ProbeImage(ReadOnlySpan<byte> head, string fileName, BlockDevice storage);

/// <summary>The type of an option's value.</summary>
public enum OptionType
{
    /// <summary>Any text.</summary>
    String,

    /// <summary>on or off.</summary>
    Bool,

    /// <summary>A whole number.</summary>
    Number,

    /// <summary>Bytes, with suffix.</summary>
    Size,

    /// <summary>One of <see cref="DriverOption.Values"/>.</summary>
    Enum,
}

/// <summary>An option of a driver.</summary>
/// <param name="Name">as typed before <c>=</c>.</param>
/// <param name="Type">of the value.</param>
/// <param name="Help">a phrase, as <c>-o help</c> prints it.</param>
/// <param name="Default">as text, or null. Of a create option: what <c>create</c> shows when it is not given (the peer shows some
/// defaults and not others).</param>
/// <param name="Values">of an <see cref="OptionType.Enum"/>.</param>
public sealed record DriverOption(string Name, OptionType Type, string Help, string? Default = null, IReadOnlyList<string>? Values = null);

/// <summary>What <see cref="BlockDriver.Open"/> is given.</summary>
public sealed class OpenContext
{
    /// <summary>The options, without general ones; taken out as they are used.</summary>
    public required BlockOptions Options { get; init; }

    /// <summary>How to open.</summary>
    public required OpenSettings Settings { get; init; }

    /// <summary>Opens other files that the image names, and carries the policy.</summary>
    public required ImageOpener Opener { get; init; }

    /// <summary>The device that holds the image's bytes (formats and filters; already open, and now the callee's: it
    /// closes it with itself, and also when opening fails the opener closes it).</summary>
    public BlockDevice? Storage { get; init; }

    /// <summary>The name for messages.</summary>
    public string FileName { get; init; } = "";

    /// <summary>The format was guessed from the content, not named by the user.</summary>
    public bool IsProbed { get; init; }

    /// <summary>The device will hold the bytes of an image (a filter below a format), and not be the image itself.</summary>
    public bool IsStorage { get; init; }

    /// <summary><see cref="Storage"/>, which a format always has.</summary>
    public BlockDevice File => Storage ?? throw new InvalidOperationException("a protocol has no storage");
}

/// <summary>What <see cref="BlockDriver.Create"/> is given.</summary>
public sealed class CreateContext
{
    /// <summary>The new image's name.</summary>
    public required string FileName { get; init; }

    /// <summary>Virtual size in bytes.</summary>
    public required long Size { get; init; }

    /// <summary>The create options by name, parsed; see <see cref="BlockOptions"/>.</summary>
    public required BlockOptions Options { get; init; }

    /// <summary>To create and open the files that the image consists of.</summary>
    public required ImageOpener Opener { get; init; }

    /// <summary>Take nothing from the clock or from chance (CIDs, UUIDs, dates): equal input gives equal bytes.</summary>
    public bool Reproducible { get; init; }

    /// <summary>Creates (or empties) the file <see cref="FileName"/> and opens it for writing; the caller closes it.
    /// The opener removes it again when creating the image fails.</summary>
    public BlockDevice CreateStorage(long size = 0) => Opener.CreateFile(FileName, size);
}

/// <summary>What <see cref="BlockDriver.Measure"/> is given.</summary>
/// <param name="Size">virtual size in bytes.</param>
/// <param name="Options">create options.</param>
/// <param name="Source">whose content counts, or null for an empty image.</param>
/// <param name="BitmapSource">whose persistent bitmaps count, where that is not the source itself: a snapshot has none of its own.</param>
public sealed record MeasureContext(long Size, BlockOptions Options, BlockDevice? Source, BlockDevice? BitmapSource = null);

/// <summary>What an image will take.</summary>
/// <param name="Required">bytes of the file with the content given.</param>
/// <param name="FullyAllocated">bytes of the file when every cluster is allocated.</param>
/// <param name="Bitmaps">bytes for persistent bitmaps, or null.</param>
public readonly record struct MeasureResult(long Required, long FullyAllocated, long? Bitmaps = null);

/// <summary>What <see cref="BlockDriver.WriteStream"/> is given.</summary>
public sealed class StreamWriteContext
{
    /// <summary>The content.</summary>
    public required BlockDevice Source { get; init; }

    /// <summary>Receives the image's bytes in order.</summary>
    public required Stream Output { get; init; }

    /// <summary>Create options.</summary>
    public required BlockOptions Options { get; init; }

    /// <summary>Store compressed, where the format leaves the choice.</summary>
    public bool Compress { get; init; }

    /// <summary>Threads for compressing, at least 1.</summary>
    public int Threads { get; init; } = 1;

    /// <summary>Nothing from the clock or from chance.</summary>
    public bool Reproducible { get; init; }

    /// <summary>Told the bytes of <see cref="Source"/> that are done.</summary>
    public IProgress<long>? Progress { get; init; }

    /// <summary>Receives the content on its way, or null.</summary>
    public Jobs.Digest.ContentDigest? Digest { get; init; }

    /// <summary>To stop.</summary>
    public CancellationToken Cancellation { get; init; }
}
