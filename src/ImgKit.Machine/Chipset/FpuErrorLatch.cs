namespace ImgKit.Machine.Chipset;

/// <summary>
/// How a PC tells programs of numeric errors where CR0.NE is clear: the processor's FERR# output sets a latch, which raises IRQ 13; a write to port
/// 0xF0 clears it and lets the processor ignore the error (IGNNE#) until the program has cleared it. Source: PIIX3 data sheet, coprocessor
/// error register; Intel SDM 3A 8.6 and volume 1, D.2. (Port 0xF1, which reset a coprocessor of its own, is not decoded.)
/// </summary>
public sealed class FpuErrorLatch : Device, IPortHandler
{
    private readonly InterruptLine _line;
    private readonly Action _ignore;
    private bool _raised;

    /// <summary>Makes the latch.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="line">IRQ 13.</param>
    /// <param name="ignore">asserts IGNNE# of the processors.</param>
    public FpuErrorLatch(MachineServices services, InterruptLine line, Action ignore)
    {
        _line = line;
        _ignore = ignore;
        services.Ports.Register(0xF0, 1, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "fpu-error";

    /// <summary>A processor has a numeric error that it cannot report by an exception.</summary>
    public void Raise() => Set(true);

    private void Set(bool raised)
    {
        _raised = raised;
        _line.Set(raised);
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size) => 0xFF;

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        if (!_raised)
            return;
        Set(false);
        _ignore();
    }

    /// <inheritdoc/>
    public override void Reset() => Set(false);

    /// <inheritdoc/>
    public override void Describe(StateVisitor state) => state.Field("raised", ref _raised);
}
