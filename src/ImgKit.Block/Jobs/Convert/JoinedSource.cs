namespace ImgKit.Block.Jobs.Convert;

/// <summary>Several devices read as one, one behind the other. Read-only; does not own them.</summary>
internal sealed class JoinedSource
{
    private readonly BlockDevice[] _parts;
    private readonly long[] _starts;

    public JoinedSource(IReadOnlyList<BlockDevice> parts)
    {
        _parts = [.. parts];
        _starts = new long[_parts.Length + 1];
        for (int i = 0; i < _parts.Length; i++)
            _starts[i + 1] = checked(_starts[i] + _parts[i].Length);
    }

    public long Length => _starts[^1];

    /// <summary>All parts lie in files of this host.</summary>
    public bool IsLocal
    {
        get
        {
            foreach (var part in _parts)
            {
                var d = part;
                while (d.Storage is { } below)
                    d = below;
                if (d is not Protocols.File.FileDevice)
                    return false;
            }
            return true;
        }
    }

    /// <summary>Bytes that have to be decompressed together, when the first data that there is has to be; else 0.</summary>
    public int CompressedUnit
    {
        get
        {
            try
            {
                for (long at = 0; at < Length;)
                {
                    var (e, layer) = GetExtent(at, false);
                    if (e.IsData)
                        return (e.Kind & ExtentKind.Compressed) != 0 ? Math.Max(layer.Limits.ClusterSize, 1) : 0;
                    at += e.Length;
                }
            }
            catch (Exception e) when (e is IOException or ImageException)
            {
                // Whoever comes to this place again says so.
            }
            return 0;
        }
    }

    /// <summary>The part that holds a byte, and the byte's offset in it.</summary>
    public (BlockDevice Part, long Offset, long Left) At(long offset)
    {
        int i = 0;
        while (offset >= _starts[i + 1])
            i++;
        return (_parts[i], offset - _starts[i], _starts[i + 1] - offset);
    }

    public void Read(long offset, Span<byte> destination)
    {
        while (destination.Length > 0)
        {
            var (part, at, left) = At(offset);
            int n = (int)Math.Min(destination.Length, left);
            part.Read(at, destination[..n]);
            destination = destination[n..];
            offset += n;
        }
    }

    /// <summary>The status of a byte and how far it reaches, inside one part.</summary>
    /// <param name="offset">bytes.</param>
    /// <param name="topOnly">look at the top layer alone; what is not there has no kind.</param>
    public (BlockExtent Extent, BlockDevice Layer) GetExtent(long offset, bool topOnly)
    {
        var (part, at, left) = At(offset);
        var (extent, layer, _) = BlockExtents.GetExtentAbove(part, at, left, topOnly ? part.Backing : null);
        return (extent, layer);
    }
}
