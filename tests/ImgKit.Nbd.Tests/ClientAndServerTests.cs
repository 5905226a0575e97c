using FsCheck;
using FsCheck.Fluent;
using ImgKit.Block;

namespace ImgKit.Nbd.Tests;

public sealed class ClientAndServerTests
{
    private const int Size = 1 << 20;

    [Fact]
    public void An_export_behaves_like_a_byte_array()
    {
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var disk = new MemoryDisk(Size);
            using var server = new TestServer(disk);
            using var device = server.Open();
            var random = new Random(seed);
            byte[] model = new byte[Size];
            for (int i = 0; i < 40; i++)
            {
                int length = random.Next(4) == 0 ? random.Next(300_000) : random.Next(20_000);
                int offset = random.Next(Size - length + 1);
                switch (random.Next(5))
                {
                    case 0 or 1:
                        byte[] data = new byte[length];
                        random.NextBytes(data);
                        device.Write(offset, data);
                        data.CopyTo(model, offset);
                        break;
                    case 2:
                        device.WriteZeroes(offset, length, random.Next(2) == 0 ? ZeroOptions.None : ZeroOptions.MayUnmap);
                        model.AsSpan(offset, length).Clear();
                        break;
                    case 3:
                        byte[] read = new byte[length];
                        device.Read(offset, read);
                        Assert.True(read.AsSpan().SequenceEqual(model.AsSpan(offset, length)));
                        break;
                    default:
                        if (length == 0)
                            break;
                        var e = device.GetExtent(offset, length);
                        Assert.InRange(e.Length, 1, length);
                        if (e.IsZero)
                            Assert.True(ZeroBuffer.IsZero(model.AsSpan(offset, (int)e.Length)));
                        break;
                }
            }
            Assert.Equal(model, disk.Content);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(15));
    }

    [Fact]
    public void Many_threads_share_one_device()
    {
        var disk = new MemoryDisk(32 << 20);
        using var server = new TestServer(disk);
        using var device = server.Open();
        Parallel.For(0, 24, new ParallelOptions { MaxDegreeOfParallelism = 24 }, t =>
        {
            var random = new Random(t);
            byte[] data = new byte[70_000], back = new byte[70_000];
            for (int i = 0; i < 30; i++)
            {
                long offset = t * (1 << 20) + random.Next(100_000);
                random.NextBytes(data);
                device.Write(offset, data);
                device.Read(offset, back);
                Assert.True(back.AsSpan().SequenceEqual(data));
            }
        });
        device.Flush();
        Assert.True(disk.Flushes > 0);
    }

    [Theory]
    [InlineData(5, 5)]
    [InlineData(28, 28)]
    [InlineData(27, 28)]
    [InlineData(30, 1)]
    [InlineData(121, 5)]
    public void An_error_arrives_as_its_number_on_the_wire(int errno, int expected)
    {
        var disk = new MemoryDisk(Size) { Fault = (5000, errno) };
        using var server = new TestServer(disk);
        using var device = server.Open();
        Assert.Equal(expected, Assert.Throws<ImageException>(() => device.Read(4096, new byte[4096])).Errno);
        Assert.Equal(expected, Assert.Throws<ImageException>(() => device.Write(4096, new byte[4096])).Errno);
        Assert.Equal(expected, Assert.Throws<ImageException>(() => device.WriteZeroes(4096, 4096)).Errno);
        device.Read(0, new byte[4096]);
    }

    [Fact]
    public void A_read_that_is_longer_than_a_buffer_arrives_whole()
    {
        var disk = new MemoryDisk(40 << 20);
        byte[] all = new byte[40 << 20];
        new Random(1).NextBytes(all);
        disk.Write(0, all);
        using var server = new TestServer(disk);
        using var device = server.Open();
        byte[] back = new byte[all.Length];
        device.Read(0, back);
        Assert.True(back.AsSpan().SequenceEqual(all));
        device.Write(3, all.AsSpan(0, 37 << 20));
        Assert.True(disk.Content.AsSpan(3, 37 << 20).SequenceEqual(all.AsSpan(0, 37 << 20)));
    }

    [Fact]
    public void A_slow_request_does_not_hold_up_others_of_the_same_client()
    {
        using var gate = new ManualResetEventSlim();
        var disk = new MemoryDisk(Size) { Gate = gate };
        using var server = new TestServer(new NbdExport { Name = "", Device = disk });
        using var device = server.Open();
        var slow = Task.Run(() => device.Read(0, new byte[512]));
        Thread.Sleep(20);
        var quick = Task.Run(() => device.Read(65536, new byte[512]));
        Assert.True(quick.Wait(5000));
        Assert.False(slow.IsCompleted);
        gate.Set();
        Assert.True(slow.Wait(5000));
    }

    [Fact]
    public void Fast_zeroing_that_would_be_slow_is_refused_as_such()
    {
        using var server = new TestServer(new MemoryDisk(Size));
        using var device = server.Open();
        device.WriteZeroes(4096, 4096, ZeroOptions.NoFallback);
        Assert.Throws<NotSupportedException>(() => device.WriteZeroes(100, 4096, ZeroOptions.NoFallback));
    }

    [Fact]
    public void An_export_that_is_not_there_is_named_in_the_error()
    {
        using var server = new TestServer(new MemoryDisk(Size));
        var e = Assert.Throws<ImageException>(() => server.Open(null, $"nbd+unix:///nope?socket={server.Path}"));
        Assert.StartsWith("Requested export not available\nserver reported: export 'nope' not present", e.Message);
    }

    [Fact]
    public void A_read_only_export_can_only_be_opened_for_reading()
    {
        using var server = new TestServer(new NbdExport { Name = "", Device = new MemoryDisk(Size), ReadOnly = true });
        Assert.Throws<ImageException>(() => server.Open());
        using var device = server.Open(OpenSettings.ReadOnlyDefault);
        Assert.True(device.IsReadOnly);
        device.Read(0, new byte[10]);
    }

    [Fact]
    public void A_lost_connection_is_replaced_within_the_delay()
    {
        var disk = new MemoryDisk(Size);
        using var server = new TestServer(disk);
        using var device = new ImageOpener().Open($"json:{{\"driver\":\"nbd\",\"reconnect-delay\":10,\"server\":{{\"type\":\"unix\",\"path\":\"{server.Path}\"}}}}",
            null, new OpenSettings());
        device.Write(0, new byte[] { 1, 2, 3 });
        server.Server.ForEachConnection(c => c.Shutdown());
        byte[] back = new byte[3];
        device.Read(0, back);
        Assert.Equal([1, 2, 3], back);
    }

    [Fact]
    public void Without_a_delay_a_lost_connection_is_an_error_and_the_next_request_connects_again()
    {
        using var server = new TestServer(new MemoryDisk(Size));
        using var device = server.Open();
        device.Read(0, new byte[10]);
        server.Server.ForEachConnection(c => c.Shutdown());
        server.WaitUntilEmpty();
        Assert.Equal(5, Assert.Throws<ImageException>(() => device.Read(0, new byte[10])).Errno);
        device.Read(0, new byte[10]);
    }
}
