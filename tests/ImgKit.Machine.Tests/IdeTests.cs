using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Devices.Storage;

namespace ImgKit.Machine.Tests;

public sealed class IdeTests : IDisposable
{
    private const ushort Command = 0x1F0, Master = 0xC000;
    private readonly TestBoard _board = new();
    private readonly MemoryDisk _disk = new(1 << 20);
    private readonly Drive _drive;
    private readonly IdeChannel _channel;

    public IdeTests()
    {
        for (int i = 0; i < _disk.Bytes.Length; i++)
            _disk.Bytes[i] = (byte)(i * 7 + (i >> 9));
        _drive = new Drive { Name = "ide0-hd0", Media = _disk, Serial = "S1", Discard = true, OnReadError = ErrorPolicy.Report, OnWriteError = ErrorPolicy.Report };
        _channel = MakeChannel(_drive);
    }

    private IdeChannel MakeChannel(params Drive[] drives)
    {
        var channel = new IdeChannel(_board.Services, _board.Services.IsaLine(14));
        channel.RegisterPorts(Command, 0x3F6);
        for (int i = 0; i < drives.Length; i++)
            channel.Attach(i, drives[i]);
        _board.Services.Ports.Register(Master, 8, new MasterPorts(channel), 4);
        channel.Reset();
        return channel;
    }

    private sealed class MasterPorts(IdeChannel channel) : IPortHandler
    {
        public uint PortRead(ushort port, int size) => channel.ReadMaster(port - Master, size);

        public void PortWrite(ushort port, uint value, int size) => channel.WriteMaster(port - Master, value, size);
    }

    public void Dispose() => _board.Dispose();

    private void Issue(byte command, uint lba, byte count, byte feature = 0)
    {
        _board.Out(Command + 1, feature);
        _board.Out(Command + 2, count);
        _board.Out(Command + 3, lba & 0xFF);
        _board.Out(Command + 4, lba >> 8 & 0xFF);
        _board.Out(Command + 5, lba >> 16 & 0xFF);
        _board.Out(Command + 6, 0xE0 | lba >> 24);
        _board.Out(Command + 7, command);
        _board.Drain();
    }

    private byte[] Take(int bytes)
    {
        var data = new byte[bytes];
        for (int i = 0; i < bytes; i += 2)
        {
            // A block is over: wait for the next one.
            if ((_board.In(Command + 7) & 0x08) == 0)
                _board.Drain();
            BinaryPrimitives.WriteUInt16LittleEndian(data.AsSpan(i), (ushort)_board.In(Command, 2));
        }
        return data;
    }

