namespace ImgKit.Cpu.Kvm;

/// <summary>One CPUID leaf as the guest sees it.</summary>
/// <param name="Function">EAX of the query.</param>
/// <param name="Index">ECX of the query.</param>
/// <param name="IndexMatters">the function has sub-leaves.</param>
public readonly record struct CpuidLeaf(uint Function, uint Index, bool IndexMatters, uint Eax, uint Ebx, uint Ecx, uint Edx);

/// <summary>How a <see cref="KvmVm"/> is made.</summary>
public sealed class KvmOptions
{
    /// <summary>kernel_irqchip: on (Kernel), split, off (Machine).</summary>
    public InterruptControllers InterruptControllers { get; init; } = InterruptControllers.Kernel;

    /// <summary>With kernel controllers: whether lost PIT ticks are delivered late (true, the kernel's default) or dropped.</summary>
    public bool ReinjectPitTicks { get; init; } = true;

    /// <summary>The memory as system-management mode sees it; null: no SMM.</summary>
    public PhysicalMemoryMap? SystemManagementMemory { get; init; }

    /// <summary>Given what KVM supports and a vCPU index, the leaves for that vCPU; null: what KVM supports. Topology leaves, APIC ids
    /// and what depends on the interrupt controllers are set afterwards.</summary>
    public Func<IReadOnlyList<CpuidLeaf>, int, IEnumerable<CpuidLeaf>>? SelectCpuid { get; init; }

    /// <summary>The selected leaves say how processors are grouped: only what depends on the interrupt controllers is set.</summary>
    public bool HasOwnTopology { get; init; }

    /// <summary>Number of vCPUs the machine will have (for the topology leaves).</summary>
    public int ProcessorCount { get; init; } = 1;

    /// <summary>Hyper-V enlightenments offered to the guest.</summary>
    public HyperVFeatures HyperV { get; init; }

    /// <summary>With <see cref="HyperVFeatures.Spinlocks"/>: tries after which the guest reports a spin.</summary>
    public uint HyperVSpinlocks { get; init; } = uint.MaxValue;

    /// <summary>What the Hyper-V leaves call the hypervisor, 1 to 12 characters; null: as Hyper-V does.</summary>
    public string? HyperVVendor { get; init; }

    /// <summary>Hide the KVM signature and its paravirtual features.</summary>
    public bool HideKvm { get; init; }

    /// <summary>Guest TSC frequency in kHz; 0: the host's. Other values need TSC scaling.</summary>
    public int TscKilohertz { get; init; }
}
