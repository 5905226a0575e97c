namespace ImgKit.Cpu.Models;

/// <summary>The names of CPUID flags as <c>-cpu NAME,+flag</c> takes them (those of the peer's command line).</summary>
public static class CpuFeatureNames
{
    // One string a word, bit 0 first; "-" where a bit has no name. Sources: Intel SDM 2A CPUID, AMD APM 3 appendix E.
    private static readonly string[] WordNames =
    [
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
        "sse3 pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 x2apic movbe popcnt "
            + "tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor",
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
        "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid-msr "
            + "- tbm topoext perfctr-core perfctr-nb - - - - - - -",
        "fsgsbase tsc-adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f avx512dq rdseed adx smap avx512ifma pcommit "
            + "clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl",
        "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq - la57 - - - - - "
            + "rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks",
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - tsx-ldtrk - - arch-lbr - - amx-bf16 "
            + "avx512-fp16 amx-tile amx-int8 spec-ctrl stibp - arch-capabilities core-capability ssbd",
        "xsaveopt xsavec xgetbv1 xsaves xfd - - - - - - - - - - - - - - - - - - - - - - - - - - -",
        "- - arat - - - - - - - - - - - - - - - - - - - - - - - - - - - - -",
        "- - - - - - - - invtsc - - - - - - - - - - - - - - - - - - - - - - -",
        "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - - - - - - - - amd-ssbd virt-ssbd amd-no-ssb - amd-psfd - - -",
    ];

    // Second names that scripts use.
    private static readonly (string Alias, string Name)[] Aliases =
    [
        ("pni", "sse3"), ("pclmuldq", "pclmulqdq"), ("sse4-1", "sse4.1"), ("sse4-2", "sse4.2"), ("sse4_1", "sse4.1"), ("sse4_2", "sse4.2"),
        ("xd", "nx"), ("ffxsr", "fxsr-opt"), ("i64", "lm"), ("cmp_legacy", "cmp-legacy"), ("lahf_lm", "lahf-lm"), ("tsc_adjust", "tsc-adjust"),
        ("ds_cpl", "ds-cpl"), ("fxsr_opt", "fxsr-opt"), ("nodeid_msr", "nodeid-msr"), ("perfctr_core", "perfctr-core"),
        ("perfctr_nb", "perfctr-nb"), ("sha", "sha-ni"), ("cr8-legacy", "cr8legacy"),
    ];

    /// <summary>Number of flag words.</summary>
    public const int WordCount = 11;

    /// <summary>The name of a flag, or null.</summary>
    public static string? NameOf(CpuFeature feature)
    {
        string name = WordNames[(int)feature >> 5].Split(' ')[(int)feature & 31];
        return name == "-" ? null : name;
    }

    /// <summary>Finds a flag by its name; false where there is none.</summary>
    public static bool TryParse(string name, out CpuFeature feature)
    {
        foreach (var (alias, real) in Aliases)
        {
            if (name == alias)
                name = real;
        }
        for (int word = 0; word < WordCount && name != "-"; word++)
        {
            int bit = Find(WordNames[word], name);
            if (bit < 0 && name.Contains('_', StringComparison.Ordinal))
                bit = Find(WordNames[word], name.Replace('_', '-'));
            if (bit >= 0)
            {
                feature = (CpuFeature)((word << 5) | bit);
                return true;
            }
        }
        feature = default;
        return false;
    }

    // A model names dozens of flags at every start: nothing is split off.
    private static int Find(ReadOnlySpan<char> names, ReadOnlySpan<char> name)
    {
        int bit = 0;
        foreach (var at in names.Split(' '))
        {
            if (names[at].SequenceEqual(name))
                return bit;
            bit++;
        }
        return -1;
    }

    /// <summary>All names, alphabetically, for <c>-cpu help</c>.</summary>
    public static IEnumerable<string> All =>
        WordNames.SelectMany(w => w.Split(' ')).Where(n => n != "-").Order(StringComparer.Ordinal);

    /// <summary>Where CPUID shows a flag, as in <c>CPUID.01H:ECX.pcid [bit 17]</c>.</summary>
    public static string Describe(CpuFeature feature)
    {
        string where = ((CpuidWord)((int)feature >> 5)) switch
        {
            CpuidWord.Leaf1Edx => "CPUID.01H:EDX",
            CpuidWord.Leaf1Ecx => "CPUID.01H:ECX",
            CpuidWord.Extended1Edx => "CPUID.80000001H:EDX",
            CpuidWord.Extended1Ecx => "CPUID.80000001H:ECX",
            CpuidWord.Leaf7Ebx => "CPUID.07H:EBX",
            CpuidWord.Leaf7Ecx => "CPUID.07H:ECX",
            CpuidWord.Leaf7Edx => "CPUID.07H:EDX",
            CpuidWord.LeafDEax => "CPUID.0DH:EAX",
            CpuidWord.Leaf6Eax => "CPUID.06H:EAX",
            CpuidWord.Extended7Edx => "CPUID.80000007H:EDX",
            _ => "CPUID.80000008H:EBX",
        };
        return $"{where}.{NameOf(feature)} [bit {(int)feature & 31}]";
    }
}
