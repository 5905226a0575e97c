using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Requests that meet work on the whole image.</summary>
public sealed class RaceTests
{
    /// <summary>Who comes second to a cluster without space, and waits while the first gives it some, finds it with data, and writes there.</summary>
    [Theory]
    [InlineData("compat=0.10,cluster_size=4k")]
    [InlineData("cluster_size=16k,extended_l2=on")]
    public void Those_that_write_first_to_a_cluster_all_find_their_bytes(string options)
    {
        var memory = new MemoryProtocol();
        CreateJob.Run(memory.Opener(), new CreateRequest
        {
            FileName = "mem:a",
            Format = "qcow2",
            Size = 1 << 20,
            Options = [.. options.Split(',').Select(o => new KeyValuePair<string, string>(o.Split('=')[0], o.Split('=')[1]))],
        });
        using var file = new HeldDevice(memory.Devices["a"]);
        memory.Devices["a"] = file;
        using (var image = memory.Opener().Open("mem:a", "qcow2", new OpenSettings()))
        {
            byte[] data = new byte[300];
            data.AsSpan().Fill(1);
            image.Write(1 << 19, data);
            // The first has its space and writes; a flush then holds the tables; the first waits for those, and the second behind it.
            file.HoldWrite = true;
            var first = Task.Run(() => image.Write(0, data));
            Assert.True(file.Writing.Wait(5000));
            file.HoldFlush = true;
            var flush = Task.Run(image.Flush);
            Assert.True(file.Flushing.Wait(5000));
            file.ReleaseWrite.Set();
            Thread.Sleep(30);
            // Who of them is woken first is for the runtime to say.
            int[] places = [500, 1000, 1500, 2000, 2500, 3000];
            var others = places.Select(at => Task.Factory.StartNew(() => image.Write(at, data), TaskCreationOptions.LongRunning)).ToArray();
            Thread.Sleep(50);
            file.ReleaseFlush.Set();
            Assert.True(Task.WaitAll([first, flush, .. others], 5000));
            byte[] content = new byte[4096], expected = new byte[4096];
            data.CopyTo(expected, 0);
            foreach (int at in places)
                data.CopyTo(expected, at);
            image.Read(0, content);
            Assert.Equal(expected, content);
        }
        using var after = memory.Opener().Open("mem:a", "qcow2", new OpenSettings());
        var found = ((ICheckableImage)after).Check(CheckRepair.None, _ => { });
        Assert.Equal(0, found.Corruptions + found.Leaks + found.CheckErrors);
    }

    /// <summary>A write and a flush can be held up in it.</summary>
    private sealed class HeldDevice(BlockDevice device) : BlockDevice
    {
        public bool HoldWrite { get; set; }

        public bool HoldFlush { get; set; }

        public ManualResetEventSlim Writing { get; } = new();

        public ManualResetEventSlim Flushing { get; } = new();

        public ManualResetEventSlim ReleaseWrite { get; } = new();

        public ManualResetEventSlim ReleaseFlush { get; } = new();

        public override string DriverName => "held";

        public override long Length => device.Length;

        public override void Read(long offset, Span<byte> destination) => device.Read(offset, destination);

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            if (HoldWrite && !Writing.IsSet)
            {
                Writing.Set();
                ReleaseWrite.Wait();
            }
            device.Write(offset, source);
        }

        public override void Flush()
        {
            if (HoldFlush && !Flushing.IsSet)
            {
                Flushing.Set();
                ReleaseFlush.Wait();
            }
            device.Flush();
        }

        protected override void Dispose(bool disposing)
        {
            foreach (var e in (ManualResetEventSlim[])[Writing, Flushing, ReleaseWrite, ReleaseFlush])
                e.Dispose();
        }
    }

    /// <summary>A request whose place is gone when its turn comes is outside the disk: it neither writes there nor falls over.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_request_that_waited_for_a_change_of_size_is_judged_by_the_new_size(bool applies)
    {
        using var folder = new TestData.Folder();
        string path = folder.File("a.qcow2");
        const int small = 32 << 10, large = 1 << 20;
        Images.Create(path, small, "cluster_size=512");
        using (var image = Images.Open(path))
        {
            var snapshots = (ISnapshotImage)image;
            snapshots.CreateSnapshot("small", DateTimeOffset.UnixEpoch);
            if (!applies)
                ((IBitmapImage)image).AddBitmap("b", 512, true);
            image.Resize(large);
            bool stop = false;
            Exception? failure = null;
            var writers = new Thread[2];
            for (int i = 0; i < writers.Length; i++)
            {
                int seed = i;
                writers[i] = new Thread(() =>
                {
                    var random = new Random(seed);
                    byte[] data = new byte[700];
                    data.AsSpan().Fill(7);
                    while (!Volatile.Read(ref stop))
                    {
                        int at = random.Next(large - data.Length);
                        try
                        {
                            switch (random.Next(4))
                            {
                                case 0:
                                    image.Read(at, new byte[700]);
                                    break;
                                case 1:
                                    image.WriteZeroes(at, 700);
                                    break;
                                case 2:
                                    image.Discard(at, 700);
                                    break;
                                default:
                                    image.Write(at, data);
                                    break;
                            }
                        }
                        catch (ImageException e) when (e.Kind == ImageErrorKind.OutOfBounds)
                        {
                            // The disk is smaller just now.
                        }
                        catch (Exception e)
                        {
                            Volatile.Write(ref failure, e);
                            return;
                        }
                    }
                });
                writers[i].Start();
            }
            for (int i = 0; i < 60; i++)
            {
                if (applies)
                    snapshots.ApplySnapshot("small");
                else
                    image.Resize(small);
                Thread.Yield();
                image.Resize(large);
            }
            Volatile.Write(ref stop, true);
            foreach (var w in writers)
                w.Join();
            Assert.Null(failure);
        }
        Qemu.CheckClean(path);
    }
}
