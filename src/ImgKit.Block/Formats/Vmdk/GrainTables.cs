using System.Buffers;
using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// The grain directory and grain tables of a sparse extent with 32-bit entries, one copy or two. Looking up takes no lock; changes
/// are made in memory under <see cref="SyncRoot"/> and reach the file with <see cref="WriteBack"/>, data first.
/// </summary>
/// <remarks>Tables are little-endian on disk; so is every host that this runs on.</remarks>
internal sealed class GrainTables
{
    /// <summary>Directories larger than this (in entries) are refused.</summary>
    public const long MaxDirectoryEntries = 32 << 20;

    private const int ChunkEntries = 1024;
    private const int MaxCachedBytes = 16 << 20;
    private const int MaxDirtyBytes = 1 << 20;

    private readonly BlockDevice _file;
    private readonly Chunk?[] _chunks;
    private readonly Queue<int> _loaded = new();
    private readonly SortedSet<int> _dirty = [];
    private readonly SortedSet<int> _dirtyDirectory = [];
    private readonly HashSet<int> _writing = [];      // no longer dirty, but not yet in the file either
    private readonly Lock _writeBackLock = new();

    /// <param name="file">the extent's file.</param>
    /// <param name="directory">byte offset of the directory that is read.</param>
    /// <param name="redundant">byte offset of the other copy, or 0.</param>
    /// <param name="entries">entries of the directory.</param>
    /// <param name="entriesPerTable">entries of a table.</param>
    public GrainTables(BlockDevice file, long directory, long redundant, int entries, int entriesPerTable)
    {
        _file = file;
        Directory = directory;
        Redundant = redundant;
        Count = entries;
        EntriesPerTable = entriesPerTable;
        _chunks = new Chunk?[(entries + ChunkEntries - 1) / ChunkEntries];
        CheckInFile(directory);
        if (redundant != 0)
            CheckInFile(redundant);
    }

    /// <summary>Called when tables are about to be written, before the flush that makes data safe: what must be so by then, too.</summary>
    public Action? BeforeTables { get; set; }

    /// <summary>Held while tables are changed.</summary>
    public object SyncRoot { get; } = new();

    /// <summary>Byte offset of the directory that is read.</summary>
    public long Directory { get; private set; }

    /// <summary>Byte offset of the other copy, or 0.</summary>
    public long Redundant { get; private set; }

    /// <summary>Entries of the directory.</summary>
    public int Count { get; }

    public int EntriesPerTable { get; }

    /// <summary>Bytes of a table on disk, in whole sectors.</summary>
    public int TableBytes => (EntriesPerTable * 4 + 511) & ~511;

    private bool HoldsMuch => _dirty.Count * TableBytes >= MaxDirtyBytes;

    /// <summary>The directory's entry: sector of the table, 0 where there is none.</summary>
    public uint GetDirectoryEntry(int index) => ChunkOf(index).Primary[index % ChunkEntries];

    /// <summary>The other copy's entry.</summary>
    public uint GetRedundantEntry(int index) => ChunkOf(index).Redundant![index % ChunkEntries];

    /// <summary>True when a whole run of directory entries from <paramref name="index"/> is empty; the run's length.</summary>
    public int EmptyRun(int index)
    {
        int start = index;
        while (index < Count)
        {
            var chunk = ChunkOf(index);
            if (ReferenceEquals(chunk, Chunk.Empty))
            {
                index = (index / ChunkEntries + 1) * ChunkEntries;
                continue;
            }
            if (chunk.Primary[index % ChunkEntries] != 0 || chunk.Tables[index % ChunkEntries] is not null)
                break;
            index++;
        }
        return Math.Min(index, Count) - start;
    }

    /// <summary>The table, or null where there is none. The array may change under a reader's eyes, an entry at a time.</summary>
    public uint[]? GetTable(int index)
    {
        var chunk = ChunkOf(index);
        int slot = index % ChunkEntries;
        var table = Volatile.Read(ref chunk.Tables[slot]);
        if (table is not null)
            return table;
        lock (SyncRoot)
            return Load(index);
    }

    /// <summary>The entry of a grain: 0 where nothing is allocated.</summary>
    public uint this[long grain]
    {
        get
        {
            var (index, at) = Math.DivRem(grain, EntriesPerTable);
            return GetTable((int)index) is { } t ? Volatile.Read(ref t[at]) : 0;
        }
    }

    /// <summary>Sets an entry (with <see cref="SyncRoot"/> held; the table must be there, see <see cref="AddTable"/>).</summary>
    public void Set(long grain, uint entry)
    {
        var (index, at) = Math.DivRem(grain, EntriesPerTable);
        var table = Load((int)index) ?? throw new InvalidOperationException("no grain table");
        _dirty.Add((int)index);
        Volatile.Write(ref table[at], entry);
    }

