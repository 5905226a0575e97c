using System.Diagnostics;
using ImgKit.Host;

namespace ImgKit.Block.Jobs.Convert;

/// <summary>
/// Copies disks to a disk: extents, then reading and decompressing on all threads, compressing on all threads, and writing in the
/// disk's order. A thread takes the next batch of pieces and fills it. If its turn to be written comes soon, the thread writes it, too, from its
/// own processor's cache; otherwise it leaves the batch to whoever is writing and goes on with another. So nobody sleeps while there is work,
/// memory is bounded by the number of threads, and the target's bytes depend on no timing.
/// </summary>
public sealed partial class ConvertJob
{
    /// <summary>Bytes of a batch: large enough for few turns, and for the kernel to take its memory in large parts.</summary>
    private const int PlainBatchSize = 1 << 20;

    /// <summary>The same where a batch means work, and room for what is compressed, too.</summary>
    private const int PackedBatchSize = 256 << 10;

    /// <summary>Batches are made larger for larger units of a compressed source, up to this.</summary>
    private const int MaxSourceUnit = 4 << 20;

    /// <summary>When reading a batch takes longer and had to wait for a disk, more threads help.</summary>
    private static readonly TimeSpan SlowRead = TimeSpan.FromMilliseconds(5);

    /// <summary>Waiting this long for a turn is cheaper than having another processor fetch the data from this one's cache.</summary>
    private static readonly TimeSpan ShortWait = TimeSpan.FromMicroseconds(150);

    private readonly ConvertRequest _request;
    private readonly JoinedSource _source;
    private readonly BlockDevice _target;
    private readonly ICompressingDevice? _compressor;
    private readonly ConvertPlan _plan;
    private readonly int _batchSize;
    private readonly int _block;
    private readonly bool _ordered;
    private readonly bool _skipZeroes;
    private readonly int _maxThreads;
    private readonly List<Thread> _threads = [];
    private readonly Lock _planLock = new();
    private readonly object _turn = new();
    private readonly Stack<ConvertBatch> _free = new();
    private readonly List<ConvertBatch> _batches = [];
    private readonly ConvertBatch?[] _ready;
    private readonly CancellationToken _cancellation;
    private readonly RateLimiter? _rate;
    private int _batchLimit = BatchLimit(1);
    private int _waiting;
    private bool _writing;
    private bool _planned;
    private long _nextToWrite;

