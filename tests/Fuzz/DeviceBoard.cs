using System.Buffers.Binary;
using ImgKit.Block;
using ImgKit.Boards;
using ImgKit.Machine;
using ImgKit.Machine.Pci;

namespace ImgKit.Fuzz;

/// <summary>What a guest does to a device, as bytes: port and memory accesses, one after the other. Whatever bytes come, something is done.</summary>
internal sealed class GuestProgram
{
    private readonly List<byte> _bytes = [];

    internal enum Step : byte
    {
        Out,
        In,
        Store,
        Load,
        Memory,
        Drain,
        Pass,
        Config,
        Count,
    }

    internal void Append(GuestProgram next) => _bytes.AddRange(next._bytes);

    internal byte[] ToArray() => [.. _bytes];

    private GuestProgram Add(Step step, ushort at, byte size, ulong value)
    {
        Span<byte> b = stackalloc byte[12];
        b[0] = (byte)step;
        BinaryPrimitives.WriteUInt16LittleEndian(b[1..], at);
        b[3] = size;
        BinaryPrimitives.WriteUInt64LittleEndian(b[4..], value);
        _bytes.AddRange(b);
        return this;
    }

    internal GuestProgram Out(int port, uint value, int size = 1) => Add(Step.Out, (ushort)port, (byte)size, value);

    internal GuestProgram In(int port, int size = 1) => Add(Step.In, (ushort)port, (byte)size, 0);

    internal GuestProgram Store(int offset, ulong value, int size) => Add(Step.Store, (ushort)offset, (byte)size, value);

    internal GuestProgram Load(int offset, int size) => Add(Step.Load, (ushort)offset, (byte)size, 0);

    /// <summary>Writes bytes to guest memory from 64 KiB on.</summary>
    internal GuestProgram Put(int at, ReadOnlySpan<byte> bytes)
    {
        Span<byte> word = stackalloc byte[8];
        for (int i = 0; i < bytes.Length; i += 8)
        {
            word.Clear();
            bytes[i..Math.Min(i + 8, bytes.Length)].CopyTo(word);
            Add(Step.Memory, (ushort)(at + i), 8, BinaryPrimitives.ReadUInt64LittleEndian(word));
        }
        return this;
    }

    internal GuestProgram Words(int at, params uint[] words)
    {
        foreach (uint w in words)
        {
            Add(Step.Memory, (ushort)at, 4, w);
            at += 4;
        }
        return this;
    }

    internal GuestProgram Drain() => Add(Step.Drain, 0, 0, 0);

    internal GuestProgram Pass(uint microseconds) => Add(Step.Pass, 0, 0, microseconds);
}

/// <summary>A board whose device a program plays with.</summary>
internal sealed class DeviceBoard : BareBoard, IInterruptSink, IMessageInterruptSink
{
    private const ulong MemoryBase = 0x10000;
    private readonly List<Device> _devices = [];

    // The last quarter of the memory is not there: some addresses lead to nothing.
    internal DeviceBoard() : base(1 << 20, [(0, 0xC0000)], 1)
    {
        Services.IsaInterrupts = this;
        Services.Messages = this;
        Bus = new PciBus(this);
    }

    internal PciBus Bus { get; }

    /// <summary>Ports that a program reaches, as ranges.</summary>
    internal (ushort First, int Count)[] Ports { get; set; } = [];

    /// <summary>Where memory-mapped registers begin; their ranges lie 64 KiB apart.</summary>
    internal ulong[] Registers { get; set; } = [];

    internal T Add<T>(T device) where T : Device
    {
        _devices.Add(device);
        device.Reset();
        return device;
    }

    /// <summary>Plugs a PCI function, its memory BARs 64 KiB apart.</summary>
    internal T Plug<T>(T device) where T : PciDevice
    {
        Bus.Add(device, -1);
        Add(device);
        PlaceBars(device, 0x10000);
        return device;
    }

