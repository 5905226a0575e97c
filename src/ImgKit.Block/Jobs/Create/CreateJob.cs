namespace ImgKit.Block.Jobs.Create;

/// <summary>What <see cref="CreateJob"/> makes.</summary>
public sealed record CreateRequest
{
    /// <summary>The new image's name.</summary>
    public required string FileName { get; init; }

    /// <summary>Name of its format.</summary>
    public required string Format { get; init; }

    /// <summary>Options as given, names and texts.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Options { get; init; } = [];

    /// <summary>Virtual size in bytes; null: the option <c>size</c>, or the backing file's size.</summary>
    public long? Size { get; init; }

    /// <summary>Backing file, or null.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Its format, or null.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>Do not look at the backing file (<c>-u</c>).</summary>
    public bool BackingUnchecked { get; init; }

    /// <summary>Take nothing from the clock or from chance.</summary>
    public bool Reproducible { get; init; }

    /// <summary>Told the line that says what is about to be made, or null.</summary>
    public Action<string>? Announce { get; init; }
}

/// <summary>Makes new images, with the checks of names, options and backing files around the format's own work.</summary>
public static class CreateJob
{
    private const int FileTooBig = 27;      // EFBIG

    /// <summary>Makes an image. When that fails, files that it had begun are removed.</summary>
    /// <exception cref="ImageException">it cannot be made.</exception>
    public static void Run(ImageOpener opener, CreateRequest request)
    {
        var (format, protocol) = DriversFor(opener, request.FileName, request.Format);
        var known = CreateOptionList.For(format, protocol);
        var options = CreateOptionList.Parse(known, request.Options);
        if (request.Size is { } given)
        {
            if (options.Contains("size"))
                throw Invalid("The image size must be specified only once");
            options.Set("size", given);
        }
        SetBacking(known, options, request.Format, request.BackingFile, request.BackingFormat);
        CheckBacking(opener, request, options);
        if (options.Get("size") is not long size)
            throw Invalid("Image creation needs a size parameter");
        request.Announce?.Invoke($"Formatting '{request.FileName}', fmt={request.Format} {CreateOptionList.Describe(known, options)}");
        Create(opener, format, request.FileName, size, options, request.Reproducible);
    }

    /// <summary>The drivers of a new image and of its file.</summary>
    /// <exception cref="ImageException">one does not exist, or cannot create.</exception>
    public static (BlockDriver Format, BlockDriver Protocol) DriversFor(ImageOpener opener, string fileName, string formatName)
    {
        var format = opener.Drivers.Find(formatName) ?? throw Invalid($"Unknown file format '{formatName}'");
        var protocol = opener.DriverForFile(fileName);
        if (format.Create is null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Format driver '{format.Name}' does not support image creation");
        if (protocol.Create is null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Protocol driver '{protocol.Name}' does not support image creation");
        return (format, protocol);
    }

    /// <summary>Sets the backing file's options where they exist.</summary>
    /// <exception cref="ImageException">the format knows none.</exception>
    public static void SetBacking(IReadOnlyList<DriverOption> known, BlockOptions options, string format, string? file, string? fileFormat)
    {
        if (file is not null)
        {
            if (CreateOptionList.Find(known, "backing_file") is null)
                throw new ImageException(ImageErrorKind.Unsupported, $"Backing file not supported for file format '{format}'");
            options.Set("backing_file", file);
        }
        if (fileFormat is not null)
        {
            if (CreateOptionList.Find(known, "backing_fmt") is null)
                throw new ImageException(ImageErrorKind.Unsupported, $"Backing file format not supported for file format '{format}'");
            options.Set("backing_fmt", fileFormat);
        }
    }

    /// <summary>Makes the image from options that were checked; removes what was begun when that fails.</summary>
    public static void Create(ImageOpener opener, BlockDriver format, string fileName, long size, BlockOptions options, bool reproducible)
    {
        options = options.Clone();
        _ = options.TakeString("size");
        bool hasClusterSize = options.Get("cluster_size") is not null
            || CreateOptionList.Find(format.CreateOptions, "cluster_size") is { Default: not null };
        int begun = opener.CreatedFiles.Count;
        try
        {
            format.Create!(new CreateContext
            {
                FileName = fileName,
                Size = size,
                Options = options,
                Opener = opener,
                Reproducible = reproducible,
            });
        }
        catch (Exception e)
        {
            RemoveFiles(opener, begun);
            if (e is ImageException { Errno: FileTooBig })
                throw new ImageException(ImageErrorKind.InvalidArgument, $"The image size is too large for file format '{format.Name}'"
                    + (hasClusterSize ? " (try using a larger cluster size)" : ""), fileName, inner: e);
            throw;
        }
    }

    /// <summary>Removes the plain files that an opener created, from the <paramref name="first"/> on.</summary>
    public static void RemoveFiles(ImageOpener opener, int first = 0)
    {
        foreach (string name in opener.CreatedFiles.Skip(first))
        {
            // A device or a pipe stays.
            if (Host.HostFile.KindOfPath(name) == Host.HostFileKind.Regular)
                File.Delete(name);
        }
    }

    private static void CheckBacking(ImageOpener opener, CreateRequest request, BlockOptions options)
    {
        if (options.Get("backing_file") is not string name)
            return;
        if (name == request.FileName)
            throw Invalid("Error: Trying to create an image with the same filename as the backing file");
        if (name.Length == 0)
            throw Invalid("Expected backing file name, got empty string");
        string? format = options.Get("backing_fmt") as string;
        if (!request.BackingUnchecked)
        {
            string full = FileNames.Resolve(request.FileName, name);
            BlockDevice backing;
            try
            {
                backing = opener.Open(full, format, new OpenSettings { ReadOnly = true, NoIo = true, ForceShare = true });
            }
            catch (ImageException e)
            {
                throw new ImageException(e.Kind, e.Message + "\nCould not open backing image.", e.File, e.Offset, e) { Errno = e.Errno };
            }
            using (backing)
            {
                if (format is null)
                    throw Invalid($"Backing file specified without backing format\nDetected format of {backing.DriverName}.");
                if (!options.Contains("size"))
                    options.Set("size", backing.Length);
            }
        }
        else if (format is null)
        {
            throw Invalid("Backing file specified without backing format");
        }
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