    /// <summary>Batches written and no longer in hand: read without the lock.</summary>
    private long _written;
    private long _done;
    private volatile Exception? _failure;
    private volatile bool _kernelCopies;

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
        int sourceUnit = _source.CompressedUnit;
        int size = Math.Max(_compressor is null && sourceUnit == 0 ? PlainBatchSize : PackedBatchSize, Math.Min(sourceUnit, MaxSourceUnit));
        _batchSize = Math.Max(size / unit, 1) * unit;
        _plan = new ConvertPlan(_source, request, unit, _batchSize, sourceUnit);
        if (request.AnnounceData is { } announce)
            announce(new ConvertPlan(_source, request, unit, _batchSize, sourceUnit).CountData());
        // Where a format puts its clusters depends on the order of writes. A file's bytes do not, but the kernel lets one
        // thread at a time write a cached file, and taking turns costs less than contending for that.
        _ordered = _compressor is not null || request.Digest is not null || _target.Limits.ClusterSize > 0
            || _target.Storage is Protocols.File.FileDevice { Host.IsDirect: false };
        _skipZeroes = request.TargetIsZero && !request.TargetHasBacking;
        _kernelCopies = request.CopyInKernel && _compressor is null && request.Digest is null;
        _rate = request.RateLimit > 0 ? new RateLimiter(request.RateLimit) : null;
        _maxThreads = _source.Length > _batchSize ? Math.Clamp(request.Threads, 1, 64) : 1;
        _ready = new ConvertBatch?[BatchLimit(_maxThreads)];
    }

    /// <summary>Runs to the end. The target is not flushed or closed.</summary>
    /// <exception cref="ImageException">reading or writing failed; the message says where.</exception>
    /// <exception cref="OperationCanceledException">asked to stop.</exception>
    public static void Run(ConvertRequest request, CancellationToken cancellation = default)
    {
        var job = new ConvertJob(request, cancellation);
        job.Run();
    }

    /// <summary>Batches that so many threads keep going.</summary>
    private static int BatchLimit(int threads) => threads == 1 ? 1 : threads + 2;

    private void Run()
    {
        // More threads than processors only help to wait; for files they are started when it turns out that there is something to wait for.
        int threads = _source.IsLocal ? Math.Min(_maxThreads, Environment.ProcessorCount) : _maxThreads;
        for (int n = threads - 1; n > 0; n--)
            AddThread();
        Work();
        for (int i = 0; ; i++)
        {
            Thread next;
            lock (_threads)
            {
                if (i == _threads.Count)
                    break;
                next = _threads[i];
            }
            next.Join();
        }
        foreach (var batch in _batches)
            batch.Dispose();
        if (_failure is not null)
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_failure);
        if (_request.AnnounceData is null && _done != _source.Length)
            _request.Progress?.Report(_source.Length);
    }

    private void AddThread()
    {
        lock (_threads)
        {
            if (_threads.Count + 1 >= _maxThreads)
                return;
            var thread = new Thread(Work, 256 * 1024) { IsBackground = true, Name = "convert" };
            _threads.Add(thread);
            lock (_turn)
                _batchLimit = BatchLimit(_threads.Count + 1);
            thread.Start();
        }
    }

    private void Work()
    {
        try
        {
            while (TakeBatch() is { } batch)
            {
                _cancellation.ThrowIfCancellationRequested();
                lock (_planLock)
                {
                    if (!_plan.Fill(batch, _kernelCopies))
                        break;
                }
                long start = Stopwatch.GetTimestamp(), before = HostThread.DiskReads;
                Read(batch);
                if (Stopwatch.GetElapsedTime(start) > SlowRead && HostThread.DiskReads > before)
                    AddThread();
                Prepare(batch);
                if (_ordered)
                    WriteInTurn(batch);
                else
                    WriteNow(batch);
            }
            lock (_turn)
            {
                _planned = true;
                Monitor.PulseAll(_turn);
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

    /// <summary>An empty batch; waits for one. Null when there is nothing more to fill.</summary>
    private ConvertBatch? TakeBatch()
    {
        lock (_turn)
        {
            while (_failure is null && !_planned)
            {
                if (_free.TryPop(out var batch))
                    return batch;
                if (_batches.Count < _batchLimit)
                {
                    _batches.Add(new ConvertBatch(_batchSize, _block));
                    return _batches[^1];
                }
                _waiting++;
                Monitor.Wait(_turn);
                _waiting--;
            }
            return null;
        }
    }

    /// <summary>Gives a batch back. Those who wait for one are woken when they can go on for a while. Under the turn's lock.</summary>
    private void Recycle(ConvertBatch batch)
    {
        batch.Clear();
        _free.Push(batch);
        if (_waiting > 0 && _free.Count >= _batchLimit / 2)
            Monitor.PulseAll(_turn);
    }

    private void WriteNow(ConvertBatch batch)
    {
        if (_failure is null)
            Store(batch);
        lock (_turn)
        {
            Report(batch);
            Recycle(batch);
        }
    }

    /// <summary>Hands a batch over to whoever writes; that is this thread when nobody does and it is the batch's turn.</summary>
    private void WriteInTurn(ConvertBatch batch)
    {
        long start = Stopwatch.GetTimestamp();
        while (Volatile.Read(ref _written) != batch.Index && _failure is null && Stopwatch.GetElapsedTime(start) < ShortWait)
            Thread.SpinWait(32);
        lock (_turn)
        {
            _ready[batch.Index % _ready.Length] = batch;
            if (_writing)
                return;
            _writing = true;
        }
        ConvertBatch? written = null;
        while (true)
        {
            lock (_turn)
            {
                if (written is not null)
                {
                    Recycle(written);
                    Volatile.Write(ref _written, _nextToWrite);
                }
                ref var slot = ref _ready[_nextToWrite % _ready.Length];
                if (slot is null || _failure is not null)
                {
                    _writing = false;
                    if (_waiting > 0)
                        Monitor.PulseAll(_turn);
                    return;
                }
                batch = slot;
                slot = null;
                _nextToWrite++;
            }
            Store(batch);
            Report(batch);
            written = batch;
        }
    }

    private void Report(ConvertBatch batch)
    {
        if (_request.Progress is not { } progress)
            return;
        long before = _done;
        foreach (ref readonly var piece in batch.Pieces)
            if (piece.Kind == PieceKind.Data || _request.AnnounceData is null)
                _done += piece.Length;
        // What is no progress is not told: the peer prints 0 and 100 as often as they are reported.
        if (_done != before)
            progress.Report(_done);
    }

    /// <summary>The size of a block that is written whole or not at all.</summary>
    private int ZeroGranularity()
    {
        // What is zero for less than is looked for is written with the data beside it; data is rounded to that, too.
        long g = Math.Max(Math.Max(_target.Limits.RequestAlignment, 512), _target.Limits.ClusterSize);
        while (g < PlainBatchSize && g * 2 <= _request.MinimumZeroRun)
            g *= 2;
        return (int)g;
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
