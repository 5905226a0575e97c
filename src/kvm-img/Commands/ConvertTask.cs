using ImgKit.Block;
using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Create;
using ImgKit.Block.Jobs.Digest;
using ImgKit.Block.Jobs.Streams;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>A conversion as the command line describes it: opens, checks, creates, runs, and tidies up.</summary>
internal sealed class ConvertTask(CommonOptions common)
{
    private const string Pipe = "-";

    private readonly List<BlockDevice> _opened = [];
    private readonly List<BlockDevice> _sources = [];

    public string? TargetFormat { get; set; }

    public string? BackingFile { get; set; }

    public string? BackingFormat { get; set; }

    public CreateOptionText Options { get; } = new();

    public SnapshotChoice? Snapshot { get; set; }

    public string SourceCache { get; set; } = "writeback";

    public string TargetCache { get; set; } = "unsafe";

    public long MinimumZeroRun { get; set; } = 4096;

    public int Threads { get; set; } = ConvertRequest.DefaultThreads;

    public long RateLimit { get; set; }

    public int? CompressionLevel { get; set; }

    public bool Compress { get; set; }

    public bool CopyInKernel { get; set; }

    public bool SkipCreate { get; set; }

    public bool IsTargetZero { get; set; }

    public bool IsTargetImageOpts { get; set; }

    public bool Salvage { get; set; }

    public bool CopyBitmaps { get; set; }

    public bool SkipBrokenBitmaps { get; set; }

    public bool Reproducible { get; set; }

    public bool PrintDigest { get; set; }

    private ImageOpener Opener => common.Opener;

    /// <summary>Converts. When that fails, a target that was created is removed.</summary>
    public void Run(string[] sources, string target)
    {
        var settings = new OpenSettings { ReadOnly = true, UnshareWrite = true }.WithCacheMode(SourceCache, "Invalid source cache option");
        using var interrupt = new InterruptGuard(Opener);
        common.DropsTarget = !SkipCreate;
        using var progress = new Progress(common, 1, usesError: target == Pipe);
        using var digest = PrintDigest ? new ContentDigest() : null;
        try
        {
            if (IsRawFromPipe(sources, target))
                RunFromPipe(target, digest, progress);
            else
                Run(sources, target, settings, digest, progress);
            progress.Complete();
        }
        catch
        {
            if (!SkipCreate)
                CreateJob.RemoveFiles(Opener);
            throw;
        }
        finally
        {
            foreach (var d in _opened)
                d.Dispose();
        }
        // The progress has its line to itself.
        progress.Dispose();
        if (digest is not null)
            (target == Pipe ? OutputWriter.Error : OutputWriter.Out).WriteLine($"{digest.Finish()}  {target}");
    }

    private void Run(string[] sources, string target, OpenSettings settings, ContentDigest? digest, Progress progress)
    {
        OpenSources(sources, settings);
        long total = _sources.Sum(static s => s.Length);
        progress.Total = total;
        if (target == Pipe)
        {
            RunToPipe(total, digest, progress);
            return;
        }
        BlockOptions? options = SkipCreate ? null : ParseOptions(target, total);
        CheckBacking(options);
        if (CopyBitmaps)
            CheckBitmaps();
        if (options is not null)
            Create(target, total, options);
        var targetSettings = TargetSettings(options);
        using var device = ImageAccess.Open(common, target, TargetFormat, SkipCreate && IsTargetImageOpts, targetSettings);
        if (CopyBitmaps && device is not IBitmapImage { SupportsBitmaps: true })
            throw new CommandException($"Format driver '{device.DriverName}' does not support bitmaps");
        if (Compress && device is not ICompressingDevice)
            throw new CommandException("Compression not supported for this file format");
        if (SkipCreate && device.Length < total)
            throw new CommandException("output file is smaller than input file");
        bool isSequential = _sources.Any(static s => s is ISequentialImage);
        ConvertJob.Run(new ConvertRequest
        {
            Sources = _sources,
            Target = device,
            TargetIsZero = IsTargetZero || (!SkipCreate && IsZeroWhenNew(target)),
            TargetHasBacking = BackingFile is not null,
            TargetBackingLength = SkipCreate ? long.MaxValue : device.Backing?.Length ?? long.MaxValue,
            Compress = Compress,
            MinimumZeroRun = MinimumZeroRun,
            Threads = Threads,
            CopyInKernel = CopyInKernel,
            Salvage = Salvage,
            RateLimit = RateLimit,
            Digest = digest,
            Warn = common.Quiet ? null : Report.Warning,
            Progress = progress,
            AnnounceData = progress.IsShown && !isSequential ? total => progress.Total = total : null,
        });
        FinishSequential();
        if (CopyBitmaps)
            CopyBitmapsTo((IBitmapImage)device);
        device.Flush();
    }

