using System.Diagnostics;
using ImgKit.Host;

namespace ImgKit.Block.Jobs.Bench;

/// <summary>A benchmark: many equal requests, one behind the other on the disk.</summary>
public sealed record BenchRequest
{
    /// <summary>Read or written.</summary>
    public required BlockDevice Device { get; init; }

    /// <summary>Write, not read.</summary>
    public bool IsWrite { get; init; }

    /// <summary>Requests in all.</summary>
    public int Count { get; init; } = 75000;

    /// <summary>Requests at a time.</summary>
    public int Depth { get; init; } = 64;

    /// <summary>Bytes a request.</summary>
    public int Size { get; init; } = 4096;

    /// <summary>Where the first request starts.</summary>
    public long Offset { get; init; }

    /// <summary>From one request's start to the next one's, in bytes; wraps round at the disk's end.</summary>
    public long Step { get; init; } = 4096;

    /// <summary>Byte that is written.</summary>
    public byte Pattern { get; init; }

    /// <summary>Requests between two flushes, or 0: none.</summary>
    public int FlushInterval { get; init; }

    /// <summary>Let the requests under way end before a flush.</summary>
    public bool DrainBeforeFlush { get; init; } = true;
}

/// <summary>Runs a <see cref="BenchRequest"/>.</summary>
public sealed class BenchJob
{
    /// <summary>More threads than this serve no disk better, they only wait for each other.</summary>
    private const int MaxThreads = 64;

    private readonly BenchRequest _request;
    private readonly int _threads;
    private readonly Lock _turn = new();
    private readonly ReaderWriterLockSlim? _drain;
    private long _next;
    private long _completed;
    private volatile Exception? _failure;

    private BenchJob(BenchRequest request, bool waitsForDisk)
    {
        _request = request;
        // From the page cache a request is done by the thread that asks: more of them than processors only take turns.
        int useful = waitsForDisk ? MaxThreads : Environment.ProcessorCount;
        _threads = Math.Max(1, Math.Min(Math.Min(request.Depth, request.Count), useful));
        _drain = request.FlushInterval > 0 && request.DrainBeforeFlush ? new ReaderWriterLockSlim() : null;
    }

    /// <summary>Runs it.</summary>
    /// <param name="request">what.</param>
    /// <param name="waitsForDisk">the page cache is bypassed, so that requests wait for a device or a network.</param>
    /// <returns>the time that it took.</returns>
    public static TimeSpan Run(BenchRequest request, bool waitsForDisk)
    {
        if (request.Count == 0 || request.Device.Length == 0)
            return TimeSpan.Zero;
        return new BenchJob(request, waitsForDisk).Run();
    }

    private TimeSpan Run()
    {
        long start = Stopwatch.GetTimestamp();
        var helpers = new Thread[_threads - 1];
        for (int i = 0; i < helpers.Length; i++)
        {
            helpers[i] = new Thread(Work, 256 * 1024) { IsBackground = true, Name = "bench" };
            helpers[i].Start();
        }
        Work();
        foreach (var t in helpers)
            t.Join();
        var time = Stopwatch.GetElapsedTime(start);
        if (_failure is { } e)
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(e);
        return time;
    }

    private void Work()
    {
        using var buffer = new AlignedBuffer(Math.Max(_request.Size, 1));
        var span = buffer.Span[.._request.Size];
        span.Fill(_request.Pattern);
        long length = _request.Device.Length;
        // Requests are handed out in small runs: one counter for all would be what is measured.
        int run = _request.FlushInterval > 0 ? 1 : Math.Clamp(_request.Count / (_threads * 8), 1, 32);
        try
        {
            while (_failure is null)
            {
                long first = Interlocked.Add(ref _next, run) - run;
                long last = Math.Min(first + run, _request.Count);
                if (first >= last)
                    return;
                for (long i = first; i < last; i++)
                {
                    // The first one is where it was asked for, be that behind the end.
                    long offset = i == 0 ? _request.Offset
                        : (long)((UInt128)((ulong)_request.Offset + (UInt128)(ulong)i * (ulong)_request.Step) % (ulong)length);
                    Do(offset, span);
                }
            }
        }
        catch (Exception e)
        {
            _failure = e;
        }
    }

    private void Do(long offset, Span<byte> span)
    {
        if (offset > _request.Device.Length - span.Length)
            throw new ImageException(ImageErrorKind.OutOfBounds, "Input/output error", _request.Device.FileName, offset) { Errno = 5 };
        _drain?.EnterReadLock();
        if (_request.IsWrite)
            _request.Device.Write(offset, span);
        else
            _request.Device.Read(offset, span);
        _drain?.ExitReadLock();
        if (_request.FlushInterval == 0)
            return;
        long completed;
        lock (_turn)
            completed = ++_completed;
        if ((_request.Count - completed) % _request.FlushInterval != 0)
            return;
        _drain?.EnterWriteLock();
        _request.Device.Flush();
        _drain?.ExitWriteLock();
    }
}
