using System.Diagnostics;
using ImgKit.Host;

namespace ImgKit.Block.Jobs.Convert;

/// <summary>
/// Copies disks to a disk: extents, then reading and decompressing on all threads, compressing on all threads, and writing in the
/// disk's order. Every thread takes the next piece, carries it through to its end, and waits for its turn to write;
/// so memory is bounded by the number of threads, and the target's bytes depend on no timing.
/// </summary>
public sealed class ConvertJob
{
    private const int PlainPieceSize = 1 << 20;

    private readonly ConvertRequest _request;
    private readonly JoinedSource _source;
    private readonly BlockDevice _target;
    private readonly ICompressingDevice? _compressor;
    private readonly ConvertPlan _plan;
    private readonly int _pieceSize;
    private readonly int _block;
    private readonly bool _ordered;
    private readonly Lock _planLock = new();
    private readonly object _turn = new();
    private readonly CancellationToken _cancellation;
    private readonly RateLimiter? _rate;
    private long _nextToWrite;
    private long _done;
    private Exception? _failure;
    private bool _kernelCopies;

    private ConvertJob(ConvertRequest request, CancellationToken cancellation)
    {
        _request = request;
        _cancellation = cancellation;
        _source = new JoinedSource(request.Sources);
        _target = request.Target;
        _compressor = request.Compress || request.Target is ICompressingDevice { CompressedOnly: true }
            ? request.Target as ICompressingDevice
                ?? throw new ImageException(ImageErrorKind.Unsupported, "Compression not supported for this file format")
            : null;
        _block = _compressor?.CompressionUnit ?? ZeroGranularity();
        // Leaves of the digest are hashed by the threads only where pieces start on one.
        int unit = request.Digest is not null && Digest.ContentDigest.LeafSize % _block == 0 ? Digest.ContentDigest.LeafSize : _block;
        _pieceSize = Math.Max(PlainPieceSize / unit, 1) * unit;
        _plan = new ConvertPlan(_source, request, unit, _pieceSize);
        if (request.AnnounceData is { } announce)
            announce(new ConvertPlan(_source, request, unit, _pieceSize).CountData());
        // Where a format puts its clusters depends on the order of writes. A file's bytes do not, but the kernel lets one
        // thread at a time write a cached file, and taking turns costs less than contending for that.
        _ordered = _compressor is not null || request.Digest is not null || _target.Limits.ClusterSize > 0
            || _target.Storage is Protocols.File.FileDevice { Host.IsDirect: false };
        _kernelCopies = request.CopyInKernel && _compressor is null && request.Digest is null;
        _rate = request.RateLimit > 0 ? new RateLimiter(request.RateLimit) : null;
    }

    /// <summary>Runs to the end. The target is not flushed or closed.</summary>
    /// <exception cref="ImageException">reading or writing failed; the message says where.</exception>
    /// <exception cref="OperationCanceledException">asked to stop.</exception>
    public static void Run(ConvertRequest request, CancellationToken cancellation = default)
    {
        var job = new ConvertJob(request, cancellation);
        job.Run();
    }

