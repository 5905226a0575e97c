using System.Globalization;

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
        Measure = static context =>
        {
            long size = checked(context.Size + 511) / 512 * 512;      // disks have whole sectors
            return new MeasureResult(size, size);
        },
    };

    private static RawImage Open(OpenContext context)
    {
        string? name = Name(context);
        long offset = context.Options.TakeSize("offset") ?? 0;
        long? size = context.Options.TakeSize("size");
        long length = context.File.Length;
        if (offset > length)
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Offset ({offset}) cannot be greater than size of the containing file ({length})",
                context.FileName);
        if (size > length - offset)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                $"The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  actual size of the containing file ({length})",
                context.FileName);
        if (size % 512 > 0)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Specified size is not multiple of 512", context.FileName);
        var image = new RawImage(context.File, offset, size, context.IsProbed ? context.Opener.Drivers : null);
        if (name is not null)
            image.FileName = name;
        return image;
    }

    /// <summary>A part of a file is named by its options, for the file's name would be another disk; null: the name says all.</summary>
    private static string? Name(OpenContext context)
    {
        object? offset = context.Options.Get("offset"), size = context.Options.Get("size");
        if ((offset ?? size) is null || context.Storage is not Protocols.File.FileDevice file)
            return null;
        static string Member(string name, object? value) => value switch
        {
            null => "",
            string s => $"\"{name}\": {Quoted(s)}, ",
            _ => $"\"{name}\": {Convert.ToString(value, CultureInfo.InvariantCulture)}, ",
        };
        return $"json:{{{Member("offset", offset)}\"driver\": \"raw\", {Member("size", size)}"
            + $"\"file\": {{\"driver\": \"{file.DriverName}\", \"filename\": {Quoted(file.FileName)}}}}}";
    }

    private static string Quoted(string s) =>
        $"\"{s.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)}\"";

    private static void Create(CreateContext context)
    {
        var driver = context.Opener.DriverForFile(context.FileName);
        if (driver.Create is null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Protocol driver '{driver.Name}' does not support image creation", context.FileName);
        driver.Create(context);
    }
}
