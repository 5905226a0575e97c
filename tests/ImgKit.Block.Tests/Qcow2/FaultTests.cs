using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Qcow2;

/// <summary>One call to the file fails, whichever it is, and all later ones succeed: what was asked for afterwards is done, and nothing else is lost.</summary>
public sealed class FaultTests
{
    private const int Size = 400 * 1024;
    private const int Stride = 61;

    [Theory]
    [InlineData("cluster_size=4k", 1)]
    [InlineData("cluster_size=512", 2)]
    [InlineData("cluster_size=16k,extended_l2=on", 3)]
    [InlineData("cluster_size=1k,lazy_refcounts=on", 4)]
    [InlineData("cluster_size=512,refcount_bits=64", 5)]
    [InlineData("cluster_size=4k,extended_l2=off,backing_file=mem:below,backing_fmt=raw", 6)]
    [InlineData("cluster_size=16k,extended_l2=on,backing_file=mem:below,backing_fmt=raw", 7)]
    [InlineData("cluster_size=2k,compat=0.10", 8)]
    [InlineData("cluster_size=4k,data_file=mem:data", 9)]
    public void An_error_costs_nothing_but_the_request_that_met_it(string options, int seed)
    {
        byte[] start = NewImage(options, Size);
        var faultless = new FaultyDevice(start, -1, counts: Counts);
        new Run(faultless, seed, options, "no fault").All();
        for (int at = seed; at < faultless.Calls; at += Stride)
        {
            var kind = (FaultKind)(at % 3);
            new Run(new FaultyDevice(start, at, kind, Counts), seed, options, $"{options}: call {at} of {faultless.Calls} fails ({kind})").All();
        }
    }

    /// <summary>The flush behind the header's new name for the refcount table fails: the new table is in force all the same.</summary>
    [Fact]
    public void A_refcount_table_that_grew_while_a_flush_failed_is_not_given_away()
    {
        const int size = 5 << 20, piece = 16 << 10;
        byte[] start = NewImage("cluster_size=512,refcount_bits=64", size);
        byte[] content = TestData.Mixed(size, 7);
        for (int at = 0, flushes = 1; at < flushes; at++)
        {
            var device = new FaultyDevice(start, at, FaultKind.All, "flush");
            var memory = new MemoryProtocol();
            memory.Devices["a"] = device;
            using (var image = memory.Opener().Open("mem:a", "qcow2", new OpenSettings()))
            {
                for (int offset = 0; offset < size; offset += piece)
                {
                    int place = offset;
                    Twice(() => image.Write(place, content.AsSpan(place, piece)));
                }
                flushes = device.Calls;
                Twice(image.Flush);
            }
            memory.Devices["b"] = new RecordingDevice(device.Snapshot());
            using var after = memory.Opener().Open("mem:b", "qcow2", new OpenSettings());
            var lines = new List<string>();
            var found = ((ICheckableImage)after).Check(CheckRepair.None, lines.Add);
            Assert.True(found.Corruptions == 0 && found.CheckErrors == 0, $"flush {at} of {flushes}: {string.Join(';', lines.Take(3))}");
            Assert.True(content.AsSpan().SequenceEqual(Images.Content(after)), $"flush {at} of {flushes}");
        }
    }

    /// <summary>Bits that could not be read the first time are read the second: they are not taken for clean ones.</summary>
    [Fact]
    public void A_bitmap_that_could_not_be_read_loses_no_bits()
    {
        var memory = new MemoryProtocol();
        memory.Devices["a"] = new RecordingDevice(NewImage("cluster_size=4k", Size));
        using (var image = memory.Opener().Open("mem:a", "qcow2", new OpenSettings()))
        {
            ((IBitmapImage)image).AddBitmap("b", 4096, true);
            image.Write(8192, [1]);
        }
        byte[] start = ((RecordingDevice)memory.Devices["a"]).Snapshot();
        for (int at = 0, reads = 1; at < reads; at++)
        {
            var device = new FaultyDevice(start, at, counts: "read");
            memory.Devices["b"] = device;
            try
            {
                using var image = memory.Opener().Open("mem:b", "qcow2", new OpenSettings());
                Twice(() => image.Write(65536, [1]));
                Twice(image.Flush);
                reads = device.Calls;
            }
            catch (ImageException) when (device.HasFailed)
            {
                // It could not be opened.
                reads = at + 2;
                continue;
            }
            memory.Devices["c"] = new RecordingDevice(device.Snapshot());
            using var after = memory.Opener().Open("mem:c", "qcow2", new OpenSettings());
            var bitmaps = (IBitmapImage)after;
            Assert.Equal((false, 8192), bitmaps.GetBitmapExtent("b", 0, Size));
            Assert.Equal((true, 4096), bitmaps.GetBitmapExtent("b", 8192, Size - 8192));
            Assert.Equal((true, 4096), bitmaps.GetBitmapExtent("b", 65536, Size - 65536));
        }
    }

