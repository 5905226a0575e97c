using ImgKit.Block.Filters;

namespace ImgKit.Block;

/// <summary>
/// Opens images, and every file that an image names. It alone knows drivers by name, and it alone decides, through
/// <see cref="Policy"/>, what an image may refer to.
/// </summary>
public sealed class ImageOpener
{
    /// <summary>The longest chain of images that is opened; a loop ends here at the latest.</summary>
    public const int MaxDepth = 200;

    private readonly List<string> _created = [];
    private readonly HashSet<string> _told = new(StringComparer.Ordinal);

    /// <summary>With all drivers and the given policy.</summary>
    public ImageOpener(DriverCatalogue? drivers = null, ReferencePolicy? policy = null)
    {
        Drivers = drivers ?? DriverCatalogue.Default;
        Policy = policy ?? ReferencePolicy.AllowAll;
    }

    /// <summary>What can be opened.</summary>
    public DriverCatalogue Drivers { get; }

    /// <summary>What images may name.</summary>
    public ReferencePolicy Policy { get; }

    /// <summary>Objects that options name by id.</summary>
    public BlockObjects Objects { get; init; } = new();

    /// <summary>The plain files that were created (or emptied) through this opener, in order: what is to be removed when the whole
    /// does not succeed.</summary>
    public IReadOnlyList<string> CreatedFiles => _created;

    /// <summary>The nodes that have names.</summary>
    public BlockNodes Nodes { get; } = new();

    /// <summary>Notes a file that a protocol has created.</summary>
    internal void NoteCreated(string path) => _created.Add(path);

    /// <summary>Receives what went wrong without ending the work (a cache that could not be written at close); programs put their name in front.</summary>
    public Action<string>? Warn { get; init; }

    /// <summary>Receives, once each, what a quiet program need not say: something was asked for that the host cannot do and that was done in
    /// another way (a file system without holes).</summary>
    public Action<string>? Note { get; init; }

    /// <summary>Receives lines that stand by themselves: what a repair found, that a format was guessed.</summary>
    public Action<string>? Print { get; init; }

    /// <summary>Opens a file name: a path, <c>protocol:...</c> or <c>json:{...}</c>.</summary>
    /// <param name="fileName">as the user gave it.</param>
    /// <param name="format">a driver's name, or null to probe.</param>
    /// <param name="settings">how.</param>
    /// <param name="options">more options, flat; may be null.</param>
    public BlockDevice Open(string fileName, string? format, OpenSettings settings, BlockOptions? options = null)
    {
        var all = options?.Clone() ?? new BlockOptions();
        if (fileName.StartsWith("json:", StringComparison.Ordinal))
        {
            foreach (var e in JsonFileName.Parse(fileName).Entries)
                if (!all.Contains(e.Key))
                    all.Set(e.Key, e.Value);
            return OpenTop(all, format, null, settings);
        }
        return OpenTop(all, format, fileName, settings);
    }

    /// <summary>Opens what options describe (<c>--image-opts</c>, <c>-blockdev</c>).</summary>
    public BlockDevice Open(BlockOptions options, OpenSettings settings)
    {
        var all = options.Clone();
        string? fileName = null;
        if (!all.ContainsChild("file") && !all.Contains("file") && all.Get("driver") is not string)
            fileName = all.TakeString("filename");
        return OpenTop(all, null, fileName, settings);
    }

    private BlockDevice OpenTop(BlockOptions options, string? format, string? fileName, OpenSettings settings)
    {
        if (options.TakeString("detect-zeroes") is { } detect)
        {
            settings = settings with
            {
                DetectZeroes = detect switch
                {
                    "off" => 0,
                    "on" => 1,
                    "unmap" => 2,
                    _ => throw new ImageException(ImageErrorKind.InvalidArgument, $"invalid parameter value: {detect}"),
                },
            };
        }
        // The name is that of the whole.
        string? node = options.TakeString("node-name");
        Nodes.Check(node);
        var limits = options.TakeChild("throttling");
        var group = limits.IsEmpty ? null : ThrottleGroup.OfDisk(Objects, limits);
        var device = DetectZeroesDevice.Over(OpenNode(options, format, fileName, settings), settings);
        return Nodes.Add(node, group is null ? device : new ThrottleDevice(device, group));
    }

