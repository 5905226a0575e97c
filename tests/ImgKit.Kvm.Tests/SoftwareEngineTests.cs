using ImgKit.Cpu;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;
using ImgKit.KvmSmoke;

namespace ImgKit.Kvm.Tests;

/// <summary>The guests of KvmSmoke on the software CPU: both engines pass one suite.</summary>
public sealed class SoftwareEngineTests
{
    private static readonly CpuModel s_model = CpuModel.Parse("qemu64,+xsave,+avx", new CpuTopology(1, 2, 1));

    private static TranslatorEngine Soft(PhysicalMemoryMap map) => new(map, s_model);

    public static TheoryData<string> Names => [.. new CommonTests(Soft, Soft).All.Select(t => t.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Guest_runs_as_on_kvm(string name)
    {
        var run = new CommonTests(Soft, Soft).All.Single(t => t.Name == name).Run;
        Assert.Null(Record.Exception(run));
    }
}
