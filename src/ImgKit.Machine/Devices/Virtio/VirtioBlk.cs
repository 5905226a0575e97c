using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Devices.Storage;

namespace ImgKit.Machine.Devices.Virtio;

/// <summary>A disk. Source: VIRTIO 1.2, section 5.2. Requests run on the disk workers, straight between the block layer and guest memory.</summary>
public sealed class VirtioBlk : VirtioPci
{
    private const ushort DeviceType = 2;
    private const int Sector = 512;

    private const ulong SegMax = 1ul << 2, Geometry = 1ul << 4, ReadOnly = 1ul << 5, BlkSize = 1ul << 6, FlushFeature = 1ul << 9,
        Topology = 1ul << 10, ConfigWce = 1ul << 11, MultiQueue = 1ul << 12, DiscardFeature = 1ul << 13, WriteZeroesFeature = 1ul << 14;

    private const uint In = 0, Out = 1, Flush = 4, GetId = 8, Discard = 11, WriteZeroes = 13;
    private const byte Ok = 0, IoError = 1, Unsupported = 2;

    /// <summary>Most sectors that one discard or write-zeroes segment may name.</summary>
    private const uint MostSectors = 0x7FFFFFFF / Sector;

    private readonly Drive _drive;
    private readonly int _blockSize;
    private readonly ushort _queueSize;
    private readonly byte[] _serial = new byte[20];
    private readonly Stack<Request> _free = new();
    private int _underWay;
    private bool _writeBack;
    private long _reportedLength;

    /// <summary>Makes a disk.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="drive">the drive; it has a medium.</param>
    /// <param name="interfaces">legacy, modern or both.</param>
    /// <param name="queues">number of request queues, 1 to 127.</param>
    /// <param name="queueSize">descriptors a queue, a power of two from 4 to 1024.</param>
    /// <param name="blockSize">logical block size in bytes, 512 or more.</param>
    public VirtioBlk(MachineServices services, Drive drive, VirtioInterfaces interfaces = VirtioInterfaces.Transitional, int queues = 1,
        int queueSize = 256, int blockSize = Sector)
        : base(services, DeviceType, 0x010000, interfaces, Sizes(queues, queueSize))
    {
        _drive = drive;
        _writeBack = drive.WriteCache;
        _blockSize = blockSize;
        _queueSize = (ushort)queueSize;
        Encoding.ASCII.GetBytes((drive.Serial ?? "").AsSpan(0, Math.Min(20, drive.Serial?.Length ?? 0)), _serial);
        _reportedLength = drive.Length;
        drive.MediaChanged = CheckLength;
    }

    private static ushort[] Sizes(int queues, int size)
    {
        if (queues is < 1 or > 127)
            throw new MachineException("num-queues must be between 1 and 127");
        if (size is < 4 or > 1024 || (size & (size - 1)) != 0)
            throw new MachineException("queue-size must be a power of 2 between 4 and 1024");
        var sizes = new ushort[queues];
        Array.Fill(sizes, (ushort)size);
        return sizes;
    }

    /// <inheritdoc/>
    public override string TypeName => "virtio-blk-pci";

    /// <summary>The drive.</summary>
    public Drive Drive => _drive;

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => SegMax | Geometry | BlkSize | Topology | (_drive.WriteCache || HasConfigWce ? FlushFeature : 0)
        | (HasConfigWce ? ConfigWce : 0) | (Queues.Length > 1 ? MultiQueue : 0)
        | (_drive.IsReadOnly ? ReadOnly : (HasWriteZeroes ? WriteZeroesFeature : 0) | (HasDiscard ? DiscardFeature : 0));

    /// <summary>The driver can switch the write cache.</summary>
    public bool HasConfigWce { get; init; } = true;

    /// <summary>Discards are offered. Without discard=unmap nothing comes of them on the host, which the guest need not know.</summary>
    public bool HasDiscard { get; init; } = true;

    /// <summary>Write-zeroes requests are offered.</summary>
    public bool HasWriteZeroes { get; init; } = true;

    /// <inheritdoc/>
    protected override int ConfigLength => 60;

