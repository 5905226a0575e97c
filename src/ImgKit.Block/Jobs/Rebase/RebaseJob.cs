using ImgKit.Host;

namespace ImgKit.Block.Jobs.Rebase;

/// <summary>What <see cref="RebaseJob"/> does.</summary>
public sealed record RebaseRequest
{
    /// <summary>The overlay, open for writing, with its old backing device.</summary>
    public required BlockDevice Overlay { get; init; }

    /// <summary>The device that will be below it; null: none.</summary>
    public BlockDevice? NewBacking { get; init; }

    /// <summary><see cref="NewBacking"/> is a layer of the old chain: what no layer above it holds is the same.</summary>
    public bool IsInOldChain { get; init; }

    /// <summary>Store compressed what is copied.</summary>
    public bool Compress { get; init; }

    /// <summary>Told the bytes of the disk that are done.</summary>
    public IProgress<long>? Progress { get; init; }
}

/// <summary>
/// Prepares an overlay for another backing file: what shows through from the old one and differs in the new one is copied up. The
/// overlay's content is the same at every moment, whether it has its old backing file or, at the end, the new one.
/// </summary>
public sealed class RebaseJob
{
    private const int PieceSize = 1 << 20;

    private readonly RebaseRequest _request;
    private readonly BlockDevice _overlay;
    private readonly BlockDevice? _old;
    private readonly BlockDevice? _new;
    private readonly ICompressingDevice? _compressor;
    private readonly int _unit;

    private RebaseJob(RebaseRequest request)
    {
        _request = request;
        _overlay = request.Overlay;
        _old = request.Overlay.Backing;
        _new = request.NewBacking;
        _compressor = request.Compress
            ? request.Overlay as ICompressingDevice ?? throw new ImageException(ImageErrorKind.Unsupported, "Compression not supported for this file format")
            : null;
        _unit = _compressor?.CompressionUnit ?? Math.Max(_overlay.Limits.ClusterSize, 512);
    }

    /// <summary>Copies. The overlay is not told of its new backing file: that is <see cref="IBackedImage.ChangeBackingFile"/>.</summary>
    public static void Run(RebaseRequest request, CancellationToken cancellation = default) => new RebaseJob(request).Run(cancellation);

    private void Run(CancellationToken cancellation)
    {
        int piece = Math.Max(PieceSize / _unit, 1) * _unit;
        using var oldData = new AlignedBuffer(piece);
        using var newData = new AlignedBuffer(piece);
        using var packed = new AlignedBuffer(Math.Max(_compressor?.MaxCompressedLength ?? 1, 1));
        for (long at = 0; at < _overlay.Length;)
        {
            cancellation.ThrowIfCancellationRequested();
            long count = _overlay.Length - at;
            if (ShowsThrough(at, ref count))
            {
                count = Math.Min(count, piece);
                // Whole units, so that each is written once.
                if (at % _unit + count > piece)
                    count = piece - at % _unit;
                CopyUp(at, (int)count, oldData.Span, newData.Span, packed.Span);
            }
            at += count;
            _request.Progress?.Report(at);
        }
        try
        {
            _overlay.Flush();
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            throw WriteFailed(e, -1);
        }
    }

    private ImageException WriteFailed(Exception e, long offset) =>
        new(ImageErrorKind.Io, $"Error while writing to COW image: {e.Message}", _overlay.FileName, offset, e);

    /// <summary>Whether another backing device may change what is read; for how many bytes that answer holds.</summary>
    private bool ShowsThrough(long offset, ref long count)
    {
        var e = _overlay.GetExtent(offset, count);
        count = Math.Min(count, e.Length);
        if (e.IsAllocated)
            return false;
        bool oldZero = Look(_old, offset, ref count, _request.IsInOldChain ? _new : null, out bool inPrefix);
        if (inPrefix)
            return false;
        bool newZero = Look(_new, offset, ref count, null, out _);
        return !(oldZero && newZero);
    }

    /// <summary>Whether a device is known to read as zeroes, for how many bytes, and whether only the prefix of the chain holds it.</summary>
    private static bool Look(BlockDevice? device, long offset, ref long count, BlockDevice? prefix, out bool inPrefix)
    {
        inPrefix = false;
        if (device is null || offset >= device.Length)
            return true;
        count = Math.Min(count, device.Length - offset);
        if (prefix is not null)
        {
            if (ReferenceEquals(device, prefix))
            {
                inPrefix = true;
                return false;
            }
            var (above, _, _) = BlockExtents.GetExtentAbove(device, offset, count, prefix);
            count = Math.Min(count, above.Length);
            inPrefix = !above.IsAllocated && !above.IsZero;
            return above.IsZero;
        }
        var (e, _, _) = BlockExtents.GetExtentAbove(device, offset, count);
        count = Math.Min(count, e.Length);
        return e.IsZero;
    }

    private void CopyUp(long offset, int count, Span<byte> oldData, Span<byte> newData, Span<byte> packed)
    {
        Read(_old, offset, oldData[..count], "old");
        Read(_new, offset, newData[..count], "new");
        for (int at = 0; at < count;)
        {
            int n = (int)Math.Min(_unit - (offset + at) % _unit, count - at);
            var data = oldData.Slice(at, n);
            if (!data.SequenceEqual(newData.Slice(at, n)))
            {
                try
                {
                    Write(offset + at, data, packed);
                }
                catch (Exception e) when (e is ImageException or IOException)
                {
                    throw WriteFailed(e, offset + at);
                }
            }
            at += n;
        }
    }

    private void Write(long offset, ReadOnlySpan<byte> data, Span<byte> packed)
    {
        bool whole = offset % _unit == 0 && (data.Length == _unit || offset + data.Length == _overlay.Length);
        if (ZeroBuffer.IsZero(data))
            _overlay.WriteZeroes(offset, data.Length);
        else if (whole && _compressor is not null && _compressor.Compress(data, packed) is > 0 and int n)
            _compressor.WriteCompressed(offset, packed[..n], data.Length);
        else
            _overlay.Write(offset, data);
    }

    private static void Read(BlockDevice? device, long offset, Span<byte> data, string which)
    {
        int n = device is null ? 0 : (int)Math.Clamp(device.Length - offset, 0, data.Length);
        try
        {
            if (n > 0)
                device!.Read(offset, data[..n]);
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            throw new ImageException(ImageErrorKind.Io, $"error while reading from {which} backing file", device!.FileName, offset, e);
        }
        data[n..].Clear();
    }
}
