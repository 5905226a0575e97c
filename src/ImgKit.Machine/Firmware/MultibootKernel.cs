using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Devices.Misc;
using static ImgKit.Machine.Firmware.BootRom;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// Starts a Multiboot kernel after the firmware, which leaves a text screen, interrupts and buses as such kernels expect them. Source: GNU, Multiboot
/// Specification 0.6.96.
/// </summary>
public static class MultibootKernel
{
    private const string RomName = "genroms/multiboot.bin";
    private const ushort KernelData = 0x11, ModuleData = 0x12, InformationData = 0x18, Nothing = 0x3FFF;
    private const int SearchLength = 8192, MaxModules = 64, MaxKernelPieces = 256, StringRoom = 0x1_0000;

    // Low memory that the firmware is done with: the information's page, strings behind it.
    private const uint InformationAt = 0x1_0000, ModulesAt = 0x100, LoaderNameAt = 0x500, DescriptorsAt = 0x700, DescriptorRegisterAt = 0x718,
        EntryCodeAt = 0x720, MapAt = 0x800, InformationLength = 0x1000, StringsAt = InformationAt + InformationLength;
    private const uint Megabyte = 1 << 20, LowStart = 0x7C00, LowEnd = 0x8_0000;

    // Which fields of the information are there: sizes of memory, boot device, command line, map of memory, the loader's name; modules.
    private const uint Fields = 0x247, ModuleField = 8;

    /// <summary>The file has a Multiboot header.</summary>
    public static bool IsMultiboot(BootFile kernel) => HeaderAt(kernel.Read(0, (int)Math.Min(kernel.Length, SearchLength))) >= 0;

    private static int HeaderAt(ReadOnlySpan<byte> head)
    {
        for (int at = 0; at + 12 <= head.Length; at += 4)
            if (U32(head, at) == 0x1BADB002 && U32(head, at) + U32(head, at + 4) + U32(head, at + 8) == 0)
                return at;
        return -1;
    }

