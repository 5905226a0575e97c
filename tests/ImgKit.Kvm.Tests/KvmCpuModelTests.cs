using ImgKit.Cpu.Kvm;
using ImgKit.Cpu.Models;

namespace ImgKit.Kvm.Tests;

/// <summary>What <c>-cpu</c> means under KVM, for a made-up KVM.</summary>
public sealed class KvmCpuModelTests
{
    private const uint Sse3 = 1, Svm = 4, Cx16 = 1 << 13, Hypervisor = 1u << 31;

    // Offers everything but what is asked to be missing of leaf 1 ECX.
    private static List<CpuidLeaf> Supported(uint without = 0) =>
    [
        new(0, 0, false, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69),
        new(1, 0, false, 0x000306A9, 0, ~without, ~0u),
        new(7, 0, true, 0, ~0u, ~0u, ~0u),
        new(0xD, 0, true, 7, 832, 832, 0),
        new(0xD, 1, true, ~0u, 0, 0, 0),
        new(0xD, 2, true, 256, 576, 0, 0),
        new(0x80000001, 0, false, 0, 0, ~0u, ~0u),
        new(0x80000008, 0, false, 0x3028, ~0u, 0, 0),
    ];

    private static CpuidLeaf Leaf(string option, uint function, uint index = 0, uint without = 0) =>
        new KvmCpuModel(option, CpuTopology.Single).Select(Supported(without), 0).First(l => l.Function == function && l.Index == index);

    [Fact]
    public void A_named_model_shows_itself_and_not_the_host()
    {
        var leaf = Leaf("qemu64", 0);
        Assert.Equal((0x68747541u, 0x444D4163u, 0x69746E65u), (leaf.Ebx, leaf.Ecx, leaf.Edx));   // "AuthenticAMD"
        Assert.Equal(Sse3 | Cx16 | Hypervisor, Leaf("qemu64", 1).Ecx & (Sse3 | Cx16 | Hypervisor));
        Assert.Equal(0u, Leaf("qemu64", 1).Ecx & 1u << 28);     // AVX
    }

    [Fact]
    public void Flags_are_added_and_taken_away()
    {
        Assert.Equal(Hypervisor, Leaf("qemu64,-sse3,cx16=off", 1).Ecx & (Sse3 | Cx16 | Hypervisor));
        Assert.NotEqual(0u, Leaf("qemu64,+xsave,+avx", 1).Ecx & 1u << 28);
        Assert.Equal(7u, Leaf("qemu64,+xsave,+avx", 0xD).Eax);
        Assert.Equal(3u, Leaf("qemu64,+xsave", 0xD).Eax);
        Assert.Equal(0u, Leaf("host,-sse3", 1).Ecx & Sse3);
        Assert.Equal(0x000306A9u, Leaf("host", 1).Eax);
    }

    [Fact]
    public void Nested_virtualization_comes_only_when_asked_for()
    {
        Assert.Equal(0u, Leaf("phenom", 0x80000001).Ecx & Svm);
        Assert.Equal(Svm, Leaf("phenom,+svm", 0x80000001).Ecx & Svm);
    }

    [Fact]
    public void What_the_host_lacks_is_left_out_with_one_line()
    {
        Assert.Null(new KvmCpuModel("qemu64", CpuTopology.Single).Check(Supported()));
        string? line = new KvmCpuModel("qemu64", CpuTopology.Single).Check(Supported(Sse3 | Cx16));
        Assert.Equal("-cpu qemu64: this host's KVM does not offer sse3, cx16: left out", line);
        Assert.Equal(0u, Leaf("qemu64", 1, without: Sse3).Ecx & Sse3);
    }

    [Theory]
    [InlineData("qemu64,+cx16")]
    [InlineData("qemu64,enforce")]
    [InlineData("host,+cx16")]
    [InlineData("max,cx16")]
    public void What_was_demanded_and_is_lacking_is_an_error(string option)
    {
        var e = Assert.Throws<CpuModelException>(() => new KvmCpuModel(option, CpuTopology.Single).Check(Supported(Cx16)));
        Assert.Equal($"-cpu {option.Split(',')[0]}: this host's KVM does not offer cx16", e.Message);
    }

