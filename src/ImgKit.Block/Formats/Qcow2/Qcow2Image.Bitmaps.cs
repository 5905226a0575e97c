using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : IBitmapImage
{
    private List<Qcow2Bitmap> _bitmaps = [];
    private Qcow2Bitmap[]? _recording;      // what writes must mark; null: not decided since the list changed
    private bool _bitmapListChanged;

    /// <inheritdoc/>
    public IReadOnlyList<BitmapInfo> Bitmaps => _bitmaps.ConvertAll(b => b.ToInfo());

    /// <inheritdoc/>
    public bool SupportsBitmaps => Header.Version >= 3;

    /// <inheritdoc/>
    public void AddBitmap(string name, long granularity, bool enabled)
    {
        CheckWritable();
        using var alone = _gate.EnterExclusive();
        int bytes = System.Text.Encoding.UTF8.GetByteCount(name);
        if (_bitmaps.Exists(b => b.Name == name))
            throw BitmapError($"Bitmap already exists: {name}");
        if (bytes > MaxBitmapName)
            throw BitmapError($"Bitmap name too long: {name}");
        if (granularity < 512 || !long.IsPow2(granularity))
            throw BitmapError(granularity < 512 && long.IsPow2(granularity) ? "Granularity must be at least 512" : "Granularity must be power of 2");
        int bits = (int)long.Log2(granularity);
        if (Header.Version < 3)
            throw BitmapError($"Cannot make bitmap '{name}' persistent: Cannot store dirty bitmaps in qcow2 v2 files");
        CheckBitmapFits(name, bits, bytes);
        var bitmap = new Qcow2Bitmap(name, bits) { Flags = enabled ? Qcow2Bitmap.FlagAuto : 0, IsModified = true };
        bitmap.NewBits(_length);
        _bitmaps.Add(bitmap);
        ListChanged();
    }

    private void CheckBitmapFits(string name, int granularityBits, int nameBytes)
    {
        string prefix = $"Cannot make bitmap '{name}' persistent: ";
        if (granularityBits > MaxBitmapGranularityBits)
            throw BitmapError($"{prefix}Granularity exceeds maximum ({1L << MaxBitmapGranularityBits} bytes)");
        long stored = Qcow2Bitmap.StoredBytes(_length, granularityBits);
        if (stored > 0x20000000 || stored > (long)0x8000000 << _clusterBits)
            throw BitmapError($"{prefix}Too much space will be occupied by the bitmap. Use larger granularity");
        if (_bitmaps.Count >= MaxBitmaps)
            throw BitmapError($"{prefix}Maximum number of persistent bitmaps is already reached");
        long directory = AlignUp(24 + nameBytes, 8);
        foreach (var b in _bitmaps)
            directory += b.ToEntry().Length;
        if (directory > MaxBitmapDirectoryBytes)
            throw BitmapError($"{prefix}Not enough space in the bitmap directory");
    }

    /// <inheritdoc/>
    public void RemoveBitmap(string name)
    {
        CheckWritable();
        using var alone = _gate.EnterExclusive();
        var bitmap = FindBitmap(name, allowInconsistent: true);
        _bitmaps.Remove(bitmap);
        _removedBitmaps.Add(bitmap);
        ListChanged();
    }

    /// <inheritdoc/>
    public void ClearBitmap(string name)
    {
        CheckWritable();
        using var alone = _gate.EnterExclusive();
        var bitmap = FindBitmap(name);
        LoadBits(bitmap);
        Array.Clear(bitmap.Bits);
        bitmap.IsModified = true;
    }

    /// <inheritdoc/>
    public void EnableBitmap(string name, bool enable)
    {
        CheckWritable();
        using var alone = _gate.EnterExclusive();
        var bitmap = FindBitmap(name);
        LoadBits(bitmap);
        bitmap.Flags = enable ? bitmap.Flags | Qcow2Bitmap.FlagAuto : bitmap.Flags & ~Qcow2Bitmap.FlagAuto;
        ListChanged();
    }

    /// <inheritdoc/>
    public void MergeBitmap(string target, IBitmapImage source, string sourceName)
    {
        CheckWritable();
        // The source is looked at before this image is held: it may be this image.
        long length = source is BlockDevice device ? device.Length : _length;
        foreach (var b in source.Bitmaps)
            if (b.Name == sourceName && b.InUse)
                throw Inconsistent(sourceName);
        if (length != _length)
            throw BitmapError($"Bitmaps are of different sizes (destination size is {_length}, source size is {length}) and can't be merged");
        var dirty = new List<(long Offset, long Length)>();
        for (long at = 0; at < length;)
        {
            var (isDirty, n) = source.GetBitmapExtent(sourceName, at, length - at);
            if (isDirty)
                dirty.Add((at, n));
            at += n;
        }
        using var alone = _gate.EnterExclusive();
        var bitmap = FindBitmap(target);
        LoadBits(bitmap);
        foreach (var (offset, count) in dirty)
            bitmap.Mark(offset, count);
        bitmap.IsModified = true;
    }

    /// <inheritdoc/>
    public (bool Dirty, long Length) GetBitmapExtent(string name, long offset, long count)
    {
        var bitmap = FindBitmap(name);
        if (!bitmap.IsLoaded)
        {
            using var alone = _gate.EnterExclusive();
            LoadBits(bitmap);
        }
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, count);
            return bitmap.Extent(offset, count);
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    private Qcow2Bitmap FindBitmap(string name, bool allowInconsistent = false)
    {
        var bitmap = _bitmaps.Find(b => b.Name == name)
            ?? throw new ImageException(ImageErrorKind.NotFound, $"Dirty bitmap '{name}' not found", FileName) { Errno = 2 };
        return bitmap.IsInconsistent && !allowInconsistent ? throw Inconsistent(name) : bitmap;
    }

    private ImageException Inconsistent(string name) => BitmapError(
        $"Bitmap '{name}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk");

    private ImageException BitmapError(string message) => new(ImageErrorKind.InvalidArgument, message, FileName) { Errno = 22 };

    private void ListChanged()
    {
        _bitmapListChanged = true;
        Volatile.Write(ref _recording, null);
    }

    /// <summary>Before content changes: bitmaps that record are told. The caller is counted.</summary>
    private void BeforeGuestWrite(long offset, long count)
    {
        if (count == 0)
            return;
        var recording = Volatile.Read(ref _recording);
        if (recording is null)
            recording = StartRecording();
        foreach (var b in recording)
            b.Mark(offset, count);
    }

    /// <summary>The image says from now on, until it is closed, that its bitmaps are in use: what it holds of them may be old.</summary>
    private void MarkBitmaps(bool inUse)
    {
        bool any = false;
        foreach (var b in _bitmaps)
        {
            if (b.IsInconsistent || b.IsMarked == inUse)
                continue;
            b.IsMarked = inUse;
            any = true;
        }
        if (any && Header.Bitmaps is not null)
            RewriteBitmapFlags();
    }

    /// <summary>Loads the bitmaps that record.</summary>
    private Qcow2Bitmap[] StartRecording()
    {
        lock (_meta)
        {
            if (_recording is { } present)
                return present;
            var list = _bitmaps.FindAll(b => b.IsAuto && !b.IsInconsistent).ToArray();
            foreach (var b in list)
            {
                LoadBits(b);
                b.IsModified = true;
            }
            Volatile.Write(ref _recording, list);
            return list;
        }
    }

    /// <summary>Makes sure that <see cref="ResizeBitmaps"/> will find nothing to complain of. Alone.</summary>
    private void BeforeResizeOfBitmaps()
    {
        foreach (var b in _bitmaps)
            if (b.IsInconsistent)
                throw Inconsistent(b.Name);
        foreach (var b in _bitmaps)
            LoadBits(b);
    }

    /// <summary>Bitmaps for a disk of another length: before it is longer, and after it is shorter, so that at no time a place on the disk has no
    /// bit. Alone.</summary>
    private void ResizeBitmaps(long length)
    {
        foreach (var b in _bitmaps)
        {
            b.Resize(length);
            b.IsModified = true;
        }
    }
}
