using System.Buffers.Binary;
using System.Text;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>How bitmaps lie in the image: directory, tables, clusters of bits.</summary>
internal sealed partial class Qcow2Image
{
    private readonly List<Qcow2Bitmap> _removedBitmaps = [];
    private const long MaxBitmapBytes = 0x20000000;

    private void LoadBitmaps()
    {
        _bitmaps = [];
        if (Header.Bitmaps is not { } e)
            return;
        if (e.DirectorySize == 0)
            throw Corrupt("Requested bitmap directory size is zero");
        byte[] directory = new byte[e.DirectorySize];
        if ((long)e.DirectoryOffset > _file.Length - (long)e.DirectorySize || e.DirectoryOffset > long.MaxValue)
            throw Corrupt("Failed to read bitmap directory: Invalid argument");
        ReadHost(_file, (long)e.DirectoryOffset, directory);
        int at = 0;
        while (at < directory.Length)
        {
            if (_bitmaps.Count == e.Count)
                throw Corrupt("More bitmaps found than specified in header extension");
            _bitmaps.Add(ReadBitmapEntry(directory, ref at));
        }
        if (_bitmaps.Count != e.Count)
            throw Corrupt("Less bitmaps found than specified in header extension");
    }

    private Qcow2Bitmap ReadBitmapEntry(byte[] directory, ref int at)
    {
        var b = directory.AsSpan(at);
        if (b.Length < 24)
            throw Corrupt("Broken bitmap directory");
        int nameLength = BinaryPrimitives.ReadUInt16BigEndian(b[18..]);
        uint extra = BinaryPrimitives.ReadUInt32BigEndian(b[20..]);
        if (extra > b.Length || AlignUp(24L + extra + nameLength, 8) > b.Length)
            throw Corrupt("Broken bitmap directory");
        if (extra != 0)
            throw Corrupt("Bitmap extra data is not supported");
        string name = Encoding.UTF8.GetString(b.Slice(24, nameLength));
        uint flags = BinaryPrimitives.ReadUInt32BigEndian(b[12..]);
        int granularity = b[17];
        var bitmap = new Qcow2Bitmap(name, granularity)
        {
            TableOffset = (long)BinaryPrimitives.ReadUInt64BigEndian(b),
            TableEntries = BinaryPrimitives.ReadUInt32BigEndian(b[8..]),
            Flags = flags & ~Qcow2Bitmap.FlagInUse,
            IsInconsistent = (flags & Qcow2Bitmap.FlagInUse) != 0,
        };
        // The virtual size as of the last clean close; a bitmap in use may be for another.
        bool bad = bitmap.TableEntries == 0 || bitmap.TableOffset == 0 || (bitmap.TableOffset & _clusterMask) != 0 || bitmap.TableOffset < 0
            || bitmap.TableEntries > 0x8000000 || granularity is < MinBitmapGranularityBits or > MaxBitmapGranularityBits
            || (flags & ~(Qcow2Bitmap.FlagInUse | Qcow2Bitmap.FlagAuto | Qcow2Bitmap.FlagExtraDataCompatible)) != 0 || b[16] != 1
            || nameLength > MaxBitmapName || ((long)bitmap.TableEntries << _clusterBits) > MaxBitmapBytes;
        bad |= !bad && !bitmap.IsInconsistent && BitmapTableEntries(granularity) != bitmap.TableEntries;
        if (bad)
            throw Corrupt($"Bitmap '{name}' doesn't satisfy the constraints");
        at += (int)AlignUp(24 + nameLength, 8);
        return bitmap;
    }

    private uint BitmapTableEntries(int granularityBits) =>
        (uint)Math.Max(DivUp(Qcow2Bitmap.StoredBytes(_length, granularityBits), _clusterSize), 0);

    private ulong[] ReadBitmapTable(Qcow2Bitmap bitmap) => ReadTable(bitmap.TableOffset, bitmap.TableEntries);

    private void LoadBits(Qcow2Bitmap bitmap)
    {
        if (bitmap.IsLoaded)
            return;
        // Shown to others, and taken for loaded, only when all of it is there.
        var loaded = new Qcow2Bitmap(bitmap.Name, bitmap.GranularityBits);
        loaded.NewBits(_length);
        if (bitmap.TableOffset != 0)
            ReadBits(bitmap, loaded.StoredView(_length));
        // Bits behind the disk's end mean nothing.
        loaded.Resize(_length);
        bitmap.SetBits(loaded.Bits);
    }

    private void ReadBits(Qcow2Bitmap bitmap, Span<byte> bytes)
    {
        var table = ReadBitmapTable(bitmap);
        for (int i = 0; i < table.Length && (long)i << _clusterBits < bytes.Length; i++)
        {
            ulong entry = table[i];
            var part = bytes.Slice(i << _clusterBits, Math.Min(_clusterSize, bytes.Length - (i << _clusterBits)));
            if ((entry & 0xFF000000000001FE) != 0 || ((entry & OffsetMask) != 0 && ((entry & 1) != 0 || ((long)(entry & OffsetMask) & _clusterMask) != 0)))
                throw Corrupt($"Could not read bitmap '{bitmap.Name}' from image: Invalid argument", bitmap.TableOffset);
            if ((entry & OffsetMask) != 0)
                ReadHost(_file, (long)(entry & OffsetMask), part);
            else if ((entry & 1) != 0)
                part.Fill(0xFF);
        }
    }

