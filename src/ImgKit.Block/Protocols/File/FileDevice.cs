using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

/// <summary>
/// A file or block device of the host. A regular file grows when written behind its end, and reads as zeroes there.
/// </summary>
public sealed partial class FileDevice : BlockDevice
{
    private readonly HostFile _file;
    private readonly OpenSettings _settings;
    private readonly string _driver;
    private readonly SpaceReservation? _space;

    /// <summary>Why data could not be brought to stable storage. The kernel may have dropped it from its cache, and tells so once: no later flush
    /// can promise anything.</summary>
    private volatile HostException? _lost;

    internal FileDevice(HostFile file, OpenSettings settings, string driver)
    {
        _file = file;
        _settings = settings;
        _driver = driver;
        _length = file.GetLength();
        int sector = file.GetSectorSize();
        bool device = file.Kind == HostFileKind.BlockDevice;
        if (settings.FillsNew && file.IsWritable && file.IsFasterReserved)
            _space = new SpaceReservation(file);
        Limits = new BlockLimits(file.IsDirect || device ? sector : 1, 2 << 20, 0, device ? sector : 4096);
    }

    /// <summary>False when option <c>locking</c> is off.</summary>
    internal bool TakesLocks { get; init; }

    /// <summary>Told what the host's file system cannot do.</summary>
    internal Action<string>? Note { get; init; }

    /// <summary>Called when a format that keeps tables in memory is opened on this file.</summary>
    internal void LockForFormat()
    {
        if (TakesLocks)
            ImageLocks.TakeForFormat(_file, _settings);
    }

    /// <summary>The open file, for copying inside the kernel.</summary>
    public HostFile Host => _file;

    /// <inheritdoc/>
    public override string DriverName => _driver;

    /// <inheritdoc/>
    public override long Length => Volatile.Read(ref _length);

    /// <inheritdoc/>
    public override bool IsReadOnly => !_file.IsWritable;

    /// <inheritdoc/>
    public override BlockLimits Limits { get; }

    /// <inheritdoc/>
    public override long AllocatedHostBytes => _file.GetAllocatedBytes();

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination)
    {
        try
        {
            int n = _file.IsDirect ? ReadDirect(offset, destination) : _file.Read(offset, destination);
            destination[n..].Clear();
        }
        catch (HostException e)
        {
            throw Failed("read", offset, destination.Length, e);
        }
    }

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckWritable();
        bool aligned = !_file.IsDirect || IsAligned(offset, source, Limits.RequestAlignment);
        try
        {
            if (offset + source.Length > Length)
            {
                lock (_lengthChange)
                {
                    _space?.BeforeGrowth(offset, source.Length, Length);
                    try
                    {
                        WriteNow(offset, source, aligned);
                    }
                    catch
                    {
                        CutBack();
                        throw;
                    }
                }
            }
            else if (aligned)
            {
                _space?.BeforeWrite(offset, source.Length);
                WriteNow(offset, source, aligned);
            }
            else
            {
                lock (_lengthChange)
                    WriteNow(offset, source, aligned);
            }
            SyncThrough();
        }
        catch (HostException e)
        {
            throw Failed("write", offset, source.Length, e);
        }
    }

    private void WriteNow(long offset, ReadOnlySpan<byte> source, bool aligned)
    {
        if (_file.IsDirect)
            WriteDirect(offset, source, aligned);
        else
            _file.Write(offset, source);
        Grown(offset + source.Length);
    }

    private void SyncThrough()
    {
        if (_settings.WriteThrough)
            Sync();
    }

    private void Sync()
    {
        if (_lost is { } lost)
            throw new HostException(lost.Errno);
        try
        {
            _file.Sync();
        }
        catch (HostException e) when (!_file.IsDirect)
        {
            _lost = e;
            throw;
        }
    }

    /// <inheritdoc/>
    public override unsafe void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        if (_file.IsDirect || buffers.Length > 256)
        {
            base.ReadVector(offset, buffers);
            return;
        }
        Span<(nint, int)> vectors = stackalloc (nint, int)[buffers.Length];
        long total = 0;
        for (int i = 0; i < buffers.Length; i++)
        {
            vectors[i] = ((nint)buffers[i].Address, buffers[i].Length);
            total += buffers[i].Length;
        }
        long done;
        try
        {
            done = _file.ReadVector(offset, vectors);
        }
        catch (HostException e)
        {
            throw Failed("read", offset, total, e);
        }
        foreach (var b in buffers)
        {
            if (done < b.Length)
                b.Span[(int)Math.Max(done, 0)..].Clear();
            done -= b.Length;
        }
    }

    /// <inheritdoc/>
    public override unsafe void WriteVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        CheckWritable();
        if (_file.IsDirect || _space is not null || buffers.Length > 256)
        {
            base.WriteVector(offset, buffers);
            return;
        }
        Span<(nint, int)> vectors = stackalloc (nint, int)[buffers.Length];
        long total = 0;
        for (int i = 0; i < buffers.Length; i++)
        {
            vectors[i] = ((nint)buffers[i].Address, buffers[i].Length);
            total += buffers[i].Length;
        }
        try
        {
            if (offset + total > Length)
            {
                lock (_lengthChange)
                {
                    try
                    {
                        _file.WriteVector(offset, vectors);
                    }
                    catch
                    {
                        CutBack();
                        throw;
                    }
                    Grown(offset + total);
                }
            }
            else
            {
                _file.WriteVector(offset, vectors);
            }
            SyncThrough();
        }
        catch (HostException e)
        {
            throw Failed("write", offset, total, e);
        }
    }

    /// <inheritdoc/>
    public override void Flush()
    {
        if (_settings.NoFlush || !_file.IsWritable)
            return;
        try
        {
            Sync();
        }
        catch (HostException e)
        {
            throw Failed("flush", 0, 0, e);
        }
    }

    /// <inheritdoc/>
    public override BlockExtent GetExtent(long offset, long count)
    {
        const ExtentKind data = ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid;
        const ExtentKind hole = ExtentKind.Zero | ExtentKind.Allocated | ExtentKind.OffsetValid;
        if (_file.Kind != HostFileKind.Regular)
            return new(count, data, offset);
        long start = _file.Seek(offset, data: true);
        if (start == -2)
            return new(count, data, offset);
        if (start == -1)
        {
            // No data behind here; the part behind the end of the file is no hole of it, but reads as zeroes, too.
            return new(count, hole, offset);
        }
        if (start > offset)
            return new(Math.Min(count, start - offset), hole, offset);
        long end = _file.Seek(offset, data: false);
        return new(end <= offset ? count : Math.Min(count, end - offset), data, offset);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _space?.GiveBack();
        _file.Dispose();
    }

    private void CheckWritable()
    {
        if (!_file.IsWritable)
            throw new ImageException(ImageErrorKind.ReadOnly, "the file is open for reading only", FileName) { Errno = 30 };
    }

    private ImageException Failed(string what, long offset, long count, HostException e) =>
        new(ImageErrorKind.Io, e.Message, FileName, offset, e) { Errno = e.Errno, Operation = $"{what} of {count} bytes at offset {offset} of '{FileName}'" };
}
