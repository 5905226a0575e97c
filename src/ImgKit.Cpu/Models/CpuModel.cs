using System.Globalization;

namespace ImgKit.Cpu.Models;

/// <summary>
/// What a guest's processor is: identity, flags, limits. Made once from the <c>-cpu</c> option, then never changed; all processors of a
/// machine share it.
/// </summary>
public sealed class CpuModel
{
    private readonly uint[] _words;
    private readonly CpuFeature[] _missing;

    internal CpuModel(CpuModelDefinition definition, uint[] wanted, CpuModelOptions options, CpuTopology topology, bool translated)
    {
        uint[]? runnable = translated ? HostProcessor.Runnable() : null;
        var missing = new List<CpuFeature>();
        _words = new uint[wanted.Length];
        for (int i = 0; i < wanted.Length * 32; i++)
        {
            if ((wanted[i >> 5] >> (i & 31) & 1) == 0)
                continue;
            if (runnable == null || (runnable[i >> 5] >> (i & 31) & 1) != 0)
                _words[i >> 5] |= 1u << (i & 31);
            else
                missing.Add((CpuFeature)i);
        }
        _missing = [.. missing];
        DropDependants();
        Name = definition.Name;
        Vendor = options.Vendor ?? definition.Vendor;
        IsAmd = Vendor == "AuthenticAMD";
        Family = options.Family ?? definition.Family;
        Model = options.Model ?? definition.Model;
        Stepping = options.Stepping ?? definition.Stepping;
        Brand = options.Brand ?? definition.Brand;
        Level = Math.Max(options.Level ?? LevelFor(definition.Level), options.MinimumLevel);
        ExtendedLevel = Math.Max(options.ExtendedLevel ?? ExtendedLevelFor(definition.ExtendedLevel), options.MinimumExtendedLevel);
        HypervisorVendor = options.HypervisorVendor ?? "TCGTCGTCGTCG";
        TscFrequency = options.TscFrequency;
        PhysicalAddressBits = options.PhysicalAddressBits
            ?? (Has(CpuFeature.Lm) ? 40 : Has(CpuFeature.Pae) || Has(CpuFeature.Pse36) ? 36 : 32);
        Topology = topology;
        Cpuid = new Cpuid(this, topology);
        Instructions = new InstructionSupport(this);
    }

    /// <summary>The name it was asked for by.</summary>
    public string Name { get; }

    /// <summary>CPUID vendor, 12 characters.</summary>
    public string Vendor { get; }

    /// <summary>Vendor is AMD: its rules apply where the two differ (SYSCALL in legacy mode, segment loads, leaf 0x80000001).</summary>
    public bool IsAmd { get; }

    /// <summary>Family, extended family included.</summary>
    public int Family { get; }

    /// <summary>Model, extended model included.</summary>
    public int Model { get; }

    /// <summary>Stepping.</summary>
    public int Stepping { get; }

    /// <summary>Brand string; empty where the processor has none.</summary>
    public string Brand { get; }

    /// <summary>Highest basic CPUID leaf.</summary>
    public uint Level { get; }

    /// <summary>Highest extended CPUID leaf, 0 where there is none.</summary>
    public uint ExtendedLevel { get; }

    /// <summary>12 characters of leaf 0x40000000; shown only with the flag <see cref="CpuFeature.Hypervisor"/>.</summary>
    public string HypervisorVendor { get; }

    /// <summary>Hz of the time-stamp counter that CPUID tells the guest, 0: it does not.</summary>
    public ulong TscFrequency { get; }

    /// <summary>Width of a physical address: bits above it are reserved in page tables.</summary>
    public int PhysicalAddressBits { get; }

    /// <summary>How the machine's processors are grouped.</summary>
    public CpuTopology Topology { get; }

    /// <summary>The CPUID instruction.</summary>
    public Cpuid Cpuid { get; }

    /// <summary>Which instructions exist.</summary>
    public InstructionSupport Instructions { get; }

    /// <summary>Flags that were asked for and that this host cannot run: a warning each, or with <c>enforce</c> an error.</summary>
    public IReadOnlyList<CpuFeature> Missing => _missing;

    /// <summary>Whether the processor has a flag.</summary>
    public bool Has(CpuFeature feature) => (_words[(int)feature >> 5] >> ((int)feature & 31) & 1) != 0;

    /// <summary>Whether the instructions that need <paramref name="need"/> exist; otherwise they are undefined (#UD).</summary>
    public bool Has(Iced.Intel.CpuidFeature need) => Instructions.Allows(need);

    /// <summary>A CPUID word of flags as the model has it (without those that follow control registers).</summary>
    public uint Word(CpuidWord word) => _words[(int)word];

    /// <summary>EAX of CPUID leaf 1, and EDX after reset (Intel SDM 2A CPUID, figure 3-6).</summary>
    public uint Signature
    {
        get
        {
            uint family = (uint)Family, model = (uint)Model;
            uint extendedFamily = family > 15 ? family - 15 : 0;
            return (extendedFamily << 20) | ((model >> 4) << 16) | (Math.Min(family, 15) << 8) | ((model & 15) << 4) | (uint)Stepping;
        }
    }

