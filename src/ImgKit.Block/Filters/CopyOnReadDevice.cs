using ImgKit.Host;

namespace ImgKit.Block.Filters;

/// <summary>
/// Copies what is read from below an image into the image, by whole clusters, so that it is there the next time. What a copy
/// takes over while a write to the same place goes on could be what the write has just replaced: copies and writes exclude each other.
/// </summary>
public sealed class CopyOnReadDevice : FilterDevice
{
    private const int Piece = 1 << 20;

    private readonly ReaderWriterLockSlim _order = new(LockRecursionPolicy.NoRecursion);

    /// <summary>Around an image.</summary>
    /// <exception cref="ImageException">it is read-only.</exception>
    public CopyOnReadDevice(BlockDevice inner)
        : base(inner)
    {
        if (inner.IsReadOnly)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Can't use copy-on-read on read-only device", inner.FileName);
        FileName = inner.FileName;
    }

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "copy-on-read",
        Kind = DriverKind.Filter,
        Description = "Keeps what is read from a backing file",
        Open = static context => context.File.IsReadOnly
            ? throw new ImageException(ImageErrorKind.ReadOnly, "Block node is read-only") { Errno = 30 }
            : new CopyOnReadDevice(context.File),
    };

    /// <inheritdoc/>
    public override string DriverName => "copy-on-read";

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        long cluster = Math.Max(Inner.Limits.ClusterSize, 1);
        long end = offset + destination.Length;
        for (long at = offset; at < end;)
        {
            long start = at / cluster * cluster;
            long limit = Math.Min(Length, (end + cluster - 1) / cluster * cluster);
            var e = Inner.GetExtent(start, limit - start);
            long next = Math.Min(end, start + e.Length);
            if (!e.IsAllocated && !e.IsZero)
                Copy(start, Math.Min(e.Length, limit - start));
            Inner.Read(at, destination.Slice((int)(at - offset), (int)(next - at)));
            at = next;
        }
    }

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        _order.EnterReadLock();
        try
        {
            Inner.Write(offset, source);
        }
        finally
        {
            _order.ExitReadLock();
        }
    }

    /// <inheritdoc/>
    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        _order.EnterReadLock();
        try
        {
            Inner.WriteZeroes(offset, count, options);
        }
        finally
        {
            _order.ExitReadLock();
        }
    }

    /// <inheritdoc/>
    public override void Discard(long offset, long count)
    {
        _order.EnterReadLock();
        try
        {
            Inner.Discard(offset, count);
        }
        finally
        {
            _order.ExitReadLock();
        }
    }

    private void Copy(long offset, long count)
    {
        _order.EnterWriteLock();
        try
        {
            while (count > 0)
            {
                // Another may have been here, or written, before the lock was had.
                var own = Inner.GetExtent(offset, count);
                long n = Math.Min(own.Length, count);
                if (!own.IsAllocated && !own.IsZero)
                    n = CopyPiece(offset, n);
                offset += n;
                count -= n;
            }
        }
        finally
        {
            _order.ExitWriteLock();
        }
    }

    private long CopyPiece(long offset, long count)
    {
        var (extent, _, _) = BlockExtents.GetExtentAbove(Inner, offset, count);
        long n = Math.Min(extent.Length, count);
        Inner.DebugEvent(BlockDebugEvent.CorWrite);
        if (extent.IsZero)
        {
            Inner.WriteZeroes(offset, n);
            return n;
        }
        using var buffer = new AlignedBuffer((int)Math.Min(n, Piece));
        for (long done = 0; done < n;)
        {
            var piece = buffer.Span[..(int)Math.Min(buffer.Length, n - done)];
            Inner.Read(offset + done, piece);
            if (ZeroBuffer.IsZero(piece))
                Inner.WriteZeroes(offset + done, piece.Length);
            else
                Inner.Write(offset + done, piece);
            done += piece.Length;
        }
        return n;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        _order.Dispose();
    }
}
