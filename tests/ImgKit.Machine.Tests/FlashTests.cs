using ImgKit.Machine.Devices.Storage.Flash;

namespace ImgKit.Machine.Tests;

public sealed class FlashTests : IDisposable
{
    private const ulong End = 1UL << 32, Start = End - 0x10000;
    private readonly TestBoard _board = new();
    private readonly MemoryDisk _disk = new(0x10000);
    private readonly ParallelFlash _flash;

    public FlashTests()
    {
        new Random(1).NextBytes(_disk.Bytes);
        _disk.Bytes[0x100] = 0xFF;
        _flash = Plug(false);
    }

    private ParallelFlash Plug(bool readOnly)
    {
        var flash = new ParallelFlash(_board.Services, new Drive { Name = "pflash0", Media = _disk, IsReadOnly = readOnly }, End);
        lock (_board.Services.Lock)
            flash.Reset();
        return flash;
    }

    public void Dispose()
    {
        _flash.Close();
        _board.Dispose();
    }

    private byte Read(uint at) => (byte)_board.Services.Mmio.Read(Start + at, 1);

    private void Write(uint at, params byte[] values)
    {
        lock (_board.Services.Lock)
            foreach (byte value in values)
                _board.Services.Mmio.Write(Start + at, value, 1);
    }

    private bool IsMemory => _board.Services.Space.Map.Regions.Any(r => r.Start <= Start && End <= r.End);

    [Fact]
    public void It_is_memory_until_a_command_comes_and_again_after_many_reads()
    {
        Assert.True(IsMemory);
        Write(0, 0x70);
        Assert.False(IsMemory);
        Write(0, 0xFF);
        Assert.False(IsMemory);
        Assert.Equal(_disk.Bytes[5], Read(5));
        for (int i = 0; i < 600; i++)
            Read(5);
        Assert.True(IsMemory);
    }

    [Fact]
    public void Programming_clears_bits_and_reaches_the_drive_when_reading_goes_on()
    {
        Write(0x100, 0x10, 0xF0);
        Assert.Equal(0x80, Read(0x100));
        Write(0x100, 0x40, 0x3C);
        Write(0x101, 0xFF);
        Assert.Equal(0x30, Read(0x100));
        Assert.Equal(0x30, _disk.Bytes[0x100]);
    }

    [Fact]
    public void Erasing_sets_a_block_and_nothing_else()
    {
        byte before = _disk.Bytes[0x1FFF], behind = _disk.Bytes[0x3000];
        Write(0x2345, 0x20, 0xD0);
        Assert.Equal(0x80, Read(0));
        Write(0, 0xFF);
        Assert.All(_disk.Bytes[0x2000..0x3000], b => Assert.Equal(0xFF, b));
        Assert.Equal((before, behind), (_disk.Bytes[0x1FFF], _disk.Bytes[0x3000]));
        Write(0x2345, 0x20, 0x12);
        Assert.Equal(0x30, Read(0) & 0x30);
    }

    [Fact]
    public void A_buffer_is_programmed_when_it_is_confirmed()
    {
        Write(0x4000, 0x20, 0xD0);
        Write(0x4010, 0xE8, 2);
        Write(0x4010, 1);
        Write(0x4011, 2);
        Write(0x4012, 3);
        Write(0x4010, 0xD0, 0xFF);
        Assert.Equal([0xFF, 1, 2, 3, 0xFF], _disk.Bytes[0x400F..0x4014]);
    }

    [Fact]
    public void It_says_what_it_is()
    {
        Write(0x55, 0x98);
        Assert.Equal("QRY", $"{(char)Read(0x10)}{(char)Read(0x11)}{(char)Read(0x12)}");
        Assert.Equal((16, 15, 16), (Read(0x27), Read(0x2D), Read(0x2F)));
        Write(0, 0x90);
        Assert.Equal(0x89, Read(0));
        // What firmware for virtual machines looks for
        Write(0, 0x50, 0x70);
        Assert.Equal(0, Read(0));
    }

    [Fact]
    public void A_read_only_drive_stays_as_it_is()
    {
        byte[] before = [.. _disk.Bytes];
        var flash = Plug(true);
        Write(0x100, 0x10, 0);
        Assert.Equal(0x10, Read(0) & 0x10);
        Write(0x100, 0x50, 0x20, 0xD0);
        Assert.Equal(0x20, Read(0) & 0x20);
        Write(0, 0xFF);
        Assert.Equal(before, _disk.Bytes);
        flash.Close();
    }

    [Fact]
    public void A_failing_drive_is_reported_and_told_in_the_status()
    {
        _disk.Failure = new IOException("no");
        Write(0x100, 0x10, 0, 0xFF);
        Assert.Equal(["block-error pflash0 write report False"], _board.Requests);
        Write(0, 0x70);
        Assert.Equal(0x10, Read(0) & 0x10);
        _disk.Failure = null;
    }

    [Fact]
    public void Sizes_that_cannot_be_are_refused()
    {
        Assert.Throws<MachineException>(() => new ParallelFlash(_board.Services, new Drive { Name = "a", Media = new MemoryDisk(4095) }, End));
        Assert.Throws<MachineException>(() => new ParallelFlash(_board.Services, new Drive { Name = "a", Media = new MemoryDisk(ParallelFlash.MaxLength) }, End - 4096));
    }
}
