namespace ImgKit.Cpu.Kvm;

/// <summary>Enlightenments of Microsoft's Hypervisor Top-Level Functional Specification that KVM implements.</summary>
[Flags]
public enum HyperVFeatures
{
    /// <summary>No Hyper-V interface.</summary>
    None = 0,

    /// <summary>hv-relaxed: no watchdog time-outs.</summary>
    Relaxed = 1,

    /// <summary>hv-vapic: APIC access MSRs and assist page.</summary>
    VirtualApic = 2,

    /// <summary>hv-time: reference counter and reference TSC page.</summary>
    Time = 4,

    /// <summary>hv-vpindex: index MSR.</summary>
    ProcessorIndex = 8,

    /// <summary>hv-runtime: run-time MSR.</summary>
    Runtime = 16,

    /// <summary>hv-frequencies: TSC and APIC frequency MSRs.</summary>
    Frequencies = 32,

    /// <summary>hv-spinlocks: long spins are reported.</summary>
    Spinlocks = 64,

    /// <summary>hv-reset: reset MSR.</summary>
    Reset = 128,

    /// <summary>hv-synic: synthetic interrupt controller. Needs local APICs in the kernel.</summary>
    SyntheticInterrupts = 256,

    /// <summary>hv-stimer: synthetic timers.</summary>
    SyntheticTimers = 512,

    /// <summary>hv-stimer-direct: timers that interrupt without a message.</summary>
    DirectTimers = 1024,

    /// <summary>hv-tlbflush: hypercalls that flush other processors' TLBs.</summary>
    TlbFlush = 2048,

    /// <summary>hv-ipi: hypercalls that send interrupts to many processors.</summary>
    Ipi = 4096,

    /// <summary>hv-reenlightenment: MSRs that tell of a changed TSC.</summary>
    Reenlightenment = 8192,

    /// <summary>hv-crash: MSRs by which a guest tells that, and why, it crashed.</summary>
    Crash = 16384,

    /// <summary>What this KVM does not have is left out.</summary>
    WhereSupported = 32768,

    /// <summary>hv-passthrough: all of them that this KVM has.</summary>
    All = 65535,
}

/// <summary>Names, conditions and CPUID bits of the enlightenments. Source: Microsoft TLFS, chapter 2 (feature and interface discovery: leaves
/// 0x40000000 to 0x40000005); names and their order as QEMU has them.</summary>
internal static class HyperV
{
    private const uint Base = 0x40000000;

    /// <param name="Key">the property, without hv-.</param>
    /// <param name="Access">bits of EAX of leaf 3.</param>
    /// <param name="Misc">bits of EDX of leaf 3.</param>
    /// <param name="Hints">bits of EAX of leaf 4.</param>
    private sealed record Feature(HyperVFeatures Flag, string Key, string Text, uint Access, uint Misc, uint Hints, HyperVFeatures Needs = HyperVFeatures.None);

    private static Feature[] Features =>
    [
        new(HyperVFeatures.Relaxed, "relaxed", "relaxed timing", 0, 0, 1 << 5),
        new(HyperVFeatures.VirtualApic, "vapic", "virtual APIC", 1 << 4, 0, 1 << 3),
        new(HyperVFeatures.Time, "time", "clocksources", 1 << 1 | 1 << 9, 0, 0),
        new(HyperVFeatures.ProcessorIndex, "vpindex", "VP_INDEX MSR", 1 << 6, 0, 0),
        new(HyperVFeatures.Runtime, "runtime", "VP_RUNTIME MSR", 1 << 0, 0, 0),
        new(HyperVFeatures.Frequencies, "frequencies", "frequency MSRs", 1 << 11, 1 << 8, 0),
        new(HyperVFeatures.Spinlocks, "spinlocks", "spinlock retries", 0, 0, 0),
        new(HyperVFeatures.Crash, "crash", "crash MSRs", 0, 1 << 10, 0),
        new(HyperVFeatures.Reset, "reset", "reset MSR", 1 << 7, 0, 0),
        new(HyperVFeatures.SyntheticInterrupts, "synic", "synthetic interrupt controller", 1 << 2, 0, 0, HyperVFeatures.ProcessorIndex),
        new(HyperVFeatures.SyntheticTimers, "stimer", "synthetic timers", 1 << 3, 0, 0, HyperVFeatures.SyntheticInterrupts | HyperVFeatures.Time),
        new(HyperVFeatures.DirectTimers, "stimer-direct", "direct mode synthetic timers", 0, 1 << 19, 0, HyperVFeatures.SyntheticTimers),
        new(HyperVFeatures.TlbFlush, "tlbflush", "paravirtualized TLB flush", 0, 0, 1 << 2 | 1 << 11, HyperVFeatures.ProcessorIndex),
        new(HyperVFeatures.Ipi, "ipi", "paravirtualized IPI", 0, 0, 1 << 10 | 1 << 11, HyperVFeatures.ProcessorIndex),
        new(HyperVFeatures.Reenlightenment, "reenlightenment", "reenlightenment MSRs", 1 << 13, 0, 0),
    ];

