using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

// Direct requests (O_DIRECT) that do not have the alignment of the host's device.
public sealed partial class FileDevice
{
    private readonly SectorsInFlight _inFlight = new();

    private int ReadDirect(long offset, Span<byte> destination)
    {
        long align = Limits.RequestAlignment;
        if (IsAligned(offset, destination, align))
            return _file.Read(offset, destination);
        long start = offset & -align;
        long end = (offset + destination.Length + align - 1) & -align;
        using var bounce = new BounceBuffer(end - start);
        int total = 0;
        // In pieces, so that a large request does not need as much memory again.
        for (long at = start; at < end; at += bounce.Length)
        {
            int want = (int)Math.Min(bounce.Length, end - at);
            int got = _file.Read(at, bounce.Span[..want]);
            int skip = (int)Math.Max(0, offset - at);
            int n = Math.Min(got - skip, destination.Length - total);
            if (n <= 0)
                break;
            bounce.Span.Slice(skip, n).CopyTo(destination[total..]);
            total += n;
            if (got < want)
                break;
        }
        return total;
    }

    private void WriteDirect(long offset, ReadOnlySpan<byte> source, bool aligned)
    {
        long align = Limits.RequestAlignment;
        var range = _inFlight.Enter(offset & -align, (offset + source.Length + align - 1) & -align, alone: !aligned);
        try
        {
            if (aligned)
                _file.Write(offset, source);
            else
                WriteUnaligned(offset, source);
        }
        finally
        {
            _inFlight.Leave(range);
        }
    }

    /// <summary>Reads, changes and writes the sectors at the edges. Under <see cref="_lengthChange"/>.</summary>
    private void WriteUnaligned(long offset, ReadOnlySpan<byte> source)
    {
        long align = Limits.RequestAlignment;
        long size = Math.Max(_file.GetLength(), offset + source.Length);
        while (source.Length > 0)
        {
            long start = offset & -align;
            long end = Math.Min(start + BounceBuffer.MaxLength, (offset + source.Length + align - 1) & -align);
            using var bounce = new BounceBuffer(end - start);
            var span = bounce.Span[..(int)(end - start)];
            int skip = (int)(offset - start);
            int n = Math.Min(span.Length - skip, source.Length);
            if (skip != 0 || n != span.Length)
            {
                int got = _file.Read(start, span);
                span[got..].Clear();
            }
            source[..n].CopyTo(span[skip..]);
            _file.Write(start, span);
            source = source[n..];
            offset += n;
        }
        // A whole sector at the end may be more than was asked for.
        if (_file.Kind == HostFileKind.Regular && _file.GetLength() > size)
            _file.SetLength(size);
    }

    private static unsafe bool IsAligned(long offset, ReadOnlySpan<byte> memory, long align)
    {
        fixed (byte* p = memory)
            return ((offset | (long)(uint)memory.Length | (long)p) & (align - 1)) == 0;
    }

    private readonly ref struct BounceBuffer
    {
        public const int MaxLength = 1 << 20;
        private readonly AlignedBuffer _buffer;

        public BounceBuffer(long length) => _buffer = new AlignedBuffer((int)Math.Min(length, MaxLength));

        public int Length => _buffer.Length;

        public Span<byte> Span => _buffer.Span;

        public void Dispose() => _buffer.Dispose();
    }
}
