using ImgKit.Block.Jobs.Digest;
using ImgKit.Host;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>
/// Raw content from a pipe of unknown length into an image that can grow: no scratch file. The image is made longer in steps and cut
/// to the content's length, rounded up to whole sectors, at the end.
/// </summary>
public static class RawPipeJob
{
    private const int PieceSize = 1 << 20;
    private const int Sector = 512;

    /// <summary>Reads standard input to its end.</summary>
    /// <param name="target">new, and read as zeroes; must be able to <see cref="BlockDevice.Resize"/>.</param>
    /// <param name="compress">store compressed (<paramref name="target"/> must be an <see cref="ICompressingDevice"/>).</param>
    /// <param name="minimumZeroRun">as <see cref="Convert.ConvertRequest.MinimumZeroRun"/>; 0: everything is written.</param>
    /// <param name="digest">receives the content, or null.</param>
    /// <param name="progress">told the bytes read.</param>
    /// <param name="cancellation">to stop.</param>
    /// <returns>the disk's length.</returns>
    public static long Run(BlockDevice target, bool compress, long minimumZeroRun, ContentDigest? digest = null, IProgress<long>? progress = null,
        CancellationToken cancellation = default)
    {
        using var pipe = HostFile.Open(PipeSource.StandardInput, HostFileMode.Read);
        var compressor = compress
            ? target as ICompressingDevice ?? throw new ImageException(ImageErrorKind.Unsupported, "Compression not supported for this file format")
            : null;
        int unit = compressor?.CompressionUnit ?? Math.Max(target.Limits.ClusterSize, 4096);
        int piece = Math.Max(PieceSize / unit, 1) * unit;
        using var buffer = new AlignedBuffer(piece);
        using var packed = new AlignedBuffer(compressor?.MaxCompressedLength ?? 1);
        long at = 0;
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            int n = Fill(pipe, buffer.Span);
            if (n == 0)
                break;
            digest?.Append(buffer.Span[..n]);
            int padded = (n + Sector - 1) / Sector * Sector;
            buffer.Span[n..padded].Clear();
            digest?.AppendZeroes(padded - n);
            if (at + padded > target.Length)
                target.Resize(Math.Max(at + padded, Math.Max(target.Length * 2, 64L << 20)), new ResizeOptions(Preallocation.Off));
            for (int o = 0; o < padded; o += unit)
                Store(target, compressor, at + o, buffer.Span[o..Math.Min(o + unit, padded)], minimumZeroRun, packed.Span);
            at += padded;
            progress?.Report(at);
            if (n < piece)
                break;
        }
        target.Resize(at, new ResizeOptions(Preallocation.Off));
        return at;
    }

    private static void Store(BlockDevice target, ICompressingDevice? compressor, long offset, ReadOnlySpan<byte> data, long minimumZeroRun, Span<byte> packed)
    {
        if (minimumZeroRun > 0 && ZeroBuffer.IsZero(data))
            return;
        int n = compressor?.Compress(data, packed) ?? -1;
        if (n > 0)
            compressor!.WriteCompressed(offset, packed[..n], data.Length);
        else
            target.Write(offset, data);
    }

    private static int Fill(HostFile pipe, Span<byte> buffer)
    {
        int done = 0;
        while (done < buffer.Length)
        {
            int n = pipe.ReadStream(buffer[done..]);
            if (n == 0)
                break;
            done += n;
        }
        return done;
    }
}
