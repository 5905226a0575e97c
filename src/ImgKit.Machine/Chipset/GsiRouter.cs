using ImgKit.Cpu;

namespace ImgKit.Machine.Chipset;

/// <summary>Takes the interrupt lines of ISA devices and of the PCI router to PIC and I/O APIC, or to the engine that has both.</summary>
internal sealed class GsiRouter : IInterruptSink
{
    internal Pic? Pic { get; set; }

    internal IoApic? IoApic { get; set; }

    internal CpuEngine? Engine { get; set; }

    public void SetLine(int line, bool asserted)
    {
        // The timer's line is on the I/O APIC's input 2, as on every PC; only the HPET can be led there by itself.
        if (Engine != null)
        {
            Engine.SetInterruptLine(line == 2 ? 0 : line, asserted);
            return;
        }
        if (line < 16 && line != 2)
            Pic?.SetLine(line, asserted);
        IoApic?.SetLine(line == 0 ? 2 : line, asserted);
    }
}

/// <summary>Message-signalled interrupts for local APICs that the engine has.</summary>
internal sealed class EngineMessages(CpuEngine engine) : IMessageInterruptSink
{
    public void SendMessage(ulong address, uint data) => engine.SignalMessage(address, data);
}
