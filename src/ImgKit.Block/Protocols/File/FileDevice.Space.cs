using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

// The space that a file takes: its length, zeroes and holes.
public sealed partial class FileDevice
{
    private const int FirstBlock = 4096;
    private const int LeastHole = 1 << 20;

    /// <summary>Held by whatever may change the length of the file: requests that end behind it, and direct ones that are not aligned.</summary>
    private readonly Lock _lengthChange = new();
    private long _length;
    private bool _noZeroRange;
    private bool _noPunchHole;

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
}
