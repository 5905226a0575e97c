using ImgKit.Block;
using ImgKit.Block.Jobs.Commit;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>commit</c>: an overlay's changes into an image below it.</summary>
internal sealed class CommitCommand : Command
{
    protected override CommandSpec Declare() => new()
    {
        Name = "commit",
        Summary = "Write the changes of an overlay into its backing file",
        Operands = "FILE",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('t', "cache", "CACHE", "cache mode") { Choices = CommonOptions.CacheModes },
            new('d', "drop", null, "do not empty FILE afterwards"),
            new('b', "base", "BASE_FILE", "commit into this image of the chain (implies -d)") { IsFile = true },
            new('r', "rate-limit", "RATE", "bytes a second"),
            .. CommonOptions.ProgressOptions,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        string cache = "writeback";
        string? baseName = null;
        bool drop = false;
        long rate = 0;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 't':
                    cache = value;
                    break;
                case 'b':
                    baseName = value;
                    drop = true;
                    break;
                case 'd':
                    drop = true;
                    break;
                case 'r':
                    rate = Sizes.Parse("rate limit", value);
                    break;
            }
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        var settings = new OpenSettings { Unmap = true }.WithCacheMode(cache, "Invalid cache option");
        using (var device = ImageAccess.Open(common, operands[0], settings))
        {
            using var progress = new Progress(common, 1, device.Length);
            CommitJob.Run(common.Opener, new CommitRequest
            {
                Top = device,
                BaseName = baseName,
                KeepTop = drop,
                BaseSettings = settings,
                RateLimit = rate,
                Progress = progress,
                Warn = Report.Warning,
            });
            progress.Complete();
        }
        if (!common.Quiet)
            OutputWriter.Out.WriteLine("Image committed.");
        return 0;
    }
}
