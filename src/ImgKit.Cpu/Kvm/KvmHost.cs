using System.Globalization;
using System.Runtime.Intrinsics.X86;
using System.Text;
using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>What this host offers for running guests on its own processor.</summary>
/// <param name="Vendor">vendor string of /proc/cpuinfo, such as AuthenticAMD.</param>
/// <param name="Extension">"vmx", "svm", or "" when the processor shows neither.</param>
/// <param name="NestedPaging">"ept", "npt", or "" when the processor has none or the kernel's module was told not to use it.</param>
/// <param name="Problem">why /dev/kvm cannot be used, one line; null when it can.</param>
/// <param name="ApiVersion">KVM_GET_API_VERSION, 0 when not usable.</param>
/// <param name="Capabilities">name and value of what the kernel's KVM can do; empty when not usable.</param>
public sealed record KvmHost(
    string Vendor,
    string Extension,
    string NestedPaging,
    string? Problem,
    int ApiVersion,
    IReadOnlyList<(string Name, int Value)> Capabilities)
{
    private const string NoExtension = "no vmx or svm flag in /proc/cpuinfo";

    /// <summary>/dev/kvm opens and speaks the right version.</summary>
    public bool IsUsable => Problem is null;

    /// <summary>/dev/kvm can be used, and the processor has VT-x or AMD-V. Without, a kernel may still offer /dev/kvm (paravirtual KVM in a
    /// cloud machine), but then emulates much of an ordinary guest, slowly.</summary>
    public bool IsHardware => IsUsable && Extension.Length > 0;

    /// <summary>What ImgKit asks of the kernel, in the order shown. Those marked needed are refused without.</summary>
    internal static readonly (string Name, uint Capability, bool Needed)[] Asked =
    [
        ("user memory", KVM_CAP_USER_MEMORY, true),
        ("immediate exit", KVM_CAP_IMMEDIATE_EXIT, true),
        ("memory slots", KVM_CAP_NR_MEMSLOTS, true),
        ("read-only memory", KVM_CAP_READONLY_MEM, true),
        ("vCPU events", KVM_CAP_VCPU_EVENTS, true),
        ("MP state", KVM_CAP_MP_STATE, true),
        ("vCPUs recommended", KVM_CAP_NR_VCPUS, false),
        ("vCPUs at most", KVM_CAP_MAX_VCPUS, false),
        ("kernel irqchip", KVM_CAP_IRQCHIP, false),
        ("split irqchip", KVM_CAP_SPLIT_IRQCHIP, false),
        ("PIT", KVM_CAP_PIT2, false),
        ("PIT reinjection control", KVM_CAP_REINJECT_CONTROL, false),
        ("IRQ routing", KVM_CAP_IRQ_ROUTING, false),
        ("MSI", KVM_CAP_SIGNAL_MSI, false),
        ("irqfd", KVM_CAP_IRQFD, false),
        ("irqfd resampling", KVM_CAP_IRQFD_RESAMPLE, false),
        ("ioeventfd", KVM_CAP_IOEVENTFD, false),
        ("coalesced MMIO", KVM_CAP_COALESCED_MMIO, false),
        ("coalesced PIO", KVM_CAP_COALESCED_PIO, false),
        ("kvm-clock", KVM_CAP_ADJUST_CLOCK, false),
        ("TSC deadline timer", KVM_CAP_TSC_DEADLINE_TIMER, false),
        ("TSC scaling", KVM_CAP_TSC_CONTROL, false),
        ("XSAVE", KVM_CAP_XSAVE, false),
        ("XCRs", KVM_CAP_XCRS, false),
        ("debug registers", KVM_CAP_DEBUGREGS, false),
        ("guest debugging", KVM_CAP_SET_GUEST_DEBUG, false),
        ("SMM", KVM_CAP_X86_SMM, false),
        ("machine-check banks", KVM_CAP_MCE, false),
        ("MSR exits", KVM_CAP_X86_USER_SPACE_MSR, false),
        ("Hyper-V", KVM_CAP_HYPERV, false),
        ("nested state", KVM_CAP_NESTED_STATE, false),
    ];

    /// <summary>Looks at /proc/cpuinfo, the modules and /dev/kvm. Never throws for what it finds.</summary>
    public static KvmHost Probe()
    {
        var (vendor, extension, paging) = ReadCpuInfo();
        using var kvm = KvmFd.Open(out int errno);
        if (kvm is null)
            return new KvmHost(vendor, extension, paging, Explain(errno, extension), 0, []);
        int version = kvm.Try(KVM_GET_API_VERSION, (nuint)0);
        if (version != KVM_API_VERSION)
            return new KvmHost(vendor, extension, paging, $"/dev/kvm speaks API version {version}, not {KVM_API_VERSION}", 0, []);
        var capabilities = new List<(string, int)>();
        string? problem = null;
        foreach (var (name, capability, needed) in Asked)
        {
            int value = kvm.Extension(capability);
            capabilities.Add((name, value));
            if (needed && value == 0)
                problem ??= $"this kernel's KVM lacks: {name}";
        }
        return new KvmHost(vendor, extension, paging, problem, version, capabilities);
    }

    /// <summary>Why /dev/kvm cannot be used, one line; null when it can.</summary>
    public static string? FindProblem()
    {
        using var kvm = KvmFd.Open(out int errno);
        return kvm is null ? Explain(errno, ReadCpuInfo().Extension) : null;
    }

    /// <summary>Why a guest would not run on the processor itself, one line; null when it would: <see cref="FindProblem"/>, or a /dev/kvm
    /// without VT-x or AMD-V below.</summary>
    public static string? FindHardwareProblem()
    {
        using var kvm = KvmFd.Open(out int errno);
        // The usual case: the processor itself shows the extension, and the module that needs it has made /dev/kvm.
        if (kvm is not null && ProcessorHasExtension())
            return null;
        string extension = ReadCpuInfo().Extension;
        if (kvm is null)
            return Explain(errno, extension);
        return extension.Length > 0 ? null : $"{NoExtension}: /dev/kvm is there, but has neither VT-x nor AMD-V below it";
    }

    /// <summary>The whole finding as lines of text, for `kvm -accel kvm,check`.</summary>
    public string Describe()
    {
        var text = new StringBuilder();
        text.Append("processor: ").AppendLine(Vendor);
        text.Append("virtualization extension: ").AppendLine(Extension switch
        {
            "vmx" => "vmx (Intel VT-x)",
            "svm" => "svm (AMD-V)",
            _ => $"none visible ({NoExtension})",
        });
        text.Append("nested paging: ").AppendLine(NestedPaging.Length > 0 ? NestedPaging : "no");
        if (ApiVersion != 0)
        {
            text.Append(CultureInfo.InvariantCulture, $"/dev/kvm: API version {ApiVersion}").AppendLine();
            foreach (var (name, value) in Capabilities)
                text.Append("  ").Append(name).Append(": ").AppendLine(value switch
                {
                    0 => "no",
                    1 => "yes",
                    _ => value.ToString(CultureInfo.InvariantCulture),
                });
        }
        text.AppendLine(Problem is not null ? $"KVM acceleration can NOT be used: {Problem}"
            : IsHardware ? "KVM acceleration can be used"
            : $"KVM can be used, but does not accelerate ordinary guests: {NoExtension}, so the kernel emulates them");
        return text.ToString();
    }

    // CPUID 1 ECX.VMX (Intel SDM 2A), 0x80000001 ECX.SVM (AMD APM 3 appendix E).
    private static bool ProcessorHasExtension() =>
        (X86Base.CpuId(1, 0).Ecx >> 5 & 1) != 0
        || ((uint)X86Base.CpuId(unchecked((int)0x80000000), 0).Eax >= 0x80000001 && (X86Base.CpuId(unchecked((int)0x80000001), 0).Ecx >> 2 & 1) != 0);

    private static string Explain(int errno, string extension) => errno switch
    {
        LibC.EACCES => "no permission to open /dev/kvm (add this user to its group, usually `kvm`)",
        LibC.EPERM => "no permission to open /dev/kvm (this container was not given the device)",
        _ when extension.Length == 0 => $"{NoExtension}: the processor has no virtualization extension, or it is off in the firmware, or "
            + "this is a virtual machine without nested virtualization",
        LibC.ENOENT when Directory.Exists($"/sys/module/{Module(extension)}") =>
            $"there is no /dev/kvm here, though the {Module(extension)} module is loaded (this container or chroot was not given the device)",
        LibC.ENOENT or LibC.ENODEV => Directory.Exists("/sys/module/kvm")
            ? $"the kvm module is loaded, but not {Module(extension)} (modprobe {Module(extension)}; dmesg says why if that fails)"
            : $"the {Module(extension)} module is not loaded (modprobe {Module(extension)})",
        _ => $"cannot open /dev/kvm: {LibC.ErrorText(errno)}",
    };

    private static string Module(string extension) => extension == "vmx" ? "kvm_intel" : "kvm_amd";

    private static (string Vendor, string Extension, string Paging) ReadCpuInfo()
    {
        string vendor = "unknown", extension = "", paging = "";
        try
        {
            foreach (string line in File.ReadLines("/proc/cpuinfo"))
            {
                int colon = line.IndexOf(':', StringComparison.Ordinal);
                if (colon < 0)
                {
                    if (line.Length == 0)
                        break; // one processor is enough
                    continue;
                }
                string key = line[..colon].TrimEnd();
                string value = line[(colon + 1)..].Trim();
                if (key == "vendor_id")
                    vendor = value;
                else if (key is "flags" or "vmx flags")
                {
                    foreach (string flag in value.Split(' '))
                    {
                        if (flag is "vmx" or "svm")
                            extension = flag;
                        else if (flag is "ept" or "npt")
                            paging = flag;
                    }
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            vendor = $"unknown ({e.Message})";
        }
        return (vendor, extension, paging.Length > 0 && IsOff(Module(extension), paging) ? "" : paging);
    }

    private static bool IsOff(string module, string parameter)
    {
        try
        {
            return File.ReadAllText($"/sys/module/{module}/parameters/{parameter}").Trim() is "N" or "0";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false; // not loaded
        }
    }
}
