using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>Names of the reasons that KVM_RUN returns for, for statistics.</summary>
internal static class KvmExits
{
    /// <summary>Reasons that are counted one by one, and a last place for all others. Reason 0 (unknown) counts returns for a signal.</summary>
    public const int Reasons = 32;

    public static IEnumerable<(string Name, long Count)> Named(long[] counts)
    {
        for (uint reason = 0; reason < counts.Length; reason++)
            if (counts[reason] != 0)
                yield return (Name(reason), counts[reason]);
    }

    private static string Name(uint reason) => reason switch
    {
        0 => "kick",
        KVM_EXIT_IO => "port",
        KVM_EXIT_MMIO => "mmio",
        KVM_EXIT_HLT => "halt",
        KVM_EXIT_IRQ_WINDOW_OPEN => "interrupt window",
        KVM_EXIT_SHUTDOWN => "shutdown",
        KVM_EXIT_INTR => "signal",
        KVM_EXIT_SET_TPR => "task priority",
        KVM_EXIT_IOAPIC_EOI => "end of interrupt",
        KVM_EXIT_HYPERV => "Hyper-V",
        KVM_EXIT_X86_RDMSR => "rdmsr",
        KVM_EXIT_X86_WRMSR => "wrmsr",
        _ => "other",
    };
}
