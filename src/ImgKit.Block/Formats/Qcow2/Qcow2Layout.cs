namespace ImgKit.Block.Formats.Qcow2;

/// <summary>Numbers of the qcow2 format (QEMU docs/interop/qcow2, all fields big-endian) and the limits that ImgKit, as QEMU, sets.</summary>
internal static class Qcow2Layout
{
    public const uint Magic = 0x514649FB;

    public const int V2HeaderLength = 72;
    public const int V3MinHeaderLength = 104;
    public const int HeaderLength = 112;

    // Incompatible features.
    public const ulong IncompatDirty = 1;
    public const ulong IncompatCorrupt = 2;
    public const ulong IncompatDataFile = 4;
    public const ulong IncompatCompression = 8;
    public const ulong IncompatExtendedL2 = 16;
    public const ulong IncompatKnown = 31;

    // Compatible features.
    public const ulong CompatLazyRefcounts = 1;

    // Autoclear features.
    public const ulong AutoclearBitmaps = 1;
    public const ulong AutoclearDataFileRaw = 2;
    public const ulong AutoclearKnown = 3;

    // Header extensions.
    public const uint ExtensionEnd = 0;
    public const uint ExtensionBackingFormat = 0xE2792ACA;
    public const uint ExtensionFeatureNames = 0x6803F857;
    public const uint ExtensionBitmaps = 0x23852875;
    public const uint ExtensionCrypto = 0x0537BE77;
    public const uint ExtensionDataFile = 0x44415441;

    // L1 and L2 entries.
    public const ulong OffsetMask = 0x00FFFFFFFFFFFE00;
    public const ulong Copied = 1UL << 63;
    public const ulong Compressed = 1UL << 62;
    public const ulong ZeroFlag = 1;
    public const ulong L1Reserved = 0x7F000000000001FF;
    public const ulong L2StandardReserved = 0x3F000000000001FE;
    public const ulong RefcountTableReserved = 0x1FF;

    public const int MinClusterBits = 9;
    public const int MaxClusterBits = 21;
    public const int MaxRefcountOrder = 6;
    public const int SubclustersPerCluster = 32;
    public const int MinSubclusterBits = 9;

    public const long MaxL1Bytes = 32 << 20;
    public const long MaxRefcountTableBytes = 8 << 20;
    public const int MaxSnapshots = 65536;
    public const long MaxSnapshotTableBytes = 64L << 20;
    public const int MaxSnapshotExtraData = 1024;
    public const int MinSnapshotBytes = 40;
    public const int MaxBitmaps = 65535;
    public const long MaxBitmapDirectoryBytes = MaxBitmaps * 1024L;
    public const int MaxBitmapName = 1023;
    public const int MinBitmapGranularityBits = 9;
    public const int MaxBitmapGranularityBits = 31;
    public const int MaxBackingName = 1023;

    public const long DefaultCacheBytes = 32 << 20;

    /// <summary>As C's <c>%#lx</c>.</summary>
    public static string Hex(long value) => value == 0 ? "0" : $"0x{value:x}";

    public static string Hex(ulong value) => Hex((long)value);

    public static long AlignUp(long value, long alignment) => checked((value + alignment - 1) / alignment * alignment);

    public static long DivUp(long value, long unit) => value / unit + (value % unit != 0 ? 1 : 0);
}
