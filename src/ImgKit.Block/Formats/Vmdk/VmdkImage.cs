using System.Security.Cryptography;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// A virtual disk: a descriptor, one or more extents one behind the other, and perhaps a parent whose content shows where nothing is
/// allocated. Any number of threads; see README.md in this folder.
/// </summary>
internal sealed partial class VmdkImage : BlockDevice, ICompressingDevice, IBackedImage, IImageDetails, ICheckableImage, IEmptyableImage
{
    internal const int DefaultCompressionLevel = 4;

    private readonly BlockDevice _file;
    private readonly OpenContext _context;
    private readonly VmdkDescriptor _descriptor;
    private readonly DescriptorPlace _place;
    private volatile List<VmdkExtent> _extents;
    private readonly RequestGate _gate = new();
    private readonly Lock _cidLock = new();
    private BlockDevice? _backing;
    private long _length;
    private uint _cid;
    private volatile bool _cidRewritten;
    private volatile bool _parentChecked;
    private volatile bool _dirty;
    private volatile bool _descriptorGrew;

    internal VmdkImage(OpenContext context, VmdkParts parts, BlockDevice? backing)
    {
        _context = context;
        _file = context.File;
        _descriptor = parts.Descriptor;
        _place = parts.Place;
        _extents = parts.Extents;
        _backing = backing;
        _cid = parts.Descriptor.Cid ?? VmdkDescriptor.NoParent;
        CreateType = parts.CreateType;
        CompressionLevel = context.Settings.CompressionLevel is { } level ? (int)Math.Clamp(level, 1, 12) : DefaultCompressionLevel;
        long at = 0;
        foreach (var e in _extents)
        {
            e.Image = this;
            e.Start = at;
            at = checked(at + e.Length);
        }
        _length = at;
        IsReadOnly = context.Settings.ReadOnly || _extents.TrueForAll(e => e is SeSparseExtent);
        ClusterSize = CommonGrainSize();
        Limits = new BlockLimits(1, 2 << 20, ClusterSize, Math.Max(ClusterSize, 512));
    }

    /// <summary>As the descriptor says, or as the header shows where that has none.</summary>
    public string CreateType { get; }

    /// <summary>1 to 12.</summary>
    public int CompressionLevel { get; }

    /// <summary>Identifies the content; a child is valid only for the one that it was made for.</summary>
    public uint Cid => Volatile.Read(ref _cid);

    public override string DriverName => "vmdk";

    public override long Length => Volatile.Read(ref _length);

    public override bool IsReadOnly { get; }

    public override BlockLimits Limits { get; }

    public override BlockDevice? Backing => _backing;

    public override BlockDevice Storage => _file;

    public override long AllocatedHostBytes
    {
        get
        {
            long n = _file.AllocatedHostBytes;
            foreach (var e in _extents)
                if (e is { OwnsFile: true, File: { } f })
                    n += Math.Max(f.AllocatedHostBytes, 0);
            return n;
        }
    }

    internal IReadOnlyList<VmdkExtent> Extents => _extents;

    private int CommonGrainSize()
    {
        int size = _extents.Count > 0 ? _extents[0].GrainSize : 0;
        return _extents.TrueForAll(e => e.GrainSize == size && e.IsCompressed == _extents[0].IsCompressed) ? size : 0;
    }

