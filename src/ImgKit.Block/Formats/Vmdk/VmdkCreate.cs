using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>Makes new virtual disks.</summary>
internal static class VmdkCreate
{
    /// <summary>Sectors of a grain in new images.</summary>
    public const int GrainSectors = 128;

    /// <summary>Entries of a grain table in new images; VMware's programs want this number.</summary>
    public const int EntriesPerTable = 512;

    public const int DescriptorSectors = 20;

    private const int TableSectors = EntriesPerTable * 4 / 512;

    /// <summary>Refuses names and values that would end a quoted value or a line of the descriptor.</summary>
    public static void CheckName(string name)
    {
        if (name.AsSpan().IndexOfAny('"', '\n', '\r') >= 0 || name.Contains('\0', StringComparison.Ordinal))
            throw new ImageException(ImageErrorKind.InvalidArgument, $"'{name}' cannot be written into a vmdk descriptor") { Errno = 22 };
    }

    /// <summary>Where everything is in a new sparse extent of a size: redundant directory, directory, first grain; in sectors.</summary>
    public static (long Redundant, long Directory, long FirstGrain, int Tables) Layout(long size, bool redundant)
    {
        long grains = (size / 512 + GrainSectors - 1) / GrainSectors;
        long tables = (grains + EntriesPerTable - 1) / EntriesPerTable;
        if (tables > GrainTables.MaxDirectoryEntries)
            throw new ImageException(ImageErrorKind.InvalidArgument, "L1 size too big") { Errno = 27 };
        long copy = (tables * 4 + 511) / 512 + tables * TableSectors;
        const long first = 1 + DescriptorSectors;
        long directory = redundant ? first + copy : first;
        long end = (directory + copy + GrainSectors - 1) / GrainSectors * GrainSectors;
        return (redundant ? first : 0, directory, end, (int)tables);
    }

    public static void Create(CreateContext context)
    {
        var options = VmdkCreateOptions.Take(context.Options);
        if (context.Size is < 0 or > long.MaxValue - 511)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Image size too large") { Errno = 27 };
        long size = (context.Size + 511) & ~511L;
        CheckName(context.FileName);
        uint parentCid = options.BackingFile is null ? VmdkDescriptor.NoParent : ReadParentCid(context, options.BackingFile);
        uint cid = context.Reproducible
            ? VmdkCid.Derive($"{options.Subformat} {size} {options.Adapter} {parentCid:x8}")
            : VmdkCid.Random(VmdkDescriptor.NoParent);
        var lines = new StringBuilder();
        bool contained = options is { IsSplit: false, IsFlat: false };
        using var main = context.CreateStorage();
        if (contained)
        {
            WriteEmptySparse(main, size, options);
            lines.Append(CultureInfo.InvariantCulture, $"RW {size / 512} SPARSE \"{BaseName(context.FileName)}\"\n");
        }
        else
        {
            CreateExtents(context, options, size, lines);
        }
        byte[] text = Encoding.UTF8.GetBytes(options.Describe(cid, parentCid, lines.ToString(), size, LongContentId(context, cid)));
        if (contained && text.Length > DescriptorSectors * 512)
            throw new ImageException(ImageErrorKind.InvalidArgument, "the descriptor is too long", context.FileName) { Errno = 22 };
        main.Write(contained ? 512 : 0, text);
        main.Flush();
    }

    /// <summary>The upper 96 bits of the long content ID.</summary>
    private static string LongContentId(CreateContext context, uint cid)
    {
        if (context.Reproducible)
            return LongContentId(cid);
        Span<byte> b = stackalloc byte[12];
        System.Security.Cryptography.RandomNumberGenerator.Fill(b);
        return System.Convert.ToHexStringLower(b);
    }

    /// <summary>The same, from the content ID alone.</summary>
    public static string LongContentId(uint cid)
    {
        string s = "";
        for (int i = 0; i < 3; i++)
            s += VmdkDescriptor.Hex(VmdkCid.Derive($"{cid:x8} {i}"));
        return s;
    }

    private static void CreateExtents(CreateContext context, VmdkCreateOptions options, long size, StringBuilder lines)
    {
        var (folder, prefix, suffix) = Decompose(context.FileName);
        long left = size;
        for (int i = 1; left > 0; i++)
        {
            long n = options.IsSplit ? Math.Min(left, VmdkImage.SplitSize) : left;
            string name = options.IsSplit
                ? string.Create(CultureInfo.InvariantCulture, $"{prefix}-{(options.IsFlat ? 'f' : 's')}{i:D3}{suffix}")
                : $"{prefix}-flat{suffix}";
            using var file = context.Opener.CreateFile(folder + name);
            WriteExtent(file, n, options);
            lines.Append(CultureInfo.InvariantCulture, $"RW {n / 512} {(options.IsFlat ? "FLAT" : "SPARSE")} \"{name}\"{(options.IsFlat ? " 0" : "")}\n");
            left -= n;
        }
    }