    /// <summary>A disk that was to be made shorter, and was not, has a bit for each of its places.</summary>
    [Fact]
    public void A_disk_that_could_not_be_made_shorter_still_records()
    {
        var memory = new MemoryProtocol();
        byte[] start = NewImage("cluster_size=4k", Size);
        for (int at = 0; ; at++)
        {
            var device = new FaultyDevice(start, at, counts: "write flush");
            memory.Devices["a"] = device;
            using (var image = memory.Opener().Open("mem:a", "qcow2", new OpenSettings()))
            {
                ((IBitmapImage)image).AddBitmap("b", 4096, true);
                Twice(() => image.Write(Size - 512, [1]));
                try
                {
                    image.Resize(Size / 2);
                    if (!device.HasFailed)
                        return;
                }
                catch (ImageException)
                {
                    long last = image.Length - 512;
                    image.Write(last, [1]);
                    Assert.True(((IBitmapImage)image).GetBitmapExtent("b", last, 512).Dirty);
                }
            }
        }
    }

    private static void Twice(Action action)
    {
        try
        {
            action();
        }
        catch (ImageException)
        {
            action();
        }
    }

    /// <summary>Shorter than the disk above, and ends within a cluster.</summary>
    private static byte[] Below { get; } = TestData.Mixed(250 * 1024 + 512, 3);

    private const string Counts = "read write flush discard resize";

    private static byte[] NewImage(string options, long size)
    {
        var memory = new MemoryProtocol();
        memory.Devices["below"] = new RecordingDevice(Below);
        CreateJob.Run(memory.Opener(), new CreateRequest
        {
            FileName = "mem:a",
            Format = "qcow2",
            Size = size,
            Options = [.. options.Split(',').Select(o => new KeyValuePair<string, string>(o.Split('=')[0], o.Split('=')[1]))],
        });
        return ((RecordingDevice)memory.Devices["a"]).Snapshot();
    }

    /// <summary>What a disk may hold: bytes that are known, and those that a request that failed may or may not have changed.</summary>
    private sealed class Content(int length)
    {
        public byte[] Bytes = new byte[length];
        public bool[] Unknown = new bool[length];

        public Content Clone() => new(Bytes.Length) { Bytes = (byte[])Bytes.Clone(), Unknown = (bool[])Unknown.Clone() };

        public void Resize(int to)
        {
            Array.Resize(ref Bytes, to);
            Array.Resize(ref Unknown, to);
        }

        /// <summary>The first byte that is not what it must be, or -1.</summary>
        public int Compare(ReadOnlySpan<byte> actual)
        {
            if (actual.Length != Bytes.Length)
                return int.MaxValue;
            for (int i = 0; i < actual.Length; i++)
                if (actual[i] != Bytes[i] && !Unknown[i])
                    return i;
            return -1;
        }
    }

    private sealed class Run(FaultyDevice device, int seed, string options, string what)
    {
        private readonly bool _hasSnapshots = !options.Contains("0.10", StringComparison.Ordinal) && !options.Contains("data_file", StringComparison.Ordinal);
        private readonly Dictionary<string, Content> _snapshots = [];
        private readonly Random _random = new(seed);
        private readonly MemoryProtocol _memory = new();
        private Content _model = new(Size);
        private int _step;

        public string FailedStep { get; private set; } = "";

