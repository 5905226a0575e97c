using System.Globalization;

namespace ImgKit.Cpu.Models;

/// <summary>The <c>property=value</c> pairs of a <c>-cpu</c> option that are not flags.</summary>
internal sealed class CpuModelOptions
{
    // Options that change nothing here: how the peer's other accelerators behave, or what is always so.
    private static readonly string[] Accepted =
    [
        "check", "kvm", "migratable", "host-phys-bits", "host-phys-bits-limit", "host-cache-info", "legacy-cache", "l3-cache", "pmu",
        "fill-mtrr-mask", "tcg-cpuid", "full-cpuid-auto-level", "vmware-cpuid-freq",
    ];

    public string? Vendor { get; private set; }

    public int? Family { get; private set; }

    public int? Model { get; private set; }

    public int? Stepping { get; private set; }

    public string? Brand { get; private set; }

    public uint? Level { get; private set; }

    public uint MinimumLevel { get; private set; }

    public uint? ExtendedLevel { get; private set; }

    public uint MinimumExtendedLevel { get; private set; }

    public string? HypervisorVendor { get; private set; }

    public ulong TscFrequency { get; private set; }

    public int? PhysicalAddressBits { get; private set; }

    public bool Enforce { get; private set; }

    /// <summary>A property was given that says what processor it is.</summary>
    public bool ChangesIdentity => Vendor is not null || Family is not null || Model is not null || Stepping is not null || Brand is not null
        || Level is not null || MinimumLevel != 0 || ExtendedLevel is not null || MinimumExtendedLevel != 0 || PhysicalAddressBits is not null;

    /// <summary>Takes one pair; false where the key is no property (then it is a flag).</summary>
    public bool TrySet(string key, string value)
    {
        switch (key)
        {
            case "vendor":
                if (value.Length != 12)
                    throw new CpuModelException("Property 'vendor' must have exactly 12 characters");
                Vendor = value;
                return true;
            case "family":
                Family = (int)Number(key, value, 0, 0xFF + 15);
                return true;
            case "model":
                Model = (int)Number(key, value, 0, 0xFF);
                return true;
            case "stepping":
                Stepping = (int)Number(key, value, 0, 15);
                return true;
            case "model-id":
                Brand = value.Length < 48 ? value : throw new CpuModelException("Property 'model-id' is longer than 47 characters");
                return true;
            case "level":
                Level = (uint)Number(key, value, 0, uint.MaxValue);
                return true;
            case "min-level":
                MinimumLevel = (uint)Number(key, value, 0, uint.MaxValue);
                return true;
            case "xlevel":
                ExtendedLevel = (uint)Number(key, value, 0, uint.MaxValue);
                return true;
            case "min-xlevel":
                MinimumExtendedLevel = (uint)Number(key, value, 0, uint.MaxValue);
                return true;
            case "hypervisor-vendor":
                HypervisorVendor = value.Length is > 0 and <= 12
                    ? value.PadRight(12, '\0')
                    : throw new CpuModelException("Property 'hypervisor-vendor' must have 1 to 12 characters");
                return true;
            case "tsc-freq" or "tsc-frequency":
                TscFrequency = Frequency(key, value);
                return true;
            case "phys-bits":
                PhysicalAddressBits = (int)Number(key, value, 32, 52);
                return true;
            case "enforce":
                Enforce = Boolean(key, value);
                return true;
            default:
                return Array.IndexOf(Accepted, key) >= 0 || key.StartsWith("hv-", StringComparison.Ordinal) || key.StartsWith("hv_", StringComparison.Ordinal);
        }
    }

    internal static bool Boolean(string key, string value) => value switch
    {
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new CpuModelException($"Parameter '{key}' expects 'on' or 'off'"),
    };

    private static ulong Number(string key, string value, ulong lowest, ulong highest)
    {
        bool hexadecimal = value.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        bool good = hexadecimal
            ? ulong.TryParse(value.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong number)
            : ulong.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out number);
        if (!good)
            throw new CpuModelException($"Parameter '{key}' expects a number");
        if (number < lowest || number > highest)
            throw new CpuModelException($"Parameter '{key}' expects a value between {lowest} and {highest}");
        return number;
    }

    // As the peer: decimal thousands, "2.4G" is 2 400 000 000.
    private static ulong Frequency(string key, string value)
    {
        double scale = value.Length == 0 ? 1 : char.ToUpperInvariant(value[^1]) switch { 'K' => 1e3, 'M' => 1e6, 'G' => 1e9, _ => 1 };
        var digits = scale == 1 ? value : value[..^1];
        if (!double.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double number) || number * scale > 1e11)
            throw new CpuModelException($"Parameter '{key}' expects a frequency such as 2400M");
        return (ulong)(number * scale);
    }
}