    /// <summary>Whether a grain's table is there (with <see cref="SyncRoot"/> held).</summary>
    public bool HasTable(long grain) => Load((int)(grain / EntriesPerTable)) is not null;

    /// <summary>Adds an empty table where there is none (with <see cref="SyncRoot"/> held).</summary>
    /// <param name="grain">one that it maps.</param>
    /// <param name="sector">where it goes.</param>
    /// <param name="redundantSector">where its copy goes.</param>
    public void AddTable(long grain, uint sector, uint redundantSector)
    {
        int index = (int)(grain / EntriesPerTable);
        var chunk = OwnChunk(index);
        int slot = index % ChunkEntries;
        if (chunk.Redundant is not null)
        {
            // One directory has a table and the other has not: writing an empty one would lose what the other knows.
            if (chunk.Redundant[slot] != 0)
                throw new ImageException(ImageErrorKind.Corrupt, $"grain table {index} is in only one of the two directories; repair the image first",
                    _file.FileName, Directory + index * 4L);
            chunk.Redundant[slot] = redundantSector;
        }
        chunk.Primary[slot] = sector;
        Volatile.Write(ref chunk.Tables[slot], new uint[EntriesPerTable]);
        _dirty.Add(index);
        _dirtyDirectory.Add(index);
    }

    /// <summary>Reads a table from its place (not the cache), for checking.</summary>
    public bool TryReadTable(uint sector, Span<uint> entries)
    {
        long offset = sector * 512L;
        if (sector == 0 || offset > _file.Length - entries.Length * 4L)
            return false;
        _file.Read(offset, MemoryMarshal.AsBytes(entries));
        return true;
    }

    /// <summary>Writes one copy of a table to its place, for repair.</summary>
    public void WriteTable(uint sector, ReadOnlySpan<uint> entries) => _file.Write(sector * 512L, MemoryMarshal.AsBytes(entries));

    /// <summary>Writes one entry of one directory to its place, for repair.</summary>
    public void WriteDirectoryEntry(bool redundant, int index, uint sector)
    {
        Span<byte> b = stackalloc byte[4];
        BitConverter.TryWriteBytes(b, sector);
        _file.Write((redundant ? Redundant : Directory) + index * 4L, b);
    }

    /// <summary>Forgets what is cached; nothing may be held back.</summary>
    public void Forget()
    {
        lock (SyncRoot)
        {
            Array.Clear(_chunks);
            _loaded.Clear();
        }
    }

    /// <summary>
    /// Brings all changes to stable storage in this order: data, then tables (the redundant copy first), then, for new tables, the
    /// directories. A crash anywhere leaves entries that point at data that is there; at worst space is lost.
    /// </summary>
    public void WriteBack()
    {
        lock (_writeBackLock)
            WriteBackLocked();
    }

    /// <summary><see cref="WriteBack"/>, when so much is held back that memory should be given back.</summary>
    public void WriteBackIfMuch()
    {
        if (!HoldsMuch)
            return;
        lock (_writeBackLock)
        {
            if (HoldsMuch)
                WriteBackLocked();
        }
    }

    private void WriteBackLocked()
    {
        List<(int Index, uint Sector, uint Redundant, uint[] Entries)> tables;
        List<(int Index, uint Sector, uint Redundant)> directory;
        lock (SyncRoot)
        {
            tables = new(_dirty.Count);
            foreach (int i in _dirty)
            {
                var chunk = ChunkOf(i);
                int slot = i % ChunkEntries;
                tables.Add((i, chunk.Primary[slot], chunk.Redundant?[slot] ?? 0, (uint[])chunk.Tables[slot]!.Clone()));
            }
            directory = new(_dirtyDirectory.Count);
            foreach (int i in _dirtyDirectory)
                directory.Add((i, GetDirectoryEntry(i), Redundant != 0 ? GetRedundantEntry(i) : 0));
            _writing.UnionWith(_dirty);
            _dirty.Clear();
            _dirtyDirectory.Clear();
        }
        try
        {
            BeforeTables?.Invoke();
            _file.Flush();
            if (tables.Count == 0)
                return;
            if (Redundant != 0)
                WriteTables(tables, redundant: true);
            WriteTables(tables, redundant: false);
            if (directory.Count > 0)
            {
                _file.Flush();
                foreach (var (index, sector, copy) in directory)
                {
                    if (Redundant != 0)
                        WriteDirectoryEntry(true, index, copy);
                    WriteDirectoryEntry(false, index, sector);
                }
            }
            _file.Flush();
        }
        catch
        {
            lock (SyncRoot)
            {
                foreach (var t in tables)
                    _dirty.Add(t.Index);
                foreach (var d in directory)
                    _dirtyDirectory.Add(d.Index);
            }
            throw;
        }
        finally
        {
            lock (SyncRoot)
                _writing.Clear();
        }
    }