    private static uint U32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    /// <summary>Gives kernel, modules and ROM to the firmware. Returns the ROM's place in the boot order. Throws <see cref="MachineException"/>.</summary>
    internal static string Provide(FwCfg config, BootFile kernel, IReadOnlyList<(BootFile Content, string CommandLine)> modules, string commandLine,
        ulong lowMemory)
    {
        // The firmware keeps tables in the last part of memory.
        var layout = new Layout(lowMemory < 2 * Megabyte ? 0 : lowMemory - Megabyte);
        uint entry = PlaceKernel(kernel, layout);
        byte[] information = new byte[InformationLength + StringRoom];
        int length = (int)InformationLength;
        uint Text(string text)
        {
            int n = Encoding.UTF8.GetByteCount(text) + 1;
            if (n > information.Length - length)
                throw new MachineException("the kernel command line is too long");
            Encoding.UTF8.GetBytes(text, information.AsSpan(length));
            length += n;
            return InformationAt + (uint)(length - n);
        }
        void Put(uint at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(information.AsSpan((int)at), value);

        if (modules.Count > MaxModules)
            throw new MachineException($"there are more than {MaxModules} modules");
        // The kernel's own name comes first.
        Put(16, Text($"{kernel.Name} {commandLine}"));
        for (int i = 0; i < modules.Count; i++)
        {
            var (content, arguments) = modules[i];
            uint at = layout.AddModule(content), entryAt = ModulesAt + 16 * (uint)i;
            Put(entryAt, at);
            Put(entryAt + 4, at + (uint)content.Length);
            Put(entryAt + 8, Text(arguments));
        }
        Put(0, Fields | (modules.Count > 0 ? ModuleField : 0));
        Put(12, 0x8000_FFFF);                                       // the first disk
        Put(20, (uint)modules.Count);
        Put(24, InformationAt + ModulesAt);
        Put(48, InformationAt + MapAt);
        Put(64, InformationAt + LoaderNameAt);
        "kvm\0"u8.CopyTo(information.AsSpan((int)LoaderNameAt));
        Put(DescriptorsAt + 8, 0x0000_FFFF);                        // code and data from 0 to 4 GiB
        Put(DescriptorsAt + 12, 0x00CF_9B00);
        Put(DescriptorsAt + 16, 0x0000_FFFF);
        Put(DescriptorsAt + 20, 0x00CF_9300);
        BinaryPrimitives.WriteUInt16LittleEndian(information.AsSpan((int)DescriptorRegisterAt), 23);
        Put(DescriptorRegisterAt + 2, InformationAt + DescriptorsAt);
        EntryCode(entry).CopyTo(information.AsSpan((int)EntryCodeAt));

        config.SetItem(KernelData, layout.ReadKernel());
        config.SetItem(ModuleData, layout.ReadModules());
        config.SetItem(InformationData, information[..length]);
        config.SetFile(RomName, Build("Multiboot", [.. layout.Pieces, Piece.Of(InformationData, InformationAt, length)], Tail));
        return "/rom@" + RomName;
    }

    /// <summary>What of which item goes where.</summary>
    private sealed class Layout(ulong top)
    {
        private readonly List<(BootFile File, long Offset, int Length)> _kernel = [], _modules = [];
        private readonly List<Piece> _zeroes = [];
        private ulong _end = Megabyte;

        internal List<Piece> Pieces { get; } = [];

        /// <summary>A part of the kernel: bytes of the file, then zeroes.</summary>
        internal void AddKernel(BootFile file, long offset, long stored, ulong at, ulong length)
        {
            if (at < Megabyte && !IsFree(at, length))
                throw new MachineException("the kernel asks for memory below 1 MiB that is in use");
            Check(at, length);
            if (length > int.MaxValue)
                throw new MachineException("the kernel does not fit in guest memory");
            if (Pieces.Count + _zeroes.Count >= MaxKernelPieces)
                throw new MachineException($"the kernel has more than {MaxKernelPieces} segments");
            if (offset < 0 || stored < 0 || offset > file.Length || stored > file.Length - offset)
                throw new MachineException("the Multiboot kernel's text lies outside the file");
            Add(_kernel, KernelData, file, offset, (int)stored, (uint)at);
            _end = Math.Max(_end, at + length);
            // Zeroes are read from an item that does not exist, once all of this one is fetched.
            if ((ulong)stored < length)
                _zeroes.Add(Piece.Of(Nothing, (uint)at + (uint)stored, (int)(length - (ulong)stored)));
        }

        // What is low must leave alone the vectors and the stack of the firmware, the information, and what is above.
        private static bool IsFree(ulong at, ulong length) =>
            at >= LowStart && length <= LowEnd && at + length is var end && end <= LowEnd && (end <= InformationAt || at >= StringsAt + StringRoom);

        internal void EndKernel() => Pieces.AddRange(_zeroes);

        internal uint AddModule(BootFile file)
        {
            ulong at = (_end + 0xFFF) & ~0xFFFUL;
            Check(at, (ulong)file.Length);
            Add(_modules, ModuleData, file, 0, (int)file.Length, (uint)at);
            _end = at + (ulong)file.Length;
            return (uint)at;
        }

        /// <summary>The item with the kernel's pieces, one behind the other.</summary>
        internal byte[] ReadKernel() => Read(_kernel);

        /// <summary>The item with the modules, one behind the other.</summary>
        internal byte[] ReadModules() => Read(_modules);

        // The first piece that has bytes selects the item, the others go on in it.
        private void Add(List<(BootFile File, long Offset, int Length)> parts, ushort key, BootFile file, long offset, int length, uint at)
        {
            if (length == 0)
                return;
            Pieces.Add(parts.Count == 0 ? Piece.Of(key, at, length) : Piece.Next(at, length));
            parts.Add((file, offset, length));
        }

        private static byte[] Read(List<(BootFile File, long Offset, int Length)> parts)
        {
            long total = parts.Sum(p => (long)p.Length);
            if (total > Array.MaxLength)
                throw new MachineException("the kernel and its modules do not fit in guest memory");
            byte[] item = new byte[total];
            int at = 0;
            foreach (var (file, offset, length) in parts)
            {
                file.Read(offset, item.AsSpan(at, length));
                at += length;
            }
            return item;
        }

        private void Check(ulong at, ulong length)
        {
            if (at > top || length > top - at)
                throw new MachineException("the kernel and its modules do not fit in guest memory");
        }
    }

    // Returns the entry point.
    private static uint PlaceKernel(BootFile kernel, Layout layout)
    {
        var head = kernel.Read(0, (int)Math.Min(kernel.Length, SearchLength)).AsSpan();
        int at = HeaderAt(head);
        uint flags = U32(head, at + 4);
        if ((flags & 0xFFFF & ~7u) != 0)
            throw new MachineException("the Multiboot kernel asks for features that are not known");
        uint entry;
        if ((flags & 0x1_0000) != 0 && at + 32 <= head.Length)
        {
            uint header = U32(head, at + 12), load = U32(head, at + 16), loadEnd = U32(head, at + 20), clearEnd = U32(head, at + 24);
            long from = at - ((long)header - load), length = loadEnd == 0 ? kernel.Length - from : (long)loadEnd - load;
            if (header < load || from < 0)
                throw new MachineException("the Multiboot kernel's load address is wrong");
            layout.AddKernel(kernel, from, length, load, (ulong)Math.Max(length, (long)clearEnd - load));
            entry = U32(head, at + 28);
        }
        else
        {
            var image = new ElfImage(kernel);
            if (image.Is64)
                throw new MachineException("Cannot load x86-64 image, give a 32bit one.");
            foreach (var s in image.Segments)
                layout.AddKernel(kernel, s.Offset, s.FileLength, s.Physical, s.Length);
            entry = (uint)image.Entry;
        }
        layout.EndKernel();
        return entry;
    }

    // 16-bit: fills in what the firmware knows, then enters protected mode.
    private static ReadOnlySpan<byte> Tail =>
    [
        0xCD, 0x12,                                     //     int 0x12                     kilobytes of low memory
        0xB9, 0x00, 0x10,                               //     mov cx, 0x1000
        0x8E, 0xC1,                                     //     mov es, cx
        0x66, 0x0F, 0xB7, 0xC0,                         //     movzx eax, ax
        0x26, 0x66, 0xA3, 0x04, 0x00,                   //     mov es:[4], eax
        0x66, 0x31, 0xDB,                               //     xor ebx, ebx
        0xBF, 0x04, 0x08,                               //     mov di, 0x804                an entry: its size, then what int 0x15 gives
        0x66, 0xB8, 0x20, 0xE8, 0x00, 0x00,             // 1:  mov eax, 0xe820
        0x66, 0xBA, 0x50, 0x41, 0x4D, 0x53,             //     mov edx, "SMAP"
        0x66, 0xB9, 0x14, 0x00, 0x00, 0x00,             //     mov ecx, 20
        0xCD, 0x15,                                     //     int 0x15
        0x72, 0x37,                                     //     jc 3f
        0x26, 0x66, 0x83, 0x7D, 0x04, 0x00,             //     cmp dword es:[di+4], 0
        0x75, 0x18,                                     //     jne 2f
        0x26, 0x66, 0x81, 0x3D, 0x00, 0x00, 0x10, 0x00, //     cmp dword es:[di], 0x100000
        0x75, 0x0E,                                     //     jne 2f
        0x26, 0x66, 0x8B, 0x45, 0x08,                   //     mov eax, es:[di+8]
        0x66, 0xC1, 0xE8, 0x0A,                         //     shr eax, 10
        0x26, 0x66, 0xA3, 0x08, 0x00,                   //     mov es:[8], eax              kilobytes above 1 MiB
        0x26, 0x66, 0xC7, 0x45, 0xFC, 0x14, 0x00, 0x00, 0x00,   // 2:  mov dword es:[di-4], 20
        0x83, 0xC7, 0x18,                               //     add di, 24
        0x81, 0xFF, 0xE8, 0x0F,                         //     cmp di, 0xfe8                the page is full
        0x77, 0x05,                                     //     ja 3f
        0x66, 0x85, 0xDB,                               //     test ebx, ebx
        0x75, 0xB3,                                     //     jnz 1b
        0x81, 0xEF, 0x04, 0x08,                         // 3:  sub di, 0x804
        0x26, 0x89, 0x3E, 0x2C, 0x00,                   //     mov es:[44], di              length of the map
        0xFA,                                           //     cli
        0x26, 0x0F, 0x01, 0x16, 0x18, 0x07,             //     lgdt es:[0x718]
        0x0F, 0x20, 0xC0,                               //     mov eax, cr0
        0x0C, 0x01,                                     //     or al, 1
        0x0F, 0x22, 0xC0,                               //     mov cr0, eax
        0x66, 0xEA, 0x20, 0x07, 0x01, 0x00, 0x08, 0x00, //     jmp 8:0x10720
    ];

    // 32-bit, in the information's page.
    private static byte[] EntryCode(uint entry) =>
    [
        0xB8, 0x10, 0x00, 0x00, 0x00,                   // mov eax, 0x10
        0x8E, 0xD8, 0x8E, 0xC0,                         // mov ds, eax; mov es, eax
        0x8E, 0xE0, 0x8E, 0xE8,                         // mov fs, eax; mov gs, eax
        0x8E, 0xD0,                                     // mov ss, eax
        0xB8, 0x02, 0xB0, 0xAD, 0x2B,                   // mov eax, 0x2badb002
        0xBB, 0x00, 0x00, 0x01, 0x00,                   // mov ebx, 0x10000
        0xB9, .. BitConverter.GetBytes(entry),          // mov ecx, entry
        0xFF, 0xE1,                                     // jmp ecx
    ];
}
