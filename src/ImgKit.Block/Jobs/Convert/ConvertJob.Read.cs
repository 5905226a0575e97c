namespace ImgKit.Block.Jobs.Convert;

/// <summary>What a thread does with a batch before it is the batch's turn.</summary>
public sealed partial class ConvertJob
{
    private void Read(ConvertBatch batch)
    {
        int at = 0;
        bool copied = _kernelCopies;
        foreach (ref readonly var piece in batch.Pieces)
        {
            if (piece.Kind != PieceKind.Data)
                continue;
            copied = copied && CopyInKernel(piece);
            if (!copied)
                Read(piece.Offset, batch.Data.Slice(at, (int)piece.Length));
            at += (int)piece.Length;
            _rate?.Wait(piece.Length);
        }
        batch.IsStored = copied && at > 0;
    }

    private void Read(long offset, Span<byte> data)
    {
        try
        {
            _source.Read(offset, data);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            if (!_request.Salvage)
                throw new ImageException(ImageErrorKind.Io, $"error while reading at byte {offset}: {e.Message}", null, offset, e);
            SalvageSectors(offset, data);
        }
    }

    /// <summary>Sector by sector, so that as little as possible is lost.</summary>
    private void SalvageSectors(long offset, Span<byte> data)
    {
        for (int at = 0; at < data.Length; at += 512)
        {
            var sector = data.Slice(at, Math.Min(512, data.Length - at));
            try
            {
                _source.Read(offset + at, sector);
            }
            catch (Exception e) when (e is IOException or ImageException)
            {
                sector.Clear();
                _request.Warn?.Invoke($"error while reading offset {offset + at}: {e.Message}");
            }
        }
    }

    /// <summary>Has the kernel copy a piece when it lies as plain bytes in one file and the target is a plain file, too.</summary>
    private bool CopyInKernel(in Piece piece)
    {
        if (_target is not { Storage: Protocols.File.FileDevice target, DriverName: "raw" })
            return false;
        long at = piece.Offset, left = piece.Length;
        while (left > 0)
        {
            var (extent, layer) = _source.GetExtent(at, _request.TargetHasBacking);
            if ((extent.Kind & ExtentKind.OffsetValid) == 0 || !extent.IsData
                || (extent.HostDevice ?? layer.Storage ?? layer) is not Protocols.File.FileDevice file)
                return false;
            long n = file.Host.CopyTo(extent.HostOffset, target.Host, at, Math.Min(left, extent.Length));
            if (n <= 0)
            {
                _kernelCopies = false;
                return false;
            }
            at += n;
            left -= n;
        }
        return true;
    }

    /// <summary>Hashes and compresses what has been read.</summary>
    private void Prepare(ConvertBatch batch)
    {
        if (batch.IsStored || (_compressor is null && _request.Digest is null))
            return;
        int at = 0, block = 0, packed = 0;
        for (int i = 0; i < batch.Count; i++)
        {
            ref readonly var piece = ref batch.Pieces[i];
            if (piece.Kind != PieceKind.Data)
                continue;
            var data = batch.Data.Slice(at, (int)piece.Length);
            at += data.Length;
            batch.Leaves[i] = _request.Digest?.HashLeaves(piece.Offset, data);
            if (_compressor is { } c)
                Compress(c, data, batch, ref block, ref packed);
        }
    }

    private void Compress(ICompressingDevice c, ReadOnlySpan<byte> data, ConvertBatch batch, ref int block, ref int packed)
    {
        int room = c.MaxCompressedLength;
        for (int at = 0; at < data.Length; at += _block)
        {
            var unit = data.Slice(at, Math.Min(_block, data.Length - at));
            int n = _request.MinimumZeroRun > 0 && ZeroBuffer.IsZero(unit) ? 0 : c.Compress(unit, batch.Packed(room).Slice(packed, room));
            batch.PackedLengths[block++] = n;
            packed += Math.Max(n, 0);
        }
    }
}