    [Fact]
    public void Enlightenments_and_hiding_are_understood()
    {
        var model = new KvmCpuModel("host,kvm=off,hv_relaxed,hv-time,hv_vendor_id=Test,tsc-frequency=2G", CpuTopology.Single);
        Assert.True(model.HideKvm);
        Assert.Equal(HyperVFeatures.Relaxed | HyperVFeatures.Time, model.HyperV);
        Assert.Equal("Test", model.HyperVVendor);
        Assert.Equal(2_000_000, model.TscKilohertz);
        Assert.Equal(HyperVFeatures.All & ~HyperVFeatures.Reset, new KvmCpuModel("host,hv-passthrough,hv-reset=off", CpuTopology.Single).HyperV);
    }

    [Fact]
    public void Enlightenments_are_those_that_the_kernel_lists()
    {
        const HyperVFeatures Wanted = HyperVFeatures.Time | HyperVFeatures.ProcessorIndex | HyperVFeatures.SyntheticInterrupts | HyperVFeatures.TlbFlush;
        CpuidLeaf[] Listed(uint access, uint hints) => [new(0x40000003, 0, false, access, 0, 0, 0), new(0x40000004, 0, false, hints, 0, 0, 0)];
        Assert.Equal(Wanted, HyperV.Restrict(Wanted, Listed(0x246, 0x804), true));
        string Refused(CpuidLeaf[]? listed, bool kernelApics) => Assert.Throws<KvmException>(() => HyperV.Restrict(Wanted, listed, kernelApics)).Message;
        Assert.Equal("Hyper-V paravirtualized TLB flush (hv-tlbflush) is not supported by kernel", Refused(Listed(0x246, 0), true));
        Assert.Equal("Hyper-V synthetic interrupt controller (hv-synic) is not supported by kernel", Refused(null, true));
        Assert.Equal("Hyper-V synthetic interrupt controller (hv-synic) needs the kernel's local APICs (kernel_irqchip=on or split)", Refused(Listed(0x246, 0x804), false));
        Assert.Equal(HyperVFeatures.Relaxed | HyperVFeatures.Time | HyperVFeatures.ProcessorIndex | HyperVFeatures.Spinlocks,
            HyperV.Restrict(HyperVFeatures.All, Listed(0x24E, 0), false)); // timers without the controller that they need are none
        Assert.Equal(0x1FFFu, new KvmCpuModel("host,hv-spinlocks=0x1fff", CpuTopology.Single).HyperVSpinlocks);
    }

    [Theory]
    [InlineData("host,hv-magic", "'hv-magic' is not an enlightenment that is there")]
    [InlineData("host,hv-synic", "Hyper-V synthetic interrupt controller (hv-synic) requires Hyper-V VP_INDEX MSR (hv-vpindex)")]
    [InlineData("host,hv-vpindex,hv-synic,hv-stimer", "Hyper-V synthetic timers (hv-stimer) requires Hyper-V clocksources (hv-time)")]
    [InlineData("host,hv-spinlocks=2", "Property 'hv-spinlocks' takes a number from 0xfff on, not '2'")]
    [InlineData("host,speed=9", "Parameter 'speed' expects 'on' or 'off'")]
    [InlineData("host,+speed", "Property 'host-x86_64-cpu.speed' not found")]
    [InlineData("host,family=6", "Property 'family' cannot be set with -cpu host: it shows the host's processor as it is")]
    [InlineData("pentium9", "unable to find CPU model 'pentium9'")]
    public void A_wrong_option_gets_one_line(string option, string expected) =>
        Assert.Equal(expected, Assert.Throws<CpuModelException>(() => new KvmCpuModel(option, CpuTopology.Single)).Message);
}
