namespace ImgKit.Block.Formats;

/// <summary>The last few units that were decompressed only to be read in part: small requests mostly come in order. Thread-safe.</summary>
internal sealed class UnitCache(int unitSize, int count)
{
    private readonly Lock _lock = new();
    private readonly LinkedList<(long Unit, byte[] Content)> _units = new();
    private byte[]? _spare;

    /// <summary>Copies from a unit if it is here.</summary>
    public bool TryRead(long unit, int skip, Span<byte> destination)
    {
        lock (_lock)
        {
            for (var n = _units.First; n is not null; n = n.Next)
            {
                if (n.Value.Unit != unit)
                    continue;
                n.Value.Content.AsSpan(skip, destination.Length).CopyTo(destination);
                if (n.Previous is not null)
                {
                    _units.Remove(n);
                    _units.AddFirst(n);
                }
                return true;
            }
        }
        return false;
    }

    /// <summary>A buffer of a unit's size, to fill and <see cref="Add"/>.</summary>
    public byte[] Rent()
    {
        lock (_lock)
        {
            if (_spare is { } b)
            {
                _spare = null;
                return b;
            }
        }
        return GC.AllocateUninitializedArray<byte>(unitSize);
    }

    /// <summary>Keeps a unit; the one used least lately makes room.</summary>
    public void Add(long unit, byte[] content)
    {
        lock (_lock)
        {
            while (_units.Count >= count)
            {
                _spare = _units.Last!.Value.Content;
                _units.RemoveLast();
            }
            _units.AddFirst((unit, content));
        }
    }
}
