namespace ImgKit.Machine.Chipset;

/// <summary>A device that moves bytes by a channel of the ISA DMA controllers.</summary>
public interface IDmaClient
{
    /// <summary>The channel has been programmed or unmasked: move what is possible now, through <see cref="Dma8237.Transfer"/>.</summary>
    void DmaReady(int channel);
}

/// <summary>
/// The two 8237A DMA controllers of a PC with their page registers: channels 0..3 move bytes, 5..7 words. Source: Intel 8237A data
/// sheet; page registers as in the IBM AT.
/// </summary>
public sealed class Dma8237 : Device, IPortHandler
{
    private static ReadOnlySpan<byte> PagePorts => [0x87, 0x83, 0x81, 0x82, 0x8F, 0x8B, 0x89, 0x8A];

    private readonly MachineServices _services;
    private readonly ushort[] _baseAddress = new ushort[8], _baseCount = new ushort[8], _address = new ushort[8], _count = new ushort[8];
    private readonly byte[] _page = new byte[16];
    private readonly byte[] _mode = new byte[8];
    private readonly byte[] _mask = [0xF, 0xF], _status = new byte[2], _command = new byte[2];
    private readonly bool[] _flipFlop = new bool[2];
    private readonly IDmaClient?[] _clients = new IDmaClient?[8];

    /// <summary>Makes the pair.</summary>
    public Dma8237(MachineServices services)
    {
        _services = services;
        services.Ports.Register(0x00, 16, this);
        services.Ports.Register(0xC0, 32, this);
        services.Ports.Register(0x80, 16, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "i8257";

    /// <summary>Connects a device to a channel.</summary>
    public void Connect(int channel, IDmaClient client) => _clients[channel] = client;

    /// <summary>Moves up to <paramref name="data"/>'s length between the device and memory, as the channel is programmed.</summary>
    /// <param name="channel">0..7.</param>
    /// <param name="data">from the device when <paramref name="toMemory"/>, else to it.</param>
    /// <param name="toMemory">the direction in which the device wants to move.</param>
    /// <param name="terminal">the count has run out (TC).</param>
    /// <returns>bytes moved: 0 when the channel is masked, disabled, or programmed for the other direction.</returns>
    public int Transfer(int channel, Span<byte> data, bool toMemory, out bool terminal)
    {
        terminal = false;
        int chip = channel >> 2, n = channel & 3;
        if ((_mask[chip] >> n & 1) != 0 || (_command[chip] & 4) != 0)
            return 0;
        int direction = _mode[channel] >> 2 & 3;        // 0 verify, 1 write to memory, 2 read from memory
        if (direction == 3 || (direction == 1 && !toMemory) || (direction == 2 && toMemory))
            return 0;
        int shift = chip;
        long left = ((long)_count[channel] + 1) << shift;
        int length = (int)Math.Min(data.Length, left) & ~((1 << shift) - 1);
        bool down = (_mode[channel] & 0x20) != 0;
        ulong page = _page[PagePorts[channel] & 15];
        if (shift == 1)
            page &= 0xFE;
        for (int done = 0; done < length && direction != 0;)
        {
            // In pieces that do not cross the 64 K (128 K) page: the address wraps there.
            uint at = (uint)_address[channel] << shift;
            int piece = down ? 1 : (int)Math.Min(length - done, (0x10000L << shift) - at);
            ulong physical = page << 16 | 0;
            physical += at;
            if (direction == 1)
                _services.Memory.Write(physical, data.Slice(done, piece));
            else
                _services.Memory.Read(physical, data.Slice(done, piece));
            done += piece;
            _address[channel] = (ushort)(down ? _address[channel] - 1 : _address[channel] + (piece >> shift));
        }
        if (direction == 0)
            _address[channel] += (ushort)(length >> shift);
        int units = length >> shift;
        terminal = units == _count[channel] + 1;
        _count[channel] = (ushort)(_count[channel] - units);
        if (terminal)
        {
            _status[chip] |= (byte)(1 << n);
            if ((_mode[channel] & 0x10) != 0)
            {
                _address[channel] = _baseAddress[channel];
                _count[channel] = _baseCount[channel];
            }
            else
                _mask[chip] |= (byte)(1 << n);
        }
        return length;
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port is >= 0x80 and < 0x90)
            return _page[port & 15];
        int chip = port < 0x80 ? 0 : 1, register = chip == 0 ? port : (port - 0xC0) >> 1;
        if (register < 8)
        {
            int channel = chip * 4 + (register >> 1);
            ushort value = (register & 1) != 0 ? _count[channel] : _address[channel];
            _flipFlop[chip] = !_flipFlop[chip];
            return _flipFlop[chip] ? value & 0xFFu : (uint)value >> 8;
        }
        switch (register)
        {
            case 8:
                byte status = _status[chip];
                _status[chip] &= 0xF0;
                return status;
            case 15:
                return _mask[chip];
            default:
                return 0;
        }
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        byte v = (byte)value;
        if (port is >= 0x80 and < 0x90)
        {
            _page[port & 15] = v;
            return;
        }
        int chip = port < 0x80 ? 0 : 1, register = chip == 0 ? port : (port - 0xC0) >> 1;
        if (register < 8)
        {
            int channel = chip * 4 + (register >> 1);
            var set = (register & 1) != 0 ? _baseCount : _baseAddress;
            _flipFlop[chip] = !_flipFlop[chip];
            set[channel] = _flipFlop[chip] ? (ushort)(set[channel] & 0xFF00 | v) : (ushort)(set[channel] & 0xFF | v << 8);
            ((register & 1) != 0 ? _count : _address)[channel] = set[channel];
            return;
        }
        switch (register)
        {
            case 8:
                _command[chip] = v;
                break;
            case 10:
                _mask[chip] = (byte)((v & 4) != 0 ? _mask[chip] | 1 << (v & 3) : _mask[chip] & ~(1 << (v & 3)));
                break;
            case 11:
                _mode[chip * 4 + (v & 3)] = v;
                break;
            case 12:
                _flipFlop[chip] = false;
                return;
            case 13:
                ResetChip(chip);
                return;
            case 14:
                _mask[chip] = 0;
                break;
            case 15:
                _mask[chip] = (byte)(v & 15);
                break;
        }
        for (int n = 0; n < 4; n++)
            if ((_mask[chip] >> n & 1) == 0)
                _clients[chip * 4 + n]?.DmaReady(chip * 4 + n);
    }

    private void ResetChip(int chip)
    {
        _flipFlop[chip] = false;
        _mask[chip] = 15;
        _status[chip] = _command[chip] = 0;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        ResetChip(0);
        ResetChip(1);
        Array.Clear(_mode);
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Fields("base-address", _baseAddress);
        state.Fields("base-count", _baseCount);
        state.Fields("address", _address);
        state.Fields("count", _count);
        state.Bytes("page", _page);
        state.Bytes("mode", _mode);
        state.Bytes("mask", _mask);
        state.Bytes("status", _status);
        state.Bytes("command", _command);
        state.Fields("flip-flop", _flipFlop);
    }
}
