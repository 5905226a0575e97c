using ImgKit.Machine.Chipset;
using ImgKit.Machine.Devices.Storage.Floppy;

namespace ImgKit.Machine.Tests;

public sealed class FloppyTests : IDisposable
{
    private const ushort Dor = 0x3F2, Msr = 0x3F4, Fifo = 0x3F5, Dir = 0x3F7;
    private const ulong Buffer = 0x20000;
    private readonly TestBoard _board = new();
    private readonly MemoryDisk _disk;
    private readonly Drive _drive;

    public FloppyTests() => (_disk, _drive) = Plug(_board, 1_474_560);

    private static (MemoryDisk Disk, Drive Drive) Plug(TestBoard board, int length)
    {
        var disk = new MemoryDisk(length);
        new Random(length).NextBytes(disk.Bytes);
        var drive = new Drive { Name = "floppy0", Media = disk, IsRemovable = true, OnWriteError = ErrorPolicy.Report };
        var controller = new FloppyController(board.Services, new Dma8237(board.Services));
        controller.Attach(0, drive);
        controller.Reset();
        board.Controller = controller;
        return (disk, drive);
    }

    public void Dispose() => _board.Dispose();

    private void Command(params byte[] bytes)
    {
        foreach (byte b in bytes)
        {
            Assert.Equal(0x80u, _board.In(Msr) & 0xC0);
            _board.Out(Fifo, b);
        }
        _board.Drain();
    }

    private byte[] Result()
    {
        var result = new List<byte>();
        while ((_board.In(Msr) & 0xD0) == 0xD0)
            result.Add((byte)_board.In(Fifo));
        return [.. result];
    }

    private void Enable(byte rate = 0)
    {
        _board.Out(Dor, 0x00);
        _board.Out(Dor, 0x1C);
        Assert.True(_board.Lines.Level[6]);
        for (byte i = 0; i < 4; i++)
        {
            Command(8);
            Assert.Equal([(byte)(0xC0 | i), 0], Result());
        }
        Assert.False(_board.Lines.Level[6]);
        Command(3, 0xDF, 2);
        _board.Out(Dir, rate);
    }

    private void Seek(byte track, byte head = 0)
    {
        Command(0x0F, (byte)(head << 2), track);
        Assert.True(_board.Lines.Level[6]);
        Command(8);
        Assert.Equal([(byte)(0x20 | head << 2), track], Result());
    }

    /// <summary>Programs channel 2 as a BIOS does.</summary>
    private void Dma(int length, bool toMemory)
    {
        _board.Out(0x0A, 6);
        _board.Out(0x0C, 0);
        _board.Out(0x0B, toMemory ? 0x46u : 0x4A);
        _board.Out(0x04, (uint)Buffer & 0xFF);
        _board.Out(0x04, (uint)Buffer >> 8 & 0xFF);
        _board.Out(0x81, (uint)Buffer >> 16);
        _board.Out(0x05, (uint)(length - 1) & 0xFF);
        _board.Out(0x05, (uint)(length - 1) >> 8);
        _board.Out(0x0A, 2);
    }

    private byte[] Memory(int length)
    {
        var b = new byte[length];
        _board.Services.Memory.Read(Buffer, b);
        return b;
    }

    private byte[] Image(int cylinder, int head, int sector, int count, int heads = 2, int sectors = 18) =>
        _disk.Bytes.AsSpan((((cylinder * heads) + head) * sectors + sector - 1) * 512, count * 512).ToArray();

    [Fact]
    public void It_reads_by_dma_over_both_sides()
    {
        Enable();
        Seek(7);
        Dma(20 * 512, true);
        Command(0xE6, 0, 7, 0, 10, 2, 18, 0x1B, 0xFF);
        Assert.True(_board.Lines.Level[6]);
        Assert.Equal([4, 0, 0, 7, 1, 12, 2], Result());
        Assert.False(_board.Lines.Level[6]);
        Assert.Equal(Image(7, 0, 10, 20), Memory(20 * 512));
    }