    private void Give(ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i += 4)
        {
            if ((_board.In(Command + 7) & 0x08) == 0)
                _board.Drain();
            _board.Out(Command, BinaryPrimitives.ReadUInt32LittleEndian(data[i..]), 4);
        }
        _board.Drain();
    }

    [Fact]
    public void It_identifies_itself()
    {
        Issue(0xEC, 0, 0);
        Assert.Equal(0x58u, _board.In(0x3F6));
        byte[] id = Take(512);
        ushort W(int word) => BinaryPrimitives.ReadUInt16LittleEndian(id.AsSpan(2 * word));
        Assert.Equal(2048, W(60) | W(61) << 16);
        Assert.Equal(2048, BinaryPrimitives.ReadInt64LittleEndian(id.AsSpan(200)));
        Assert.Equal("S1", Encoding.ASCII.GetString([.. Enumerable.Range(20, 20).Select(i => id[i ^ 1])]).TrimEnd());
        Assert.Equal(0, id.Sum(b => b) & 0xFF);
        Assert.Equal(0x50u, _board.In(Command + 7));
    }

    // READ DATA, THRESHOLDS, the logs and a self-test, as smartctl asks for them.
    [Fact]
    public void It_monitors_itself()
    {
        const uint Key = 0xC24F00;
        foreach (var (feature, log) in ((byte, byte)[])[(0xD0, 0), (0xD1, 0), (0xD5, 1), (0xD5, 6)])
        {
            Issue(0xB0, Key | log, 1, feature);
            byte[] page = Take(512);
            Assert.Equal(0, page.Sum(b => b) & 0xFF);
            Assert.InRange(page[0], 1, 0x10);
        }
        Issue(0xB0, Key | 2, 0, 0xD4);
        Issue(0xB0, Key | 6, 1, 0xD5);
        byte[] tests = Take(512);
        Assert.Equal((2, 0, 1), (tests[2], tests[3], tests[508]));
        Issue(0xB0, Key, 0, 0xDA);
        Assert.Equal([0x50u, 0x4Fu, 0xC2u], new[] { 7, 4, 5 }.Select(r => _board.In(Command + r)));
        Issue(0xB0, Key, 0, 0xD9);
        Issue(0xB0, Key, 1, 0xD0);
        Assert.Equal(0x51u, _board.In(Command + 7));
        Issue(0xEC, 0, 0);
        Assert.Equal(0x4020, BinaryPrimitives.ReadUInt16LittleEndian(Take(512).AsSpan(170)));
        Issue(0xB0, Key, 0, 0xD8);
        Issue(0xEC, 0, 0);
        Assert.Equal(0x4021, BinaryPrimitives.ReadUInt16LittleEndian(Take(512).AsSpan(170)));
        Issue(0xB0, 0, 1, 0xD0);
        Assert.Equal(4u, _board.In(Command + 1));
    }

    [Theory]
    [InlineData(0x20, 1)]
    [InlineData(0xC4, 16)]
    [InlineData(0x24, 1)]
    [InlineData(0x29, 16)]
    public void It_reads_by_pio_and_interrupts_for_each_block(byte command, int block)
    {
        if (command is 0x24 or 0x29)
            for (int i = 2; i <= 5; i++)
                _board.Out((ushort)(Command + i), 0);
        int rises = _board.Lines.Rises[14], blocks = 0;
        Issue(command, 3, 40);
        byte[] data = new byte[40 * 512];
        for (int at = 0; at < data.Length; at += block * 512)
        {
            Assert.Equal(0x08u, _board.In(Command + 7) & 0x89);
            Take(Math.Min(block * 512, data.Length - at)).CopyTo(data, at);
            _board.Drain();
            blocks++;
        }
        Assert.Equal(_disk.Bytes.AsSpan(3 * 512, data.Length).ToArray(), data);
        Assert.Equal(blocks, _board.Lines.Rises[14] - rises);
        Assert.Equal(0x50u, _board.In(Command + 7));
    }

    [Theory]
    [InlineData(0x30)]
    [InlineData(0xC5)]
    public void It_writes_by_pio(byte command)
    {
        byte[] data = new byte[20 * 512];
        new Random(1).NextBytes(data);
        Issue(command, 100, 20);
        Give(data);
        Assert.Equal(0x50u, _board.In(Command + 7));
        Assert.Equal(data, _disk.Bytes.AsSpan(100 * 512, data.Length).ToArray());
    }

    private void Descriptors(params (uint Address, int Count)[] entries)
    {
        for (int i = 0; i < entries.Length; i++)
        {
            _board.Services.Memory.WriteUInt32(0x1000 + 8UL * (ulong)i, entries[i].Address);
            _board.Services.Memory.WriteUInt32(0x1004 + 8UL * (ulong)i, (uint)(entries[i].Count & 0xFFFF) | (i + 1 == entries.Length ? 0x80000000 : 0));
        }
        _board.Out(Master + 4, 0x1000, 4);
        _board.Out(Master + 2, 6);
    }

    [Fact]
    public void It_reads_by_dma_into_scattered_memory()
    {
        Descriptors((0x20000, 1024), (0x30002, 512), (0x40000, 0x10000));
        Issue(0xC8, 7, 131);
        _board.Out(Master, 9);
        _board.Drain();
        Assert.Equal(4u, _board.In(Master + 2) & 7);
        Assert.Equal(0x50u, _board.In(Command + 7));
        var read = new byte[131 * 512];
        _board.Services.Memory.Read(0x20000, read.AsSpan(0, 1024));
        _board.Services.Memory.Read(0x30002, read.AsSpan(1024, 512));
        _board.Services.Memory.Read(0x40000, read.AsSpan(1536));
        Assert.Equal(_disk.Bytes.AsSpan(7 * 512, read.Length).ToArray(), read);
    }

    [Fact]
    public void It_writes_by_dma_and_flushes()
    {
        byte[] data = new byte[4096];
        new Random(2).NextBytes(data);
        _board.Services.Memory.Write(0x20000, data);
        Descriptors((0x20000, 4096));
        Issue(0xCA, 8, 8);
        _board.Out(Master, 1);
        _board.Drain();
        Assert.Equal(data, _disk.Bytes.AsSpan(4096, 4096).ToArray());
        int flushes = _disk.Flushes;
        Issue(0xE7, 0, 0);
        Assert.Equal(flushes + 1, _disk.Flushes);
    }

    [Fact]
    public void A_table_that_is_too_short_or_points_at_nothing_is_an_error_and_harms_nobody()
    {
        Descriptors((0x20000, 512));
        Issue(0xC8, 0, 8);
        _board.Out(Master, 9);
        _board.Drain();
        Assert.Equal(1u, _board.In(Command + 7) & 1);
        Assert.Equal(2u, _board.In(Master + 2) & 2);
        _board.Out(Master, 0);
        Descriptors((0xF0000000, 4096));
        Issue(0xC8, 0, 8);
        _board.Out(Master, 9);
        _board.Drain();
        Assert.Equal(1u, _board.In(Command + 7) & 1);
    }

    [Theory]
    [InlineData(0x20, 2047, 2)]
    [InlineData(0xC8, 2048, 1)]
    [InlineData(0x30, 0xFFFFFFF, 1)]
    public void A_request_beyond_the_end_is_not_found(byte command, uint lba, byte count)
    {
        Issue(command, lba, count);
        Assert.Equal(0x01u, _board.In(Command + 7) & 0x89);
        Assert.Equal(0x10u, _board.In(Command + 1));
    }

    [Fact]
    public void Errors_of_the_block_layer_become_guest_errors()
    {
        _disk.Failure = new IOException("broken");
        Issue(0x20, 0, 1);
        Assert.Equal(0x01u, _board.In(Command + 7) & 0x89);
        Assert.Equal(0x40u, _board.In(Command + 1));
        Assert.Contains("block-error ide0-hd0 read report False", _board.Requests);
    }

    [Fact]
    public void With_policy_stop_a_failed_request_is_tried_again()
    {
        var disk = new MemoryDisk(1 << 16);
        using var board = new TestBoard();
        var drive = new Drive { Name = "d", Media = disk, OnReadError = ErrorPolicy.Stop };
        var channel = new IdeChannel(board.Services, board.Services.IsaLine(14));
        channel.RegisterPorts(Command, 0x3F6);
        channel.Attach(0, drive);
        channel.Reset();
        disk.Failure = new IOException("broken");
        board.Out(Command + 2, 1);
        board.Out(Command + 6, 0xE0);
        board.Out(Command + 7, 0x20);
        board.Drain();
        Assert.Contains("block-error d read stop False", board.Requests);
        Assert.Equal(0x80u, board.In(Command + 7) & 0x80);
        disk.Failure = null;
        Assert.Single(board.Retries)();
        board.Drain();
        Assert.Equal(0x58u, board.In(Command + 7));
    }

    [Fact]
    public void Trim_discards_the_ranges()
    {
        var ranges = new byte[512];
        BinaryPrimitives.WriteUInt64LittleEndian(ranges, 16UL | 8UL << 48);
        BinaryPrimitives.WriteUInt64LittleEndian(ranges.AsSpan(8), 100UL | 2UL << 48);
        _board.Services.Memory.Write(0x20000, ranges);
        Descriptors((0x20000, 512));
        for (int i = 2; i <= 5; i++)
            _board.Out((ushort)(Command + i), 0);
        Issue(0x06, 0, 1, 1);
        // The data register has nothing to do with what waits for the bus master.
        for (int i = 0; i < 300; i++)
            Assert.Equal(uint.MaxValue, _board.In(Command, 2));
        _board.Out(Master, 1);
        _board.Drain();
        Assert.Equal([(16 * 512L, 8 * 512L), (100 * 512L, 2 * 512L)], _disk.Discards);
        Assert.Equal(0x50u, _board.In(Command + 7));
    }

    [Fact]
    public void Reset_shows_the_signature_and_an_absent_drive_answers_zero()
    {
        _board.Out(0x3F6, 4);
        _board.Out(0x3F6, 0);
        Assert.Equal([0x01u, 0x01u, 0x00u, 0x00u], new[] { 2, 3, 4, 5 }.Select(r => _board.In((ushort)(Command + r))));
        _board.Out(Command + 6, 0xB0);
        Assert.Equal(0u, _board.In(Command + 7));
    }

    [Fact]
    public void A_mask_of_its_interrupt_holds_the_line_down()
    {
        _board.Out(0x3F6, 2);
        Issue(0xE7, 0, 0);
        Assert.False(_board.Lines.Level[14]);
        _board.Out(0x3F6, 0);
        Assert.True(_board.Lines.Level[14]);
        _board.In(Command + 7);
        Assert.False(_board.Lines.Level[14]);
    }
}
