using System.Buffers;
using ImgKit.Block.Protocols.File;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>How a <see cref="SparseExtent"/> is laid out.</summary>
/// <param name="Sectors">sectors of the disk that it holds.</param>
/// <param name="GrainSectors">sectors of a grain.</param>
/// <param name="ZeroedGrains">entry 1 means a grain of zeroes.</param>
/// <param name="FirstDataSector">grains and tables lie at or behind it; before it is the header, and what it describes.</param>
/// <param name="FreeSectorField">byte offset of a 32-bit field that holds the next free sector (COWD), or 0.</param>
internal readonly record struct SparseLayout(long Sectors, int GrainSectors, bool ZeroedGrains, long FirstDataSector, int FreeSectorField);

/// <summary>
/// A sparse extent whose grains are stored plain: VMDK 4 and COWD. Any number of threads; see README.md for the order of locks and writes.
/// </summary>
internal sealed partial class SparseExtent : VmdkExtent
{
    private const int MaxRunBytes = 8 << 20;

    /// <summary>Sectors that a 32-bit entry can name.</summary>
    private const long MaxSectors = 1L << 32;

    private readonly BlockDevice _file;
    private readonly SparseLayout _layout;
    private readonly List<GrainRun> _inFlight = [];
    private readonly bool _freshSpaceIsZero;
    private GrainTables _tables;
    private long _sectors;
    private long _nextSector;
    private long _freeSectorStored;
    private byte[]? _headerToWrite;

    public SparseExtent(BlockDevice file, SparseLayout layout, GrainTables tables)
    {
        _file = file;
        _layout = layout;
        _tables = tables;
        _sectors = layout.Sectors;
        GrainSize = layout.GrainSectors * 512;
        // What lies behind the end of a regular file becomes zeroes when the file grows.
        _freshSpaceIsZero = file is FileDevice { DriverName: "file" };
        long end = (file.Length + 511) / 512;
        _nextSector = (end + layout.GrainSectors - 1) / layout.GrainSectors * layout.GrainSectors;
        _freeSectorStored = _nextSector;
        if (layout.FreeSectorField != 0)
            tables.BeforeTables = StoreFreeSector;
    }

    public override long Length => _sectors * 512;

    /// <summary>Entry 1 means a grain of zeroes.</summary>
    public bool HasZeroedGrains => _layout.ZeroedGrains;

    public override BlockDevice File => _file;

    public override int GrainSize { get; }

    public override bool IsPristine => _nextSector <= (_layout.FirstDataSector + _layout.GrainSectors - 1) / _layout.GrainSectors * _layout.GrainSectors;

    private object Sync => _tables.SyncRoot;

    /// <summary>True for an entry that names a place in the file.</summary>
    private bool IsStored(uint entry) => entry > 1 || (entry == 1 && !_layout.ZeroedGrains);

    /// <summary>Byte offset of a stored grain.</summary>
    private long PlaceOf(long grain, uint entry)
    {
        if (entry < _layout.FirstDataSector)
            throw new ImageException(ImageErrorKind.Corrupt,
                $"grain {grain} is said to lie at sector {entry}, inside the metadata of '{_file.FileName}'", _file.FileName, entry * 512L);
        return entry * 512L;
    }

    /// <summary>Grains from <paramref name="grain"/> on, up to <paramref name="most"/>, that lie one behind the other in the file.</summary>
    private int StoredRun(long grain, uint entry, long most)
    {
        int n = 1;
        long next = entry + (long)_layout.GrainSectors;
        uint[]? table = null;
        long tableStart = -1;
        while (n < most)
        {
            long g = grain + n;
            long index = g / _tables.EntriesPerTable;
            if (index != tableStart)
            {
                table = _tables.GetTable((int)index);
                tableStart = index;
            }
            if (table is null || Volatile.Read(ref table[(int)(g % _tables.EntriesPerTable)]) != next)
                break;
            next += _layout.GrainSectors;
            n++;
        }
        return n;
    }

