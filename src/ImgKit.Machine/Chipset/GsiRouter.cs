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
        if (Engine != null)
        {
            Engine.SetInterruptLine(line, asserted);
            return;
        }
        if (line < 16)
            Pic?.SetLine(line, asserted);
        // The timer's line is on input 2, as on every PC with an I/O APIC.
        IoApic?.SetLine(line == 0 ? 2 : line, asserted);
    }
}

/// <summary>Message-signalled interrupts for local APICs that the engine has.</summary>
internal sealed class EngineMessages(CpuEngine engine) : IMessageInterruptSink
{
    public void SendMessage(ulong address, uint data) => engine.SignalMessage(address, data);
}
