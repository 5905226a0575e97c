using System.Globalization;
using System.Runtime.Intrinsics.X86;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Kvm;

/// <summary>A <c>-cpu</c> option for KVM: the model, what of it this KVM cannot offer, and the paravirtual interfaces.</summary>
public sealed class KvmCpuModel
{
    private const uint Extended = 0x80000000;

    private readonly string _name;
    private readonly CpuModel? _model;

    /// <summary>The named model; null where the host's processor is passed on.</summary>
    public CpuModel? Model => _model;
    private readonly bool _enforce;
    private readonly uint[] _asked = new uint[CpuFeatureNames.WordCount], _removed = new uint[CpuFeatureNames.WordCount];

    /// <summary>Takes the whole of a <c>-cpu</c> option. Beyond those of <see cref="CpuModel.Parse(string, CpuTopology)"/> it knows <c>kvm=off</c> and
    /// <c>hv_NAME</c> (those of <see cref="HyperVFeatures"/>, passthrough for all, spinlocks=TRIES and vendor_id=TEXT).
    /// Throws <see cref="CpuModelException"/>.</summary>
    public KvmCpuModel(string option, CpuTopology topology)
    {
        string[] parts = option.Split(',');
        _name = parts[0];
        bool named = _name is not ("host" or "max");
        var kept = new List<string> { _name };
        var properties = new CpuModelOptions();
        foreach (string part in parts.AsSpan(1))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? part : part[..equals], value = equals < 0 ? "on" : part[(equals + 1)..];
            string key = name.Replace('_', '-');
            if (key == "kvm")
                HideKvm = !CpuModelOptions.Boolean(key, value);
            else if (key == "hv-vendor-id")
                HyperVVendor = value.Length is > 0 and <= 12 ? value : throw new CpuModelException("Property 'hv-vendor-id' must have 1 to 12 characters");
            else if (key == "hv-spinlocks")
                SetSpinlocks(value);
            else if (key.StartsWith("hv-", StringComparison.Ordinal))
                HyperV = CpuModelOptions.Boolean(key, value) ? HyperV | Kvm.HyperV.Parse(key) : HyperV & ~Kvm.HyperV.Parse(key);
            else if (part.StartsWith('+') || part.StartsWith('-'))
                Mark(part[1..], part[0] == '+');
            else if (!properties.TrySet(name, value))
                Mark(name, CpuModelOptions.Boolean(name, value));
            else if (!named && properties.ChangesIdentity)
                throw new CpuModelException($"Property '{name}' cannot be set with -cpu {_name}: it shows the host's processor as it is");
            if (named && key != "kvm" && !key.StartsWith("hv-", StringComparison.Ordinal))
                kept.Add(part);
        }
        if (Kvm.HyperV.FindMissing(HyperV) is { } missing)
            throw new CpuModelException(missing);
        _enforce = properties.Enforce;
        TscKilohertz = (int)(properties.TscFrequency / 1000);
        if (named)
            _model = CpuModel.Parse(string.Join(',', kept), topology, translated: false);
    }

    // 0xFFFFFFFF stands for never, as the leaf has it
    private void SetSpinlocks(string value)
    {
        bool hex = value.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        if (value is "on")
            HyperVSpinlocks = 0xFFF;
        else if (value is "off")
            HyperVSpinlocks = uint.MaxValue;
        else if (uint.TryParse(hex ? value.AsSpan(2) : value, hex ? NumberStyles.AllowHexSpecifier : NumberStyles.None, CultureInfo.InvariantCulture, out uint tries) && tries >= 0xFFF)
            HyperVSpinlocks = tries;
        else
            throw new CpuModelException($"Property 'hv-spinlocks' takes a number from 0xfff on, not '{value}'");
        HyperV = HyperVSpinlocks == uint.MaxValue ? HyperV & ~HyperVFeatures.Spinlocks : HyperV | HyperVFeatures.Spinlocks;
    }

    private void Mark(string flag, bool on)
    {
        if (!CpuFeatureNames.TryParse(flag, out var feature))
            throw new CpuModelException($"Property '{_name}-x86_64-cpu.{flag}' not found");
        (on ? _asked : _removed)[(int)feature >> 5] |= 1u << ((int)feature & 31);
    }

    /// <summary><c>kvm=off</c>.</summary>
    public bool HideKvm { get; }

    /// <summary>Enlightenments asked for.</summary>
    public HyperVFeatures HyperV { get; private set; }

    /// <summary><c>hv-spinlocks</c>: tries after which the guest reports a spin; the largest number: never.</summary>
    public uint HyperVSpinlocks { get; private set; } = uint.MaxValue;

    /// <summary><c>hv_vendor_id</c>: what the Hyper-V leaves call the hypervisor; null: as Hyper-V does.</summary>
    public string? HyperVVendor { get; }

    /// <summary><c>tsc-frequency</c> in kHz; 0: the host's.</summary>
    public int TscKilohertz { get; }

    /// <summary>host and max take what KVM supports, with topology by count alone; a named model has its own leaves.</summary>
    public bool HasOwnTopology => _model is not null;

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

    // What KVM makes up itself, whatever it lists: x2APIC, the deadline timer, the hypervisor bit; ARAT is a matter of our timer.
    private static uint MadeUp(CpuidWord word) => word switch
    {
        CpuidWord.Leaf1Ecx => 1u << 31 | 1u << 24 | 1u << 21,
        CpuidWord.Leaf1Edx => 1u << 28,
        CpuidWord.Leaf6Eax => 1u << 2,
        CpuidWord.Extended1Ecx => 1u << 1,
        _ => 0,
    };

    // Part of some models, and never the guest's under KVM unless asked for: thermal MSRs, MONITOR, nested virtualization.
    private static uint NotByDefault(CpuidWord word) => word switch
    {
        CpuidWord.Leaf1Edx => 1u << 22,
        CpuidWord.Leaf1Ecx => 1u << 3,
        CpuidWord.Extended1Ecx => 1u << 2,
        _ => 0,
    };

    private uint Wanted(CpuidWord word) =>
        (_model is null ? _asked[(int)word] : _model.Word(word) & ~(NotByDefault(word) & ~_asked[(int)word])) & ~_removed[(int)word];

    /// <summary>Compares the model with what this KVM offers. Flags of a named model that it does not are left out, and named in the one line
    /// returned (null: it offers all). Throws <see cref="CpuModelException"/> when the user asked for the flag itself, or said <c>enforce</c>.</summary>
    public string? Check(IReadOnlyList<CpuidLeaf> supported)
    {
        var lacking = new List<string>();
        bool demanded = false;
        foreach (var word in Enum.GetValues<CpuidWord>())
        {
            uint bits = Wanted(word) & ~Supported(supported, word) & ~MadeUp(word);
            demanded |= bits != 0 && (_enforce || (bits & _asked[(int)word]) != 0);
            for (int bit = 0; bit < 32; bit++)
                if ((bits >> bit & 1) != 0)
                    lacking.Add(CpuFeatureNames.NameOf((CpuFeature)((int)word << 5 | bit)) ?? $"{word}.{bit}");
        }
        if (lacking.Count == 0)
            return null;
        string line = $"-cpu {_name}: this host's KVM does not offer {string.Join(", ", lacking)}";
        return demanded ? throw new CpuModelException(line) : line + ": left out";
    }

    /// <summary>The leaves of a vCPU: for <see cref="KvmOptions.SelectCpuid"/>.</summary>
    public IEnumerable<CpuidLeaf> Select(IReadOnlyList<CpuidLeaf> supported, int index)
    {
        if (_model is not { } model)
            return supported.Where(l => l.Function is not (>= Extended + 2 and <= Extended + 5)).Concat(HostOnly()).Select(Without);
        var leaves = new List<CpuidLeaf>();
        var state = new CpuidState((uint)index, 0, 1, true);
        for (uint function = 0; function <= model.Level; function++)
            Add(function);
        for (uint function = Extended; function <= model.ExtendedLevel; function++)
            Add(function);
        ulong components = StateComponents(model);
        // the state components are the kernel's to size; it hides what XCR0 cannot enable
        leaves.AddRange(supported.Where(l => l.Function == 0xD && components != 0
            && (l.Index < 2 || (l.Index < 64 && (components >> (int)l.Index & 1) != 0)))
            .Select(l => l.Index switch
            {
                0 => l with { Eax = l.Eax & (uint)components, Edx = 0 },
                1 => l with { Eax = l.Eax & Wanted(CpuidWord.LeafDEax), Ecx = 0, Edx = 0 },
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
                var r = model.Cpuid.Query(function, sub, state);
                leaves.Add(Restrict(supported, new CpuidLeaf(function, sub, hasIndex, r.Eax, r.Ebx, r.Ecx, r.Edx)));
                bool last = function switch { 4 or Extended + 0x1D => (r.Eax & 31) == 0, 0xB => sub == 2, _ => true };
                if (!hasIndex || last || sub == 8)
                    break;
            }
        }
    }

    // XCR0 bits that the model's flags stand for: AVX-512 has three, the protection keys one (SDM volume 1, 13.1).
    private static ulong StateComponents(CpuModel model) => model.SupportedXcr0 == 0 ? 0 : model.SupportedXcr0
        | (model.Has(CpuFeature.Avx512f) ? 0xE0UL : 0) | (model.Has(CpuFeature.Pku) ? 0x200UL : 0);

    private CpuidLeaf Restrict(IReadOnlyList<CpuidLeaf> supported, CpuidLeaf leaf)
    {
        uint Mask(CpuidWord word) => (Supported(supported, word) | MadeUp(word)) & ~(NotByDefault(word) & ~_asked[(int)word]);
        return leaf.Function switch
        {
            1 => leaf with { Ecx = leaf.Ecx & Mask(CpuidWord.Leaf1Ecx), Edx = leaf.Edx & Mask(CpuidWord.Leaf1Edx) },
            7 when leaf.Index == 0 => leaf with
            {
                Ebx = leaf.Ebx & Mask(CpuidWord.Leaf7Ebx),
                Ecx = leaf.Ecx & Mask(CpuidWord.Leaf7Ecx),
                Edx = leaf.Edx & Mask(CpuidWord.Leaf7Edx),
            },
            Extended + 1 => leaf with { Ecx = leaf.Ecx & Mask(CpuidWord.Extended1Ecx), Edx = leaf.Edx & Mask(CpuidWord.Extended1Edx) },
            Extended + 7 => leaf with { Edx = leaf.Edx & Mask(CpuidWord.Extended7Edx) },
            Extended + 8 => leaf with { Ebx = leaf.Ebx & Mask(CpuidWord.Extended8Ebx) },
            _ => leaf,
        };
    }

    // Brand string and first-level caches: KVM does not list them, the processor has them (AMD APM volume 3, E.4.2 and E.4.4).
    private static IEnumerable<CpuidLeaf> HostOnly()
    {
        uint last = (uint)X86Base.CpuId(unchecked((int)Extended), 0).Eax;
        for (uint function = Extended + 2; function <= Math.Min(Extended + 5, last); function++)
        {
            var (a, b, c, d) = X86Base.CpuId((int)function, 0);
            yield return new CpuidLeaf(function, 0, false, (uint)a, (uint)b, (uint)c, (uint)d);
        }
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