    public override void Read(long offset, Span<byte> destination)
    {
        while (destination.Length > 0)
        {
            var (grain, skip) = Math.DivRem(offset, GrainSize);
            uint entry = _tables[grain];
            long grains = (skip + destination.Length + GrainSize - 1) / GrainSize;
            int n;
            if (IsStored(entry))
            {
                long at = PlaceOf(grain, entry);
                n = (int)Math.Min((long)StoredRun(grain, entry, grains) * GrainSize - skip, destination.Length);
                ReadFile(at + skip, destination[..n]);
            }
            else if (entry == 0)
            {
                n = (int)Math.Min((long)SameRun(grain, 0, grains) * GrainSize - skip, destination.Length);
                Image.ReadBacking(Start + offset, destination[..n]);
            }
            else
            {
                n = (int)Math.Min(GrainSize - skip, destination.Length);
                destination[..n].Clear();
            }
            destination = destination[n..];
            offset += n;
        }
    }

    private void ReadFile(long at, Span<byte> destination)
    {
        _file.DebugEvent(BlockDebugEvent.ReadAio);
        long there = Math.Clamp(_file.Length - at, 0, destination.Length);
        if (there > 0)
            _file.Read(at, destination[..(int)there]);
        destination[(int)there..].Clear();
    }

    /// <summary>Grains from <paramref name="grain"/> on that have the same entry, which is none that names a place.</summary>
    private long SameRun(long grain, uint entry, long most)
    {
        long n = 0;
        while (n < most)
        {
            long g = grain + n;
            int index = (int)(g / _tables.EntriesPerTable);
            var table = _tables.GetTable(index);
            int at = (int)(g % _tables.EntriesPerTable);
            if (table is null)
            {
                if (entry != 0)
                    break;
                n += (long)_tables.EmptyRun(index) * _tables.EntriesPerTable - at;
                continue;
            }
            int end = (int)Math.Min(_tables.EntriesPerTable, at + most - n);
            int same = table.AsSpan(at, end - at).IndexOfAnyExcept(entry);
            if (same < 0)
            {
                n += end - at;
                continue;
            }
            n += same;
            break;
        }
        return Math.Min(n, most);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        while (source.Length > 0)
        {
            var (grain, skip) = Math.DivRem(offset, GrainSize);
            uint entry = _tables[grain];
            int n;
            if (IsStored(entry))
            {
                long at = PlaceOf(grain, entry);
                long grains = (skip + source.Length + GrainSize - 1) / GrainSize;
                n = (int)Math.Min((long)StoredRun(grain, entry, grains) * GrainSize - skip, source.Length);
                _file.DebugEvent(BlockDebugEvent.WriteAio);
                _file.Write(at + skip, source[..n]);
            }
            else
            {
                n = Allocate(grain, (int)skip, source);
            }
            source = source[n..];
            offset += n;
        }
        _tables.WriteBackIfMuch();
    }

    /// <summary>Grains that a thread is about to allocate.</summary>
    private sealed record GrainRun(long First, int Count, long Sector)
    {
        public bool Overlaps(long grain) => grain >= First && grain < First + Count;
    }

    private bool IsInFlight(long grain)
    {
        foreach (var run in _inFlight)
            if (run.Overlaps(grain))
                return true;
        return false;
    }

    /// <summary>
    /// Allocates a run of grains and writes them. The place is chosen under the lock, so it follows from the order of calls;
    /// the data is written outside of it; then the entries are set. Others who want one of the grains wait meanwhile.
    /// </summary>
    /// <returns>bytes of <paramref name="source"/> written; 0 when someone else has allocated the first grain.</returns>
    private int Allocate(long grain, int skip, ReadOnlySpan<byte> source)
    {
        GrainRun run;
        uint first, last;
        lock (Sync)
        {
            while (IsInFlight(grain))
                Monitor.Wait(Sync);
            first = _tables[grain];
            if (IsStored(first))
                return 0;
            long wanted = Math.Min((skip + (long)source.Length + GrainSize - 1) / GrainSize, Math.Max(1, MaxRunBytes / GrainSize));
            int n = 1;
            last = first;
            while (n < wanted && !IsInFlight(grain + n))
            {
                uint e = _tables[grain + n];
                if (IsStored(e))
                    break;
                last = e;
                n++;
            }
            AddTables(grain, n);
            run = Reserve(grain, n);
            _inFlight.Add(run);
        }
        int length = (int)Math.Min((long)run.Count * GrainSize - skip, source.Length);
        bool done = false;
        try
        {
            WriteNew(run, skip, source[..length], first, last);
            done = true;
        }
        finally
        {
            lock (Sync)
            {
                if (done)
                    for (int i = 0; i < run.Count; i++)
                        _tables.Set(run.First + i, (uint)(run.Sector + (long)i * _layout.GrainSectors));
                else if (_nextSector == run.Sector + (long)run.Count * _layout.GrainSectors && (!_freshSpaceIsZero || _file.Length <= run.Sector * 512))
                    _nextSector = run.Sector;       // nothing of it is in the file
                _inFlight.Remove(run);
                Monitor.PulseAll(Sync);
            }
        }
        return length;
    }

