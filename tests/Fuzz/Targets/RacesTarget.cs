using ImgKit.Block;
using ImgKit.Block.Jobs.Create;

namespace ImgKit.Fuzz.Targets;

/// <summary>Several threads at one image, each at bytes of its own in clusters that they share, with snapshots, changes of size and losses of power in between. A
/// model of bytes says what must be there; the input says what is done.</summary>
internal sealed class RacesTarget : IFuzzTarget
{
    private const int Stripe = 3000;        // does not divide any cluster
    private const int Threads = 4;
    private const int Steps = 120;
    private const int WildSize = 40_000;    // where all of them write

    private static readonly string[] Options =
    [
        "cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=16k,extended_l2=on", "cluster_size=1k,lazy_refcounts=on",
        "cluster_size=512,refcount_bits=64", "cluster_size=4k,compat=0.10", "cluster_size=4k,data_file=mem:data", "cluster_size=4k,data_file=mem:data,data_file_raw=on",
        "cluster_size=32k,extended_l2=on,lazy_refcounts=on", "cluster_size=8k,compression_type=zstd",
    ];

    public string Name => "races";

    public IEnumerable<byte[]> Seeds()
    {
        for (int i = 0; i < 32; i++)
            yield return BitConverter.GetBytes((ulong)i * 0x9E3779B97F4A7C15);
    }

    public void Run(byte[] input)
    {
        long seed = 17;
        foreach (byte b in input)
            seed = seed * 31 + b;
        new Session(new Random((int)(seed ^ seed >> 32))).Run();
    }

    /// <summary>The content of a stripe, over time.</summary>
    private sealed class History(byte[] first)
    {
        public readonly List<byte[]> Versions = [first];
        public int Done;        // the last version that is there
        public int Safe;        // the last version that a flush has promised

        public byte[] Last => Versions[^1];

        /// <summary>Whether every byte is that of a version from <paramref name="from"/> to <paramref name="to"/>.</summary>
        public int FirstWrong(ReadOnlySpan<byte> actual, int from, int to)
        {
            for (int i = 0; i < actual.Length; i++)
            {
                bool found = false;
                for (int v = from; v <= to && !found; v++)
                    found = Versions[v][i] == actual[i];
                if (!found)
                    return i;
            }
            return -1;
        }
    }

    private sealed record Loss(Dictionary<string, byte[]> Files, int[] From, int[] To);

    private sealed class Session(Random random)
    {
        private readonly CrashDisk _disk = new();
        private readonly Lock _model = new();
        private readonly List<Loss> _losses = [];
        private readonly Dictionary<string, byte[]> _snapshots = [];
        private readonly string _options = Options[random.Next(Options.Length)];
        private readonly int _size = (120_000 + random.Next(400) * 512) / 512 * 512;
        private History[] _stripes = [];
        private byte[]? _below;
        private BlockDevice _image = null!;

        private bool HasSnapshots => !_options.Contains("data_file", StringComparison.Ordinal);

        private bool HasDirtyBit => !_options.Contains("0.10", StringComparison.Ordinal);

        public void Run()
        {
            Make();
            int[] seeds = [.. Enumerable.Range(0, Threads).Select(_ => random.Next())];
            Exception? failure = null;
            var threads = Enumerable.Range(0, Threads).Select(t => new Thread(() =>
            {
                try
                {
                    Work(t, new Random(seeds[t]));
                }
                catch (Exception e)
                {
                    Interlocked.CompareExchange(ref failure, e, null);
                }
            }, 1 << 20)).ToArray();
            foreach (var t in threads)
                t.Start();
            foreach (var t in threads)
                t.Join();
            if (failure is not null)
                throw new InvalidOperationException($"{_options}, {_size} bytes, {(_below is null ? "no backing" : $"{_below.Length} below")}: {failure.Message}", failure);
            for (int s = 0; s < _stripes.Length; s++)
                Same(_image, s, _stripes[s].Done, _stripes[s].Done, "at the end");
            _image.Flush();
            Lose();
            _image.Dispose();
            Lose();
            foreach (var loss in _losses)
                Judge(loss);
        }

