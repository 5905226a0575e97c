namespace ImgKit.Machine.Chipset;

/// <summary>Connects local APICs, I/O APIC and message-signalled interrupts. Intel SDM 3A, 11.6 (IPIs) and 11.11 (messages).</summary>
public sealed class ApicBus : IMessageInterruptSink
{
    private readonly List<LocalApic> _apics = [];
    private int _lastLowest;

    /// <summary>The processors' APICs by index.</summary>
    public IReadOnlyList<LocalApic> Apics => _apics;

    /// <summary>The I/O APIC that hears ends of interrupt.</summary>
    public IoApic? IoApic { get; set; }

    /// <summary>The PIC behind LINT0.</summary>
    public Pic? Pic { get; set; }

    /// <summary>Told when a processor has taken an interrupt from its APIC.</summary>
    public Action? Taken { get; set; }

    /// <summary>Whether a vector waits in an APIC that a message to <paramref name="address"/> reaches.</summary>
    public bool Waits(ulong address, byte vector)
    {
        foreach (var a in _apics)
            if (a.Matches((uint)(address >> 12 & 0xFF), (address & 4) != 0) && a.IsRequested(vector))
                return true;
        return false;
    }

    /// <summary>Adds the next processor's APIC.</summary>
    public LocalApic Add(MachineServices services, IApicProcessor cpu)
    {
        var apic = new LocalApic(_apics.Count, services, this, cpu);
        _apics.Add(apic);
        return apic;
    }

    /// <summary>The PIC's output has changed. All processors' LINT0 are on that wire; only one that takes ExtINT cares.</summary>
    public void SetExternal(bool asserted)
    {
        foreach (var a in _apics)
            a.SetExternal(asserted);
    }

    /// <summary>The board's NMI button.</summary>
    public void PulseNmi()
    {
        foreach (var a in _apics)
            a.PulseLint1();
    }

    internal int AcknowledgeExternal() => Pic?.Acknowledge() ?? -1;

    internal void EndOfInterrupt(byte vector) => IoApic?.EndOfInterrupt(vector);

    /// <inheritdoc/>
    public void SendMessage(ulong address, uint data)
    {
        uint destination = (uint)(address >> 12 & 0xFF);
        bool logical = (address & 4) != 0;
        uint mode = data >> 8 & 7;
        // The redirection hint means: to the processor of lowest priority.
        if ((address & 8) != 0 && mode == 0)
            mode = 1;
        Send(destination, logical, mode, (byte)data, (data & 0x8000) != 0);
    }

    private void Send(uint destination, bool logical, uint mode, byte vector, bool level)
    {
        if (mode == 1)
        {
            // Round robin: as good as any arbitration that hardware does.
            for (int i = 0; i < _apics.Count; i++)
            {
                int at = (_lastLowest + 1 + i) % _apics.Count;
                if (!_apics[at].Matches(destination, logical))
                    continue;
                _lastLowest = at;
                _apics[at].Deliver(0, vector, level);
                return;
            }
            return;
        }
        foreach (var a in _apics)
            if (a.Matches(destination, logical))
                a.Deliver(mode, vector, level);
    }

    internal void SendIpi(LocalApic from, uint low, uint destination)
    {
        uint mode = low >> 8 & 7;
        bool level = (low & 0x8000) != 0;
        // INIT level de-assert only synchronises arbitration IDs, which nothing has had for long.
        if (mode == 5 && level && (low & 0x4000) == 0)
            return;
        switch (low >> 18 & 3)
        {
            case 0:
                Send(destination, (low & 0x800) != 0, mode, (byte)low, false);
                break;
            case 1:
                from.Deliver(mode, (byte)low, false);
                break;
            default:
                foreach (var a in _apics)
                    if (a != from || (low >> 18 & 3) == 2)
                        a.Deliver(mode, (byte)low, false);
                break;
        }
    }
}
