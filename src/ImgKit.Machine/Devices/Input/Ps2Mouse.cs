namespace ImgKit.Machine.Devices.Input;

/// <summary>A PS/2 mouse with the wheel and five-button extensions. Source: IBM PS/2 technical reference, mouse; Microsoft's
/// "IntelliMouse" sample-rate knock.</summary>
public sealed class Ps2Mouse : IStateful
{
    private readonly Ps2Queue _queue = new();
    private readonly Action _changed;
    private byte _argumentOf, _rate = 100, _resolution = 2, _id, _buttons, _knock1, _knock2;
    private bool _reporting, _remote, _scaling21, _wrap;
    private int _dx, _dy, _dz;

    internal Ps2Mouse(Action changed) => _changed = changed;

    internal bool TryTake(out byte value) => _queue.TryTake(out value);

    /// <summary>The mouse moved, or its buttons changed.</summary>
    /// <param name="dx">to the right.</param>
    /// <param name="dy">downwards.</param>
    /// <param name="dz">wheel, towards the user positive.</param>
    /// <param name="buttons">left, right, middle, side, extra in bits 0..4.</param>
    public void Move(int dx, int dy, int dz, byte buttons)
    {
        _dx = Math.Clamp(_dx + dx, -10000, 10000);
        _dy = Math.Clamp(_dy - dy, -10000, 10000);
        _dz = Math.Clamp(_dz + dz, -1000, 1000);
        _buttons = buttons;
        if (!_reporting || _remote)
            return;
        do
        {
            if (!_queue.HasRoom(16))
                break;
            Packet();
        }
        while (_dx != 0 || _dy != 0 || _dz != 0);
        _changed();
    }

    private void Packet()
    {
        int x = Math.Clamp(_dx, -255, 255), y = Math.Clamp(_dy, -255, 255), z = Math.Clamp(_dz, -7, 7);
        _dx -= x;
        _dy -= y;
        _dz = _id == 0 ? 0 : _dz - z;
        _queue.Put((byte)(8 | _buttons & 7 | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0)));
        _queue.Put((byte)x);
        _queue.Put((byte)y);
        if (_id == 3)
            _queue.Put((byte)z);
        else if (_id == 4)
            _queue.Put((byte)(z & 15 | (_buttons & 0x18) << 1));
    }

    internal void Write(byte value)
    {
        if (_wrap && value is not (0xEC or 0xFF))
        {
            _queue.Put(value);
            return;
        }
        byte command = _argumentOf;
        _argumentOf = 0;
        if (command != 0)
        {
            if (command == 0xF3)
                SetRate(value);
            else
                _resolution = (byte)(value & 3);
            _queue.Put(0xFA);
            return;
        }
        if (value != 0xFE)
            _queue.Clear();
        _queue.Put(0xFA);
        switch (value)
        {
            case 0xE6:
                _scaling21 = false;
                break;
            case 0xE7:
                _scaling21 = true;
                break;
            case 0xE8 or 0xF3:
                _argumentOf = value;
                break;
            case 0xE9:
                _queue.Put((byte)((_remote ? 0x40 : 0) | (_reporting ? 0x20 : 0) | (_scaling21 ? 0x10 : 0) | _buttons & 7));
                _queue.Put(_resolution);
                _queue.Put(_rate);
                break;
            case 0xEA:
                _remote = false;
                break;
            case 0xEB:
                Packet();
                break;
            case 0xEC:
                _wrap = false;
                break;
            case 0xEE:
                _wrap = true;
                break;
            case 0xF0:
                _remote = true;
                break;
            case 0xF2:
                _queue.Put(_id);
                break;
            case 0xF4:
                _reporting = true;
                break;
            case 0xF5:
                _reporting = false;
                break;
            case 0xF6:
                Defaults();
                break;
            case 0xFF:
                Defaults();
                _id = 0;
                _queue.Put(0xAA);
                _queue.Put(0);
                break;
        }
    }

    // Setting 200, 100, 80 turns the wheel on; 200, 200, 80 five buttons.
    private void SetRate(byte rate)
    {
        if (rate == 80 && _knock1 == 200)
            _id = _knock2 switch { 100 => 3, 200 => 4, _ => _id };
        _knock1 = _knock2;
        _knock2 = rate;
        _rate = rate;
    }

    private void Defaults()
    {
        _rate = 100;
        _resolution = 2;
        _reporting = _remote = _scaling21 = _wrap = false;
        _dx = _dy = _dz = 0;
    }

    internal void Reset()
    {
        Defaults();
        _queue.Clear();
        _argumentOf = _id = _buttons = _knock1 = _knock2 = 0;
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        state.Part("queue", _queue);
        state.Field("argument-of", ref _argumentOf);
        state.Field("rate", ref _rate);
        state.Field("resolution", ref _resolution);
        state.Field("id", ref _id);
        state.Field("buttons", ref _buttons);
        state.Field("knock1", ref _knock1);
        state.Field("knock2", ref _knock2);
        state.Field("reporting", ref _reporting);
        state.Field("remote", ref _remote);
        state.Field("scaling", ref _scaling21);
        state.Field("wrap", ref _wrap);
        state.Field("dx", ref _dx);
        state.Field("dy", ref _dy);
        state.Field("dz", ref _dz);
    }
}
