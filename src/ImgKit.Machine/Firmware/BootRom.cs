using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// An option ROM that the firmware starts like a disk: it has pieces of the firmware configuration put into memory by DMA, then runs a few
/// instructions of its owner. Sources: Plug and Play BIOS Specification 1.0A, 3.2; QEMU's docs/specs/fw_cfg.
/// </summary>
internal static class BootRom
{
    private const uint Read = 2, Select = 8;
    private const int HeaderAt = 0x1C, NameAt = 0x3C, CodeAt = 0x4C, TailAt = 0x77;

    /// <summary>A piece of the configuration, and where it goes.</summary>
    /// <param name="Control">what the DMA does.</param>
    /// <param name="At">physical address.</param>
    /// <param name="Length">bytes; behind the item's end they are zero.</param>
    internal readonly record struct Piece(uint Control, uint At, int Length)
    {
        /// <summary>The first bytes of an item.</summary>
        internal static Piece Of(ushort key, uint at, int length) => new((uint)key << 16 | Select | Read, at, length);

        /// <summary>The bytes behind those of the piece before.</summary>
        internal static Piece Next(uint at, int length) => new(Read, at, length);
    }

    /// <summary>Makes the ROM.</summary>
    /// <param name="name">what a boot menu shows; at most 15 characters.</param>
    /// <param name="pieces">what is fetched, in this order.</param>
    /// <param name="tail">16-bit code that does not return. It starts with interrupts off, the direction flag clear, and DS at the ROM.</param>
    internal static byte[] Build(string name, IReadOnlyList<Piece> pieces, ReadOnlySpan<byte> tail)
    {
        int table = (TailAt + tail.Length + 15) & ~15, count = pieces.Count(p => p.Length > 0);
        var rom = new byte[(table + 16 * count + 1 + 511) & ~511];
        rom[0] = 0x55;
        rom[1] = 0xAA;
        rom[2] = (byte)(rom.Length / 512);
        ReadOnlySpan<byte> jump = [0xEB, CodeAt - 5];
        jump.CopyTo(rom.AsSpan(3));
        rom[0x1A] = HeaderAt;
        ReadOnlySpan<byte> header =
        [
            (byte)'$', (byte)'P', (byte)'n', (byte)'P', 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            NameAt, 0, 2, 0, 0, 0x14, 0, 0, 0, 0, CodeAt + 4, 0, 0, 0, 0, 0,        // product name, type, where it boots
        ];
        header.CopyTo(rom.AsSpan(HeaderAt));
        Encoding.ASCII.GetBytes(name, rom.AsSpan(NameAt, CodeAt - NameAt - 1));
        ReadOnlySpan<byte> code =
        [
            0xB8, 0x20, 0x00,                   // 4c: mov ax, 0x20         an initial program load device is there
            0xCB,                               //     retf
            0xFA, 0xFC,                         // 50: cli; cld
            0x0E, 0x1F,                         //     push cs; pop ds
            0x66, 0x31, 0xDB,                   //     xor ebx, ebx
            0x8C, 0xCB,                         //     mov bx, cs
            0x66, 0xC1, 0xE3, 0x04,             //     shl ebx, 4
            0xBE, (byte)table, (byte)(table >> 8),      //     mov si, table
            0xB9, (byte)count, (byte)(count >> 8),      //     mov cx, count
            0x66, 0x0F, 0xB7, 0xC6,             // 63: movzx eax, si
            0x66, 0x01, 0xD8,                   //     add eax, ebx
            0x66, 0x0F, 0xC8,                   //     bswap eax            the port takes the most significant byte first
            0xBA, 0x18, 0x05,                   //     mov dx, 0x518
            0x66, 0xEF,                         //     out dx, eax          done when it returns
            0x83, 0xC6, 0x10,                   //     add si, 16
            0xE2, 0xEC,                         //     loop 63
        ];
        code.CopyTo(rom.AsSpan(CodeAt));
        tail.CopyTo(rom.AsSpan(CodeAt + code.Length));
        foreach (var (control, at, length) in pieces)
        {
            if (length == 0)
                continue;
            var entry = rom.AsSpan(table);
            BinaryPrimitives.WriteUInt32BigEndian(entry, control);
            BinaryPrimitives.WriteInt32BigEndian(entry[4..], length);
            BinaryPrimitives.WriteUInt64BigEndian(entry[8..], at);
            table += 16;
        }
        rom[HeaderAt + 9] = AcpiTables.Checksum(rom.AsSpan(HeaderAt, 32));
        rom[^1] = AcpiTables.Checksum(rom);
        return rom;
    }
}
