namespace ImgKit.Machine;

/// <summary>What has interrupt inputs: a PIC, an I/O APIC, the kernel's interrupt controllers, a router in front of them.</summary>
public interface IInterruptSink
{
    /// <summary>Sets the level of an input.</summary>
    /// <param name="line">number of the input, from 0.</param>
    /// <param name="asserted">the new level; true is active, whatever the polarity.</param>
    void SetLine(int line, bool asserted);
}

/// <summary>What takes message-signalled interrupts: the local APICs, or the kernel's.</summary>
public interface IMessageInterruptSink
{
    /// <summary>Delivers a write of <paramref name="data"/> to <paramref name="address"/> (0xFEExxxxx; Intel SDM 3A 11.11).</summary>
    void SendMessage(ulong address, uint data);
}

/// <summary>One wire from a device to an interrupt input. The default value is not connected.</summary>
public readonly struct InterruptLine(IInterruptSink? sink, int number)
{
    /// <summary>Input number at the sink.</summary>
    public int Number => number;

    /// <summary>Drives the wire.</summary>
    public void Set(bool asserted) => sink?.SetLine(number, asserted);

    /// <summary>A short pulse, for edge-triggered inputs.</summary>
    public void Pulse()
    {
        sink?.SetLine(number, true);
        sink?.SetLine(number, false);
    }
}
