namespace ImgKit.Cpu.Models;

/// <summary>
/// The processors that can be asked for by name. Family, model, stepping and levels are those that the peer shows under the same names, so
/// that a guest moved between the two sees the same processor.
/// </summary>
public static class CpuModelCatalog
{
    private const string Intel = "GenuineIntel";
    private const string Amd = "AuthenticAMD";

    private const string I486 = "fpu vme pse";
    private const string Pentium = I486 + " de tsc msr mce cx8 apic mmx";
    private const string PentiumPro = "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2";
    private const string Pentium2 = Pentium + " pae sep mtrr pge mca cmov pat pse36 fxsr";
    private const string Modern = PentiumPro + " mtrr clflush mca pse36";
    private const string Long = " lm syscall nx";

    private const string Nehalem = Modern + Long + " sse3 ssse3 cx16 sse4.1 sse4.2 popcnt lahf-lm";
    private const string SandyBridge = Modern + Long
        + " sse3 pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes xsave avx rdtscp lahf-lm xsaveopt arat";
    private const string IvyBridge = SandyBridge + " f16c rdrand fsgsbase smep erms";
    private const string Haswell = IvyBridge + " fma movbe abm bmi1 avx2 bmi2 invpcid";
    private const string Broadwell = Haswell + " rdseed adx smap 3dnowprefetch";

