using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>What changes or checks a sparse extent as a whole. No other request may run meanwhile.</summary>
internal sealed partial class SparseExtent
{
    /// <summary>
    /// Makes the extent longer. When the directory has no room for the new tables both copies move behind the last grain; the header
    /// that leads to them is written last.
    /// </summary>
    public override void Grow(long length, Preallocation preallocation)
    {
        if (_layout.FreeSectorField != 0)
            throw new ImageException(ImageErrorKind.Unsupported, "a COWD extent cannot be made longer", _file.FileName);
        if (preallocation != Preallocation.Off)
            throw new ImageException(ImageErrorKind.Unsupported, "Unsupported preallocation mode for sparse vmdk extents", _file.FileName);
        Flush();
        byte[] sector = new byte[SparseHeader.Size];
        _file.Read(0, sector);
        var header = SparseHeader.Parse(sector);
        long sectors = length / 512;
        long perTable = (long)_tables.EntriesPerTable * _layout.GrainSectors;
        long entries = (sectors + perTable - 1) / perTable;
        if (entries > GrainTables.MaxDirectoryEntries)
            throw new ImageException(ImageErrorKind.Unsupported, "L1 size too big", _file.FileName) { Errno = 27 };
        GrainTables? tables = null;
        if (entries > _tables.Count)
        {
            long directorySectors = (entries * 4 + 511) / 512;
            long tableSectors = _tables.TableBytes / 512;
            long copySectors = directorySectors + (entries - _tables.Count) * tableSectors;
            int copies = _tables.Redundant != 0 ? 2 : 1;
            long place = _nextSector;
            long end = place + copySectors * copies;
            end = (end + _layout.GrainSectors - 1) / _layout.GrainSectors * _layout.GrainSectors;
            if (end > MaxSectors)
                throw new ImageException(ImageErrorKind.Unsupported, $"'{_file.FileName}' is full: a sparse extent cannot be larger than 2 TiB", _file.FileName)
                {
                    Errno = 27,
                };
            _file.WriteZeroes(place * 512, (end - place) * 512);
            if (copies == 2)
                WriteDirectory(place, (int)entries, redundant: true);
            WriteDirectory(place + copySectors * (copies - 1), (int)entries, redundant: false);
            if (copies == 2)
                header.RedundantGrainDirectory = (ulong)place;
            header.GrainDirectory = (ulong)(place + copySectors * (copies - 1));
            _nextSector = end;
            tables = new GrainTables(_file, (long)header.GrainDirectory * 512, copies == 2 ? place * 512 : 0, (int)entries, _tables.EntriesPerTable);
        }
        header.Capacity = (ulong)sectors;
        header.WriteTo(sector);
        _file.Flush();
        // From here on the file may have the new header, also when an error says otherwise: memory has it, too, and tables come to the file behind it.
        _sectors = sectors;
        _tables = tables ?? _tables;
        _headerToWrite = sector;
        _tables.BeforeTables = StoreHeader;
        StoreHeader();
        _file.Flush();
    }

    private void StoreHeader()
    {
        if (_headerToWrite is not { } sector)
            return;
        _file.Write(0, sector);
        _headerToWrite = null;
    }

    /// <summary>Writes a directory with the tables there are and, right behind it, those that are new.</summary>
    private void WriteDirectory(long sector, int entries, bool redundant)
    {
        var directory = new uint[entries];
        long table = sector + (entries * 4L + 511) / 512;
        for (int i = 0; i < entries; i++)
        {
            if (i < _tables.Count)
            {
                directory[i] = redundant ? _tables.GetRedundantEntry(i) : _tables.GetDirectoryEntry(i);
                continue;
            }
            directory[i] = (uint)table;
            table += _tables.TableBytes / 512;
        }
        _file.Write(sector * 512, MemoryMarshal.AsBytes(directory.AsSpan()));
    }

    /// <summary>Clears every entry, then gives back the file's end.</summary>
    public override void MakeEmpty()
    {
        Flush();
        long end = _layout.FirstDataSector;
        for (int i = 0; i < _tables.Count; i++)
        {
            int empty = _tables.EmptyRun(i);
            if (empty > 0)
            {
                i += empty - 1;
                continue;
            }
            end = Math.Max(end, _tables.GetDirectoryEntry(i) + (long)_tables.TableBytes / 512);
            if (_tables.Redundant != 0)
                end = Math.Max(end, _tables.GetRedundantEntry(i) + (long)_tables.TableBytes / 512);
            long first = (long)i * _tables.EntriesPerTable;
            var table = _tables.GetTable(i)!;
            if (!table.AsSpan().ContainsAnyExcept(0u))
                continue;
            lock (Sync)
            {
                for (int e = 0; e < _tables.EntriesPerTable; e++)
                    _tables.Set(first + e, 0);
            }
            _tables.WriteBackIfMuch();
        }
        _tables.WriteBack();
        end = Math.Max(end, (_tables.Directory + _tables.Count * 4L + 511) / 512);
        end = (end + _layout.GrainSectors - 1) / _layout.GrainSectors * _layout.GrainSectors;
        if (end < _nextSector)
        {
            _file.Resize(end * 512);
            _nextSector = end;
        }
    }

    public override void Check(CheckRepair repair, Action<string> report, CheckResult result)
    {
        Flush();
        new GrainCheck(_file, _tables, (_sectors + _layout.GrainSectors - 1) / _layout.GrainSectors, _layout.GrainSectors, _layout.ZeroedGrains,
            _layout.FirstDataSector)
        {
            FirstSector = Start / 512,
        }.Run(repair, report, result);
        long end = ((_file.Length + 511) / 512 + _layout.GrainSectors - 1) / _layout.GrainSectors * _layout.GrainSectors;
        _nextSector = Math.Max(_nextSector, end);
    }
}
