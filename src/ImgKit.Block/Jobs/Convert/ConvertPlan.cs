namespace ImgKit.Block.Jobs.Convert;

/// <summary>What to do with a piece of the disk.</summary>
internal enum PieceKind
{
    /// <summary>Read, look for zeroes, write.</summary>
    Data,

    /// <summary>Known zeroes, that have to be written as such.</summary>
    Zero,

    /// <summary>Known zeroes, that need no writing.</summary>
    SkipZero,

    /// <summary>Left to the backing file.</summary>
    Skip,
}

/// <summary>A piece of the disk.</summary>
/// <param name="Kind">what to do.</param>
/// <param name="Offset">bytes.</param>
/// <param name="Length">bytes; for <see cref="PieceKind.Data"/> at most the plan's batch size.</param>
internal readonly record struct Piece(PieceKind Kind, long Offset, long Length);

/// <summary>
/// Cuts the disk into pieces, in order, from the sources' extents, and gathers them in batches. Where it cuts depends on content and options alone, never on
/// threads or timing: that is what makes the target's bytes the same for any number of threads.
/// </summary>
internal sealed class ConvertPlan
{
    private readonly JoinedSource _source;
    private readonly ConvertRequest _request;
    private readonly long _unit;
    private readonly int _batchSize;
    private readonly int _sourceUnit;
    private long _offset;
    private long _index;

    /// <summary>The extent that <see cref="KindAt"/> looked at last.</summary>
    private long _extentStart;
    private long _extentEnd;
    private PieceKind _extentKind;

    /// <param name="source">what is read.</param>
    /// <param name="request">options.</param>
    /// <param name="unit">pieces of data begin and end on a multiple of it (the target's cluster).</param>
    /// <param name="batchSize">bytes of data in a batch, a multiple of <paramref name="unit"/>.</param>
    /// <param name="sourceUnit">bytes that a compressed source gives only as a whole: batches end with them where they can. 0: none.</param>
    public ConvertPlan(JoinedSource source, ConvertRequest request, long unit, int batchSize, int sourceUnit)
    {
        _source = source;
        _request = request;
        _unit = unit;
        _batchSize = batchSize;
        _sourceUnit = sourceUnit;
    }

    /// <summary>Puts the next pieces into an empty batch and numbers it; false at the end of the disk. One thread at a time.</summary>
    /// <param name="batch">to fill.</param>
    /// <param name="one">stop after the first piece of data.</param>
    public bool Fill(ConvertBatch batch, bool one)
    {
        while (batch.HasRoom && TryNext(batch.Room, out var piece))
        {
            batch.Add(piece);
            if (one && piece.Kind == PieceKind.Data)
                break;
        }
        if (batch.Count == 0)
            return false;
        batch.Index = _index++;
        return true;
    }

    /// <summary>The next piece, with no more data than <paramref name="room"/> (whole units); false at the end of the disk.</summary>
    private bool TryNext(long room, out Piece piece)
    {
        long offset = _offset;
        long length = _source.Length;
        if (offset >= length)
        {
            piece = default;
            return false;
        }
        var kind = KindAt(offset);
        long end = _extentEnd;
        if (kind == PieceKind.Data)
        {
            // Outward to whole units: what a data unit holds besides is read as the zeroes (or the backing data) that it is.
            long limit = offset - offset % _unit + room;
            if (_sourceUnit > _unit && _sourceUnit % _unit == 0)
            {
                long whole = limit - limit % _sourceUnit;
                if (whole <= offset && room < _batchSize)
                {
                    piece = default;
                    return false;
                }
                limit = whole > offset ? whole : limit;
            }
            limit = Math.Min(length, limit);
            end = Math.Min(RoundUp(end), limit);
            while (end < limit && KindAt(end) == PieceKind.Data)
                end = Math.Min(RoundUp(_extentEnd), limit);
        }
        else
        {
            // Inward to whole units: a unit with some data in it belongs to the data. Pieces of one kind are joined.
            while (end < length && KindAt(end) == kind)
                end = _extentEnd;
            long inner = end >= length ? length : end - end % _unit;
            if (inner <= offset)
            {
                kind = PieceKind.Data;
                end = Math.Min(length, offset + _unit);
            }
            else
            {
                end = inner;
            }
        }
        piece = new Piece(kind, offset, end - offset);
        _offset = end;
        return true;
    }

    /// <summary>Bytes of data in the pieces that are left; takes them all.</summary>
    public long CountData()
    {
        long n = 0;
        while (TryNext(_batchSize, out var piece))
            if (piece.Kind == PieceKind.Data)
                n += piece.Length;
        return n;
    }

    private long RoundUp(long v) => v > long.MaxValue - _unit ? long.MaxValue : (v + _unit - 1) / _unit * _unit;

    private PieceKind KindAt(long offset)
    {
        if (offset >= _extentStart && offset < _extentEnd)
            return _extentKind;
        BlockExtent extent;
        try
        {
            (extent, _) = _source.GetExtent(offset, _request.TargetHasBacking);
        }
        catch (Exception e) when (_request.Salvage && e is IOException or ImageException)
        {
            // The map is broken, the data may yet be readable.
            extent = new BlockExtent(Math.Min(_unit, _source.Length - offset), ExtentKind.Data, 0);
        }
        _extentStart = offset;
        _extentEnd = offset + extent.Length;
        return _extentKind = Classify(extent, offset);
    }

    private PieceKind Classify(BlockExtent extent, long offset)
    {
        if (!extent.IsAllocated && !extent.IsZero)
        {
            if (!_request.TargetHasBacking)
                return ZeroKind();
            // Behind the end of the target's backing file nothing shows through, and the target reads as zeroes by itself.
            if (offset >= _request.TargetBackingLength)
                return PieceKind.SkipZero;
            _extentEnd = Math.Min(_extentEnd, _request.TargetBackingLength);
            return PieceKind.Skip;
        }
        return extent.IsZero ? ZeroKind() : PieceKind.Data;
    }

    private PieceKind ZeroKind()
    {
        if (_request.MinimumZeroRun == 0)
            return PieceKind.Data;
        return _request.TargetIsZero && !_request.TargetHasBacking ? PieceKind.SkipZero : PieceKind.Zero;
    }
}
