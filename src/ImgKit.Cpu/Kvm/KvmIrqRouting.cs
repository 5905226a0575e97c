using System.Runtime.InteropServices;
using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>
/// The table that says what each GSI raises. GSIs 0..23 belong to the ISA lines and the I/O APIC; those above are handed out for messages
/// (MSI and MSI-X through irqfd). Thread-safe.
/// </summary>
internal sealed class KvmIrqRouting
{
    private const int Pins = 24;

    private readonly KvmFd _vm;
    private readonly int _limit;
    private readonly Lock _lock = new();
    private readonly List<kvm_irq_routing_entry> _chips = [];
    private readonly kvm_irq_routing_entry?[] _messages;

    public KvmIrqRouting(KvmFd vm, InterruptControllers controllers)
    {
        _vm = vm;
        _limit = Math.Min(vm.Extension(KVM_CAP_IRQ_ROUTING), 1024);
        _messages = new kvm_irq_routing_entry?[_limit];
        if (controllers == InterruptControllers.Kernel)
        {
            for (uint i = 0; i < 16; i++)
                if (i != 2) // the slave sits there
                    _chips.Add(Chip(i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i & 7));
            for (uint i = 0; i < Pins; i++)
                if (i != 2) // ISA interrupt 0 comes in at pin 2, as the MADT says
                    _chips.Add(Chip(i, KVM_IRQCHIP_IOAPIC, i == 0 ? 2 : i));
            Commit();
        }
    }

    /// <summary>Split: what an I/O APIC pin sends; the kernel derives from it which vectors need an end-of-interrupt exit.</summary>
    public void SetPin(int pin, ulong address, uint data, bool masked)
    {
        lock (_lock)
        {
            _messages[pin] = masked ? null : Message(pin, address, data);
            Commit();
        }
    }

    public int Add(ulong address, uint data)
    {
        lock (_lock)
        {
            for (int gsi = Pins; gsi < _limit; gsi++)
            {
                if (_messages[gsi] is not null)
                    continue;
                _messages[gsi] = Message(gsi, address, data);
                Commit();
                return gsi;
            }
        }
        return -1;
    }

    public void Update(int gsi, ulong address, uint data)
    {
        lock (_lock)
        {
            _messages[gsi] = Message(gsi, address, data);
            Commit();
        }
    }

    public void Remove(int gsi)
    {
        lock (_lock)
        {
            _messages[gsi] = null;
            Commit();
        }
    }

    private static kvm_irq_routing_entry Chip(uint gsi, uint chip, uint pin) => new()
    {
        gsi = gsi,
        type = KVM_IRQ_ROUTING_IRQCHIP,
        irqchip = new kvm_irq_routing_irqchip { irqchip = chip, pin = pin },
    };

    private static kvm_irq_routing_entry Message(int gsi, ulong address, uint data) => new()
    {
        gsi = (uint)gsi,
        type = KVM_IRQ_ROUTING_MSI,
        msi = new kvm_irq_routing_msi { address_lo = (uint)address, address_hi = (uint)(address >> 32), data = data },
    };

    private void Commit()
    {
        var all = new List<kvm_irq_routing_entry>(_chips);
        foreach (var message in _messages)
            if (message is { } m)
                all.Add(m);
        new KvmList<kvm_irq_routing_entry>(CollectionsMarshal.AsSpan(all)).Call(_vm, KVM_SET_GSI_ROUTING, "interrupt routing");
    }
}
