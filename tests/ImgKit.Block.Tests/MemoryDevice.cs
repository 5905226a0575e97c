namespace ImgKit.Block.Tests;

/// <summary>A disk in memory, of any size that is set; grows when written behind its end, as a file does.</summary>
internal sealed class MemoryDevice(int length = 0) : BlockDevice
{
    private readonly Lock _lock = new();
    private byte[] _bytes = new byte[length];

    public byte[] Snapshot()
    {
        lock (_lock)
            return (byte[])_bytes.Clone();
    }

    public override string DriverName => "memory";

    public override long Length => _bytes.Length;

    public override void Read(long offset, Span<byte> destination)
    {
        lock (_lock)
        {
            destination.Clear();
            int n = (int)Math.Clamp(_bytes.Length - offset, 0, destination.Length);
            if (n > 0)
                _bytes.AsSpan((int)offset, n).CopyTo(destination);
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        lock (_lock)
        {
            if (offset + source.Length > _bytes.Length)
                Array.Resize(ref _bytes, (int)(offset + source.Length));
            source.CopyTo(_bytes.AsSpan((int)offset));
        }
    }

    public override void Resize(long length, ResizeOptions options = default)
    {
        lock (_lock)
            Array.Resize(ref _bytes, (int)length);
    }

    public override void Flush() { }

    public override BlockExtent GetExtent(long offset, long count)
    {
        lock (_lock)
        {
            const int block = 4096;
            bool zero = IsZeroBlock(offset, block);
            long end = (offset / block + 1) * block;
            while (end < offset + count && IsZeroBlock(end, block) == zero)
                end += block;
            return new(Math.Min(count, end - offset), zero ? ExtentKind.Zero | ExtentKind.Allocated : ExtentKind.Data | ExtentKind.Allocated, 0);
        }
    }

    private bool IsZeroBlock(long offset, int block)
    {
        int start = (int)(offset / block * block);
        return start >= _bytes.Length || ZeroBuffer.IsZero(_bytes.AsSpan(start, Math.Min(block, _bytes.Length - start)));
    }
}
