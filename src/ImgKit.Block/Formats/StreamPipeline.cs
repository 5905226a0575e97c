using System.Runtime.ExceptionServices;
using ImgKit.Host;

namespace ImgKit.Block.Formats;

/// <summary>
/// Packs a disk unit by unit on several threads and hands the results over in the disk's order, as formats that are written front to
/// back need it. Memory is bounded by the number of threads; what is handed over depends on no timing.
/// </summary>
internal sealed class StreamPipeline
{
    private const int PieceBytes = 1 << 20;

    private readonly StreamWriteContext _context;
    private readonly int _unit;
    private readonly int _unitsPerPiece;
    private readonly int _room;
    private readonly int _padding;
    private readonly PackUnit _pack;
    private readonly EmitUnit _emit;
    private readonly object _turn = new();
    private long _next;
    private long _toEmit;
    private Exception? _failure;

    private StreamPipeline(StreamWriteContext context, int unit, int padding, int room, PackUnit pack, EmitUnit emit)
    {
        _context = context;
        _unit = unit;
        _padding = padding;
        _room = room;
        _pack = pack;
        _emit = emit;
        _unitsPerPiece = Math.Max(1, PieceBytes / unit);
        Count = (context.Source.Length + unit - 1) / unit;
    }

    /// <summary>Packs one unit; called by many threads.</summary>
    /// <param name="content">the unit, never all zero.</param>
    /// <param name="destination">room for the result.</param>
    /// <returns>bytes produced, and a number of the packer's own that goes with them.</returns>
    public delegate (int Length, int Tag) PackUnit(ReadOnlySpan<byte> content, Span<byte> destination);

    /// <summary>Takes a packed unit, in order, one at a time; <paramref name="packed"/> is empty for a unit of zeroes.</summary>
    public delegate void EmitUnit(long index, ReadOnlySpan<byte> packed, int tag);

    private long Count { get; }

    /// <summary>Runs to the end.</summary>
    /// <param name="context">source, threads, progress and cancellation.</param>
    /// <param name="unit">bytes.</param>
    /// <param name="padding">the last unit is filled with zeroes to a multiple of this.</param>
    /// <param name="room">bytes that a packed unit takes at most.</param>
    /// <param name="pack">see there.</param>
    /// <param name="emit">see there.</param>
    public static void Run(StreamWriteContext context, int unit, int padding, int room, PackUnit pack, EmitUnit emit)
    {
        var pipeline = new StreamPipeline(context, unit, padding, room, pack, emit);
        int threads = (int)Math.Clamp(context.Threads, 1, Math.Max(1, Math.Min(64, pipeline.Count)));
        var helpers = new Thread[threads - 1];
        for (int i = 0; i < helpers.Length; i++)
        {
            helpers[i] = new Thread(pipeline.Work, 256 << 10) { IsBackground = true, Name = "stream" };
            helpers[i].Start();
        }
        pipeline.Work();
        foreach (var t in helpers)
            t.Join();
        if (pipeline._failure is { } e)
            ExceptionDispatchInfo.Throw(e);
    }

    private void Work()
    {
        try
        {
            using var data = new AlignedBuffer(_unitsPerPiece * _unit);
            using var packed = new AlignedBuffer(checked(_unitsPerPiece * _room));
            var results = new (int Length, int Tag)[_unitsPerPiece];
            while (_failure is null)
            {
                _context.Cancellation.ThrowIfCancellationRequested();
                long piece = Interlocked.Increment(ref _next) - 1;
                long first = piece * _unitsPerPiece;
                if (first >= Count)
                    return;
                int n = (int)Math.Min(_unitsPerPiece, Count - first);
                var content = Prepare(first, n, data.Span, packed.Span, results);
                var leaves = _context.Digest?.HashLeaves(first * _unit, content);
                if (!AwaitTurn(piece))
                    return;
                if (leaves is not null)
                    _context.Digest!.AppendLeaves(leaves, content);
                else
                    _context.Digest?.Append(content);
                for (int i = 0; i < n; i++)
                    _emit(first + i, packed.Span.Slice(i * _room, results[i].Length), results[i].Tag);
                PassTurn(Math.Min((first + n) * _unit, _context.Source.Length));
            }
        }
        catch (Exception e)
        {
            lock (_turn)
            {
                _failure ??= e;
                Monitor.PulseAll(_turn);
            }
        }
    }

    private Span<byte> Prepare(long first, int n, Span<byte> data, Span<byte> packed, (int Length, int Tag)[] results)
    {
        var source = _context.Source;
        long start = first * _unit;
        long end = Math.Min(start + (long)n * _unit, source.Length);
        var content = data[..(int)(end - start)];
        bool allZero = ReadSparse(start, content);
        for (int i = 0; i < n; i++)
        {
            int from = i * _unit;
            int length = (int)Math.Min(_unit, end - start - from);
            if (allZero || ZeroBuffer.IsZero(content.Slice(from, length)))
            {
                results[i] = (0, 0);
                continue;
            }
            int padded = (length + _padding - 1) / _padding * _padding;
            // Only the last unit of the disk is padded: behind the content.
            data.Slice(from + length, padded - length).Clear();
            results[i] = _pack(data.Slice(from, padded), packed.Slice(i * _room, _room));
        }
        return content;
    }

    /// <summary>Reads what has to be read.</summary>
    /// <returns>true when nothing had to be: all is known to be zero.</returns>
    private bool ReadSparse(long start, Span<byte> content)
    {
        bool allZero = true;
        for (int done = 0; done < content.Length;)
        {
            var (extent, _, _) = BlockExtents.GetExtentAbove(_context.Source, start + done, content.Length - done);
            var part = content.Slice(done, (int)extent.Length);
            if (extent.IsZero)
            {
                part.Clear();
            }
            else
            {
                _context.Source.Read(start + done, part);
                allZero = false;
            }
            done += part.Length;
        }
        return allZero;
    }

    private bool AwaitTurn(long piece)
    {
        lock (_turn)
        {
            while (_toEmit != piece && _failure is null)
                Monitor.Wait(_turn);
            return _failure is null;
        }
    }

    private void PassTurn(long done)
    {
        lock (_turn)
        {
            _toEmit++;
            _context.Progress?.Report(done);
            Monitor.PulseAll(_turn);
        }
    }
}
