using System.Buffers.Binary;
using ImgKit.Machine.Devices.Storage;

namespace ImgKit.Machine.Tests;

public sealed class AtapiTests : IDisposable
{
    private const ushort Command = 0x170;
    private readonly TestBoard _board = new();
    private readonly MemoryDisk _disk = new(64 * 2048);
    private readonly Drive _drive;

    public AtapiTests()
    {
        new Random(3).NextBytes(_disk.Bytes);
        _drive = new Drive { Name = "ide1-cd0", Media = _disk, IsCdRom = true, IsRemovable = true, IsReadOnly = true };
        var channel = new IdeChannel(_board.Services, _board.Services.IsaLine(15)) { Number = 1 };
        channel.RegisterPorts(Command, 0x376);
        channel.Attach(0, _drive);
        channel.Reset();
    }

    public void Dispose() => _board.Dispose();

    private (uint Status, byte[] Data) Packet(byte[] cdb, int limit = 0xFFFE)
    {
        _board.Out(Command + 1, 0);
        _board.Out(Command + 4, (uint)limit & 0xFF);
        _board.Out(Command + 5, (uint)limit >> 8);
        _board.Out(Command + 6, 0xA0);
        _board.Out(Command + 7, 0xA0);
        Assert.Equal(0x08u, _board.In(Command + 7) & 0x88);
        Assert.Equal(1u, _board.In(Command + 2));
        var packet = new byte[12];
        cdb.CopyTo(packet, 0);
        for (int i = 0; i < 12; i += 2)
            _board.Out(Command, BinaryPrimitives.ReadUInt16LittleEndian(packet.AsSpan(i)), 2);
        var data = new List<byte>();
        while (true)
        {
            _board.Drain();
            uint status = _board.In(Command + 7);
            if ((status & 8) == 0)
                return (status, [.. data]);
            int n = (int)(_board.In(Command + 4) | _board.In(Command + 5) << 8);
            Assert.InRange(n, 1, limit);
            for (int i = 0; i < n; i += 2)
            {
                uint v = _board.In(Command, 2);
                data.Add((byte)v);
                if (i + 1 < n)
                    data.Add((byte)(v >> 8));
            }
        }
    }

    private byte[] Sense() => Packet([0x03, 0, 0, 0, 18]).Data;

    [Fact]
    public void It_shows_the_packet_signature()
    {
        Assert.Equal([0x14u, 0xEBu], new[] { 4, 5 }.Select(r => _board.In((ushort)(Command + r))));
        _board.Out(Command + 7, 0xEC);
        Assert.Equal(1u, _board.In(Command + 7) & 1);
        _board.Out(Command + 7, 0xA1);
        Assert.Equal(0x85C0u, _board.In(Command, 2));
    }

    [Fact]
    public void It_identifies_itself_in_vital_product_data()
    {
        Assert.Equal([0x05, 0, 0, 2, 0, 0x83], Packet([0x12, 1, 0, 0, 255]).Data);
        byte[] page = Packet([0x12, 1, 0x83, 0, 255]).Data;
        Assert.Equal(100, page.Length);
        Assert.Equal("QM00003             ", System.Text.Encoding.ASCII.GetString(page, 8, 20));
        Assert.Equal("ATA     QEMU DVD-ROM", System.Text.Encoding.ASCII.GetString(page, 32, 20));
        Assert.Equal(0x51u, Packet([0x12, 1, 0x80, 0, 255]).Status);
    }

    [Fact]
    public void It_reads_sectors_in_pieces_of_the_size_the_host_takes()
    {
        var (status, data) = Packet([0x28, 0, 0, 0, 0, 5, 0, 0, 40], 3000);
        Assert.Equal(0x50u, status);
        Assert.Equal(_disk.Bytes.AsSpan(5 * 2048, 40 * 2048).ToArray(), data);
    }

    [Fact]
    public void Reading_raw_sectors_adds_the_headers()
    {
        byte[] data = Packet([0xBE, 0, 0, 0, 0, 1, 0, 0, 2, 0xF8]).Data;
        Assert.Equal(2 * 2352, data.Length);
        Assert.Equal([0, 0xFF], data[..2]);
        Assert.Equal([0, 2, 1, 1], data[12..16]);
        Assert.Equal(_disk.Bytes.AsSpan(2 * 2048, 2048).ToArray(), data.AsSpan(2352 + 16, 2048).ToArray());
    }