        private void Make()
        {
            _disk.Add("mem:a", []);
            _disk.Add("mem:data", [], discardsToZero: true);
            byte[] content = new byte[_size];
            bool raw = _options.Contains("raw=on", StringComparison.Ordinal);
            var options = _options.Split(',').Select(o => new KeyValuePair<string, string>(o.Split('=')[0], o[(o.IndexOf('=', StringComparison.Ordinal) + 1)..])).ToList();
            int backing = raw ? 0 : random.Next(3);
            if (backing > 0)
            {
                // Longer or shorter; plain, or an image of compressed clusters.
                _below = new byte[(_size / 2 + random.Next(_size)) / 512 * 512];
                for (int at = 0; at < _below.Length; at += 700)
                    _below.AsSpan(at, Math.Min(700, _below.Length - at)).Fill((byte)random.Next(4));
                _below.AsSpan(0, Math.Min(_size, _below.Length)).CopyTo(content);
                _disk.Add("mem:below", backing == 1 ? _below : []);
                if (backing == 2)
                    MakeCompressed();
            }
            CreateJob.Run(_disk.Opener(), new CreateRequest
            {
                FileName = "mem:a",
                Format = "qcow2",
                Size = _size,
                BackingFile = backing > 0 ? "mem:below" : null,
                BackingFormat = backing == 0 ? null : backing == 1 ? "raw" : "qcow2",
                Options = options,
            });
            _image = Open(_disk.Opener());
            if (!_options.Contains("data_file", StringComparison.Ordinal) && random.Next(2) == 0)
                Fill(_image, content, 40);
            _image.Flush();
            int count = (_size - WildSize) / Stripe;
            _stripes = [.. Enumerable.Range(0, count).Select(s => new History(content.AsSpan(WildSize + s * Stripe, Stripe).ToArray()))];
        }

        private void MakeCompressed()
        {
            CreateJob.Run(_disk.Opener(), new CreateRequest { FileName = "mem:below", Format = "qcow2", Size = _below!.Length, Options = [new("cluster_size", "4k")] });
            using var below = _disk.Opener().Open("mem:below", "qcow2", new OpenSettings());
            Fill(below, _below, 101);
            below.Flush();
        }

        /// <summary>Stores some clusters compressed (as they are in <paramref name="content"/>).</summary>
        private void Fill(BlockDevice image, byte[] content, int percent)
        {
            var target = (ICompressingDevice)image;
            byte[] packed = new byte[target.MaxCompressedLength];
            for (int at = 0; at < content.Length; at += target.CompressionUnit)
            {
                var unit = content.AsSpan(at, Math.Min(target.CompressionUnit, content.Length - at));
                if (random.Next(100) < percent && target.Compress(unit, packed) is > 0 and int n)
                    target.WriteCompressed(at, packed.AsSpan(0, n), unit.Length);
                else if (percent > 100)
                    image.Write(at, unit);
            }
        }

        private BlockDevice Open(ImageOpener opener)
        {
            var o = new BlockOptions();
            if (random.Next(2) == 0)
            {
                o.Set("l2-cache-entry-size", "512");
                o.Set("l2-cache-size", "1k");
                o.Set("refcount-cache-size", "4k");
            }
            o.Set("pass-discard-other", random.Next(2) == 0 ? "on" : "off");
            return opener.Open("mem:a", "qcow2", new OpenSettings { Unmap = true }, o);
        }

