using System.Runtime.InteropServices;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>An export of an NBD server as a disk.</summary>
internal sealed unsafe class NbdDevice : BlockDevice
{
    /// <summary>The most that one request without payload covers, in bytes, where lengths have 32 bits.</summary>
    private const long MaxRange = 1L << 30;

    /// <summary>Long reads and writes are made of requests of this length, in bytes: what a server takes for them then stays in
    /// its processor's cache, and it need not ask its system for memory each time.</summary>
    private const int PieceLength = 256 << 10;

    private readonly NbdClient _client;
    private readonly OpenSettings _settings;
    private readonly NbdExportInfo _export;
    private readonly NbdStatusCache _status;
    private readonly bool _isBitmap;
    private readonly bool _isDepth;
    private readonly int _align;
    private readonly int _maxPayload;
    private readonly int _piece;
    /// <summary>Where a server wants whole blocks: a block of which a part is changed is read, changed and written, and by nobody else meanwhile. Null:
    /// requests of any alignment.</summary>
    private readonly ReaderWriterLockSlim? _blocks;

    public NbdDevice(NbdClientSettings client, OpenSettings settings)
    {
        _settings = settings;
        _client = new NbdClient(client);
        _export = _client.Agreement.Export;
        if (!settings.ReadOnly && Has(NbdExportFlags.ReadOnly))
        {
            _client.Dispose();
            throw new ImageException(ImageErrorKind.ReadOnly, "Could not open image: Permission denied") { Errno = 13 };
        }
        _isBitmap = client.AllocationContext != NbdWire.BaseAllocation;
        _isDepth = client.AllocationContext == NbdWire.AllocationDepth;
        _status = new NbdStatusCache(_client);
        _align = (int)Math.Max(_export.MinBlock, 1);
        _maxPayload = _export.MaxBlock == 0 ? NbdWire.MaxPayload : (int)Math.Min(_export.MaxBlock, NbdWire.MaxPayload);
        _maxPayload -= _maxPayload % _align;
        _piece = (int)Math.Clamp(Math.Max(PieceLength, (long)_export.PreferredBlock), _align, _maxPayload);
        _piece -= _piece % _align;
        _blocks = _align > 1 ? new ReaderWriterLockSlim() : null;
        Limits = new BlockLimits(_align, Math.Min(_maxPayload, 2 << 20), 0, _align);
        FileName = client.Address.ToUri(client.Export);
    }

    public override string DriverName => "nbd";

    public override long Length => _export.Size;

    public override bool IsReadOnly => _settings.ReadOnly || Has(NbdExportFlags.ReadOnly);

    public override BlockLimits Limits { get; }

    public override long AllocatedHostBytes => -1;

    private bool Has(NbdExportFlags flag) => (_export.Flags & flag) != 0;

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        if (!IsAligned(offset, destination.Length))
        {
            ReadUnaligned(offset, destination);
            return;
        }
        if (destination.IsEmpty)
            return;
        fixed (byte* p = destination)
        {
            var buffer = new IoBuffer(p, destination.Length);
            Transfer(NbdCommand.Read, NbdCommandFlags.None, offset, destination.Length, new ReadOnlySpan<IoBuffer>(in buffer));
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckWritable();
        CheckRange(offset, source.Length);
        if (!IsAligned(offset, source.Length))
        {
            WriteUnaligned(offset, source);
            return;
        }
        _blocks?.EnterReadLock();
        try
        {
            WriteAligned(offset, source);
        }
        finally
        {
            _blocks?.ExitReadLock();
            // A write that fails may have written a part.
            _status.Forget();
        }
        FlushIfWriteThrough();
    }

    private void WriteAligned(long offset, ReadOnlySpan<byte> source)
    {
        fixed (byte* p = source)
        {
            var buffer = new IoBuffer(p, source.Length);
            if (!source.IsEmpty)
                Transfer(NbdCommand.Write, Fua(), offset, source.Length, new ReadOnlySpan<IoBuffer>(in buffer));
        }
    }

