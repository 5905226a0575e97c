using ImgKit.Block;
using ImgKit.Block.Jobs.Create;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>amend</c>: other options for an image that exists.</summary>
internal sealed class AmendCommand : Command
{
    private const int Force = 300;

    protected override CommandSpec Declare() => new()
    {
        Name = "amend",
        Summary = "Change the format-specific options of an image",
        Operands = "FILE",
        Options =
        [
            new('o', "options", "FMT_OPTS", "the new options; 'help' lists them"),
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('t', "cache", "CACHE", "cache mode") { Choices = CommonOptions.CacheModes },
            new(Force, "force", null, "allow what cannot be undone"),
            .. CommonOptions.ProgressOptions,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var options = new CreateOptionText();
        string cache = "writeback";
        bool force = false;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 'o':
                    options.Add(value);
                    break;
                case 't':
                    cache = value;
                    break;
                case Force:
                    force = true;
                    break;
            }
        });
        if (!options.IsGiven)
            throw new UsageException("Must specify options (-o)");
        if (common.Format is not null && options.AsksForHelp)
            return PrintHelp(common.Opener, common.Format);
        if (operands.Length != 1)
            throw new CommandException("Expecting one image file name");
        var settings = new OpenSettings().WithCacheMode(cache, "Invalid cache option");
        using var device = ImageAccess.Open(common, operands[0], settings);
        if (options.AsksForHelp)
            return PrintHelp(common.Opener, device.DriverName);
        var driver = common.Opener.Drivers.Get(device.DriverName);
        if (device is not IAmendableImage image || driver.AmendOptions.Count == 0)
            throw new CommandException($"Format driver '{device.DriverName}' does not support option amendment");
        var parsed = ParseOptions(driver, options.Parse());
        using var progress = new Progress(common, 1, 100);
        image.Amend(parsed, force, (done, total) =>
        {
            progress.Total = total;
            progress.Report(done);
        });
        progress.Complete();
        return 0;
    }

    private static BlockOptions ParseOptions(BlockDriver driver, List<KeyValuePair<string, string>> given)
    {
        try
        {
            return CreateOptionList.Parse(driver.AmendOptions, given);
        }
        catch (ImageException e)
        {
            bool known = true;
            try
            {
                _ = CreateOptionList.Parse([.. driver.AmendOptions, .. driver.CreateOptions], given);
            }
            catch (ImageException)
            {
                known = false;
            }
            throw new CommandException(known ? e.Message + "\nThis option is only supported for image creation" : e.Message);
        }
    }

    private static int PrintHelp(ImageOpener opener, string format)
    {
        var driver = opener.Drivers.Find(format) ?? throw new CommandException($"Unknown file format '{format}'");
        if (driver.AmendOptions.Count == 0)
            throw new CommandException($"Format driver '{format}' does not support option amendment");
        var w = OutputWriter.Out;
        w.WriteLine($"Amend options for '{format}':");
        foreach (string line in CreateOptionList.Help(driver.AmendOptions))
            w.WriteLine(line);
        return 0;
    }
}
