using System.Text;
using ImgKit.Machine;
using ImgKit.Machine.Devices.Virtio;

namespace ImgKit.Devices.Tests;

public sealed class VirtioBlkTests : IDisposable
{
    private readonly Board _board = new();
    private readonly MemoryDisk _disk = new(1 << 20);
    private readonly Drive _drive;

    public VirtioBlkTests()
    {
        new Random(1).NextBytes(_disk.Content);
        _drive = new Drive { Name = "virtio0", Media = _disk, Serial = "SER-1234", Discard = true, OnWriteError = ErrorPolicy.StopOnNoSpace };
    }

    public void Dispose() => _board.Dispose();

    private VirtioBlk Plug(VirtioInterfaces interfaces = VirtioInterfaces.Transitional, int queues = 1) =>
        _board.Plug(new VirtioBlk(_board.Services, _drive, interfaces, queues));

    private ulong Header(VirtioDriver driver, uint type, ulong sector)
    {
        ulong at = driver.Allocate(16);
        _board.Services.Memory.WriteUInt32(at, type);
        _board.Services.Memory.WriteUInt32(at + 4, 0);
        _board.Services.Memory.WriteUInt64(at + 8, sector);
        return at;
    }

    private byte Byte(ulong at)
    {
        Span<byte> b = stackalloc byte[1];
        _board.Services.Memory.Read(at, b);
        return b[0];
    }

