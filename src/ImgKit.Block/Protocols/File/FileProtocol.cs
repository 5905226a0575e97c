using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

/// <summary>Regular files (<c>file</c>) and block devices of the host (<c>host_device</c>).</summary>
public static class FileProtocol
{
    private static readonly IReadOnlyList<DriverOption> OpenOptions =
    [
        new("filename", OptionType.String, "File name of the image"),
        new("locking", OptionType.Enum, "file locking mode (on/off/auto, default: auto)", "auto", ["on", "off", "auto"]),
        new("aio", OptionType.Enum, "host AIO implementation (threads, native, io_uring); all are served by the calling threads", "threads",
            ["threads", "native", "io_uring"]),
        new("x-check-cache-dropped", OptionType.Bool, "check that page cache was dropped on live migration"),
    ];

    /// <summary>Regular files.</summary>
    public static BlockDriver File { get; } = new()
    {
        Name = "file",
        Kind = DriverKind.Protocol,
        Description = "A regular file of the host",
        FileNamePrefixes = ["file:"],
        ParseFileName = (name, options) => options.Set("filename", WithoutPrefix(name, "file:")),
        Open = context => Open(context, "file"),
        OpenOptions = OpenOptions,
        Create = Create,
        CreateOptions =
        [
            new("size", OptionType.Size, "Virtual disk size"),
            new("preallocation", OptionType.Enum, "Preallocation mode (allowed values: off, falloc, full)", null, ["off", "falloc", "full"]),
            new("nocow", OptionType.Bool, "Turn off copy-on-write (valid only on btrfs)"),
            new("extent_size_hint", OptionType.Size, "Extent size hint for the image file, 0 to disable"),
        ],
    };

    /// <summary>Block devices.</summary>
    public static BlockDriver HostDevice { get; } = DeviceDriver("host_device", "A block device of the host");

    /// <summary>CD-ROM drives.</summary>
    public static BlockDriver HostCdrom { get; } = DeviceDriver("host_cdrom", "A CD-ROM drive of the host");

    private static BlockDriver DeviceDriver(string driver, string description) => new()
    {
        Name = driver,
        Kind = DriverKind.Protocol,
        Description = description,
        FileNamePrefixes = [driver + ":"],
        ParseFileName = (name, options) => options.Set("filename", WithoutPrefix(name, driver + ":")),
        Open = context => Open(context, driver),
        OpenOptions = OpenOptions,
        Create = context => CreateOnDevice(context, driver),
        CreateOptions = [new("size", OptionType.Size, "Virtual disk size")],
    };

    /// <summary>The driver for a plain path.</summary>
    public static string DriverFor(string path) =>
        HostFile.KindOfPath(path) is HostFileKind.BlockDevice or HostFileKind.CharacterDevice ? "host_device" : "file";

    private static string WithoutPrefix(string name, string prefix) =>
        name.StartsWith(prefix, StringComparison.Ordinal) ? name[prefix.Length..] : name;

