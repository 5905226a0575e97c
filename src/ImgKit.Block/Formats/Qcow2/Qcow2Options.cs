using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>Parts of the metadata, as the overlap checks name them.</summary>
[Flags]
internal enum MetadataKind
{
    None = 0,
    MainHeader = 1,
    ActiveL1 = 2,
    ActiveL2 = 4,
    RefcountBlock = 8,
    RefcountTable = 16,
    SnapshotTable = 32,
    InactiveL1 = 64,
    InactiveL2 = 128,
    BitmapDirectory = 256,

    /// <summary>Tests of constant cost.</summary>
    Constant = MainHeader | ActiveL1 | RefcountTable | SnapshotTable | BitmapDirectory,

    /// <summary>Tests that need nothing read.</summary>
    Cached = Constant | ActiveL2 | RefcountBlock | InactiveL1,

    All = Cached | InactiveL2,
}

/// <summary>The runtime options of an image.</summary>
internal sealed record Qcow2Options
{
    private static readonly (string Name, MetadataKind Kind)[] OverlapFlags =
    [
        ("main-header", MetadataKind.MainHeader),
        ("active-l1", MetadataKind.ActiveL1),
        ("active-l2", MetadataKind.ActiveL2),
        ("refcount-table", MetadataKind.RefcountTable),
        ("refcount-block", MetadataKind.RefcountBlock),
        ("snapshot-table", MetadataKind.SnapshotTable),
        ("inactive-l1", MetadataKind.InactiveL1),
        ("inactive-l2", MetadataKind.InactiveL2),
        ("bitmap-directory", MetadataKind.BitmapDirectory),
    ];

    /// <summary>For the driver's declaration.</summary>
    public static IReadOnlyList<DriverOption> Declared { get; } =
    [
        new("lazy-refcounts", OptionType.Bool, "Postpone refcount updates"),
        new("pass-discard-request", OptionType.Bool, "Pass guest discard requests to the layer below"),
        new("pass-discard-snapshot", OptionType.Bool, "Generate discard requests when snapshot related space is freed"),
        new("pass-discard-other", OptionType.Bool, "Generate discard requests when other clusters are freed"),
        new("discard-no-unref", OptionType.Bool, "Do not unreference discarded clusters"),
        new("overlap-check", OptionType.String, "Selects which overlap checks to perform from a range of templates (none, constant, cached, all)"),
        new("overlap-check.template", OptionType.String,
            "Selects which overlap checks to perform from a range of templates (none, constant, cached, all)"),
        new("overlap-check.main-header", OptionType.Bool, "Check for unintended writes into the main qcow2 header"),
        new("overlap-check.active-l1", OptionType.Bool, "Check for unintended writes into the active L1 table"),
        new("overlap-check.active-l2", OptionType.Bool, "Check for unintended writes into an active L2 table"),
        new("overlap-check.refcount-table", OptionType.Bool, "Check for unintended writes into the refcount table"),
        new("overlap-check.refcount-block", OptionType.Bool, "Check for unintended writes into a refcount block"),
        new("overlap-check.snapshot-table", OptionType.Bool, "Check for unintended writes into the snapshot table"),
        new("overlap-check.inactive-l1", OptionType.Bool, "Check for unintended writes into an inactive L1 table"),
        new("overlap-check.inactive-l2", OptionType.Bool, "Check for unintended writes into an inactive L2 table"),
        new("overlap-check.bitmap-directory", OptionType.Bool, "Check for unintended writes into the bitmap directory"),
        new("cache-size", OptionType.Size, "Maximum combined metadata (L2 tables and refcount blocks) cache size"),
        new("l2-cache-size", OptionType.Size, "Maximum L2 table cache size"),
        new("l2-cache-entry-size", OptionType.Size, "Size of each entry in the L2 cache"),
        new("refcount-cache-size", OptionType.Size, "Maximum refcount block cache size"),
        new("cache-clean-interval", OptionType.Number, "Clean unused cache entries after this time (in seconds)"),
        new("data-file", OptionType.String, "The external data file (data-file.driver, data-file.filename, ...)"),
        new("backing", OptionType.String, "The backing file (backing.driver, backing.file.filename, ...); empty for none"),
    ];

    public bool? LazyRefcounts { get; init; }

    public bool DiscardRequest { get; init; }

    public bool DiscardSnapshot { get; init; } = true;

    public bool DiscardOther { get; init; }

    /// <summary>Discarded clusters keep their place in the file.</summary>
    public bool DiscardNoUnref { get; init; }

    public MetadataKind OverlapChecks { get; init; } = MetadataKind.Cached;

    public long L2CacheBytes { get; init; } = DefaultCacheBytes;

    public int L2EntryBytes { get; init; } = 65536;

    public long RefcountCacheBytes { get; init; } = 1 << 20;