    /// <summary>The enlightenment of a property of <c>-cpu</c> that begins with hv-. Throws <see cref="Models.CpuModelException"/>.</summary>
    public static HyperVFeatures Parse(string key) => key == "hv-passthrough" ? HyperVFeatures.All
        : Array.Find(Features, f => key.AsSpan(3).SequenceEqual(f.Key))?.Flag
            ?? throw new Models.CpuModelException($"'{key}' is not an enlightenment that is there");

    private static string Describe(Feature f) => $"Hyper-V {f.Text} (hv-{f.Key})";

    /// <summary>One that needs another which was not asked for, as one line; null: none.</summary>
    public static string? FindMissing(HyperVFeatures wanted)
    {
        if (wanted.HasFlag(HyperVFeatures.WhereSupported))
            return null;
        foreach (var f in Features)
            foreach (var needed in Features)
                if (wanted.HasFlag(f.Flag) && f.Needs.HasFlag(needed.Flag) && !wanted.HasFlag(needed.Flag))
                    return $"{Describe(f)} requires {Describe(needed)}";
        return null;
    }

    /// <summary>Those of the wanted ones that this KVM has. Throws <see cref="KvmException"/> for one that it does not have, unless
    /// <see cref="HyperVFeatures.WhereSupported"/>.</summary>
    /// <param name="wanted">what was asked for.</param>
    /// <param name="supported">KVM_GET_SUPPORTED_HV_CPUID; null: a kernel that does not list them.</param>
    /// <param name="kernelApics">the local APICs are the kernel's.</param>
    public static HyperVFeatures Restrict(HyperVFeatures wanted, IReadOnlyList<CpuidLeaf>? supported, bool kernelApics)
    {
        const HyperVFeatures Old = (HyperVFeatures)255, WithApic = HyperVFeatures.SyntheticInterrupts | HyperVFeatures.SyntheticTimers
            | HyperVFeatures.DirectTimers | HyperVFeatures.Ipi;
        var offered = Find(supported, Base + 3);
        var hinted = Find(supported, Base + 4);
        var had = HyperVFeatures.None;
        foreach (var f in Features)
        {
            if (!wanted.HasFlag(f.Flag))
                continue;
            // what is a hint alone, of old, the kernel does not recommend, but bears
            bool has = supported is null ? Old.HasFlag(f.Flag)
                : (offered.Eax & f.Access) == f.Access && (offered.Edx & f.Misc) == f.Misc && (Old.HasFlag(f.Flag) || (hinted.Eax & f.Hints) == f.Hints);
            if (has && (kernelApics || !WithApic.HasFlag(f.Flag)) && had.HasFlag(f.Needs))
                had |= f.Flag;
            else if (!wanted.HasFlag(HyperVFeatures.WhereSupported))
                throw new KvmException(Describe(f) + (has ? " needs the kernel's local APICs (kernel_irqchip=on or split)" : " is not supported by kernel"));
        }
        return had;
    }

    private static CpuidLeaf Find(IReadOnlyList<CpuidLeaf>? leaves, uint function)
    {
        foreach (var l in leaves ?? [])
            if (l.Function == function)
                return l;
        return default;
    }

    /// <summary>The leaves that show them.</summary>
    /// <param name="features">those that are there.</param>
    /// <param name="vendor">1 to 12 characters.</param>
    /// <param name="spinlocks">tries after which a spin is reported.</param>
    public static IEnumerable<CpuidLeaf> Leaves(HyperVFeatures features, string vendor, uint spinlocks)
    {
        uint[] name = new uint[3];
        for (int i = 0; i < Math.Min(vendor.Length, 12); i++)
            name[i >> 2] |= (uint)(byte)vendor[i] << (8 * (i & 3));
        uint access = 1u << 5, misc = 0, hints = 0; // hypercall MSRs
        foreach (var f in Features)
        {
            if (!features.HasFlag(f.Flag))
                continue;
            access |= f.Access;
            misc |= f.Misc;
            hints |= f.Hints;
        }
        return
        [
            new(Base, 0, false, Base + 5, name[0], name[1], name[2]),
            new(Base + 1, 0, false, 0x31237648, 0, 0, 0), // "Hv#1"
            new(Base + 2, 0, false, 14393, 0x000A0000, 0, 0), // the build of Windows Server 2016
            new(Base + 3, 0, false, access, 0, 0, misc),
            new(Base + 4, 0, false, hints, spinlocks, 0, 0),
            new(Base + 5, 0, false, 240, 512, 0, 0),
        ];
    }
}
