using System.Diagnostics;
using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;
using ImgKit.KvmSmoke;

// kvm-smoke [FILTER [NOT]]: runs small guests on /dev/kvm (those whose names contain FILTER and not NOT), prints "SMOKE name: pass" or "SMOKE name: FAIL why" for each; exit status 1 when any failed.
var host = KvmHost.Probe();
Console.Write(host.Describe());
if (!host.IsUsable)
{
    Console.WriteLine("SMOKE /dev/kvm: FAIL it cannot be used");
    return 1;
}

var model = CpuModel.Parse("qemu64,+xsave,+avx", new CpuTopology(1, 2, 1));
CpuEngine Kvm(PhysicalMemoryMap map) => new KvmVm(map, new KvmOptions { InterruptControllers = InterruptControllers.Machine, ProcessorCount = 2 });
CpuEngine Soft(PhysicalMemoryMap map) => new TranslatorEngine(map, model);
int failed = 0;
foreach (var (name, run) in new CommonTests(Kvm, Kvm).All.Concat(KvmTests.All)
    .Concat(new CommonTests(Kvm, Soft).Carrying.Select(t => ($"from KVM to the software CPU: {t.Name}", t.Run)))
    .Concat(new CommonTests(Soft, Kvm).All.Select(t => ($"software CPU: {t.Name}", t.Run))))
{
    if (args.Length > 0 && !name.Contains(args[0], StringComparison.OrdinalIgnoreCase) || args.Length > 1 && name.Contains(args[1], StringComparison.OrdinalIgnoreCase))
        continue;
    long start = Stopwatch.GetTimestamp();
    string result;
    try
    {
        run();
        result = "pass";
    }
    catch (Exception e)
    {
        failed++;
        result = $"FAIL {(e is CheckFailed or KvmException ? e.Message : e.ToString())}";
    }
    Console.WriteLine($"SMOKE {name}: {result} ({Stopwatch.GetElapsedTime(start).TotalMilliseconds:f0} ms)");
}
return failed == 0 ? 0 : 1;
