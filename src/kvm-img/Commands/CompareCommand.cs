using ImgKit.Block;
using ImgKit.Block.Jobs.Compare;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>compare</c>: whether a guest would see the same.</summary>
internal sealed class CompareCommand : Command
{
    private const string SizeWarning = "Warning: Image size mismatch!";
    private const int OpenFailed = 2;
    private const int ReadFailed = 4;

    protected override CommandSpec Declare() => new()
    {
        Name = "compare",
        Summary = "Check whether two images have the same content",
        Operands = "FILE1 FILE2",
        Description = "Exit status: 0 the same, 1 different, 2 an image cannot be opened, 3 or 4 it cannot be read.",
        Options =
        [
            new('f', "a-format", "FMT1", "format of the first image") { Choices = CommonOptions.FormatNames },
            new('F', "b-format", "FMT2", "format of the second image") { Choices = CommonOptions.FormatNames },
            CommonOptions.ImageOptsOption,
            new('s', "strict", null, "different sizes or allocation count as different, too"),
            new('T', "cache", "SRC_CACHE", "cache mode") { Choices = CommonOptions.CacheModes },
            CommonOptions.ForceShareOption,
            .. CommonOptions.ProgressOptions,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        string cache = "writeback";
        string? secondFormat = null;
        bool strict = false;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 'F':
                    secondFormat = value;
                    break;
                case 's':
                    strict = true;
                    break;
                case 'T':
                    cache = value;
                    break;
            }
        });
        if (operands.Length != 2)
            throw new UsageException("Expecting two image file names");
        string name1 = operands[0], name2 = operands[1];
        using var progress = new Progress(common, 2);
        var settings = new OpenSettings { ReadOnly = true, ForceShare = common.ForceShare }
            .WithCacheMode(cache, "Invalid source cache option", OpenFailed);
        using var first = ImageAccess.Open(common, name1, common.Format, common.IsImageOpts, settings, OpenFailed);
        using var second = ImageAccess.Open(common, name2, secondFormat, common.IsImageOpts, settings, OpenFailed);
        progress.Total = Math.Max(first.Length, second.Length);
        CompareResult result;
        try
        {
            result = CompareJob.Run(new CompareRequest { First = first, Second = second, Strict = strict, Progress = progress });
        }
        catch (CompareReadException e)
        {
            if (!common.Quiet && e.Offset >= Math.Min(first.Length, second.Length))
                OutputWriter.Out.WriteLine(SizeWarning);
            throw new CommandException($"Error while reading offset {e.Offset} of {(e.IsSecond ? name2 : name1)}: {e.Message}", ReadFailed);
        }
        if (!common.Quiet)
            Print(result, Math.Min(first.Length, second.Length), first.Length != second.Length);
        return result.Difference == Difference.None ? 0 : 1;
    }

    private static void Print(CompareResult result, long common, bool sizesDiffer)
    {
        var w = OutputWriter.Out;
        if (sizesDiffer && (result.Difference == Difference.None || result.Difference == Difference.Content && result.Offset >= common))
            w.WriteLine(SizeWarning);
        w.WriteLine(result.Difference switch
        {
            Difference.Content => $"Content mismatch at offset {result.Offset}!",
            Difference.Allocation => $"Strict mode: Offset {result.Offset} block status mismatch!",
            Difference.Size => "Strict mode: Image size mismatch!",
            _ => "Images are identical.",
        });
    }
}
