using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using ImgKit.Host.Compression;

namespace ImgKit.Block.Formats.Qcow;

/// <summary>
/// A version 1 qcow image, to be read. Layout (QEMU docs and block/qcow): a 48-byte header (magic, version, backing name place and length,
/// mtime, size, cluster_bits u8, l2_bits u8, pad, crypt_method, l1_table_offset), an L1 table of L2 table offsets, L2 tables of cluster
/// offsets; bit 63 of an L2 entry marks raw deflate data, whose length stands above the offset. All big-endian.
/// </summary>
internal sealed class QcowImage : BlockDevice, IImageDetails, IBackedImage
{
    private const int HeaderLength = 48;
    private const ulong CompressedFlag = 1UL << 63;
    private const long MaxL1Bytes = 32 << 20;
    private const int CachedTables = 64;
    private readonly BlockDevice _file;
    private readonly long _length;
    private readonly int _clusterBits;
    private readonly int _l2Bits;
    private readonly ulong[] _l1;
    private readonly ulong[]?[] _tables;
    private readonly Queue<long> _loaded = new();
    private readonly Lock _lock = new();
    private BlockDevice? _backing;

    private QcowImage(BlockDevice file, long length, int clusterBits, int l2Bits, ulong[] l1, string? backing, uint cryptMethod)
    {
        _file = file;
        _length = length;
        _clusterBits = clusterBits;
        _l2Bits = l2Bits;
        _l1 = l1;
        _tables = new ulong[]?[l1.Length];
        BackingFileName = backing;
        IsEncrypted = cryptMethod != 0;
    }

    public override string DriverName => "qcow";

    public override long Length => _length;

    public override bool IsReadOnly => true;

    public override BlockLimits Limits => new(1, 2 << 20, 1 << _clusterBits, 1 << _clusterBits);

    public override BlockDevice? Backing => _backing;

    public override BlockDevice Storage => _file;

    public int ClusterSize => 1 << _clusterBits;

    public bool IsDirty => false;

    public bool IsCompressed => false;

    public bool IsEncrypted { get; }

    public InfoObject? FormatSpecific => null;

    public string? BackingFileName { get; }

    public string? BackingFormat => null;

