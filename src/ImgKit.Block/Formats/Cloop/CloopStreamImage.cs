using System.Buffers;
using ImgKit.Block.Jobs.Streams;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>An image from a pipe: header and index first, then the blocks in their order.</summary>
internal sealed class CloopStreamImage : SequentialImage
{
    private readonly CloopIndex _index;
    private int _next;

    private CloopStreamImage(PipeReader pipe, CloopHeader header, CloopIndex index)
        : base(pipe, (int)header.BlockSize, (long)index.Count * header.BlockSize) => _index = index;

    public override string DriverName => "cloop";

    /// <summary>Opens what comes, when it can be read so: not those whose index is at the end, nor those whose blocks lie in another order.</summary>
    public static BlockDevice? TryOpen(PipeReader pipe)
    {
        var head = pipe.Peek(CloopHeader.Size);
        if (head.Length < CloopHeader.Size)
            return null;
        var header = CloopHeader.Parse(head);
        long size = CloopHeader.Size + 8L * ((long)header.Blocks + 1);
        if (!header.HasVersion || header.IsUnfinished || header.IsUzip || !header.IsPlausible || header.Blocks == CloopHeader.BlocksInTail
            || header.Version == "V3.0" || size > PipeReader.MaxPeek)
            return null;
        // An index of 0.68 is shorter, and blocks follow it: they are looked at, no more.
        byte[] start = pipe.Peek((int)size).ToArray();
        CloopIndex index;
        try
        {
            using var device = new Head(start);
            index = CloopIndex.Read(device, header, isFooter: false);
        }
        catch (ImageException)
        {
            return null;        // whoever reads it from a file says what is wrong
        }
        long needed = CloopHeader.Size + (index.Layout == "0.68" ? 4L : 8L) * (index.Count + 1);
        if (start.Length < needed || index.Layout is not ("0.68" or "1.0" or "2.0" or "4.0"))
            return null;
        long end = needed;
        for (int i = 0; i < index.Count; i++)
        {
            var b = index[i];
            if (b.Offset < 0)
                continue;
            if (b.Offset < end)
                return null;
            end = b.Offset + b.Length;
        }
        return new CloopStreamImage(pipe, header, index);
    }

    protected override bool TryTakeNext(out long unit, out byte[] data, out int length)
    {
        while (_next < _index.Count && _index[_next].Offset < 0)
            _next++;
        unit = _next;
        data = [];
        length = 0;
        if (_next >= _index.Count)
            return false;
        var b = _index[_next++];
        Pipe.Skip(b.Offset - Pipe.Position);
        data = ArrayPool<byte>.Shared.Rent(b.Length);
        length = b.Length;
        Pipe.TakeAll(data.AsSpan(0, length));
        return true;
    }

    protected override void Decompress(long unit, ReadOnlySpan<byte> data, Span<byte> content)
    {
        var b = _index[unit];
        if (!CloopCodec.TryDecompress(b.Compressor, data, content))
            throw new ImageException(ImageErrorKind.Corrupt, $"block {unit} ({b.Length} bytes of {CloopCodec.Name(b.Compressor)} at offset {b.Offset} of '-') is damaged",
                "-", b.Offset)
            {
                Errno = 5,
            };
    }

    /// <summary>The beginning of a file whose length nobody knows.</summary>
    private sealed class Head(byte[] bytes) : BlockDevice
    {
        public override long Length => long.MaxValue / 2;

        public override bool IsReadOnly => true;

        public override string DriverName => "pipe";

        public override string FileName { get; set; } = "-";

        public override void Read(long offset, Span<byte> destination)
        {
            int n = (int)Math.Clamp(bytes.Length - offset, 0, destination.Length);
            if (n > 0)
                bytes.AsSpan((int)offset, n).CopyTo(destination);
            destination[n..].Clear();
        }

        public override void Write(long offset, ReadOnlySpan<byte> source) => throw new NotSupportedException();

        public override void Flush() { }
    }
}
