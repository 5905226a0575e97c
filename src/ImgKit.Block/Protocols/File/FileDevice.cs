using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

/// <summary>
/// A file or block device of the host. A regular file grows when written behind its end, and reads as zeroes there.
/// </summary>
public sealed partial class FileDevice : BlockDevice
{
    private const int FirstBlock = 4096;
    private const int LeastHole = 1 << 20;

    private readonly HostFile _file;
    private readonly OpenSettings _settings;
    private readonly string _driver;
    private readonly SpaceReservation? _space;

    /// <summary>Why data could not be brought to stable storage. The kernel may have dropped it from its cache, and tells so once: no later flush
    /// can promise anything.</summary>
    private volatile HostException? _lost;

    /// <summary>Held by whatever may change the length of the file: requests that end behind it, and direct ones that are not aligned.</summary>
    private readonly Lock _lengthChange = new();
    private long _length;
    private bool _noZeroRange;
    private bool _noPunchHole;

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

    /// <summary>After a write behind the end that failed: a part of it may be there, where formats count on zeroes.</summary>
    private void CutBack()
    {
        try
        {
            if (_file.Kind == HostFileKind.Regular && _file.GetLength() > Length)
                _file.SetLength(Length);
        }
        catch (HostException)
        {
            // What failed before is told.
        }
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
    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckWritable();
        if (count == 0)
            return;
        if (offset + count > Length)
        {
            lock (_lengthChange)
            {
                _space?.BeforeGrowth(offset, 0, Length);
                ZeroNow(offset, count, options);
            }
            return;
        }
        ZeroNow(offset, count, options);
    }

    private void ZeroNow(long offset, long count, ZeroOptions options)
    {
        try
        {
            if (!ZeroInKernel(offset, count, options.HasFlag(ZeroOptions.MayUnmap) && _settings.Unmap))
            {
                if (options.HasFlag(ZeroOptions.NoFallback))
                    throw new NotSupportedException("the host cannot zero a range without writing it");
                for (long at = 0; at < count;)
                {
                    int n = (int)Math.Min(1 << 20, count - at);
                    Write(offset + at, ZeroBuffer.Span(n));
                    at += n;
                }
                return;
            }
            Grown(offset + count);
            SyncThrough();
        }
        catch (HostException e)
        {
            throw Failed("zero", offset, count, e);
        }
    }

    private bool ZeroInKernel(long offset, long count, bool mayUnmap)
    {
        if (!_file.IsDirect)
            return ZeroByCall(offset, count, mayUnmap);
        var range = _inFlight.Enter(offset, offset + count, alone: false);
        try
        {
            return ZeroByCall(offset, count, mayUnmap);
        }
        finally
        {
            _inFlight.Leave(range);
        }
    }

    private bool ZeroByCall(long offset, long count, bool mayUnmap)
    {
        bool regular = _file.Kind == HostFileKind.Regular;
        if (regular && mayUnmap && !_noPunchHole)
        {
            if (_file.TryPunchHole(offset, count))
            {
                if (offset + count > _file.GetLength())
                    _file.SetLength(offset + count);
                return true;
            }
            NoHoles();
        }
        if (!_noZeroRange && (regular || _file.Kind == HostFileKind.BlockDevice))
        {
            if (_file.TryZeroRange(offset, count, mayUnmap))
                return true;
            _noZeroRange = true;
        }
        // A file system without zero range: behind the end, growing gives zeroes all the same.
        if (regular && offset >= _file.GetLength())
        {
            _file.SetLength(offset + count);
            return true;
        }
        return false;
    }

    /// <inheritdoc/>
    public override void Discard(long offset, long count)
    {
        CheckWritable();
        if (!_settings.Unmap || _noPunchHole)
            return;
        try
        {
            count = Math.Min(count, Length - offset);
            if (count > 0 && !_file.TryPunchHole(offset, count))
                NoHoles();
        }
        catch (HostException e)
        {
            throw Failed("discard", offset, count, e);
        }
    }

