using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using System.Text;

namespace ImgKit.Cpu.Models;

/// <summary>What the host's processor offers, and what of it a translated guest can have.</summary>
internal static class HostProcessor
{
    // Flags whose instructions run on the host's own units: the guest can have them where the host has them.
    private const string Native = "fpu cx8 cmov clflush mmx fxsr sse sse2 sse3 pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx "
        + "f16c rdrand mmxext lahf-lm abm sse4a misalignsse 3dnowprefetch bmi1 avx2 bmi2 erms rdseed adx clflushopt clwb sha-ni gfni vaes "
        + "vpclmulqdq fsrm xsaveopt xsavec xgetbv1 clzero xsaveerptr";

    // Flags that this program's own code provides, whatever the host has.
    private const string Provided = "vme de pse tsc msr pae mce apic sep mtrr pge mca pat pse36 acpi ss ht monitor x2apic tsc-deadline hypervisor "
        + "syscall nx fxsr-opt pdpe1gb rdtscp lm cmp-legacy cr8legacy osvw topoext fsgsbase tsc-adjust pcid smep invpcid smap umip rdpid arat invtsc "
        + "wbnoinvd 3dnow 3dnowext";

    // Left out of host and max: a guest gains nothing by them under translation, or the machine has to agree first.
    private const string NotByDefault = "3dnow 3dnowext monitor x2apic tsc-deadline invtsc ss acpi ht cmp-legacy clzero xsaveerptr";

    /// <summary>What a guest can be given on this host, by word.</summary>
    public static uint[] Runnable()
    {
        uint[] host = Flags();
        uint[] native = Parse(Native);
        uint[] provided = Parse(Provided);
        for (int i = 0; i < host.Length; i++)
            host[i] = (host[i] & native[i]) | provided[i];
        return host;
    }

    /// <summary>The host as a model: its identity, with every flag that can be run.</summary>
    public static CpuModelDefinition Define(string name)
    {
        uint[] words = Runnable();
        uint[] without = Parse(NotByDefault);
        var flags = new StringBuilder();
        for (int i = 0; i < words.Length * 32; i++)
        {
            if (((words[i >> 5] & ~without[i >> 5]) >> (i & 31) & 1) != 0 && CpuFeatureNames.NameOf((CpuFeature)i) is { } flag)
                flags.Append(flag).Append(' ');
        }
        uint signature = Leaf(1).Eax;
        uint family = (signature >> 8) & 15, model = (signature >> 4) & 15;
        if (family is 6 or 15)
            model |= (signature >> 12) & 0xF0;
        if (family == 15)
            family += (signature >> 20) & 0xFF;
        return new CpuModelDefinition
        {
            Name = name,
            Vendor = Vendor(),
            Family = (int)family,
            Model = (int)model,
            Stepping = (int)(signature & 15),
            Level = 0xD,
            ExtendedLevel = Vendor() == "GenuineIntel" ? 0x80000008 : 0x8000001E,
            Flags = flags.ToString().TrimEnd(),
            Brand = Brand(),
        };
    }

    private static string Vendor()
    {
        var (_, b, c, d) = Leaf(0);
        return Encoding.ASCII.GetString(MemoryMarshal.AsBytes<uint>([b, d, c]));
    }

    private static string Brand()
    {
        if (Leaf(0x80000000).Eax < 0x80000004)
            return "";
        var text = new StringBuilder();
        for (uint leaf = 0x80000002; leaf <= 0x80000004; leaf++)
        {
            var (a, b, c, d) = Leaf(leaf);
            text.Append(Encoding.ASCII.GetString(MemoryMarshal.AsBytes<uint>([a, b, c, d])));
        }
        return text.ToString().TrimEnd('\0', ' ');
    }

    private static uint[] Flags()
    {
        uint top = Leaf(0).Eax, extendedTop = Leaf(0x80000000).Eax;
        var words = new uint[CpuFeatureNames.WordCount];
        (_, _, words[(int)CpuidWord.Leaf1Ecx], words[(int)CpuidWord.Leaf1Edx]) = Leaf(1);
        if (top >= 7)
            (_, words[(int)CpuidWord.Leaf7Ebx], words[(int)CpuidWord.Leaf7Ecx], words[(int)CpuidWord.Leaf7Edx]) = Leaf(7);
        if (top >= 0xD)
            words[(int)CpuidWord.LeafDEax] = Leaf(0xD, 1).Eax;
        if (extendedTop >= 0x80000001)
            (_, _, words[(int)CpuidWord.Extended1Ecx], words[(int)CpuidWord.Extended1Edx]) = Leaf(0x80000001);
        // Intel has no such flag, but SSE brought the instructions.
        if ((words[0] >> 25 & 1) != 0)
            words[(int)CpuidWord.Extended1Edx] |= 1u << ((int)CpuFeature.MmxExt & 31);
        if (extendedTop >= 0x80000008)
            words[(int)CpuidWord.Extended8Ebx] = Leaf(0x80000008).Ebx;
        return words;
    }

    /// <summary>Flag words of a list of names.</summary>
    internal static uint[] Parse(string flags)
    {
        var words = new uint[CpuFeatureNames.WordCount];
        foreach (string flag in flags.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (!CpuFeatureNames.TryParse(flag, out var feature))
                throw new CpuModelException($"unknown processor flag '{flag}'");
            words[(int)feature >> 5] |= 1u << ((int)feature & 31);
        }
        return words;
    }

    private static (uint Eax, uint Ebx, uint Ecx, uint Edx) Leaf(uint leaf, uint subleaf = 0)
    {
        var (a, b, c, d) = X86Base.CpuId((int)leaf, (int)subleaf);
        return ((uint)a, (uint)b, (uint)c, (uint)d);
    }
}