    [Fact]
    public void Capacity_and_contents_are_those_of_the_medium()
    {
        byte[] capacity = Packet([0x25]).Data;
        Assert.Equal(63u, BinaryPrimitives.ReadUInt32BigEndian(capacity));
        Assert.Equal(2048u, BinaryPrimitives.ReadUInt32BigEndian(capacity.AsSpan(4)));
        byte[] toc = Packet([0x43, 0, 0, 0, 0, 0, 0, 0, 100]).Data;
        Assert.Equal(18 + 2, toc.Length);
        Assert.Equal(64u, BinaryPrimitives.ReadUInt32BigEndian(toc.AsSpan(16)));
    }

    [Fact]
    public void Beyond_the_end_is_an_illegal_request()
    {
        var (status, _) = Packet([0x28, 0, 0, 0, 0, 60, 0, 0, 5]);
        Assert.Equal(1u, status & 1);
        Assert.Equal(0x54u, _board.In(Command + 1));
        byte[] sense = Sense();
        Assert.Equal((5, 0x21), (sense[2], sense[12]));
    }

    [Fact]
    public void A_read_error_is_a_medium_error()
    {
        _disk.Failure = new IOException("broken");
        Assert.Equal(1u, Packet([0x28, 0, 0, 0, 0, 0, 0, 0, 1]).Status & 1);
        byte[] sense = Sense();
        Assert.Equal((3, 0x11), (sense[2], sense[12]));
    }

    [Fact]
    public void A_changed_medium_is_told_once_and_a_missing_one_always()
    {
        var other = new MemoryDisk(10 * 2048);
        _drive.Media = other;
        _drive.MediaChanged!();
        Assert.Equal(1u, Packet([0x00]).Status & 1);
        Assert.Equal((6, 0x28), (Sense()[2], 0x28));
        Assert.Equal(0u, Packet([0x00]).Status & 1);
        Assert.Equal(9u, BinaryPrimitives.ReadUInt32BigEndian(Packet([0x25]).Data));
        _drive.Media = null;
        _drive.MediaChanged!();
        Assert.Equal(1u, Packet([0x00]).Status & 1);
        byte[] sense = Sense();
        Assert.Equal((2, 0x3A), (sense[2], sense[12]));
    }

    [Fact]
    public void A_locked_drive_keeps_its_medium_and_an_unlocked_one_opens()
    {
        Packet([0x1E, 0, 0, 0, 1]);
        Assert.True(_drive.IsLocked);
        Assert.Equal(1u, Packet([0x1B, 0, 0, 0, 2]).Status & 1);
        Packet([0x1E]);
        Assert.Equal(0u, Packet([0x1B, 0, 0, 0, 2]).Status & 1);
        Assert.True(_drive.IsTrayOpen);
        Assert.Equal(1u, Packet([0x00]).Status & 1);
        Packet([0x1B, 0, 0, 0, 3]);
        Assert.False(_drive.IsTrayOpen);
    }

    [Fact]
    public void The_user_s_wish_to_eject_reaches_the_guest_as_an_event()
    {
        byte[] none = Packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]).Data;
        Assert.Equal(0, none[4] & 15);
        _drive.EjectRequested!();
        Assert.Equal(1, Packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]).Data[4] & 15);
        Assert.Equal(0, Packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]).Data[4] & 15);
    }

    [Fact]
    public void No_command_block_makes_it_fall()
    {
        var random = new Random(4);
        var cdb = new byte[12];
        for (int i = 0; i < 2000; i++)
        {
            random.NextBytes(cdb);
            if (random.Next(3) != 0)
                cdb.AsSpan(1, 8).Clear();
            if (cdb[0] is 0x15 or 0x55)
                continue;       // those take data
            Packet(cdb);
        }
        Assert.Equal(0u, _board.In(Command + 7) & 0x80);
    }
}
