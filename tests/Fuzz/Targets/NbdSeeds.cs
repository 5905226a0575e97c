using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Fuzz.Targets;

/// <summary>Both sides of NBD conversations.</summary>
internal static class NbdSeeds
{
    /// <summary>What clients send: a handshake, then requests.</summary>
    public static IEnumerable<byte[]> Clients()
    {
        byte[] requests = [.. Request(0, 0, 0, 4096), .. Request(1, 0, 512, 64), .. new byte[64], .. Request(6, 2, 4096, 8192), .. Request(4, 0, 0, 4096),
            .. Request(7, 0, 0, 65536), .. Request(5, 0, 0, 4096), .. Request(3, 0, 0, 0), .. Request(0, 4, 100, 3000), .. Request(2, 0, 0, 0)];
        byte[] go = [0, 0, 0, 0, 0, 1, 0, 3];
        byte[] context = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15, .. Encoding.ASCII.GetBytes("base:allocation")];
        yield return [0, 0, 0, 3, .. Option(1, []), .. requests];
        yield return [0, 0, 0, 3, .. Option(8, []), .. Option(10, context), .. Option(7, go), .. requests];
        yield return [0, 0, 0, 3, .. Option(3, []), .. Option(8, []), .. Option(9, context), .. Option(6, go), .. Option(2, [])];
        yield return [0, 0, 0, 3, .. Option(11, []), .. Option(10, context), .. Option(7, go), .. Extended(0, 0, 0, 4096), .. Extended(1, 32, 512, 64), .. new byte[64],
            .. Extended(7, 0, 0, 65536), .. Extended(6, 16, 0, 4096), .. Extended(2, 0, 0, 0)];
    }

    /// <summary>What servers send to a client that asks for an export and then reads.</summary>
    public static IEnumerable<byte[]> Servers()
    {
        byte[] greeting = [.. Encoding.ASCII.GetBytes("NBDMAGICIHAVEOPT"), 0, 3];
        byte[] export = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x0d, 0xed];
        byte[] sizes = [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0];
        byte[] context = [0, 0, 0, 0, .. Encoding.ASCII.GetBytes("base:allocation")];
        byte[] start = [.. greeting, .. Reply(11, 0x8000_0001, []), .. Reply(8, 1, []), .. Reply(10, 4, context), .. Reply(10, 1, []), .. Reply(7, 3, export),
            .. Reply(7, 3, sizes), .. Reply(7, 1, [])];
        yield return [.. start, .. Chunk(1, 1, [0, 0, 0, 0, 0, 0, 0, 0, .. new byte[4096]], 0), .. Chunk(1, 5, [0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 3, 0, 0, 240, 0, 0, 0, 0, 0], 1 << 32 | 0)];
        yield return [.. start, .. Chunk(0, 1, [0, 0, 0, 0, 0, 0, 0, 0, .. new byte[1024]], 0), .. Chunk(1, 2, [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 12, 0], 0)];
        yield return [.. start, .. Chunk(1, 0x8001, [0, 0, 0, 5, 0, 2, 65, 66], 0)];
        yield return [.. greeting, .. Reply(11, 0x8000_0001, []), .. Reply(8, 0x8000_0001, []), .. Reply(7, 3, export), .. Reply(7, 1, []),
            0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, .. new byte[4096]];
        yield return [.. Encoding.ASCII.GetBytes("NBDMAGIC"), 0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, .. new byte[124],
            0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, .. new byte[4096]];
    }

    private static byte[] Option(uint option, byte[] data) => [.. Encoding.ASCII.GetBytes("IHAVEOPT"), .. Number(option), .. Number((uint)data.Length), .. data];

    private static byte[] Reply(uint option, uint type, byte[] data) =>
        [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, .. Number(option), .. Number(type), .. Number((uint)data.Length), .. data];

    private static byte[] Chunk(ushort flags, ushort type, byte[] data, ulong cookie)
    {
        byte[] head = new byte[20];
        BinaryPrimitives.WriteUInt32BigEndian(head, 0x668e33ef);
        BinaryPrimitives.WriteUInt16BigEndian(head.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(head.AsSpan(6), type);
        // The first request of a connection has generation 1 and slot 0, the next one generation 2.
        BinaryPrimitives.WriteUInt64BigEndian(head.AsSpan(8), cookie + (1UL << 32));
        BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(16), (uint)data.Length);
        return [.. head, .. data];
    }

    private static byte[] Request(ushort command, ushort flags, ulong offset, uint length)
    {
        byte[] b = new byte[28];
        BinaryPrimitives.WriteUInt32BigEndian(b, 0x25609513);
        Fill(b, command, flags, offset);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(24), length);
        return b;
    }

    private static byte[] Extended(ushort command, ushort flags, ulong offset, ulong length)
    {
        byte[] b = new byte[32];
        BinaryPrimitives.WriteUInt32BigEndian(b, 0x21e41c71);
        Fill(b, command, flags, offset);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(24), length);
        return b;
    }

    private static void Fill(byte[] b, ushort command, ushort flags, ulong offset)
    {
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(6), command);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(8), command);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(16), offset);
    }

    private static byte[] Number(uint n)
    {
        byte[] b = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(b, n);
        return b;
    }
}
