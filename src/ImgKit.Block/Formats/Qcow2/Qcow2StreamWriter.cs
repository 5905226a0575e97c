using System.Buffers.Binary;
using ImgKit.Block.Jobs.Convert;
using ImgKit.Block.Jobs.Streams;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>
/// Writes an image front to back: header, refcount table, refcount blocks, L1 table, L2 tables, data. All tables stand in front of the
/// data, so the content is gone through twice: once to see which clusters are not zero, once to send them.
/// </summary>
internal sealed class Qcow2StreamWriter
{
    private readonly StreamWriteContext _context;
    private readonly Qcow2CreateOptions _options;
    private readonly int _bits;
    private readonly long _cluster;

    /// <summary>The clusters that hold data, as runs in ascending order.</summary>
    private readonly List<(long First, long Count)> _runs = [];

    private Qcow2StreamWriter(StreamWriteContext context, Qcow2CreateOptions options)
    {
        _context = context;
        _options = options;
        _bits = options.ClusterBits;
        _cluster = 1L << _bits;
    }

    /// <summary><see cref="BlockDriver.WriteStream"/>.</summary>
    /// <exception cref="StreamNeedsSeekException">compressed clusters (their sizes are not known ahead), or tables of another shape.</exception>
    public static void Write(StreamWriteContext context)
    {
        var options = Qcow2CreateOptions.Take(context.Source.Length, context.Options.Clone());
        // The tables come first, and what they say is known only after a look at all of the content.
        if (context.Source is ISequentialImage || context.Compress || options.ExtendedL2 || options.DataFile is not null || options.BackingFile is not null
            || options.Preallocation != Preallocation.Off)
            throw new StreamNeedsSeekException();
        var writer = new Qcow2StreamWriter(context, options);
        writer.FindData();
        writer.WriteTables();
        writer.WriteData();
    }

    private void FindData()
    {
        using var sink = new ClusterSink(this, null);
        Convert(sink, null, null);
    }

    private void WriteData()
    {
        using var sink = new ClusterSink(this, _context.Output);
        Convert(sink, _context.Progress, _context.Digest);
        sink.Finish();
    }

    private void Convert(ClusterSink sink, IProgress<long>? progress, Jobs.Digest.ContentDigest? digest) => ConvertJob.Run(new ConvertRequest
    {
        Sources = [_context.Source],
        Target = sink,
        TargetIsZero = true,
        Threads = _context.Threads,
        Progress = progress,
        Digest = digest,
    }, _context.Cancellation);

