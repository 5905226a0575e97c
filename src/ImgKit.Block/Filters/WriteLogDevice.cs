using System.Buffers.Binary;
using System.Numerics;

namespace ImgKit.Block.Filters;

/// <summary>
/// Records every write, zeroing, discard and flush, in the format of the kernel's dm-log-writes (Documentation/admin-guide/
/// device-mapper/log-writes): a superblock sector, then for each request an entry sector and its data. Whoever replays a prefix
/// of the log gets a disk as a crash could have left it.
/// </summary>
internal sealed class WriteLogDevice : FilterDevice
{
    private const ulong Magic = 0x6a736677736872;
    private const int FlushFlag = 1;
    private const int FuaFlag = 2;
    private const int DiscardFlag = 4;
    private const int LogSector = 512;

    private readonly BlockDevice _log;
    private readonly Lock _gate = new();
    private readonly int _sectorSize;
    private readonly long _updateInterval;
    private readonly bool _writeThrough;
    private long _end;
    private ulong _entries;
    private bool _closed;

    private WriteLogDevice(BlockDevice inner, BlockDevice log, int sectorSize, bool append, long updateInterval, bool writeThrough)
        : base(inner)
    {
        _log = log;
        _sectorSize = sectorSize;
        _updateInterval = updateInterval;
        _writeThrough = writeThrough;
        _end = sectorSize;
        FileName = inner.FileName;
        if (append)
            FindEnd();
        WriteSuperblock();
    }

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "blklogwrites",
        Kind = DriverKind.Filter,
        Description = "Records writes and flushes in a log (dm-log-writes)",
        Open = Open,
        OpenOptions =
        [
            new("log-append", OptionType.Bool, "Append to an existing log", "off"),
            new("log-sector-size", OptionType.Size, "Log sector size", "512"),
            new("log-super-update-interval", OptionType.Number, "Log superblock update interval (# of write requests)", "4096"),
        ],
    };

    public override string DriverName => "blklogwrites";

    private static WriteLogDevice Open(OpenContext context)
    {
        var o = context.Options;
        bool append = o.TakeBool("log-append") ?? false;
        long? sector = o.TakeSize("log-sector-size");
        long interval = o.TakeNumber("log-super-update-interval") ?? 4096;
        if (append && sector is not null)
            throw new ImageException(ImageErrorKind.InvalidArgument, "log-append and log-sector-size are mutually exclusive");
        sector ??= LogSector;
        if (sector is < 512 or > 8 << 20 || !BitOperations.IsPow2(sector.Value))
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Invalid log sector size {sector}");
        var log = context.Opener.OpenChild(context, "log", null, asStorage: true);
        try
        {
            return new WriteLogDevice(context.File, log, (int)sector, append, interval, context.Settings.WriteThrough);
        }
        catch
        {
            log.Dispose();
            throw;
        }
    }

    private void FindEnd()
    {
        Span<byte> super = stackalloc byte[28];
        if (_log.Length < _sectorSize)
            return;
        _log.Read(0, super);
        if (BinaryPrimitives.ReadUInt64LittleEndian(super) != Magic || BinaryPrimitives.ReadUInt64LittleEndian(super[8..]) != 1
            || BinaryPrimitives.ReadUInt32LittleEndian(super[24..]) != _sectorSize)
            throw new ImageException(ImageErrorKind.InvalidFormat, "Invalid log superblock", _log.FileName);
        ulong entries = BinaryPrimitives.ReadUInt64LittleEndian(super[16..]);
        Span<byte> entry = stackalloc byte[32];
        for (; _entries < entries; _entries++)
        {
            if (_end > _log.Length - _sectorSize)
                throw new ImageException(ImageErrorKind.InvalidFormat, "the log ends before its last entry", _log.FileName, _end);
            _log.Read(_end, entry);
            ulong sectors = BinaryPrimitives.ReadUInt64LittleEndian(entry[8..]);
            bool data = (BinaryPrimitives.ReadUInt64LittleEndian(entry[16..]) & DiscardFlag) == 0;
            if (sectors > (ulong)(long.MaxValue / _sectorSize / 2))
                throw new ImageException(ImageErrorKind.InvalidFormat, "an entry of the log is impossibly long", _log.FileName, _end);
            _end += _sectorSize + (data ? (long)sectors * _sectorSize : 0);
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        Inner.Write(offset, source);
        lock (_gate)
        {
            using var entry = new Unfinished(this);
            // Whole sectors are logged; what a write leaves alone in them is as it was.
            long start = offset / _sectorSize * _sectorSize, end = (offset + source.Length + _sectorSize - 1) / _sectorSize * _sectorSize;
            WriteEntry(start, end - start, _writeThrough ? FuaFlag : 0);
            if (start == offset && end == offset + source.Length)
            {
                _log.Write(_end, source);
                _end += source.Length;
            }
            else
            {
                CopyFromDisk(start, end);
            }
            Finish(_writeThrough);
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        Inner.WriteZeroes(offset, count, options);
        lock (_gate)
        {
            using var entry = new Unfinished(this);
            long start = offset / _sectorSize * _sectorSize, end = (offset + count + _sectorSize - 1) / _sectorSize * _sectorSize;
            WriteEntry(start, end - start, _writeThrough ? FuaFlag : 0);
            if (start == offset && end == offset + count)
            {
                _log.WriteZeroes(_end, count, ZeroOptions.MayUnmap);
                _end += count;
            }
            else
            {
                CopyFromDisk(start, end);
            }
            Finish(_writeThrough);
        }
    }

    public override void Discard(long offset, long count)
    {
        Inner.Discard(offset, count);
        lock (_gate)
        {
            using var entry = new Unfinished(this);
            WriteEntry(offset, count, DiscardFlag);
            Finish(false);
        }
    }

    public override void Flush()
    {
        Inner.Flush();
        lock (_gate)
        {
            using var entry = new Unfinished(this);
            WriteEntry(0, 0, FlushFlag);
            Finish(true);
        }
    }

    /// <summary>An entry that an error leaves half written is not in the log: the next one takes its place.</summary>
    private readonly ref struct Unfinished(WriteLogDevice device)
    {
        private readonly long _start = device._end;
        private readonly ulong _before = device._entries;

        public void Dispose()
        {
            if (device._entries == _before)
                device._end = _start;
        }
    }

    private void CopyFromDisk(long start, long end)
    {
        Span<byte> sector = new byte[_sectorSize];
        for (long at = start; at < end; at += _sectorSize)
        {
            int n = (int)Math.Clamp(Inner.Length - at, 0, _sectorSize);
            Inner.Read(at, sector[..n]);
            sector[n..].Clear();
            _log.Write(_end, sector);
            _end += _sectorSize;
        }
    }

    private void WriteEntry(long offset, long count, int flags)
    {
        Span<byte> entry = new byte[_sectorSize];
        BinaryPrimitives.WriteUInt64LittleEndian(entry, (ulong)(offset / _sectorSize));
        BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], (ulong)((count + _sectorSize - 1) / _sectorSize));
        BinaryPrimitives.WriteUInt64LittleEndian(entry[16..], (ulong)flags);
        _log.Write(_end, entry);
        _end += _sectorSize;
    }

    private void Finish(bool flush)
    {
        _entries++;
        if (flush || (_updateInterval > 0 && _entries % (ulong)_updateInterval == 0))
        {
            WriteSuperblock();
            _log.Flush();
        }
    }

    private void WriteSuperblock()
    {
        Span<byte> super = new byte[_sectorSize];
        BinaryPrimitives.WriteUInt64LittleEndian(super, Magic);
        BinaryPrimitives.WriteUInt64LittleEndian(super[8..], 1);
        BinaryPrimitives.WriteUInt64LittleEndian(super[16..], _entries);
        BinaryPrimitives.WriteUInt32LittleEndian(super[24..], (uint)_sectorSize);
        _log.Write(0, super);
    }

    protected override void Dispose(bool disposing)
    {
        lock (_gate)
        {
            if (!_closed)
            {
                _closed = true;
                WriteSuperblock();
                _log.Flush();
            }
        }
        base.Dispose(disposing);
        _log.Dispose();
    }
}
