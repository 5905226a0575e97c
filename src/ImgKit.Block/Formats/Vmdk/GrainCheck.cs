using System.Buffers.Binary;
using System.Collections;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// Checks the tables of a sparse extent: the two directories against each other, every entry against the file's size, the metadata
/// and all other entries. Where one copy is damaged the other repairs it.
/// </summary>
internal sealed class GrainCheck(BlockDevice file, GrainTables tables, long grains, int grainSectors, bool zeroedGrains, long firstDataSector)
{
    /// <summary>Memory for finding grains that share a place; beyond it that is not looked for.</summary>
    private const long MaxBits = 256L << 20;

    /// <summary>A check that has found as many errors stops: one more would help nobody.</summary>
    private const long MaxErrors = 100_000;

    private readonly uint[] _primary = new uint[tables.EntriesPerTable];
    private readonly uint[] _redundant = new uint[tables.EntriesPerTable];
    private BitArray? _used;
    private CheckResult _result = null!;
    private Action<string> _report = null!;
    private bool _repair;
    private uint _lastTable;
    private long _length;      // of the file before any repair

    /// <summary>Stored grains start with a marker that names their first sector.</summary>
    public bool Markers { get; init; }

    /// <summary>The extent's first sector in the disk, for messages and markers.</summary>
    public long FirstSector { get; init; }

    public void Run(CheckRepair repair, Action<string> report, CheckResult result)
    {
        _repair = repair == CheckRepair.All;
        _report = report;
        _result = result;
        _length = file.Length;
        long unit = Markers ? 512 : grainSectors * 512L;
        long slots = _length / unit + 1;
        _used = slots <= MaxBits ? new BitArray((int)slots) : null;
        for (int i = 0; i < tables.Count && _result.Corruptions < MaxErrors; i++)
        {
            int empty = tables.Redundant == 0 ? tables.EmptyRun(i) : 0;
            if (empty > 0)
                i += empty - 1;
            else
                CheckTable(i);
        }
        if (_repair && _result.CorruptionsFixed > 0)
        {
            file.Flush();
            tables.Forget();
        }
    }

    private void Corrupt(string message, bool repaired)
    {
        _report((repaired ? "Repairing: " : "ERROR: ") + message);
        _result.Corruptions++;
        if (repaired)
        {
            _result.Corruptions--;
            _result.CorruptionsFixed++;
        }
    }

    private void CheckTable(int index)
    {
        uint p = tables.GetDirectoryEntry(index);
        uint r = tables.Redundant != 0 ? tables.GetRedundantEntry(index) : 0;
        if (p == 0 && r == 0)
            return;
        if (p != 0 && p == _lastTable)
        {
            Corrupt($"grain tables {index - 1} and {index} share sector {p}", false);
            return;
        }
        _lastTable = p;
        bool haveP = tables.TryReadTable(p, _primary);
        bool haveR = tables.Redundant != 0 && tables.TryReadTable(r, _redundant);
        if (!haveP && !haveR)
        {
            Corrupt($"could not get cluster_offset for sector {FirstSector + SectorOf(index, 0)}: grain table {index} points after EOF", false);
            return;
        }
        if (tables.Redundant == 0)
        {
            if (CheckEntries(index, _primary) && _repair)
                tables.WriteTable(p, _primary);
            return;
        }
        if (!haveP || !haveR)
        {
            Corrupt($"grain table {index} can be read through only one of the two grain directories", _repair);
            var good = haveP ? _primary : _redundant;
            CheckEntries(index, good);
            if (_repair)
                Restore(index, redundant: haveP, good);
            if (_repair)
                tables.WriteTable(haveP ? p : r, good);
            return;
        }
        int differences = 0;
        for (int i = 0; i < _primary.Length; i++)
        {
            if (_primary[i] == _redundant[i])
                continue;
            differences++;
            _primary[i] = Better(index, i);
        }
        if (differences > 0)
            Corrupt($"grain table {index} differs between the two grain directories in {differences} entries", _repair);
        bool changed = CheckEntries(index, _primary);
        if (_repair && (changed || differences > 0))
        {
            tables.WriteTable(r, _primary);
            tables.WriteTable(p, _primary);
        }
    }

    private long SectorOf(int index, int entry) => ((long)index * tables.EntriesPerTable + entry) * grainSectors;

    /// <summary>Of two entries the one that leads somewhere; of two such that which readers follow.</summary>
    private uint Better(int index, int i)
    {
        uint p = _primary[i], r = _redundant[i];
        if (IsPlausible(index, i, p))
            return p;
        return IsPlausible(index, i, r) ? r : IsStored(p) ? IsStored(r) ? p : r : p;
    }

    private bool IsStored(uint entry) => entry > 1 || (entry == 1 && !zeroedGrains);

    private bool IsPlausible(int index, int i, uint entry) =>
        IsStored(entry) && entry >= firstDataSector && entry * 512L < _length && (!Markers || MarkerIsRight(index, i, entry));

    private bool MarkerIsRight(int index, int i, uint entry)
    {
        Span<byte> header = stackalloc byte[StreamMarker.GrainHeaderSize];
        if (entry * 512L + header.Length > _length)
            return false;
        file.Read(entry * 512L, header);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]);
        return length > 0 && entry * 512L + header.Length + length <= _length
            && BinaryPrimitives.ReadUInt64LittleEndian(header) == (ulong)(FirstSector + SectorOf(index, i));
    }

    /// <summary>Checks each entry; in repair, bad ones are cleared in memory.</summary>
    /// <returns>whether anything was cleared.</returns>
    private bool CheckEntries(int index, uint[] table)
    {
        bool cleared = false;
        for (int i = 0; i < table.Length; i++)
        {
            uint e = table[i];
            if (!IsStored(e) || (long)index * table.Length + i >= grains)
                continue;
            long sector = FirstSector + SectorOf(index, i);
            string? wrong = null;
            if (e * 512L >= _length)
                wrong = $"cluster offset for sector {sector} points after EOF";
            else if (e < firstDataSector)
                wrong = $"cluster offset for sector {sector} points into the metadata";
            else if (Markers && !MarkerIsRight(index, i, e))
                wrong = $"the grain for sector {sector} at offset {e * 512L} has a marker that does not fit";
            else if (IsUsed(e))
                wrong = $"the grain for sector {sector} shares offset {e * 512L} with another one";
            if (wrong is null)
                continue;
            Corrupt(wrong, _repair);
            if (_repair)
            {
                table[i] = 0;
                cleared = true;
            }
        }
        return cleared;
    }

    private bool IsUsed(uint entry)
    {
        if (_used is null)
            return false;
        int slot = Markers ? (int)entry : (int)(entry / grainSectors);
        bool used = _used[slot];
        _used[slot] = true;
        return used;
    }

    /// <summary>Writes a table anew behind the end of the file, then leads the directory that lost it there.</summary>
    private void Restore(int index, bool redundant, uint[] table)
    {
        long sector = ((file.Length + 511) / 512 + grainSectors - 1) / grainSectors * grainSectors;
        if (sector > uint.MaxValue)
            throw new ImageException(ImageErrorKind.Unsupported, $"'{file.FileName}' is too large to be repaired", file.FileName);
        file.WriteZeroes(sector * 512, Math.Max(grainSectors * 512L, tables.TableBytes));
        tables.WriteTable((uint)sector, table);
        file.Flush();
        tables.WriteDirectoryEntry(redundant, index, (uint)sector);
    }
}