    private GrainRun Reserve(long grain, int count)
    {
        long sector = _nextSector;
        long sectors = (long)count * _layout.GrainSectors;
        if (sector + sectors > MaxSectors)
            throw new ImageException(ImageErrorKind.Unsupported, $"'{_file.FileName}' is full: a sparse extent cannot be larger than 2 TiB", _file.FileName,
                sector * 512)
            { Errno = 27 };
        _nextSector += sectors;
        return new GrainRun(grain, count, sector);
    }

    /// <summary>Makes the tables that a run of grains needs, behind the last grain, in whole grains so that those stay aligned.</summary>
    private void AddTables(long grain, int count)
    {
        for (long g = grain; g < grain + count; g = (g / _tables.EntriesPerTable + 1) * _tables.EntriesPerTable)
        {
            if (_tables.HasTable(g))
                continue;
            int table = _tables.TableBytes / 512;
            int copies = _tables.Redundant != 0 ? 2 : 1;
            int grains = (table * copies + _layout.GrainSectors - 1) / _layout.GrainSectors;
            long sector = Reserve(g, grains).Sector;
            _tables.AddTable(g, (uint)sector, copies == 2 ? (uint)(sector + table) : 0);
        }
    }

    /// <summary>Writes the data of a new run, and around it what was there before.</summary>
    private void WriteNew(GrainRun run, int skip, ReadOnlySpan<byte> data, uint first, uint last)
    {
        long place = run.Sector * 512;
        long size = (long)run.Count * GrainSize;
        int tail = (int)(size - skip - data.Length);
        if (skip > 0)
            WriteAround(place, run.First * GrainSize, skip, first, atEnd: false);
        _file.DebugEvent(BlockDebugEvent.WriteAio);
        _file.Write(place + skip, data);
        if (tail > 0)
            WriteAround(place + skip + data.Length, run.First * GrainSize + skip + data.Length, tail, last, atEnd: true);
    }

