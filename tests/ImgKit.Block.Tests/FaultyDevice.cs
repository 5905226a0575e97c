namespace ImgKit.Block.Tests;

/// <summary>How a call fails that is made to fail.</summary>
internal enum FaultKind
{
    /// <summary>Nothing is done.</summary>
    Nothing,

    /// <summary>Half of a write is done; the device does not notice that it is longer, as after a full disk.</summary>
    Half,

    /// <summary>All of it is done, but reported as failed.</summary>
    All,
}

/// <summary>A file in memory of which one call fails; those before and behind it do what they should.</summary>
/// <param name="content">at first.</param>
/// <param name="failsAt">the number of the call, of those that <paramref name="counts"/> tells; negative: none.</param>
/// <param name="kind">how.</param>
/// <param name="counts">which calls are counted, by their names (<c>read</c>, <c>write</c>, <c>flush</c>, <c>discard</c>, <c>resize</c>); null: all but reads.</param>
internal sealed class FaultyDevice(byte[] content, int failsAt, FaultKind kind = FaultKind.Nothing, string? counts = null) : BlockDevice
{
    private readonly Lock _lock = new();
    private byte[] _bytes = (byte[])content.Clone();
    private long _length = content.Length;
    private int _calls;

    /// <summary>Calls so far that were counted.</summary>
    public int Calls => Volatile.Read(ref _calls);

    /// <summary>The one has failed.</summary>
    public bool HasFailed => failsAt >= 0 && Calls > failsAt;

    /// <summary>What the one that failed was.</summary>
    public string Failed { get; private set; } = "";

    public override string DriverName => "faulty";

    public override long Length => Volatile.Read(ref _length);

    public byte[] Snapshot()
    {
        lock (_lock)
            return _bytes.AsSpan(0, (int)_length).ToArray();
    }

    public override void Read(long offset, Span<byte> destination)
    {
        lock (_lock)
        {
            if (Fails("read", offset, destination.Length))
                throw Error();
            destination.Clear();
            int n = (int)Math.Clamp(_bytes.Length - offset, 0, destination.Length);
            if (n > 0)
                _bytes.AsSpan((int)offset, n).CopyTo(destination);
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        lock (_lock)
        {
            bool fails = Fails("write", offset, source.Length);
            if (fails && kind == FaultKind.Nothing)
                throw Error();
            int n = fails && kind == FaultKind.Half ? source.Length / 2 : source.Length;
            if (offset + n > _bytes.Length)
                Array.Resize(ref _bytes, (int)(offset + n));
            source[..n].CopyTo(_bytes.AsSpan((int)offset));
            if (fails)
                throw Error();
            _length = Math.Max(_length, offset + n);
        }
    }

    public override void Discard(long offset, long count)
    {
        lock (_lock)
        {
            if (Fails("discard", offset, count))
                throw Error();
            _bytes.AsSpan((int)offset, (int)count).Fill(0xDD);
        }
    }

    public override void Resize(long length, ResizeOptions options = default)
    {
        lock (_lock)
        {
            if (Fails("resize", length, 0))
                throw Error();
            Array.Resize(ref _bytes, (int)length);
            _length = length;
        }
    }

    public override void Flush()
    {
        lock (_lock)
            if (Fails("flush", 0, 0))
                throw Error();
    }

    private bool Fails(string what, long offset, long count)
    {
        if (counts is null ? what == "read" : !counts.Contains(what, StringComparison.Ordinal))
            return false;
        if (_calls++ != failsAt)
            return false;
        Failed = $"{what} {offset} {count}";
        return true;
    }

    private static ImageException Error() => new(ImageErrorKind.Io, "Input/output error") { Errno = 5 };
}
