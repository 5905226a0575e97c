namespace ImgKit.Block.Jobs.Convert;

/// <summary>Writing a batch, when its turn has come.</summary>
public sealed partial class ConvertJob
{
    private void Store(ConvertBatch batch)
    {
        int at = 0, block = 0, packed = 0;
        for (int i = 0; i < batch.Count; i++)
        {
            ref readonly var piece = ref batch.Pieces[i];
            switch (piece.Kind)
            {
                case PieceKind.Data when !batch.IsStored:
                    var data = batch.Data.Slice(at, (int)piece.Length);
                    at += data.Length;
                    TakeIn(batch.Leaves[i], data);
                    if (_compressor is { } c)
                        StoreCompressed(c, piece.Offset, data, batch, ref block, ref packed);
                    else
                        StorePlain(piece.Offset, data);
                    break;
                case PieceKind.Zero:
                    _request.Digest?.AppendZeroes(piece.Length);
                    if (_compressor is null || !_skipZeroes)
                        WriteZeroes(piece.Offset, piece.Length);
                    break;
                case PieceKind.SkipZero:
                    _request.Digest?.AppendZeroes(piece.Length);
                    break;
                case PieceKind.Skip:
                    _request.Digest?.AppendFrom(_source.Read, piece.Offset, piece.Length);
                    break;
            }
        }
    }

    private void TakeIn(byte[]? leaves, ReadOnlySpan<byte> data)
    {
        if (leaves is not null)
            _request.Digest!.AppendLeaves(leaves, data);
        else
            _request.Digest?.Append(data);
    }

    private void StoreCompressed(ICompressingDevice c, long offset, ReadOnlySpan<byte> data, ConvertBatch batch, ref int block, ref int packed)
    {
        for (int at = 0; at < data.Length; at += _block)
        {
            var unit = data.Slice(at, Math.Min(_block, data.Length - at));
            int n = batch.PackedLengths[block++];
            if (n == 0)
            {
                if (!_skipZeroes)
                    WriteZeroes(offset + at, unit.Length);
            }
            else if (n < 0)
            {
                Write(offset + at, unit);
            }
            else
            {
                WriteCompressed(c, offset + at, batch.Packed(c.MaxCompressedLength).Slice(packed, n), unit.Length);
                packed += n;
            }
        }
    }

    /// <summary>Writes what is not zero in runs of whole blocks; zeroes are left out, or written as such.</summary>
    private void StorePlain(long offset, ReadOnlySpan<byte> data)
    {
        long minimum = _request.MinimumZeroRun;
        if (minimum == 0)
        {
            Write(offset, data);
            return;
        }
        int block = _block;
        int start = 0;
        while (start < data.Length)
        {
            // A run of zero blocks, if long enough to count.
            int zeroEnd = start;
            while (zeroEnd < data.Length && ZeroBuffer.IsZero(data.Slice(zeroEnd, Math.Min(block, data.Length - zeroEnd))))
                zeroEnd = Math.Min(zeroEnd + block, data.Length);
            if (zeroEnd > start && (zeroEnd - start >= minimum || zeroEnd == data.Length))
            {
                if (!_skipZeroes)
                    WriteZeroes(offset + start, zeroEnd - start);
                start = zeroEnd;
                continue;
            }
            // Data, up to the next zero run that counts.
            int end = Math.Max(zeroEnd, Math.Min(start + block, data.Length));
            int run = 0;
            while (end < data.Length && run < minimum)
            {
                int n = Math.Min(block, data.Length - end);
                run = ZeroBuffer.IsZero(data.Slice(end, n)) ? run + n : 0;
                end += n;
            }
            if (run >= minimum || end == data.Length)
                end -= run;
            if (end > start)
                Write(offset + start, data[start..end]);
            start = end;
        }
    }

    private void Write(long offset, ReadOnlySpan<byte> data)
    {
        try
        {
            _target.Write(offset, data);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw WriteFailed(offset, e);
        }
    }

    private void WriteCompressed(ICompressingDevice c, long offset, ReadOnlySpan<byte> packed, int unitLength)
    {
        try
        {
            c.WriteCompressed(offset, packed, unitLength);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw WriteFailed(offset, e);
        }
    }

    private void WriteZeroes(long offset, long count)
    {
        try
        {
            _target.WriteZeroes(offset, count, ZeroOptions.MayUnmap);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            throw WriteFailed(offset, e);
        }
    }

    private ImageException WriteFailed(long offset, Exception e) =>
        new(ImageErrorKind.Io, $"error while writing at byte {offset}: {e.Message}", _target.FileName, offset, e);
}
