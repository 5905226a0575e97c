using System.Buffers.Binary;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Firmware;

/// <summary>What firmware does for PCI devices before an operating system starts: addresses, interrupt lines, decoding on.</summary>
internal static class PciSetup
{
    private const uint PortsFrom = 0xC000;

    internal static void Assign(PciBus bus, uint memoryFrom)
    {
        ReadOnlySpan<byte> lines = [10, 10, 11, 11];
        if (bus[8] is { } isa)
            for (int i = 0; i < 4; i++)
                bus.ConfigWrite(isa.DeviceFunction, 0x60 + i, lines[i], 1);
        uint port = PortsFrom;
        ulong memory = memoryFrom;
        foreach (var f in bus.Functions)
        {
            ushort command = 0;
            for (int i = 0; i < 6; i++)
            {
                int at = 0x10 + 4 * i, id = f.DeviceFunction;
                uint type = f.ConfigRead(at, 4);
                f.ConfigWrite(at, uint.MaxValue, 4);
                uint mask = f.ConfigRead(at, 4);
                if ((mask & ~15u) == 0 && (mask & 1) == 0 || mask == 0)
                    continue;
                if ((type & 1) != 0)
                {
                    uint size = ~(mask & ~3u | 0xFFFF_0000) + 1;
                    port = (port + size - 1) & ~(size - 1);
                    f.ConfigWrite(at, port, 4);
                    port += size;
                    command |= 1;
                }
                else
                {
                    ulong size = ~(ulong)(mask & ~15u) + 1 & 0xFFFF_FFFF;
                    memory = (memory + size - 1) & ~(size - 1);
                    f.ConfigWrite(at, (uint)memory, 4);
                    memory += size;
                    command |= 2;
                    if ((type & 4) != 0)
                    {
                        f.ConfigWrite(at + 4, 0, 4);
                        i++;
                    }
                }
            }
            f.ConfigWrite(0x30, 0, 4);
            int pin = f.ConfigRead(0x3D, 1) is var p and not 0 ? (int)p - 1 : -1;
            if (pin >= 0 && f.ClassId != 0x0680)
                f.ConfigWrite(0x3C, lines[PciBus.WireOf(f.DeviceFunction, pin)], 1);
            if (f.ClassId == 0x0101)
            {
                command |= 5;
                f.ConfigWrite(0x40, 0x8000_8000, 4);    // both channels decoded
            }
            f.ConfigWrite(4, BinaryPrimitives.ReadUInt16LittleEndian(f.Config[4..]) | (uint)command, 2);
        }
    }
}