    /// <summary>XCR0 bits that the guest may set: x87, SSE, AVX.</summary>
    public ulong SupportedXcr0 => Has(CpuFeature.Xsave) ? 1UL | (Has(CpuFeature.Sse) ? 2UL : 0) | (Has(CpuFeature.Avx) ? 4UL : 0) : 0;

    /// <summary>Takes the whole of a <c>-cpu</c> option: <c>NAME[,+flag][,-flag][,flag=on|off][,property=value]...</c>.
    /// Throws <see cref="CpuModelException"/> for a name or value that is not known.</summary>
    public static CpuModel Parse(string option) => Parse(option, CpuTopology.Single);

    /// <inheritdoc cref="Parse(string)"/>
    public static CpuModel Parse(string option, CpuTopology topology) => Parse(option, topology, true);

    /// <summary>As <see cref="Parse(string, CpuTopology)"/>; where the model is not to be translated, whoever runs it restricts its flags.</summary>
    internal static CpuModel Parse(string option, CpuTopology topology, bool translated)
    {
        ArgumentNullException.ThrowIfNull(option);
        string[] parts = option.Split(',');
        var definition = CpuModelCatalog.Find(parts[0]) ?? throw new CpuModelException($"unable to find CPU model '{parts[0]}'");
        uint[] words = HostProcessor.Parse(definition.Flags);
        // A guest may know that it is one; real hardware lacks the flag, every hypervisor sets it.
        Set(words, CpuFeature.Hypervisor, true);
        var options = new CpuModelOptions();
        uint[] plus = new uint[words.Length], minus = new uint[words.Length];
        foreach (string part in parts.AsSpan(1))
        {
            if (part.Length == 0)
                continue;
            if (part[0] is '+' or '-')
            {
                Set(part[0] == '+' ? plus : minus, FeatureNamed(definition.Name, part[1..]), true);
                continue;
            }
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? part : part[..equals], value = equals < 0 ? "on" : part[(equals + 1)..];
            if (!options.TrySet(key, value))
                Set(words, FeatureNamed(definition.Name, key), CpuModelOptions.Boolean(key, value));
        }
        // As with the peer, +flag and -flag come after everything that has an equals sign, whatever the order.
        for (int i = 0; i < words.Length; i++)
            words[i] = (words[i] | plus[i]) & ~minus[i];
        var model = new CpuModel(definition, words, options, topology, translated);
        if (translated && options.Enforce && model.Missing.Count != 0)
            throw new CpuModelException($"this host cannot run the requested feature: {CpuFeatureNames.Describe(model.Missing[0])}");
        return model;
    }

    private static CpuFeature FeatureNamed(string model, string name) =>
        CpuFeatureNames.TryParse(name, out var feature)
            ? feature
            : throw new CpuModelException($"Property '{model}-x86_64-cpu.{name}' not found");

    private static void Set(uint[] words, CpuFeature feature, bool on)
    {
        uint bit = 1u << ((int)feature & 31);
        words[(int)feature >> 5] = on ? words[(int)feature >> 5] | bit : words[(int)feature >> 5] & ~bit;
    }

    /// <summary>Flags without which others mean nothing.</summary>
    private void DropDependants()
    {
        Without(CpuFeature.Xsave, CpuFeature.OsXsave, CpuFeature.Avx, CpuFeature.Avx2, CpuFeature.F16c, CpuFeature.Fma, CpuFeature.XsaveOpt,
            CpuFeature.Xsavec, CpuFeature.Xgetbv1);
        Without(CpuFeature.Avx, CpuFeature.Avx2, CpuFeature.F16c, CpuFeature.Fma, CpuFeature.Vaes, CpuFeature.Vpclmulqdq);
        Without(CpuFeature.Fxsr, CpuFeature.Sse, CpuFeature.Sse2, CpuFeature.Sse3, CpuFeature.FfxSr);
        Set(_words, CpuFeature.OsXsave, false);
    }

    private void Without(CpuFeature needed, params ReadOnlySpan<CpuFeature> dependants)
    {
        if (Has(needed))
            return;
        foreach (var feature in dependants)
            Set(_words, feature, false);
    }

    // A flag that was added must be visible: the level grows to its leaf.
    private uint LevelFor(uint level)
    {
        if ((_words[(int)CpuidWord.Leaf7Ebx] | _words[(int)CpuidWord.Leaf7Ecx] | _words[(int)CpuidWord.Leaf7Edx]) != 0)
            level = Math.Max(level, 7);
        return Has(CpuFeature.Xsave) ? Math.Max(level, 0xD) : level;
    }

    private uint ExtendedLevelFor(uint level)
    {
        if ((_words[(int)CpuidWord.Extended1Ecx] | _words[(int)CpuidWord.Extended1Edx]) != 0)
            level = Math.Max(level, 0x80000001);
        if (_words[(int)CpuidWord.Extended7Edx] != 0)
            level = Math.Max(level, 0x80000007);
        return Has(CpuFeature.Lm) || _words[(int)CpuidWord.Extended8Ebx] != 0 ? Math.Max(level, 0x80000008) : level;
    }

    /// <summary>Text as <c>info cpus</c> and error messages show it.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Name} ({Vendor} {Family}/{Model}/{Stepping})");
}
