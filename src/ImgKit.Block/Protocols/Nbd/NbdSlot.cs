using System.Runtime.CompilerServices;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>Slots of one caller, whose requests are in flight at the same time.</summary>
[InlineArray(Length)]
internal struct SlotWindow
{
    /// <summary>How many there can be.</summary>
    public const int Length = 8;

    private Slot _first;
}

/// <summary>The place of a request in flight. Its owner waits; whoever receives fills it in.</summary>
internal sealed unsafe class Slot(uint index)
{
    private readonly object _monitor = new();
    private uint _generation;
    private IoBuffer* _buffers;
    private int _bufferCount;
    private volatile bool _inUse;
    private volatile bool _done;
    private bool _waiting;
    private bool _signaled;
    private long _covered;
    private List<(long At, long End)>? _parts;

    public ulong Cookie => (ulong)_generation << 32 | index;

    public NbdCommand Command { get; private set; }

    public long Offset { get; private set; }

    public long Length { get; private set; }

    public List<NbdExtent>? Extents { get; private set; }

    public int Error { get; private set; }

    public bool Lost { get; private set; }

    public bool IsDone => _done;

    /// <summary>Whether every byte has come.</summary>
    public bool IsCovered => _covered == Length;

    public void Begin(scoped in NbdConnection.Request request, IoBuffer* buffers)
    {
        _generation++;
        Command = request.Command;
        Offset = request.Offset;
        Length = request.Length;
        Extents = request.Extents;
        _buffers = buffers;
        _bufferCount = request.Buffers.Length;
        Error = 0;
        Lost = false;
        _covered = 0;
        _parts?.Clear();
        _signaled = false;
        _waiting = false;
        _done = false;
        _inUse = true;
    }

    public void End()
    {
        _inUse = false;
        _buffers = null;
        Extents = null;
    }

    public bool IsWaitingFor(ulong cookie) => _inUse && !_done && cookie == Cookie;

    /// <summary>The request's memory from a place on, up to the end of one buffer.</summary>
    public Span<byte> Memory(long at, long length)
    {
        for (int i = 0; i < _bufferCount; i++)
        {
            int n = _buffers[i].Length;
            if (at < n)
                return _buffers[i].Span.Slice((int)at, (int)Math.Min(length, n - at));
            at -= n;
        }
        throw new InvalidOperationException("the buffers are shorter than the request");
    }

    public void Zero(long at, long length)
    {
        while (length > 0)
        {
            var piece = Memory(at, length);
            piece.Clear();
            at += piece.Length;
            length -= piece.Length;
        }
    }

    /// <summary>Notes that a part has come; false: it had come before.</summary>
    public bool Cover(long at, long length)
    {
        // Nearly every server sends parts in order: then one number says what has come.
        if (at == _covered && _parts is null or { Count: 0 })
        {
            _covered += length;
            return true;
        }
        _parts ??= [];
        if (_parts.Count == 0 && _covered > 0)
            _parts.Add((0, _covered));
        if (_parts.Count > 4096)
            return false;
        foreach (var (start, end) in _parts)
            if (at < end && at + length > start)
                return false;
        _parts.Add((at, at + length));
        _covered += length;
        return true;
    }

    /// <summary>Notes an error; the first one counts.</summary>
    public void Fail(int error)
    {
        if (Error == 0)
            Error = error;
    }

    /// <summary>The reply is complete.</summary>
    public void Complete()
    {
        _done = true;
        Signal();
    }

    /// <summary>There will be no reply.</summary>
    public void Lose()
    {
        if (!_inUse || _done)
            return;
        Lost = true;
        Complete();
    }

    public void AnnounceWait()
    {
        lock (_monitor)
            _waiting = true;
        Interlocked.MemoryBarrier();
    }

    public void CancelWait()
    {
        lock (_monitor)
            _waiting = false;
    }

    public void WaitForSignal()
    {
        lock (_monitor)
        {
            while (!_signaled && !_done)
                Monitor.Wait(_monitor);
            _signaled = false;
            _waiting = false;
        }
    }

    /// <summary>Wakes the owner if it waits for its reply, so that it takes over receiving.</summary>
    public bool TryWakeWaiting()
    {
        if (!_inUse || _done)
            return false;
        lock (_monitor)
        {
            if (!_waiting || _done)
                return false;
            _signaled = true;
            Monitor.Pulse(_monitor);
            return true;
        }
    }

    private void Signal()
    {
        lock (_monitor)
        {
            if (_waiting)
                Monitor.Pulse(_monitor);
        }
    }
}
