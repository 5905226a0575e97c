namespace ImgKit.Block.Tests.Qcow2;

/// <summary>Requests that meet work on the whole image.</summary>
public sealed class RaceTests
{
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
