using ImgKit.Host;

namespace ImgKit.Block.Filters;

/// <summary>Has whole clusters that are written stored compressed; what is no whole cluster is stored plain.</summary>
internal sealed class CompressDevice : FilterDevice
{
    private readonly ICompressingDevice _target;

    private CompressDevice(BlockDevice inner)
        : base(inner)
    {
        _target = inner as ICompressingDevice
            ?? throw new ImageException(ImageErrorKind.Unsupported, "Compression is not supported for this drive format", inner.FileName);
        FileName = inner.FileName;
    }

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "compress",
        Kind = DriverKind.Filter,
        Description = "Stores what is written compressed",
        Open = static context => new CompressDevice(context.File),
    };

    public override string DriverName => "compress";

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        int unit = _target.CompressionUnit;
        AlignedBuffer? packed = null;
        try
        {
            while (!source.IsEmpty)
            {
                int n = (int)Math.Min(source.Length, unit - offset % unit);
                var piece = source[..n];
                bool whole = offset % unit == 0 && (n == unit || offset + n == Length);
                int length = -1;
                if (whole)
                {
                    packed ??= new AlignedBuffer(_target.MaxCompressedLength);
                    length = _target.Compress(piece, packed.Span);
                }
                if (length >= 0)
                    _target.WriteCompressed(offset, packed!.Span[..length], n);
                else
                    Inner.Write(offset, piece);
                source = source[n..];
                offset += n;
            }
        }
        finally
        {
            packed?.Dispose();
        }
    }
}
