using System.Buffers.Binary;
using System.Text;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>A header extension that nothing here knows; kept as it is.</summary>
internal sealed record UnknownExtension(uint Magic, byte[] Data);

/// <summary>Where the bitmap directory lies (header extension 0x23852875).</summary>
internal readonly record struct BitmapExtension(uint Count, ulong DirectorySize, ulong DirectoryOffset);

/// <summary>The image header and its extensions: everything in cluster 0.</summary>
internal sealed class Qcow2Header
{
    private static readonly (byte Type, byte Bit, string Name)[] FeatureNames =
    [
        (0, 0, "dirty bit"),
        (0, 1, "corrupt bit"),
        (0, 2, "external data file"),
        (0, 3, "compression type"),
        (0, 4, "extended L2 entries"),
        (1, 0, "lazy refcounts"),
        (2, 0, "bitmaps"),
        (2, 1, "raw external data"),
    ];

    public uint Version { get; set; } = 3;

    public int ClusterBits { get; set; }

    public ulong Size { get; set; }

    public uint CryptMethod { get; set; }

    public uint L1Size { get; set; }

    public ulong L1TableOffset { get; set; }

    public ulong RefcountTableOffset { get; set; }

    public uint RefcountTableClusters { get; set; }

    public uint SnapshotCount { get; set; }

    public ulong SnapshotsOffset { get; set; }

    public ulong Incompatible { get; set; }

    public ulong Compatible { get; set; }

    public ulong Autoclear { get; set; }

    public int RefcountOrder { get; set; } = 4;

    public byte CompressionType { get; set; }

    public string? BackingFile { get; set; }

    public string? BackingFormat { get; set; }

    public string? DataFile { get; set; }

    public BitmapExtension? Bitmaps { get; set; }

    /// <summary>The extension of LUKS, as it is.</summary>
    public byte[]? Crypto { get; set; }

    public List<UnknownExtension> UnknownExtensions { get; } = [];

    /// <summary>Header bytes behind those that are known.</summary>
    public byte[] UnknownFields { get; set; } = [];

    /// <summary>Rows of the image's own feature name table.</summary>
    public byte[]? FeatureTable { get; set; }

    public int ClusterSize => 1 << ClusterBits;

    public bool HasFlag(ulong incompatible) => (Incompatible & incompatible) != 0;