    /// <inheritdoc/>
    protected override void ReadConfig(Span<byte> config)
    {
        config.Clear();
        long sectors = _drive.Length / Sector;
        BinaryPrimitives.WriteInt64LittleEndian(config, sectors);
        BinaryPrimitives.WriteUInt32LittleEndian(config[12..], (uint)Math.Max(1, _queueSize - 2)); // seg_max: header and status take two
        BinaryPrimitives.WriteUInt16LittleEndian(config[16..], (ushort)Math.Min(sectors / (16 * 63), 65535));
        config[18] = 16;
        config[19] = 63;
        BinaryPrimitives.WriteUInt32LittleEndian(config[20..], (uint)_blockSize);
        config[24] = (byte)_drive.Geometry.PhysicalExponent;
        BinaryPrimitives.WriteUInt16LittleEndian(config[26..], (ushort)Math.Min(Math.Max(1, _drive.Geometry.MinimumIo / _blockSize), 0xFFFF));
        BinaryPrimitives.WriteInt32LittleEndian(config[28..], _drive.Geometry.OptimalIo / _blockSize);
        config[32] = _writeBack ? (byte)1 : (byte)0;
        BinaryPrimitives.WriteUInt16LittleEndian(config[34..], (ushort)Queues.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(config[36..], MostSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(config[40..], 1);
        BinaryPrimitives.WriteUInt32LittleEndian(config[44..], (uint)(Math.Max(_blockSize, _drive.Geometry.DiscardGranularity) / Sector));
        BinaryPrimitives.WriteUInt32LittleEndian(config[48..], MostSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(config[52..], 1);
        config[56] = 1;
    }

    /// <inheritdoc/>
    protected override void WriteConfig(int offset, byte value)
    {
        if (offset == 32 && HasFeature(ConfigWce))
            _writeBack = value != 0;
    }

    /// <inheritdoc/>
    protected override void DriverReady()
    {
        // a driver that knows neither flush nor the cache mode expects writes to be on the disk when they complete (section 5.2.6.2)
        if (!HasFeature(FlushFeature) && !HasFeature(ConfigWce))
            _writeBack = false;
    }

    /// <inheritdoc/>
    protected override bool IsBusy => _underWay > 0;

    /// <inheritdoc/>
    protected override void DriverReset()
    {
        _generation++; // what completes later belongs to nobody
        _writeBack = _drive.WriteCache;
    }

    private int _generation;

    /// <summary>The drive's medium was changed or resized: tells the driver when the size differs.</summary>
    public void CheckLength()
    {
        if (_drive.Length == _reportedLength)
            return;
        _reportedLength = _drive.Length;
        NotifyConfigChange();
    }

    private protected override void Notified(VirtQueue queue)
    {
        for (int i = 0; i < queue.Size; i++)
        {
            if (!_free.TryPop(out var request))
                request = new Request(this);
            if (!TryPop(queue, request.Chain))
            {
                _free.Push(request);
                return;
            }
            Start(queue, request);
        }
    }

    private void Start(VirtQueue queue, Request request)
    {
        var chain = request.Chain;
        request.Queue = queue;
        request.Generation = _generation;
        Span<byte> header = stackalloc byte[16];
        if (!chain.TakeFront(header) || !chain.TakeLastWritable(out var status))
        {
            _free.Push(request);
            Break("a request without header or status");
            return;
        }
        request.Status = status;
        uint type = BinaryPrimitives.ReadUInt32LittleEndian(header);
        ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
        switch (type)
        {
            case In:
                Transfer(request, DriveOperation.Read, sector, chain.Writable, chain.WritableLength);
                break;
            case Out when _drive.IsReadOnly:
                Finish(request, IoError, 0);
                break;
            case Out:
                Transfer(request, DriveOperation.Write, sector, chain.Readable, chain.ReadableLength);
                break;
            case Flush:
                Submit(request, DriveOperation.Flush, 0, 0);
                break;
            case GetId:
                Finish(request, Ok, chain.Fill(Services.Memory, _serial));
                break;
            case Discard when (DeviceFeatures & DiscardFeature) != 0:
                Range(request, DriveOperation.Discard);
                break;
            case WriteZeroes when (DeviceFeatures & WriteZeroesFeature) != 0:
                Range(request, DriveOperation.WriteZeroes);
                break;
            default:
                Finish(request, Unsupported, 0);
                break;
        }
    }

    private bool IsInside(ulong sector, long length)
    {
        ulong sectors = (ulong)_drive.Length / Sector;
        return length % _blockSize == 0 && sector <= sectors && (ulong)length / Sector <= sectors - sector
            && sector % (ulong)(_blockSize / Sector) == 0;
    }

    private void Transfer(Request request, DriveOperation operation, ulong sector, List<DmaSegment> segments, long length)
    {
        if (length > int.MaxValue || !IsInside(sector, length))
        {
            Finish(request, IoError, 0);
            return;
        }
        if (length == 0)
        {
            Finish(request, Ok, 0);
            return;
        }
        _underWay++;
        request.Work.ThenFlush = operation == DriveOperation.Write && !_writeBack;
        request.Work.Submit(operation, (long)sector * Sector, segments);
    }

    /// <summary>Discard and write zeroes: one segment of sector, count and flags.</summary>
    private void Range(Request request, DriveOperation operation)
    {
        const uint Unmap = 1;
        Span<byte> segment = stackalloc byte[16];
        if (!request.Chain.TakeFront(segment))
        {
            Finish(request, IoError, 0);
            return;
        }
        ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(segment);
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(segment[8..]);
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(segment[12..]);
        uint allowed = operation == DriveOperation.WriteZeroes ? Unmap : 0;
        if (request.Chain.ReadableLength > 0 || (flags & ~allowed) != 0)
            Finish(request, Unsupported, 0);
        else if (count > MostSectors || !IsInside(sector, (long)count * Sector))
            Finish(request, IoError, 0);
        else
            Submit(request, operation, (long)sector * Sector, (long)count * Sector, (flags & Unmap) != 0);
    }

    private void Submit(Request request, DriveOperation operation, long offset, long length, bool mayUnmap = false)
    {
        _underWay++;
        request.Work.MayUnmap = mayUnmap;
        request.Work.ThenFlush = false;
        request.Work.Submit(operation, offset, length);
    }

    private void Completed(Request request)
    {
        _underWay--;
        long written = request.Work.Operation == DriveOperation.Read && request.Work.Failure == null ? request.Work.Length : 0;
        Finish(request, request.Work.Failure == null ? Ok : IoError, written);
    }

    private void Finish(Request request, byte status, long written)
    {
        if (request.Generation == _generation)
        {
            request.Status.Span[0] = status;
            Services.Memory.Written(request.Status.Guest, 1);
            Complete(request.Queue!, request.Chain.Head, (uint)written + 1);
        }
        _free.Push(request);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("write-back", ref _writeBack);
    }

    /// <summary>A request under way. Reused.</summary>
    private sealed class Request
    {
        internal Request(VirtioBlk device) => Work = new DriveRequest(device.Services, device._drive, _ => device.Completed(this));

        internal VirtioChain Chain { get; } = new();

        internal DriveRequest Work { get; }

        internal VirtQueue? Queue { get; set; }

        internal DmaSegment Status { get; set; }

        internal int Generation { get; set; }
    }

    /// <summary>The type in the catalogue.</summary>
    public static DeviceType Type { get; } = new("virtio-blk-pci", DeviceBus.Pci, "Storage", "virtio block device",
    [
        .. DriveProperties.All,
        new("num-queues", "uint16", "request queues (default: one a processor)"),
        new("queue-size", "uint16", "descriptors a queue (default: 256)"),
        new("config-wce", "bool", "the driver can switch the write cache (default: on)"),
        new("discard", "bool", "discards are offered (default: on)"),
        new("write-zeroes", "bool", "write-zeroes requests are offered (default: on)"),
        new("disable-legacy", "OnOffAuto", "no interface of virtio 0.9"),
        new("disable-modern", "bool", "no interface of virtio 1.0"),
    ], plug =>
    {
        var drive = DriveProperties.Make(plug, false, "virtio-disk", "", "virtio-blk-device");
        var device = new VirtioBlk(plug.Services, drive, Interfaces(plug.Options),
            (int)Math.Min(plug.Options.Number("num-queues", (ulong)Math.Min(plug.Machine.Options.Processors, 127)), 1024),
            (int)Math.Min(plug.Options.Number("queue-size", 256), 65536), drive.Geometry.LogicalBlock)
        {
            HasConfigWce = plug.Options.Flag("config-wce", true),
            HasDiscard = plug.Options.Flag("discard", true) && drive.Geometry.DiscardGranularity != 0,
            HasWriteZeroes = plug.Options.Flag("write-zeroes", true),
        };
        plug.PlugPci(device);
        if (drive.BootIndex >= 0)
            plug.Machine.AddBootEntry(drive.BootIndex, () => $"/pci@i0cf8/scsi@{device.DeviceFunction >> 3:x}{((device.DeviceFunction & 7) != 0 ? $",{device.DeviceFunction & 7:x}" : "")}/disk@0,0");
        return device;
    });
}