        private void Work(int thread, Random r)
        {
            byte[] noise = new byte[Stripe];
            for (int i = 0; i < Steps; i++)
            {
                int s = r.Next((_stripes.Length + Threads - 1) / Threads) * Threads + thread;
                if (s >= _stripes.Length)
                    continue;
                int at = r.Next(Stripe), count = r.Next(1, Stripe - at + 1);
                long offset = WildSize + (long)s * Stripe + at;
                switch (r.Next(22))
                {
                    case 0 or 1:
                        Change(s, at, count, static b => b.Clear(), () => _image.WriteZeroes(offset, count, (ZeroOptions)(i & 1)));
                        break;
                    case 2 or 3:
                        Discard(s, at, count);
                        break;
                    case 4 or 5:
                        Same(_image, s, _stripes[s].Done, _stripes[s].Done, "while others write");
                        break;
                    case 6 or 7:
                        Flush();
                        break;
                    case 8 or 9 or 10:
                        Wild(thread, r);
                        break;
                    case 11 when HasSnapshots && HasDirtyBit && thread == 0:
                        Snapshot(r);
                        break;
                    case 12 when thread == 0 && HasDirtyBit:
                        Resize(r);
                        break;
                    case 13:
                        Tail(r);
                        break;
                    case 14 when r.Next(4) == 0:
                        Lose();
                        break;
                    case 15:
                        _image.GetExtent(offset, count);
                        break;
                    default:
                        r.NextBytes(noise);
                        byte[] data = noise.AsSpan(0, count).ToArray();
                        Change(s, at, count, b => data.CopyTo(b), () => _image.Write(offset, data));
                        break;
                }
            }
        }

        private delegate void Fills(Span<byte> bytes);

        private void Change(int s, int at, int count, Fills fill, Action action)
        {
            var h = _stripes[s];
            byte[] next = (byte[])h.Last.Clone();
            fill(next.AsSpan(at, count));
            lock (_model)
                h.Versions.Add(next);
            action();
            lock (_model)
                h.Done = h.Versions.Count - 1;
        }

        /// <summary>Each byte may become zero or stay: both are versions, and what is there afterwards is the next.</summary>
        private void Discard(int s, int at, int count)
        {
            var h = _stripes[s];
            byte[] zero = (byte[])h.Last.Clone();
            zero.AsSpan(at, count).Clear();
            int before = h.Done;
            lock (_model)
                h.Versions.Add(zero);
            _image.Discard(WildSize + (long)s * Stripe + at, count);
            byte[] now = new byte[Stripe];
            _image.Read(WildSize + (long)s * Stripe, now);
            Require(h.FirstWrong(now, before, before + 1), s, "after a discard");
            lock (_model)
            {
                h.Versions.Add(now);
                h.Done = h.Versions.Count - 1;
            }
        }

        private void Flush()
        {
            int[] done;
            lock (_model)
                done = [.. _stripes.Select(h => h.Done)];
            _image.Flush();
            lock (_model)
                for (int s = 0; s < done.Length; s++)
                    _stripes[s].Safe = Math.Max(_stripes[s].Safe, done[s]);
        }

        /// <summary>All threads write here: each byte is that of one of them, or was never written.</summary>
        private void Wild(int thread, Random r)
        {
            int at = r.Next(WildSize), count = r.Next(1, Math.Min(9000, WildSize - at) + 1);
            byte[] data = new byte[count];
            data.AsSpan().Fill((byte)(0xA0 + thread));
            switch (r.Next(5))
            {
                case 0:
                    _image.WriteZeroes(at, count, ZeroOptions.MayUnmap);
                    break;
                case 1:
                    _image.Discard(at, count);
                    break;
                case 2 when HasSnapshots:
                    var target = (ICompressingDevice)_image;
                    int unit = target.CompressionUnit, start = at / unit * unit;
                    byte[] plain = new byte[unit], packed = new byte[unit];
                    plain.AsSpan().Fill((byte)(0xA0 + thread));
                    if (start + unit <= WildSize && target.Compress(plain, packed) is > 0 and int n)
                        target.WriteCompressed(start, packed.AsSpan(0, n), unit);
                    break;
                case 3:
                    _image.Read(at, data);
                    WildIsRight(data, at);
                    break;
                default:
                    _image.Write(at, data);
                    break;
            }
        }

        private void WildIsRight(ReadOnlySpan<byte> data, int at)
        {
            for (int i = 0; i < data.Length; i++)
                if (data[i] != 0 && data[i] is < 0xA0 or >= 0xA0 + Threads && data[i] >= 4)
                    throw new InvalidOperationException($"byte {at + i} is 0x{data[i]:x2}, which nobody wrote");
        }

