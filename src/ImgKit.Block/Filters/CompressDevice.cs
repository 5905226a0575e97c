using ImgKit.Host;

namespace ImgKit.Block.Filters;

/// <summary>Has what is written stored compressed. Writes to a part of a cluster read the rest of it and store the whole.</summary>
internal sealed class CompressDevice : FilterDevice
{
    private readonly ICompressingDevice _target;
    private readonly ReaderWriterLockSlim _gate = new();

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
        AlignedBuffer? packed = null, filled = null;
        try
        {
            while (!source.IsEmpty)
            {
                int n = (int)Math.Min(source.Length, unit - offset % unit);
                if (offset % unit == 0 && (n == unit || offset + n == Length))
                {
                    using var shared = Shared();
                    Store(offset, source[..n], ref packed);
                }
                else
                {
                    // The rest of the unit is what it was: nobody else may change it meanwhile.
                    using var alone = Alone();
                    long start = offset - offset % unit;
                    filled ??= new AlignedBuffer(unit);
                    var whole = filled.Span[..(int)Math.Min(unit, Length - start)];
                    Inner.Read(start, whole);
                    source[..n].CopyTo(whole[(int)(offset - start)..]);
                    Store(start, whole, ref packed);
                }
                source = source[n..];
                offset += n;
            }
        }
        finally
        {
            packed?.Dispose();
            filled?.Dispose();
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        using var shared = Shared();
        Inner.WriteZeroes(offset, count, options);
    }

    public override void Discard(long offset, long count)
    {
        using var shared = Shared();
        Inner.Discard(offset, count);
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        _gate.Dispose();
    }

    private void Store(long offset, ReadOnlySpan<byte> unit, ref AlignedBuffer? packed)
    {
        packed ??= new AlignedBuffer(_target.MaxCompressedLength);
        int length = _target.Compress(unit, packed.Span);
        if (length >= 0)
            _target.WriteCompressed(offset, packed.Span[..length], unit.Length);
        else
            Inner.Write(offset, unit);
    }

    private Leave Shared()
    {
        _gate.EnterReadLock();
        return new Leave(_gate, false);
    }

    private Leave Alone()
    {
        _gate.EnterWriteLock();
        return new Leave(_gate, true);
    }

    private readonly ref struct Leave(ReaderWriterLockSlim gate, bool alone)
    {
        public void Dispose()
        {
            if (alone)
                gate.ExitWriteLock();
            else
                gate.ExitReadLock();
        }
    }
}
