namespace ImgKit.Block.Formats.Raw;

/// <summary>A device, or a part of one, as a disk.</summary>
internal sealed class RawImage : BlockDevice
{
    private const int Sector = 512;

    private readonly BlockDevice _storage;
    private readonly long _start;
    private readonly long? _size;
    private readonly DriverCatalogue? _guard;

    /// <param name="storage">holds the bytes; owned.</param>
    /// <param name="start">first byte of the disk in it.</param>
    /// <param name="size">fixed size, or null: to the end.</param>
    /// <param name="guard">when raw was only a guess: what the first sector must not be made to look like, for the
    /// next one who guesses would open the guest's choice of format.</param>
    public RawImage(BlockDevice storage, long start, long? size, DriverCatalogue? guard)
    {
        _storage = storage;
        _start = start;
        _size = size;
        _guard = guard;
    }

    public override string DriverName => "raw";

    /// <summary>A disk has whole sectors: behind the end of a file that has not, it reads as zeroes.</summary>
    public override long Length => _size ?? (_storage.Length - _start + (Sector - 1)) / Sector * Sector;

    public override bool IsReadOnly => _storage.IsReadOnly;

    public override BlockLimits Limits => _guard is null ? _storage.Limits
        : _storage.Limits with { RequestAlignment = Math.Max(Sector, _storage.Limits.RequestAlignment) };

    public override BlockDevice Storage => _storage;

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        int n = (int)Math.Clamp(_storage.Length - _start - offset, 0, destination.Length);
        _storage.DebugEvent(BlockDebugEvent.ReadAio);
        if (n > 0)
            _storage.Read(_start + offset, destination[..n]);
        destination[n..].Clear();
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckRange(offset, source.Length);
        if (_guard is not null && offset < 512 && source.Length > 0)
            GuardFirstSector(offset, source);
        _storage.DebugEvent(BlockDebugEvent.WriteAio);
        _storage.Write(_start + offset, source);
    }

    public override void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        long total = Total(buffers);
        CheckRange(offset, total);
        if (offset + total > _storage.Length - _start)
        {
            base.ReadVector(offset, buffers);
            return;
        }
        _storage.DebugEvent(BlockDebugEvent.ReadAio);
        _storage.ReadVector(_start + offset, buffers);
    }

    public override void WriteVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        CheckRange(offset, Total(buffers));
        if (_guard is not null && offset < 512)
        {
            base.WriteVector(offset, buffers);
            return;
        }
        _storage.DebugEvent(BlockDebugEvent.WriteAio);
        _storage.WriteVector(_start + offset, buffers);
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckRange(offset, count);
        _storage.WriteZeroes(_start + offset, count, options);
    }

    public override void Discard(long offset, long count)
    {
        CheckRange(offset, count);
        _storage.Discard(_start + offset, count);
    }

    public override void Flush() => _storage.Flush();

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        long left = _storage.Length - _start - offset;
        if (left <= 0)
            return new(count, ExtentKind.Zero | ExtentKind.Allocated | ExtentKind.OffsetValid, _start + offset, _storage);
        var e = _storage.GetExtent(_start + offset, Math.Min(count, left));
        // The rest of the last sector belongs to a hole in front of it; where the storage has whole sectors only, to data, too.
        if (e.Length == left && (e.IsZero || _storage.Limits.RequestAlignment >= Sector))
            e = e with { Length = count };
        return e with { HostDevice = e.HostDevice ?? _storage };
    }

    public override void Resize(long length, ResizeOptions options = default)
    {
        if (_size is not null)
            throw new ImageException(ImageErrorKind.Unsupported, "Cannot resize fixed-size raw disks", FileName);
        if (options.Preallocation == Preallocation.Metadata)
            throw new ImageException(ImageErrorKind.Unsupported, "Unsupported preallocation mode: metadata", FileName);
        if (length > long.MaxValue - _start)
            throw new ImageException(ImageErrorKind.InvalidArgument, "Disk size too large for the chosen offset", FileName);
        _storage.Resize(_start + length, options);
    }

    protected override void Dispose(bool disposing) => _storage.Dispose();

    private static long Total(ReadOnlySpan<IoBuffer> buffers)
    {
        long n = 0;
        foreach (var b in buffers)
            n += b.Length;
        return n;
    }

    private void GuardFirstSector(long offset, ReadOnlySpan<byte> source)
    {
        Span<byte> sector = stackalloc byte[512];
        sector = sector[..(int)Math.Min(512, Length)];
        Read(0, sector);
        source[..(int)Math.Min(source.Length, sector.Length - offset)].CopyTo(sector[(int)offset..]);
        foreach (var d in _guard!.All)
            if (d.Name != "raw" && d.Probe?.Invoke(sector, FileName, _storage) > 0)
                throw new ImageException(ImageErrorKind.Denied, "Operation not permitted", FileName, offset)
                {
                    Errno = 1,
                    Operation = $"the format was guessed as raw, and this write would make it look like {d.Name}",
                };
    }
}
