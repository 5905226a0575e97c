namespace ImgKit.Machine.Devices.Input;

/// <summary>The bytes that a PS/2 device has to send.</summary>
internal sealed class Ps2Queue : IStateful
{
    private const int Capacity = 256;
    private readonly byte[] _bytes = new byte[Capacity];
    private int _head, _count;

    internal int Count => _count;

    /// <summary>Room for so many bytes; a device drops a whole key or movement rather than a part of it.</summary>
    internal bool HasRoom(int bytes) => Capacity - _count >= bytes;

    internal void Put(byte value)
    {
        if (_count == Capacity)
            return;
        _bytes[(_head + _count++) % Capacity] = value;
    }

    internal bool TryTake(out byte value)
    {
        value = 0;
        if (_count == 0)
            return false;
        value = _bytes[_head];
        _head = (_head + 1) % Capacity;
        _count--;
        return true;
    }

    internal void Clear() => _head = _count = 0;

    public void Describe(StateVisitor state)
    {
        state.Bytes("bytes", _bytes);
        state.Field("head", ref _head);
        state.Field("count", ref _count);
        _head = (int)((uint)_head % Capacity);
        _count = Math.Clamp(_count, 0, Capacity);
    }
}
