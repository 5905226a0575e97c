using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>
/// A qcow2 image, versions 2 and 3. See README.md in this folder for the locks and the order in which metadata is written.
/// </summary>
internal sealed partial class Qcow2Image : BlockDevice
{
    private readonly BlockDevice _file;
    private BlockDevice _data;
    private BlockDevice? _backing;
    private readonly OpenSettings _settings;
    private readonly Action<string> _warn;
    private readonly Action<string> _print;
    private readonly RequestGate _gate = new();

    /// <summary>The metadata lock: reference counts, changes of L1 and L2 entries, allocations in flight. Waited on for the last.</summary>
    private readonly object _meta = new();

    private readonly int _clusterBits;
    private readonly int _clusterSize;
    private readonly long _clusterMask;
    private readonly bool _extended;
    private readonly int _subclusterBits;
    private readonly int _l2Bits;           // log2 of the entries of an L2 table
    private readonly int _sliceBits;        // log2 of the entries of a slice
    private readonly bool _writable;
    private bool _hasDataFile;
    private ulong[] _l1 = [];
    private L2Cache _l2;
    private RefcountStore _refcounts;
    private long _length;
    private bool _disposed;
    private readonly bool _ownsDevices = true;
    private Qcow2Options _options;

    private Qcow2Image(BlockDevice file, Qcow2Header header, OpenSettings settings, Qcow2Options options, string fileName,
        Action<string> warn, Action<string> print)
    {
        _file = file;
        _data = file;
        Header = header;
        _settings = settings;
        _options = options;
        _warn = warn;
        _print = print;
        FileName = fileName;
        _writable = !settings.ReadOnly && !file.IsReadOnly;
        _clusterBits = header.ClusterBits;
        _clusterSize = 1 << _clusterBits;
        _clusterMask = _clusterSize - 1;
        _extended = header.HasFlag(IncompatExtendedL2);
        _subclusterBits = _extended ? _clusterBits - 5 : _clusterBits;
        _l2Bits = _clusterBits - (_extended ? 4 : 3);
        int sliceBytes = Math.Min(options.L2EntryBytes, _clusterSize);
        _sliceBits = int.Log2(sliceBytes) - (_extended ? 4 : 3);
        _length = (long)header.Size;
        _l2 = new L2Cache(0, (int)Math.Clamp(options.L2CacheBytes / sliceBytes, 2, 1 << 24));
        _refcounts = new RefcountStore(this, file, _clusterBits, header.RefcountOrder,
            (int)Math.Clamp(options.RefcountCacheBytes / _clusterSize, 4, 1 << 20));
    }

    /// <summary>The header as it is on disk, or will be with the next header write.</summary>
    internal Qcow2Header Header { get; }

    /// <summary>Host clusters that hold metadata.</summary>
    internal ClusterMap Metadata { get; } = new();

    /// <inheritdoc/>
    public override string DriverName => "qcow2";

    /// <inheritdoc/>
    public override long Length => Volatile.Read(ref _length);

    /// <inheritdoc/>
    public override bool IsReadOnly => !_writable;

    /// <inheritdoc/>
    public override BlockLimits Limits => new(_extended ? 1 << _subclusterBits : 1, Math.Max(2 << 20, _clusterSize), _clusterSize, _clusterSize);

    /// <inheritdoc/>
    public override BlockDevice? Backing => _backing;

    /// <inheritdoc/>
    public override BlockDevice? Storage => _file;

    /// <inheritdoc/>
    public override long AllocatedHostBytes
    {
        get
        {
            long n = _file.AllocatedHostBytes;
            if (_hasDataFile && !ReferenceEquals(_data, _file) && n >= 0)
                n += Math.Max(0, _data.AllocatedHostBytes);
            return n;
        }
    }

    private int SliceShift => _clusterBits + _sliceBits;

    private int L1Shift => _clusterBits + _l2Bits;

    private int EntryBytes => _extended ? 16 : 8;

    private long SlicesPerTable => 1L << (_l2Bits - _sliceBits);

    private long SlicesFor(long l1Entries) => l1Entries * SlicesPerTable;

    /// <summary>L1 entries that a disk of <paramref name="length"/> bytes needs.</summary>
    private long L1EntriesFor(long length) => L1Shift >= 63 ? 1 : DivUp(length, 1L << L1Shift);

    private void CheckWritable()
    {
        if (!_writable)
            throw new ImageException(ImageErrorKind.ReadOnly, "Block node is read-only", FileName) { Errno = 1 };
        CheckUsable();
    }

    private void CheckUsable()
    {
        if (_corrupt)
            throw new ImageException(ImageErrorKind.Io, "No medium found", FileName) { Errno = 123 };
        if (Header.CryptMethod != 0)
            throw new ImageException(ImageErrorKind.Unsupported, "Encrypted qcow2 images are not supported", FileName) { Errno = 95 };
    }

    /// <summary>Writes the whole header cluster.</summary>
    private void WriteHeader()
    {
        byte[] bytes = Header.ToBytes();
        // What lies behind a short file's header must not be made up.
        int used = bytes.AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
        int length = (int)Math.Min(bytes.Length, Math.Max(AlignUp(Math.Max(used, 1), 512), Math.Min(_file.Length, bytes.Length)));
        CheckOverlap(0, length, MetadataKind.MainHeader);
        _file.Write(0, bytes.AsSpan(0, length));
    }

    /// <summary>Writes the feature bits alone: one sector, whole or not at all.</summary>
    private void WriteFeatureBits()
    {
        if (Header.Version < 3)
            return;
        Span<byte> bits = stackalloc byte[24];
        BinaryPrimitives.WriteUInt64BigEndian(bits, Header.Incompatible);
        BinaryPrimitives.WriteUInt64BigEndian(bits[8..], Header.Compatible);
        BinaryPrimitives.WriteUInt64BigEndian(bits[16..], Header.Autoclear);
        _file.Write(72, bits);
    }

    /// <summary>Changes fields of the header that name something, in one write. After an error nobody knows what the file holds: the old fields are
    /// written again, now or, where that fails, too, before anything else is promised.</summary>
    private void WritePointer(long at, ReadOnlySpan<byte> fields)
    {
        RestorePointer();
        byte[] old = Header.ToBytes().AsSpan((int)at, fields.Length).ToArray();
        try
        {
            _file.Write(at, fields);
        }
        catch
        {
            _toRestore = (at, old);
            try
            {
                RestorePointer();
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                // The next commit tries again.
            }
            throw;
        }
    }

    private void RestorePointer()
    {
        if (_toRestore is not var (at, old))
            return;
        _file.Write(at, old);
        _toRestore = null;
    }

    /// <summary>Fields of the header that could be neither changed nor put back.</summary>
    private (long At, byte[] Old)? _toRestore;

    /// <summary>The refcount table's place and size, in one write.</summary>
    internal void WriteRefcountTablePointer(long offset, uint clusters)
    {
        Span<byte> b = stackalloc byte[12];
        BinaryPrimitives.WriteUInt64BigEndian(b, (ulong)offset);
        BinaryPrimitives.WriteUInt32BigEndian(b[8..], clusters);
        WritePointer(48, b);
        Header.RefcountTableOffset = (ulong)offset;
        Header.RefcountTableClusters = clusters;
    }

    private ImageException Corrupt(string message, long offset = -1) => new(ImageErrorKind.Corrupt, message, FileName, offset) { Errno = 22 };
}