    /// <summary>What comes through a pipe is whole only when its end has been seen.</summary>
    private void FinishSequential()
    {
        foreach (var s in _sources)
            (s as ISequentialImage)?.Finish();
    }

    private void OpenSources(string[] names, OpenSettings settings)
    {
        foreach (string name in names)
        {
            BlockDevice device;
            if (name == Pipe && !common.IsImageOpts)
            {
                if (names.Length > 1)
                    throw new CommandException("standard input cannot be joined with other sources");
                device = PipeSource.Open(Opener, common.Format, settings);
            }
            else
            {
                device = ImageAccess.Open(common, name, settings);
            }
            _opened.Add(device);
            if (Snapshot is not null)
            {
                if (names.Length > 1)
                    throw new CommandException("No support for concatenating multiple snapshot");
                device = Snapshot.OpenIn(device);
            }
            _sources.Add(device);
        }
    }

    private BlockOptions ParseOptions(string target, long size)
    {
        var (format, protocol) = CreateJob.DriversFor(Opener, target, TargetFormat!);
        var known = CreateOptionList.For(format, protocol);
        var options = CreateOptionList.Parse(known, Options.Parse());
        options.Set("size", size);
        CreateJob.SetBacking(known, options, format.Name, BackingFile, BackingFormat);
        if (Compress)
        {
            if (!format.SupportsCompression)
                throw new CommandException("Compression not supported for this file format");
            if (options.Get("encryption") is "on" or "yes" or "true" or "y" || options.Contains("encrypt.format"))
                throw new CommandException("Compression and encryption not supported at the same time");
            if (options.Get("preallocation") is string p && p != "off")
                throw new CommandException("Compression and preallocation not supported at the same time");
        }
        if (CompressionLevel is { } level && CreateOptionList.Find(known, "compression_level") is not null && !options.Contains("compression_level"))
            options.Set("compression_level", (long)level);
        return options;
    }

    private void CheckBacking(BlockOptions? options)
    {
        string? fromOptions = options?.Get("backing_file") as string;
        BackingFile = fromOptions ?? BackingFile;
        if (IsTargetZero && BackingFile is not null)
            throw new CommandException("Cannot use --target-is-zero when the destination image has a backing file");
        if (_sources.Count > 1 && BackingFile is not null)
            throw new CommandException("Having a backing file for the target makes no sense when concatenating multiple input images");
        if (fromOptions is not null && !options!.Contains("backing_fmt"))
            throw new CommandException("Use of backing file requires explicit backing format");
    }

    private void Create(string target, long size, BlockOptions options)
    {
        try
        {
            CreateJob.Create(Opener, Opener.Drivers.Get(TargetFormat!), target, size, options, Reproducible);
        }
        catch (Exception e) when (e is ImageException or (IOException and not OutputException))
        {
            throw new CommandException($"{target}: error while converting {TargetFormat}: {e.Message}");
        }
    }