        public void All()
        {
            _memory.Devices["a"] = device;
            _memory.Devices["below"] = new RecordingDevice(Below);
            _memory.Devices["data"] = new RecordingDevice(new byte[Size]);
            if (options.Contains("backing", StringComparison.Ordinal))
                Below.CopyTo(_model.Bytes, 0);
            BlockDevice image;
            try
            {
                image = Open("a");
            }
            catch (Exception e) when (e is ImageException && device.HasFailed)
            {
                return;
            }
            for (_step = 0; _step < 60; _step++)
                Step(image);
            Compare(image, _model, "in memory");
            while (FailsOnce(image.Flush))
            {
            }
            byte[] crashed = device.Snapshot();
            FailsOnce(image.Dispose);
            Judge(crashed, "killed after a flush");
            // A close that met the error promises nothing: the flush before it did.
            Judge(device.Snapshot(), "closed");
        }

        private BlockDevice Open(string name)
        {
            var options = new BlockOptions();
            options.Set("pass-discard-other", "on");
            options.Set("l2-cache-size", "4096");
            options.Set("l2-cache-entry-size", "512");
            return _memory.Opener().Open("mem:" + name, "qcow2", new OpenSettings { Unmap = true }, options);
        }

        private bool FailsOnce(Action action)
        {
            bool before = device.HasFailed;
            try
            {
                action();
                if (!before && device.HasFailed)
                    FailedStep = $"{_step} swallowed";
                return false;
            }
            catch (Exception e) when (e is ImageException or IOException && device.HasFailed && !before)
            {
                FailedStep = $"{_step}";
                return true;
            }
        }

        private void Step(BlockDevice image)
        {
            var snapshots = (ISnapshotImage)image;
            int length = _model.Bytes.Length;
            int offset = _random.Next(length), count = _random.Next(1, Math.Min(30_000, length - offset) + 1);
            int dice = _random.Next(24), fill = _random.Next(1, 256);
            byte[] data = new byte[count];
            _random.NextBytes(data);
            switch (dice)
            {
                case 0 or 1:
                    Change(offset, count, () => image.WriteZeroes(offset, count, (ZeroOptions)(fill & 1)), static b => b.Clear());
                    break;
                case 2 or 3:
                    if (FailsOnce(() => image.Discard(offset, count)))
                        _model.Unknown.AsSpan(offset, count).Fill(true);
                    ReadBack(image, offset, count);
                    break;
                case 4 or 5:
                    FailsOnce(image.Flush);
                    break;
                case 6 when _hasSnapshots:
                    CreateSnapshot(image, snapshots);
                    break;
                case 7 when snapshots.Snapshots.Count > 0:
                    DeleteSnapshot(snapshots, snapshots.Snapshots[fill % snapshots.Snapshots.Count].Name);
                    break;
                case 8 when snapshots.Snapshots.Count > 0:
                    ApplySnapshot(image, snapshots, snapshots.Snapshots[fill % snapshots.Snapshots.Count].Name);
                    break;
                case 9 or 10:
                    Resize(image, (Size / 2 + fill * (Size / 256)) / 512 * 512);
                    break;
                case 11 or 12 when !options.Contains("data_file", StringComparison.Ordinal):
                    var compressor = (ICompressingDevice)image;
                    int unit = compressor.CompressionUnit;
                    int at = offset / unit * unit, n = Math.Min(unit, length - at);
                    byte[] plain = new byte[n];
                    plain.AsSpan().Fill((byte)fill);
                    byte[] packed = new byte[compressor.MaxCompressedLength];
                    int m = compressor.Compress(plain, packed);
                    Change(at, n, () => compressor.WriteCompressed(at, packed.AsSpan(0, m), n), b => b.Fill((byte)fill));
                    break;
                case 13 when _hasSnapshots:
                    FailsOnce(() => ((IVmStateImage)image).WriteVmState(0, data));
                    break;
                case 14:
                    byte[] content = new byte[count];
                    if (!FailsOnce(() => image.Read(offset, content)))
                        for (int i = 0; i < count; i++)
                            Assert.True(content[i] == _model.Bytes[offset + i] || _model.Unknown[offset + i], $"{what}: step {_step}: byte {offset + i}");
                    break;
                default:
                    Change(offset, count, () => image.Write(offset, data), b => data.CopyTo(b));
                    break;
            }
        }