    private static FileDevice Open(OpenContext context, string driver)
    {
        string name = context.Options.TakeString("filename") ?? "";
        if (name.Length == 0)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"The '{driver}' block driver requires a file name");
        string locking = context.Options.TakeString("locking") ?? "auto";
        if (context.Options.TakeString("aio") == "native" && !context.Settings.Direct)
            throw new ImageException(ImageErrorKind.InvalidArgument, "aio=native was specified, but it requires cache.direct=on, which was not specified.", name);
        _ = context.Options.TakeString("x-check-cache-dropped");
        HostFile file = OpenHostFile(name, context.Settings);
        try
        {
            if (driver == "file" && file.Kind != HostFileKind.Regular)
                throw new ImageException(ImageErrorKind.InvalidArgument, $"'{driver}' driver requires '{name}' to be a regular file", name);
            if (driver != "file" && file.Kind is not (HostFileKind.BlockDevice or HostFileKind.CharacterDevice))
                throw new ImageException(ImageErrorKind.InvalidArgument, $"'{driver}' driver requires '{name}' to be either a character or block device", name);
            if (locking != "off")
                ImageLocks.Take(file, context.Settings);
            return new FileDevice(file, context.Settings, driver) { FileName = name, TakesLocks = locking != "off", Note = context.Opener.TellOnce };
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static HostFile OpenHostFile(string name, OpenSettings settings)
    {
        var mode = (settings.ReadOnly ? HostFileMode.Read : HostFileMode.ReadWrite) | (settings.Direct ? HostFileMode.Direct : 0);
        try
        {
            var file = HostFile.Open(name, mode);
            if (settings.ReadOnly || !file.IsWriteProtected())
                return file;
            file.Dispose();
            throw new ImageException(ImageErrorKind.ReadOnly, "The device is not writable: Permission denied", name) { Errno = 13 };
        }
        catch (HostException e)
        {
            string why = e.Errno == 22 && settings.Direct ? "the file system does not support O_DIRECT" : e.Message;
            throw new ImageException(e.Errno == 2 ? ImageErrorKind.NotFound : ImageErrorKind.Io, $"Could not open '{name}': {why}", name, inner: e)
            {
                Errno = e.Errno,
            };
        }
    }

    private static void Create(CreateContext context)
    {
        string name = context.Options.TakeString("filename") ?? WithoutPrefix(context.FileName, "file:");
        var preallocation = PreallocationOption.Parse(context.Options.TakeString("preallocation"), allowMetadata: false);
        _ = context.Options.TakeString("nocow");
        _ = context.Options.TakeString("extent_size_hint");
        _ = context.Options.TakeString("size");
        using HostFile file = CreateHostFile(name);
        if (file.Kind != HostFileKind.Regular)
            throw new ImageException(ImageErrorKind.Unsupported, "Cannot grow device files", name);
        // Until nobody else has the file it is not ours: whoever tidies up must leave it.
        ImageLocks.Take(file, new OpenSettings());
        context.Opener.NoteCreated(name);
        try
        {
            file.SetLength(0);
            // Disks have whole sectors.
            FileDevice.Grow(file, 0, checked(context.Size + 511) / 512 * 512, preallocation, context.Opener.TellOnce);
        }
        catch (HostException e)
        {
            throw new ImageException(ImageErrorKind.Io, $"Could not resize file: {e.Message}", name, inner: e) { Errno = e.Errno };
        }
    }

    private static HostFile CreateHostFile(string name)
    {
        try
        {
            return HostFile.Open(name, HostFileMode.ReadWrite | HostFileMode.Create);
        }
        catch (HostException e)
        {
            throw new ImageException(ImageErrorKind.Io, $"Could not create '{name}': {e.Message}", name, inner: e) { Errno = e.Errno };
        }
    }

    /// <summary>A device is there already; it only must be large enough.</summary>
    private static void CreateOnDevice(CreateContext context, string driver)
    {
        string name = context.Options.TakeString("filename") ?? WithoutPrefix(context.FileName, driver + ":");
        _ = context.Options.TakeString("size");
        using HostFile file = OpenForCreation(name, driver);
        if (file.Kind == HostFileKind.CharacterDevice)
            throw new ImageException(ImageErrorKind.Unsupported, "Cannot grow device files", name);
        if (file.Kind != HostFileKind.BlockDevice)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"'{name}' is not a block device", name);
        if (file.GetLength() < context.Size)
            throw new ImageException(ImageErrorKind.Io, "Device is too small", name);
        // What looked like an image before must not be found by probing afterwards.
        file.Write(0, ZeroBuffer.Span((int)Math.Min(512, file.GetLength())));
    }

    private static HostFile OpenForCreation(string name, string driver)
    {
        try
        {
            return OpenHostFile(name, new OpenSettings());
        }
        catch (ImageException e)
        {
            throw new ImageException(e.Kind, $"Protocol driver '{driver}' does not support image creation, and opening the image failed: {e.Message}", name, inner: e)
            {
                Errno = e.Errno,
            };
        }
    }
}
