using System.Collections.Concurrent;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>Native memory for payloads, used over and over; what is idle stays below a limit.</summary>
internal sealed class NativeBufferPool
{
    /// <summary>The most of a payload that is in memory at a time, in bytes.</summary>
    public const int MaxPayload = 2 << 20;

    /// <summary>Room in front of a payload, so that a header can stand right before it and the payload on a page's boundary.</summary>
    public const int Headroom = 4096;

    /// <summary>The longest buffer, in bytes.</summary>
    public const int MaxLength = MaxPayload + Headroom;

    private const int Middle = (256 << 10) + Headroom;
    private const int Small = (64 << 10) + Headroom;
    private const long MaxIdle = 32 << 20;

    private readonly ConcurrentStack<AlignedBuffer>[] _idle = [new(), new(), new()];
    private long _idleBytes;

    /// <summary>A buffer of at least that many bytes, at most <see cref="MaxLength"/>.</summary>
    public AlignedBuffer Rent(int length)
    {
        int size = length <= Small ? Small : length <= Middle ? Middle : MaxLength;
        if (!ClassOf(size).TryPop(out var buffer))
            return new AlignedBuffer(size);
        Interlocked.Add(ref _idleBytes, -buffer.Length);
        return buffer;
    }

    /// <summary>Gives one back.</summary>
    public void Return(AlignedBuffer buffer)
    {
        if (Interlocked.Add(ref _idleBytes, buffer.Length) > MaxIdle)
        {
            Interlocked.Add(ref _idleBytes, -buffer.Length);
            buffer.Dispose();
            return;
        }
        ClassOf(buffer.Length).Push(buffer);
    }

    private ConcurrentStack<AlignedBuffer> ClassOf(int length) => _idle[length <= Small ? 0 : length <= Middle ? 1 : 2];
}
