namespace ImgKit.Machine;

/// <summary>A device's side of memory-mapped I/O.</summary>
public interface IMmioHandler
{
    /// <summary>Read of 1 to 8 bytes.</summary>
    /// <param name="offset">bytes from the start of the registered range.</param>
    /// <param name="size">1, 2, 4 or 8.</param>
    ulong MmioRead(ulong offset, int size);

    /// <summary>Write of 1 to 8 bytes.</summary>
    void MmioWrite(ulong offset, ulong value, int size);
}

/// <summary>Ranges of physical addresses where devices answer. Where ranges overlap, the one registered last answers.</summary>
public sealed class MmioBus
{
    private sealed record Range(ulong Start, ulong Length, IMmioHandler Handler);

    private Range[] _ranges = [];

    /// <summary>Lets a device answer at <paramref name="length"/> bytes from <paramref name="start"/>.</summary>
    public void Register(ulong start, ulong length, IMmioHandler handler) =>
        _ranges = [new Range(start, length, handler), .. _ranges];

    /// <summary>Ends what <see cref="Register"/> with the same start and handler began.</summary>
    public void Unregister(ulong start, IMmioHandler handler)
    {
        int i = Array.FindIndex(_ranges, r => r.Start == start && ReferenceEquals(r.Handler, handler));
        if (i >= 0)
            _ranges = [.. _ranges[..i], .. _ranges[(i + 1)..]];
    }

    /// <summary>Reads; all ones where nobody answers.</summary>
    public ulong Read(ulong address, int size)
    {
        if (Split(address, size, out int first))
            return Read(address, first) | Read(address + (ulong)first, size - first) << (8 * first);
        foreach (var r in _ranges)
            if (address - r.Start < r.Length)
                return r.Handler.MmioRead(address - r.Start, size);
        return size == 8 ? ulong.MaxValue : (1UL << (8 * size)) - 1;
    }

    /// <summary>Writes; lost where nobody answers.</summary>
    public void Write(ulong address, ulong value, int size)
    {
        if (Split(address, size, out int first))
        {
            Write(address, value & ((1UL << (8 * first)) - 1), first);
            Write(address + (ulong)first, value >> (8 * first), size - first);
            return;
        }
        foreach (var r in _ranges)
            if (address - r.Start < r.Length)
            {
                r.Handler.MmioWrite(address - r.Start, value, size);
                return;
            }
    }

    // Handlers get aligned power-of-two sizes only; an odd access goes in pieces from its start.
    private static bool Split(ulong address, int size, out int first)
    {
        first = size;
        while (!System.Numerics.BitOperations.IsPow2(first) || (address & (ulong)(first - 1)) != 0)
            first--;
        return first != size;
    }
}
