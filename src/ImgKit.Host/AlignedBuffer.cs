using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>Native memory on a page boundary: for direct I/O, and for buffers that outlive a request without troubling the collector.</summary>
public sealed unsafe class AlignedBuffer : IDisposable
{
    private void* _memory;

    /// <summary>Allocates.</summary>
    /// <param name="length">bytes.</param>
    public AlignedBuffer(int length)
    {
        _memory = NativeMemory.AlignedAlloc((nuint)Math.Max(length, 1), 4096);
        Length = length;
    }

    /// <summary>Bytes.</summary>
    public int Length { get; }

    /// <summary>First byte.</summary>
    public byte* Pointer => (byte*)_memory;

    /// <summary>All of it.</summary>
    public Span<byte> Span => new(_memory, Length);

    /// <inheritdoc/>
    public void Dispose()
    {
        NativeMemory.AlignedFree(_memory);
        _memory = null;
    }
}
