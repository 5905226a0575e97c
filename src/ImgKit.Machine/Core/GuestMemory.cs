using System.Buffers.Binary;
using ImgKit.Cpu;
using ImgKit.Host;

namespace ImgKit.Machine;

/// <summary>A piece of host memory that a guest-physical range stands for: DMA without a copy.</summary>
/// <param name="Host">host address.</param>
/// <param name="Length">bytes, above 0.</param>
/// <param name="Guest">guest-physical address.</param>
public readonly record struct DmaSegment(nint Host, int Length, ulong Guest)
{
    /// <summary>The bytes. Valid as long as the machine lives; the guest may change them at any time.</summary>
    public unsafe Span<byte> Span => new((void*)Host, Length);
}

/// <summary>
/// Guest-physical memory as devices see it: RAM in one host mapping, low part from address 0 and the rest from 4 GiB, found
/// through the flat map, so that a range that a device or ROM covers is not taken for RAM. From any thread.
/// </summary>
public sealed unsafe class GuestMemory : IDisposable
{
    /// <summary>RAM never reaches above this address below 4 GiB: PCI and the APICs live there.</summary>
    public const ulong LowLimit = 0xC000_0000;

    private readonly MemoryMapping _ram;

    /// <summary>Reserves RAM. Throws <see cref="IOException"/> when the host has none.</summary>
    /// <param name="size">bytes, a multiple of 4096.</param>
    /// <param name="map">the flat map it will be found through.</param>
    public GuestMemory(ulong size, PhysicalMemoryMap map)
    {
        Map = map;
        Size = size;
        LowSize = Math.Min(size, LowLimit);
        _ram = MemoryMapping.Anonymous((nuint)size);
    }

    /// <summary>All RAM, in bytes.</summary>
    public ulong Size { get; }

    /// <summary>RAM from address 0.</summary>
    public ulong LowSize { get; }

    /// <summary>RAM from 4 GiB.</summary>
    public ulong HighSize => Size - LowSize;

    /// <summary>Guest-physical range that the engine uses itself: the guest must be told to leave it alone. Length 0: none.</summary>
    public (ulong Start, ulong Length) Reserved { get; set; }

    /// <summary>Host address of the first byte of RAM.</summary>
    public nint Base => _ram.Address;

    /// <summary>The flat map.</summary>
    public PhysicalMemoryMap Map { get; }

    /// <summary>Host address of a RAM offset (not an address: RAM above 4 GiB follows the low RAM).</summary>
    public byte* RamPointer(ulong offset) => (byte*)_ram.Address + offset;

    /// <summary>The bytes of RAM below 4 GiB from <paramref name="address"/>, whatever covers them in the flat map: for firmware
    /// and kernels put in place before the guest starts. Throws <see cref="ArgumentOutOfRangeException"/>.</summary>
    public Span<byte> Ram(ulong address, int length)
    {
        if (address > LowSize || (ulong)length > LowSize - address)
            throw new ArgumentOutOfRangeException(nameof(address), $"no RAM at 0x{address:x}");
        return new Span<byte>((byte*)_ram.Address + address, length);
    }

    /// <summary>The longest piece of host memory from <paramref name="address"/> up to <paramref name="length"/> bytes.
    /// False where there is no RAM (or, for reads, ROM).</summary>
    /// <param name="forWrite">a device will write: call <see cref="Written"/> afterwards.</param>
    public bool TryGet(ulong address, long length, bool forWrite, out DmaSegment segment)
    {
        if (length > 0 && Map.TryFind(address, out var region) && (!forWrite || region.Kind == MemoryKind.Ram))
        {
            ulong offset = address - region.Start;
            int n = (int)Math.Min((ulong)Math.Min(length, int.MaxValue & ~4095), region.Length - offset);
            segment = new DmaSegment((nint)((ulong)region.HostAddress + offset), n, address);
            return true;
        }
        segment = default;
        return false;
    }

    /// <summary>Adds the pieces of a guest range to a list. False, with nothing added, when a byte of it is not memory.</summary>
    public bool TryAdd(List<DmaSegment> list, ulong address, long length, bool forWrite)
    {
        int before = list.Count;
        while (length > 0)
        {
            if (!TryGet(address, length, forWrite, out var s))
            {
                list.RemoveRange(before, list.Count - before);
                return false;
            }
            list.Add(s);
            address += (ulong)s.Length;
            length -= s.Length;
        }
        return true;
    }

    /// <summary>Tells engines and screens that a device has written guest memory.</summary>
    public void Written(ulong address, long length)
    {
        if (length <= 0)
            return;
        Map.NotifyDeviceWrite(address, (ulong)length);
        if (Map.TryFind(address, out var region) && region.DirtyLog != 0)
        {
            ulong first = (address - region.Start) >> 12;
            ulong last = (Math.Min(address + (ulong)length, region.End) - 1 - region.Start) >> 12;
            new Span<byte>((byte*)region.DirtyLog + first, (int)(last - first + 1)).Fill(1);
        }
    }

    /// <summary>Copies from guest memory; what is not memory reads as ones. False when any of it was not.</summary>
    public bool Read(ulong address, Span<byte> to)
    {
        bool all = true;
        while (to.Length > 0)
        {
            int n;
            if (TryGet(address, to.Length, false, out var s))
            {
                n = s.Length;
                s.Span.CopyTo(to);
            }
            else
            {
                n = (int)Math.Min((ulong)to.Length, 4096 - (address & 4095));
                to[..n].Fill(0xFF);
                all = false;
            }
            to = to[n..];
            address += (ulong)n;
        }
        return all;
    }

    /// <summary>Copies to guest memory; what goes to other than RAM is lost. False when any of it was.</summary>
    public bool Write(ulong address, ReadOnlySpan<byte> from)
    {
        bool all = true;
        while (from.Length > 0)
        {
            int n;
            if (TryGet(address, from.Length, true, out var s))
            {
                n = s.Length;
                from[..n].CopyTo(s.Span);
                Written(address, n);
            }
            else
            {
                n = (int)Math.Min((ulong)from.Length, 4096 - (address & 4095));
                all = false;
            }
            from = from[n..];
            address += (ulong)n;
        }
        return all;
    }

    /// <summary>A little-endian 16-bit value.</summary>
    public ushort ReadUInt16(ulong address)
    {
        Span<byte> b = stackalloc byte[2];
        Read(address, b);
        return BinaryPrimitives.ReadUInt16LittleEndian(b);
    }

    /// <summary>A little-endian 32-bit value.</summary>
    public uint ReadUInt32(ulong address)
    {
        Span<byte> b = stackalloc byte[4];
        Read(address, b);
        return BinaryPrimitives.ReadUInt32LittleEndian(b);
    }

    /// <summary>A little-endian 64-bit value.</summary>
    public ulong ReadUInt64(ulong address)
    {
        Span<byte> b = stackalloc byte[8];
        Read(address, b);
        return BinaryPrimitives.ReadUInt64LittleEndian(b);
    }

    /// <summary>Stores a little-endian 16-bit value.</summary>
    public void WriteUInt16(ulong address, ushort value)
    {
        Span<byte> b = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(b, value);
        Write(address, b);
    }

    /// <summary>Stores a little-endian 32-bit value.</summary>
    public void WriteUInt32(ulong address, uint value)
    {
        Span<byte> b = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(b, value);
        Write(address, b);
    }

    /// <inheritdoc/>
    public void Dispose() => _ram.Dispose();
}