    private VmdkExtent ExtentAt(long offset)
    {
        var extents = _extents;
        int low = 0, high = extents.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            if (extents[middle].Start <= offset)
                low = middle;
            else
                high = middle - 1;
        }
        return extents[low];
    }

    public override void Read(long offset, Span<byte> destination)
    {
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, destination.Length);
            while (destination.Length > 0)
            {
                var e = ExtentAt(offset);
                int n = (int)Math.Min(destination.Length, e.Start + e.Length - offset);
                e.Read(offset - e.Start, destination[..n]);
                destination = destination[n..];
                offset += n;
            }
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        int ticket = _gate.Enter();
        try
        {
            BeginChange(offset, source.Length);
            while (source.Length > 0)
            {
                var e = WritableExtentAt(offset);
                int n = (int)Math.Min(source.Length, e.Start + e.Length - offset);
                e.Write(offset - e.Start, source[..n]);
                source = source[n..];
                offset += n;
            }
        }
        finally
        {
            EndChange(ticket);
        }
        FlushThrough();
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        int ticket = _gate.Enter();
        try
        {
            ZeroInside(offset, count, options);
        }
        finally
        {
            EndChange(ticket);
        }
        FlushThrough();
    }

    /// <summary><see cref="WriteZeroes"/> for who is inside the image already.</summary>
    private void ZeroInside(long offset, long count, ZeroOptions options)
    {
        BeginChange(offset, count);
        while (count > 0)
        {
            var e = WritableExtentAt(offset);
            long n = Math.Min(count, e.Start + e.Length - offset);
            e.WriteZeroes(offset - e.Start, n, options);
            count -= n;
            offset += n;
        }
    }

    public override void Discard(long offset, long count)
    {
        int ticket = _gate.Enter();
        try
        {
            BeginChange(offset, count);
            while (count > 0)
            {
                var e = WritableExtentAt(offset);
                long n = Math.Min(count, e.Start + e.Length - offset);
                e.Discard(offset - e.Start, n);
                count -= n;
                offset += n;
            }
        }
        finally
        {
            EndChange(ticket);
        }
        FlushThrough();
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, count);
            var e = ExtentAt(offset);
            return e.GetExtent(offset - e.Start, Math.Min(count, e.Start + e.Length - offset));
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    public override void Flush()
    {
        if (IsReadOnly)
            return;
        int ticket = _gate.Enter();
        try
        {
            FlushInside();
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    private void FlushInside()
    {
        // Before anything is looked at: a change that comes meanwhile says so again.
        _dirty = false;
        try
        {
            foreach (var e in _extents)
                if (e.Access == ExtentAccess.ReadWrite)
                    e.Flush();
            StoreGrownDescriptor();
            if (_cidRewritten)
                _file.Flush();
        }
        catch
        {
            _dirty = true;
            throw;
        }
    }

    /// <summary>Fills from the parent; zeroes where there is none, and behind its end.</summary>
    internal void ReadBacking(long offset, Span<byte> destination)
    {
        int there = 0;
        if (_backing is { } below)
        {
            CheckParent(below);
            _file.DebugEvent(BlockDebugEvent.ReadBackingAio);
            there = (int)Math.Clamp(below.Length - offset, 0, destination.Length);
            if (there > 0)
                below.Read(offset, destination[..there]);
        }
        destination[there..].Clear();
    }

    /// <summary>A parent that has been written since the child was made is not what the child was made for.</summary>
    private void CheckParent(BlockDevice below)
    {
        if (_parentChecked)
            return;
        if (CidOf(below) is not { } cid)
            throw new ImageException(ImageErrorKind.InvalidFormat, $"the parent '{below.FileName}' is no vmdk image, so it has no content ID", FileName)
            {
                Errno = 22,
            };
        uint wanted = _descriptor.ParentCid ?? VmdkDescriptor.NoParent;
        if (cid != wanted)
            throw new ImageException(ImageErrorKind.Corrupt,
                $"the parent '{below.FileName}' has been changed: its content ID is {cid:x8}, this image was made for {wanted:x8}", FileName)
            {
                Errno = 22,
            };
        _parentChecked = true;
    }

    /// <summary>The content ID of an image, looked for below filters; null when it is no vmdk image.</summary>
    internal static uint? CidOf(BlockDevice device)
    {
        for (BlockDevice? d = device; d is not null; d = d.Storage)
            if (d is VmdkImage image)
                return image.Cid;
        return null;
    }

    private VmdkExtent WritableExtentAt(long offset)
    {
        var e = ExtentAt(offset);
        if (e.Access == ExtentAccess.ReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, $"offset {offset} lies in an extent that the descriptor marks RDONLY", FileName, offset)
            {
                Errno = 30,
            };
        return e;
    }

    private void BeginChange(long offset, long count)
    {
        CheckRange(offset, count);
        CheckWritable();
        if (count == 0)
            return;
        if (!_cidRewritten)
            RewriteCid();
    }

    private void CheckWritable()
    {
        if (IsReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "Block node is read-only", FileName) { Errno = 30 };
    }

    /// <summary>Leaves the image, which a request may have changed also when it failed.</summary>
    private void EndChange(int ticket)
    {
        // Only now: a flush that ran beside the change may have missed it.
        if (_cidRewritten)
            _dirty = true;
        _gate.Exit(ticket);
    }

    private void FlushThrough()
    {
        if (_context.Settings.WriteThrough)
            Flush();
    }

    /// <summary>
    /// Gives the content a new identity before the first change since opening, so that children of the old content are found out. It
    /// is on stable storage before any change can be, unless there was nothing in the image that a child could depend on.
    /// </summary>
    private void RewriteCid()
    {
        lock (_cidLock)
        {
            if (_cidRewritten)
                return;
            uint cid = NewCid();
            _descriptor.SetCid(cid);
            StoreDescriptor(flush: !_extents.TrueForAll(e => e.IsPristine));
            Volatile.Write(ref _cid, cid);
            _cidRewritten = true;
        }
    }

    private uint NewCid() => _context.Settings.Reproducible ? VmdkCid.Derive($"{_cid:x8} changed") : VmdkCid.Random(_cid);

    /// <summary>Writes the descriptor to where it was read from.</summary>
    private void StoreDescriptor(bool flush)
    {
        byte[] text = _descriptor.ToBytes();
        if (_place.Size > 0)
        {
            if (text.Length > _place.Size)
                throw new ImageException(ImageErrorKind.Unsupported,
                    $"the descriptor needs {text.Length} bytes, but there is room for {_place.Size} in '{_file.FileName}'", _file.FileName, _place.Offset)
                {
                    Errno = 28,
                };
            byte[] area = new byte[_place.Size];
            text.CopyTo(area, 0);
            _file.Write(_place.Offset, area);
        }
        else
        {
            _file.Write(0, text);
            if (_file.Length > text.Length)
                _file.Resize(text.Length);
        }
        if (flush)
            _file.Flush();
    }

    protected override void Dispose(bool disposing)
    {
        try
        {
            if (_dirty)
                FlushInside();
        }
        finally
        {
            foreach (var e in _extents)
                e.Dispose();
            _backing?.Dispose();
            _file.Dispose();
        }
    }
}

/// <summary>Where a descriptor is stored.</summary>
/// <param name="Offset">bytes.</param>
/// <param name="Size">room for it inside an extent, or 0: it is a file of its own.</param>
internal readonly record struct DescriptorPlace(long Offset, int Size);

/// <summary>What opening finds out.</summary>
internal sealed record VmdkParts(VmdkDescriptor Descriptor, DescriptorPlace Place, string CreateType, List<VmdkExtent> Extents);

/// <summary>Content IDs.</summary>
internal static class VmdkCid
{
    /// <summary>One by chance, other than <paramref name="old"/>.</summary>
    public static uint Random(uint old)
    {
        Span<byte> b = stackalloc byte[4];
        uint v;
        do
        {
            RandomNumberGenerator.Fill(b);
            v = BitConverter.ToUInt32(b);
        }
        while (v == old || IsReserved(v));
        return v;
    }

    /// <summary>One that follows from <paramref name="text"/>.</summary>
    public static uint Derive(string text)
    {
        byte[] h = SHA256.HashData(System.Text.Encoding.UTF8.GetBytes("vmdk " + text));
        for (int i = 0; i < h.Length; i += 4)
            if (BitConverter.ToUInt32(h, i) is var v && !IsReserved(v))
                return v;
        return 1;
    }

    /// <summary>All ones means no parent; one less and zero have been given meanings, too.</summary>
    private static bool IsReserved(uint v) => v is 0 or >= 0xFFFFFFFE;
}