    /// <summary>Opens a file that an image names, if the policy allows it.</summary>
    /// <param name="kind">why.</param>
    /// <param name="parent">the context of the image that names it.</param>
    /// <param name="name">as it stands in the image.</param>
    /// <param name="format">the format that the image says it has, or null to probe.</param>
    /// <param name="settings">how (depth is counted here).</param>
    /// <param name="options">the user's own options for this child (<c>backing.</c>...), which override the image's words.</param>
    public BlockDevice OpenReference(ReferenceKind kind, OpenContext parent, string name, string? format, OpenSettings settings,
        BlockOptions? options = null)
    {
        if (settings.Depth >= MaxDepth)
            throw new ImageException(ImageErrorKind.Unsupported, $"the chain of images is longer than {MaxDepth}", parent.FileName);
        var all = options?.Clone() ?? new BlockOptions();
        settings = settings with { Depth = settings.Depth + 1 };
        bool userNamesIt = all.ContainsChild("file") || all.Contains("filename") || all.Contains("file.filename");
        if (userNamesIt)
            return OpenNode(all, format, null, settings);
        if (name.StartsWith("json:", StringComparison.Ordinal))
        {
            Gate(new ImageReference(kind, parent.FileName, name, format));
            return Open(name, format, settings, all);
        }
        string resolved = FileNames.Resolve(FileNames.BaseOf(parent.FileName, parent.Storage), name);
        Gate(new ImageReference(kind, parent.FileName, resolved, format));
        return OpenNode(all, format, resolved, settings);
    }

