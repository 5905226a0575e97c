using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Kvm;

/// <summary>A <c>-cpu</c> option for KVM: the model, what of it this KVM cannot offer, and the paravirtual interfaces.</summary>
public sealed class KvmCpuModel
{
    private const uint Extended = 0x80000000;

    private readonly bool _passThrough;
    private readonly uint[] _removed = new uint[Enum.GetValues<CpuidWord>().Length];

    /// <summary>Takes the whole of a <c>-cpu</c> option. Beyond those of <see cref="CpuModel.Parse(string, CpuTopology)"/> it knows <c>kvm=off</c> and
    /// <c>hv_NAME</c> (relaxed, vapic, time, vpindex, runtime, frequencies, spinlocks, reset, passthrough for all).
    /// Throws <see cref="CpuModelException"/>.</summary>
    public KvmCpuModel(string option, CpuTopology topology)
    {
        var kept = new List<string>();
        foreach (string part in option.Split(','))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string key = (equals < 0 ? part : part[..equals]).Replace('_', '-'), value = equals < 0 ? "on" : part[(equals + 1)..];
            if (key == "kvm")
                HideKvm = value is "off" or "no" or "false" or "n";
            else if (key.StartsWith("hv-", StringComparison.Ordinal))
                HyperV = value is "off" or "no" or "false" or "n" ? HyperV & ~FeatureOf(key) : HyperV | FeatureOf(key);
            else
                kept.Add(part);
            if (part.StartsWith('-') ? CpuFeatureNames.TryParse(part[1..], out var feature)
                : value == "off" && CpuFeatureNames.TryParse(equals < 0 ? part : part[..equals], out feature))
                _removed[(int)feature >> 5] |= 1u << ((int)feature & 31);
        }
        Model = CpuModel.Parse(string.Join(',', kept), topology);
        _passThrough = kept[0] is "host" or "max";
    }

    /// <summary>The model.</summary>
    public CpuModel Model { get; }

    /// <summary><c>kvm=off</c>.</summary>
    public bool HideKvm { get; }

    /// <summary>Enlightenments asked for.</summary>
    public HyperVFeatures HyperV { get; }

    /// <summary>host and max take what KVM supports, with topology by count alone; a named model has its own leaves.</summary>
    public bool HasOwnTopology => !_passThrough;

    private static HyperVFeatures FeatureOf(string key) => key[3..] switch
    {
        "relaxed" => HyperVFeatures.Relaxed,
        "vapic" => HyperVFeatures.VirtualApic,
        "time" => HyperVFeatures.Time,
        "vpindex" => HyperVFeatures.ProcessorIndex,
        "runtime" => HyperVFeatures.Runtime,
        "frequencies" => HyperVFeatures.Frequencies,
        "spinlocks" => HyperVFeatures.Spinlocks,
        "reset" => HyperVFeatures.Reset,
        "passthrough" => (HyperVFeatures)0xFF,
        _ => throw new CpuModelException($"Property 'host-x86_64-cpu.{key}' not found"),
    };

    /// <summary>Where KVM's leaves show a word of flags.</summary>
    private static (uint Function, uint Index, int Register) Place(CpuidWord word) => word switch
    {
        CpuidWord.Leaf1Edx => (1, 0, 3),
        CpuidWord.Leaf1Ecx => (1, 0, 2),
        CpuidWord.Extended1Edx => (Extended + 1, 0, 3),
        CpuidWord.Extended1Ecx => (Extended + 1, 0, 2),
        CpuidWord.Leaf7Ebx => (7, 0, 1),
        CpuidWord.Leaf7Ecx => (7, 0, 2),
        CpuidWord.Leaf7Edx => (7, 0, 3),
        CpuidWord.LeafDEax => (0xD, 1, 0),
        CpuidWord.Leaf6Eax => (6, 0, 0),
        CpuidWord.Extended7Edx => (Extended + 7, 0, 3),
        _ => (Extended + 8, 0, 1),
    };

    private static uint Supported(IReadOnlyList<CpuidLeaf> supported, CpuidWord word)
    {
        var (function, index, register) = Place(word);
        foreach (var l in supported)
            if (l.Function == function && (!l.IndexMatters || l.Index == index))
                return register switch { 0 => l.Eax, 1 => l.Ebx, 2 => l.Ecx, _ => l.Edx };
        return 0;
    }

    /// <summary>Flags of the model that this KVM cannot offer (they are left out), in the words of the peer's warning.</summary>
    public IEnumerable<string> Missing(IReadOnlyList<CpuidLeaf> supported)
    {
        if (_passThrough)
            yield break;
        const uint ApicAndHypervisor = 1u << 31 | 1u << 21 | 1u << 24;
        foreach (var word in Enum.GetValues<CpuidWord>())
        {
            uint lacking = Model.Word(word) & ~Supported(supported, word);
            if (word == CpuidWord.Leaf1Ecx)
                lacking &= ~ApicAndHypervisor;
            if (word == CpuidWord.Leaf6Eax)
                lacking &= ~4u; // ARAT: a matter of our timer
            for (int bit = 0; bit < 32; bit++)
                if ((lacking >> bit & 1) != 0)
                    yield return CpuFeatureNames.Describe((CpuFeature)((int)word << 5 | bit));
        }
    }

    /// <summary>The leaves of a vCPU: for <see cref="KvmOptions.SelectCpuid"/>.</summary>
    public IEnumerable<CpuidLeaf> Select(IReadOnlyList<CpuidLeaf> supported, int index)
    {
        if (_passThrough)
            return supported.Select(Without);
        var leaves = new List<CpuidLeaf>();
        var state = new CpuidState((uint)index, 0, 1, true);
        for (uint function = 0; function <= Model.Level; function++)
            Add(function);
        for (uint function = Extended; function <= Model.ExtendedLevel; function++)
            Add(function);
        // the state components are the kernel's to size; it hides what XCR0 cannot enable
        leaves.AddRange(supported.Where(l => l.Function == 0xD && Model.SupportedXcr0 != 0
            && (l.Index < 2 || (l.Index < 64 && (Model.SupportedXcr0 >> (int)l.Index & 1) != 0)))
            .Select(l => l.Index switch
            {
                0 => l with { Eax = l.Eax & (uint)Model.SupportedXcr0, Edx = 0 },
                1 => l with { Eax = l.Eax & Model.Word(CpuidWord.LeafDEax), Ecx = 0, Edx = 0 },
                _ => l,
            }));
        return leaves;

        void Add(uint function)
        {
            if (function == 0xD)
                return;
            bool hasIndex = function is 4 or 7 or 0xB or Extended + 0x1D;
            for (uint sub = 0; ; sub++)
            {
                var r = Model.Cpuid.Query(function, sub, state);
                leaves.Add(Restrict(supported, new CpuidLeaf(function, sub, hasIndex, r.Eax, r.Ebx, r.Ecx, r.Edx)));
                bool last = function switch { 4 or Extended + 0x1D => (r.Eax & 31) == 0, 0xB => sub == 2, _ => true };
                if (!hasIndex || last || sub == 8)
                    break;
            }
        }
    }

    private static CpuidLeaf Restrict(IReadOnlyList<CpuidLeaf> supported, CpuidLeaf leaf)
    {
        uint Mask(CpuidWord word) => Supported(supported, word);
        const uint Topology = 2; // CMP_LEGACY
        return leaf.Function switch
        {
            1 => leaf with { Ecx = leaf.Ecx & (Mask(CpuidWord.Leaf1Ecx) | 1u << 31), Edx = leaf.Edx & (Mask(CpuidWord.Leaf1Edx) | 1u << 28) },
            7 when leaf.Index == 0 => leaf with
            {
                Ebx = leaf.Ebx & Mask(CpuidWord.Leaf7Ebx),
                Ecx = leaf.Ecx & Mask(CpuidWord.Leaf7Ecx),
                Edx = leaf.Edx & Mask(CpuidWord.Leaf7Edx),
            },
            Extended + 1 => leaf with { Ecx = leaf.Ecx & (Mask(CpuidWord.Extended1Ecx) | Topology), Edx = leaf.Edx & Mask(CpuidWord.Extended1Edx) },
            Extended + 7 => leaf with { Edx = leaf.Edx & Mask(CpuidWord.Extended7Edx) },
            Extended + 8 => leaf with { Ebx = leaf.Ebx & Mask(CpuidWord.Extended8Ebx) },
            _ => leaf,
        };
    }

    private CpuidLeaf Without(CpuidLeaf leaf)
    {
        uint[] r = [leaf.Eax, leaf.Ebx, leaf.Ecx, leaf.Edx];
        foreach (var word in Enum.GetValues<CpuidWord>())
        {
            var (function, index, register) = Place(word);
            if (leaf.Function == function && (!leaf.IndexMatters || leaf.Index == index))
                r[register] &= ~_removed[(int)word];
        }
        return leaf with { Eax = r[0], Ebx = r[1], Ecx = r[2], Edx = r[3] };
    }
}