    private ushort PortOf(ushort at)
    {
        int total = Ports.Sum(p => p.Count);
        foreach (var (first, count) in Ports)
            if (at >= first && at < first + count)
                return at;
        int n = at % total;
        foreach (var (first, count) in Ports)
        {
            if (n < count)
                return (ushort)(first + n);
            n -= count;
        }
        return Ports[0].First;
    }

    internal void Run(ReadOnlySpan<byte> program)
    {
        for (int at = 0; at + 12 <= program.Length && at < 12 * 4096; at += 12)
        {
            var step = (GuestProgram.Step)(program[at] % (int)GuestProgram.Step.Count);
            ushort where = BinaryPrimitives.ReadUInt16LittleEndian(program[(at + 1)..]);
            int size = 1 << (System.Numerics.BitOperations.Log2((uint)program[at + 3] | 1) & 3);
            ulong value = BinaryPrimitives.ReadUInt64LittleEndian(program[(at + 4)..]);
            switch (step)
            {
                case GuestProgram.Step.Out when Ports.Length > 0:
                    Out(PortOf(where), (uint)value, Math.Min(size, 4));
                    break;
                case GuestProgram.Step.In when Ports.Length > 0:
                    In(PortOf(where), Math.Min(size, 4));
                    break;
                case GuestProgram.Step.Store when Registers.Length > 0:
                    Store(Registers[(where >> 12) % Registers.Length] + (where & 0xFFFu & ~(uint)(size - 1)), value, size);
                    break;
                case GuestProgram.Step.Load when Registers.Length > 0:
                    Load(Registers[(where >> 12) % Registers.Length] + (where & 0xFFFu & ~(uint)(size - 1)), size);
                    break;
                case GuestProgram.Step.Memory:
                    lock (Services.Lock)
                        Services.Memory.Write(MemoryBase + where, program.Slice(at + 4, size));
                    break;
                case GuestProgram.Step.Drain:
                    Drain();
                    break;
                case GuestProgram.Step.Pass:
                    Pass((long)(value % 2_000_000) * 1000);
                    break;
                case GuestProgram.Step.Config:
                    lock (Services.Lock)
                        foreach (var f in Bus.Functions)
                            f.ConfigWrite(where & 0xFF & ~3, (uint)value, 4);
                    break;
            }
        }
        Drain();
        Action[] due;
        lock (Services.Lock)
            due = [.. Retries];
        Retries.Clear();
        lock (Services.Lock)
            foreach (var action in due)
                action();
        Drain();
        // A state in whatever condition can be saved, and loaded, and is the same again.
        lock (Services.Lock)
            foreach (var device in _devices)
            {
                var first = new StateWriter();
                device.Describe(first);
                device.Describe(new StateReader(first.ToArray()));
                device.Reset();
            }
        Drain();
        foreach (var device in _devices)
            device.Close();
    }

    public void SetLine(int line, bool asserted)
    {
    }

    public void SendMessage(ulong address, uint data)
    {
    }
}

/// <summary>A small disk in memory, some of whose requests fail.</summary>
internal sealed class FaultyDisk(int length) : BlockDevice
{
    private readonly byte[] _bytes = new byte[length];
    private int _requests;

    public override long Length => _bytes.Length;

    public override string DriverName => "faulty";

    private void Check(long offset, long count)
    {
        if (offset < 0 || count < 0 || offset > _bytes.Length || count > _bytes.Length - offset)
            throw new InvalidOperationException($"a request beyond the disk's end: {count} bytes at {offset}");
        if (++_requests % 13 == 0)
            throw new ImageException(ImageErrorKind.Io, "broken") { Errno = _requests % 26 == 0 ? 28 : 5 };
    }

    public override void Read(long offset, Span<byte> destination)
    {
        Check(offset, destination.Length);
        _bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        Check(offset, source.Length);
        source.CopyTo(_bytes.AsSpan((int)offset));
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        Check(offset, count);
        _bytes.AsSpan((int)offset, (int)count).Clear();
    }

    public override void Discard(long offset, long count) => Check(offset, count);

    public override void Flush() => Check(0, 0);
}
