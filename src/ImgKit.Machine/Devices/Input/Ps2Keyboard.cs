namespace ImgKit.Machine.Devices.Input;

/// <summary>An AT keyboard. Keys come in as set 1 codes (with the prefix 0xE0 for the grey ones) and go out in the set that is
/// selected, 2 after reset. Source: IBM PS/2 technical reference, keyboards (101- and 102-key).</summary>
public sealed class Ps2Keyboard : IStateful
{
    // Set 2 code of each set 1 code 0..0x58.
    private static ReadOnlySpan<byte> Set2 =>
    [
        0x00, 0x76, 0x16, 0x1E, 0x26, 0x25, 0x2E, 0x36, 0x3D, 0x3E, 0x46, 0x45, 0x4E, 0x55, 0x66, 0x0D,
        0x15, 0x1D, 0x24, 0x2D, 0x2C, 0x35, 0x3C, 0x43, 0x44, 0x4D, 0x54, 0x5B, 0x5A, 0x14, 0x1C, 0x1B,
        0x23, 0x2B, 0x34, 0x33, 0x3B, 0x42, 0x4B, 0x4C, 0x52, 0x0E, 0x12, 0x5D, 0x1A, 0x22, 0x21, 0x2A,
        0x32, 0x31, 0x3A, 0x41, 0x49, 0x4A, 0x59, 0x7C, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0C, 0x03,
        0x0B, 0x83, 0x0A, 0x01, 0x09, 0x77, 0x7E, 0x6C, 0x75, 0x7D, 0x7B, 0x6B, 0x73, 0x74, 0x79, 0x69,
        0x72, 0x7A, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F,
    ];

    private readonly Ps2Queue _queue = new();
    private readonly Action _changed;
    private byte _argumentOf, _set = 2, _leds, _rate = 0x2B, _last;
    private bool _scanning = true;

    internal Ps2Keyboard(Action changed) => _changed = changed;

    /// <summary>Scroll lock, num lock, caps lock in bits 0..2.</summary>
    public byte Leds => _leds;

    internal bool TryTake(out byte value)
    {
        bool any = _queue.TryTake(out value);
        if (any)
            _last = value;
        return any;
    }

    /// <summary>Translates a code of set 2 to set 1, as the controller does; <paramref name="breaking"/>: 0xF0 came before it.</summary>
    internal static byte ToSet1(byte value, ref bool breaking)
    {
        int code = value is > 0 and <= 0x84 ? Set2.IndexOf(value) : -1;
        if (code < 0)
            return value;       // replies (0xFA, 0xAA ...) and prefixes are not codes
        bool released = breaking;
        breaking = false;
        return (byte)(code | (released ? 0x80 : 0));
    }

    /// <summary>A key goes down or up.</summary>
    /// <param name="code">set 1 code; 0xE0xx for those with the prefix.</param>
    /// <param name="down">pressed.</param>
    public void Key(int code, bool down)
    {
        if (!_scanning || !_queue.HasRoom(4))
            return;
        int plain = code & 0x7F;
        if ((code & 0xFF00) == 0xE000)
            _queue.Put(0xE0);
        if (_set == 1)
            _queue.Put((byte)(plain | (down ? 0 : 0x80)));
        else
        {
            if (!down)
                _queue.Put(0xF0);
            _queue.Put(plain < Set2.Length ? Set2[plain] : (byte)plain);
        }
        _changed();
    }

    private void Reply(byte value) => _queue.Put(value);

    internal void Write(byte value)
    {
        byte command = _argumentOf;
        _argumentOf = 0;
        switch (command)
        {
            case 0xED:
                _leds = (byte)(value & 7);
                Reply(0xFA);
                return;
            case 0xF0:
                Reply(0xFA);
                if (value == 0)
                    Reply(_set switch { 1 => 1, 3 => 3, _ => 2 });
                else if (value <= 3)
                    _set = value;
                return;
            case 0xF3:
                _rate = value;
                Reply(0xFA);
                return;
        }
        switch (value)
        {
            case 0xED or 0xF0 or 0xF3:
                _argumentOf = value;
                Reply(0xFA);
                break;
            case 0xEE:
                Reply(0xEE);
                break;
            case 0xF2:
                Reply(0xFA);
                Reply(0xAB);
                Reply(0x83);
                break;
            case 0xF4:
                _queue.Clear();
                _scanning = true;
                Reply(0xFA);
                break;
            case 0xF5:
                Defaults();
                _scanning = false;
                Reply(0xFA);
                break;
            case 0xF6:
                Defaults();
                Reply(0xFA);
                break;
            case 0xFE:
                Reply(_last);
                break;
            case 0xFF:
                Defaults();
                Reply(0xFA);
                Reply(0xAA);
                break;
            case 0x00 or (>= 0xF7 and <= 0xFD):
                Reply(0xFA);
                break;
            default:
                Reply(0xFE);
                break;
        }
    }

    private void Defaults()
    {
        _queue.Clear();
        _set = 2;
        _leds = 0;
        _rate = 0x2B;
        _scanning = true;
    }

    internal void Reset()
    {
        Defaults();
        _argumentOf = _last = 0;
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        state.Part("queue", _queue);
        state.Field("argument-of", ref _argumentOf);
        state.Field("set", ref _set);
        state.Field("leds", ref _leds);
        state.Field("rate", ref _rate);
        state.Field("last", ref _last);
        state.Field("scanning", ref _scanning);
    }
}
