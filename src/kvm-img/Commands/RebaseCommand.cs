using ImgKit.Block;
using ImgKit.Block.Jobs.Commit;
using ImgKit.Block.Jobs.Rebase;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>rebase</c>: another backing file below an overlay.</summary>
internal sealed class RebaseCommand : Command
{
    private const int NoSpace = 28;     // ENOSPC

    protected override CommandSpec Declare() => new()
    {
        Name = "rebase",
        Summary = "Change the backing file of an image, keeping its content",
        Operands = "FILE",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('t', "cache", "CACHE", "cache mode of FILE") { Choices = CommonOptions.CacheModes },
            new('b', "backing", "BACKING_FILE", "the new backing file; empty for none") { IsFile = true },
            new('F', "backing-format", "BACKING_FMT", "its format") { Choices = CommonOptions.FormatNames },
            new('B', null, "BACKING_FMT", "as -F, as it is called since version 10.1 of the peer") { Choices = CommonOptions.FormatNames },
            new('T', "backing-cache", "SRC_CACHE", "cache mode of backing files") { Choices = CommonOptions.CacheModes },
            new('u', "backing-unsafe", null, "only change the name: old and new backing file have the same content"),
            new('c', "compress", null, "store compressed what is copied"),
            CommonOptions.ForceShareOption,
            .. CommonOptions.ProgressOptions,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        string cache = "writeback", sourceCache = "writeback";
        string? backing = null, backingFormat = null;
        bool isUnsafe = false, compress = false;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 't':
                    cache = value;
                    break;
                case 'T':
                    sourceCache = value;
                    break;
                case 'b':
                    backing = value;
                    break;
                case 'F' or 'B':
                    backingFormat = value;
                    break;
                case 'u':
                    isUnsafe = true;
                    break;
                case 'c':
                    compress = true;
                    break;
            }
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        if (!isUnsafe && backing is null)
            throw new UsageException("Must specify backing file (-b) or use unsafe mode (-u)");
        if (isUnsafe && compress)
            throw new CommandException("Cannot use -c with -u: nothing is copied");
        using var progress = new Progress(common, 2);
        var settings = new OpenSettings { NoBacking = isUnsafe }.WithCacheMode(cache, "Invalid cache option");
        var sourceSettings = new OpenSettings { ReadOnly = true, ForceShare = common.ForceShare }
            .WithCacheMode(sourceCache, "Invalid source cache option");
        using var device = ImageAccess.Open(common, operands[0], common.Format, common.IsImageOpts, settings);
        if (backingFormat is not null && common.Opener.Drivers.Find(backingFormat) is null)
            throw new CommandException($"Invalid format name: '{backingFormat}'");
        if (!isUnsafe)
        {
            progress.Total = device.Length;
            CopyUp(common, device, backing!, backingFormat, sourceSettings, compress, progress);
        }
        Change(device, backing, backingFormat);
        progress.Complete();
        return 0;
    }

    private static void CopyUp(CommonOptions common, BlockDevice device, string backing, string? format, OpenSettings settings, bool compress, Progress progress)
    {
        BlockDevice? below = null, opened = null;
        bool inChain = false;
        if (backing.Length > 0)
        {
            string full;
            try
            {
                full = FileNames.Resolve(device.FileName, backing);
            }
            catch (ImageException e)
            {
                throw new CommandException($"Could not resolve backing filename: {e.Message}");
            }
            if (BackingChain.Find(device, full) is { } found)
            {
                below = found.Image;
                inChain = true;
            }
            else
            {
                try
                {
                    below = opened = common.Opener.Open(full, format, settings);
                }
                catch (Exception e) when (e is ImageException or IOException)
                {
                    throw new CommandException($"Could not open new backing file '{backing}': {e.Message}");
                }
            }
        }
        using (opened)
        {
            RebaseJob.Run(new RebaseRequest
            {
                Overlay = device,
                NewBacking = below,
                IsInOldChain = inChain,
                Compress = compress,
                Progress = progress,
            });
        }
    }

    private static void Change(BlockDevice device, string? backing, string? format)
    {
        string name = backing ?? "(null)";
        if (device is not IBackedImage image)
            throw new CommandException($"Could not change the backing file to '{name}': Operation not supported");
        if (!string.IsNullOrEmpty(backing) && format is null)
            throw new CommandException($"Could not change the backing file to '{name}': backing format must be specified");
        try
        {
            if (string.IsNullOrEmpty(backing))
                image.ChangeBackingFile(null, null);
            else
                image.ChangeBackingFile(backing, format);
            device.Flush();
        }
        catch (ImageException e)
        {
            throw new CommandException($"Could not change the backing file to '{name}': "
                + (e.Errno == NoSpace ? "No space left in the file header" : e.Message));
        }
    }
}