    [Fact]
    public void It_waits_for_a_channel_that_is_programmed_late()
    {
        Enable();
        Command(0x46, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal(0x10u, _board.In(Msr));
        Dma(512, true);
        Assert.Equal([0, 0, 0, 0, 0, 2, 2], Result());
        Assert.Equal(Image(0, 0, 1, 1), Memory(512));
    }

    [Fact]
    public void It_writes_by_dma_and_fills_up_the_last_sector()
    {
        Enable();
        Seek(3, 1);
        byte[] data = new byte[1000];
        new Random(1).NextBytes(data);
        _board.Services.Memory.Write(Buffer, data);
        Dma(1000, false);
        Command(0xC5, 4, 3, 1, 17, 2, 18, 0x1B, 0xFF);
        Assert.Equal([4, 0, 0, 4, 0, 1, 2], Result());
        Assert.Equal([.. data, .. new byte[24]], Image(3, 1, 17, 2));
    }

    [Fact]
    public void Without_dma_bytes_go_through_the_fifo_and_the_command_ends_with_the_track()
    {
        Enable();
        Command(3, 0xDF, 3);
        Command(0x46, 0, 0, 0, 17, 2, 18, 0x1B, 0xFF);
        var data = new byte[1024];
        for (int i = 0; i < data.Length; i++)
        {
            Assert.Equal(0xF0u, _board.In(Msr));
            data[i] = (byte)_board.In(Fifo);
        }
        Assert.Equal([0x40, 0x80, 0, 1, 0, 1, 2], Result());
        Assert.Equal(Image(0, 0, 17, 2), data);
        Command(0x45, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF);
        for (int i = 0; i < 512; i++)
        {
            Assert.Equal(0xB0u, _board.In(Msr));
            _board.Out(Fifo, (byte)(i * 3));
        }
        _board.Drain();
        Assert.Equal([0x40, 0x80, 0, 1, 0, 1, 2], Result());
        Assert.Equal(Enumerable.Range(0, 512).Select(i => (byte)(i * 3)), Image(0, 0, 18, 1));
    }

    [Fact]
    public void Format_fills_the_track()
    {
        Enable();
        Seek(2);
        var ids = new List<byte>();
        for (byte s = 1; s <= 18; s++)
            ids.AddRange([2, 0, s, 2]);
        _board.Services.Memory.Write(Buffer, [.. ids]);
        Dma(72, false);
        Command(0x4D, 0, 2, 18, 0x6C, 0xF6);
        Assert.Equal([0, 0, 0], Result()[..3]);
        Assert.False(Image(2, 0, 1, 18).AsSpan().ContainsAnyExcept((byte)0xF6));
        Assert.NotEqual(0xF6, Image(2, 1, 1, 1)[5]);
        // A track with more sectors than the disk has
        Dma(76, false);
        Command(0x4D, 0, 2, 19, 0x6C, 0xF6);
        Assert.Equal([0x40, 4, 0], Result()[..3]);
    }

    [Theory]
    [InlineData(163_840, 40, 1, 8, 2, 1)]
    [InlineData(184_320, 40, 1, 9, 2, 1)]
    [InlineData(327_680, 40, 2, 8, 2, 1)]
    [InlineData(368_640, 40, 2, 9, 2, 1)]
    [InlineData(737_280, 80, 2, 9, 2, 4)]
    [InlineData(1_228_800, 80, 2, 15, 0, 2)]
    [InlineData(1_474_560, 80, 2, 18, 0, 4)]
    [InlineData(1_720_320, 80, 2, 21, 0, 4)]
    [InlineData(2_949_120, 80, 2, 36, 3, 5)]
    public void Every_size_has_its_geometry_rate_and_drive(int length, int tracks, int heads, int sectors, byte rate, byte kind)
    {
        using var board = new TestBoard();
        var test = new FloppyTests(board, length);
        Assert.Equal((FloppyDriveKind)kind, ((FloppyController)board.Controller!).KindOf(0));
        test.Enable(rate);
        byte track = (byte)(tracks - 1), head = (byte)(heads - 1);
        test.Seek(track, head);
        test.Dma(512, true);
        test.Command(0x46, (byte)(head << 2), track, head, (byte)sectors, 2, (byte)sectors, 0x1B, 0xFF);
        Assert.Equal([(byte)(head << 2), 0, 0], test.Result()[..3]);
        Assert.Equal(test.Image(track, head, sectors, 1, heads, sectors), test.Memory(512));
        test.Command(0x46, (byte)(head << 2), track, head, (byte)(sectors + 1), 2, 63, 0x1B, 0xFF);
        Assert.Equal([(byte)(0x40 | head << 2), 4, 0], test.Result()[..3]);
        // At another rate the head sees nothing.
        board.Out(Dir, rate == 2 ? 0u : 2);
        test.Command(0x4A, (byte)(head << 2));
        Assert.Equal(1, test.Result()[1]);
        board.Out(Dir, rate);
        test.Command(0x4A, (byte)(head << 2));
        Assert.Equal([(byte)(head << 2), 0, 0, track, head], test.Result()[..5]);
    }

    private FloppyTests(TestBoard board, int length)
    {
        _board = board;
        (_disk, _drive) = Plug(board, length);
    }

    [Fact]
    public void A_disk_of_40_tracks_in_a_drive_of_80_has_one_at_every_second()
    {
        _drive.Media = new MemoryDisk(368_640);
        _drive.MediaChanged!();
        Enable(2);
        Seek(20);
        Command(0x4A, 0);
        Assert.Equal([0, 0, 0, 10, 0], Result()[..5]);
    }

    [Fact]
    public void Wrong_cylinders_heads_and_sizes_are_not_found()
    {
        Enable();
        Command(0x46, 0, 1, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0x40, 4, 0x10, 1, 0, 1, 2], Result());
        Command(0x46, 0, 0, 0, 1, 3, 18, 0x1B, 0xFF);
        Assert.Equal([0x40, 4, 0], Result()[..3]);
        Command(0x46, 0, 0, 0, 0, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0x40, 4, 0], Result()[..3]);
        // Drive B is not there.
        Command(0x46, 1, 0, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0x41, 1, 0], Result()[..3]);
        // With implied seeks the first one is fine.
        Command(0x13, 0, 0x40, 0);
        Dma(512, true);
        Command(0x46, 0, 1, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0, 0, 0, 1, 0, 2, 2], Result());
        Assert.Equal(Image(1, 0, 1, 1), Memory(512));
    }

    [Fact]
    public void A_protected_disk_cannot_be_written_and_says_so()
    {
        _drive.IsReadOnly = true;
        Enable();
        Command(4, 0);
        Assert.Equal([0x78], Result());
        Dma(512, false);
        Command(0x45, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0x40, 2, 0], Result()[..3]);
        Command(0x4D, 0, 2, 18, 0x6C, 0xF6);
        Assert.Equal([0x40, 2, 0], Result()[..3]);
    }

    [Fact]
    public void The_change_line_tells_of_another_disk_until_the_head_moves()
    {
        Enable();
        Assert.Equal(0x80u, _board.In(Dir));
        Seek(1);
        Assert.Equal(0u, _board.In(Dir));
        _drive.Media = null;
        _drive.MediaChanged!();
        Assert.Equal(0x80u, _board.In(Dir));
        Seek(0);
        Assert.Equal(0x80u, _board.In(Dir));
        Command(0x46, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0x40, 1, 0], Result()[..3]);
        _drive.Media = _disk;
        _drive.MediaChanged();
        Seek(1);
        Assert.Equal(0u, _board.In(Dir));
    }

    [Fact]
    public void Errors_of_the_block_layer_become_data_errors()
    {
        _disk.Failure = new IOException("broken");
        Enable();
        Dma(512, true);
        Command(0x46, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
        Assert.Equal([0x40, 0x20, 0x20], Result()[..3]);
        Assert.Contains("block-error floppy0 read report False", _board.Requests);
    }

    [Fact]
    public void Recalibrate_relative_seek_and_registers_work()
    {
        Enable();
        Seek(10);
        Command(0xCF, 0, 5);
        Command(8);
        Assert.Equal([0x20, 15], Result());
        Command(0x8F, 0, 3);
        Command(8);
        Assert.Equal([0x20, 12], Result());
        Command(0x0E);
        byte[] registers = Result();
        Assert.Equal(10, registers.Length);
        Assert.Equal([12, 0, 0, 0, 0xDF, 2], registers[..6]);
        Command(7, 0);
        Command(8);
        Assert.Equal([0x20, 0], Result());
        Command(7, 1);
        Command(8);
        Assert.Equal([0x71, 0], Result());
        Command(8);
        Assert.Equal([0x80], Result());
        Command(0x10);
        Assert.Equal([0x90], Result());
        Command(0x18);
        Assert.Equal([0x80], Result());
        // With LOCK the configuration outlives a software reset.
        Command(0x13, 0, 0x57, 0);
        Command(0x94);
        Assert.Equal([0x10], Result());
        _board.Out(Msr, 0x80);
        Command(0x0E);
        Assert.Equal(0x57, Result()[8]);
        Command(0x14);
        Assert.Equal([0], Result());
        _board.Out(Msr, 0x80);
        Command(0x0E);
        Assert.Equal(0x20, Result()[8]);
    }

    [Fact]
    public void State_saved_in_the_middle_of_a_transfer_goes_on_elsewhere()
    {
        Enable();
        Command(3, 0xDF, 3);
        Command(0x46, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF);
        var data = new List<byte>();
        for (int i = 0; i < 100; i++)
            data.Add((byte)_board.In(Fifo));
        var state = new StateWriter();
        _board.Controller!.Describe(state);
        using var board = new TestBoard();
        Plug(board, 1_474_560);
        board.Controller!.Describe(new StateReader(state.ToArray()));
        while (data.Count < 512)
            data.Add((byte)board.In(Fifo));
        Assert.Equal(0xD0u, board.In(Msr));
        Assert.Equal(Image(0, 0, 18, 1), data);
    }
}
