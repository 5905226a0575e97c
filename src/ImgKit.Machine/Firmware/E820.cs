using System.Buffers.Binary;

namespace ImgKit.Machine.Firmware;

/// <summary>The memory map as INT 15h E820 gives it.</summary>
internal static class E820
{
    internal const uint Ram = 1, Reserved = 2;

    /// <summary>An entry.</summary>
    internal readonly record struct Entry(ulong Start, ulong Length, uint Kind);

    /// <summary>For firmware: all RAM, and nothing about what firmware will reserve.</summary>
    internal static byte[] File(GuestMemory memory)
    {
        var entries = new List<Entry> { new(0, memory.LowSize, Ram) };
        AddRest(entries, memory);
        return Encode(entries);
    }

    /// <summary>For a kernel that starts without firmware: the legacy area and what the tables take is reserved.</summary>
    internal static List<Entry> ForKernel(GuestMemory memory)
    {
        var entries = new List<Entry>
        {
            new(0, 0x9FC00, Ram),
            new(0x9FC00, 0x400, Reserved),
            new(0xF0000, 0x10000, Reserved),
            new(0x100000, memory.LowSize - 0x100000, Ram),
        };
        AddRest(entries, memory);
        return entries;
    }

    private static void AddRest(List<Entry> entries, GuestMemory memory)
    {
        if (memory.Reserved.Length > 0)
            entries.Add(new Entry(memory.Reserved.Start, memory.Reserved.Length, Reserved));
        if (memory.HighSize > 0)
            entries.Add(new Entry(1UL << 32, memory.HighSize, Ram));
    }

    /// <summary>20 bytes an entry.</summary>
    internal static byte[] Encode(List<Entry> entries)
    {
        var bytes = new byte[20 * entries.Count];
        for (int i = 0; i < entries.Count; i++)
        {
            var e = bytes.AsSpan(20 * i);
            BinaryPrimitives.WriteUInt64LittleEndian(e, entries[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(e[8..], entries[i].Length);
            BinaryPrimitives.WriteUInt32LittleEndian(e[16..], entries[i].Kind);
        }
        return bytes;
    }
}
