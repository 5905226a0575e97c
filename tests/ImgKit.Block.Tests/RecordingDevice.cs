namespace ImgKit.Block.Tests;

/// <summary>
/// A file in memory that remembers every change and every flush, so that the states in which a crash could leave it can be built:
/// all that was flushed, and any part of what came after.
/// </summary>
internal sealed class RecordingDevice : BlockDevice
{
    private readonly Lock _lock = new();
    private readonly List<Change> _log = [];
    private byte[] _bytes;

    public RecordingDevice(byte[] content) => _bytes = (byte[])content.Clone();

    /// <summary>A change: bytes written, a size set, or a flush.</summary>
    public readonly record struct Change(ChangeKind Kind, long Offset, byte[] Data);

    public enum ChangeKind
    {
        Write,
        Resize,
        Flush,
    }

    public IReadOnlyList<Change> Log
    {
        get
        {
            lock (_lock)
                return [.. _log];
        }
    }

    public byte[] Snapshot()
    {
        lock (_lock)
            return (byte[])_bytes.Clone();
    }

    /// <summary>The file after a crash: all changes before the last flush in <c>[0, end)</c> of the log, and those behind it that
    /// <paramref name="keep"/> chooses.</summary>
    public static byte[] Replay(byte[] start, IReadOnlyList<Change> log, int end, Func<int, bool> keep)
    {
        int flushed = end;
        while (flushed > 0 && log[flushed - 1].Kind != ChangeKind.Flush)
            flushed--;
        byte[] bytes = (byte[])start.Clone();
        for (int i = 0; i < end; i++)
            if (i < flushed || keep(i))
                Apply(ref bytes, log[i]);
        return bytes;
    }

    private static void Apply(ref byte[] bytes, in Change change)
    {
        if (change.Kind == ChangeKind.Resize)
            Array.Resize(ref bytes, (int)change.Offset);
        if (change.Kind != ChangeKind.Write)
            return;
        if (change.Offset + change.Data.Length > bytes.Length)
            Array.Resize(ref bytes, (int)(change.Offset + change.Data.Length));
        change.Data.CopyTo(bytes, change.Offset);
    }

    private void Record(Change change)
    {
        lock (_lock)
        {
            _log.Add(change);
            Apply(ref _bytes, change);
        }
    }

    public override string DriverName => "record";

    public override long Length => _bytes.Length;

    /// <summary>Requests to read so far.</summary>
    public long Reads { get; private set; }

    public override void Read(long offset, Span<byte> destination)
    {
        lock (_lock)
        {
            Reads++;
            destination.Clear();
            int n = (int)Math.Clamp(_bytes.Length - offset, 0, destination.Length);
            if (n > 0)
                _bytes.AsSpan((int)offset, n).CopyTo(destination);
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) => Record(new Change(ChangeKind.Write, offset, source.ToArray()));

    public override void Resize(long length, ResizeOptions options = default) => Record(new Change(ChangeKind.Resize, length, []));

    /// <summary>Called once, in the middle of the next flush.</summary>
    public Action? Flushing { get; set; }

    public override void Flush()
    {
        var flushing = Flushing;
        Flushing = null;
        flushing?.Invoke();
        Record(new Change(ChangeKind.Flush, 0, []));
    }
}

/// <summary>Devices by name, <c>mem:NAME</c>, for openers in tests. A device stays when the image over it is closed.</summary>
internal sealed class MemoryProtocol
{
    public Dictionary<string, BlockDevice> Devices { get; } = [];

    /// <summary>An opener that finds them, and all else.</summary>
    public ImageOpener Opener() => new(new DriverCatalogue(
    [
        .. DriverCatalogue.Default.All,
        new BlockDriver
        {
            Name = "mem",
            Kind = DriverKind.Protocol,
            Description = "Devices of tests",
            FileNamePrefixes = ["mem:"],
            ParseFileName = (name, options) => options.Set("filename", name),
            Open = context => new Shared(Devices[context.Options.TakeString("filename")!["mem:".Length..]]),
            Create = context => Devices[context.FileName["mem:".Length..]] = new RecordingDevice(new byte[context.Size]),
        },
    ]));

    /// <summary>Passes everything on, but closing.</summary>
    private sealed class Shared(BlockDevice device) : BlockDevice
    {
        public override string DriverName => "mem";

        public override long Length => device.Length;

        public override void Read(long offset, Span<byte> destination) => device.Read(offset, destination);

        public override void Write(long offset, ReadOnlySpan<byte> source) => device.Write(offset, source);

        public override void Resize(long length, ResizeOptions options = default) => device.Resize(length, options);

        public override void Discard(long offset, long count) => device.Discard(offset, count);

        public override void Flush() => device.Flush();
    }
}
