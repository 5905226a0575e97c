using System.Diagnostics;

namespace ImgKit.KvmRig;

/// <summary>What the programs say of the host that the tests run on, whatever it offers.</summary>
public sealed class HostTests
{
    private static bool HasExtension => File.ReadLines("/proc/cpuinfo").Where(l => l.StartsWith("flags", StringComparison.Ordinal))
        .Any(l => l.Split(' ').Any(f => f is "vmx" or "svm"));

    private static bool Opens
    {
        get
        {
            try
            {
                File.OpenHandle("/dev/kvm", FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite).Dispose();
                return true;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return false;
            }
        }
    }

    private static (int Status, string Out, string Error) Run(string program, string input, params string[] arguments)
    {
        var info = new ProcessStartInfo(Path.Combine(Rig.Root, program), arguments)
        {
            RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true,
        };
        using var process = Process.Start(info)!;
        var error = process.StandardError.ReadToEndAsync();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.Result);
    }

    [Fact]
    public void Kvm_ok_tells_what_the_host_offers_and_ends_accordingly()
    {
        bool usable = HasExtension && Opens;
        var (status, output, _) = Run("scripts/kvm-ok", "");
        Assert.Equal(usable ? 0 : 1, status);
        foreach (string what in (string[])["processor: ", "virtualization extension: ", "nested paging: "])
            Assert.Contains(what, output);
        Assert.Contains(usable ? "KVM acceleration can be used" : Opens ? "does not accelerate ordinary guests" : "can NOT be used: ", output);
        Assert.Equal(Opens, output.Contains("kernel irqchip: ", StringComparison.Ordinal));
    }

    [Fact]
    public void Accel_help_names_the_accelerators_and_judges_the_host()
    {
        var (status, output, error) = Run("out/bin/kvm", "", "-accel", "help");
        Assert.Equal((0, ""), (status, error));
        foreach (string name in (string[])["kvm ", "soft ", "auto "])
            Assert.Contains("\n" + name, output);
        Assert.Contains(HasExtension && Opens ? "This host: kvm can be used" : "This host: kvm can NOT be used: ", output);
    }

    [Fact]
    public void Auto_falls_back_with_one_line_or_says_nothing()
    {
        var (status, output, error) = Run("out/bin/kvm", "info kvm\nquit\n", "-S", "-display", "none", "-vga", "none", "-serial", "none", "-monitor", "stdio");
        Assert.Equal(0, status);
        if (HasExtension && Opens)
        {
            Assert.Contains("kvm support: enabled", output);
            Assert.Equal("", error);
        }
        else
        {
            Assert.Contains("kvm support: disabled", output);
            Assert.StartsWith("kvm: KVM cannot be used, the software CPU runs the guest: ", error);
            Assert.Equal(1, error.Count(c => c == '\n'));
        }
    }
}
