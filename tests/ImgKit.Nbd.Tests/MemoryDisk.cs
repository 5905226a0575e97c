using ImgKit.Block;

namespace ImgKit.Nbd.Tests;

/// <summary>A disk in memory; 4 KiB blocks of zeroes are holes. Can be told to fail, and to take its time.</summary>
internal sealed class MemoryDisk(int length) : BlockDevice
{
    private const int Block = 4096;
    private readonly byte[] _bytes = new byte[length];
    private readonly Lock _lock = new();

    public int Flushes { get; private set; }

    /// <summary>Requests that touch this offset fail with this error number.</summary>
    public (long Offset, int Errno)? Fault { get; set; }

    /// <summary>Reads at offset 0 wait for this.</summary>
    public ManualResetEventSlim? Gate { get; set; }

    public byte[] Content
    {
        get
        {
            lock (_lock)
                return (byte[])_bytes.Clone();
        }
    }

    public override string DriverName => "memory";

    public override long Length => _bytes.Length;

    public override void Read(long offset, Span<byte> destination)
    {
        Check(offset, destination.Length);
        if (offset == 0)
            Gate?.Wait();
        lock (_lock)
            _bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        Check(offset, source.Length);
        lock (_lock)
            source.CopyTo(_bytes.AsSpan((int)offset));
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        Check(offset, count);
        if ((options & ZeroOptions.NoFallback) != 0 && offset % Block != 0)
            throw new NotSupportedException("slow");
        lock (_lock)
            _bytes.AsSpan((int)offset, (int)count).Clear();
    }

    public override void Discard(long offset, long count) => WriteZeroes(offset, count);

    public override void Flush() => Flushes++;

    public override BlockExtent GetExtent(long offset, long count)
    {
        lock (_lock)
        {
            bool zero = IsZero(offset);
            long end = (offset / Block + 1) * Block;
            while (end < offset + count && IsZero(end) == zero)
                end += Block;
            return new(Math.Min(count, end - offset), ExtentKind.Allocated | (zero ? ExtentKind.Zero : ExtentKind.Data), 0);
        }
    }

    private bool IsZero(long offset)
    {
        int start = (int)(offset / Block * Block);
        return ZeroBuffer.IsZero(_bytes.AsSpan(start, Math.Min(Block, _bytes.Length - start)));
    }

    private void Check(long offset, long count)
    {
        CheckRange(offset, count);
        if (Fault is var (at, errno) && at >= offset && at < offset + count)
            throw new ImageException(ImageErrorKind.Io, "an injected error") { Errno = errno };
    }
}
