using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>The create options, parsed and checked.</summary>
internal sealed record Qcow2CreateOptions
{
    public long Size { get; init; }

    public uint Version { get; init; } = 3;

    public int ClusterBits { get; init; } = 16;

    public int RefcountOrder { get; init; } = 4;

    public bool LazyRefcounts { get; init; }

    public bool ExtendedL2 { get; init; }

    public byte CompressionType { get; init; }

    public Preallocation Preallocation { get; init; }

    public string? BackingFile { get; init; }

    public string? BackingFormat { get; init; }

    public string? DataFile { get; init; }

    public bool DataFileRaw { get; init; }

    /// <summary>Takes the options out, with the peer's words for what is wrong.</summary>
    public static Qcow2CreateOptions Take(long size, BlockOptions options)
    {
        string? encryption = options.TakeBool("encryption") == true ? "encryption" : null;
        foreach (var (key, _) in options.Entries)
            if (key.StartsWith("encrypt.", StringComparison.Ordinal))
                encryption = key;
        if (encryption is not null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Encrypted qcow2 images are not supported (option '{encryption}')") { Errno = 95 };
        _ = options.TakeString("nocow");
        _ = options.TakeSize("extent_size_hint");
        size = options.TakeSize("size") ?? size;
        string? compat = options.TakeString("compat") ?? options.TakeString("version");
        long clusterSize = options.TakeSize("cluster_size") ?? 65536;
        bool lazy = options.TakeBool("lazy_refcounts") ?? false;
        long refcountBits = options.TakeNumber("refcount_bits") ?? 16;
        bool extended = options.TakeBool("extended_l2") ?? false;
        string compression = options.TakeString("compression_type") ?? "zlib";
        string? backing = options.TakeString("backing_file");
        string? backingFormat = options.TakeString("backing_fmt");
        string? dataFile = options.TakeString("data_file");
        bool raw = options.TakeBool("data_file_raw") ?? false;
        uint version = compat switch
        {
            null or "1.1" or "v3" => 3,
            "0.10" or "v2" => 2,
            _ => throw Invalid($"Parameter 'version' does not accept value '{compat}'"),
        };
        if (compression is not ("zlib" or "zstd"))
            throw Invalid($"Parameter 'compression-type' does not accept value '{compression}'");
        var preallocation = PreallocationOption.Parse(options.TakeString("preallocation"), allowMetadata: true);
        size = checked((size + 511) & -512);
        var o = new Qcow2CreateOptions
        {
            Size = size,
            Version = version,
            ClusterBits = ClusterBitsOf(clusterSize),
            RefcountOrder = (int)ulong.Log2((ulong)Math.Max(refcountBits, 1)),
            LazyRefcounts = lazy,
            ExtendedL2 = extended,
            CompressionType = (byte)(compression == "zstd" ? 1 : 0),
            Preallocation = preallocation,
            BackingFile = string.IsNullOrEmpty(backing) ? null : backing,
            BackingFormat = string.IsNullOrEmpty(backingFormat) ? null : backingFormat,
            DataFile = string.IsNullOrEmpty(dataFile) ? null : dataFile,
            DataFileRaw = raw,
        };
        o.Check(refcountBits);
        return o;
    }

    internal static int ClusterBitsOf(long clusterSize)
    {
        if (clusterSize < 1 << MinClusterBits || clusterSize > 1 << MaxClusterBits || !long.IsPow2(clusterSize))
            throw Invalid($"Cluster size must be a power of two between {1 << MinClusterBits} and {1 << (MaxClusterBits - 10)}k");
        return (int)long.Log2(clusterSize);
    }

    private void Check(long refcountBits)
    {
        if (ExtendedL2)
        {
            if (ClusterBits < MinSubclusterBits + 5)
                throw Invalid($"Extended L2 entries are only supported with cluster sizes of at least {1 << (MinSubclusterBits + 5)} bytes");
            if (Version < 3)
                throw Invalid("Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        }
        if (Preallocation != Preallocation.Off && BackingFile is not null && !ExtendedL2)
            throw Invalid("Backing file and preallocation can only be used at the same time if extended_l2 is on");
        if (BackingFormat is not null && BackingFile is null)
            throw Invalid("Backing format cannot be used without backing file");
        if (LazyRefcounts && Version < 3)
            throw Invalid("Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        if (refcountBits is < 1 or > 64 || !long.IsPow2(refcountBits))
            throw Invalid("Refcount width must be a power of two and may not exceed 64 bits");
        if (Version < 3 && refcountBits != 16)
            throw Invalid("Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)");
        if (DataFileRaw && DataFile is null)
            throw Invalid("data-file-raw requires data-file");
        if (DataFileRaw && BackingFile is not null)
            throw Invalid("Backing file and data-file-raw cannot be used at the same time");
        if (DataFile is not null && Version < 3)
            throw Invalid("External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        if (CompressionType != 0 && Version < 3)
            throw Invalid("Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        if (L1Entries * 8 > MaxL1Bytes)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                "The image size is too large for file format 'qcow2' (try using a larger cluster size)") { Errno = 27 };
    }

    /// <summary>Entries of the L1 table.</summary>
    public long L1Entries => ClusterBits * 2 - (ExtendedL2 ? 4 : 3) is var shift && shift >= 63 ? 1 : DivUp(Size, 1L << shift);

    internal static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message) { Errno = 22 };
}

/// <summary>Makes new images. The bytes follow from the options alone.</summary>
internal static class Qcow2Creator
{
    public static void Create(CreateContext context)
    {
        var o = Qcow2CreateOptions.Take(context.Size, context.Options);
        if (o.DataFile is not null)
            CreateDataFile(context, o);
        using (var file = context.CreateStorage())
        {
            var pieces = EmptyImage(o);
            // A device has something in it already, and what is left out of the tables is zeroes.
            if (file.Length > 0)
                file.WriteZeroes(0, Math.Min(file.Length, pieces.Max(p => p.Offset + p.Bytes.Length + (1L << o.ClusterBits) - 1 & -(1L << o.ClusterBits))));
            foreach (var (offset, bytes) in pieces)
                file.Write(offset, bytes);
        }
        var preallocation = o.DataFileRaw && o.Preallocation == Preallocation.Off ? Preallocation.Metadata : o.Preallocation;
        if (preallocation == Preallocation.Off || o.Size == 0)
            return;
        using var image = (Qcow2Image)context.Opener.Open(context.FileName, "qcow2", new OpenSettings { NoBacking = true, NoFlush = true });
        image.Preallocate(0, o.Size, preallocation);
    }

    private static void CreateDataFile(CreateContext context, Qcow2CreateOptions o)
    {
        using var data = context.Opener.CreateFile(o.DataFile!, 0);
        if (o.Size > 0)
            data.Resize(o.Size, new ResizeOptions(o.Preallocation is Preallocation.Falloc or Preallocation.Full ? o.Preallocation : Preallocation.Off));
    }

    /// <summary>An empty image as pieces of a file, in order; the header, without which it is no image, comes last.</summary>
    internal static List<(long Offset, byte[] Bytes)> EmptyImage(Qcow2CreateOptions o)
    {
        int bits = o.ClusterBits;
        long cluster = 1L << bits;
        long perBlock = cluster * 8 >> o.RefcountOrder;
        long l1Entries = o.L1Entries;
        long l1Clusters = DivUp(l1Entries * 8, cluster);
        long tableClusters = 1, blocks = 1;
        for (; ; )
        {
            long total = 1 + tableClusters + blocks + l1Clusters;
            long b = DivUp(total, perBlock), t = DivUp(b * 8, cluster);
            if (b == blocks && t == tableClusters)
                break;
            (blocks, tableClusters) = (b, t);
        }
        long used = 1 + tableClusters + blocks + l1Clusters;
        long blocksAt = (1 + tableClusters) << bits;
        long l1At = (1 + tableClusters + blocks) << bits;
        var header = new Qcow2Header
        {
            Version = o.Version,
            ClusterBits = bits,
            Size = (ulong)o.Size,
            L1Size = (uint)l1Entries,
            L1TableOffset = (ulong)l1At,
            RefcountTableOffset = (ulong)cluster,
            RefcountTableClusters = (uint)tableClusters,
            RefcountOrder = o.RefcountOrder,
            CompressionType = o.CompressionType,
            BackingFile = o.BackingFile,
            BackingFormat = o.BackingFormat,
            DataFile = o.DataFile,
            Incompatible = (o.CompressionType != 0 ? IncompatCompression : 0) | (o.ExtendedL2 ? IncompatExtendedL2 : 0)
                | (o.DataFile is not null ? IncompatDataFile : 0),
            Compatible = o.LazyRefcounts ? CompatLazyRefcounts : 0,
            Autoclear = o.DataFileRaw ? AutoclearDataFileRaw : 0,
        };
        // Tables and blocks in one piece with the L1 table, as far as that has anything in it: its end makes the file's size.
        byte[] tables = new byte[(tableClusters + blocks) << bits];
        for (long i = 0; i < blocks; i++)
        {
            BinaryPrimitives.WriteUInt64BigEndian(tables.AsSpan((int)i * 8), (ulong)(blocksAt + (i << bits)));
            var block = tables.AsSpan((int)((tableClusters + i) << bits), (int)cluster);
            for (long c = 0; c < Math.Min(perBlock, used - i * perBlock); c++)
                RefcountCodec.Set(block, o.RefcountOrder, (int)c, 1);
        }
        byte[] head = header.ToBytes();
        int headUsed = (int)Math.Min(head.Length, AlignUp(head.AsSpan().LastIndexOfAnyExcept((byte)0) + 1, 8));
        var pieces = new List<(long, byte[])>();
        if (l1Entries > 0)
            pieces.Add((l1At + l1Entries * 8 - 8, new byte[8]));
        pieces.Add((cluster, Trim(tables)));
        pieces.Add((0, head.AsSpan(0, headUsed).ToArray()));
        if (l1Entries == 0)
            pieces.Insert(0, (l1At - 1, new byte[1]));
        return pieces;
    }

    private static byte[] Trim(byte[] bytes) => bytes.AsSpan(0, bytes.AsSpan().LastIndexOfAnyExcept((byte)0) + 1).ToArray();
}