        private delegate void Fill(Span<byte> bytes);

        private void Change(int offset, int count, Action action, Fill fill)
        {
            if (FailsOnce(action))
            {
                _model.Unknown.AsSpan(offset, count).Fill(true);
                return;
            }
            fill(_model.Bytes.AsSpan(offset, count));
            _model.Unknown.AsSpan(offset, count).Clear();
        }

        private void ReadBack(BlockDevice image, int offset, int count)
        {
            byte[] now = new byte[count];
            if (FailsOnce(() => image.Read(offset, now)))
                image.Read(offset, now);
            // Zeroes or what was there.
            for (int i = 0; i < count; i++)
            {
                Assert.True(now[i] == 0 || now[i] == _model.Bytes[offset + i] || _model.Unknown[offset + i], $"{what}: step {_step}: byte {offset + i} after a discard");
                _model.Bytes[offset + i] = now[i];
                _model.Unknown[offset + i] = false;
            }
        }

        private void CreateSnapshot(BlockDevice image, ISnapshotImage snapshots)
        {
            string name = $"s{_step}";
            FailsOnce(() => snapshots.CreateSnapshot(name, DateTimeOffset.UnixEpoch));
            if (snapshots.Snapshots.Any(s => s.Name == name))
                _snapshots[name] = _model.Clone();
        }

        private void DeleteSnapshot(ISnapshotImage snapshots, string name)
        {
            FailsOnce(() => snapshots.DeleteSnapshot(name));
            if (!snapshots.Snapshots.Any(s => s.Name == name))
                _snapshots.Remove(name);
        }

        private void ApplySnapshot(BlockDevice image, ISnapshotImage snapshots, string name)
        {
            if (FailsOnce(() => snapshots.ApplySnapshot(name)))
            {
                // All of it or nothing.
                if (image.Length != _model.Bytes.Length || _model.Compare(Images.Content(image)) >= 0)
                    _model = _snapshots[name].Clone();
            }
            else
            {
                _model = _snapshots[name].Clone();
            }
            Compare(image, _model, $"after applying {name}");
        }

        private void Resize(BlockDevice image, int to)
        {
            FailsOnce(() => image.Resize(to));
            Assert.True(image.Length == to || image.Length == _model.Bytes.Length, $"{what}: step {_step}: length {image.Length}");
            _model.Resize((int)image.Length);
            Compare(image, _model, "after a change of size");
        }

        private void Compare(BlockDevice image, Content model, string when)
        {
            byte[] content = [];
            if (FailsOnce(() => content = Images.Content(image)))
                content = Images.Content(image);
            int at = model.Compare(content);
            Assert.True(at < 0, $"{what} ({device.Failed}, step {FailedStep}): {when}, step {_step}: byte {at} of {content.Length}, {model.Bytes.Length} in the model");
        }

        private void Judge(byte[] bytes, string when)
        {
            _memory.Devices["b"] = new RecordingDevice(bytes);
            using var image = Open("b");
            var lines = new List<string>();
            var found = ((ICheckableImage)image).Check(CheckRepair.None, lines.Add);
            Assert.True(found.Corruptions == 0 && found.CheckErrors == 0, $"{what} ({device.Failed}, step {FailedStep}): {when}: {string.Join(';', lines.Take(3))}");
            Compare(image, _model, when);
            var snapshots = (ISnapshotImage)image;
            Assert.True(snapshots.Snapshots.Select(s => s.Name).Order().SequenceEqual(_snapshots.Keys.Order()),
                $"{what} ({device.Failed}, step {FailedStep}): {when}: snapshots {string.Join(',', snapshots.Snapshots.Select(s => s.Name))} instead of {string.Join(',', _snapshots.Keys)}");
            foreach (var (name, content) in _snapshots)
                using (var snapshot = snapshots.OpenSnapshot(name))
                    Compare(snapshot, content, $"{when}, snapshot {name}");
        }
    }
}
