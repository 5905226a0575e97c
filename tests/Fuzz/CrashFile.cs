using ImgKit.Block;

namespace ImgKit.Fuzz;

/// <summary>Files in memory that can lose power together: what was flushed is there afterwards, and any part of what was written since.</summary>
internal sealed class CrashDisk
{
    private const int Sector = 512;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, CrashFile> _files = [];

    /// <summary>An empty file.</summary>
    public CrashFile Add(string name, byte[] content, bool discardsToZero = false) => _files[name] = new CrashFile(this, content, discardsToZero);

    /// <summary>The files as they may be found after the power is lost now.</summary>
    public Dictionary<string, byte[]> Crash(Random random)
    {
        int keep = random.Next(4) == 0 ? 100 : random.Next(100);
        bool tears = random.Next(2) == 0;
        lock (_lock)
            return _files.ToDictionary(f => f.Key, f => f.Value.Survivors(random, keep, tears));
    }

    /// <summary>An opener that finds the files given, and no others.</summary>
    public static ImageOpener Opener(Func<string, BlockDevice> find) => new(new DriverCatalogue(
    [
        .. DriverCatalogue.Default.All.Where(d => d.Kind == DriverKind.Format),
        new BlockDriver
        {
            Name = "file",
            Kind = DriverKind.Protocol,
            Description = "Files in memory",
            FileNamePrefixes = ["mem:"],
            ParseFileName = (name, options) => options.Set("filename", name),
            Open = context => find(context.Options.TakeString("filename") ?? ""),
            Create = context => find(context.FileName).Resize(context.Size),
        },
    ]));

    /// <summary>An opener that finds its own files.</summary>
    public ImageOpener Opener() => Opener(name => _files[name]);

    /// <summary>One of them.</summary>
    internal sealed class CrashFile(CrashDisk disk, byte[] content, bool discardsToZero) : BlockDevice
    {
        private readonly List<(long Offset, byte[]? Data)> _pending = [];
        private byte[] _now = (byte[])content.Clone();
        private byte[] _safe = (byte[])content.Clone();

        public override string DriverName => "file";

        public override long Length => Volatile.Read(ref _now).Length;

        public byte[] Content
        {
            get
            {
                lock (disk._lock)
                    return (byte[])_now.Clone();
            }
        }

        public override void Read(long offset, Span<byte> destination)
        {
            lock (disk._lock)
            {
                int n = (int)Math.Clamp(_now.Length - offset, 0, destination.Length);
                if (n > 0)
                    _now.AsSpan((int)offset, n).CopyTo(destination);
                destination[n..].Clear();
            }
        }

        public override void Write(long offset, ReadOnlySpan<byte> source) => Change(offset, source.ToArray());

        public override void Discard(long offset, long count)
        {
            byte[] rest = new byte[count];
            if (!discardsToZero)
                rest.AsSpan().Fill(0xDD);
            Change(offset, rest);
        }

        public override void Resize(long length, ResizeOptions options = default) => Change(length, null);

        public override void Flush()
        {
            lock (disk._lock)
            {
                foreach (var (offset, data) in _pending)
                    Apply(ref _safe, offset, data);
                _pending.Clear();
            }
        }

        internal byte[] Survivors(Random random, int keep, bool tears)
        {
            byte[] bytes = (byte[])_safe.Clone();
            foreach (var (offset, data) in _pending)
            {
                for (int at = 0; at < (data?.Length ?? 1);)
                {
                    // Sectors are written whole, or not at all.
                    int n = data is null ? 1 : tears ? (int)Math.Min(Sector - (offset + at) % Sector, data.Length - at) : data.Length;
                    if (random.Next(100) < keep)
                        Apply(ref bytes, offset + (data is null ? 0 : at), data?[at..(at + n)]);
                    at += n;
                }
            }
            return bytes;
        }

        private void Change(long offset, byte[]? data)
        {
            lock (disk._lock)
            {
                _pending.Add((offset, data));
                Apply(ref _now, offset, data);
            }
        }

        private static void Apply(ref byte[] bytes, long offset, byte[]? data)
        {
            if (data is null)
                Array.Resize(ref bytes, (int)offset);
            else if (offset + data.Length > bytes.Length)
                Array.Resize(ref bytes, (int)offset + data.Length);
            data?.CopyTo(bytes.AsSpan((int)offset));
        }
    }
}
