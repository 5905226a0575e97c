using ImgKit.Block;
using ImgKit.Host;

namespace ImgKit.Programs.Io;

/// <summary>Memory of a request: aligned for direct access, or on purpose not (<c>-m</c>).</summary>
internal sealed unsafe class RequestBuffer : IDisposable
{
    private const int Misalignment = 16;

    private readonly AlignedBuffer _memory;
    private readonly byte* _start;

    /// <param name="length">bytes.</param>
    /// <param name="misaligned">shift it off its alignment.</param>
    /// <param name="fill">the byte that it is filled with.</param>
    public RequestBuffer(long length, bool misaligned, byte fill)
    {
        int extra = misaligned ? Misalignment : 0;
        _memory = new AlignedBuffer(checked((int)length + extra));
        _start = _memory.Pointer + extra;
        Length = (int)length;
        Span.Fill(fill);
    }

    public int Length { get; }

    public Span<byte> Span => new(_start, Length);

    /// <summary>The parts of a vectored request, one behind the other.</summary>
    public IoBuffer[] Split(ReadOnlySpan<long> lengths)
    {
        var parts = new IoBuffer[lengths.Length];
        byte* at = _start;
        for (int i = 0; i < parts.Length; i++)
        {
            parts[i] = new IoBuffer(at, (int)lengths[i]);
            at += lengths[i];
        }
        return parts;
    }

    public void Dispose() => _memory.Dispose();
}