    /// <summary>Only the flags of directory entries change: in place.</summary>
    private void RewriteBitmapFlags()
    {
        var e = Header.Bitmaps!.Value;
        byte[] directory = new byte[e.DirectorySize];
        ReadHost(_file, (long)e.DirectoryOffset, directory);
        for (int at = 0; at < directory.Length;)
        {
            int start = at;
            var stored = ReadBitmapEntry(directory, ref at);
            if (_bitmaps.Find(b => b.Name == stored.Name && b.TableOffset == stored.TableOffset) is { IsInconsistent: false } b)
                BinaryPrimitives.WriteUInt32BigEndian(directory.AsSpan(start + 12), stored.Flags | (b.IsMarked ? Qcow2Bitmap.FlagInUse : 0));
        }
        CheckOverlap((long)e.DirectoryOffset, directory.Length, MetadataKind.BitmapDirectory);
        _file.Write((long)e.DirectoryOffset, directory);
        _file.Flush();
    }

    /// <summary>Stores what changed in bitmaps: new tables and directory, then the header that names them, then the old ones go.
    /// Alone, under the metadata lock.</summary>
    private void StoreBitmaps()
    {
        if (!_bitmapListChanged && !_bitmaps.Exists(b => b.IsModified))
        {
            MarkBitmaps(false);
            return;
        }
        var old = new List<(long Offset, long Bytes)>();
        var oldClusters = new List<long>();
        foreach (var b in _removedBitmaps)
            CollectBitmapSpace(b, old, oldClusters);
        foreach (var b in _bitmaps)
        {
            b.IsMarked = false;
            if (b.IsInconsistent)
                continue;
            // All of them anew, as the peer does: equal steps give files of equal size.
            LoadBits(b);
            CollectBitmapSpace(b, old, oldClusters);
            StoreBits(b);
        }
        if (Header.Bitmaps is { } present)
            old.Add(((long)present.DirectoryOffset, (long)present.DirectorySize));
        BitmapExtension? extension = null;
        if (_bitmaps.Count > 0)
        {
            using var directory = new MemoryStream();
            foreach (var b in _bitmaps)
                directory.Write(b.ToEntry());
            long offset = AllocateTable(directory.Length);
            _file.Write(offset, directory.ToArray());
            extension = new BitmapExtension((uint)_bitmaps.Count, (ulong)directory.Length, (ulong)offset);
        }
        _refcounts.Write();
        _file.Flush();
        Header.Bitmaps = extension;
        Header.Autoclear = extension is null ? Header.Autoclear & ~AutoclearBitmaps : Header.Autoclear | AutoclearBitmaps;
        WriteHeader();
        if (old.Count > 0 || oldClusters.Count > 0)
            _file.Flush();
        foreach (long c in oldClusters)
            _refcounts.Decrement(c, 1, FreeReason.Other);
        foreach (var (offset, bytes) in old)
            _refcounts.Decrement(offset >> _clusterBits, DivUp(bytes, _clusterSize), FreeReason.Other);
        _refcounts.Write();
        _removedBitmaps.Clear();
        foreach (var b in _bitmaps)
            b.IsModified = false;
        _bitmapListChanged = false;
        Volatile.Write(ref _recording, null);
    }

    private void CollectBitmapSpace(Qcow2Bitmap b, List<(long, long)> tables, List<long> clusters)
    {
        if (b.TableOffset == 0)
            return;
        foreach (ulong entry in ReadBitmapTable(b))
            if ((entry & OffsetMask) != 0)
                clusters.Add((long)(entry & OffsetMask) >> _clusterBits);
        tables.Add((b.TableOffset, b.TableEntries * 8L));
    }

    private void StoreBits(Qcow2Bitmap b)
    {
        var bytes = b.StoredView(_length);
        var table = new ulong[BitmapTableEntries(b.GranularityBits)];
        for (int i = 0; i < table.Length; i++)
        {
            var part = bytes.Slice(i << _clusterBits, Math.Min(_clusterSize, bytes.Length - (i << _clusterBits)));
            if (ZeroBuffer.IsZero(part))
                continue;
            if (part.Length == _clusterSize && !part.ContainsAnyExcept((byte)0xFF))
            {
                table[i] = 1;
                continue;
            }
            long offset = _refcounts.Allocate(1);
            CheckOverlap(offset, _clusterSize);
            EnsureFileLength(offset + _clusterSize);
            byte[] cluster = new byte[_clusterSize];
            part.CopyTo(cluster);
            _file.Write(offset, cluster);
            table[i] = (ulong)offset;
        }
        b.TableEntries = (uint)table.Length;
        b.TableOffset = AllocateTable(table.Length * 8L);
        WriteTable(b.TableOffset, table);
    }
}
