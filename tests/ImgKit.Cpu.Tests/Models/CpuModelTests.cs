using Iced.Intel;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Tests.Models;

public sealed class CpuModelTests
{
    [Theory]
    // As qemu-system-x86_64 7.2 answers query-cpu-model-expansion for the same names.
    [InlineData("486", "GenuineIntel", 4, 8, 0, 1u, 0u, "")]
    [InlineData("pentium", "GenuineIntel", 5, 4, 3, 1u, 0u, "")]
    [InlineData("pentium2", "GenuineIntel", 6, 5, 2, 2u, 0u, "")]
    [InlineData("pentium3", "GenuineIntel", 6, 7, 3, 3u, 0u, "")]
    [InlineData("athlon", "AuthenticAMD", 6, 2, 3, 2u, 0x80000008u, "QEMU Virtual CPU version 2.5+")]
    [InlineData("n270", "GenuineIntel", 6, 28, 2, 10u, 0x80000008u, "Intel(R) Atom(TM) CPU N270   @ 1.60GHz")]
    [InlineData("coreduo", "GenuineIntel", 6, 14, 8, 10u, 0x80000008u, "Genuine Intel(R) CPU           T2600  @ 2.16GHz")]
    [InlineData("core2duo", "GenuineIntel", 6, 15, 11, 10u, 0x80000008u, "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz")]
    [InlineData("phenom", "AuthenticAMD", 16, 2, 3, 5u, 0x8000001Au, "AMD Phenom(tm) 9550 Quad-Core Processor")]
    [InlineData("qemu64", "AuthenticAMD", 15, 107, 1, 13u, 0x8000000Au, "QEMU Virtual CPU version 2.5+")]
    [InlineData("qemu32", "GenuineIntel", 6, 6, 3, 4u, 0x80000004u, "QEMU Virtual CPU version 2.5+")]
    [InlineData("kvm64", "GenuineIntel", 15, 6, 1, 13u, 0x80000008u, "Common KVM processor")]
    [InlineData("EPYC", "AuthenticAMD", 23, 1, 2, 13u, 0x8000001Eu, "AMD EPYC Processor")]
    public void A_model_has_the_identity_that_its_name_stands_for(
        string name, string vendor, int family, int model, int stepping, uint level, uint extended, string brand)
    {
        var cpu = CpuModel.Parse(name);
        Assert.Equal((vendor, family, model, stepping, level, extended, brand),
            (cpu.Vendor, cpu.Family, cpu.Model, cpu.Stepping, cpu.Level, cpu.ExtendedLevel, cpu.Brand));
        // And CPUID says the same.
        var leaf0 = cpu.Cpuid.Query(0, 0, default);
        Assert.Equal(level, leaf0.Eax);
        var leaf1 = cpu.Cpuid.Query(1, 0, default);
        uint f = leaf1.Eax >> 8 & 15, m = leaf1.Eax >> 4 & 15;
        if (f == 15)
            f += leaf1.Eax >> 20 & 0xFF;
        if (f is 6 or >= 15)
            m |= leaf1.Eax >> 12 & 0xF0;
        Assert.Equal((family, model, stepping), ((int)f, (int)m, (int)(leaf1.Eax & 15)));
        if (extended >= 0x80000004)
            Assert.Equal(brand, BrandOf(cpu));
    }

    private static string BrandOf(CpuModel cpu)
    {
        var text = new List<byte>();
        for (uint leaf = 0x80000002; leaf <= 0x80000004; leaf++)
        {
            var r = cpu.Cpuid.Query(leaf, 0, default);
            foreach (uint word in new[] { r.Eax, r.Ebx, r.Ecx, r.Edx })
                text.AddRange(BitConverter.GetBytes(word));
        }
        return System.Text.Encoding.ASCII.GetString([.. text]).TrimEnd('\0');
    }

    [Fact]
    public void Flags_are_added_and_removed_and_the_signs_come_last()
    {
        Assert.True(CpuModel.Parse("qemu64,+rdtscp").Has(CpuFeature.Rdtscp));
        Assert.False(CpuModel.Parse("qemu64,-sse3").Has(CpuFeature.Sse3));
        Assert.False(CpuModel.Parse("qemu64,sse3=off").Has(CpuFeature.Sse3));
        Assert.True(CpuModel.Parse("qemu64,+pni,sse3=off").Has(CpuFeature.Sse3));
        Assert.True(CpuModel.Parse("qemu64,rdtscp").Has(CpuFeature.Rdtscp));
        Assert.False(CpuModel.Parse("qemu64,-hypervisor").Has(CpuFeature.Hypervisor));
        Assert.True(CpuModel.Parse("qemu64,+sse4_1").Has(CpuFeature.Sse41));
    }

