namespace ImgKit.Block.Formats.Vmdk;

/// <summary>What the tools ask of a virtual disk beyond reading and writing.</summary>
internal sealed partial class VmdkImage
{
    public int ClusterSize { get; }

    public bool IsDirty => false;

    bool IImageDetails.IsCompressed => false;

    public InfoObject FormatSpecific
    {
        get
        {
            var extents = new List<object>();
            foreach (var e in _extents)
            {
                var o = new InfoObject();
                if (e.IsCompressed)
                    o.Add("compressed", true);
                o.Add("virtual-size", e.Length);
                o.Add("filename", e.File?.FileName ?? "");
                if (e.GrainSize > 0)
                    o.Add("cluster-size", (long)e.GrainSize);
                o.Add("format", e.Type);
                if (e.Access != ExtentAccess.ReadWrite)
                    o.Add("access", e.Access == ExtentAccess.ReadOnly ? "RDONLY" : "NOACCESS");
                extents.Add(o);
            }
            return new InfoObject
            {
                { "cid", (long)Cid },
                { "parent-cid", (long)(_descriptor.ParentCid ?? VmdkDescriptor.NoParent) },
                { "create-type", CreateType },
                { "extents", extents },
            };
        }
    }

    private CompressedExtent? Stream => _extents.Count == 1 ? _extents[0] as CompressedExtent : null;

    public int CompressionUnit => Stream?.GrainSize ?? (ClusterSize > 0 ? ClusterSize : 1 << 16);

    public int MaxCompressedLength => Stream?.MaxCompressedLength ?? CompressionUnit;

    public bool CompressedOnly => Stream is not null;

    /// <summary>Only streamOptimized images hold compressed grains; others say that each is better stored plain.</summary>
    public int Compress(ReadOnlySpan<byte> unit, Span<byte> destination) => Stream?.Compress(unit, destination, CompressionLevel) ?? -1;

    public void WriteCompressed(long offset, ReadOnlySpan<byte> compressed, int unitLength)
    {
        int ticket = _gate.Enter();
        try
        {
            BeginChange(offset, unitLength);
            var stream = Stream ?? throw new ImageException(ImageErrorKind.Unsupported, "Compression not supported for this vmdk subformat", FileName);
            stream.WriteCompressed(offset, compressed, unitLength);
        }
        finally
        {
            EndChange(ticket);
        }
        FlushThrough();
    }

    public string? BackingFileName => _descriptor.ParentFileNameHint;

    public string? BackingFormat => BackingFileName is null ? null : "vmdk";

    public void ChangeBackingFile(string? name, string? format)
    {
        if (name is not null && format is not null and not "vmdk")
            throw new ImageException(ImageErrorKind.InvalidArgument, "backing_file must be a vmdk image", FileName) { Errno = 22 };
        if (name is not null && _extents.Exists(e => e is FlatExtent))
            throw new ImageException(ImageErrorKind.Unsupported, "Flat image can't have backing file", FileName) { Errno = 95 };
        if (name is { Length: 0 })
            name = null;
        uint cid = VmdkDescriptor.NoParent;
        if (name is not null)
        {
            VmdkCreate.CheckName(name);
            using var parent = _context.Opener.OpenReference(ReferenceKind.Backing, _context, name, null,
                OpenSettings.ReadOnlyDefault with { NoBacking = true, ForceShare = true, Depth = _context.Settings.Depth });
            cid = CidOf(parent) ?? throw new ImageException(ImageErrorKind.InvalidArgument,
                $"Invalid backing file format: {parent.DriverName}. Must be vmdk", FileName);
        }
        lock (_cidLock)
        {
            _descriptor.SetParent(cid, name);
            StoreDescriptor(flush: true);
            _parentChecked = false;
        }
    }

    public BlockDevice? ReplaceBacking(BlockDevice? backing)
    {
        using var alone = _gate.EnterExclusive();
        var old = _backing;
        _backing = backing;
        _parentChecked = false;
        return old;
    }

    public CheckResult Check(CheckRepair repair, Action<string> report)
    {
        using var alone = _gate.EnterExclusive();
        var result = new CheckResult();
        foreach (var e in _extents)
            e.Check(e.Access == ExtentAccess.ReadWrite && !IsReadOnly ? repair : CheckRepair.None, report, result);
        return result;
    }

    /// <summary>Drops all that is stored here. What showed through from the parent shows again, and the parent as it is now is the right one.</summary>
    public void MakeEmpty()
    {
        using var alone = _gate.EnterExclusive();
        BeginChange(0, Length);
        _dirty = true;
        foreach (var e in _extents)
            e.MakeEmpty();
        if (_backing is not null && CidOf(_backing) is { } cid && _descriptor.ParentCid != cid)
        {
            _descriptor.SetParent(cid, _descriptor.ParentFileNameHint);
            StoreDescriptor(flush: true);
            _parentChecked = false;
        }
    }
}