    private static uint ReadParentCid(CreateContext context, string name)
    {
        string resolved = FileNames.Resolve(context.FileName, name);
        using var parent = context.Opener.Open(resolved, null, OpenSettings.ReadOnlyDefault with { NoBacking = true });
        return VmdkImage.CidOf(parent)
            ?? throw new ImageException(ImageErrorKind.InvalidArgument, $"Invalid backing file format: {parent.DriverName}. Must be vmdk") { Errno = 22 };
    }

    /// <summary>The header of a new extent.</summary>
    /// <param name="size">bytes of disk that it will hold.</param>
    /// <param name="options">what kind.</param>
    public static SparseHeader NewHeader(long size, VmdkCreateOptions options)
    {
        // As VMware's own writer does, a stream has one directory only: its grains carry their place themselves.
        bool redundant = !options.IsStream;
        var (rgd, gd, first, _) = Layout(size, redundant);
        return new SparseHeader
        {
            Version = options.IsStream ? 3u : options.ZeroedGrain ? 2u : 1u,
            Flags = SparseHeader.NewlineTestFlag | (redundant ? SparseHeader.RedundantDirectoryFlag : 0)
                | (options.ZeroedGrain ? SparseHeader.ZeroedGrainFlag : 0)
                | (options.IsStream ? SparseHeader.CompressedFlag | SparseHeader.MarkersFlag : 0),
            Capacity = (ulong)size / 512,
            GrainSize = GrainSectors,
            DescriptorOffset = 1,
            DescriptorSize = DescriptorSectors,
            EntriesPerTable = EntriesPerTable,
            RedundantGrainDirectory = (ulong)rgd,
            GrainDirectory = (ulong)gd,
            Overhead = (ulong)first,
            CompressAlgorithm = options.IsStream ? SparseHeader.Deflate : (ushort)0,
        };
    }

    /// <summary>Makes an extent of a file.</summary>
    public static void WriteExtent(BlockDevice file, long size, VmdkCreateOptions options)
    {
        if (options.IsFlat)
            file.Resize(size, new ResizeOptions(options.Preallocation));
        else
            WriteEmptySparse(file, size, options);
    }

    private static void WriteEmptySparse(BlockDevice file, long size, VmdkCreateOptions options)
    {
        var header = NewHeader(size, options);
        var (rgd, gd, first, tables) = Layout(size, !options.IsStream);
        // A device has something in it already; tables and the rest of the descriptor are zeroes.
        if (file.Length > 0)
            file.WriteZeroes(0, Math.Min(file.Length, first * 512));
        if (file.Length < first * 512)
            file.Resize(first * 512);
        var directory = new uint[tables];
        foreach (long place in (ReadOnlySpan<long>)[rgd, gd])
        {
            if (place == 0)
                continue;
            long table = place + (tables * 4L + 511) / 512;
            for (int i = 0; i < tables; i++)
                directory[i] = (uint)(table + (long)i * TableSectors);
            file.Write(place * 512, MemoryMarshal.AsBytes(directory.AsSpan()));
        }
        byte[] sector = new byte[SparseHeader.Size];
        header.WriteTo(sector);
        file.Write(0, sector);
    }

    /// <summary>Folder (with its separator), name without suffix, and suffix with its dot.</summary>
    private static (string Folder, string Prefix, string Suffix) Decompose(string fileName)
    {
        int start = fileName.LastIndexOf('/') + 1;
        if (start == 0)
            start = fileName.LastIndexOf(':') + 1;
        string name = fileName[start..];
        int dot = name.LastIndexOf('.');
        return (fileName[..start], dot < 0 ? name : name[..dot], dot < 0 ? "" : name[dot..]);
    }

    public static string BaseName(string fileName)
    {
        var (_, prefix, suffix) = Decompose(fileName);
        return prefix + suffix;
    }

    public static MeasureResult Measure(MeasureContext context)
    {
        var options = VmdkCreateOptions.Take(context.Options.Clone());
        long size = (context.Size + 511) & ~511L;
        if (options.IsFlat)
            return new MeasureResult(size, size);
        long metadata = 0;
        for (long left = size; left > 0 || metadata == 0;)
        {
            long n = options.IsSplit ? Math.Min(left, VmdkImage.SplitSize) : left;
            metadata += Layout(n, !options.IsStream).FirstGrain * 512;
            left -= n;
        }
        // A grain that does not compress grows by its marker and the framing of stored blocks.
        long grainBytes = GrainSectors * 512L + (options.IsStream ? 512 : 0);
        long all = (size + GrainSectors * 512L - 1) / (GrainSectors * 512L);
        long used = context.Source is null ? 0 : CountGrains(context.Source, size);
        return new MeasureResult(metadata + used * grainBytes, metadata + all * grainBytes);
    }

    private static long CountGrains(BlockDevice source, long size)
    {
        const long grain = GrainSectors * 512L;
        long end = Math.Min(source.Length, size);
        long count = 0, last = -1;
        for (long at = 0; at < end;)
        {
            var (extent, _, _) = BlockExtents.GetExtentAbove(source, at, end - at);
            if (!extent.IsZero && extent.IsAllocated)
            {
                long first = Math.Max(at / grain, last + 1);
                long final = (at + extent.Length - 1) / grain;
                count += Math.Max(0, final - first + 1);
                last = final;
            }
            at += extent.Length;
        }
        return count;
    }
}
