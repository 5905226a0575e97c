using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Devices.Serial;

/// <summary>A standard parallel port with a printer that is ready as long as the host takes what it prints. Source: IBM AT technical reference, parallel printer adapter.</summary>
public sealed class ParallelPort : Device, IPortHandler
{
    private readonly ushort _base;
    private readonly CharDevice _back;
    private readonly InterruptLine _irq;
    private byte _data, _control = 0x0C;

    /// <summary>Makes one.</summary>
    public ParallelPort(MachineServices services, ushort port, int irq, CharDevice back)
    {
        _base = port;
        _back = back;
        _irq = services.IsaLine(irq);
        _back.OutputDrained = () =>
        {
            if ((_control & 0x10) != 0)
                _irq.Pulse();
        };
        services.Ports.Register(port, 3, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-parallel";

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => (port - _base) switch
    {
        // Turned round, it reads what the other end drives: nothing.
        0 => (_control & 0x20) != 0 ? 0xFFu : _data,
        1 => _back.IsCongested ? 0x5Fu : 0xDF,          // (not) busy, acknowledged, selected, no error
        _ => (uint)(_control | 0xC0),
    };

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        switch (port - _base)
        {
            case 0:
                _data = (byte)value;
                break;
            case 2:
                // The printer takes the byte when STROBE falls.
                if ((_control & 1) != 0 && (value & 1) == 0)
                {
                    _back.Write([_data]);
                    if ((value & 0x10) != 0 && !_back.IsCongested)
                        _irq.Pulse();
                }
                _control = (byte)(value & 0x3F);
                break;
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _data = 0;
        _control = 0x0C;
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("data", ref _data);
        state.Field("control", ref _control);
    }
}
