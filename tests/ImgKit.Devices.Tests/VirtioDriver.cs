using ImgKit.Machine.Devices.Virtio;

namespace ImgKit.Devices.Tests;

/// <summary>A guest's driver for one queue of a virtio device, modern or legacy, with rings in guest memory.</summary>
internal sealed class VirtioDriver
{
    public const ulong Version1 = 1ul << 32, Indirect = 1ul << 28, EventIndex = 1ul << 29;

    private readonly Board _board;
    private readonly bool _legacy;
    private readonly ulong _desc, _avail, _used;
    private readonly int _size;
    private ushort _availIndex, _usedSeen;
    private int _nextDesc;
    private ulong _nextBuffer;

    public VirtioDriver(Board board, VirtioPci device, bool legacy, ulong wanted, ulong at = 0x100000, int queue = 0, bool start = true, int vector = 0xFFFF)
    {
        _board = board;
        _legacy = legacy;
        Device = device;
        if (start)
        {
            Status = 0;
            Status = 1;
            Status = 3;
            Offered = legacy ? board.In(0xC000, 4) : ReadFeatures();
            Features = Offered & wanted;
            if (legacy)
            {
                board.Out(0xC004, (uint)Features, 4);
            }
            else
            {
                Features |= Version1;
                board.Store(Common + 8, 0, 4);
                board.Store(Common + 12, (uint)Features, 4);
                board.Store(Common + 8, 1, 4);
                board.Store(Common + 12, Features >> 32, 4);
                Status = 11;
            }
        }
        else
        {
            Features = wanted;
        }
        if (legacy)
        {
            board.Out(0xC00E, (uint)queue, 2);
            _size = (int)board.In(0xC00C, 2);
            _desc = at;
            _avail = at + 16ul * (uint)_size;
            _used = _avail + 6 + 2ul * (uint)_size + 4095 & ~4095ul;
            board.Out(0xC008, (uint)(at >> 12), 4);
        }
        else
        {
            board.Store(Common + 22, (uint)queue, 2);
            _size = (int)board.Load(Common + 24, 2);
            if (_size > 64)
                board.Store(Common + 24, (ulong)(_size = 64), 2);
            _desc = at;
            _avail = at + 0x1000;
            _used = at + 0x2000;
            board.Store(Common + 32, _desc, 4);
            board.Store(Common + 36, 0, 4);
            board.Store(Common + 40, _avail, 8);
            board.Store(Common + 48, _used, 8);
            board.Store(Common + 26, (uint)vector, 2);
            board.Store(Common + 28, 1, 2);
        }
        Queue = queue;
        _nextBuffer = at + 0x10000;
        if (start)
            Status = legacy ? (byte)7 : (byte)15;
    }

    public static ulong Common => Board.BarAddress(4);

    public VirtioPci Device { get; }

    public int Queue { get; }

    public int Size => _size;

    public ulong Offered { get; }

    public ulong Features { get; private set; }

    public ulong Desc => _desc;

    public ulong Avail => _avail;

    public ulong Used => _used;

    private ulong ReadFeatures()
    {
        _board.Store(Common, 0, 4);
        ulong low = _board.Load(Common + 4, 4);
        _board.Store(Common, 1, 4);
        return low | _board.Load(Common + 4, 4) << 32;
    }

    public byte Status
    {
        get => _legacy ? (byte)_board.In(0xC012, 1) : (byte)_board.Load(Common + 20, 1);
        set
        {
            if (_legacy)
                _board.Out(0xC012, value, 1);
            else
                _board.Store(Common + 20, value, 1);
        }
    }

    /// <summary>Room in guest memory.</summary>
    public ulong Allocate(int length)
    {
        ulong at = _nextBuffer;
        _nextBuffer += (ulong)(length + 63 & ~63);
        if (_nextBuffer > 0x3F0000)
            throw new InvalidOperationException("out of guest memory");
        return at;
    }

    public void Descriptor(ulong table, int index, ulong address, uint length, int flags, int next)
    {
        var m = _board.Services.Memory;
        m.WriteUInt64(table + 16ul * (uint)index, address);
        m.WriteUInt32(table + 16ul * (uint)index + 8, length);
        m.WriteUInt16(table + 16ul * (uint)index + 12, (ushort)flags);
        m.WriteUInt16(table + 16ul * (uint)index + 14, (ushort)next);
    }

    /// <summary>Makes a chain available; returns its head.</summary>
    public ushort Offer(bool indirect, params (ulong Address, int Length, bool Write)[] parts)
    {
        int head = _nextDesc;
        ulong table = _desc;
        int at = head;
        if (indirect)
        {
            table = Allocate(16 * parts.Length);
            Descriptor(_desc, head, table, (uint)(16 * parts.Length), 4, 0);
            _nextDesc = (_nextDesc + 1) % _size;
            at = 0;
        }
        for (int i = 0; i < parts.Length; i++)
        {
            int next = indirect ? i + 1 : (at + 1) % _size;
            Descriptor(table, at, parts[i].Address, (uint)parts[i].Length, (parts[i].Write ? 2 : 0) | (i + 1 < parts.Length ? 1 : 0), next);
            at = next;
            if (!indirect)
                _nextDesc = (_nextDesc + 1) % _size;
        }
        Publish((ushort)head);
        return (ushort)head;
    }

    public void Publish(ushort head)
    {
        var m = _board.Services.Memory;
        m.WriteUInt16(_avail + 4 + 2ul * (uint)(_availIndex % _size), head);
        m.WriteUInt16(_avail + 2, ++_availIndex);
    }

    public void Notify()
    {
        if (_legacy)
            _board.Out(0xC010, (uint)Queue, 2);
        else
            _board.Store(Common + 0x3000 + 4ul * (uint)Queue, (uint)Queue, 2);
    }

    /// <summary>Waits for the next used element.</summary>
    public (uint Head, uint Written) Take(int milliseconds = 10000)
    {
        var m = _board.Services.Memory;
        long end = Environment.TickCount64 + milliseconds;
        while (m.ReadUInt16(_used + 2) == _usedSeen)
        {
            if (Environment.TickCount64 > end)
                throw new TimeoutException($"nothing used, status {Status:x}, {Device.DriverError}");
            Thread.Yield();
        }
        ulong element = _used + 4 + 8ul * (uint)(_usedSeen % _size);
        _usedSeen++;
        return (m.ReadUInt32(element), m.ReadUInt32(element + 4));
    }

    public int UsedCount => (ushort)(_board.Services.Memory.ReadUInt16(_used + 2) - _usedSeen);

    /// <summary>The driver's wish for interrupts with the event index: only when the used index passes this one.</summary>
    public void SetUsedEvent(ushort index) => _board.Services.Memory.WriteUInt16(_avail + 4 + 2ul * (uint)_size, index);

    public ushort AvailEvent => _board.Services.Memory.ReadUInt16(_used + 4 + 8ul * (uint)_size);
}
