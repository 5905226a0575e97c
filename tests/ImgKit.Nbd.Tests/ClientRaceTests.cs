using ImgKit.Block;
using ImgKit.Host;

namespace ImgKit.Nbd.Tests;

/// <summary>What one request must not do to another of the same client.</summary>
public sealed class ClientRaceTests
{
    private const int Size = 4 << 20;

    /// <summary>A server (qemu-nbd -e 2) accepts as many clients as it was told; the next is connected by the kernel, and never greeted.</summary>
    [Fact]
    public void A_connection_that_is_never_greeted_holds_nothing_up()
    {
        string folder = Directory.CreateTempSubdirectory("nbd-race").FullName;
        using var server = new NbdServer([new NbdExport { Name = "", Device = new SlowDisk(), IsShared = true }]);
        using (var listener = HostSocket.ListenUnix(folder + "/s", 64))
        {
            var accept = new Thread(() => server.Serve(listener.Accept()!)) { IsBackground = true };
            accept.Start();
            var device = new ImageOpener().Open($"nbd+unix:///?socket={folder}/s", "raw", new OpenSettings());
            var readers = new Task[12];
            for (int i = 0; i < readers.Length; i++)
            {
                int at = i * 4096;
                readers[i] = Task.Factory.StartNew(() =>
                {
                    for (int n = 0; n < 10; n++)
                        device.Read(at, new byte[512]);
                }, TaskCreationOptions.LongRunning);
            }
            Assert.True(Task.WaitAll(readers, 10_000));
            Assert.True(Task.Run(device.Dispose).Wait(10_000));
        }
        Directory.Delete(folder, true);
    }

    /// <summary>Who waits for a lost connection to come back, or for a greeting, does not keep the device from being closed.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_device_is_closed_while_it_waits_for_a_server(bool isListening)
    {
        string folder = Directory.CreateTempSubdirectory("nbd-race").FullName;
        using (var server = new NbdServer([new NbdExport { Name = "", Device = new MemoryDisk(Size) }]))
        {
            var listener = HostSocket.ListenUnix(folder + "/s", 64);
            var accept = new Thread(() => server.Serve(listener.Accept()!)) { IsBackground = true };
            accept.Start();
            var device = new ImageOpener().Open($"json:{{\"driver\":\"nbd\",\"reconnect-delay\":60,\"server\":{{\"type\":\"unix\",\"path\":\"{folder}/s\"}}}}",
                null, new OpenSettings());
            device.Read(0, new byte[512]);
            accept.Join();
            if (!isListening)
            {
                listener.Dispose();
                File.Delete(folder + "/s");
            }
            server.Stop();
            var read = Task.Run(() => device.Read(0, new byte[512]));
            Thread.Sleep(100);
            Assert.False(read.IsCompleted);
            Assert.True(Task.Run(device.Dispose).Wait(5000));
            Assert.True(Task.WhenAny(read).Wait(5000));
            Assert.NotNull(read.Exception);
            listener.Dispose();
        }
        Directory.Delete(folder, true);
    }

    /// <summary>A block of which a part is changed is read, changed and written; a write of the whole block in between would be lost.</summary>
    [Fact]
    public void A_write_of_a_block_is_not_undone_by_one_of_a_part_of_it()
    {
        using var disk = new SlowDisk { Block = 4096 };
        using var server = new TestServer(new NbdExport { Name = "", Device = disk });
        using var device = server.Open();
        using var release = new ManualResetEventSlim();
        disk.FirstWrite = release;
        byte[] part = new byte[512], whole = new byte[4096];
        part.AsSpan().Fill(1);
        whole.AsSpan().Fill(2);
        var first = Task.Run(() => device.Write(0, part));
        Assert.True(disk.Writing.Wait(5000));
        var second = Task.Run(() => device.Write(0, whole));
        second.Wait(100);
        release.Set();
        Assert.True(Task.WaitAll([first, second], 5000));
        byte[] back = new byte[4096];
        device.Read(0, back);
        Assert.False(back.AsSpan(512).ContainsAnyExcept((byte)2));
    }

    /// <summary>What was known of a place is not, after a write that failed there: it may have written a part.</summary>
    [Fact]
    public void A_write_that_failed_half_way_is_seen()
    {
        var disk = new MemoryDisk(Size) { Fault = ((2 << 20) - 1, 28) };
        using var server = new TestServer(new NbdExport { Name = "", Device = disk });
        using var device = server.Open();
        Assert.True(device.GetExtent(0, Size).IsZero);
        byte[] data = new byte[2 << 20];
        data.AsSpan().Fill(1);
        Assert.Throws<ImageException>(() => device.Write(0, data));
        Assert.False(device.GetExtent(0, Size).IsZero);
    }

    /// <summary>Takes a while for each read; may want whole blocks; its first write waits.</summary>
    private sealed class SlowDisk : BlockDevice
    {
        private readonly MemoryDisk _disk = new(Size);
        private int _writes;

        public int Block { get; init; } = 1;

        public ManualResetEventSlim? FirstWrite { get; set; }

        public ManualResetEventSlim Writing { get; } = new();

        public override string DriverName => "slow";

        public override long Length => _disk.Length;

        public override BlockLimits Limits => BlockLimits.Default with { RequestAlignment = Block };

        public override void Read(long offset, Span<byte> destination)
        {
            Thread.Sleep(2);
            _disk.Read(offset, destination);
        }

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            if (Interlocked.Increment(ref _writes) == 1)
            {
                Writing.Set();
                FirstWrite?.Wait();
            }
            _disk.Write(offset, source);
        }

        public override void Flush() { }

        protected override void Dispose(bool disposing) => Writing.Dispose();
    }
}