    /// <summary>Reads the fixed part and the extensions. What they point to is checked by who reads that.</summary>
    public static Qcow2Header Read(BlockDevice file, string name, Action<string> warn)
    {
        if (file.Length < V2HeaderLength)
            throw Invalid("Image is not in qcow2 format", name);
        byte[] fixedPart = new byte[HeaderLength];
        file.Read(0, fixedPart.AsSpan(0, (int)Math.Min(HeaderLength, file.Length)));
        ReadOnlySpan<byte> b = fixedPart;
        if (BinaryPrimitives.ReadUInt32BigEndian(b) != Magic)
            throw Invalid("Image is not in qcow2 format", name);
        uint version = BinaryPrimitives.ReadUInt32BigEndian(b[4..]);
        if (version is < 2 or > 3)
            throw new ImageException(ImageErrorKind.Unsupported, $"Unsupported qcow2 version {version}", name, 4) { Errno = 95 };
        uint clusterBits = BinaryPrimitives.ReadUInt32BigEndian(b[20..]);
        if (clusterBits is < MinClusterBits or > MaxClusterBits)
            throw Invalid($"Unsupported cluster size: 2^{clusterBits}", name, 20);
        var h = new Qcow2Header
        {
            Version = version,
            ClusterBits = (int)clusterBits,
            Size = BinaryPrimitives.ReadUInt64BigEndian(b[24..]),
            CryptMethod = BinaryPrimitives.ReadUInt32BigEndian(b[32..]),
            L1Size = BinaryPrimitives.ReadUInt32BigEndian(b[36..]),
            L1TableOffset = BinaryPrimitives.ReadUInt64BigEndian(b[40..]),
            RefcountTableOffset = BinaryPrimitives.ReadUInt64BigEndian(b[48..]),
            RefcountTableClusters = BinaryPrimitives.ReadUInt32BigEndian(b[56..]),
            SnapshotCount = BinaryPrimitives.ReadUInt32BigEndian(b[60..]),
            SnapshotsOffset = BinaryPrimitives.ReadUInt64BigEndian(b[64..]),
        };
        ulong backingOffset = BinaryPrimitives.ReadUInt64BigEndian(b[8..]);
        uint backingLength = BinaryPrimitives.ReadUInt32BigEndian(b[16..]);
        uint headerLength = V2HeaderLength;
        uint refcountOrder = 4;
        if (version >= 3)
        {
            h.Incompatible = BinaryPrimitives.ReadUInt64BigEndian(b[72..]);
            h.Compatible = BinaryPrimitives.ReadUInt64BigEndian(b[80..]);
            h.Autoclear = BinaryPrimitives.ReadUInt64BigEndian(b[88..]);
            refcountOrder = BinaryPrimitives.ReadUInt32BigEndian(b[96..]);
            headerLength = BinaryPrimitives.ReadUInt32BigEndian(b[100..]);
            if (headerLength < V3MinHeaderLength)
                throw Invalid("qcow2 header too short", name, 100);
            if (headerLength > h.ClusterSize)
                throw Invalid("qcow2 header exceeds cluster size", name, 100);
            if (headerLength > 104)
                h.CompressionType = b[104];
            if (headerLength > HeaderLength)
            {
                h.UnknownFields = new byte[headerLength - HeaderLength];
                file.Read(HeaderLength, h.UnknownFields);
            }
        }
        if (backingOffset > (ulong)h.ClusterSize)
            throw Invalid("Invalid backing file offset", name, 8);
        long extensionsEnd = backingOffset != 0 ? (long)backingOffset : h.ClusterSize;
        h.ReadExtensions(file, headerLength, extensionsEnd, name, warn);
        if (refcountOrder > MaxRefcountOrder)
            throw Invalid("Reference count entry width too large; may not exceed 64 bits", name, 96);
        h.RefcountOrder = (int)refcountOrder;
        if (backingOffset != 0)
        {
            if (backingLength > Math.Min(MaxBackingName, h.ClusterSize - (int)backingOffset))
                throw Invalid("Backing file name too long", name, 16);
            byte[] text = new byte[backingLength];
            file.Read((long)backingOffset, text);
            h.BackingFile = TextOf(text);
        }
        return h;
    }

    private void ReadExtensions(BlockDevice file, long start, long end, string name, Action<string> warn)
    {
        Span<byte> head = stackalloc byte[8];
        for (long at = start; at < end;)
        {
            file.Read(at, head);
            uint magic = BinaryPrimitives.ReadUInt32BigEndian(head);
            uint length = BinaryPrimitives.ReadUInt32BigEndian(head[4..]);
            at += 8;
            if (at > end || length > end - at)
                throw Invalid("Header extension too large", name, at - 8);
            if (magic == ExtensionEnd)
                return;
            byte[] data = new byte[length];
            file.Read(at, data);
            AddExtension(magic, data, name, at, warn);
            at += AlignUp(length, 8);
        }
    }

    private void AddExtension(uint magic, byte[] data, string name, long at, Action<string> warn)
    {
        switch (magic)
        {
            case ExtensionBackingFormat:
                if (data.Length >= 16)
                    throw Invalid($"ERROR: ext_backing_format: len={data.Length} too large (>=16)", name, at);
                BackingFormat = TextOf(data);
                break;
            case ExtensionFeatureNames:
                FeatureTable = data;
                break;
            case ExtensionCrypto:
                Crypto = data;
                break;
            case ExtensionDataFile:
                DataFile = TextOf(data);
                break;
            case ExtensionBitmaps:
                AddBitmaps(data, name, at, warn);
                break;
            default:
                UnknownExtensions.Add(new UnknownExtension(magic, data));
                break;
        }
    }

