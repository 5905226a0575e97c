using System.Buffers.Binary;
using System.Text;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd.Tests;

/// <summary>Whatever a client sends: it is answered or dropped, and another client notices nothing.</summary>
public sealed class HostileClientTests
{
    [Fact]
    public void A_client_that_stops_in_the_handshake_is_dropped_after_the_limit()
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var silent = server.Connect();
        using var half = server.Connect();
        half.Send([0, 0, 0, 3, 0x49, 0x48]);
        using (var good = server.Open())
            good.Read(0, new byte[100]);
        server.WaitUntilEmpty();
    }

    [Fact]
    public void Garbage_is_dropped_and_others_go_on()
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var good = server.Open();
        var random = new Random(7);
        for (int i = 0; i < 60; i++)
        {
            using var bad = server.Connect();
            byte[] garbage = new byte[random.Next(1, 3000)];
            random.NextBytes(garbage);
            try
            {
                if (i % 2 == 0)
                    Negotiate(bad);
                bad.Send(garbage);
            }
            catch (HostException)
            {
                // Dropped already.
                continue;
            }
            good.Read(4096, new byte[4096]);
        }
        good.Write(0, new byte[10]);
    }

    [Theory]
    [InlineData(0, 0xffff_ffffu, 22u)]          // a read that is too long
    [InlineData(3, 0u, 0u)]                     // a flush is fine
    [InlineData(9, 512u, 22u)]                  // no such command
    [InlineData(7, 512u, 22u)]                  // block status without a context
    [InlineData(4, 0xffff_ffffu, 22u)]          // a trim behind the end
    [InlineData(6, 0xffff_ffffu, 28u)]          // zeroes behind the end
    public void A_bad_request_gets_its_error_and_the_connection_lives(int command, uint length, uint error)
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var client = server.Connect();
        Negotiate(client);
        Assert.Equal(error, Ask(client, (ushort)command, 0, 0, length));
        Assert.Equal(0u, Ask(client, 3, 0, 0, 0));
    }

    [Fact]
    public void An_unknown_flag_is_an_invalid_request()
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var client = server.Connect();
        Negotiate(client);
        Assert.Equal(22u, Ask(client, 3, 0x8000, 0, 0));
        Assert.Equal(22u, Ask(client, 4, 2, 0, 512));
        Assert.Equal(0u, Ask(client, 6, 2, 0, 512));
    }

    [Fact]
    public void A_write_that_is_too_long_is_answered_and_ends_the_connection()
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var client = server.Connect();
        Negotiate(client);
        Assert.Equal(22u, Ask(client, 1, 0, 0, 0x8000_0000));
        Assert.Equal(0, client.Receive(new byte[10]));
    }

    [Fact]
    public void A_write_behind_the_end_is_refused_and_its_payload_skipped()
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var client = server.Connect();
        Negotiate(client);
        client.Send(Request(1, 0, 1 << 20, 4096));
        client.Send(new byte[4096]);
        Assert.Equal(28u, ReplyError(client));
        Assert.Equal(0u, Ask(client, 3, 0, 0, 0));
    }

    [Fact]
    public void A_client_that_asks_and_does_not_listen_harms_nobody()
    {
        using var server = new TestServer(new MemoryDisk(8 << 20));
        using var deaf = server.Connect();
        Negotiate(deaf);
        for (int i = 0; i < 40; i++)
            deaf.Send(Request(0, 0, 0, 1 << 20));
        using var good = server.Open();
        for (int i = 0; i < 50; i++)
            good.Read(i * 4096, new byte[4096]);
        deaf.Dispose();
        good.Dispose();
        server.WaitUntilEmpty();
    }

    [Fact]
    public void An_option_that_is_too_long_or_malformed_is_refused_and_the_next_one_answered()
    {
        using var server = new TestServer(new MemoryDisk(1 << 20));
        using var client = server.Connect();
        Greet(client);
        Assert.Equal(NbdReplyType.ErrorTooBig, Option(client, 6, new byte[100_000]));
        Assert.Equal(NbdReplyType.ErrorInvalid, Option(client, 7, [0xff, 0xff, 0xff, 0xff, 0, 0]));
        Assert.Equal(NbdReplyType.ErrorInvalid, Option(client, 6, [0, 0, 0, 0, 0, 9]));
        Assert.Equal(NbdReplyType.ErrorInvalid, Option(client, 3, [1]));
        Assert.Equal(NbdReplyType.ErrorInvalid, Option(client, 10, [0, 0, 0, 0, 0, 0, 0, 0]));
        Assert.Equal(NbdReplyType.ErrorUnsupported, Option(client, 77, []));
        Assert.Equal(NbdReplyType.ErrorPolicy, Option(client, 5, []));
        Assert.Equal(NbdReplyType.Ack, Option(client, 8, []));
        Assert.Equal(NbdReplyType.ErrorUnknown, Option(client, 10, [0, 0, 0, 1, (byte)'x', 0, 0, 0, 0]));
    }

    private static void Greet(HostSocket s)
    {
        ReadAll(s, new byte[18]);
        s.Send([0, 0, 0, 3]);
    }

    /// <summary>Opens the export "" with simple replies.</summary>
    private static void Negotiate(HostSocket s)
    {
        Greet(s);
        s.Send(OptionBytes(1, []));
        ReadAll(s, new byte[10]);
    }

    private static byte[] OptionBytes(uint option, byte[] data)
    {
        byte[] b = new byte[16 + data.Length];
        Encoding.ASCII.GetBytes("IHAVEOPT", b);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(8), option);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(12), (uint)data.Length);
        data.CopyTo(b, 16);
        return b;
    }

    private static NbdReplyType Option(HostSocket s, uint option, byte[] data)
    {
        s.Send(OptionBytes(option, data));
        byte[] head = new byte[20];
        ReadAll(s, head);
        Assert.Equal(option, BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(8)));
        ReadAll(s, new byte[BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(16))]);
        return (NbdReplyType)BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12));
    }

    private static byte[] Request(ushort command, ushort flags, ulong offset, uint length)
    {
        byte[] b = new byte[28];
        BinaryPrimitives.WriteUInt32BigEndian(b, NbdWire.RequestMagic);
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(6), command);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(8), 42);
        BinaryPrimitives.WriteUInt64BigEndian(b.AsSpan(16), offset);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(24), length);
        return b;
    }

    private static uint Ask(HostSocket s, ushort command, ushort flags, ulong offset, uint length)
    {
        s.Send(Request(command, flags, offset, length));
        return ReplyError(s);
    }

    private static uint ReplyError(HostSocket s)
    {
        byte[] b = new byte[16];
        ReadAll(s, b);
        Assert.Equal(NbdWire.SimpleReplyMagic, BinaryPrimitives.ReadUInt32BigEndian(b));
        Assert.Equal(42u, BinaryPrimitives.ReadUInt64BigEndian(b.AsSpan(8)));
        return BinaryPrimitives.ReadUInt32BigEndian(b.AsSpan(4));
    }

    private static void ReadAll(HostSocket s, byte[] buffer)
    {
        s.SetTimeout(TimeSpan.FromSeconds(10));
        for (int at = 0; at < buffer.Length;)
        {
            int n = s.Receive(buffer.AsSpan(at));
            Assert.True(n > 0, "the server closed the connection");
            at += n;
        }
    }
}
