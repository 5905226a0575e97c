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
        if (arguments.Length == 2 && arguments[1] is "-h" or "--help")
            Parse(arguments, new CommonOptions(), static (_, _) => { });
        if (arguments.Length < 3)
            throw new UsageException("Not enough arguments");
        string size = TakeSize(ref arguments);
        var common = new CommonOptions();
        var preallocation = Preallocation.Off;
        bool shrink = false;
        var operands = Parse(arguments, common, (id, value) =>
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
        string number = sign == 0 ? size : size[1..];
        long n = CreateOptionList.ParseSize("size", number);
        // Beyond 63 bits nothing is positive.
        if (SizeText.Parse(number, out ulong full) == SizeParse.Ok && full > long.MaxValue)
            throw new CommandException("New image size must be positive");
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

    /// <summary>Takes the size off the arguments before they are parsed, for -1G is no option. It is the last one, or, since version
    /// 10.1 of the peer, it can stand in front of options.</summary>
    private string TakeSize(ref string[] arguments)
    {
        int at = arguments.Length - 1;
        if (SizeText.Parse(arguments[at].TrimStart('+', '-'), out _) == SizeParse.Invalid)
            for (int i = 2; i < arguments.Length; i++)
                if (arguments[i] is ['+' or '-' or (>= '0' and <= '9'), ..] && !TakesNext(arguments[i - 1])
                    && SizeText.Parse(arguments[i].TrimStart('+', '-'), out _) != SizeParse.Invalid)
                    at = i;
        string size = arguments[at];
        arguments = [.. arguments[..at], .. arguments[(at + 1)..]];
        return size;
    }

    /// <summary>Whether an argument is an option whose value is the next one.</summary>
    private bool TakesNext(string argument)
    {
        foreach (var o in Spec.Options)
            if (o.Argument == ArgumentKind.Required
                && (argument == $"--{o.Name}" || (argument is ['-', not '-', ..] && argument[^1] == o.Letter)))
                return true;
        return false;
    }
}
