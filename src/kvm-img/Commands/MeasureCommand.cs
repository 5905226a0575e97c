using ImgKit.Block;
using ImgKit.Block.Jobs.Create;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>measure</c>: how large the file of an image will be.</summary>
internal sealed class MeasureCommand : Command
{
    protected override CommandSpec Declare() => new()
    {
        Name = "measure",
        Summary = "Calculate the file size that an image would have in another format",
        Operands = "[--size SIZE | FILE]",
        Options =
        [
            CommonOptions.FormatOption("format of the source image"),
            new((int)'f', "source-format", "FMT", "as --format, as convert calls it") { Hidden = true },
            CommonOptions.ImageOptsOption,
            new(CommonOptions.ImageOpts, "source-image-opts", null, "as --image-opts") { Hidden = true },
            new('l', "snapshot", "SNAPSHOT", "measure for the content of an internal snapshot"),
            new('O', "target-format", "FMT", "format to measure for (default: raw)") { Choices = CommonOptions.FormatNames },
            new('o', "options", "FMT_OPTS", "its options"),
            new((int)'o', "target-format-options", "FMT_OPTS", "as --options, as convert calls it") { Hidden = true },
            new('s', "size", "SIZE", "measure for a new, empty image of this size"),
            CommonOptions.OutputOption,
            CommonOptions.ForceShareOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var options = new CreateOptionText();
        string target = "raw";
        SnapshotChoice? snapshot = null;
        long? size = null;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 'l':
                    snapshot = SnapshotChoice.Parse(value);
                    break;
                case 'O':
                    target = value;
                    break;
                case 'o':
                    options.Add(value);
                    break;
                case 's':
                    size = Sizes.Parse("image size", value);
                    break;
            }
        });
        bool json = common.IsJson();
        if (operands.Length > 1)
            throw new CommandException("At most one filename argument is allowed.");
        string? file = operands.Length == 1 ? operands[0] : null;
        if (file is null && (common.IsImageOpts || common.Format is not null || snapshot is not null))
            throw new CommandException("--image-opts, -f, and -l require a filename argument.");
        if (file is not null && size is not null)
            throw new CommandException("--size N cannot be used together with a filename.");
        if (file is null && size is null)
            throw new CommandException("Either --size N or one filename must be specified.");
        using var image = file is null ? null : ImageAccess.Open(common, file, new OpenSettings { ReadOnly = true });
        var source = snapshot is null ? image : snapshot.OpenIn(image!);
        var result = Measure(common.Opener, target, options, size, source, image);
        var w = OutputWriter.Out;
        if (json)
            w.WriteLine(JsonText.Pretty(new JsonObject
            {
                { "required", result.Required },
                { "fully-allocated", result.FullyAllocated },
                { "bitmaps", result.Bitmaps },
            }));
        else
            w.Write($"required size: {result.Required}\nfully allocated size: {result.FullyAllocated}\n"
                + (result.Bitmaps is { } bitmaps ? $"bitmaps size: {bitmaps}\n" : ""));
        return 0;
    }

    private static MeasureResult Measure(ImageOpener opener, string target, CreateOptionText text, long? size, BlockDevice? source, BlockDevice? image)
    {
        var driver = opener.Drivers.Find(target) ?? throw new CommandException($"Unknown file format '{target}'");
        if (driver.Create is null)
            throw new CommandException($"Format driver '{driver.Name}' does not support image creation");
        BlockOptions options;
        try
        {
            options = CreateOptionList.Parse(CreateOptionList.For(driver, opener.Drivers.Get("file")), text.Parse());
        }
        catch (ImageException e)
        {
            Report.Error(e.Message);
            throw new CommandException($"Invalid options for file format '{target}'");
        }
        if (driver.Measure is null)
            throw new CommandException($"Block driver '{driver.Name}' does not support size measurement");
        if (options.TakeString("size") is { } optionSize && size is null && source is null)
            size = CreateOptionList.ParseSize("size", optionSize);
        return driver.Measure(new MeasureContext(source?.Length ?? size ?? 0, options, source, image));
    }
}