    private void WriteTables()
    {
        long perL2 = _cluster / 8;
        long perBlock = _cluster * 8 >> _options.RefcountOrder;
        long l1Clusters = DivUp(_options.L1Entries * 8, _cluster);
        long l2Tables = CountL2Tables(perL2);
        long data = 0;
        foreach (var (_, count) in _runs)
            data += count;
        long tableClusters = 1, blocks = 1, total;
        while (true)
        {
            total = 1 + tableClusters + blocks + l1Clusters + l2Tables + data;
            long b = DivUp(total, perBlock), t = DivUp(b * 8, _cluster);
            if (b == blocks && t == tableClusters)
                break;
            (blocks, tableClusters) = (b, t);
        }
        if (tableClusters << _bits > MaxRefcountTableBytes)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                "The image size is too large for file format 'qcow2' (try using a larger cluster size)") { Errno = 27 };
        long blocksAt = 1 + tableClusters, l1At = blocksAt + blocks, l2At = l1At + l1Clusters, dataAt = l2At + l2Tables;
        _context.Output.Write(new Qcow2Header
        {
            Version = _options.Version,
            ClusterBits = _bits,
            Size = (ulong)_options.Size,
            L1Size = (uint)_options.L1Entries,
            L1TableOffset = (ulong)(l1At << _bits),
            RefcountTableOffset = (ulong)_cluster,
            RefcountTableClusters = (uint)tableClusters,
            RefcountOrder = _options.RefcountOrder,
            CompressionType = _options.CompressionType,
            Incompatible = _options.CompressionType != 0 ? IncompatCompression : 0,
            Compatible = _options.LazyRefcounts ? CompatLazyRefcounts : 0,
        }.ToBytes());
        WriteEntries(tableClusters, Range(blocks, i => (ulong)((blocksAt + i) << _bits)));
        WriteRefcounts(blocks, total);
        WriteL1(l1Clusters, perL2, l2At);
        WriteL2(perL2, dataAt);
    }

    private long CountL2Tables(long perL2)
    {
        long tables = 0, last = -1;
        foreach (var (first, count) in _runs)
        {
            long from = Math.Max(first / perL2, last + 1), to = (first + count - 1) / perL2;
            tables += Math.Max(0, to - from + 1);
            last = to;
        }
        return tables;
    }

    /// <summary>Every cluster of the file is used once.</summary>
    private void WriteRefcounts(long blocks, long total)
    {
        long perBlock = _cluster * 8 >> _options.RefcountOrder;
        byte[] block = new byte[_cluster];
        for (long b = 0; b < blocks; b++)
        {
            block.AsSpan().Clear();
            long used = Math.Min(perBlock, total - b * perBlock);
            for (long i = 0; i < used; i++)
            {
                if (_options.RefcountOrder >= 3)
                    block[((i + 1) << (_options.RefcountOrder - 3)) - 1] = 1;
                else
                    block[(i << _options.RefcountOrder) / 8] |= (byte)(1 << (int)((i << _options.RefcountOrder) % 8));
            }
            _context.Output.Write(block);
        }
    }

    private void WriteL1(long clusters, long perL2, long l2At) => WriteEntries(clusters, L1Entries(perL2, l2At));

    private IEnumerable<ulong> L1Entries(long perL2, long l2At)
    {
        long next = 0, table = 0;
        foreach (var (first, count) in _runs)
        {
            long to = (first + count - 1) / perL2;
            for (long i = Math.Max(first / perL2, next); i <= to; i++)
            {
                for (; next < i; next++)
                    yield return 0;
                yield return (ulong)((l2At + table++) << _bits) | Copied;
                next++;
            }
        }
    }

    private void WriteL2(long perL2, long dataAt)
    {
        byte[] table = new byte[_cluster];
        long current = -1, data = dataAt;
        foreach (var (first, count) in _runs)
        {
            for (long c = first; c < first + count; c++)
            {
                if (c / perL2 != current)
                {
                    if (current >= 0)
                        _context.Output.Write(table);
                    table.AsSpan().Clear();
                    current = c / perL2;
                }
                BinaryPrimitives.WriteUInt64BigEndian(table.AsSpan((int)(c % perL2) * 8), (ulong)(data++ << _bits) | Copied);
            }
        }
        if (current >= 0)
            _context.Output.Write(table);
    }

    /// <summary>Writes 64-bit entries, and zeroes up to the end of the last cluster.</summary>
    private void WriteEntries(long clusters, IEnumerable<ulong> entries)
    {
        byte[] cluster = new byte[_cluster];
        int at = 0;
        foreach (ulong e in entries)
        {
            if (at == cluster.Length)
            {
                _context.Output.Write(cluster);
                cluster.AsSpan().Clear();
                at = 0;
                clusters--;
            }
            BinaryPrimitives.WriteUInt64BigEndian(cluster.AsSpan(at), e);
            at += 8;
        }
        for (; clusters > 0; clusters--)
        {
            _context.Output.Write(cluster);
            cluster.AsSpan().Clear();
        }
    }

    private static IEnumerable<ulong> Range(long count, Func<long, ulong> entry)
    {
        for (long i = 0; i < count; i++)
            yield return entry(i);
    }

    /// <summary>What the convert job writes to: notes which clusters come (without output), or sends them.</summary>
    private sealed class ClusterSink(Qcow2StreamWriter writer, Stream? output) : BlockDevice
    {
        private readonly byte[] _padding = new byte[writer._cluster];
        private int _run;
        private long _inRun;

        public override long Length => writer._context.Source.Length;

        public override string DriverName => "qcow2";

        public override BlockLimits Limits => BlockLimits.Default with { ClusterSize = (int)writer._cluster };

        public override void Read(long offset, Span<byte> destination) => throw new NotSupportedException("a stream cannot be read back");

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            long first = offset / writer._cluster, count = DivUp(source.Length, writer._cluster);
            if (output is null)
                Note(first, count);
            else
                Send(first, count, source);
        }

        public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None) { }

        public override void Flush() { }

        public void Finish()
        {
            if (_run != writer._runs.Count)
                throw Changed();
        }

        private void Note(long first, long count)
        {
            var runs = writer._runs;
            if (runs.Count > 0 && runs[^1].First + runs[^1].Count == first)
                runs[^1] = (runs[^1].First, runs[^1].Count + count);
            else
                runs.Add((first, count));
        }

        private void Send(long first, long count, ReadOnlySpan<byte> source)
        {
            // The tables are out already: what comes must be what they promise.
            var runs = writer._runs;
            if (_run >= runs.Count || runs[_run].First + _inRun != first || _inRun + count > runs[_run].Count)
                throw Changed();
            output!.Write(source);
            long padding = count * writer._cluster - source.Length;
            if (padding > 0)
                output.Write(_padding.AsSpan(0, (int)padding));
            _inRun += count;
            if (_inRun == runs[_run].Count)
                (_run, _inRun) = (_run + 1, 0);
        }

        private static ImageException Changed() => new(ImageErrorKind.Io, "the source changed while it was copied");
    }
}
