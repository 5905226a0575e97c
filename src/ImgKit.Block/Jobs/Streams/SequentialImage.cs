using System.Buffers;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>
/// An image that comes through a pipe in units, each once, in the disk's order. It can be asked and read a little out of order, as the threads of
/// a job do: units wait in memory until they have been read. What has been read is gone.
/// </summary>
internal abstract class SequentialImage(PipeReader pipe, int unitSize, long length) : BlockDevice, ISequentialImage
{
    /// <summary>More waits only when somebody skips data, and then the rest would have to be kept, too.</summary>
    private const long MaxWaiting = 256 << 20;

    private readonly Lock _lock = new();
    private readonly Dictionary<long, Waiting> _waiting = [];
    private long _last = -1;
    private long _waitingBytes;
    private bool _ended;
    private Exception? _failure;

    /// <summary>Gives the units.</summary>
    protected PipeReader Pipe => pipe;

    /// <summary>Bytes of a unit.</summary>
    protected int UnitSize => unitSize;

    public override long Length => length;

    public override bool IsReadOnly => true;

    public override string FileName { get; set; } = "-";

    public override BlockLimits Limits => BlockLimits.Default with { ClusterSize = unitSize };

    /// <summary>Takes the next stored unit from the pipe.</summary>
    /// <param name="unit">its number, higher than the last.</param>
    /// <param name="data">a rented array with what is stored.</param>
    /// <param name="length">bytes in it.</param>
    /// <returns>false when there are no more; the end of the image has been judged then.</returns>
    protected abstract bool TryTakeNext(out long unit, out byte[] data, out int length);

    /// <summary>Makes content of what was stored. Any thread.</summary>
    protected abstract void Decompress(long unit, ReadOnlySpan<byte> data, Span<byte> content);

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        while (destination.Length > 0)
        {
            var (unit, skip) = Math.DivRem(offset, unitSize);
            int whole = (int)Math.Min(unitSize, length - unit * unitSize);
            int n = (int)Math.Min(whole - skip, destination.Length);
            ReadUnit(unit, whole, (int)skip, destination[..n]);
            destination = destination[n..];
            offset += n;
        }
    }

    private void ReadUnit(long unit, int whole, int skip, Span<byte> destination)
    {
        Waiting? w;
        lock (_lock)
        {
            AdvanceTo(unit);
            _waiting.TryGetValue(unit, out w);
        }
        if (w is null)
        {
            destination.Clear();
            return;
        }
        lock (w)
        {
            if (destination.Length == whole)
            {
                Decompress(unit, w.Data.AsSpan(0, w.Length), destination);
            }
            else
            {
                if (w.Content is null)
                {
                    w.Content = ArrayPool<byte>.Shared.Rent(whole);
                    Decompress(unit, w.Data.AsSpan(0, w.Length), w.Content.AsSpan(0, whole));
                }
                w.Content.AsSpan(skip, destination.Length).CopyTo(destination);
            }
            w.Read += destination.Length;
            if (w.Read < whole)
                return;
        }
        lock (_lock)
        {
            if (_waiting.Remove(unit))
                _waitingBytes -= w.Length;
        }
        ArrayPool<byte>.Shared.Return(w.Data);
        if (w.Content is not null)
            ArrayPool<byte>.Shared.Return(w.Content);
    }

    public override BlockExtent GetExtent(long offset, long count)
    {
        CheckRange(offset, count);
        var (unit, skip) = Math.DivRem(offset, unitSize);
        lock (_lock)
        {
            AdvanceTo(unit);
            if (_waiting.ContainsKey(unit))
                return new(Math.Min(count, unitSize - skip), ExtentKind.Data | ExtentKind.Allocated | ExtentKind.Compressed, 0);
            long next = long.MaxValue;
            foreach (long other in _waiting.Keys)
                if (other > unit)
                    next = Math.Min(next, other);
            long end = next == long.MaxValue ? length : next * unitSize;
            return new(Math.Min(count, end - offset), ExtentKind.Zero | ExtentKind.Allocated, 0);
        }
    }

    public void Finish()
    {
        lock (_lock)
        {
            AdvanceTo(long.MaxValue);
            pipe.Drain();
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "standard input cannot be written", "-");

    public override void Flush() { }

    protected override void Dispose(bool disposing) => pipe.Dispose();

    private void AdvanceTo(long unit)
    {
        if (_failure is not null)
            throw new ImageException(ImageErrorKind.Io, _failure.Message, "-", inner: _failure);
        while (!_ended && _last < unit)
        {
            long next;
            byte[] data;
            int stored;
            try
            {
                if (!TryTakeNext(out next, out data, out stored))
                {
                    _ended = true;
                    break;
                }
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                // What was taken is gone: whoever comes later must not find something else in its place.
                _failure = e;
                throw;
            }
            _last = next;
            _waiting.Add(next, new Waiting(data, stored));
            _waitingBytes += stored;
            if (_waitingBytes > MaxWaiting)
                throw new ImageException(ImageErrorKind.Unsupported, "standard input would have to be kept in memory to be read like this; save it to a file", "-");
        }
    }

    private sealed class Waiting(byte[] data, int length)
    {
        public readonly byte[] Data = data;
        public readonly int Length = length;
        public byte[]? Content;
        public int Read;
    }
}