    private void NoHoles()
    {
        _noPunchHole = true;
        if (_file.Kind == HostFileKind.Regular)
            Note?.Invoke($"the file system of '{_file.Path}' cannot make holes: what is discarded or zeroed keeps its space");
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
    public override void Resize(long length, ResizeOptions options = default)
    {
        CheckWritable();
        lock (_lengthChange)
        {
            _space?.GiveBack();
            ResizeNow(length, options);
        }
    }

    private void ResizeNow(long length, ResizeOptions options)
    {
        long now = _file.GetLength();
        try
        {
            if (_file.Kind != HostFileKind.Regular)
            {
                if (options.Preallocation != Preallocation.Off)
                    throw new ImageException(ImageErrorKind.Unsupported, "Preallocation mode is not supported for device files", FileName);
                if (length > now)
                    throw new ImageException(ImageErrorKind.Unsupported, "Cannot grow device files", FileName);
                if (length != now && options.Exact)
                    throw new ImageException(ImageErrorKind.Unsupported, "Cannot resize device files", FileName);
                return;
            }
            if (options.Preallocation == Preallocation.Metadata)
                throw new ImageException(ImageErrorKind.InvalidArgument, "Unsupported preallocation mode: metadata", FileName);
            if (length > now)
                Grow(_file, now, length, options.Preallocation, Note);
            else
                _file.SetLength(length);
            Volatile.Write(ref _length, length);
        }
        catch (HostException e)
        {
            throw new ImageException(ImageErrorKind.Io, $"Could not resize file: {e.Message}", FileName, inner: e) { Errno = e.Errno };
        }
    }

    /// <summary>Makes a file longer; when the space cannot be had, it is as long as before.</summary>
    /// <param name="file">regular.</param>
    /// <param name="from">its length.</param>
    /// <param name="to">the length that it is to have.</param>
    /// <param name="preallocation">whether the new part is a hole, or has space.</param>
    /// <param name="note">told when the file system does not do the one or the other; may be null.</param>
    internal static void Grow(HostFile file, long from, long to, Preallocation preallocation, Action<string>? note)
    {
        if (preallocation is Preallocation.Off or Preallocation.Metadata)
        {
            file.SetLength(to);
            // Who opens the file with O_DIRECT finds the alignment that it needs by reading its first block: a hole takes any.
            if (from == 0 && to > 0)
                file.Write(0, ZeroBuffer.Span((int)(to < FirstBlock ? 512 : FirstBlock)));
            if (to is > 0 and < 512)
                file.SetLength(to);
            // A file that is as large on the disk as it is long has no holes.
            if (to - from > LeastHole && file.GetAllocatedBytes() is var space && space >= to)
                note?.Invoke($"the file system of '{file.Path}' has no holes: zeroes take space there");
            return;
        }
        string doing = "Could not preallocate new data";
        try
        {
            bool write = preallocation == Preallocation.Full;
            if (to > from && preallocation == Preallocation.Falloc && !file.TryAllocate(from, to - from, keepSize: false))
            {
                note?.Invoke($"the file system of '{file.Path}' cannot reserve space: zeroes are written instead");
                write = true;
            }
            if (write)
            {
                doing = "Could not write zeros for preallocation";
                for (long at = from; at < to;)
                {
                    int n = (int)Math.Min(1 << 20, to - at);
                    file.Write(at, ZeroBuffer.Span(n));
                    at += n;
                }
                file.Sync();
            }
        }
        catch (HostException e)
        {
            file.SetLength(from);
            throw new ImageException(ImageErrorKind.Io, $"{doing}: {e.Message}", file.Path, inner: e) { Errno = e.Errno };
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _space?.GiveBack();
        _file.Dispose();
    }

    private void Grown(long end)
    {
        long now = Volatile.Read(ref _length);
        while (end > now && _file.Kind == HostFileKind.Regular)
        {
            long seen = Interlocked.CompareExchange(ref _length, end, now);
            if (seen == now)
                return;
            now = seen;
        }
    }

    private void CheckWritable()
    {
        if (!_file.IsWritable)
            throw new ImageException(ImageErrorKind.ReadOnly, "the file is open for reading only", FileName) { Errno = 30 };
    }

    private ImageException Failed(string what, long offset, long count, HostException e) =>
        new(ImageErrorKind.Io, e.Message, FileName, offset, e) { Errno = e.Errno, Operation = $"{what} of {count} bytes at offset {offset} of '{FileName}'" };
}
