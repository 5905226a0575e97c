using ImgKit.Cpu.Kvm;

namespace ImgKit.Cpu;

/// <summary>Which engine runs the guest.</summary>
public enum AcceleratorKind
{
    /// <summary>KVM where /dev/kvm can be used, else the software CPU, with a line that says so.</summary>
    Auto,

    /// <summary>KVM, or an error.</summary>
    Kvm,

    /// <summary>The software CPU.</summary>
    Soft,
}

/// <summary>The choice of an engine.</summary>
/// <param name="UseKvm">KVM is to run the guest; else the software CPU.</param>
/// <param name="Notice">one line to print to standard error, or null.</param>
public readonly record struct AcceleratorChoice(bool UseKvm, string? Notice);

/// <summary>Value of the option -accel (and -machine accel=): name and properties.</summary>
/// <param name="Kind">kvm, soft, auto; "tcg", qemu's name for it, means soft.</param>
/// <param name="InterruptControllers">kernel_irqchip=on|split|off.</param>
/// <param name="Check">`-accel kvm,check`: describe the host and exit.</param>
public sealed record Accelerator(
    AcceleratorKind Kind,
    InterruptControllers InterruptControllers = InterruptControllers.Kernel,
    bool Check = false)
{
    /// <summary>Text of `-accel help`.</summary>
    public static string Help() =>
        "Accelerators:\n"
        + "kvm   the processor's own virtualization extension, through /dev/kvm\n"
        + "soft  binary translation, on any x86-64 host\n"
        + "auto  kvm where /dev/kvm can be used, else soft\n"
        + "This host: " + (KvmHost.FindHardwareProblem() is { } problem ? $"kvm can NOT be used: {problem}\n" : "kvm can be used\n")
        + "(-accel kvm,check tells all about it)\n";

    /// <summary>Several, best first (`accel=kvm:tcg`, or -accel given twice): kvm before the software CPU means <see cref="AcceleratorKind.Auto"/> with the
    /// properties of kvm; else the first counts.</summary>
    public static string Combine(string first, string second)
    {
        string[] parts = first.Split(',');
        if (parts[0] != "kvm" || second.Split(',')[0] is not ("tcg" or "soft"))
            return first;
        parts[0] = "auto";
        return string.Join(',', parts);
    }

    /// <summary>Parses NAME[,property=value...]. False with a one-line error.</summary>
    public static bool TryParse(string text, out Accelerator? accelerator, out string error)
    {
        accelerator = null;
        error = "";
        string[] parts = text.Split(',');
        AcceleratorKind kind;
        switch (parts[0])
        {
            case "kvm":
                kind = AcceleratorKind.Kvm;
                break;
            case "soft" or "tcg":
                kind = AcceleratorKind.Soft;
                break;
            case "auto":
                kind = AcceleratorKind.Auto;
                break;
            default:
                error = $"invalid accelerator {parts[0]}";
                return false;
        }
        var controllers = InterruptControllers.Kernel;
        bool check = false;
        foreach (string part in parts.Skip(1))
        {
            switch (part.Replace("kernel_irqchip", "kernel-irqchip", StringComparison.Ordinal))
            {
                case "check" or "check=on":
                    check = true;
                    break;
                case "check=off":
                    check = false;
                    break;
                case "kernel-irqchip=on":
                    controllers = InterruptControllers.Kernel;
                    break;
                case "kernel-irqchip=split":
                    controllers = InterruptControllers.Split;
                    break;
                case "kernel-irqchip=off":
                    controllers = InterruptControllers.Machine;
                    break;
                // how QEMU's software CPU is to go about it: ours has a thread a processor and sizes its caches itself
                case var tcg when kind != AcceleratorKind.Kvm && tcg.Split('=')[0] is "thread" or "tb-size":
                    break;
                default:
                    string name = part.Split('=')[0];
                    error = name is "kernel_irqchip" or "kernel-irqchip" or "check"
                        ? $"Parameter '{name}' does not accept value '{part[(part.IndexOf('=', StringComparison.Ordinal) + 1)..]}'"
                        : $"Property '{parts[0]}-accel.{name}' not found";
                    return false;
            }
        }
        accelerator = new Accelerator(kind, controllers, check);
        return true;
    }

    /// <summary>Decides. Throws <see cref="KvmException"/> with one line when KVM was demanded and cannot be used.</summary>
    public AcceleratorChoice Choose()
    {
        if (Kind == AcceleratorKind.Soft)
            return new AcceleratorChoice(false, null);
        if (Kind == AcceleratorKind.Kvm)
        {
            if (KvmHost.FindProblem() is { } missing)
                throw new KvmException($"cannot use KVM: {missing}");
            return new AcceleratorChoice(true, KvmHost.FindHardwareProblem() is { } slow ? $"warning: KVM does not accelerate here: {slow}" : null);
        }
        return KvmHost.FindHardwareProblem() is { } problem
            ? new AcceleratorChoice(false, FallBack(problem))
            : new AcceleratorChoice(true, null);
    }

    /// <summary>The line that says that the software CPU runs the guest, and why.</summary>
    public static string FallBack(string problem) => $"KVM cannot be used, the software CPU runs the guest: {problem}";
}
