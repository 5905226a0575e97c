namespace ImgKit.Block.Formats.Vmdk;

/// <summary>Opens virtual disks: finds the descriptor, the extents and the parent, and judges every number on the way.</summary>
internal static class VmdkOpen
{
    private static readonly string[] KnownTypes =
    [
        "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "2GbMaxExtentSparse", "2GbMaxExtentFlat",
        "streamOptimized", "vmfs", "vmfsSparse", "vmfsThin", "vmfsPreallocated", "vmfsEagerZeroedThick", "seSparse", "custom",
    ];

    public static VmdkImage Open(OpenContext context)
    {
        var file = context.File;
        if (file.Length < 4)
            throw new ImageException(ImageErrorKind.InvalidFormat, "File is too small, not a valid image", file.FileName) { Errno = 22 };
        byte[] head = new byte[(int)Math.Min(file.Length, 512)];
        file.Read(0, head);
        var extents = new List<VmdkExtent>();
        BlockDevice? backing = null;
        try
        {
            var parts = SparseHeader.HasMagic(head) ? OpenSelfContained(context, extents)
                : CowdHeader.HasMagic(head)
                    ? throw new ImageException(ImageErrorKind.Unsupported, "a COWD extent has no descriptor: open its descriptor file instead", file.FileName)
                    {
                        Errno = 22,
                    }
                : OpenDescriptorFile(context, ReadDescriptor(file, 0, file.Length), new DescriptorPlace(0, 0), extents);
            if (parts.Descriptor.Cid is null || parts.Descriptor.ParentCid is null)
                throw new ImageException(ImageErrorKind.InvalidFormat, "the descriptor has no CID or no parentCID", file.FileName) { Errno = 22 };
            backing = OpenParent(context, parts.Descriptor);
            return new VmdkImage(context, parts, backing);
        }
        catch
        {
            foreach (var e in extents)
                e.Dispose();
            backing?.Dispose();
            throw;
        }
    }

    private static VmdkDescriptor ReadDescriptor(BlockDevice file, long offset, long size)
    {
        if (offset > file.Length)
            throw new ImageException(ImageErrorKind.Corrupt, $"the descriptor at offset {offset} lies behind the end of the file ({file.Length} bytes)",
                file.FileName, 28);
        byte[] text = new byte[(int)Math.Min(Math.Min(size, file.Length - offset), VmdkDescriptor.MaxSize)];
        file.Read(offset, text);
        return VmdkDescriptor.Parse(text);
    }

    /// <summary>A sparse extent that has its descriptor inside: whatever file that names, the extent is this one.</summary>
    private static VmdkParts OpenSelfContained(OpenContext context, List<VmdkExtent> extents)
    {
        var file = context.File;
        var header = ReadHeader(file);
        if (header.Capacity == 0 && header.DescriptorOffset != 0)
        {
            // Only a container for the descriptor, unless that says that the disk is empty.
            var (inner, innerPlace) = ReadEmbedded(file, header);
            if (inner.CreateType is { } type and not ("monolithicSparse" or "streamOptimized"))
                return OpenDescriptorFile(context, inner, innerPlace, extents);
        }
        extents.Add(OpenHosted(file, header, writable: !context.Settings.ReadOnly));
        var (descriptor, place) = ReadEmbedded(file, header);
        string created = extents[0].IsCompressed ? "streamOptimized" : "monolithicSparse";
        return new VmdkParts(descriptor, place, created, extents);
    }

    private static (VmdkDescriptor Descriptor, DescriptorPlace Place) ReadEmbedded(BlockDevice file, SparseHeader header)
    {
        if (header.DescriptorOffset == 0)
            return (VmdkDescriptor.Parse([]), default);
        long offset = Bytes(file, header.DescriptorOffset, "descriptor", 28);
        // 20 sectors are usual; a header that says nothing, or too much, gets those.
        long size = header.DescriptorSize is 0 or > VmdkDescriptor.MaxSize / 512 ? 20 * 512 : (long)header.DescriptorSize * 512;
        return (ReadDescriptor(file, offset, size), new DescriptorPlace(offset, (int)size));
    }