    private OpenSettings TargetSettings(BlockOptions? options) =>
        new OpenSettings
        {
            Unmap = MinimumZeroRun > 0,
            FillsNew = !SkipCreate,
            Reproducible = Reproducible,
            CompressionLevel = options?.Get("compression_level") is long level ? (int)Math.Min(level, int.MaxValue) : CompressionLevel,
        }.WithCacheMode(TargetCache, "Invalid cache option");

    /// <summary>A new image reads as zeroes, unless it is the bytes of a device that was there before.</summary>
    private bool IsZeroWhenNew(string target) => TargetFormat != "raw" || Opener.DriverForFile(target).Name == "file";

    private bool IsRawFromPipe(string[] sources, string target) =>
        sources is [Pipe] && !common.IsImageOpts && common.Format == "raw" && TargetFormat is "raw" or "qcow2" && target != Pipe && !SkipCreate
        && Snapshot is null && BackingFile is null && !CopyBitmaps && !PipeSource.IsSeekable && Opener.DriverForFile(target).Name == "file";

    private void RunFromPipe(string target, ContentDigest? digest, Progress progress)
    {
        var options = ParseOptions(target, 0);
        Create(target, 0, options);
        using var device = ImageAccess.Open(common, target, TargetFormat, false, TargetSettings(options));
        progress.Total = RawPipeJob.Run(device, Compress, MinimumZeroRun, digest, progress);
        device.Flush();
    }

    private void RunToPipe(long total, ContentDigest? digest, Progress progress)
    {
        if (_sources.Count > 1)
            throw new CommandException("several sources cannot be joined on their way to standard output");
        if (SkipCreate || BackingFile is not null || CopyBitmaps)
            throw new CommandException("-n, -B and --bitmaps make no sense for standard output");
        var format = Opener.Drivers.Find(TargetFormat!) ?? throw new CommandException($"Unknown file format '{TargetFormat}'");
        var options = CreateOptionList.Parse(CreateOptionList.For(format, Opener.Drivers.Get("file")), Options.Parse());
        _ = options.TakeString("size");
        if (CompressionLevel is { } level && CreateOptionList.Find(format.CreateOptions, "compression_level") is not null)
            options.Set("compression_level", (long)level);
        using var output = new OutputStream(OutputWriter.Out);
        ImageStreamJob.Run(format, Opener, new StreamWriteContext
        {
            Source = _sources[0],
            Output = output,
            Options = options,
            Compress = Compress,
            Threads = Threads,
            Reproducible = Reproducible,
            Progress = progress,
            Digest = digest,
        });
        FinishSequential();
    }

    private void CheckBitmaps()
    {
        if (_sources.Count > 1)
            throw new CommandException("Copying bitmaps only possible with single source");
        if (_opened[0] is not IBitmapImage { SupportsBitmaps: true } source)
            throw new CommandException("Source lacks bitmap support");
        if (SkipBrokenBitmaps)
            return;
        // The peer looks at the last one first.
        foreach (var b in source.Bitmaps.Reverse())
            if (b.InUse)
                throw new CommandException($"Cannot copy inconsistent bitmap '{b.Name}'\n"
                    + $"Try --skip-broken-bitmaps, or use '{ProgramName.Base} bitmap --remove' to delete it");
    }

    private void CopyBitmapsTo(IBitmapImage target)
    {
        var source = (IBitmapImage)_opened[0];
        foreach (var b in source.Bitmaps.Reverse())
            if (b.InUse)
                Report.Warning($"Skipping inconsistent bitmap '{b.Name}'");
        foreach (var b in source.Bitmaps)
        {
            if (b.InUse)
                continue;
            try
            {
                target.AddBitmap(b.Name, b.Granularity, b.Auto);
            }
            catch (ImageException e)
            {
                throw new CommandException($"Failed to create bitmap {b.Name}: {e.Message}");
            }
            try
            {
                target.MergeBitmap(b.Name, source, b.Name);
            }
            catch (ImageException e)
            {
                target.RemoveBitmap(b.Name);
                throw new CommandException($"Failed to populate bitmap {b.Name}: {e.Message}");
            }
        }
    }
}
