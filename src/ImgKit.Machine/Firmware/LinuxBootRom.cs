using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Devices.Misc;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// Starts Linux after the firmware, through the kernel's own 16-bit setup code: that code looks at the processor and, where it will not do, says what is
/// missing. An option ROM fetches the pieces by the firmware configuration's DMA and jumps. Sources: Linux, Documentation/arch/x86/boot.rst;
/// Plug and Play BIOS Specification 1.0A, 3.2; QEMU's docs/specs/fw_cfg and the keys that its boot ROMs share.
/// </summary>
internal static class LinuxBootRom
{
    private const string RomName = "genroms/linuxboot.bin";
    private const uint SetupAt = 0x1_0000, CommandLineAt = 0x2_0000, KernelAt = 0x10_0000;
    private const int CountAt = 0x9E, TableAt = 0xA0;
    private const uint Read = 2, Select = 8;

    // Keys of the firmware configuration
    private const ushort KernelAddress = 0x07, KernelSize = 0x08, InitrdAddress = 0x0A, InitrdSize = 0x0B, KernelEntry = 0x10, KernelData = 0x11,
        InitrdData = 0x12, CommandLineAddress = 0x13, CommandLineSize = 0x14, CommandLineData = 0x15, SetupAddress = 0x16, SetupSize = 0x17, SetupData = 0x18;

