using System.Buffers.Binary;
using ImgKit.Cpu;

namespace ImgKit.Machine.Devices.Virtio;

/// <summary>
/// The device's side of a split virtqueue. Source: OASIS Virtual I/O Device (VIRTIO) 1.2, section 2.7. The rings lie in memory that the
/// guest writes at any time: every value is read once and checked, and no walk is longer than the queue or its limit. Under the machine lock.
/// </summary>
internal sealed unsafe class VirtQueue : IStateful
{
    private const ushort DescNext = 1, DescWrite = 2, DescIndirect = 4;
    private const ushort AvailNoInterrupt = 1;

    /// <summary>Most pieces of a chain, whatever the driver says (an indirect table can be longer than the queue).</summary>
    private const int MostDescriptors = 1024;

    private readonly GuestMemory _memory;
    private MemoryRegion[]? _regions;
    private byte* _desc, _avail, _used;
    private int _inFlight;
    private ushort _size, _lastAvail, _usedIndex, _signalled, _vector = VirtioPci.NoVector;
    private bool _signalledValid, _enabled;
    private ulong _descAddress, _availAddress, _usedAddress;

    /// <summary>Makes a queue.</summary>
    /// <param name="memory">where the rings and buffers are.</param>
    /// <param name="index">its number.</param>
    /// <param name="maximumSize">descriptors, a power of two.</param>
    internal VirtQueue(GuestMemory memory, int index, ushort maximumSize)
    {
        _memory = memory;
        Index = index;
        MaximumSize = _size = maximumSize;
    }

    internal int Index { get; }

    internal ushort MaximumSize { get; }

    /// <summary>The event loop will look at it.</summary>
    internal bool IsDeferred { get; set; }

    /// <summary>Descriptors; a power of two, at most <see cref="MaximumSize"/>.</summary>
    internal ushort Size
    {
        get => _size;
        set => _size = value;
    }

    /// <summary>MSI-X vector of its interrupt.</summary>
    internal ushort Vector
    {
        get => _vector;
        set => _vector = value;
    }

    /// <summary>The driver has placed the rings and lets the device use them.</summary>
    internal bool IsEnabled
    {
        get => _enabled;
        set => _enabled = value;
    }

    internal ulong DescAddress
    {
        get => _descAddress;
        set => Place(ref _descAddress, value);
    }

    internal ulong AvailAddress
    {
        get => _availAddress;
        set => Place(ref _availAddress, value);
    }

    internal ulong UsedAddress
    {
        get => _usedAddress;
        set => Place(ref _usedAddress, value);
    }

    private void Place(ref ulong field, ulong value)
    {
        field = value;
        _regions = null;
    }

    /// <summary>Where a legacy driver's rings are: one area from a page (section 2.7.2).</summary>
    internal void PlaceLegacy(ulong address)
    {
        DescAddress = address;
        AvailAddress = address + 16ul * _size;
        UsedAddress = AvailAddress + 6 + 2ul * _size + 4095 & ~4095ul;
        _enabled = address != 0;
    }

    internal void Reset()
    {
        _size = MaximumSize;
        _lastAvail = _usedIndex = _signalled = 0;
        _inFlight = 0;
        _vector = VirtioPci.NoVector;
        _signalledValid = _enabled = false;
        _descAddress = _availAddress = _usedAddress = 0;
        _regions = null;
    }

    /// <summary>Finds the rings in host memory; again when the memory map has changed. False when they are not all in RAM.</summary>
    private bool Locate()
    {
        var regions = _memory.Map.Regions;
        if (ReferenceEquals(regions, _regions))
            return true;
        if (!Find(_descAddress, 16L * _size, false, out _desc) || !Find(_availAddress, 6 + 2L * _size, false, out _avail)
            || !Find(_usedAddress, 6 + 8L * _size, true, out _used))
            return false;
        _regions = regions;
        return true;
    }

    private bool Find(ulong address, long length, bool forWrite, out byte* at)
    {
        bool found = _memory.TryGet(address, length, forWrite, out var segment) && segment.Length == length && (address & 1) == 0;
        at = (byte*)segment.Host;
        return found;
    }

    private static ushort ReadUInt16(byte* at) => Volatile.Read(ref *(ushort*)at);

    /// <summary>Something may be available.</summary>
    internal bool HasWork => _enabled && Locate() && ReadUInt16(_avail + 2) != _lastAvail;