    private static readonly CpuModelDefinition[] Named =
    [
        new() { Name = "486", Vendor = Intel, Family = 4, Model = 8, Stepping = 0, Level = 1, Flags = I486 },
        new()
        {
            Name = "Broadwell", Vendor = Intel, Family = 6, Model = 61, Stepping = 2, Level = 0xD, ExtendedLevel = 0x80000008,
            Flags = Broadwell, Brand = "Intel Core Processor (Broadwell)",
        },
        new()
        {
            Name = "Conroe", Vendor = Intel, Family = 6, Model = 15, Stepping = 3, Level = 10, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " sse3 ssse3 lahf-lm", Brand = "Intel Celeron_4x0 (Conroe/Merom Class Core 2)",
        },
        new()
        {
            Name = "EPYC", Vendor = Amd, Family = 23, Model = 1, Stepping = 2, Level = 0xD, ExtendedLevel = 0x8000001E,
            Flags = Modern + Long + " vme ht sse3 pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand rdtscp"
                + " mmxext fxsr-opt pdpe1gb lahf-lm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext fsgsbase bmi1 avx2 smep bmi2"
                + " rdseed adx smap clflushopt sha-ni xsaveopt xsavec xgetbv1 arat",
            Brand = "AMD EPYC Processor",
        },
        new()
        {
            Name = "Haswell", Vendor = Intel, Family = 6, Model = 60, Stepping = 4, Level = 0xD, ExtendedLevel = 0x80000008,
            Flags = Haswell, Brand = "Intel Core Processor (Haswell)",
        },
        new()
        {
            Name = "IvyBridge", Vendor = Intel, Family = 6, Model = 58, Stepping = 9, Level = 0xD, ExtendedLevel = 0x80000008,
            Flags = IvyBridge, Brand = "Intel Xeon E3-12xx v2 (Ivy Bridge)",
        },
        new()
        {
            Name = "Nehalem", Vendor = Intel, Family = 6, Model = 26, Stepping = 3, Level = 11, ExtendedLevel = 0x80000008,
            Flags = Nehalem, Brand = "Intel Core i7 9xx (Nehalem Class Core i7)",
        },
        new()
        {
            Name = "Opteron_G1", Vendor = Amd, Family = 15, Model = 6, Stepping = 1, Level = 5, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " sse3", Brand = "AMD Opteron 240 (Gen 1 Class Opteron)",
        },
        new()
        {
            Name = "Opteron_G2", Vendor = Amd, Family = 15, Model = 6, Stepping = 1, Level = 5, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " sse3 cx16 lahf-lm", Brand = "AMD Opteron 22xx (Gen 2 Class Opteron)",
        },
        new()
        {
            Name = "Opteron_G3", Vendor = Amd, Family = 16, Model = 2, Stepping = 3, Level = 5, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " vme sse3 cx16 popcnt rdtscp lahf-lm misalignsse sse4a abm",
            Brand = "AMD Opteron 23xx (Gen 3 Class Opteron)",
        },
        new()
        {
            Name = "Penryn", Vendor = Intel, Family = 6, Model = 23, Stepping = 3, Level = 10, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " sse3 ssse3 cx16 sse4.1 lahf-lm", Brand = "Intel Core 2 Duo P9xxx (Penryn Class Core 2)",
        },
        new()
        {
            Name = "SandyBridge", Vendor = Intel, Family = 6, Model = 42, Stepping = 1, Level = 0xD, ExtendedLevel = 0x80000008,
            Flags = SandyBridge, Brand = "Intel Xeon E312xx (Sandy Bridge)",
        },
        new()
        {
            Name = "Skylake-Client", Vendor = Intel, Family = 6, Model = 94, Stepping = 3, Level = 0xD, ExtendedLevel = 0x80000008,
            Flags = Broadwell + " xsavec xgetbv1", Brand = "Intel Core Processor (Skylake)",
        },
        new()
        {
            Name = "Westmere", Vendor = Intel, Family = 6, Model = 44, Stepping = 1, Level = 11, ExtendedLevel = 0x80000008,
            Flags = Nehalem + " aes pclmulqdq arat", Brand = "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
        },
        new()
        {
            Name = "athlon", Vendor = Amd, Family = 6, Model = 2, Stepping = 3, Level = 2, ExtendedLevel = 0x80000008,
            Flags = PentiumPro + " pse36 vme mtrr mca mmxext 3dnow 3dnowext", Brand = "QEMU Virtual CPU version 2.5+",
        },
        new()
        {
            Name = "core2duo", Vendor = Intel, Family = 6, Model = 15, Stepping = 11, Level = 10, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " vme acpi ss sse3 ssse3 cx16 lahf-lm",
            Brand = "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz",
        },
        new()
        {
            Name = "coreduo", Vendor = Intel, Family = 6, Model = 14, Stepping = 8, Level = 10, ExtendedLevel = 0x80000008,
            Flags = PentiumPro + " vme mtrr clflush mca acpi ss sse3 nx",
            Brand = "Genuine Intel(R) CPU           T2600  @ 2.16GHz",
        },
        new()
        {
            Name = "kvm32", Vendor = Intel, Family = 15, Model = 6, Stepping = 1, Level = 5, ExtendedLevel = 0x80000008,
            Flags = PentiumPro + " vme mtrr clflush mca pse36 sse3", Brand = "Common 32-bit KVM processor",
        },
        new()
        {
            Name = "kvm64", Vendor = Intel, Family = 15, Model = 6, Stepping = 1, Level = 0xD, ExtendedLevel = 0x80000008,
            Flags = Modern + Long + " vme sse3 cx16", Brand = "Common KVM processor",
        },
        new()
        {
            Name = "n270", Vendor = Intel, Family = 6, Model = 28, Stepping = 2, Level = 10, ExtendedLevel = 0x80000008,
            Flags = PentiumPro + " clflush mtrr mca vme acpi ss sse3 ssse3 movbe nx lahf-lm",
            Brand = "Intel(R) Atom(TM) CPU N270   @ 1.60GHz",
        },
        new() { Name = "pentium", Vendor = Intel, Family = 5, Model = 4, Stepping = 3, Level = 1, Flags = Pentium },
        new() { Name = "pentium2", Vendor = Intel, Family = 6, Model = 5, Stepping = 2, Level = 2, Flags = Pentium2 },
        new() { Name = "pentium3", Vendor = Intel, Family = 6, Model = 7, Stepping = 3, Level = 3, Flags = Pentium2 + " sse" },
        new()
        {
            Name = "phenom", Vendor = Amd, Family = 16, Model = 2, Stepping = 3, Level = 5, ExtendedLevel = 0x8000001A,
            Flags = Modern + Long + " vme sse3 cx16 popcnt 3dnow 3dnowext mmxext fxsr-opt pdpe1gb rdtscp lahf-lm abm sse4a",
            Brand = "AMD Phenom(tm) 9550 Quad-Core Processor",
        },
        new()
        {
            Name = "qemu32", Vendor = Intel, Family = 6, Model = 6, Stepping = 3, Level = 4, ExtendedLevel = 0x80000004,
            Flags = PentiumPro + " sse3", Brand = "QEMU Virtual CPU version 2.5+",
        },
        new()
        {
            Name = "qemu64", Vendor = Amd, Family = 15, Model = 107, Stepping = 1, Level = 0xD, ExtendedLevel = 0x8000000A,
            Flags = Modern + Long + " sse3 cx16 lahf-lm", Brand = "QEMU Virtual CPU version 2.5+",
        },
    ];

    /// <summary>Names with their descriptions, in the order that <c>-cpu help</c> prints them.</summary>
    public static IEnumerable<(string Name, string Description)> All =>
        Named.Select(m => (m.Name, m.Description)).Append(("host", "all features of the host that can be run"))
            .Append(("max", "enables all features that can be run on this host"));

    /// <summary>The text of <c>-cpu help</c>.</summary>
    public static string Help()
    {
        var text = new System.Text.StringBuilder("Available CPUs:\n");
        foreach (var (name, description) in All)
            text.Append($"x86 {name,-20}  {description}".TrimEnd()).Append('\n');
        text.Append("\nRecognized CPUID flags:\n");
        var line = new System.Text.StringBuilder(" ");
        foreach (string flag in CpuFeatureNames.All)
        {
            if (line.Length + flag.Length + 1 > 75)
            {
                text.Append(line).Append('\n');
                line.Clear().Append(' ');
            }
            line.Append(' ').Append(flag);
        }
        return text.Append(line).Append('\n').ToString();
    }

    internal static CpuModelDefinition? Find(string name) =>
        name is "host" or "max" ? HostProcessor.Define(name) : Array.Find(Named, m => m.Name == name);
}
