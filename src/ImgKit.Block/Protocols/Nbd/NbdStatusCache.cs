namespace ImgKit.Block.Protocols.Nbd;

/// <summary>
/// The extents that the server told last. One reply tells many, and whoever walks through a disk asks for the one after the
/// other: most questions need no message. Any change of the disk through this client makes it forget; what others change
/// meanwhile nobody could know without a lock anyway.
/// </summary>
internal sealed class NbdStatusCache(NbdClient client)
{
    private readonly Lock _gate = new();
    private readonly List<NbdExtent> _extents = [];
    private long _start;
    private long _end;
    private int _at;
    private long _atOffset;
    private int _version;

    /// <summary>The extent that begins at (or reaches over) an offset, from there on.</summary>
    /// <returns>0 or the server's error number.</returns>
    public int Find(long offset, long count, out NbdExtent extent)
    {
        int version;
        lock (_gate)
        {
            if (TryFind(offset, count, out extent))
                return 0;
            version = _version;
        }
        var extents = new List<NbdExtent>();
        int error = client.Execute(new NbdConnection.Request
        {
            Command = NbdCommand.BlockStatus,
            Offset = offset,
            Length = count,
            Extents = extents,
        });
        if (error != 0)
            return error;
        lock (_gate)
        {
            extent = extents[0];
            if (version != _version)
                return 0;
            _extents.Clear();
            _extents.AddRange(extents);
            _start = offset;
            _end = offset;
            foreach (var e in extents)
                _end += e.Length;
            _at = 0;
            _atOffset = offset;
            return 0;
        }
    }

    private bool TryFind(long offset, long count, out NbdExtent extent)
    {
        extent = default;
        if (offset < _start || offset >= _end)
            return false;
        if (offset < _atOffset)
        {
            _at = 0;
            _atOffset = _start;
        }
        while (offset >= _atOffset + _extents[_at].Length)
            _atOffset += _extents[_at++].Length;
        var e = _extents[_at];
        long n = _atOffset + e.Length - offset;
        // What was asked for reaches further than what was told, and the last extent may go on there.
        if (_at == _extents.Count - 1 && n < count && _end < offset + count)
            return false;
        extent = e with { Length = n };
        return true;
    }

    /// <summary>The disk changes.</summary>
    public void Forget()
    {
        lock (_gate)
        {
            _version++;
            _start = _end = 0;
            _extents.Clear();
        }
    }
}