    /// <summary>Takes the next available chain. <paramref name="error"/> is not null when the driver broke the rules: the device needs a reset.</summary>
    internal bool TryPop(VirtioChain chain, bool indirectAllowed, bool eventIndex, out string? error)
    {
        error = null;
        chain.Clear();
        if (!_enabled)
            return false;
        if (!Locate())
        {
            error = $"queue {Index} is not in memory";
            return false;
        }
        ushort available = ReadUInt16(_avail + 2);
        if (available == _lastAvail)
            return false;
        if ((ushort)(available - _lastAvail) > _size)
        {
            error = $"queue {Index}: {(ushort)(available - _lastAvail)} chains available in a queue of {_size}";
            return false;
        }
        if (_inFlight >= _size)
        {
            error = $"queue {Index}: more chains available than the queue has descriptors";
            return false;
        }
        Interlocked.MemoryBarrier(); // the entry and its descriptors were written before the index
        ushort head = ReadUInt16(_avail + 4 + 2 * (_lastAvail & (_size - 1)));
        if (head >= _size)
        {
            error = $"queue {Index}: descriptor {head} of {_size}";
            return false;
        }
        chain.Head = head;
        error = Walk(chain, head, indirectAllowed);
        if (error != null)
            return false;
        _lastAvail++;
        _inFlight++;
        if (eventIndex)
        {
            Volatile.Write(ref *(ushort*)(_used + 4 + 8 * _size), _lastAvail);
            _memory.Written(_usedAddress + 4 + 8ul * _size, 2);
            Interlocked.MemoryBarrier();
        }
        return true;
    }

    private string? Walk(VirtioChain chain, ushort head, bool indirectAllowed)
    {
        Span<byte> d = stackalloc byte[16];
        byte* table = _desc;
        ulong tableAddress = 0;     // of an indirect table that is not one piece of host memory
        int entries = _size, at = head;
        bool isIndirect = false;
        for (int walked = 0; ; walked++)
        {
            if (walked >= Math.Min(entries, MostDescriptors))
                return $"queue {Index}: the chain from descriptor {head} does not end";
            if (table != null)
                new ReadOnlySpan<byte>(table + 16 * at, 16).CopyTo(d);
            else if (!_memory.Read(tableAddress + 16ul * (uint)at, d))
                return $"queue {Index}: an indirect table is not in memory";
            ulong address = BinaryPrimitives.ReadUInt64LittleEndian(d);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(d[8..]);
            ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(d[12..]);
            ushort next = BinaryPrimitives.ReadUInt16LittleEndian(d[14..]);
            if ((flags & DescIndirect) != 0)
            {
                if (!indirectAllowed || isIndirect || (flags & DescNext) != 0 || length == 0 || length % 16 != 0 || length / 16 > 65535)
                    return $"queue {Index}: a wrong indirect descriptor";
                isIndirect = true;
                entries = (int)(length / 16);
                at = 0;
                walked = -1;
                bool whole = _memory.TryGet(address, length, false, out var segment) && segment.Length == length;
                table = whole ? (byte*)segment.Host : null;
                tableAddress = address;
                continue;
            }
            bool write = (flags & DescWrite) != 0;
            if (length == 0)
                return $"queue {Index}: an empty buffer";
            if (!write && chain.WritableLength > 0)
                return $"queue {Index}: a buffer to read behind one to write";
            if (!_memory.TryAdd(write ? chain.Writable : chain.Readable, address, length, write))
                return $"queue {Index}: a buffer at 0x{address:x} is not in memory";
            if (write)
                chain.WritableLength += length;
            else
                chain.ReadableLength += length;
            if ((flags & DescNext) == 0)
                return null;
            if (next >= entries)
                return $"queue {Index}: descriptor {next} of {entries}";
            at = next;
        }
    }

    /// <summary>Hands a chain back with the number of bytes written into it.</summary>
    internal void Push(ushort head, uint written)
    {
        if (!_enabled || !Locate())
            return;
        _inFlight--;
        int slot = _usedIndex & (_size - 1);
        byte* element = _used + 4 + 8 * slot;
        *(uint*)element = head;
        *(uint*)(element + 4) = written;
        Volatile.Write(ref *(ushort*)(_used + 2), ++_usedIndex); // a release: the element is seen first
        _memory.Written(_usedAddress, 4 + 8L * (slot + 1));
    }

    /// <summary>Whether the driver wants an interrupt for what was pushed since the last time this was true.</summary>
    internal bool TakeInterruptRequest(bool eventIndex)
    {
        if (!_enabled || !Locate())
            return false;
        Interlocked.MemoryBarrier(); // the used index is out before we look whether it is waited for
        if (!eventIndex)
            return (ReadUInt16(_avail) & AvailNoInterrupt) == 0;
        ushort wanted = ReadUInt16(_avail + 4 + 2 * _size), old = _signalled;
        bool first = !_signalledValid;
        _signalled = _usedIndex;
        _signalledValid = true;
        // section 2.7.7.2: the index passed the one waited for
        return first || (ushort)(_usedIndex - wanted - 1) < (ushort)(_usedIndex - old);
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        state.Field("size", ref _size);
        state.Field("enabled", ref _enabled);
        state.Field("vector", ref _vector);
        state.Field("desc", ref _descAddress);
        state.Field("avail", ref _availAddress);
        state.Field("used", ref _usedAddress);
        state.Field("last-avail", ref _lastAvail);
        state.Field("used-index", ref _usedIndex);
        state.Field("signalled", ref _signalled);
        state.Field("signalled-valid", ref _signalledValid);
        if (!state.IsLoading)
            return;
        _regions = null;
        _inFlight = (ushort)(_lastAvail - _usedIndex);
        if (_size == 0 || _size > MaximumSize || (_size & (_size - 1)) != 0)
            throw new InvalidDataException($"virtqueue size {_size}");
    }
}