    private void Run()
    {
        int threads = Math.Clamp(_request.Threads, 1, 64);
        if (threads > 1 && _source.Length > _pieceSize)
        {
            var helpers = new Thread[threads - 1];
            for (int i = 0; i < helpers.Length; i++)
            {
                helpers[i] = new Thread(Work, 256 * 1024) { IsBackground = true, Name = "convert" };
                helpers[i].Start();
            }
            Work();
            foreach (var t in helpers)
                t.Join();
        }
        else
        {
            Work();
        }
        if (_failure is not null)
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_failure);
        if (_source.Length < _target.Length && !_request.TargetIsZero && !_request.TargetHasBacking)
            _target.WriteZeroes(_source.Length, _target.Length - _source.Length, ZeroOptions.MayUnmap);
        if (_request.AnnounceData is null)
            _request.Progress?.Report(_source.Length);
    }

    private void Work()
    {
        using var worker = new Worker(this);
        try
        {
            while (_failure is null)
            {
                _cancellation.ThrowIfCancellationRequested();
                Piece piece;
                lock (_planLock)
                {
                    if (!_plan.TryNext(out piece))
                        return;
                }
                worker.Carry(piece);
            }
        }
        catch (Exception e)
        {
            Fail(e);
        }
    }

    private void Fail(Exception e)
    {
        lock (_turn)
        {
            _failure ??= e;
            Monitor.PulseAll(_turn);
        }
    }

    /// <summary>Waits until all pieces before this one are written. False when the job has failed meanwhile.</summary>
    private bool AwaitTurn(long index)
    {
        if (!_ordered)
            return _failure is null;
        lock (_turn)
        {
            while (_nextToWrite != index && _failure is null)
                Monitor.Wait(_turn);
            return _failure is null;
        }
    }

    private void PassTurn(in Piece piece)
    {
        lock (_turn)
        {
            _nextToWrite++;
            if (piece.Kind == PieceKind.Data || _request.AnnounceData is null)
            {
                _done += piece.Length;
                _request.Progress?.Report(_done);
            }
            if (_ordered)
                Monitor.PulseAll(_turn);
        }
    }

    /// <summary>The size of a block that is written whole or not at all.</summary>
    private int ZeroGranularity()
    {
        // What is zero for less than is looked for is written with the data beside it; data is rounded to that, too.
        long g = Math.Max(Math.Max(_target.Limits.RequestAlignment, 512), _target.Limits.ClusterSize);
        while (g < PlainPieceSize && g * 2 <= _request.MinimumZeroRun)
            g *= 2;
        return (int)g;
    }

    private void Write(long offset, ReadOnlySpan<byte> data)
    {
        try
        {
            _target.Write(offset, data);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw new ImageException(ImageErrorKind.Io, $"error while writing at byte {offset}: {e.Message}", _target.FileName, offset, e);
        }
    }

    private void WriteZeroes(long offset, long count)
    {
        try
        {
            _target.WriteZeroes(offset, count, ZeroOptions.MayUnmap);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw new ImageException(ImageErrorKind.Io, $"error while writing at byte {offset}: {e.Message}", _target.FileName, offset, e);
        }
    }

    /// <summary>One thread's buffers, and what it does with a piece.</summary>
    private sealed class Worker(ConvertJob job) : IDisposable
    {
        private AlignedBuffer? _data;
        private AlignedBuffer? _packed;
        private readonly int[] _lengths = new int[job._pieceSize / job._block];

        public void Carry(in Piece piece)
        {
            switch (piece.Kind)
            {
                case PieceKind.Data:
                    CarryData(piece);
                    return;
                case PieceKind.Zero:
                    if (!job.AwaitTurn(piece.Index))
                        return;
                    job._request.Digest?.AppendZeroes(piece.Length);
                    if (job._compressor is null || !job._request.TargetIsZero || job._request.TargetHasBacking)
                        job.WriteZeroes(piece.Offset, piece.Length);
                    break;
                case PieceKind.SkipZero:
                    if (!job.AwaitTurn(piece.Index))
                        return;
                    job._request.Digest?.AppendZeroes(piece.Length);
                    break;
                case PieceKind.Skip:
                    if (!job.AwaitTurn(piece.Index))
                        return;
                    job._request.Digest?.AppendFrom(job._source.Read, piece.Offset, piece.Length);
                    break;
            }
            job.PassTurn(piece);
        }

        private void CarryData(in Piece piece)
        {
            if (job._kernelCopies && CopyInKernel(piece))
                return;
            _data ??= new AlignedBuffer(job._pieceSize);
            var data = _data.Span[..(int)piece.Length];
            Read(piece.Offset, data);
            job._rate?.Wait(piece.Length);
            var leaves = job._request.Digest?.HashLeaves(piece.Offset, data);
            if (job._compressor is not null)
                Compress(data);
            if (!job.AwaitTurn(piece.Index))
                return;
            if (leaves is not null)
                job._request.Digest!.AppendLeaves(leaves, data);
            else
                job._request.Digest?.Append(data);
            if (job._compressor is not null)
                StoreCompressed(piece.Offset, data);
            else
                StorePlain(piece.Offset, data);
            job.PassTurn(piece);
        }

        private void Read(long offset, Span<byte> data)
        {
            try
            {
                job._source.Read(offset, data);
            }
            catch (Exception e) when (e is IOException or ImageException)
            {
                if (!job._request.Salvage)
                    throw new ImageException(ImageErrorKind.Io, $"error while reading at byte {offset}: {e.Message}", null, offset, e);
                Salvage(offset, data);
            }
        }

        /// <summary>Sector by sector, so that as little as possible is lost.</summary>
        private void Salvage(long offset, Span<byte> data)
        {
            for (int at = 0; at < data.Length; at += 512)
            {
                var sector = data.Slice(at, Math.Min(512, data.Length - at));
                try
                {
                    job._source.Read(offset + at, sector);
                }
                catch (Exception e) when (e is IOException or ImageException)
                {
                    sector.Clear();
                    job._request.Warn?.Invoke($"error while reading offset {offset + at}: {e.Message}");
                }
            }
        }

        private void Compress(ReadOnlySpan<byte> data)
        {
            var c = job._compressor!;
            int room = c.MaxCompressedLength;
            _packed ??= new AlignedBuffer(checked(room * _lengths.Length));
            for (int i = 0, at = 0; at < data.Length; i++, at += job._block)
            {
                var unit = data.Slice(at, Math.Min(job._block, data.Length - at));
                _lengths[i] = job._request.MinimumZeroRun > 0 && ZeroBuffer.IsZero(unit) ? 0 : c.Compress(unit, _packed.Span.Slice(i * room, room));
            }
        }

        private void StoreCompressed(long offset, ReadOnlySpan<byte> data)
        {
            var c = job._compressor!;
            int room = c.MaxCompressedLength;
            for (int i = 0, at = 0; at < data.Length; i++, at += job._block)
            {
                var unit = data.Slice(at, Math.Min(job._block, data.Length - at));
                int n = _lengths[i];
                if (n == 0)
                {
                    if (!job._request.TargetIsZero || job._request.TargetHasBacking)
                        job.WriteZeroes(offset + at, unit.Length);
                }
                else if (n < 0)
                {
                    job.Write(offset + at, unit);
                }
                else
                {
                    try
                    {
                        c.WriteCompressed(offset + at, _packed!.Span.Slice(i * room, n), unit.Length);
                    }
                    catch (Exception e) when (e is IOException or ImageException)
                    {
                        throw new ImageException(ImageErrorKind.Io, $"error while writing at byte {offset + at}: {e.Message}", job._target.FileName,
                            offset + at, e);
                    }
                }
            }
        }

        /// <summary>Writes what is not zero in runs of whole blocks; zeroes are left out, or written as such.</summary>
        private void StorePlain(long offset, ReadOnlySpan<byte> data)
        {
            long minimum = job._request.MinimumZeroRun;
            if (minimum == 0)
            {
                job.Write(offset, data);
                return;
            }
            bool skip = job._request.TargetIsZero && !job._request.TargetHasBacking;
            int block = job._block;
            int start = 0;
            while (start < data.Length)
            {
                // A run of zero blocks, if long enough to count.
                int zeroEnd = start;
                while (zeroEnd < data.Length && ZeroBuffer.IsZero(data.Slice(zeroEnd, Math.Min(block, data.Length - zeroEnd))))
                    zeroEnd = Math.Min(zeroEnd + block, data.Length);
                if (zeroEnd > start && (zeroEnd - start >= minimum || zeroEnd == data.Length))
                {
                    if (!skip)
                        job.WriteZeroes(offset + start, zeroEnd - start);
                    start = zeroEnd;
                    continue;
                }
                // Data, up to the next zero run that counts.
                int end = Math.Max(zeroEnd, Math.Min(start + block, data.Length));
                int run = 0;
                while (end < data.Length && run < minimum)
                {
                    int n = Math.Min(block, data.Length - end);
                    run = ZeroBuffer.IsZero(data.Slice(end, n)) ? run + n : 0;
                    end += n;
                }
                if (run >= minimum || end == data.Length)
                    end -= run;
                if (end > start)
                    job.Write(offset + start, data[start..end]);
                start = end;
            }
        }

        /// <summary>Has the kernel copy a piece when it lies as plain bytes in one file and the target is a plain file, too.</summary>
        private bool CopyInKernel(in Piece piece)
        {
            if (job._target is not { Storage: Protocols.File.FileDevice target, DriverName: "raw" })
                return false;
            long at = piece.Offset, left = piece.Length;
            while (left > 0)
            {
                var (extent, layer) = job._source.GetExtent(at, job._request.TargetHasBacking);
                if ((extent.Kind & ExtentKind.OffsetValid) == 0 || !extent.IsData
                    || (extent.HostDevice ?? layer.Storage ?? layer) is not Protocols.File.FileDevice file)
                    return false;
                long n = file.Host.CopyTo(extent.HostOffset, target.Host, at, Math.Min(left, extent.Length));
                if (n <= 0)
                {
                    job._kernelCopies = false;
                    return false;
                }
                at += n;
                left -= n;
            }
            job._rate?.Wait(piece.Length);
            job.PassTurn(piece);
            return true;
        }

        public void Dispose()
        {
            _data?.Dispose();
            _packed?.Dispose();
        }
    }

    /// <summary>Holds the job to a number of bytes a second, averaged over the run.</summary>
    private sealed class RateLimiter(long bytesPerSecond)
    {
        private readonly long _start = Stopwatch.GetTimestamp();
        private long _bytes;

        public void Wait(long bytes)
        {
            double due = (double)Interlocked.Add(ref _bytes, bytes) / bytesPerSecond;
            double wait = due - Stopwatch.GetElapsedTime(_start).TotalSeconds;
            if (wait > 0)
                Thread.Sleep(TimeSpan.FromSeconds(wait));
        }
    }
}