    private static SparseHeader ReadHeader(BlockDevice file)
    {
        byte[] b = new byte[SparseHeader.Size];
        if (file.Length < b.Length)
            throw new ImageException(ImageErrorKind.InvalidFormat, $"Could not read header from file '{file.FileName}': it has only {file.Length} bytes",
                file.FileName) { Errno = 22 };
        file.Read(0, b);
        return SparseHeader.Parse(b);
    }

    private static void CheckType(string type, BlockDevice file)
    {
        if (!KnownTypes.Contains(type, StringComparer.OrdinalIgnoreCase))
            throw new ImageException(ImageErrorKind.Unsupported, $"Unsupported image type '{type}'", file.FileName) { Errno = 95 };
    }

    private static VmdkParts OpenDescriptorFile(OpenContext context, VmdkDescriptor descriptor, DescriptorPlace place, List<VmdkExtent> extents)
    {
        string type = descriptor.CreateType ?? throw new ImageException(ImageErrorKind.InvalidFormat, "invalid VMDK image descriptor", context.FileName)
        {
            Errno = 22,
        };
        CheckType(type, context.File);
        long total = 0;
        foreach (var (number, line) in descriptor.Extents())
        {
            if (line.Sectors > long.MaxValue / 512 - total)
                throw new ImageException(ImageErrorKind.InvalidFormat, $"Invalid extent line: {line}", context.FileName);
            total += line.Sectors;
            var extent = OpenExtent(context, line, extents.Count);
            extent.Type = line.Type;
            extent.Access = line.Access;
            extent.Line = number;
            extents.Add(extent);
        }
        if (extents.Count == 0)
            throw new ImageException(ImageErrorKind.InvalidFormat, "the descriptor names no extent", context.FileName) { Errno = 22 };
        return new VmdkParts(descriptor, place, type, extents);
    }

