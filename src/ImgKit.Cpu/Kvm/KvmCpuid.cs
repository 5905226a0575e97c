using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>CPUID leaves for vCPUs: what KVM supports, and what depends on vCPU, machine and interrupt controllers.
/// Sources: Intel SDM volume 2A CPUID; AMD APM volume 3 appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst; Microsoft TLFS 2.4.</summary>
internal static class KvmCpuid
{
    private const uint KvmBase = 0x40000000;

    /// <summary>KVM_GET_SUPPORTED_CPUID (or the Hyper-V variant) as a list.</summary>
    public static List<CpuidLeaf> GetSupported(KvmFd fd, uint request)
    {
        for (int room = 128; ; room *= 2)
        {
            var list = new KvmList<kvm_cpuid_entry2>(room) { Count = room };
            int r = list.Try(fd, request);
            const int E2BIG = 7;
            if (r == -E2BIG && room < 4096)
                continue;
            if (r < 0)
                throw new KvmException($"KVM: supported CPUID: {LibC.ErrorText(-r)}", -r);
            var leaves = new List<CpuidLeaf>(list.Count);
            foreach (ref readonly var e in list.Entries[..list.Count])
                leaves.Add(new CpuidLeaf(e.function, e.index, (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0, e.eax, e.ebx, e.ecx, e.edx));
            return leaves;
        }
    }

    /// <summary>Sets the leaves of a vCPU.</summary>
    public static void Apply(KvmVm vm, KvmFd vcpu, int index)
    {
        var options = vm.Options;
        var leaves = (options.SelectCpuid is { } select ? select(vm.SupportedCpuid, index) : vm.SupportedCpuid)
            .Where(l => l.Function is < KvmBase or >= 0x80000000).ToList();
        AddParavirtual(vm, leaves);
        var list = new KvmList<kvm_cpuid_entry2>(leaves.Count) { Count = leaves.Count };
        for (int i = 0; i < leaves.Count; i++)
        {
            var l = Adapt(vm, leaves[i], index);
            list.Entries[i] = new kvm_cpuid_entry2
            {
                function = l.Function,
                index = l.Index,
                flags = l.IndexMatters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                eax = l.Eax,
                ebx = l.Ebx,
                ecx = l.Ecx,
                edx = l.Edx,
            };
        }
        list.Call(vcpu, KVM_SET_CPUID2, "CPUID of a vCPU");
    }

    private static CpuidLeaf Adapt(KvmVm vm, CpuidLeaf leaf, int index)
    {
        int count = vm.Options.ProcessorCount;
        bool kernelApic = vm.InterruptControllers != InterruptControllers.Machine;
        switch (leaf.Function)
        {
            case 1:
                uint ecx = leaf.Ecx & ~(1u << 21 | 1u << 24);
                if (kernelApic && (leaf.Ecx >> 21 & 1 | (vm.Options.HasOwnTopology ? 0u : 1)) != 0)
                {
                    ecx |= 1u << 21; // x2APIC
                    if (vm.VmExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0)
                        ecx |= 1u << 24;
                }
                if (!vm.Options.HideKvm || vm.Options.HyperV != HyperVFeatures.None)
                    ecx |= 1u << 31;
                if (vm.Options.HasOwnTopology)
                    return leaf with { Ecx = ecx };
                uint logical = count > 1 ? (uint)Math.Min(count, 255) : 0;
                uint edx = count > 1 ? leaf.Edx | 1u << 28 : leaf.Edx & ~(1u << 28);
                return leaf with { Ebx = leaf.Ebx & 0xFFFF | logical << 16 | (uint)index << 24, Ecx = ecx, Edx = edx | 1u << 9 };
            case not 1 when vm.Options.HasOwnTopology:
                return leaf;
            case 4 when (leaf.Eax & 31) != 0:
                // one thread a core, all cores in one package
                return leaf with { Eax = leaf.Eax & 0x3FFF | (uint)(Math.Min(count, 64) - 1) << 26 };
            case 0xB or 0x1F:
                return leaf.Index switch
                {
                    0 => leaf with { Eax = 0, Ebx = 1, Ecx = 0x100, Edx = (uint)index },
                    1 => leaf with { Eax = Bits(count), Ebx = (uint)count, Ecx = 0x201, Edx = (uint)index },
                    _ => leaf with { Eax = 0, Ebx = 0, Ecx = leaf.Index & 0xFF, Edx = (uint)index },
                };
            case 0x80000008:
                return leaf with { Ecx = leaf.Ecx & ~0xF0FFu | (uint)(Math.Min(count, 256) - 1) | Bits(count) << 12 };
            case 0x8000001E:
                return leaf with { Eax = (uint)index, Ebx = (uint)index & 0xFF, Ecx = 0 };
            default:
                return leaf;
        }
    }

    private static uint Bits(int count)
    {
        uint bits = 0;
        while (1 << (int)bits < count)
            bits++;
        return bits;
    }

    private static void AddParavirtual(KvmVm vm, List<CpuidLeaf> leaves)
    {
        var options = vm.Options;
        uint kvm = KvmBase;
        if (options.HyperV != HyperVFeatures.None)
        {
            leaves.AddRange(HyperV.Leaves(vm.HyperVFeatures, options.HyperVVendor ?? "Microsoft Hv", options.HyperVSpinlocks));
            kvm += 0x100;
        }
        if (options.HideKvm)
            return;
        foreach (var leaf in vm.SupportedCpuid.Where(l => l.Function is KvmBase or KvmBase + 1))
        {
            var l = leaf with { Function = leaf.Function - KvmBase + kvm };
            if (leaf.Function == KvmBase)
                l = l with { Eax = kvm + 1 };
            else if (vm.InterruptControllers == InterruptControllers.Machine)
                l = l with { Eax = l.Eax & ~(1u << 4 | 1u << 6 | 1u << 7 | 1u << 11 | 1u << 14 | 1u << 15) }; // async page faults, PV EOI, unhalt, PV IPI, ...: need kernel APICs
            leaves.Add(l);
        }
    }
}