    /// <summary>Opens a child of a filter that has another name than <c>file</c>: by the options <c>NAME.*</c>, or by a file name.</summary>
    /// <param name="parent">the filter's context.</param>
    /// <param name="name">of the child.</param>
    /// <param name="fileName">that the filter's own file name holds, or null.</param>
    /// <param name="asStorage">the child's bytes are meant, not an image in them.</param>
    public BlockDevice OpenChild(OpenContext parent, string name, string? fileName, bool asStorage)
    {
        if (parent.Options.TakeString(name) is { } reference)
            return Nodes.Take(reference);
        var child = parent.Options.TakeChild(name);
        if (fileName is null && child.IsEmpty)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"A block device must be specified for \"{name}\"");
        if (child.Get("driver") is not null)
            return OpenNode(child, null, fileName, parent.Settings, isStorage: asStorage);
        fileName ??= child.TakeString("filename");
        if (!asStorage)
            return OpenNode(child, null, fileName, parent.Settings);
        if (fileName is null)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Must specify either driver or file");
        return OpenByName(child, fileName, parent.Settings);
    }

    /// <summary>Creates or empties a file (by its protocol), of <paramref name="size"/> bytes, and opens it for writing.</summary>
    public BlockDevice CreateFile(string fileName, long size = 0)
    {
        var (driver, options) = ProtocolFor(fileName);
        if (driver.Create is null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Protocol driver '{driver.Name}' does not support image creation", fileName);
        driver.Create(new CreateContext { FileName = fileName, Size = size, Options = options, Opener = this });
        return OpenProtocol(driver, options, fileName, new OpenSettings());
    }

    /// <summary>The protocol that a file name belongs to.</summary>
    public BlockDriver DriverForFile(string fileName) => ProtocolFor(fileName).Driver;

    /// <summary>Passes a note on, each text once.</summary>
    internal void TellOnce(string note)
    {
        if (Note is null)
            return;
        lock (_told)
            if (!_told.Add(note))
                return;
        Note(note);
    }

    private void Gate(ImageReference reference)
    {
        if (Policy.Refuse(reference) is { } why)
            throw new ImageException(ImageErrorKind.Denied, $"'{reference.Image}' names '{reference.Name}', which is not opened: {why}",
                reference.Image);
    }

    private BlockDevice OpenNode(BlockOptions options, string? format, string? fileName, OpenSettings settings, bool isStorage = false)
    {
        string? node = options.TakeString("node-name");
        Nodes.Check(node);
        return Nodes.Add(node, OpenUnnamed(options, format, fileName, settings, isStorage));
    }

    private BlockDevice OpenUnnamed(BlockOptions options, string? format, string? fileName, OpenSettings settings, bool isStorage)
    {
        settings = TakeGeneralOptions(options, settings);
        if (settings is { ForceShare: true, ReadOnly: false })
            throw new ImageException(ImageErrorKind.InvalidArgument, "force-share=on can only be used with read-only images", fileName);
        string? driverName = options.TakeString("driver");
        if (driverName is not null && format is not null && format != driverName)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Driver specified twice", fileName);
        driverName ??= format;
        BlockDriver? driver = null;
        if (driverName is not null)
            driver = Drivers.Find(driverName) ?? throw new ImageException(ImageErrorKind.InvalidArgument, $"Unknown driver '{driverName}'", fileName);

        if (driver is { Kind: DriverKind.Protocol })
            return OpenProtocol(driver, options, fileName, settings);
        if (driver is { Kind: DriverKind.Filter } && fileName is not null && driver.ParseFileName is not null)
        {
            driver.ParseFileName(fileName, options);
            fileName = null;
        }

        var below = driver is { FlushesRequests: true } ? settings with { WriteThrough = false } : settings;
        BlockDevice? storage = OpenStorage(options, fileName, driver, below, isStorage);
        string name = fileName ?? storage?.FileName ?? "";
        try
        {
            bool guessed = false;
            if (driver is null)
            {
                driver = storage is null
                    ? throw new ImageException(ImageErrorKind.InvalidArgument, "Must specify either driver or file")
                    : Drivers.ProbeFormat(storage, name);
                guessed = true;
            }
            var device = OpenFormat(driver, options, name, storage, settings, guessed, isStorage);
            if (guessed && driver.Name == "raw" && !settings.ReadOnly)
                Print?.Invoke($"""
                    WARNING: Image format was not specified for '{name}' and probing guessed raw.
                             Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
                             Specify the 'raw' format explicitly to remove the restrictions.
                    """);
            return device;
        }
        catch
        {
            storage?.Dispose();
            throw;
        }
    }

    private BlockDevice? OpenStorage(BlockOptions options, string? fileName, BlockDriver? driver, OpenSettings settings, bool isStorage)
    {
        if (options.TakeString("file") is { } reference)
            return Nodes.Take(reference);
        var child = options.TakeChild("file");
        if (fileName is null && child.IsEmpty)
        {
            if (driver is { Kind: DriverKind.Filter })
                return null;
            throw new ImageException(ImageErrorKind.InvalidArgument,
                driver is null ? "Must specify either driver or file" : "A block device must be specified for \"file\"");
        }
        // What a filter passes on is an image like any other, unless the filter itself holds an image's bytes.
        bool isImage = driver is { Kind: DriverKind.Filter } && !isStorage;
        if (child.Get("driver") is not null)
        {
            // A format or filter in between has the name's file below itself.
            bool isProtocol = child.Get("driver") is string below && Drivers.Find(below) is { Kind: DriverKind.Protocol };
            if (fileName is not null && isProtocol)
                child.Set("filename", fileName);
            return OpenNode(child, null, isProtocol ? null : fileName, settings, isStorage: !isImage);
        }
        string? name = fileName ?? child.TakeString("filename");
        if (isImage)
            return OpenNode(child, null, name, settings);
        if (name is null)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Must specify either driver or file");
        // A format's file is a protocol; probing another format inside it would be a surprise.
        return OpenByName(child, name, settings);
    }

    /// <summary>Opens the protocol that a file name belongs to, or the filter whose prefix it has, as storage.</summary>
    private BlockDevice OpenByName(BlockOptions options, string fileName, OpenSettings settings)
    {
        var (driver, parsed) = ProtocolFor(fileName);
        string? node = options.TakeString("node-name");
        Nodes.Check(node);
        settings = TakeGeneralOptions(options, settings);
        return Nodes.Add(node, driver.Kind == DriverKind.Filter
            ? OpenFormat(driver, options.With(parsed), fileName, null, settings, isStorage: true)
            : OpenProtocol(driver, options.With(parsed), fileName, settings));
    }

    private BlockDevice OpenProtocol(BlockDriver driver, BlockOptions options, string? fileName, OpenSettings settings)
    {
        if (fileName is not null && options.Get("filename") is null && driver.ParseFileName is not null)
            driver.ParseFileName(fileName, options);
        var context = new OpenContext
        {
            Options = options,
            Settings = settings,
            Opener = this,
            FileName = fileName ?? options.Get("filename") as string ?? "",
        };
        var device = driver.Open(context);
        RefuseLeftOver(driver, options, device);
        if (device.FileName.Length == 0)
            device.FileName = context.FileName;
        return device;
    }

    private BlockDevice OpenFormat(BlockDriver driver, BlockOptions options, string fileName, BlockDevice? storage, OpenSettings settings,
        bool isProbed = false, bool isStorage = false)
    {
        if (driver.Kind == DriverKind.Format && driver.Name != "raw")
            LockForFormat(storage);
        fileName = FileNames.WithoutFilePrefix(fileName);
        var device = driver.Open(new OpenContext
        {
            Options = options,
            Settings = settings,
            Opener = this,
            Storage = storage,
            FileName = fileName,
            IsProbed = isProbed,
            IsStorage = isStorage,
        });
        // The device closes what is below it, and after an error the caller does so, too: a node that others use must not be closed for them.
        if (!options.IsEmpty)
            storage?.AddOwner();
        RefuseLeftOver(driver, options, device);
        if (device.FileName.Length == 0)
            device.FileName = fileName;
        return device;
    }

    /// <summary>Whoever keeps a format's tables in memory must be alone in writing; a filter in between changes nothing.</summary>
    private static void LockForFormat(BlockDevice? storage)
    {
        while (storage is not (null or Protocols.File.FileDevice))
            storage = storage.Storage;
        (storage as Protocols.File.FileDevice)?.LockForFormat();
    }

    private static void RefuseLeftOver(BlockDriver driver, BlockOptions options, BlockDevice device)
    {
        if (options.IsEmpty)
            return;
        device.Dispose();
        throw new ImageException(ImageErrorKind.InvalidArgument,
            driver.Kind == DriverKind.Protocol
                ? $"Block protocol '{driver.Name}' doesn't support the option '{options.Entries[0].Key}'"
                : $"Block format '{driver.Name}' does not support the option '{options.Entries[0].Key}'")
        {
            UnknownOption = options.Path + options.Entries[0].Key,
        };
    }

    /// <summary>The protocol that a file name belongs to, and the options that the name stands for.</summary>
    private (BlockDriver Driver, BlockOptions Options) ProtocolFor(string fileName)
    {
        var options = new BlockOptions();
        if (FileNames.ProtocolOf(fileName) is { } protocol)
        {
            foreach (var d in Drivers.All)
                foreach (string prefix in d.FileNamePrefixes)
                    if (prefix.AsSpan(0, prefix.Length - 1).SequenceEqual(protocol))
                    {
                        if (d.ParseFileName is null)
                            options.Set("filename", fileName);
                        else
                            d.ParseFileName(fileName, options);
                        return (d, options);
                    }
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Unknown protocol '{protocol}'", fileName);
        }
        options.Set("filename", fileName);
        return (Drivers.Get(Protocols.File.FileProtocol.DriverFor(fileName)), options);
    }

    /// <summary>Takes out the options that every node has.</summary>
    private static OpenSettings TakeGeneralOptions(BlockOptions options, OpenSettings settings)
    {
        if (options.TakeBool("read-only") is { } readOnly)
            settings = settings with { ReadOnly = readOnly };
        if (options.TakeBool("auto-read-only") is { } && settings.ReadOnly)
            settings = settings with { ReadOnly = true };
        if (options.TakeBool("force-share") is { } share)
            settings = settings with { ForceShare = share };
        if (options.TakeBool("cache.direct") is { } direct)
            settings = settings with { Direct = direct };
        if (options.TakeBool("cache.no-flush") is { } noFlush)
            settings = settings with { NoFlush = noFlush };
        if (options.TakeString("discard") is { } discard)
            settings = settings with { Unmap = discard is "unmap" or "on" };
        // It has a meaning on top only; below it changes nothing of what is read and written.
        _ = options.TakeString("detect-zeroes");
        return settings;
    }
}
