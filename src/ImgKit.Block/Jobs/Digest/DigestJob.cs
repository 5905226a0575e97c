using System.Security.Cryptography;
using ImgKit.Host;

namespace ImgKit.Block.Jobs.Digest;

/// <summary>Digests of what a guest sees of a disk.</summary>
public static class DigestJob
{
    private const int PieceSize = 1 << 20;

    /// <summary>The <see cref="ContentDigest"/> of a disk: parallel, and quick over holes.</summary>
    public static string ContentDigestOf(BlockDevice device, int threads, IProgress<long>? progress = null, CancellationToken cancellation = default)
    {
        // The convert job reads, hashes and orders already; a target that keeps nothing makes it a digest job.
        using var digest = new ContentDigest();
        using var sink = new Sink(device.Length);
        Convert.ConvertJob.Run(new Convert.ConvertRequest
        {
            Sources = [device],
            Target = sink,
            TargetIsZero = true,
            Threads = threads,
            Digest = digest,
            Progress = progress,
        }, cancellation);
        return digest.Finish();
    }

    /// <summary>A plain hash of the disk's bytes (what <c>sha256sum</c> gives for a raw copy). In order, so on one thread; holes are
    /// hashed, too, but not read.</summary>
    public static string FlatDigestOf(BlockDevice device, HashAlgorithmName algorithm, IProgress<long>? progress = null, CancellationToken cancellation = default)
    {
        using var hash = IncrementalHash.CreateHash(algorithm);
        using var buffer = new AlignedBuffer(PieceSize);
        for (long at = 0; at < device.Length;)
        {
            cancellation.ThrowIfCancellationRequested();
            var (e, _, _) = BlockExtents.GetExtentAbove(device, at, device.Length - at);
            int n = (int)Math.Min(e.Length, PieceSize);
            if (e.IsZero)
            {
                hash.AppendData(ZeroBuffer.Span(n));
            }
            else
            {
                device.Read(at, buffer.Span[..n]);
                hash.AppendData(buffer.Span[..n]);
            }
            at += n;
            progress?.Report(at);
        }
        return System.Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>Takes everything and keeps nothing.</summary>
    private sealed class Sink(long length) : BlockDevice
    {
        public override long Length => length;

        public override string DriverName => "null-co";

        public override void Read(long offset, Span<byte> destination) => destination.Clear();

        public override void Write(long offset, ReadOnlySpan<byte> source) { }

        public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None) { }

        public override void Flush() { }
    }
}
