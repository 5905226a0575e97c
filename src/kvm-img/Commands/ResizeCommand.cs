using ImgKit.Block;
using ImgKit.Block.Jobs.Create;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>resize</c>: another virtual size.</summary>
internal sealed class ResizeCommand : Command
{
    private const int PreallocationOption = 300;
    private const int Shrink = 301;

    protected override CommandSpec Declare() => new()
    {
        Name = "resize",
        Summary = "Change the virtual size of an image",
        Operands = "FILE [+|-]SIZE",
        OperandHelp = [("SIZE", "the new size, or with + or - how much more or less than now")],
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new(PreallocationOption, "preallocation", "MODE", "how to allocate what is gained: off, metadata, falloc or full")
            {
                Choices = ["off", "metadata", "falloc", "full"],
            },
            new(Shrink, "shrink", null, "allow the image to become smaller, and data behind its new end to be lost"),
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        // The size is last, and is taken off first: -1G is no option.
        if (arguments.Length == 2 && arguments[1] is "-h" or "--help")
            Parse(arguments, new CommonOptions(), static (_, _) => { });
        if (arguments.Length < 3)
            throw new UsageException("Not enough arguments");
        string size = arguments[^1];
        var common = new CommonOptions();
        var preallocation = Preallocation.Off;
        bool shrink = false;
        var operands = Parse(arguments[..^1], common, (id, value) =>
        {
            if (id == Shrink)
                shrink = true;
            else
                preallocation = value switch
                {
                    "off" => Preallocation.Off,
                    "metadata" => Preallocation.Metadata,
                    "falloc" => Preallocation.Falloc,
                    "full" => Preallocation.Full,
                    _ => throw new CommandException($"Invalid preallocation mode '{value}'"),
                };
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting image file name and size");
        int sign = size[..Math.Min(1, size.Length)] switch { "+" => 1, "-" => -1, _ => 0 };
        long n = CreateOptionList.ParseSize("size", sign == 0 ? size : size[1..]);
        using var device = ImageAccess.Open(common, operands[0], new OpenSettings());
        long now = device.Length;
        long total = sign == 0 ? n : unchecked(now + n * sign);
        if (total <= 0)
            throw new CommandException("New image size must be positive");
        if (total <= now && preallocation != Preallocation.Off)
            throw new CommandException("Preallocation can only be used for growing images");
        if (total < now && !shrink)
        {
            Report.Error("Use the --shrink option to perform a shrink operation.");
            Report.Warning("Shrinking an image will delete all data beyond the shrunken image's end. "
                + "Before performing such an operation, make sure there is no important data there.");
            return 1;
        }
        try
        {
            device.Resize(total, new ResizeOptions(preallocation, AllowShrink: shrink, Exact: true));
            device.Flush();
        }
        catch (NotSupportedException e)
        {
            throw new CommandException(e.Message);
        }
        if (!common.Quiet)
            OutputWriter.Out.WriteLine("Image resized.");
        return 0;
    }
}
