using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;

namespace ImgKit.Kvm.Tests;

public sealed class AcceleratorTests
{
    [Theory]
    [InlineData("kvm", AcceleratorKind.Kvm, InterruptControllers.Kernel, false)]
    [InlineData("kvm,kernel_irqchip=split", AcceleratorKind.Kvm, InterruptControllers.Split, false)]
    [InlineData("kvm,kernel-irqchip=off", AcceleratorKind.Kvm, InterruptControllers.Machine, false)]
    [InlineData("kvm,check", AcceleratorKind.Kvm, InterruptControllers.Kernel, true)]
    [InlineData("soft", AcceleratorKind.Soft, InterruptControllers.Kernel, false)]
    [InlineData("tcg", AcceleratorKind.Soft, InterruptControllers.Kernel, false)]
    [InlineData("tcg,thread=multi,tb-size=256", AcceleratorKind.Soft, InterruptControllers.Kernel, false)]
    [InlineData("auto", AcceleratorKind.Auto, InterruptControllers.Kernel, false)]
    public void Option_text_is_understood(string text, AcceleratorKind kind, InterruptControllers controllers, bool check)
    {
        Assert.True(Accelerator.TryParse(text, out var accelerator, out string error), error);
        Assert.Equal(new Accelerator(kind, controllers, check), accelerator);
    }

    [Theory]
    [InlineData("kvm", "tcg", "auto")]
    [InlineData("kvm,kernel_irqchip=split", "soft", "auto,kernel_irqchip=split")]
    [InlineData("tcg", "kvm", "tcg")]
    [InlineData("kvm", "kvm", "kvm")]
    public void Of_two_the_second_is_for_want_of_the_first(string first, string second, string expected) =>
        Assert.Equal(expected, Accelerator.Combine(first, second));

    [Theory]
    [InlineData("hax", "invalid accelerator hax")]
    [InlineData("kvm,kernel_irqchip=perhaps", "Parameter 'kernel_irqchip' does not accept value 'perhaps'")]
    [InlineData("kvm,speed=9", "Property 'kvm-accel.speed' not found")]
    public void Wrong_option_text_gets_one_line(string text, string expected)
    {
        Assert.False(Accelerator.TryParse(text, out _, out string error));
        Assert.Equal(expected, error);
    }

    [Fact]
    public void Auto_never_falls_back_silently()
    {
        var choice = new Accelerator(AcceleratorKind.Auto).Choose();
        Assert.Equal(choice.UseKvm, choice.Notice is null);
        Assert.Equal(KvmHost.FindHardwareProblem() is null, choice.UseKvm);
    }

    [Fact]
    public void Demanded_kvm_that_is_not_there_is_a_one_line_error()
    {
        if (KvmHost.FindProblem() is { } problem)
        {
            var e = Assert.Throws<KvmException>(() => new Accelerator(AcceleratorKind.Kvm).Choose());
            Assert.Equal($"cannot use KVM: {problem}", e.Message);
            Assert.DoesNotContain('\n', e.Message);
        }
        else
        {
            Assert.True(new Accelerator(AcceleratorKind.Kvm).Choose().UseKvm);
        }
    }

    [Fact]
    public void Kvm_without_a_virtualization_extension_is_not_taken_by_auto_and_warned_of_on_demand()
    {
        bool hasExtension = File.ReadAllText("/proc/cpuinfo").Split('\n').Where(l => l.StartsWith("flags", StringComparison.Ordinal))
            .Any(l => l.Split(' ').Any(f => f is "vmx" or "svm"));
        if (hasExtension || KvmHost.FindProblem() is not null)
        {
            Assert.Equal(KvmHost.FindProblem(), KvmHost.FindHardwareProblem());
            return;
        }
        Assert.False(new Accelerator(AcceleratorKind.Auto).Choose().UseKvm);
        Assert.StartsWith("warning: KVM does not accelerate here: no vmx or svm flag in /proc/cpuinfo", new Accelerator(AcceleratorKind.Kvm).Choose().Notice);
    }

    [Fact]
    public void Description_says_what_is_there_or_why_not()
    {
        var host = KvmHost.Probe();
        string text = host.Describe();
        Assert.Contains(File.ReadAllText("/proc/cpuinfo").Split('\n').First(l => l.StartsWith("vendor_id", StringComparison.Ordinal)).Split(": ")[1], text);
        Assert.Contains(host.IsUsable ? "KVM acceleration can be used" : "can NOT be used", text.Replace("KVM can be used, but", "KVM acceleration can be used", StringComparison.Ordinal));
        Assert.Equal(host.IsUsable, host.Capabilities.Count > 0);
    }
}