        /// <summary>A snapshot while others write is what was there at some moment, and stays that.</summary>
        private void Snapshot(Random r)
        {
            var list = (ISnapshotImage)_image;
            if (_snapshots.Count > 2)
            {
                string gone = _snapshots.Keys.ElementAt(r.Next(_snapshots.Count));
                list.DeleteSnapshot(gone);
                _snapshots.Remove(gone);
                return;
            }
            string name = $"s{r.Next():x}";
            int[] from, to;
            lock (_model)
                from = [.. _stripes.Select(h => h.Done)];
            list.CreateSnapshot(name, DateTimeOffset.UnixEpoch);
            lock (_model)
                to = [.. _stripes.Select(h => h.Versions.Count - 1)];
            using var view = list.OpenSnapshot(name);
            byte[] content = new byte[_size];
            view.Read(0, content);
            lock (_model)
                for (int s = 0; s < _stripes.Length; s++)
                    Require(_stripes[s].FirstWrong(content.AsSpan(WildSize + s * Stripe, Stripe), from[s], to[s]), s, "in a snapshot");
            _snapshots[name] = content;
        }

        private void Resize(Random r)
        {
            _image.Resize(_size + r.Next(300) * 512);
        }

        /// <summary>Behind what belongs to anybody: the place may go meanwhile.</summary>
        private void Tail(Random r)
        {
            int at = _size + r.Next(100_000);
            try
            {
                if (r.Next(2) == 0)
                    _image.Write(at, new byte[r.Next(1, 5000)]);
                else
                    _image.Discard(at, r.Next(1, 30_000));
            }
            catch (ImageException e) when (e.Kind == ImageErrorKind.OutOfBounds)
            {
                // The disk is not that long just now.
            }
        }

        private void Lose()
        {
            int[] from, to;
            lock (_model)
                from = [.. _stripes.Select(h => h.Safe)];
            var files = _disk.Crash(new Random(_losses.Count));
            lock (_model)
            {
                to = [.. _stripes.Select(h => h.Versions.Count - 1)];
                if (_losses.Count < 12)
                    _losses.Add(new Loss(files, from, to));
            }
        }

        private void Judge(Loss loss)
        {
            string what = $"{_options}, {_size} bytes, {(_below is null ? "no backing" : $"{_below.Length} below")}: after a loss of power";
            var after = new CrashDisk();
            foreach (var (name, content) in loss.Files)
                after.Add(name, content);
            using var image = Open(after.Opener());
            var lines = new List<string>();
            var found = ((ICheckableImage)image).Check(CheckRepair.None, lines.Add);
            if (found.Corruptions + found.CheckErrors > 0)
                throw new InvalidOperationException($"{what}: {string.Join("; ", lines.Take(3))}");
            for (int s = 0; s < _stripes.Length; s++)
                Same(image, s, loss.From[s], loss.To[s], what);
            foreach (var s in ((ISnapshotImage)image).Snapshots)
            {
                if (!_snapshots.TryGetValue(s.Name, out byte[]? content))
                    continue;
                using var view = ((ISnapshotImage)image).OpenSnapshot(s.Name);
                byte[] now = new byte[_size];
                view.Read(0, now);
                int same = now.AsSpan().CommonPrefixLength(content);
                if (same < _size)
                    throw new InvalidOperationException($"{what}: snapshot {s.Name}, byte {same}");
            }
        }

        private void Same(BlockDevice image, int s, int from, int to, string when)
        {
            byte[] now = new byte[Stripe];
            image.Read(WildSize + (long)s * Stripe, now);
            Require(_stripes[s].FirstWrong(now, from, to), s, $"{when} (versions {from} to {to})");
        }

        private void Require(int wrong, int s, string when)
        {
            if (wrong >= 0)
                throw new InvalidOperationException($"byte {WildSize + s * Stripe + wrong} (stripe {s}) is wrong {when}");
        }
    }
}
