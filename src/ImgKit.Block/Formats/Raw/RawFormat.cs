namespace ImgKit.Block.Formats.Raw;

/// <summary>The bytes as they are, or a part of them.</summary>
public static class RawFormat
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "raw",
        Kind = DriverKind.Format,
        Description = "The disk's bytes as they are",
        Probe = (_, _, _) => 1,      // only where nothing else is surer
        Open = Open,
        OpenOptions =
        [
            new("offset", OptionType.Size, "offset in the disk where the image starts", "0"),
            new("size", OptionType.Size, "virtual disk size"),
        ],
        Create = Create,
        CreateOptions = [new("size", OptionType.Size, "Virtual disk size")],
        WriteStream = Jobs.Streams.SequentialSink.WriteRaw,
        Measure = context => new MeasureResult(context.Size, context.Size),
    };

    private static RawImage Open(OpenContext context)
    {
        long offset = context.Options.TakeSize("offset") ?? 0;
        long? size = context.Options.TakeSize("size");
        long length = context.File.Length;
        if (offset > length)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Offset ({offset}) cannot be greater than size of the containing file ({length})",
                context.FileName);
        if (size > length - offset)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                $"The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the actual size of the containing file ({length})",
                context.FileName);
        return new RawImage(context.File, offset, size, context.IsProbed ? context.Opener.Drivers : null);
    }

    private static void Create(CreateContext context)
    {
        var driver = context.Opener.DriverForFile(context.FileName);
        if (driver.Create is null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Protocol driver '{driver.Name}' does not support image creation", context.FileName);
        driver.Create(context);
    }
}