    private void WriteAround(long place, long offset, int count, uint entry, bool atEnd)
    {
        bool zero = entry != 0 || Image.Backing is null;
        if (zero && _freshSpaceIsZero)
        {
            // Only so that the file is as long as its last grain.
            if (atEnd)
                _file.Write(place + count - Math.Min(count, 512), ZeroBuffer.Span(Math.Min(count, 512)));
            return;
        }
        byte[] buffer = ArrayPool<byte>.Shared.Rent(Math.Min(count, 1 << 20));
        try
        {
            while (count > 0)
            {
                var piece = buffer.AsSpan(0, Math.Min(count, 1 << 20));
                // The last grain of a disk may reach past its end.
                int inside = (int)Math.Clamp(Length - offset, 0, piece.Length);
                if (!zero)
                    _file.DebugEvent(BlockDebugEvent.CowRead);
                if (zero)
                    piece.Clear();
                else
                    Image.ReadBacking(Start + offset, piece[..inside]);
                piece[inside..].Clear();
                _file.DebugEvent(BlockDebugEvent.CowWrite);
                _file.Write(place, piece);
                place += piece.Length;
                offset += piece.Length;
                count -= piece.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options)
    {
        while (count > 0)
        {
            var (grain, skip) = Math.DivRem(offset, GrainSize);
            uint entry = _tables[grain];
            long grains = (skip + count + GrainSize - 1) / GrainSize;
            long n;
            if (IsStored(entry))
            {
                long at = PlaceOf(grain, entry);
                n = Math.Min((long)StoredRun(grain, entry, Math.Min(grains, 1 << 20)) * GrainSize - skip, count);
                _file.WriteZeroes(at + skip, n, options);
            }
            else if (entry != 0)
            {
                n = Math.Min(GrainSize - skip, count);
            }
            else
            {
                n = Math.Min(SameRun(grain, 0, grains) * GrainSize - skip, count);
                n = ZeroUnallocated(offset, n, options);
            }
            offset += n;
            count -= n;
        }
        _tables.WriteBackIfMuch();
    }

    /// <summary>Zeroes a range of which nothing was allocated. Where no backing device shows it reads as zeroes already.</summary>
    /// <returns>bytes from the start that are done.</returns>
    private long ZeroUnallocated(long offset, long count, ZeroOptions options)
    {
        if (Image.Backing is null)
            return count;
        var (grain, skip) = Math.DivRem(offset, GrainSize);
        bool whole = skip == 0 && (count >= GrainSize || offset + count == Length);
        if (_layout.ZeroedGrains && whole)
        {
            long grains = offset + count == Length ? (count + GrainSize - 1) / GrainSize : count / GrainSize;
            grains = Math.Min(grains, _tables.EntriesPerTable - grain % _tables.EntriesPerTable);
            int done = 0;
            lock (Sync)
            {
                for (; done < grains; done++)
                {
                    while (IsInFlight(grain + done))
                        Monitor.Wait(Sync);
                    // Allocated meanwhile by a write of a part of it: the caller zeroes it where it lies.
                    if (IsStored(_tables[grain + done]))
                        break;
                    AddTables(grain + done, 1);
                    _tables.Set(grain + done, 1);
                }
            }
            return Math.Min((long)done * GrainSize, count);
        }
        if (options.HasFlag(ZeroOptions.NoFallback))
            throw new NotSupportedException("this vmdk image cannot zero a range without writing it");
        long n = Math.Min(count, whole ? count : GrainSize - skip);
        if (_layout.ZeroedGrains && !whole)
            n = Math.Min(n, GrainSize - skip);
        n = Math.Min(n, 1 << 20);
        Write(offset, ZeroBuffer.Span((int)n));
        return n;
    }

    public override void Discard(long offset, long count)
    {
        while (count > 0)
        {
            var (grain, skip) = Math.DivRem(offset, GrainSize);
            uint entry = _tables[grain];
            long grains = (skip + count + GrainSize - 1) / GrainSize;
            long n;
            if (IsStored(entry))
            {
                long at = PlaceOf(grain, entry);
                n = Math.Min((long)StoredRun(grain, entry, Math.Min(grains, 1 << 20)) * GrainSize - skip, count);
                _file.Discard(at + skip, n);
            }
            else
            {
                n = entry == 0 ? SameRun(grain, 0, grains) * GrainSize - skip : GrainSize - skip;
            }
            n = Math.Min(n, count);
            offset += n;
            count -= n;
        }
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        var (grain, skip) = Math.DivRem(offset, GrainSize);
        uint entry = _tables[grain];
        long grains = (skip + count + GrainSize - 1) / GrainSize;
        if (IsStored(entry))
        {
            long n = Math.Min((long)StoredRun(grain, entry, Math.Min(grains, 1 << 20)) * GrainSize - skip, count);
            return new(n, ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid, PlaceOf(grain, entry) + skip, _file);
        }
        long length = Math.Min(SameRun(grain, entry, grains) * GrainSize - skip, count);
        return new(length, entry == 0 ? ExtentKind.None : ExtentKind.Zero | ExtentKind.Allocated, 0);
    }

    public override void Flush() => _tables.WriteBack();

    /// <summary>Others may take what lies behind the sector that COWD calls free: no table names a grain there.</summary>
    private void StoreFreeSector()
    {
        long next;
        lock (Sync)
            next = _nextSector;
        if (next == _freeSectorStored)
            return;
        Span<byte> b = stackalloc byte[4];
        BitConverter.TryWriteBytes(b, (uint)Math.Min(next, uint.MaxValue));
        _file.Write(_layout.FreeSectorField, b);
        _freeSectorStored = next;
    }
}