    /// <summary>Tables that were not used for as many seconds leave memory; 0: they stay.</summary>
    public long CleanInterval { get; init; } = 600;

    /// <summary>Somebody asked for that interval.</summary>
    public bool CleanIntervalGiven { get; init; }

    /// <summary>Takes the options out.</summary>
    /// <exception cref="ImageException">values that make no sense.</exception>
    public static Qcow2Options Take(BlockOptions options, Qcow2Header header, OpenSettings settings)
    {
        var o = TakeCacheSizes(options, header);
        string? interval = options.TakeString("cache-clean-interval");
        if (interval is not null)
        {
            // As in C, a negative number is a very large one.
            if (!Int128.TryParse(interval, System.Globalization.CultureInfo.InvariantCulture, out var seconds))
                throw Invalid("Parameter 'cache-clean-interval' expects a number");
            if (seconds < 0 || seconds > uint.MaxValue)
                throw Invalid("Cache clean interval too big");
            o = o with { CleanInterval = (long)seconds, CleanIntervalGiven = true };
        }
        bool? lazy = options.TakeBool("lazy-refcounts");
        if (lazy == true && header.Version < 3)
            throw Invalid("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
        var checks = TakeOverlapChecks(options);
        o = o with
        {
            LazyRefcounts = lazy,
            OverlapChecks = checks,
            DiscardRequest = options.TakeBool("pass-discard-request") ?? settings.Unmap,
            DiscardSnapshot = options.TakeBool("pass-discard-snapshot") ?? true,
            DiscardOther = options.TakeBool("pass-discard-other") ?? false,
            DiscardNoUnref = options.TakeBool("discard-no-unref") ?? false,
        };
        if (o.DiscardNoUnref && header.Version < 3)
            throw Invalid("discard-no-unref is only supported since qcow2 version 3");
        return o;
    }

    private static MetadataKind TakeOverlapChecks(BlockOptions options)
    {
        string? plain = options.TakeString("overlap-check");
        string? template = options.TakeString("overlap-check.template");
        if (plain is not null && template is not null && plain != template)
            throw Invalid($"Conflicting values for qcow2 options 'overlap-check' ('{plain}') and 'overlap-check.template' ('{template}')");
        string name = plain ?? template ?? "cached";
        var kinds = name switch
        {
            "none" => MetadataKind.None,
            "constant" => MetadataKind.Constant,
            "cached" => MetadataKind.Cached,
            "all" => MetadataKind.All,
            _ => throw Invalid($"Unsupported value '{name}' for qcow2 option 'overlap-check'. "
                + "Allowed are any of the following: none, constant, cached, all"),
        };
        foreach (var (flag, kind) in OverlapFlags)
            if (options.TakeBool("overlap-check." + flag) is { } on)
                kinds = on ? kinds | kind : kinds & ~kind;
        return kinds;
    }

    private static Qcow2Options TakeCacheSizes(BlockOptions options, Qcow2Header header)
    {
        int cluster = header.ClusterSize;
        long? combined = options.TakeSize("cache-size");
        long? l2 = options.TakeSize("l2-cache-size");
        long? refcount = options.TakeSize("refcount-cache-size");
        long entry = options.TakeSize("l2-cache-entry-size") ?? Math.Min(cluster, 65536);
        const long minL2Clusters = 2, minRefcountClusters = 4;
        long l2Max = DefaultCacheBytes;
        long refcountMin = minRefcountClusters * cluster;
        if (combined is { } total)
        {
            if (l2 is not null && refcount is not null)
                throw Invalid("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
            if (l2 > total)
                throw Invalid("l2-cache-size may not exceed cache-size");
            if (refcount > total)
                throw Invalid("refcount-cache-size may not exceed cache-size");
            if (l2 is not null)
            {
                refcount = total - l2;
            }
            else if (refcount is not null)
            {
                l2 = total - refcount;
            }
            else
            {
                // L2 tables first; the least that reference counts need is kept back.
                l2 = Math.Min(l2Max, Math.Max(total - refcountMin, 0));
                refcount = Math.Max(refcountMin, total - l2.Value);
            }
        }
        if (entry < 1 << MinClusterBits || entry > cluster || !long.IsPow2(entry))
            throw Invalid($"L2 cache entry size must be a power of two between {1 << MinClusterBits} and the cluster size ({cluster})");
        if ((l2 ?? 0) / entry > int.MaxValue)
            throw Invalid("L2 cache size too big");
        if ((refcount ?? 0) / cluster > int.MaxValue)
            throw Invalid("Refcount cache size too big");
        return new Qcow2Options
        {
            L2CacheBytes = Math.Max(l2 ?? l2Max, minL2Clusters * entry),
            L2EntryBytes = (int)entry,
            RefcountCacheBytes = Math.Max(refcount ?? Math.Max(refcountMin, 1 << 20), refcountMin),
        };
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message) { Errno = 22 };
}
