using ImgKit.Host;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>
/// Bytes that come once, front to back. The first ones can be looked at before anybody takes them, so that it can be decided how they are to be
/// taken; what has been taken is gone. Not thread-safe.
/// </summary>
/// <param name="file">a pipe, or anything that gives its next bytes; owned.</param>
public sealed class PipeReader(HostFile file) : IDisposable
{
    /// <summary>Bytes that can be looked at, at most.</summary>
    public const int MaxPeek = 64 << 20;

    private byte[] _kept = [];
    private int _keptLength;
    private bool _ended;

    /// <summary>Bytes taken so far.</summary>
    public long Position { get; private set; }

    /// <summary>The first bytes, before any has been taken: as many as asked for, fewer only when there are no more.</summary>
    /// <param name="count">at most <see cref="MaxPeek"/>.</param>
    public ReadOnlySpan<byte> Peek(int count)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, MaxPeek);
        if (Position > 0)
            throw new InvalidOperationException("the first bytes have been taken");
        while (_keptLength < count && !_ended)
        {
            // Memory grows with what comes, not with what was announced.
            if (_keptLength == _kept.Length)
                Array.Resize(ref _kept, Math.Min(Math.Max(4096, _kept.Length * 2), MaxPeek));
            int n = file.ReadStream(_kept.AsSpan(_keptLength));
            _ended = n == 0;
            _keptLength += n;
        }
        return _kept.AsSpan(0, Math.Min(count, _keptLength));
    }

    /// <summary>Takes bytes.</summary>
    /// <returns>how many: fewer than asked for only at the end.</returns>
    public int Take(Span<byte> destination)
    {
        int done = 0;
        if (Position < _keptLength)
        {
            done = Math.Min(destination.Length, _keptLength - (int)Position);
            _kept.AsSpan((int)Position, done).CopyTo(destination);
        }
        else
        {
            _kept = [];
            _keptLength = 0;
        }
        while (done < destination.Length && !_ended)
        {
            int n = file.ReadStream(destination[done..]);
            _ended = n == 0;
            done += n;
        }
        Position += done;
        return done;
    }

    /// <summary>Takes bytes that have to be there.</summary>
    /// <exception cref="ImageException">there are fewer.</exception>
    public void TakeAll(Span<byte> destination)
    {
        long start = Position;
        int n = Take(destination);
        if (n < destination.Length)
            throw new ImageException(ImageErrorKind.Corrupt, $"standard input ends at byte {Position}, in the middle of an image", "-", start) { Errno = 5 };
    }

    /// <summary>Passes over bytes that have to be there.</summary>
    public void Skip(long count)
    {
        Span<byte> waste = stackalloc byte[4096];
        for (; count > 0; count -= Math.Min(count, waste.Length))
            TakeAll(waste[..(int)Math.Min(count, waste.Length)]);
    }

    /// <summary>Takes what is left and forgets it, so that whoever writes it comes to its end.</summary>
    public void Drain()
    {
        Span<byte> waste = stackalloc byte[4096];
        while (Take(waste) > 0)
        {
        }
    }

    /// <inheritdoc/>
    public void Dispose() => file.Dispose();
}