    /// <summary>Gives kernel, RAM disk and ROM to the firmware. Returns the ROM's place in the boot order. Throws <see cref="MachineException"/>.</summary>
    internal static string Provide(FwCfg config, BootFile kernel, BootFile? initrd, string commandLine, ulong lowMemory)
    {
        int sectors = kernel.Read(0x1F1, 1)[0], setup = (sectors == 0 ? 4 : sectors) * 512 + 512;
        if (setup >= kernel.Length || setup > 0x8000)
            throw new MachineException("the kernel file ends inside its setup code");
        byte[] code = kernel.Read(0, setup), body = kernel.Read(setup, (int)(kernel.Length - setup));
        byte[] line = Encoding.UTF8.GetBytes(commandLine + "\0");
        byte[] disk = initrd?.Read(0, (int)initrd.Length) ?? [];
        // The firmware keeps tables in the last part of memory.
        ulong top = Math.Min(lowMemory - (1 << 20), kernel.U16(0x206) >= 0x203 ? kernel.U32(0x22C) + 1UL : 0x3800_0000);
        if ((ulong)body.Length + (ulong)disk.Length + KernelAt > top)
            throw new MachineException("initrd does not fit in guest memory");
        uint diskAt = disk.Length == 0 ? 0 : (uint)((top - (ulong)disk.Length) & ~0xFFFUL);
        code[0x210] = 0xB0;                 // as QEMU's loader
        code[0x211] |= 0x80;                // the heap may be used
        BinaryPrimitives.WriteUInt32LittleEndian(code.AsSpan(0x218), diskAt);
        BinaryPrimitives.WriteInt32LittleEndian(code.AsSpan(0x21C), disk.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(code.AsSpan(0x224), 0xFC00);
        BinaryPrimitives.WriteUInt32LittleEndian(code.AsSpan(0x228), CommandLineAt);
        Item(config, SetupAddress, SetupSize, SetupData, SetupAt, code);
        Item(config, CommandLineAddress, CommandLineSize, CommandLineData, CommandLineAt, line);
        Item(config, KernelAddress, KernelSize, KernelData, KernelAt, body);
        Item(config, InitrdAddress, InitrdSize, InitrdData, diskAt, disk);
        config.SetItem(KernelEntry, BitConverter.GetBytes(KernelAt));
        config.SetFile(RomName, Rom([(SetupData, SetupAt, code.Length), (CommandLineData, CommandLineAt, line.Length),
            (KernelData, KernelAt, body.Length), (InitrdData, diskAt, disk.Length)]));
        return "/rom@" + RomName;
    }

    private static void Item(FwCfg config, ushort address, ushort size, ushort data, uint at, byte[] content)
    {
        config.SetItem(address, BitConverter.GetBytes(at));
        config.SetItem(size, BitConverter.GetBytes(content.Length));
        config.SetItem(data, content);
    }

    /// <summary>The ROM: a Plug and Play header whose bootstrap entry makes one DMA request for each piece, then enters the setup code.</summary>
    internal static byte[] Rom(ReadOnlySpan<(ushort Key, uint At, int Length)> pieces)
    {
        var rom = new byte[512];
        rom[0] = 0x55;
        rom[1] = 0xAA;
        rom[2] = 1;
        ReadOnlySpan<byte> jump = [0xEB, 0x3D];                     // jmp to 0x42
        jump.CopyTo(rom.AsSpan(3));
        rom[0x1A] = 0x1C;                                           // the header's place
        ReadOnlySpan<byte> header =
        [
            (byte)'$', (byte)'P', (byte)'n', (byte)'P', 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x3C, 0, 2, 0, 0, 0x14, 0, 0, 0, 0, 0x46, 0, 0, 0, 0, 0,        // product name, type: boots by its entry at 0x46
        ];
        header.CopyTo(rom.AsSpan(0x1C));
        "Linux\0"u8.CopyTo(rom.AsSpan(0x3C));
        ReadOnlySpan<byte> code =
        [
            0xB8, 0x20, 0x00,                   // 42: mov ax, 0x20         an initial program load device is there
            0xCB,                               //     retf
            0xFA, 0xFC,                         // 46: cli; cld
            0x0E, 0x1F,                         //     push cs; pop ds
            0x66, 0x31, 0xDB,                   //     xor ebx, ebx
            0x8C, 0xCB,                         //     mov bx, cs
            0x66, 0xC1, 0xE3, 0x04,             //     shl ebx, 4
            0xBE, TableAt, 0x00,                //     mov si, table
            0x8B, 0x0E, CountAt, 0x00,          //     mov cx, [count]
            0x66, 0x0F, 0xB7, 0xC6,             // 5a: movzx eax, si
            0x66, 0x01, 0xD8,                   //     add eax, ebx
            0x66, 0x0F, 0xC8,                   //     bswap eax            the port takes the most significant byte first
            0xBA, 0x18, 0x05,                   //     mov dx, 0x518
            0x66, 0xEF,                         //     out dx, eax          done when it returns
            0x83, 0xC6, 0x10,                   //     add si, 16
            0xE2, 0xEC,                         //     loop 5a
            0xB8, 0x00, 0x10,                   //     mov ax, 0x1000
            0x8E, 0xD8, 0x8E, 0xC0,             //     mov ds, ax; mov es, ax
            0x8E, 0xE0, 0x8E, 0xE8,             //     mov fs, ax; mov gs, ax
            0x8E, 0xD0,                         //     mov ss, ax
            0xBC, 0x00, 0xFE,                   //     mov sp, 0xfe00
            0xEA, 0x00, 0x00, 0x20, 0x10,       //     jmp 0x1020:0
        ];
        code.CopyTo(rom.AsSpan(0x42));
        int count = 0;
        foreach (var (key, at, length) in pieces)
        {
            if (length == 0)
                continue;
            var entry = rom.AsSpan(TableAt + 16 * count++);
            BinaryPrimitives.WriteUInt32BigEndian(entry, (uint)key << 16 | Select | Read);
            BinaryPrimitives.WriteInt32BigEndian(entry[4..], length);
            BinaryPrimitives.WriteUInt64BigEndian(entry[8..], at);
        }
        rom[CountAt] = (byte)count;
        rom[0x1C + 9] = Checksum(rom.AsSpan(0x1C, 32));
        rom[511] = Checksum(rom);
        return rom;
    }

    private static byte Checksum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte b in bytes)
            sum += b;
        return (byte)-sum;
    }
}