    private void AddBitmaps(byte[] data, string name, long at, Action<string> warn)
    {
        if (data.Length != 24)
            throw Invalid("bitmaps_ext: Invalid extension length: Invalid argument", name, at);
        if ((Autoclear & AutoclearBitmaps) == 0)
        {
            warn("warning: " + (Version < 3
                ? "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent bitmap support; "
                    + "so now they must all be considered inconsistent"
                : "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent")
                + "\nSome clusters may be leaked, run 'qemu-img check -r' on the image file to fix.");
            HasStaleBitmaps = true;
            return;
        }
        var e = new BitmapExtension(BinaryPrimitives.ReadUInt32BigEndian(data), BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(8)),
            BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(16)));
        if (BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(4)) != 0)
            throw Invalid("bitmaps_ext: Reserved field is not zero: Invalid argument", name, at + 4);
        if (e.Count > MaxBitmaps)
            throw Invalid($"bitmaps_ext: Image has {e.Count} bitmaps, exceeding the QEMU supported maximum of {MaxBitmaps}", name, at);
        if (e.Count == 0)
            throw Invalid("found bitmaps extension with zero bitmaps", name, at);
        if ((e.DirectoryOffset & (ulong)(ClusterSize - 1)) != 0)
            throw Invalid("bitmaps_ext: invalid bitmap directory offset", name, at + 16);
        if (e.DirectorySize > (ulong)MaxBitmapDirectoryBytes)
            throw Invalid($"bitmaps_ext: bitmap directory size ({e.DirectorySize}) exceeds the maximum supported size ({MaxBitmapDirectoryBytes})",
                name, at + 8);
        Bitmaps = e;
    }

    /// <summary>The image has a bitmap extension that a writer without support made untrue; it goes with the next header update.</summary>
    public bool HasStaleBitmaps { get; private set; }

    /// <summary>The header as bytes: what cluster 0 holds from its start.</summary>
    /// <exception cref="ImageException">it does not fit into a cluster.</exception>
    public byte[] ToBytes()
    {
        byte[] cluster = new byte[ClusterSize];
        Span<byte> b = cluster;
        BinaryPrimitives.WriteUInt32BigEndian(b, Magic);
        BinaryPrimitives.WriteUInt32BigEndian(b[4..], Version);
        BinaryPrimitives.WriteUInt32BigEndian(b[20..], (uint)ClusterBits);
        BinaryPrimitives.WriteUInt64BigEndian(b[24..], Size);
        BinaryPrimitives.WriteUInt32BigEndian(b[32..], CryptMethod);
        BinaryPrimitives.WriteUInt32BigEndian(b[36..], L1Size);
        BinaryPrimitives.WriteUInt64BigEndian(b[40..], L1TableOffset);
        BinaryPrimitives.WriteUInt64BigEndian(b[48..], RefcountTableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(b[56..], RefcountTableClusters);
        BinaryPrimitives.WriteUInt32BigEndian(b[60..], SnapshotCount);
        BinaryPrimitives.WriteUInt64BigEndian(b[64..], SnapshotsOffset);
        int at = V2HeaderLength;
        if (Version >= 3)
        {
            BinaryPrimitives.WriteUInt64BigEndian(b[72..], Incompatible);
            BinaryPrimitives.WriteUInt64BigEndian(b[80..], Compatible);
            BinaryPrimitives.WriteUInt64BigEndian(b[88..], Autoclear);
            BinaryPrimitives.WriteUInt32BigEndian(b[96..], (uint)RefcountOrder);
            BinaryPrimitives.WriteUInt32BigEndian(b[100..], (uint)(HeaderLength + UnknownFields.Length));
            b[104] = CompressionType;
            at = HeaderLength;
            if (UnknownFields.Length > b.Length - at)
                throw Full();
            UnknownFields.CopyTo(b[at..]);
            at += UnknownFields.Length;
        }
        if (BackingFormat is not null)
            Append(b, ref at, ExtensionBackingFormat, Encoding.UTF8.GetBytes(BackingFormat));
        if (DataFile is not null && HasFlag(IncompatDataFile))
            Append(b, ref at, ExtensionDataFile, Encoding.UTF8.GetBytes(DataFile));
        if (Crypto is not null)
            Append(b, ref at, ExtensionCrypto, Crypto);
        // In small clusters the names of features would leave no room for what matters.
        if (Version >= 3 && ClusterSize >= 4096)
            Append(b, ref at, ExtensionFeatureNames, FeatureTableBytes());
        if (Bitmaps is { Count: > 0 } bitmaps)
        {
            byte[] data = new byte[24];
            BinaryPrimitives.WriteUInt32BigEndian(data, bitmaps.Count);
            BinaryPrimitives.WriteUInt64BigEndian(data.AsSpan(8), bitmaps.DirectorySize);
            BinaryPrimitives.WriteUInt64BigEndian(data.AsSpan(16), bitmaps.DirectoryOffset);
            Append(b, ref at, ExtensionBitmaps, data);
        }
        foreach (var e in UnknownExtensions)
            Append(b, ref at, e.Magic, e.Data);
        Append(b, ref at, ExtensionEnd, []);
        if (BackingFile is not null)
        {
            byte[] text = Encoding.UTF8.GetBytes(BackingFile);
            if (text.Length > b.Length - at)
                throw Full();
            text.CopyTo(b[at..]);
            BinaryPrimitives.WriteUInt64BigEndian(b[8..], (ulong)at);
            BinaryPrimitives.WriteUInt32BigEndian(b[16..], (uint)text.Length);
        }
        return cluster;
    }

    private static byte[] FeatureTableBytes()
    {
        byte[] table = new byte[FeatureNames.Length * 48];
        for (int i = 0; i < FeatureNames.Length; i++)
        {
            table[i * 48] = FeatureNames[i].Type;
            table[i * 48 + 1] = FeatureNames[i].Bit;
            Encoding.ASCII.GetBytes(FeatureNames[i].Name, table.AsSpan(i * 48 + 2));
        }
        return table;
    }

    /// <summary>Names the incompatible features in <paramref name="mask"/>: by the image's table, else by number.</summary>
    public string NameFeatures(ulong mask)
    {
        var names = new List<string>();
        // The last entry may lack the zeroes that fill up its name.
        for (int at = 0; FeatureTable is { } t && at + 2 <= t.Length; at += 48)
        {
            if (t[at] == 0 && t[at + 1] < 64 && (mask & (1UL << t[at + 1])) != 0)
            {
                names.Add(TextOf(t.AsSpan(at + 2, Math.Min(46, t.Length - at - 2))));
                mask &= ~(1UL << t[at + 1]);
            }
        }
        if (mask != 0)
            names.Add($"Unknown incompatible feature: {mask:x}");
        return string.Join(", ", names);
    }

    private static void Append(Span<byte> b, ref int at, uint magic, ReadOnlySpan<byte> data)
    {
        int padded = (data.Length + 7) & -8;
        if (padded + 8 > b.Length - at)
            throw Full();
        BinaryPrimitives.WriteUInt32BigEndian(b[at..], magic);
        BinaryPrimitives.WriteUInt32BigEndian(b[(at + 4)..], (uint)data.Length);
        data.CopyTo(b[(at + 8)..]);
        at += 8 + padded;
    }

    private static string TextOf(ReadOnlySpan<byte> bytes)
    {
        int end = bytes.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? bytes : bytes[..end]);
    }

    private static ImageException Full() =>
        new(ImageErrorKind.Unsupported, "No space left on device") { Errno = 28, Operation = "the header does not fit into one cluster" };

    private static ImageException Invalid(string message, string name, long offset = -1) =>
        new(ImageErrorKind.InvalidFormat, message, name, offset) { Errno = 22 };
}