    public static QcowImage Open(OpenContext context)
    {
        var file = context.File;
        string name = context.FileName;
        string? reference = context.Options.TakeString("backing");
        var child = context.Options.TakeChild("backing");
        if (!context.Settings.ReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "Images of format qcow (version 1) are opened for reading only", name) { Errno = 30 };
        byte[] head = new byte[HeaderLength];
        ReadUpToEnd(file, 0, head);
        if (BinaryPrimitives.ReadUInt32BigEndian(head) != 0x514649FB)
            throw Bad("Image not in qcow format", name, 0);
        uint version = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(4));
        if (version != 1)
            throw new ImageException(ImageErrorKind.Unsupported, $"qcow (v{version}) does not support qcow version {version}", name, 4) { Errno = 95 };
        ulong backingAt = BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(8));
        uint backingLength = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(16));
        ulong size = BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(24));
        int clusterBits = head[32], l2Bits = head[33];
        uint crypt = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(36));
        ulong l1At = BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(40));
        if (size <= 1)
            throw Bad("Image size is too small (must be at least 2 bytes)", name, 24);
        if (clusterBits is < 9 or > 16)
            throw Bad("Cluster size must be between 512 and 64k", name, 32);
        if (l2Bits is < 6 or > 13)
            throw Bad("L2 table size must be between 512 and 64k", name, 33);
        if (crypt > 1)
            throw Bad("invalid encryption method in qcow header", name, 36);
        if (crypt != 0 && !context.Settings.NoIo)
            throw new ImageException(ImageErrorKind.Unsupported, "Encrypted qcow images are not supported", name, 36) { Errno = 95 };
        int shift = clusterBits + l2Bits;
        if (size > long.MaxValue - (1UL << shift))
            throw Bad("Image too large", name, 24);
        long entries = ((long)size + (1L << shift) - 1) >> shift;
        if (entries * 8 > MaxL1Bytes || l1At > long.MaxValue - (ulong)MaxL1Bytes)
            throw Bad("Image too large", name, 24);
        string? backing = null;
        if (backingAt != 0)
        {
            if (backingLength > 1023 || backingAt > long.MaxValue - 1023)
                throw Bad("Backing file name too long", name, 16);
            byte[] text = new byte[backingLength];
            ReadUpToEnd(file, (long)backingAt, text);
            backing = Encoding.UTF8.GetString(text);
        }
        var image = new QcowImage(file, (long)size, clusterBits, l2Bits, ReadTable(file, (long)l1At, (int)entries), backing, crypt);
        if (!context.Settings.NoBacking && reference is { Length: > 0 })
            image._backing = context.Opener.Nodes.Take(reference, "");
        else if (!context.Settings.NoBacking && reference is null && (backing is not null || !child.IsEmpty))
            image._backing = context.Opener.OpenReference(ReferenceKind.Backing, context, backing ?? "", null, context.Settings with { ForCheck = false }, child);
        return image;
    }

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        while (!destination.IsEmpty)
        {
            int inside = (int)(offset & (ClusterSize - 1));
            var part = destination[..Math.Min(destination.Length, ClusterSize - inside)];
            ulong entry = EntryFor(offset);
            if (entry == 0)
                ReadBelow(offset, part);
            else if ((entry & CompressedFlag) != 0)
                ReadCompressed(entry, inside, part);
            else
                ReadUpToEnd(_file, checked((long)entry + inside), part);
            offset += part.Length;
            destination = destination[part.Length..];
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "Block node is read-only", FileName) { Errno = 1 };

    public override void Flush()
    {
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        ulong entry = EntryFor(offset);
        long length = ClusterSize - (offset & (ClusterSize - 1));
        if (entry == 0)
        {
            while (length < count && EntryFor(offset + length) == 0)
                length += ClusterSize;
            return new BlockExtent(Math.Min(length, count), ExtentKind.None, 0);
        }
        length = Math.Min(length, count);
        return (entry & CompressedFlag) != 0
            ? new BlockExtent(length, ExtentKind.Data | ExtentKind.Allocated | ExtentKind.Compressed, 0)
            : new BlockExtent(length, ExtentKind.Data | ExtentKind.Allocated | ExtentKind.OffsetValid, (long)entry + (offset & (ClusterSize - 1)), _file);
    }

    public void ChangeBackingFile(string? name, string? format) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "Block node is read-only", FileName) { Errno = 1 };

    public BlockDevice? ReplaceBacking(BlockDevice? backing)
    {
        var old = _backing;
        _backing = backing;
        return old;
    }

    protected override void Dispose(bool disposing)
    {
        _backing?.Dispose();
        _file.Dispose();
    }

    private ulong EntryFor(long offset)
    {
        long i = offset >> (_clusterBits + _l2Bits);
        var table = Volatile.Read(ref _tables[i]) ?? LoadTable(i);
        return table is null ? 0 : table[(offset >> _clusterBits) & ((1 << _l2Bits) - 1)];
    }

    private ulong[]? LoadTable(long i)
    {
        if (_l1[i] == 0)
            return null;
        lock (_lock)
        {
            if (_tables[i] is { } present)
                return present;
            if (_l1[i] > long.MaxValue - (1UL << 20))
                throw Bad($"L2 table offset 0x{_l1[i]:x} is outside the file", FileName);
            var table = ReadTable(_file, (long)_l1[i], 1 << _l2Bits);
            _loaded.Enqueue(i);
            if (_loaded.Count > CachedTables)
                Volatile.Write(ref _tables[_loaded.Dequeue()], null);
            Volatile.Write(ref _tables[i], table);
            return table;
        }
    }

    private void ReadBelow(long offset, Span<byte> destination)
    {
        int n = 0;
        if (_backing is { } backing)
        {
            n = (int)Math.Clamp(backing.Length - offset, 0, destination.Length);
            if (n > 0)
                backing.Read(offset, destination[..n]);
        }
        destination[n..].Clear();
    }

    private void ReadCompressed(ulong entry, int inside, Span<byte> destination)
    {
        int shift = 63 - _clusterBits;
        int length = (int)((entry & ~CompressedFlag) >> shift) & (ClusterSize - 1);
        long at = (long)(entry & ((1UL << shift) - 1));
        byte[] packed = ArrayPool<byte>.Shared.Rent(Math.Max(length, 1));
        byte[] cluster = ArrayPool<byte>.Shared.Rent(ClusterSize);
        try
        {
            ReadUpToEnd(_file, at, packed.AsSpan(0, length));
            if (!Deflate.TryDecompress(DeflateContainer.Raw, packed.AsSpan(0, length), cluster.AsSpan(0, ClusterSize), out int n) || n != ClusterSize)
                throw new ImageException(ImageErrorKind.Corrupt, "Input/output error", FileName, at)
                {
                    Errno = 5,
                    Operation = $"the compressed cluster at offset {at} is damaged",
                };
            cluster.AsSpan(inside, destination.Length).CopyTo(destination);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
            ArrayPool<byte>.Shared.Return(cluster);
        }
    }

    private static ulong[] ReadTable(BlockDevice file, long offset, int entries)
    {
        byte[] bytes = new byte[entries * 8];
        ReadUpToEnd(file, offset, bytes);
        var table = new ulong[entries];
        for (int i = 0; i < entries; i++)
            table[i] = BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(i * 8));
        return table;
    }

    /// <summary>Reads; what lies behind the file's end is zero.</summary>
    private static void ReadUpToEnd(BlockDevice file, long offset, Span<byte> destination)
    {
        int n = offset < 0 ? 0 : (int)Math.Clamp(file.Length - offset, 0, destination.Length);
        destination[n..].Clear();
        if (n > 0)
            file.Read(offset, destination[..n]);
    }

    private static ImageException Bad(string message, string name, long offset = -1) =>
        new(ImageErrorKind.InvalidFormat, message, name, offset) { Errno = 22 };
}
