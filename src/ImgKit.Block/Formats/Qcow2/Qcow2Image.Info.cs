using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : IImageDetails, IBackedImage, IVmStateImage
{
    /// <inheritdoc/>
    public int ClusterSize => _clusterSize;

    /// <inheritdoc/>
    public bool IsDirty => Header.HasFlag(IncompatDirty);

    /// <inheritdoc/>
    public bool IsCompressed => false;

    /// <inheritdoc/>
    public bool IsEncrypted => Header.CryptMethod != 0;

    /// <inheritdoc/>
    public InfoObject? FormatSpecific
    {
        get
        {
            var info = new InfoObject();
            info.Add("compat", Header.Version < 3 ? "0.10" : "1.1");
            info.Add("compression-type", Header.CompressionType == 1 ? "zstd" : "zlib");
            if (Header.Version >= 3)
                info.Add("lazy-refcounts", (Header.Compatible & CompatLazyRefcounts) != 0);
            if (_bitmaps.Count > 0)
                info.Add("bitmaps", _bitmaps.ConvertAll<object>(b => b.ToInfoObject()));
            info.Add("refcount-bits", 1L << Header.RefcountOrder);
            if (Header.CryptMethod != 0)
            {
                var encrypt = new InfoObject();
                encrypt.Add("format", Header.CryptMethod == 1 ? "aes" : "luks");
                info.Add("encrypt", encrypt);
            }
            if (Header.Version >= 3)
            {
                info.Add("data-file", _hasDataFile ? Header.DataFile : null);
                if (_hasDataFile)
                    info.Add("data-file-raw", (Header.Autoclear & AutoclearDataFileRaw) != 0);
                info.Add("corrupt", Header.HasFlag(IncompatCorrupt));
                info.Add("extended-l2", _extended);
            }
            return info;
        }
    }

    /// <inheritdoc/>
    public string? BackingFileName => Header.BackingFile;

    /// <inheritdoc/>
    public string? BackingFormat => Header.BackingFormat;

    /// <inheritdoc/>
    public void ChangeBackingFile(string? name, string? format)
    {
        CheckWritable();
        if (string.IsNullOrEmpty(name))
            name = format = null;
        if (name is not null && _hasDataFile && (Header.Autoclear & AutoclearDataFileRaw) != 0)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Invalid argument", FileName)
            {
                Errno = 22,
                Operation = "an image whose data file is raw has no backing file",
            };
        if (name is not null && System.Text.Encoding.UTF8.GetByteCount(name) > MaxBackingName)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Invalid argument", FileName) { Errno = 22 };
        using var alone = _gate.EnterExclusive();
        var (oldName, oldFormat) = (Header.BackingFile, Header.BackingFormat);
        (Header.BackingFile, Header.BackingFormat) = (name, string.IsNullOrEmpty(format) ? null : format);
        try
        {
            WriteHeader();
        }
        catch
        {
            (Header.BackingFile, Header.BackingFormat) = (oldName, oldFormat);
            throw;
        }
    }

    /// <inheritdoc/>
    public BlockDevice? ReplaceBacking(BlockDevice? backing)
    {
        using var alone = _gate.EnterExclusive();
        var old = _backing;
        _backing = backing;
        return old;
    }

    /// <inheritdoc/>
    public long VmStateOffset => L1EntriesFor(_length) << L1Shift;

    /// <inheritdoc/>
    public void ReadVmState(long offset, Span<byte> destination)
    {
        CheckUsable();
        _file.DebugEvent(BlockDebugEvent.VmStateLoad);
        int ticket = _gate.Enter();
        try
        {
            ReadGuest(VmStateAddress(offset, destination.Length), destination);
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    /// <inheritdoc/>
    public void WriteVmState(long offset, ReadOnlySpan<byte> source)
    {
        CheckWritable();
        if (source.IsEmpty)
            return;
        _file.DebugEvent(BlockDebugEvent.VmStateSave);
        long at = VmStateAddress(offset, source.Length);
        if (_hasDataFile)
            throw new ImageException(ImageErrorKind.Unsupported, "Operation not supported", FileName) { Errno = 95 };
        long needed = ((at + source.Length - 1) >> L1Shift) + 1;
        if (needed > _l1.Length)
        {
            using var alone = _gate.EnterExclusive();
            GrowL1(needed, Header.Size);
        }
        int ticket = _gate.Enter();
        try
        {
            WriteGuest(at, source);
        }
        finally
        {
            _gate.Exit(ticket);
        }
        if (_settings.WriteThrough)
            Flush();
    }

    private long VmStateAddress(long offset, long count)
    {
        long start = VmStateOffset;
        if (offset < 0 || start < 0 || offset > long.MaxValue - start - count)
            throw new ImageException(ImageErrorKind.OutOfBounds, "Invalid argument", FileName, offset) { Errno = 22 };
        return start + offset;
    }
}