    [Fact]
    public void Properties_change_the_identity()
    {
        var cpu = CpuModel.Parse("qemu64,family=6,model=0x3c,stepping=4,vendor=GenuineIntel,model-id=Mine,phys-bits=36,tsc-frequency=2.4G,level=0x16");
        Assert.Equal((6, 0x3C, 4, "GenuineIntel", "Mine", 36, 2_400_000_000UL),
            (cpu.Family, cpu.Model, cpu.Stepping, cpu.Vendor, cpu.Brand, cpu.PhysicalAddressBits, cpu.TscFrequency));
        Assert.Equal(36u, cpu.Cpuid.Query(0x80000008, 0, default).Eax & 0xFF);
        var crystal = cpu.Cpuid.Query(0x15, 0, default);
        Assert.Equal(2_400_000_000UL, (ulong)crystal.Ecx * crystal.Ebx / crystal.Eax);
    }

    [Theory]
    [InlineData("nosuch", "unable to find CPU model 'nosuch'")]
    [InlineData("qemu64,+nosuch", "Property 'qemu64-x86_64-cpu.nosuch' not found")]
    [InlineData("qemu64,nosuch=1", "Property 'qemu64-x86_64-cpu.nosuch' not found")]
    [InlineData("qemu64,sse3=maybe", "Parameter 'sse3' expects 'on' or 'off'")]
    [InlineData("qemu64,stepping=16", "Parameter 'stepping' expects a value between 0 and 15")]
    [InlineData("qemu64,model=x", "Parameter 'model' expects a number")]
    [InlineData("qemu64,vendor=Me", "Property 'vendor' must have exactly 12 characters")]
    [InlineData("qemu64,+avx512f,enforce", "this host cannot run the requested feature: CPUID.07H:EBX.avx512f [bit 16]")]
    [InlineData("qemu64,+-", "Property 'qemu64-x86_64-cpu.-' not found")]
    public void Bad_options_are_named(string option, string message) =>
        Assert.Equal(message, Assert.Throws<CpuModelException>(() => CpuModel.Parse(option)).Message);

    [Fact]
    public void What_cannot_be_run_is_missing_not_claimed()
    {
        var cpu = CpuModel.Parse("qemu64,+avx512f,+svm");
        Assert.Contains(CpuFeature.Svm, cpu.Missing);
        Assert.False(cpu.Has(CpuFeature.Svm));
        Assert.Empty(CpuModel.Parse("qemu64").Missing);
        Assert.Empty(CpuModel.Parse("max").Missing);
        Assert.True(CpuModel.Parse("max").Has(CpuFeature.Invpcid) && CpuModel.Parse("max").Has(CpuFeature.Pcid));
    }

    [Theory]
    [InlineData("pentium", CpuidFeature.CMOV, false)]
    [InlineData("pentium2", CpuidFeature.CMOV, true)]
    [InlineData("pentium2", CpuidFeature.SSE, false)]
    [InlineData("pentium3", CpuidFeature.SSE, true)]
    [InlineData("pentium3", CpuidFeature.SSE2, false)]
    [InlineData("486", CpuidFeature.CX8, false)]
    [InlineData("486", CpuidFeature.TSC, false)]
    [InlineData("486", CpuidFeature.MULTIBYTENOP, false)]
    [InlineData("486", CpuidFeature.CPUID, true)]
    [InlineData("qemu64", CpuidFeature.X64, true)]
    [InlineData("qemu32", CpuidFeature.X64, false)]
    [InlineData("qemu64", CpuidFeature.AVX, false)]
    [InlineData("qemu64", CpuidFeature.SSSE3, false)]
    [InlineData("qemu64", CpuidFeature.VMX, false)]
    [InlineData("qemu64", CpuidFeature.AVX512F, false)]
    [InlineData("core2duo", CpuidFeature.SSSE3, true)]
    public void Instructions_exist_as_the_flags_say(string name, CpuidFeature need, bool exists) =>
        Assert.Equal(exists, CpuModel.Parse(name).Has(need));

