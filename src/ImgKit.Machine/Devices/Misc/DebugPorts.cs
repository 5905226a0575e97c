using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Devices.Misc;

/// <summary>A port that takes characters and answers with a signature, as Bochs has it: SeaBIOS writes its log to it when it reads 0xE9.</summary>
public sealed class DebugConsole : Device, IPortHandler
{
    private readonly CharDevice _back;

    /// <summary>Makes one, as a rule at port 0x402 or 0xE9.</summary>
    public DebugConsole(MachineServices services, ushort port, CharDevice back)
    {
        _back = back;
        services.Ports.Register(port, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-debugcon";

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => 0xE9;

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size) => _back.Write([(byte)value]);

    /// <inheritdoc/>
    public override void Reset()
    {
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
    }
}

/// <summary>A port that ends the process: a written value v gives exit status v * 2 + 1.</summary>
public sealed class DebugExit : Device, IPortHandler
{
    private readonly MachineServices _services;

    /// <summary>Makes one, as a rule at port 0x501 of 4 ports.</summary>
    public DebugExit(MachineServices services, ushort port, int count)
    {
        _services = services;
        services.Ports.Register(port, count, this, 4);
    }

    /// <inheritdoc/>
    public override string TypeName => "isa-debug-exit";

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => 0;

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size) => _services.Control.RequestExit((int)(value << 1 | 1) & 0xFF);

    /// <inheritdoc/>
    public override void Reset()
    {
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
    }
}

/// <summary>The pvpanic port: a guest's kernel tells that it panicked. Source: QEMU's docs/specs/pvpanic.</summary>
public sealed class PanicPort : Device, IPortHandler
{
    private readonly MachineServices _services;

    /// <summary>Makes one, as a rule at port 0x505.</summary>
    public PanicPort(MachineServices services, ushort port)
    {
        _services = services;
        services.Ports.Register(port, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "pvpanic";

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => 1;

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if ((value & 1) != 0)
            _services.Control.ReportPanic();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
    }
}
