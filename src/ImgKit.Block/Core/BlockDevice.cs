namespace ImgKit.Block;

/// <summary>
/// A random-access disk of <see cref="Length"/> bytes: what every format, protocol and filter is, and what the
/// tools and the machine's disks consume.
/// </summary>
/// <remarks>
/// <para>All offsets and counts are bytes, of any alignment; a request must lie inside <c>[0, Length)</c>. Calls block
/// until they are done. Any number of threads may be inside one device at once; two requests that overlap and of
/// which one is a write have no defined order, but each byte ends as one of them left it.</para>
/// <para>Errors are <see cref="ImageException"/> (or a class below it) for what is wrong with an image, and
/// <see cref="IOException"/> for what the host refused. A failed write may have written a part.</para>
/// </remarks>
public abstract class BlockDevice : IDisposable
{
    /// <summary>Size of the disk in bytes.</summary>
    public abstract long Length { get; }

    /// <summary>True when every modifying call fails.</summary>
    public virtual bool IsReadOnly => false;

    /// <summary>Alignments and sizes that are fast, or required, here.</summary>
    public virtual BlockLimits Limits => BlockLimits.Default;

    /// <summary>The name for messages: a file name, a URL, or a <c>json:</c> description.</summary>
    public virtual string FileName { get; set; } = "";

    /// <summary>The driver's name as options and <c>info</c> print it, for example <c>qcow2</c>.</summary>
    public abstract string DriverName { get; }

    /// <summary>Fills <paramref name="destination"/> from <paramref name="offset"/>.</summary>
    public abstract void Read(long offset, Span<byte> destination);

    /// <summary>Writes <paramref name="source"/> at <paramref name="offset"/>.</summary>
    public abstract void Write(long offset, ReadOnlySpan<byte> source);

    /// <summary>Fills the buffers one after the other from <paramref name="offset"/>.</summary>
    public virtual void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        foreach (var b in buffers)
        {
            Read(offset, b.Span);
            offset += b.Length;
        }
    }

    /// <summary>Writes the buffers one after the other at <paramref name="offset"/>.</summary>
    public virtual void WriteVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        foreach (var b in buffers)
        {
            Write(offset, b.Span);
            offset += b.Length;
        }
    }

    /// <summary>Makes a range read as zeroes.</summary>
    /// <exception cref="NotSupportedException">with <see cref="ZeroOptions.NoFallback"/>, when it would have to write zeroes.</exception>
    public virtual void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        if (options.HasFlag(ZeroOptions.NoFallback))
            throw new NotSupportedException($"{DriverName} cannot zero a range without writing it");
        ZeroBuffer.WriteTo(this, offset, count);
    }

    /// <summary>Says that a range's content is no longer needed. What it reads as afterwards is for the device to
    /// decide (zeroes where it knows nothing better); doing nothing is right, too.</summary>
    public virtual void Discard(long offset, long count) { }

    /// <summary>Returns when everything written before is on stable storage.</summary>
    public abstract void Flush();

    /// <summary>
    /// What lies at <paramref name="offset"/>: the status of its first byte and for how many bytes (1 to
    /// <paramref name="count"/>) it stays the same. One layer only: for what is not allocated here look at
    /// <see cref="Backing"/> (<see cref="BlockExtents"/> does that walk).
    /// </summary>
    public virtual BlockExtent GetExtent(long offset, long count) => new(count, ExtentKind.Data, 0);

    /// <summary>Sets <see cref="Length"/>. Bytes gained read as zeroes (never as a backing file's data); bytes lost are gone.</summary>
    /// <exception cref="NotSupportedException">the device has a fixed size.</exception>
    public virtual void Resize(long length, ResizeOptions options = default) =>
        throw new NotSupportedException($"Image format driver '{DriverName}' does not support resize");

    /// <summary>A format tells the device that holds its bytes what it is about to do; only <c>blkdebug</c> listens. May throw
    /// what an injected error would, and may block.</summary>
    public virtual void DebugEvent(BlockDebugEvent debugEvent) { }

    /// <summary>The device below whose content shows where nothing is allocated here, or null.</summary>
    public virtual BlockDevice? Backing => null;

    /// <summary>The device that holds this device's bytes (a format's file, a filter's subject), or null for a protocol.</summary>
    public virtual BlockDevice? Storage => null;

    /// <summary>Bytes that the image takes on the host (all its files), or -1 when that is not known.</summary>
    public virtual long AllocatedHostBytes => Storage?.AllocatedHostBytes ?? -1;

    /// <summary>The name that options can refer to it by (<c>node-name</c>), or null.</summary>
    public string? NodeName { get; internal set; }

    /// <summary>Another device stands on this one by its name, besides who opened it.</summary>
    public bool IsShared => Volatile.Read(ref _moreOwners) > 0;

    private int _moreOwners;

    /// <summary>One more will call <see cref="Dispose()"/>; only the last one's call does it.</summary>
    internal void AddOwner() => Interlocked.Increment(ref _moreOwners);

    /// <summary>Raised when it is closed.</summary>
    internal event Action? Closed;

    /// <summary>Writes what is held back and closes the device and, where it owns them, the devices below; for a device with several owners
    /// the last one does.</summary>
    public void Dispose()
    {
        // Neither one of several owners nor a second call of the last: what is below may be others' still, and is given up once.
        if (Interlocked.Decrement(ref _moreOwners) != -1)
            return;
        Closed?.Invoke();
        Closed = null;
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>See <see cref="Dispose()"/>. Called once.</summary>
    protected virtual void Dispose(bool disposing) { }

    /// <summary>Throws unless <c>[offset, offset + count)</c> lies inside the device.</summary>
    protected void CheckRange(long offset, long count)
    {
        if (offset < 0 || count < 0 || offset > Length - count)
            throw new ImageException(ImageErrorKind.OutOfBounds,
                $"request of {count} bytes at offset {offset} is outside the device of {Length} bytes", FileName, offset);
    }
}
