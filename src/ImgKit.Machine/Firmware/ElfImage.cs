using System.Buffers.Binary;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// What a loader needs of an executable ELF file, checked against the file. Sources: System V ABI, "Object Files" and "Program Loading"; for the
/// entry point without firmware, Xen's docs/misc/pvh (note 18 of the name Xen).
/// </summary>
internal sealed class ElfImage
{
    private const uint Load = 1, Note = 4, EntryNote = 18;
    private const int MaxNotes = 1 << 16;

    /// <summary>Bytes of the file that belong into memory; what is longer there is zero.</summary>
    /// <param name="Offset">where they begin in the file.</param>
    /// <param name="FileLength">how many, at most <paramref name="Length"/>; they lie inside the file.</param>
    /// <param name="Physical">where they go.</param>
    /// <param name="Length">bytes in memory, more than zero; not checked against the guest's memory.</param>
    internal readonly record struct Segment(long Offset, long FileLength, ulong Physical, ulong Length);

    /// <summary>Reads the headers. Throws <see cref="MachineException"/>.</summary>
    internal ElfImage(BootFile file)
    {
        var head = file.Read(0, (int)Math.Min(file.Length, 64)).AsSpan();
        if (head.Length < 64 || U32(head, 0) != 0x464C457F || head[4] is not (1 or 2) || head[5] != 1)
            throw new MachineException("the ELF kernel is neither 32-bit nor 64-bit little-endian");
        bool wide = Is64 = head[4] == 2;
        ulong length = (ulong)file.Length, entry = wide ? U64(head, 24) : U32(head, 24), headers = wide ? U64(head, 32) : U32(head, 28);
        int size = U16(head, wide ? 54 : 42), count = U16(head, wide ? 56 : 44);
        if (size < (wide ? 56 : 32) || headers > length || (ulong)size * (ulong)count > length - headers)
            throw new MachineException("the ELF kernel's program headers lie outside the file");
        Entry = entry;
        for (int i = 0; i < count; i++)
        {
            var header = file.Read((long)headers + i * size, size).AsSpan();
            uint type = U32(header, 0);
            ulong offset = wide ? U64(header, 8) : U32(header, 4), linear = wide ? U64(header, 16) : U32(header, 8);
            ulong physical = wide ? U64(header, 24) : U32(header, 12), stored = wide ? U64(header, 32) : U32(header, 16);
            ulong memory = wide ? U64(header, 40) : U32(header, 20);
            if (offset > length || stored > length - offset)
                throw new MachineException("an ELF segment of the kernel lies outside the file");
            if (type == Note)
                FindEntryNote(file.Read((long)offset, (int)Math.Min(stored, MaxNotes)));
            if (type != Load || memory == 0)
                continue;
            if (stored > memory)
                throw new MachineException("an ELF segment of the kernel is longer than its place");
            Segments.Add(new((long)offset, (long)stored, physical, memory));
            if (entry - linear < memory)
                Entry = entry - linear + physical;
        }
    }

    /// <summary>The file is for 64-bit processors.</summary>
    internal bool Is64 { get; }

    /// <summary>Physical address of the entry point.</summary>
    internal ulong Entry { get; }

    /// <summary>Physical address of the entry for a start without firmware; 0: none.</summary>
    internal ulong PvhEntry { get; private set; }

    /// <summary>What goes where.</summary>
    internal List<Segment> Segments { get; } = [];

    private void FindEntryNote(ReadOnlySpan<byte> notes)
    {
        while (notes.Length >= 12)
        {
            uint name = U32(notes, 0), size = U32(notes, 4), type = U32(notes, 8);
            ulong start = 12 + (((ulong)name + 3) & ~3UL), next = start + (((ulong)size + 3) & ~3UL);
            if (start + size > (ulong)notes.Length)
                return;
            if (type == EntryNote && name == 4 && notes.Slice(12, 3).SequenceEqual("Xen"u8) && size >= 4)
            {
                PvhEntry = U32(notes, (int)start);
                return;
            }
            if (next > (ulong)notes.Length)
                return;
            notes = notes[(int)next..];
        }
    }

    private static ushort U16(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes[at..]);

    private static uint U32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    private static ulong U64(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..]);
}
