using ImgKit.Block;
using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Copy;
using ImgKit.Block.Jobs.Create;
using ImgKit.Block.Protocols.File;
using ImgKit.CommandLine;
using ImgKit.Host;

namespace ImgKit.Programs.Img;

/// <summary><c>dd</c>: copies a part of an image to a new image, with the operands of dd(1).</summary>
internal sealed class DdCommand : Command
{
    protected override CommandSpec Declare() => new()
    {
        Name = "dd",
        Summary = "Copy an image or a part of it to a new image",
        Operands = "[bs=BYTES] [count=N] [skip=N] if=INPUT of=OUTPUT",
        OperandHelp =
        [
            ("bs=BYTES", "size of a block (default: 512)"),
            ("count=N", "copy N blocks"),
            ("skip=N", "leave out N blocks at the start of the input"),
            ("if=INPUT", "image to read"),
            ("of=OUTPUT", "image to write"),
        ],
        Options =
        [
            CommonOptions.FormatOption("format of the input"),
            CommonOptions.ImageOptsOption,
            new('O', "output-format", "FMT", "format of the output (default: raw)") { Choices = CommonOptions.FormatNames },
            CommonOptions.ForceShareOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        string format = "raw";
        var operands = Parse(arguments, common, (_, value) => format = value);
        string? input = null, output = null;
        long block = 512, skip = 0;
        long? count = null;
        foreach (string operand in operands)
        {
            int equals = operand.IndexOf('=', StringComparison.Ordinal);
            if (equals < 0)
                throw new CommandException($"unrecognized operand {operand}");
            string value = operand[(equals + 1)..];
            switch (operand[..equals])
            {
                case "bs":
                    block = Sizes.Parse("bs", value, 1, int.MaxValue);
                    break;
                case "count":
                    count = Sizes.Parse("count", value);
                    break;
                case "skip":
                    skip = Sizes.Parse("skip", value);
                    break;
                case "if":
                    input = value;
                    break;
                case "of":
                    output = value;
                    break;
                default:
                    throw new CommandException($"unrecognized operand {operand[..equals]}");
            }
        }
        if (input is null || output is null)
            throw new CommandException("Must specify both input and output files");
        using var source = ImageAccess.Open(common, input, new OpenSettings { ReadOnly = true });
        long end = source.Length;
        if (count <= long.MaxValue / block && count * block < end)
            end = count.Value * block;
        bool beyond = skip > long.MaxValue / block || skip * block > end;
        long start = beyond ? end : skip * block;
        Copy(common, source, input, start, end - start, beyond, output, format);
        return 0;
    }

    /// <summary>Whether a name leads to the file that holds an image. (The locks of a raw image do not tell: its readers share it with writers.)</summary>
    private static bool IsHeldIn(BlockDevice image, string name)
    {
        while (image.Storage is { } below)
            image = below;
        if (image is not FileDevice file || HostFile.KindOfPath(name) != HostFileKind.Regular)
            return false;
        using var other = HostFile.Open(name, HostFileMode.Read);
        return other.GetIdentity() == file.Host.GetIdentity();
    }

    private static void Copy(CommonOptions common, BlockDevice source, string input, long start, long length, bool beyond, string output, string format)
    {
        if (common.Opener.Drivers.Find(format) is null)
            throw new CommandException("Unknown file format");
        var (driver, protocol) = CreateJob.DriversFor(common.Opener, output, format);
        var options = CreateOptionList.Parse(CreateOptionList.For(driver, protocol), []);
        if (source.DriverName == "raw" && IsHeldIn(source, output))
            throw new CommandException($"{output}: error while creating output image: '{output}' is the input, too");
        using var interrupt = new InterruptGuard(common.Opener);
        common.DropsTarget = true;
        try
        {
            CreateJob.Create(common.Opener, driver, output, length, options, reproducible: false);
        }
        catch (Exception e) when (e is ImageException or (IOException and not OutputException))
        {
            throw new CommandException($"{output}: error while creating output image: {e.Message}");
        }
        try
        {
            using var target = ImageAccess.Open(common, output, format, false, new OpenSettings());
            if (beyond)
                Report.Error($"{input}: cannot skip to specified offset");
            else
                ConvertJob.Run(new ConvertRequest { Sources = [new Slice(source, start, length)], Target = target, TargetIsZero = true });
        }
        catch (Exception e)
        {
            CreateJob.RemoveFiles(common.Opener);
            if (e is ImageException { InnerException: { } cause })
            {
                string what = e.Message.StartsWith("error while writing", StringComparison.Ordinal) ? "writing to output" : "reading from input";
                throw new CommandException($"error while {what} image file: {cause.Message}");
            }
            throw;
        }
    }
}