    public override void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        long total = Total(buffers);
        CheckRange(offset, total);
        if (total > _maxPayload || !IsAligned(offset, total))
            base.ReadVector(offset, buffers);
        else if (total > 0)
            Transfer(NbdCommand.Read, NbdCommandFlags.None, offset, total, buffers);
    }

    public override void WriteVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        CheckWritable();
        long total = Total(buffers);
        CheckRange(offset, total);
        if (total > _maxPayload || !IsAligned(offset, total))
        {
            base.WriteVector(offset, buffers);
            return;
        }
        _blocks?.EnterReadLock();
        try
        {
            if (total > 0)
                Transfer(NbdCommand.Write, Fua(), offset, total, buffers);
        }
        finally
        {
            _blocks?.ExitReadLock();
            _status.Forget();
        }
        FlushIfWriteThrough();
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckWritable();
        CheckRange(offset, count);
        bool fast = (options & ZeroOptions.NoFallback) != 0;
        if (!Has(NbdExportFlags.SendWriteZeroes) || (fast && !Has(NbdExportFlags.SendFastZero)))
        {
            base.WriteZeroes(offset, count, options);
            return;
        }
        var flags = Fua() | (fast ? NbdCommandFlags.FastZero : 0) | ((options & ZeroOptions.MayUnmap) == 0 ? NbdCommandFlags.NoHole : 0);
        var (start, length) = AlignedPart(offset, count);
        if (length < count)
        {
            if (fast)
                throw new NotSupportedException("the range is not aligned to the server's blocks");
            long head = Math.Min(start - offset, count);
            ZeroBuffer.WriteTo(this, offset, head);
            ZeroBuffer.WriteTo(this, start + length, Math.Max(0, offset + count - start - length));
        }
        int error = ChangeRange(NbdCommand.WriteZeroes, flags, start, length);
        if (error == NbdError.NotSupported && fast)
            throw new NotSupportedException("the NBD server cannot zero this range without writing it");
        Check(error, "zero", start, length);
        FlushIfWriteThrough();
    }

    public override void Discard(long offset, long count)
    {
        CheckWritable();
        CheckRange(offset, count);
        if (!_settings.Unmap || !Has(NbdExportFlags.SendTrim))
            return;
        var (start, length) = AlignedPart(offset, count);
        Check(ChangeRange(NbdCommand.Trim, NbdCommandFlags.None, start, length), "trim", start, length);
    }

    private int ChangeRange(NbdCommand command, NbdCommandFlags flags, long offset, long count)
    {
        _blocks?.EnterReadLock();
        try
        {
            return Range(command, flags, offset, count);
        }
        finally
        {
            _blocks?.ExitReadLock();
            _status.Forget();
        }
    }

    public override void Flush()
    {
        if (_settings.NoFlush || !Has(NbdExportFlags.SendFlush) || Has(NbdExportFlags.ReadOnly))
            return;
        Check(_client.Execute(new NbdConnection.Request { Command = NbdCommand.Flush }), "flush", 0, 0);
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        const ExtentKind data = ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid;
        const ExtentKind other = ExtentKind.Allocated | ExtentKind.OffsetValid;
        if (_client.Agreement.AllocationContext is null || count == 0)
            return new(Math.Max(count, 1), data, offset);
        // A server answers for whole blocks.
        long start = offset - offset % _align;
        long wanted = Math.Min(offset + count, Length) - start;
        wanted = Math.Min((wanted + _align - 1) / _align * _align, Math.Max(Length - start, _align));
        int error = _status.Find(start, Math.Min(wanted, MaxRange), out var extent);
        Check(error, "status", offset, count);
        long n = Math.Min(count, start + extent.Length - offset);
        if (n <= 0)
            return new(1, data, offset);
        // Any other context is shown by its two lowest bits, as the peer does; deeper than 2 is like 2.
        uint flags = _isDepth ? Math.Min(extent.Flags, 2) : extent.Flags;
        bool hole = (flags & (uint)NbdAllocation.Hole) != 0, zero = (flags & (uint)NbdAllocation.Zero) != 0;
        if (_isBitmap)
            return new(n, (hole ? other : data) | (zero ? ExtentKind.Zero : 0), offset);
        // A hole that is not said to be zero may read as anything.
        return new(n, (hole && zero ? other : data) | (zero ? ExtentKind.Zero : 0), offset);
    }

    public override void Resize(long length, ResizeOptions options = default)
    {
        if (options.Exact && length != Length)
            throw new ImageException(ImageErrorKind.Unsupported, "Cannot resize NBD nodes", FileName);
        if (length > Length)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Cannot grow NBD nodes", FileName);
    }

    protected override void Dispose(bool disposing)
    {
        _client.Dispose();
        _blocks?.Dispose();
    }

    private bool IsAligned(long offset, long count) => ((offset | count) & (_align - 1)) == 0 || (_align > 1 && offset % _align == 0 && offset + count == Length);

    private NbdCommandFlags Fua() => _settings.WriteThrough && Has(NbdExportFlags.SendFua) ? NbdCommandFlags.Fua : NbdCommandFlags.None;

    private void FlushIfWriteThrough()
    {
        if (_settings.WriteThrough && !Has(NbdExportFlags.SendFua))
            Flush();
    }

    private void Transfer(NbdCommand command, NbdCommandFlags flags, long offset, long count, ReadOnlySpan<IoBuffer> buffers)
    {
        int error = _client.Execute(new NbdConnection.Request
        {
            Command = command,
            Flags = flags,
            Offset = offset,
            Length = count,
            Buffers = buffers,
            Piece = buffers.Length == 1 ? _piece : 0,
        });
        Check(error, command == NbdCommand.Read ? "read" : "write", offset, count);
    }

    private int Range(NbdCommand command, NbdCommandFlags flags, long offset, long count)
    {
        while (count > 0)
        {
            long n = Math.Min(count, MaxRange);
            int error = _client.Execute(new NbdConnection.Request { Command = command, Flags = flags, Offset = offset, Length = n });
            if (error != 0)
                return error;
            offset += n;
            count -= n;
        }
        return 0;
    }

    /// <summary>The whole blocks inside a range.</summary>
    private (long Start, long Length) AlignedPart(long offset, long count)
    {
        long start = (offset + _align - 1) / _align * _align;
        long end = offset + count == Length ? Length : (offset + count) / _align * _align;
        return (start, Math.Max(0, end - start));
    }

    private void ReadUnaligned(long offset, Span<byte> destination)
    {
        using var bounce = new Host.AlignedBuffer((int)Math.Min(1 << 20, destination.Length + 2L * _align) / _align * _align + _align);
        while (!destination.IsEmpty)
        {
            long start = offset - offset % _align;
            int n = (int)Math.Min(bounce.Length, Length - start);
            n = (int)Math.Min(n, (offset - start + destination.Length + _align - 1) / _align * _align);
            Read(start, bounce.Span[..n]);
            int skip = (int)(offset - start);
            int take = Math.Min(n - skip, destination.Length);
            bounce.Span.Slice(skip, take).CopyTo(destination);
            destination = destination[take..];
            offset += take;
        }
    }

    private void WriteUnaligned(long offset, ReadOnlySpan<byte> source)
    {
        using var bounce = new Host.AlignedBuffer(_align);
        _blocks!.EnterWriteLock();
        try
        {
            while (!source.IsEmpty)
            {
                long start = offset - offset % _align;
                int skip = (int)(offset - start);
                if (skip == 0 && source.Length >= _align)
                {
                    int whole = source.Length / _align * _align;
                    WriteAligned(offset, source[..whole]);
                    source = source[whole..];
                    offset += whole;
                    continue;
                }
                int n = (int)Math.Min(_align, Length - start);
                int take = Math.Min(n - skip, source.Length);
                Read(start, bounce.Span[..n]);
                source[..take].CopyTo(bounce.Span[skip..]);
                WriteAligned(start, bounce.Span[..n]);
                source = source[take..];
                offset += take;
            }
        }
        finally
        {
            _blocks.ExitWriteLock();
            _status.Forget();
        }
        FlushIfWriteThrough();
    }

    private void CheckWritable()
    {
        if (IsReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "the export is read-only", FileName) { Errno = 1 };
    }

    private void Check(int error, string what, long offset, long count)
    {
        if (error != 0)
            throw new ImageException(ImageErrorKind.Io, Marshal.GetPInvokeErrorMessage(error), FileName, offset)
            {
                Errno = error,
                Operation = $"{what} of {count} bytes at offset {offset} of '{FileName}'",
            };
    }

    private static long Total(ReadOnlySpan<IoBuffer> buffers)
    {
        long n = 0;
        foreach (var b in buffers)
            n += b.Length;
        return n;
    }
}