    /// <summary>Neighbours in the file go in one write.</summary>
    private void WriteTables(List<(int Index, uint Sector, uint Redundant, uint[] Entries)> tables, bool redundant)
    {
        int size = EntriesPerTable * 4;
        int most = size == TableBytes ? Math.Max(1, (256 << 10) / size) : 1;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(most * size);
        try
        {
            for (int i = 0; i < tables.Count;)
            {
                long sector = redundant ? tables[i].Redundant : tables[i].Sector;
                int n = 0;
                do
                {
                    MemoryMarshal.AsBytes(tables[i + n].Entries.AsSpan()).CopyTo(buffer.AsSpan(n * size));
                    n++;
                }
                while (n < most && i + n < tables.Count
                    && (redundant ? tables[i + n].Redundant : tables[i + n].Sector) == sector + (long)n * TableBytes / 512);
                _file.DebugEvent(BlockDebugEvent.L2Update);
                if (sector != 0)
                    _file.Write(sector * 512, buffer.AsSpan(0, n * size));
                i += n;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void CheckInFile(long offset)
    {
        if (offset < 0 || offset > _file.Length - Count * 4L)
            throw new ImageException(ImageErrorKind.Corrupt,
                $"Could not read l1 table from extent '{_file.FileName}': {Count} entries at offset {offset} do not fit into {_file.Length} bytes",
                _file.FileName, offset);
    }

    private Chunk ChunkOf(int index)
    {
        ref var place = ref _chunks[index / ChunkEntries];
        return Volatile.Read(ref place) ?? LoadChunk(index / ChunkEntries);
    }

    private Chunk LoadChunk(int number)
    {
        lock (SyncRoot)
        {
            if (_chunks[number] is { } there)
                return there;
            int first = number * ChunkEntries;
            int n = Math.Min(ChunkEntries, Count - first);
            var primary = new uint[ChunkEntries];
            _file.Read(Directory + first * 4L, MemoryMarshal.AsBytes(primary.AsSpan(0, n)));
            uint[]? redundant = null;
            if (Redundant != 0)
            {
                redundant = new uint[ChunkEntries];
                _file.Read(Redundant + first * 4L, MemoryMarshal.AsBytes(redundant.AsSpan(0, n)));
            }
            bool empty = !primary.AsSpan().ContainsAnyExcept(0u) && (redundant is null || !redundant.AsSpan().ContainsAnyExcept(0u));
            var chunk = empty ? Chunk.Empty : new Chunk(primary, redundant);
            Volatile.Write(ref _chunks[number], chunk);
            return chunk;
        }
    }

    /// <summary>A chunk that may be changed.</summary>
    private Chunk OwnChunk(int index)
    {
        var chunk = ChunkOf(index);
        if (ReferenceEquals(chunk, Chunk.Empty))
        {
            chunk = new Chunk(new uint[ChunkEntries], Redundant != 0 ? new uint[ChunkEntries] : null);
            Volatile.Write(ref _chunks[index / ChunkEntries], chunk);
        }
        return chunk;
    }

    private uint[]? Load(int index)
    {
        var chunk = ChunkOf(index);
        int slot = index % ChunkEntries;
        if (chunk.Tables[slot] is { } there)
            return there;
        uint sector = chunk.Primary[slot];
        if (sector == 0)
            return null;
        var entries = new uint[EntriesPerTable];
        _file.DebugEvent(BlockDebugEvent.L2Load);
        if (!TryReadTable(sector, entries))
            throw new ImageException(ImageErrorKind.Corrupt,
                $"grain table {index} at sector {sector} lies behind the end of '{_file.FileName}' ({_file.Length} bytes)",
                _file.FileName, Directory + index * 4L);
        MakeRoom();
        Volatile.Write(ref chunk.Tables[slot], entries);
        _loaded.Enqueue(index);
        return entries;
    }

    private void MakeRoom()
    {
        for (int tries = _loaded.Count; tries > 0 && (_loaded.Count + 1L) * TableBytes > MaxCachedBytes; tries--)
        {
            int oldest = _loaded.Dequeue();
            if (_dirty.Contains(oldest) || _writing.Contains(oldest))
                _loaded.Enqueue(oldest);
            else
                Volatile.Write(ref ChunkOf(oldest).Tables[oldest % ChunkEntries], null);
        }
    }

    /// <summary>1024 entries of the directories and the tables that they lead to, where loaded.</summary>
    private sealed class Chunk(uint[] primary, uint[]? redundant)
    {
        /// <summary>All zero; stands for every such piece, however large a hostile directory is.</summary>
        public static readonly Chunk Empty = new(new uint[ChunkEntries], new uint[ChunkEntries]);

        public uint[] Primary { get; } = primary;

        public uint[]? Redundant { get; } = redundant;

        public uint[]?[] Tables { get; } = new uint[ChunkEntries][];
    }
}
