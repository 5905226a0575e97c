namespace ImgKit.Machine;

/// <summary>A device's side of port I/O.</summary>
public interface IPortHandler
{
    /// <summary>Input from <paramref name="port"/> (the absolute number); 1, 2 or 4 bytes.</summary>
    uint PortRead(ushort port, int size);

    /// <summary>Output.</summary>
    void PortWrite(ushort port, uint value, int size);
}

/// <summary>The 65536 I/O ports. Where ranges overlap, the one registered last answers.</summary>
public sealed class PortBus
{
    private sealed record Range(ushort First, int Count, IPortHandler Handler, int Widest);

    private readonly List<Range> _ranges = [];
    private readonly Range?[] _map = new Range?[65536];

    /// <summary>Lets a device answer at ports.</summary>
    /// <param name="first">first port.</param>
    /// <param name="count">number of ports, cut at the end of the port space.</param>
    /// <param name="handler">who answers.</param>
    /// <param name="widest">the widest access the device takes (1, 2 or 4); wider ones are split.</param>
    public void Register(ushort first, int count, IPortHandler handler, int widest = 1)
    {
        var range = new Range(first, Math.Min(count, 65536 - first), handler, widest);
        _ranges.Add(range);
        Array.Fill(_map, range, first, range.Count);
    }

    /// <summary>Ends what <see cref="Register"/> with the same first port and handler began.</summary>
    public void Unregister(ushort first, IPortHandler handler)
    {
        int i = _ranges.FindLastIndex(r => r.First == first && ReferenceEquals(r.Handler, handler));
        if (i < 0)
            return;
        var gone = _ranges[i];
        _ranges.RemoveAt(i);
        Array.Clear(_map, gone.First, gone.Count);
        foreach (var r in _ranges)
        {
            int from = Math.Max(r.First, gone.First), to = Math.Min(r.First + r.Count, gone.First + gone.Count);
            if (from < to)
                Array.Fill(_map, r, from, to - from);
        }
    }

    /// <summary>True when a device answers at a port.</summary>
    public bool IsTaken(ushort port) => _map[port] != null;

    /// <summary>Input; all ones where nobody answers.</summary>
    public uint Read(ushort port, int size)
    {
        var range = _map[port];
        if (range != null && size <= range.Widest && port + size <= range.First + range.Count)
            return range.Handler.PortRead(port, size);
        if (size == 1)
            return range == null ? 0xFFu : range.Handler.PortRead(port, 1);
        int half = size / 2;
        return Read(port, half) | Read((ushort)(port + half), half) << (8 * half);
    }

    /// <summary>Output; lost where nobody answers.</summary>
    public void Write(ushort port, uint value, int size)
    {
        var range = _map[port];
        if (range != null && size <= range.Widest && port + size <= range.First + range.Count)
            range.Handler.PortWrite(port, value, size);
        else if (size > 1)
        {
            int half = size / 2;
            Write(port, value & (half == 1 ? 0xFFu : 0xFFFFu), half);
            Write((ushort)(port + half), value >> (8 * half), half);
        }
    }
}
