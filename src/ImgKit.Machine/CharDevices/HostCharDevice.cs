namespace ImgKit.Machine.CharDevices;

/// <summary>A character device whose other end may be slow: what it does not take is kept, so that neither the machine nor its monitors wait for it.</summary>
public abstract class HostCharDevice : CharDevice
{
    private const int MostWaiting = 4 << 20, FarewellMilliseconds = 200;

    private byte[] _waiting = [];
    private int _first, _count;

    /// <inheritdoc/>
    public override bool IsCongested => _count > 0;

    /// <summary>Sends what can be sent now. Returns the bytes taken, or -1 when nobody will ever take any.</summary>
    protected abstract int Send(ReadOnlySpan<byte> data);

    /// <summary>Has <see cref="SendWaiting"/> called when bytes can be sent (while <see cref="IsCongested"/>), or no longer.</summary>
    protected abstract void WatchOutput();

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<byte> data)
    {
        if (_count == 0)
        {
            int sent = Send(data);
            if (sent < 0 || sent == data.Length)
                return;
            Keep(data[sent..]);
            WatchOutput();
        }
        else
            Keep(data);
    }

    private void Keep(ReadOnlySpan<byte> data)
    {
        if (data.Length > MostWaiting - _count)
            return;
        if (_first + _count + data.Length > _waiting.Length)
        {
            byte[] wider = _count + data.Length > _waiting.Length ? new byte[Math.Max(2 * _waiting.Length, _count + data.Length)] : _waiting;
            Array.Copy(_waiting, _first, wider, 0, _count);
            _waiting = wider;
            _first = 0;
        }
        data.CopyTo(_waiting.AsSpan(_first + _count));
        _count += data.Length;
    }

    /// <summary>Sends what waits, as far as possible.</summary>
    protected void SendWaiting()
    {
        if (_count == 0)
            return;
        int sent = Send(_waiting.AsSpan(_first, _count));
        if (sent < 0)
            sent = _count;
        _first += sent;
        _count -= sent;
        if (_count == 0)
            Forget();
    }

    /// <summary>Nobody will take what waits.</summary>
    protected void Forget()
    {
        _waiting = [];
        _first = _count = 0;
        WatchOutput();
        OutputDrained?.Invoke();
    }

    /// <summary>Before the end: gives the other side a moment to take what waits.</summary>
    protected void SayFarewell()
    {
        OutputDrained = null;
        for (long end = Environment.TickCount64 + FarewellMilliseconds; _count > 0 && Environment.TickCount64 < end;)
        {
            SendWaiting();
            if (_count > 0)
                Thread.Sleep(5);
        }
    }
}
