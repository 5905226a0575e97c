using ImgKit.Block;
using ImgKit.Block.Jobs.Create;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>create</c>: a new, empty image.</summary>
internal sealed class CreateCommand : Command
{
    private const int Reproducible = 300;

    protected override CommandSpec Declare() => new()
    {
        Name = "create",
        Summary = "Create and format a new image file",
        Operands = "FILE [SIZE]",
        OperandHelp =
        [
            ("FILE", "name of the new image"),
            ("SIZE", "its virtual size; may be left out when there is a backing file"),
        ],
        Options =
        [
            new('f', "format", "FMT", "format of the new image (default: raw)") { Choices = CommonOptions.FormatNames },
            new('o', "options", "FMT_OPTS", "format-specific options; 'help' lists them"),
            new('b', "backing", "BACKING_FILE", "make the image an overlay of this file") { IsFile = true },
            new('F', "backing-format", "BACKING_FMT", "format of the backing file") { Choices = CommonOptions.FormatNames },
            new('B', null, "BACKING_FMT", "as -F, as it is called since version 10.1 of the peer") { Choices = CommonOptions.FormatNames },
            new('u', "backing-unsafe", null, "do not look whether the backing file is there"),
            CommonOptions.QuietOption,
            new(Reproducible, "reproducible", null, "take nothing from the clock or from chance: equal calls give equal files"),
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var options = new CreateOptionText();
        string? backing = null, backingFormat = null;
        bool isUnchecked = false, reproducible = false;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 'o':
                    options.Add(value);
                    break;
                case 'b':
                    backing = value;
                    break;
                case 'F' or 'B':
                    backingFormat = value;
                    break;
                case 'u':
                    isUnchecked = true;
                    break;
                case Reproducible:
                    reproducible = true;
                    break;
            }
        });
        string format = common.Format ?? "raw";
        if (options.AsksForHelp)
            return CreateOptionText.PrintHelp(common.Opener, operands.IsEmpty ? null : operands[0], format);
        if (operands.IsEmpty)
            throw new UsageException("Expecting image file name");
        string file = operands[0];
        long? size = operands.Length > 1 ? Sizes.Parse("image size", operands[1]) : null;
        if (operands.Length > 2)
            throw new UsageException($"Unexpected argument: {operands[2]}");
        using var interrupt = new InterruptGuard(common.Opener);
        common.DropsTarget = true;
        try
        {
            CreateJob.Run(common.Opener, new CreateRequest
            {
                FileName = file,
                Format = format,
                Options = options.Parse(),
                Size = size,
                BackingFile = backing,
                BackingFormat = backingFormat,
                BackingUnchecked = isUnchecked,
                Reproducible = reproducible,
                Announce = common.Quiet ? null : static line =>
                {
                    OutputWriter.Out.WriteLine(line);
                    OutputWriter.Out.Flush();
                },
            });
        }
        catch (Exception e) when (e is ImageException or (IOException and not OutputException))
        {
            throw new CommandException($"{file}: {e.Message}");
        }
        return 0;
    }
}
