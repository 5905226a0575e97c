using ImgKit.Host;

namespace ImgKit.Block.Jobs.Compare;

/// <summary>What <see cref="CompareJob"/> compares, and how.</summary>
public sealed record CompareRequest
{
    /// <summary>One disk.</summary>
    public required BlockDevice First { get; init; }

    /// <summary>The other.</summary>
    public required BlockDevice Second { get; init; }

    /// <summary>Sizes and allocation must be equal, too.</summary>
    public bool Strict { get; init; }

    /// <summary>Threads that read and compare.</summary>
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>Told the bytes that are done.</summary>
    public IProgress<long>? Progress { get; init; }
}

/// <summary>How two disks differ.</summary>
public enum Difference
{
    /// <summary>Not at all (a longer one has only zeroes behind the other's end).</summary>
    None,

    /// <summary>Content.</summary>
    Content,

    /// <summary>Strict: allocated in one, not in the other.</summary>
    Allocation,

    /// <summary>Strict: sizes.</summary>
    Size,
}

/// <summary>What a comparison found.</summary>
/// <param name="Difference">the first.</param>
/// <param name="Offset">where, in bytes: the start of the first differing sector.</param>
public readonly record struct CompareResult(Difference Difference, long Offset);

/// <summary>An error while reading one of the disks to compare.</summary>
public sealed class CompareReadException(bool second, long offset, Exception inner)
    : ImageException(ImageErrorKind.Io, inner.Message, null, offset, inner)
{
    /// <summary>Which disk.</summary>
    public bool IsSecond { get; } = second;
}

/// <summary>Compares what a guest sees of two disks. Ranges that both know to be zero are not read.</summary>
public sealed class CompareJob
{
    /// <summary>Both sides of a piece stay in a processor's own cache until they are compared.</summary>
    private const int PieceSize = 128 << 10;
    private const int Sector = 512;

    private readonly CompareRequest _request;
    private readonly CancellationToken _cancellation;
    private readonly long _common;
    private readonly long _length;
    private readonly Lock _planLock = new();
    private long _offset;
    private Known _knownFirst;
    private Known _knownSecond;
    private long _done;
    private CompareResult? _found;
    private Exception? _failure;

    private CompareJob(CompareRequest request, CancellationToken cancellation)
    {
        _request = request;
        _cancellation = cancellation;
        _common = Math.Min(request.First.Length, request.Second.Length);
        _length = Math.Max(request.First.Length, request.Second.Length);
    }

    /// <summary>Compares.</summary>
    /// <exception cref="CompareReadException">a disk could not be read.</exception>
    public static CompareResult Run(CompareRequest request, CancellationToken cancellation = default)
    {
        if (request.Strict && request.First.Length != request.Second.Length)
            return new(Difference.Size, 0);
        return new CompareJob(request, cancellation).Run();
    }

    private CompareResult Run()
    {
        int threads = _length > PieceSize ? Math.Clamp(_request.Threads, 1, 64) : 1;
        var helpers = new Thread[threads - 1];
        for (int i = 0; i < helpers.Length; i++)
        {
            helpers[i] = new Thread(Work, 256 * 1024) { IsBackground = true, Name = "compare" };
            helpers[i].Start();
        }
        Work();
        foreach (var t in helpers)
            t.Join();
        // A difference that stands in front of a read error is the answer; pieces are taken in order, so it has been found.
        if (_found is { } found && (_failure is not CompareReadException e || found.Offset < e.Offset))
            return found;
        if (_failure is not null)
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_failure);
        return new(Difference.None, 0);
    }

    private void Work()
    {
        using var a = new AlignedBuffer(PieceSize);
        using var b = new AlignedBuffer(PieceSize);
        try
        {
            while (true)
            {
                _cancellation.ThrowIfCancellationRequested();
                long offset;
                int count;
                Side first, second;
                lock (_planLock)
                {
                    if (_failure is not null || _found is not null || !Next(out offset, out count, out first, out second))
                        return;
                }
                Compare(offset, count, first, second, a.Span, b.Span);
                lock (_planLock)
                {
                    _done += count;
                    _request.Progress?.Report(_done);
                }
            }
        }
        catch (Exception e)
        {
            lock (_planLock)
                if (_failure is not CompareReadException old || e is CompareReadException { } now && now.Offset < old.Offset)
                    _failure = e;
        }
    }

    /// <summary>What is known of one disk's stretch.</summary>
    private enum Side
    {
        Data,
        Zero,
        Absent,
    }

    /// <summary>The next stretch to read; stretches that are zero in both are passed over. Holds the plan's lock.</summary>
    private bool Next(out long offset, out int count, out Side first, out Side second)
    {
        while (_offset < _length)
        {
            long start = _offset;
            long left = _length - start;
            LookAt(ref _knownFirst, _request.First, start, false);
            LookAt(ref _knownSecond, _request.Second, start, true);
            first = _knownFirst.Side;
            second = _knownSecond.Side;
            left = Math.Min(left, Math.Min(_knownFirst.End, _knownSecond.End) - start);
            if (_request.Strict && start < _common && _knownFirst.IsAllocated != _knownSecond.IsAllocated)
            {
                Found(new(Difference.Allocation, start));
                break;
            }
            if (first != Side.Data && second != Side.Data)
            {
                _offset += left;
                _done += left;
                _request.Progress?.Report(_done);
                continue;
            }
            offset = start;
            count = (int)Math.Min(left, PieceSize);
            _offset += count;
            return true;
        }
        offset = 0;
        count = 0;
        first = second = Side.Zero;
        return false;
    }

    /// <summary>What a disk said of a stretch, kept until the end of the stretch: asking again may cost as much as it is long.</summary>
    private record struct Known(Side Side, bool IsAllocated, long End);

    private void LookAt(ref Known known, BlockDevice device, long offset, bool isSecond)
    {
        if (offset < known.End)
            return;
        if (offset >= device.Length)
        {
            known = new(Side.Absent, false, _length);
            return;
        }
        try
        {
            var (e, _, _) = BlockExtents.GetExtentAbove(device, offset, device.Length - offset);
            known = new(e.IsZero ? Side.Zero : Side.Data, e.IsData || e.IsAllocated, offset + e.Length);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw new CompareReadException(isSecond, offset, e);
        }
    }

    private void Compare(long offset, int count, Side first, Side second, Span<byte> a, Span<byte> b)
    {
        a = a[..count];
        b = b[..count];
        if (first == Side.Data)
            Read(_request.First, offset, a, false);
        if (second == Side.Data)
            Read(_request.Second, offset, b, true);
        int at;
        if (first == Side.Data && second == Side.Data)
        {
            at = a.CommonPrefixLength(b);
            if (at == count)
                return;
        }
        else
        {
            at = (first == Side.Data ? a : b).IndexOfAnyExcept((byte)0);
            if (at < 0)
                return;
        }
        Found(new(Difference.Content, offset + at / Sector * Sector));
    }

    private static void Read(BlockDevice device, long offset, Span<byte> buffer, bool isSecond)
    {
        try
        {
            device.Read(offset, buffer);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw new CompareReadException(isSecond, offset, e);
        }
    }

    private void Found(CompareResult result)
    {
        lock (_planLock)
            if (_found is not { } old || result.Offset < old.Offset)
                _found = result;
    }
}