    private (byte Status, uint Written) Request(VirtioDriver driver, uint type, ulong sector, bool indirect, params (ulong Address, int Length, bool Write)[] data)
    {
        ulong status = driver.Allocate(1);
        _board.Services.Memory.Write(status, [0xEE]);
        ushort head = driver.Offer(indirect, [(Header(driver, type, sector), 16, false), .. data, (status, 1, true)]);
        driver.Notify();
        var used = driver.Take();
        Assert.Equal(head, used.Head);
        return (Byte(status), used.Written);
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void Reads_and_writes_reach_the_disk(bool legacy, bool indirect)
    {
        var device = Plug(legacy ? VirtioInterfaces.Legacy : VirtioInterfaces.Transitional);
        var driver = new VirtioDriver(_board, device, legacy, VirtioDriver.Indirect);
        ulong a = driver.Allocate(512), b = driver.Allocate(1536);
        var (status, written) = Request(driver, 0, 3, indirect, (a, 512, true), (b, 1536, true));
        Assert.Equal((0, 2049u), (status, written));
        byte[] got = new byte[2048];
        _board.Services.Memory.Read(a, got.AsSpan(0, 512));
        _board.Services.Memory.Read(b, got.AsSpan(512));
        Assert.Equal(_disk.Content[1536..3584], got);

        byte[] put = new byte[1024];
        new Random(2).NextBytes(put);
        _board.Services.Memory.Write(b, put);
        Assert.Equal((0, 1u), Request(driver, 1, 7, indirect, (b, 1024, false)));
        Assert.Equal(put, _disk.Content[3584..4608]);
    }

    [Fact]
    public void Framing_of_the_buffers_does_not_matter()
    {
        var driver = new VirtioDriver(_board, Plug(), false, 0);
        ulong header = Header(driver, 0, 1), data = driver.Allocate(513);
        // header in three pieces, data and status in one
        driver.Offer(false, (header, 1, false), (header + 1, 8, false), (header + 9, 7, false), (data, 513, true));
        driver.Notify();
        Assert.Equal(513u, driver.Take().Written);
        byte[] got = new byte[513];
        _board.Services.Memory.Read(data, got);
        Assert.Equal(_disk.Content[512..1024], got[..512]);
        Assert.Equal(0, got[512]);
    }

    [Fact]
    public void Flush_identity_and_unknown_requests()
    {
        var driver = new VirtioDriver(_board, Plug(), false, ulong.MaxValue);
        Assert.Equal((0, 1u), Request(driver, 4, 0, false));
        Assert.Equal(1, _disk.Flushes);
        ulong id = driver.Allocate(20);
        Assert.Equal((0, 21u), Request(driver, 8, 0, false, (id, 20, true)));
        byte[] serial = new byte[20];
        _board.Services.Memory.Read(id, serial);
        Assert.Equal("SER-1234", Encoding.ASCII.GetString(serial).TrimEnd('\0'));
        Assert.Equal(2, Request(driver, 99, 0, false).Status);
    }

    [Fact]
    public void Discard_and_write_zeroes()
    {
        var driver = new VirtioDriver(_board, Plug(), false, ulong.MaxValue);
        Assert.NotEqual(0ul, driver.Offered & 3ul << 13);
        ulong Segment(ulong sector, uint count, uint flags)
        {
            ulong at = driver.Allocate(16);
            _board.Services.Memory.WriteUInt64(at, sector);
            _board.Services.Memory.WriteUInt32(at + 8, count);
            _board.Services.Memory.WriteUInt32(at + 12, flags);
            return at;
        }
        Assert.Equal(0, Request(driver, 11, 0, false, (Segment(8, 16, 0), 16, false)).Status);
        Assert.Equal([(8 * 512L, 16 * 512L)], _disk.Discards);
        Assert.Equal(0, Request(driver, 13, 0, false, (Segment(2, 4, 1), 16, false)).Status);
        Assert.True(_disk.Content.AsSpan(1024, 2048).IndexOfAnyExcept((byte)0) < 0);
        Assert.Equal(1, Request(driver, 13, 0, false, (Segment(2047, 2, 0), 16, false)).Status);
        Assert.Equal(2, Request(driver, 11, 0, false, (Segment(8, 16, 1), 16, false)).Status);
    }

    [Fact]
    public void Requests_outside_the_disk_and_writes_to_a_read_only_one_fail()
    {
        var driver = new VirtioDriver(_board, Plug(), false, 0);
        ulong data = driver.Allocate(1024);
        foreach (ulong sector in new ulong[] { 2047ul, 2048, ulong.MaxValue, 1ul << 55 })
            Assert.Equal((1, 1u), Request(driver, 0, sector, false, (data, 1024, true)));
        Assert.Equal(1, Request(driver, 0, 0, false, (data, 100, true)).Status);
        _drive.IsReadOnly = true;
        Assert.Equal(1, Request(driver, 1, 0, false, (data, 1024, false)).Status);
    }

    [Fact]
    public void Errors_of_the_disk_follow_the_policy()
    {
        var driver = new VirtioDriver(_board, Plug(), false, 0);
        ulong data = driver.Allocate(512);
        _disk.Fault = () => new IOException("broken");
        Assert.Equal(1, Request(driver, 0, 0, false, (data, 512, true)).Status);
        Assert.Equal(["block-error virtio0 read report False"], _board.Requests);

        // the host's disk is full: the machine stops, and the request is tried again
        const int NoSpace = 28;
        _disk.Fault = () => new IOException("full", NoSpace);
        ulong status = driver.Allocate(1);
        driver.Offer(false, (Header(driver, 1, 0), 16, false), (data, 512, false), (status, 1, true));
        driver.Notify();
        Assert.True(SpinWait.SpinUntil(() => _board.Retries.Count == 1, 10000));
        Assert.Equal(0, driver.UsedCount);
        _disk.Fault = () => null;
        lock (_board.Services.Lock)
            _board.Retries[0]();
        driver.Take();
        Assert.Equal(0, Byte(status));
    }

    [Fact]
    public void Configuration_tells_size_and_limits_and_a_resize_is_announced()
    {
        var device = Plug(queues: 4);
        var driver = new VirtioDriver(_board, device, false, ulong.MaxValue);
        ulong config = VirtioDriver.Common + 0x2000;
        Assert.Equal(2048ul, _board.Load(config, 8));
        Assert.Equal(254ul, _board.Load(config + 12, 4));
        Assert.Equal(512ul, _board.Load(config + 20, 4));
        Assert.Equal(4ul, _board.Load(config + 34, 2));
        Assert.Equal(4ul, _board.Load(VirtioDriver.Common + 18, 2));
        ulong generation = _board.Load(VirtioDriver.Common + 21, 1);
        _disk.Grow(2 << 20);
        lock (_board.Services.Lock)
            _drive.MediaChanged!();
        Assert.Equal(4096ul, _board.Load(config, 8));
        Assert.NotEqual(generation, _board.Load(VirtioDriver.Common + 21, 1));
        Assert.Contains(true, _board.Wires);
        Assert.Equal(3ul, _board.Load(VirtioDriver.Common + 0x1000, 1));
        Assert.DoesNotContain(true, _board.Wires);
        ulong data = driver.Allocate(512);
        Assert.Equal(0, Request(driver, 0, 4095, false, (data, 512, true)).Status);
    }

    [Fact]
    public void Write_through_flushes_each_write()
    {
        var driver = new VirtioDriver(_board, Plug(), false, ulong.MaxValue);
        ulong data = driver.Allocate(512);
        Request(driver, 1, 0, false, (data, 512, false));
        Assert.Equal(0, _disk.Flushes);
        _board.Store(VirtioDriver.Common + 0x2000 + 32, 0, 1);
        Request(driver, 1, 0, false, (data, 512, false));
        Assert.Equal(1, _disk.Flushes);
    }

    [Fact]
    public void Many_requests_on_several_queues_at_once()
    {
        var device = Plug(queues: 2);
        var first = new VirtioDriver(_board, device, false, VirtioDriver.Indirect | VirtioDriver.EventIndex | 1ul << 12);
        var second = new VirtioDriver(_board, device, false, first.Features, 0x200000, 1, false);
        var random = new Random(3);
        byte[] expected = [.. _disk.Content];
        foreach (var driver in new[] { first, second })
        {
            var waiting = new Dictionary<uint, (ulong Data, int Sector)>();
            ulong[] buffers = [.. Enumerable.Range(0, 16).Select(_ => driver.Allocate(512))];
            ulong[] statuses = [.. Enumerable.Range(0, 16).Select(_ => driver.Allocate(1))];
            ulong[] headers = [.. Enumerable.Range(0, 16).Select(_ => driver.Allocate(16))];
            for (int round = 0; round < 40; round++)
            {
                for (int i = 0; i < 16; i++)
                {
                    int sector = random.Next(2048);
                    _board.Services.Memory.WriteUInt32(headers[i], 0);
                    _board.Services.Memory.WriteUInt64(headers[i] + 8, (ulong)sector);
                    ushort head = driver.Offer(false, (headers[i], 16, false), (buffers[i], 512, true), (statuses[i], 1, true));
                    waiting[head] = (buffers[i], sector);
                }
                driver.Notify();
                for (int i = 0; i < 16; i++)
                {
                    var used = driver.Take();
                    Assert.True(waiting.Remove(used.Head, out var what));
                    byte[] got = new byte[512];
                    _board.Services.Memory.Read(what.Data, got);
                    Assert.Equal(expected[(what.Sector * 512)..(what.Sector * 512 + 512)], got);
                }
            }
        }
    }
}