    [Fact]
    public void Dependent_flags_go_with_what_they_need()
    {
        var cpu = CpuModel.Parse("max,-xsave");
        Assert.False(cpu.Has(CpuFeature.Avx) || cpu.Has(CpuFeature.Avx2) || cpu.Has(CpuFeature.Fma));
        Assert.Equal(0UL, cpu.SupportedXcr0);
    }

    [Fact]
    public void Xsave_leaves_describe_the_components_that_can_be_enabled()
    {
        var cpu = CpuModel.Parse("qemu64,+xsave,+avx");
        var state = new CpuidState(0, 0, 3, true);
        Assert.Equal(new CpuidResult(7, 576, 832, 0), cpu.Cpuid.Query(0xD, 0, state));
        Assert.Equal(new CpuidResult(7, 832, 832, 0), cpu.Cpuid.Query(0xD, 0, state with { Xcr0 = 7 }));
        Assert.Equal(new CpuidResult(256, 576, 0, 0), cpu.Cpuid.Query(0xD, 2, state));
        Assert.Equal(default, cpu.Cpuid.Query(0xD, 3, state));
    }

    [Fact]
    public void Amd_repeats_leaf_1_in_the_extended_flags_and_intel_does_not()
    {
        var amd = CpuModel.Parse("qemu64").Cpuid.Query(0x80000001, 0, default);
        Assert.Equal(0x0183F3FFu & CpuModel.Parse("qemu64").Word(CpuidWord.Leaf1Edx), amd.Edx & 0x0183F3FF);
        var intel = CpuModel.Parse("core2duo").Cpuid.Query(0x80000001, 0, default);
        Assert.Equal((1u << 11) | (1u << 20) | (1u << 29), intel.Edx);
    }

    [Fact]
    public void Leaves_beyond_the_highest_are_zero_on_amd_and_the_highest_on_intel()
    {
        Assert.Equal(default, CpuModel.Parse("qemu64").Cpuid.Query(0x20, 0, default));
        var intel = CpuModel.Parse("core2duo").Cpuid;
        Assert.Equal(intel.Query(10, 0, default), intel.Query(0x20, 0, default));
    }

    [Fact]
    public void Topology_shows_in_leaf_1_4_and_11()
    {
        var topology = new CpuTopology(2, 2, 2);
        var cpu = CpuModel.Parse("Nehalem", topology);
        var state = new CpuidState(5, 0, 0, true);
        var leaf1 = cpu.Cpuid.Query(1, 0, state);
        Assert.Equal((5u, 4u), (leaf1.Ebx >> 24, leaf1.Ebx >> 16 & 0xFF));
        Assert.NotEqual(0u, leaf1.Edx & (1 << 28));
        Assert.Equal(1u, cpu.Cpuid.Query(4, 0, state).Eax >> 26);
        Assert.Equal((1u, 2u), (cpu.Cpuid.Query(0xB, 0, state).Eax, cpu.Cpuid.Query(0xB, 1, state).Eax));
        Assert.Equal([0u, 1, 2, 3, 4, 5, 6, 7], Enumerable.Range(0, 8).Select(topology.ApicId));
        Assert.Equal([0u, 1, 2, 4, 5, 6], Enumerable.Range(0, 6).Select(new CpuTopology(2, 3, 1).ApicId));
    }

    [Fact]
    public void The_hypervisor_leaf_can_be_renamed_and_hidden()
    {
        Assert.Equal(0x54474354u, CpuModel.Parse("qemu64").Cpuid.Query(0x40000000, 0, default).Ebx);
        Assert.Equal((uint)'M', CpuModel.Parse("qemu64,hypervisor-vendor=MyOwn").Cpuid.Query(0x40000000, 0, default).Ebx & 0xFF);
        Assert.Equal(default, CpuModel.Parse("qemu64,-hypervisor").Cpuid.Query(0x40000000, 0, default));
    }

    [Fact]
    public void Every_model_of_the_list_parses_and_the_help_names_it()
    {
        string help = CpuModelCatalog.Help();
        foreach (var (name, _) in CpuModelCatalog.All)
        {
            Assert.Equal(name, CpuModel.Parse(name).Name);
            Assert.Contains($"x86 {name}", help, StringComparison.Ordinal);
        }
        Assert.DoesNotContain(help.Split('\n'), line => line.Length > 80);
    }
}