    internal static VmdkExtent OpenExtent(OpenContext context, in ExtentLine line, int index)
    {
        if (line.Type == "ZERO" || line.Access == ExtentAccess.None)
            return new EmptyExtent(line.Sectors * 512, line.Access == ExtentAccess.None);
        if (line.Type is not ("FLAT" or "VMFS" or "SPARSE" or "VMFSSPARSE" or "SESPARSE"))
            throw new ImageException(ImageErrorKind.Unsupported, $"Unsupported extent type '{line.Type}'", context.FileName) { Errno = 95 };
        bool writable = !context.Settings.ReadOnly && line.Access == ExtentAccess.ReadWrite && line.Type != "SESPARSE";
        var file = OpenExtentFile(context, line.FileName, index, context.Settings with { ReadOnly = !writable });
        try
        {
            var extent = line.Type switch
            {
                "FLAT" or "VMFS" => new FlatExtent(file, Math.Max(line.Offset, 0) * 512, line.Sectors * 512),
                "SESPARSE" => new SeSparseExtent(file),
                _ => OpenSparse(file, writable),
            };
            if (extent is FlatExtent && line.Offset > (long.MaxValue / 512) - line.Sectors)
                throw new ImageException(ImageErrorKind.InvalidFormat, $"Invalid extent line: {line}", context.FileName);
            extent.OwnsFile = true;
            return extent;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Extents are plain files: no format is looked for in them.</summary>
    private static BlockDevice OpenExtentFile(OpenContext context, string name, int index, OpenSettings settings)
    {
        var options = context.Options.TakeChild($"extents.{index}");
        string resolved;
        try
        {
            resolved = FileNames.Resolve(FileNames.BaseOf(context.FileName, context.Storage), name);
        }
        catch (ImageException e)
        {
            BlockDevice bottom = context.File;
            while (bottom.Storage is { } below)
                bottom = below;
            throw new ImageException(e.Kind, $"Cannot use relative paths with VMDK descriptor file '{context.FileName}': "
                + $"Cannot generate a base directory for {bottom.DriverName} nodes", context.FileName, inner: e)
            {
                Errno = 22,
            };
        }
        bool named = options.ContainsChild("file") || options.Contains("driver") || options.Contains("filename");
        return context.Opener.OpenReference(ReferenceKind.Extent, context, name, named ? null : context.Opener.DriverForFile(resolved).Name, settings, options);
    }

    private static VmdkExtent OpenSparse(BlockDevice file, bool writable)
    {
        Span<byte> magic = stackalloc byte[4];
        if (file.Length < 4)
            throw new ImageException(ImageErrorKind.InvalidFormat, "File is too small, not a valid image", file.FileName) { Errno = 22 };
        file.Read(0, magic);
        if (SparseHeader.HasMagic(magic))
            return OpenHosted(file, ReadHeader(file), writable);
        if (CowdHeader.HasMagic(magic))
            return OpenCowd(file);
        throw new ImageException(ImageErrorKind.InvalidFormat, "Image not in VMDK format", file.FileName, 0) { Errno = 22 };
    }

    private static VmdkExtent OpenHosted(BlockDevice file, SparseHeader header, bool writable)
    {
        bool atEnd = header.GrainDirectory == SparseHeader.DirectoryAtEnd;
        if (atEnd)
            header = ReadFooter(file);
        if (header.Version > 3)
            throw Bad(file, ImageErrorKind.Unsupported, $"Unsupported VMDK version {header.Version}", 4, 95);
        if (header.Version == 3 && writable && !header.IsCompressed)
            throw Bad(file, ImageErrorKind.Unsupported, "VMDK version 3 must be read only", 4, 22);
        if (header.EntriesPerTable > 512)
            throw Bad(file, ImageErrorKind.Corrupt, "L2 table size too big", 44, 22);
        if (header.EntriesPerTable == 0 || header.GrainSize == 0)
            throw Bad(file, ImageErrorKind.Corrupt, "L1 entry size is invalid", 20, 22);
        if (header.Overhead > (ulong)file.Length / 512)
            throw Bad(file, ImageErrorKind.Corrupt, $"File truncated, expecting at least {unchecked((long)(header.Overhead * 512))} bytes", 64, 22);
        if (header.GrainSize > 0x200000)
            throw Bad(file, ImageErrorKind.Corrupt, "Invalid granularity, image may be corrupt", 20, 27);
        if (header.IsCompressed && header.GrainSize * 512 > CompressedExtent.MaxGrainSize)
            throw Bad(file, ImageErrorKind.Unsupported, $"compressed grains of {header.GrainSize * 512} bytes are not supported", 20, 95);
        ulong perTable = header.EntriesPerTable * header.GrainSize;
        ulong entries = header.Capacity / perTable + (header.Capacity % perTable == 0 ? 0u : 1u);
        if (entries > GrainTables.MaxDirectoryEntries || header.Capacity > long.MaxValue / 512)
            throw Bad(file, ImageErrorKind.Corrupt, "L1 size too big", 12, 27);
        long redundant = (header.Flags & SparseHeader.RedundantDirectoryFlag) != 0 ? Bytes(file, header.RedundantGrainDirectory, "redundant grain directory", 48) : 0;
        var tables = new GrainTables(file, Bytes(file, header.GrainDirectory, "grain directory", 56), redundant, (int)entries, (int)header.EntriesPerTable);
        if (header.IsCompressed)
            return new CompressedExtent(file, header, tables, atEnd);
        var layout = new SparseLayout((long)header.Capacity, (int)header.GrainSize, (header.Flags & SparseHeader.ZeroedGrainFlag) != 0,
            Math.Max((long)header.Overhead, 1), 0);
        return new SparseExtent(file, layout, tables);
    }

    /// <summary>The last three sectors of a stream: footer marker, footer, end-of-stream marker.</summary>
    private static SparseHeader ReadFooter(BlockDevice file)
    {
        byte[] b = new byte[1536];
        long at = file.Length / 512 * 512 - b.Length;
        if (at >= 0)
            file.Read(at, b);
        if (at < 0 || !SparseHeader.HasMagic(b.AsSpan(512)) || !StreamMarker.Is(b, StreamMarker.Footer)
            || BitConverter.ToUInt64(b, 1024) != 0 || !StreamMarker.Is(b.AsSpan(1024), StreamMarker.EndOfStream))
            throw Bad(file, ImageErrorKind.Corrupt, "Invalid footer", Math.Max(at, 0), 22);
        return SparseHeader.Parse(b.AsSpan(512, 512));
    }

    private static SparseExtent OpenCowd(BlockDevice file)
    {
        if (file.Length < CowdHeader.Size)
            throw Bad(file, ImageErrorKind.Corrupt, $"Could not read header from file '{file.FileName}': it has only {file.Length} bytes", 0, 22);
        byte[] b = new byte[CowdHeader.Size];
        file.Read(0, b);
        var header = CowdHeader.Parse(b);
        if (header.GrainSize == 0)
            throw Bad(file, ImageErrorKind.Corrupt, "L1 entry size is invalid", 16, 22);
        if (header.GrainSize > 0x200000)
            throw Bad(file, ImageErrorKind.Corrupt, "Invalid granularity, image may be corrupt", 16, 27);
        ulong perTable = (ulong)CowdHeader.EntriesPerTable * header.GrainSize;
        ulong entries = (header.Capacity + perTable - 1) / perTable;
        if (header.GrainDirectoryEntries > GrainTables.MaxDirectoryEntries)
            throw Bad(file, ImageErrorKind.Corrupt, "L1 size too big", 24, 27);
        if (entries > header.GrainDirectoryEntries)
            throw Bad(file, ImageErrorKind.Corrupt,
                $"the grain directory has {header.GrainDirectoryEntries} entries, but {header.Capacity} sectors need {entries}", 24, 22);
        long directory = Bytes(file, header.GrainDirectory, "grain directory", 20);
        var tables = new GrainTables(file, directory, 0, (int)entries, CowdHeader.EntriesPerTable);
        long firstData = (directory + (long)entries * 4 + 511) / 512;
        return new SparseExtent(file, new SparseLayout(header.Capacity, (int)header.GrainSize, false, firstData, CowdHeader.FreeSectorOffset), tables);
    }

    private static BlockDevice? OpenParent(OpenContext context, VmdkDescriptor descriptor)
    {
        var options = context.Options.TakeChild("backing");
        string? reference = context.Options.TakeString("backing");
        if (reference is { Length: > 0 })
            return context.Settings.NoBacking ? null : context.Opener.Nodes.Take(reference, "");
        if (context.Settings.NoBacking || reference is not null || (descriptor.ParentFileNameHint is null && options.IsEmpty))
            return null;
        var settings = context.Settings with { ReadOnly = true };
        try
        {
            return context.Opener.OpenReference(ReferenceKind.Backing, context, descriptor.ParentFileNameHint ?? "",
                options.Contains("driver") ? null : "vmdk", settings, options);
        }
        catch (ImageException e)
        {
            throw new ImageException(e.Kind, $"Could not open backing file: {e.Message}", context.FileName, inner: e) { Errno = e.Errno };
        }
    }

    private static long Bytes(BlockDevice file, ulong sector, string what, long field)
    {
        if (sector > (ulong)file.Length / 512)
            throw Bad(file, ImageErrorKind.Corrupt, $"the {what} at sector {sector} lies behind the end of '{file.FileName}' ({file.Length} bytes)", field, 22);
        return (long)sector * 512;
    }

    private static ImageException Bad(BlockDevice file, ImageErrorKind kind, string message, long offset, int errno) =>
        new(kind, message, file.FileName, offset) { Errno = errno };
}
