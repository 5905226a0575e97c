using ImgKit.Block.Jobs.Convert;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>A disk that is written front to back into a stream: what is left out becomes zeroes.</summary>
internal sealed class SequentialSink(Stream output, long length) : BlockDevice
{
    private long _written;

    public override long Length => length;

    public override string DriverName => "stream";

    /// <summary>A cluster size says to the convert job that order matters.</summary>
    public override BlockLimits Limits => BlockLimits.Default with { ClusterSize = 65536 };

    public override void Read(long offset, Span<byte> destination) =>
        throw new NotSupportedException("a stream cannot be read back");

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        PadTo(offset);
        output.Write(source);
        _written += source.Length;
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None) => PadTo(offset + count);

    public override void Flush() => output.Flush();

    /// <summary>Writes the rest of the disk.</summary>
    public void Finish() => PadTo(length);

    private void PadTo(long offset)
    {
        if (offset < _written)
            throw new InvalidOperationException("a stream is written front to back");
        while (_written < offset)
        {
            int n = (int)Math.Min(offset - _written, 1 << 20);
            output.Write(ZeroBuffer.Span(n));
            _written += n;
        }
    }

    /// <summary><see cref="BlockDriver.WriteStream"/> of raw.</summary>
    public static void WriteRaw(StreamWriteContext context)
    {
        using var sink = new SequentialSink(context.Output, context.Source.Length);
        ConvertJob.Run(new ConvertRequest
        {
            Sources = [context.Source],
            Target = sink,
            TargetIsZero = true,
            Threads = context.Threads,
            Progress = context.Progress,
            Digest = context.Digest,
        }, context.Cancellation);
        sink.Finish();
        sink.Flush();
    }
}
