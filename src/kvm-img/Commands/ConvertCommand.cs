using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>convert</c>: images into an image of another format.</summary>
internal sealed class ConvertCommand : Command
{
    private const int Bitmaps = 300;
    private const int SkipBrokenBitmaps = 301;
    private const int Salvage = 302;
    private const int TargetImageOpts = 303;
    private const int TargetIsZero = 304;
    private const int CompressionLevel = 305;
    private const int Reproducible = 306;
    private const int Digest = 307;
    private const int MaxThreads = 16;
    private const int MaxSparse = 32768 * 512;

    protected override CommandSpec Declare() => new()
    {
        Name = "convert",
        Summary = "Copy images into an image of another format or with other options",
        Operands = "SRC_FILE [SRC_FILE2...] TGT_FILE",
        OperandHelp =
        [
            ("SRC_FILE", "images to read, joined one behind the other; '-' is standard input"),
            ("TGT_FILE", "image to write; '-' is standard output"),
        ],
        Options =
        [
            new('f', "source-format", "SRC_FMT", "format of the sources; found out when not given") { Choices = CommonOptions.FormatNames },
            CommonOptions.ImageOptsOption,
            new(CommonOptions.ImageOpts, "source-image-opts", null, "as --image-opts") { Hidden = true },
            new('T', "source-cache", "SRC_CACHE", "cache mode of the sources") { Choices = CommonOptions.CacheModes },
            new('l', "snapshot", "SNAPSHOT", "read an internal snapshot of the source"),
            new(Bitmaps, "bitmaps", null, "copy the source's persistent bitmaps, too"),
            new(SkipBrokenBitmaps, "skip-broken-bitmaps", null, "leave out bitmaps that cannot be trusted"),
            new(Salvage, "salvage", null, "what cannot be read becomes zeroes"),
            new('O', "target-format", "TGT_FMT", "format of the target (default: raw)") { Choices = CommonOptions.FormatNames },
            new(TargetImageOpts, "target-image-opts", null, "TGT_FILE is a list of options (needs -n)"),
            new('o', "target-format-options", "TGT_FMT_OPTS", "options of the target's format; 'help' lists them"),
            new('t', "target-cache", "TGT_CACHE", "cache mode of the target (default: unsafe)") { Choices = CommonOptions.CacheModes },
            new('b', "backing", "BACKING_FILE", "make the target an overlay of this file, which has the content of the source's backing file")
            {
                IsFile = true,
            },
            new('B', null, "BACKING_FILE", "as -b, as it was called before version 10.1 of the peer") { IsFile = true },
            new('F', "backing-format", "BACKING_FMT", "format of the target's backing file") { Choices = CommonOptions.FormatNames },
            new('S', "sparse-size", "SPARSE_SIZE", "runs of zeroes of this many bytes are not written (default: 4k; 0: all is written)"),
            new('n', "no-create", null, "the target is there already"),
            new(TargetIsZero, "target-is-zero", null, "the target that is there reads as zeroes"),
            new('c', "compress", null, "store the target compressed"),
            new(CompressionLevel, "compression-level", "LEVEL", "how hard to compress, 1 (fastest) to 12"),
            new('U', "force-share", null, "open the sources even while another program writes to them"),
            new('r', "rate-limit", "RATE", "bytes a second"),
            new('m', "parallel", "NUM", "threads, 1 to 16 (default: processors); the target does not depend on it"),
            new('W', "oob-writes", null, "accepted: writes are never held up by each other where the format allows it"),
            new('C', "copy-range-offloading", null, "let the kernel copy where it can"),
            new(Digest, "digest", null, "print the content's digest as 'checksum' does"),
            new(Reproducible, "reproducible", null, "take nothing from the clock or from chance: equal content gives equal files"),
            .. CommonOptions.ProgressOptions,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var task = new ConvertTask(common);
        bool explicitSparse = false;
        var operands = Parse(arguments, common, (id, value) =>
        {
            explicitSparse |= id == 'S';
            Take(task, id, value);
        });
        string? conflict = (task, explicitSparse) switch
        {
            ({ SkipBrokenBitmaps: true, CopyBitmaps: false }, _) => "Use of --skip-broken-bitmaps requires --bitmaps",
            ({ Compress: true, CopyInKernel: true }, _) => "Cannot enable copy offloading when -c is used",
            ({ CopyInKernel: true }, true) => "Cannot enable copy offloading when -S is used",
            ({ CopyInKernel: true, Salvage: true }, _) => "Cannot use copy offloading in salvaging mode",
            ({ IsTargetImageOpts: true, SkipCreate: false }, _) => "--target-image-opts requires use of -n flag",
            ({ SkipCreate: true, Options.IsGiven: true }, _) => "-o has no effect when skipping image creation",
            ({ IsTargetZero: true, SkipCreate: false }, _) => "--target-is-zero requires use of -n flag",
            _ => null,
        };
        if (conflict is not null)
            throw new CommandException(conflict);
        if (task.TargetFormat is null && !task.IsTargetImageOpts)
            task.TargetFormat = "raw";
        string? target = operands.Length >= 2 ? operands[^1] : null;
        if (task.Options.AsksForHelp)
        {
            if (task.TargetFormat is null)
                throw new CommandException("Option help requires a format be specified");
            return CreateOptionText.PrintHelp(common.Opener, target, task.TargetFormat);
        }
        if (target is null)
            throw new CommandException("Must specify image file name");
        task.Run(operands[..^1].ToArray(), target);
        return 0;
    }

    private static void Take(ConvertTask task, int id, string value)
    {
        switch (id)
        {
            case 'O':
                task.TargetFormat = value;
                break;
            case 'b' or 'B':
                task.BackingFile = value;
                break;
            case 'F':
                task.BackingFormat = value;
                break;
            case 'C':
                task.CopyInKernel = true;
                break;
            case 'c':
                task.Compress = true;
                break;
            case 'o':
                task.Options.Add(value);
                break;
            case 'l':
                task.Snapshot = SnapshotChoice.Parse(value);
                break;
            case 'S':
                task.MinimumZeroRun = Sizes.Parse("buffer size for sparse output", value);
                if (task.MinimumZeroRun % 512 != 0 || task.MinimumZeroRun > MaxSparse)
                    throw new CommandException("Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to "
                        + $"{MaxSparse}. Select 0 to disable sparse detection (fully allocates output).");
                break;
            case 't':
                task.TargetCache = value;
                break;
            case 'T':
                task.SourceCache = value;
                break;
            case 'n':
                task.SkipCreate = true;
                break;
            case 'm':
                long threads = Sizes.ParseCount(value);
                if (threads is < 1 or > MaxThreads)
                    throw new CommandException($"Invalid number of coroutines. Allowed number of coroutines is between 1 and {MaxThreads}");
                task.Threads = (int)threads;
                break;
            case 'r':
                task.RateLimit = Sizes.Parse("rate limit", value);
                break;
            case Salvage:
                task.Salvage = true;
                break;
            case TargetImageOpts:
                task.IsTargetImageOpts = true;
                break;
            case TargetIsZero:
                task.IsTargetZero = true;
                break;
            case Bitmaps:
                task.CopyBitmaps = true;
                break;
            case SkipBrokenBitmaps:
                task.SkipBrokenBitmaps = true;
                break;
            case CompressionLevel:
                task.CompressionLevel = (int)Sizes.Parse("compression level", value, 1, 12);
                break;
            case Reproducible:
                task.Reproducible = true;
                break;
            case Digest:
                task.PrintDigest = true;
                break;
        }
    }
}
