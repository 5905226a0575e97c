using System.Buffers.Binary;
using System.Text;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd.Tests;

/// <summary>Extended headers, byte by byte as doc/proto.md gives them ("Extended request message", "Extended reply chunk message"): no
/// client of others on every machine speaks them yet.</summary>
public sealed class ExtendedHeaderTests
{
    private const int Size = 1 << 20;

    private readonly MemoryDisk _disk = new(Size);

    /// <summary>A client that has agreed on extended headers, a context, and the export.</summary>
    private static HostSocket Agree(TestServer server)
    {
        var s = server.Connect();
        s.SetTimeout(TimeSpan.FromSeconds(20));
        Take(s, 18);
        s.Send([0, 0, 0, 3]);
        Ask(s, 11, []);
        Assert.Equal(1u, Reply(s, 11).Type);
        // A structured reply asked for afterwards is refused: extended headers include it.
        Ask(s, 8, []);
        Assert.Equal(0x8000_000Au, Reply(s, 8).Type);
        byte[] context = Encoding.ASCII.GetBytes("base:allocation");
        Ask(s, 10, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, (byte)context.Length, .. context]);
        Assert.Equal(4u, Reply(s, 10).Type);
        Assert.Equal(1u, Reply(s, 10).Type);
        Ask(s, 7, [0, 0, 0, 0, 0, 0]);
        for (uint type = 3; type == 3;)
            type = Reply(s, 7).Type;
        return s;
    }

    private static void Ask(HostSocket s, uint option, byte[] data)
    {
        byte[] b = new byte[16 + data.Length];
        Encoding.ASCII.GetBytes("IHAVEOPT", b);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(8), option);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(12), (uint)data.Length);
        data.CopyTo(b, 16);
        s.Send(b);
    }

    private static (uint Type, byte[] Data) Reply(HostSocket s, uint option)
    {
        byte[] head = Take(s, 20);
        Assert.Equal(0x0003e889045565a9ul, BinaryPrimitives.ReadUInt64BigEndian(head));
        Assert.Equal(option, BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(8)));
        return (BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12)), Take(s, (int)BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(16))));
    }

    private static byte[] Take(HostSocket s, int count)
    {
        byte[] b = new byte[count];
        for (int at = 0; at < count;)
        {
            int n = s.Receive(b.AsSpan(at));
            Assert.True(n > 0, "the server closed the connection");
            at += n;
        }
        return b;
    }

    private static byte[] Request(ushort flags, ushort command, ulong offset, ulong length)
    {
        byte[] b = new byte[32];
        BinaryPrimitives.WriteUInt32BigEndian(b, 0x21e41c71);
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(6), command);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(8), 0x1122334455667788);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(16), offset);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(24), length);
        return b;
    }

    /// <summary>A chunk, whose header repeats the request's cookie and offset.</summary>
    private static (bool Last, ushort Type, byte[] Payload) Chunk(HostSocket s, ulong offset)
    {
        byte[] head = Take(s, 32);
        Assert.Equal(0x6e8a278cu, BinaryPrimitives.ReadUInt32BigEndian(head));
        Assert.Equal(0x1122334455667788ul, BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(8)));
        Assert.Equal(offset, BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(16)));
        return (head[5] == 1, BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(6)), Take(s, (int)BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(24))));
    }

    [Fact]
    public void Every_reply_is_an_extended_chunk()
    {
        _disk.Write(4096, new byte[] { 1, 2, 3, 4 });
        using var server = new TestServer(_disk);
        using var s = Agree(server);
        s.Send([.. Request(32, 1, 8192, 4), 5, 6, 7, 8]);
        Assert.Equal((true, (ushort)0, 0), Summary(Chunk(s, 8192)));
        s.Send(Request(0, 0, 4096, 4));
        var (last, type, payload) = Chunk(s, 4096);
        Assert.Equal((true, (ushort)1), (last, type));
        Assert.Equal([0, 0, 0, 0, 0, 0, 0x10, 0, 1, 2, 3, 4], payload);
        s.Send(Request(0, 3, 0, 0));
        Assert.Equal((true, (ushort)0, 0), Summary(Chunk(s, 0)));
        s.Send(Request(0, 0, Size, 512));
        (last, type, payload) = Chunk(s, Size);
        Assert.Equal((true, (ushort)0x8001, 22u), (last, type, BinaryPrimitives.ReadUInt32BigEndian(payload)));
        Assert.Equal([5, 6, 7, 8], _disk.Content[8192..8196]);
    }

    private static (bool Last, ushort Type, int Length) Summary((bool Last, ushort Type, byte[] Payload) c) => (c.Last, c.Type, c.Payload.Length);

    [Fact]
    public void A_block_status_has_a_count_and_64_bit_fields()
    {
        _disk.Write(65536, new byte[] { 1 });
        using var server = new TestServer(_disk);
        using var s = Agree(server);
        s.Send(Request(0, 7, 0, Size));
        var (last, type, payload) = Chunk(s, 0);
        Assert.Equal((true, (ushort)6), (last, type));
        Assert.Equal(0u, BinaryPrimitives.ReadUInt32BigEndian(payload));
        Assert.Equal(3u, BinaryPrimitives.ReadUInt32BigEndian(payload.AsSpan(4)));
        Assert.Equal(8 + 3 * 16, payload.Length);
        var extents = Enumerable.Range(0, 3).Select(i => (BinaryPrimitives.ReadUInt64BigEndian(payload.AsSpan(8 + 16 * i)), BinaryPrimitives.ReadUInt64BigEndian(payload.AsSpan(16 + 16 * i))));
        Assert.Equal([(65536ul, 3ul), (4096ul, 0ul), ((ulong)Size - 69632, 3ul)], extents);
    }

    [Theory]
    [InlineData(4, 0x7fff_ffff_ffff_0000ul, 22u)]
    [InlineData(6, 0x1_0000_0000ul, 28u)]
    [InlineData(0, 0x1_0000_0000ul, 22u)]
    [InlineData(0, ulong.MaxValue, 22u)]
    [InlineData(7, ulong.MaxValue, 22u)]
    public void Lengths_of_64_bits_are_checked(int command, ulong length, uint error)
    {
        using var server = new TestServer(_disk);
        using var s = Agree(server);
        s.Send(Request(0, (ushort)command, 0, length));
        var (last, type, payload) = Chunk(s, 0);
        Assert.Equal((true, (ushort)0x8001, error), (last, type, BinaryPrimitives.ReadUInt32BigEndian(payload)));
        s.Send(Request(0, 3, 0, 0));
        Assert.Equal((true, (ushort)0, 0), Summary(Chunk(s, 0)));
    }

    [Fact]
    public void A_write_whose_payload_would_be_too_long_ends_the_connection()
    {
        using var server = new TestServer(_disk);
        using var s = Agree(server);
        s.Send(Request(32, 1, 0, 0x1_0000_0000));
        Assert.Equal((ushort)0x8001, Chunk(s, 0).Type);
        Assert.Equal(0, s.Receive(new byte[10]));
    }

    [Fact]
    public void Our_client_uses_them()
    {
        using var server = new TestServer(_disk);
        using var transport = new Block.Protocols.StreamTransport(server.Connect());
        var agreement = new NbdHandshake(transport, null, "").Open("", NbdWire.BaseAllocation);
        Assert.True(agreement.ExtendedHeaders);
        using var device = server.Open();
        device.Write(70_000, new byte[] { 9, 8, 7 });
        device.WriteZeroes(0, 65536);
        byte[] back = new byte[3];
        device.Read(70_000, back);
        Assert.Equal([9, 8, 7], back);
        Assert.True(device.GetExtent(0, Size).IsZero);
    }
}
