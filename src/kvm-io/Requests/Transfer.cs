using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary>A request with its memory: what is done, on any thread, and what is printed of it, on the command thread.</summary>
internal sealed class Transfer : IDisposable
{
    private const byte WrittenByDefault = 0xcd;
    private const byte NotYetRead = 0xab;

    private readonly IoRequest _request;
    private readonly bool _isWrite;
    private readonly RequestBuffer? _buffer;

    private Transfer(IoRequest request, bool isWrite, RequestBuffer? buffer)
    {
        _request = request;
        _isWrite = isWrite;
        _buffer = buffer;
    }

    /// <summary>A read.</summary>
    public static Transfer OfRead(Session session, IoRequest request) =>
        new(request, false, new RequestBuffer(request.Total, session.Misaligned, NotYetRead));

    /// <summary>A write, its buffer filled; null: the file to fill it from cannot be had, which has been said.</summary>
    public static Transfer? OfWrite(Session session, IoRequest request)
    {
        if (request.Has(RequestFlags.Zero))
            return new Transfer(request, true, null);
        var transfer = new Transfer(request, true, new RequestBuffer(request.Total, session.Misaligned, request.Pattern ?? WrittenByDefault));
        if (request.SourceFile is null || PatternFile.Fill(transfer._buffer!.Span, request.SourceFile))
            return transfer;
        transfer.Dispose();
        return null;
    }

    /// <summary>Does it.</summary>
    public void Run(BlockDevice device)
    {
        if (_request.Has(RequestFlags.VmState))
        {
            var state = VmState(device);
            if (_isWrite)
                state.WriteVmState(_request.Offset, _buffer!.Span);
            else
                state.ReadVmState(_request.Offset, _buffer!.Span);
            return;
        }
        CheckRange(device, _request.Offset, _request.Total);
        if (_isWrite)
            Write(device);
        else if (_request.Lengths.Length > 1)
            device.ReadVector(_request.Offset, _buffer!.Split(_request.Lengths));
        else
            device.Read(_request.Offset, _buffer!.Span);
    }

    private void Write(BlockDevice device)
    {
        if (_buffer is null)
            device.WriteZeroes(_request.Offset, _request.Total, (_request.Has(RequestFlags.Unmap) ? ZeroOptions.MayUnmap : 0)
                | (_request.Has(RequestFlags.NoFallback) ? ZeroOptions.NoFallback : 0));
        else if (_request.Has(RequestFlags.Compressed))
            WriteCompressed(device, _request.Offset, _buffer.Span);
        else if (_request.Lengths.Length > 1)
            device.WriteVector(_request.Offset, _buffer.Split(_request.Lengths));
        else
            device.Write(_request.Offset, _buffer.Span);
        if (_request.Has(RequestFlags.Fua))
            device.Flush();
    }

    /// <summary>Compares, dumps and reports; false: what was read is not what was expected.</summary>
    public bool Report(TimeSpan time)
    {
        bool ok = _isWrite || _request.Pattern is not { } pattern || Printing.Verify(
            _buffer!.Span.Slice((int)_request.CheckStart!.Value, (int)_request.CheckLength!.Value), pattern, _request.Offset + _request.CheckStart.Value);
        if (_request.Has(RequestFlags.Quiet))
            return ok;
        if (_request.Has(RequestFlags.Dump))
            Printing.Dump(_buffer!.Span, _request.Offset);
        Printing.Report(_isWrite ? "wrote" : "read", time, _request);
        return ok;
    }

    /// <summary>Throws unless a request lies inside the image.</summary>
    public static void CheckRange(BlockDevice device, long offset, long count)
    {
        long length = device.Length;
        if (offset > length || count > length - offset)
            throw new ImageException(ImageErrorKind.OutOfBounds, "request outside of the image", device.FileName, offset);
    }

    private static void WriteCompressed(BlockDevice device, long offset, ReadOnlySpan<byte> data)
    {
        var target = Find<ICompressingDevice>(device) ?? throw new NotSupportedException($"{device.DriverName} does not compress");
        int unit = target.CompressionUnit;
        if (offset % unit != 0 || (data.Length % unit != 0 && offset + data.Length != device.Length))
            throw new ImageException(ImageErrorKind.InvalidArgument, "compressed writes are whole clusters", device.FileName, offset);
        byte[] packed = new byte[target.MaxCompressedLength];
        while (!data.IsEmpty)
        {
            var piece = data[..Math.Min(unit, data.Length)];
            int n = target.Compress(piece, packed);
            if (n < 0)
                device.Write(offset, piece);
            else
                target.WriteCompressed(offset, packed.AsSpan(0, n), piece.Length);
            data = data[piece.Length..];
            offset += piece.Length;
        }
    }

    /// <summary>The image's room for machine state.</summary>
    /// <exception cref="NotSupportedException">it has none.</exception>
    private static IVmStateImage VmState(BlockDevice device) =>
        Find<IVmStateImage>(device) ?? throw new NotSupportedException($"{device.DriverName} holds no machine state");

    /// <summary>The first of a device and those below it that can do something.</summary>
    private static T? Find<T>(BlockDevice device)
        where T : class
    {
        for (BlockDevice? d = device; d is not null; d = d.Storage)
            if (d is T found)
                return found;
        return null;
    }

    public void Dispose() => _buffer?.Dispose();
}
