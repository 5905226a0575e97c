using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Devices.Misc;
using static ImgKit.Machine.Firmware.BootRom;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// Starts Linux after the firmware, through the kernel's own 16-bit setup code: that code looks at the processor and, where it will not do, says what is
/// missing. Sources: Linux, Documentation/arch/x86/boot.rst; the keys of the firmware configuration that QEMU's boot ROMs share.
/// </summary>
internal static class LinuxBootRom
{
    private const string RomName = "genroms/linuxboot.bin";
    private const uint SetupAt = 0x1_0000, CommandLineAt = 0x2_0000, KernelAt = 0x10_0000;

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
        config.SetFile(RomName, Build("Linux", [Piece.Of(SetupData, SetupAt, code.Length), Piece.Of(CommandLineData, CommandLineAt, line.Length),
            Piece.Of(KernelData, KernelAt, body.Length), Piece.Of(InitrdData, diskAt, disk.Length)], Tail));
        return "/rom@" + RomName;
    }

    private static void Item(FwCfg config, ushort address, ushort size, ushort data, uint at, byte[] content)
    {
        config.SetItem(address, BitConverter.GetBytes(at));
        config.SetItem(size, BitConverter.GetBytes(content.Length));
        config.SetItem(data, content);
    }

    // Enters the setup code with its own segment everywhere.
    private static ReadOnlySpan<byte> Tail =>
    [
        0xB8, 0x00, 0x10,                   // mov ax, 0x1000
        0x8E, 0xD8, 0x8E, 0xC0,             // mov ds, ax; mov es, ax
        0x8E, 0xE0, 0x8E, 0xE8,             // mov fs, ax; mov gs, ax
        0x8E, 0xD0,                         // mov ss, ax
        0xBC, 0x00, 0xFE,                   // mov sp, 0xfe00
        0xEA, 0x00, 0x00, 0x20, 0x10,       // jmp 0x1020:0
    ];
}
