using System.Diagnostics;
using Iced.Intel;
using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.KvmSmoke;

/// <summary>What only KVM has: kernel interrupt controllers, events, coalescing, debugging, SMM, machine checks, paravirtual leaves.</summary>
internal sealed unsafe partial class KvmTests
{
    private static Guest Make(InterruptControllers controllers, KvmOptions? options = null) => new(map => new KvmVm(map,
        options ?? new KvmOptions { InterruptControllers = controllers, ProcessorCount = 2 }));

    public static IEnumerable<(string Name, Action Run)> All =>
    [
        ("kernel PIC delivers a line", KernelPic),
        ("kernel PIT ticks a halted CPU", KernelPit),
        ("kernel PIT gives its line to the HPET and gets it back", ReplacedPit),
        ("kernel PIT delivers lost ticks late", () => LostTicks(true)),
        ("kernel PIT drops lost ticks", () => LostTicks(false)),
        ("irqfd tells the end of a level interrupt", Resample),
        ("kernel local APIC: SMP start-up and IPI", () => ApicStartUp(InterruptControllers.Kernel)),
        ("split: SMP start-up and IPI", () => ApicStartUp(InterruptControllers.Split)),
        ("split: the machine's PIC interrupts", SplitPic),
        ("split: level interrupt tells its end", SplitEndOfInterrupt),
        ("message and irqfd", Messages),
        ("ioeventfd", IoEvents),
        ("coalesced ports and memory", Coalesced),
        ("CPUID: hypervisor leaves, APIC id, topology", Cpuid),
        ("CPUID of a named model", NamedModel),
        ("Hyper-V leaves", HyperVLeaves),
        ("Hyper-V crash registers", Crash),
        ("Hyper-V synthetic timers, with a message and without", SyntheticTimers),
        ("kvm-clock page", ClockPage),
        ("the guest's own debug registers", DebugRegisters),
        ("unknown MSR goes to the machine", UnknownMsr),
        ("single step", GuestDebug),
        .. ArmsDebugRegisters ? [("hardware breakpoint and INT3", Breakpoints)] : Array.Empty<(string, Action)>(),
        ("system-management mode", Smm),
        ("machine check", MachineCheck),
        ("internal error tells reason and registers", InternalError),
        ("kvm-clock stands still while stopped", Clock),
        ("kernel controllers reset", KernelReset),
        ("cost of an exit", ExitCost),
    ];

    private static void Expect(VcpuExit expected, Vcpu cpu)
    {
        var exit = cpu.Run();
        if (exit == expected)
            return;
        var state = new CpuState();
        cpu.GetState(state);
        throw new CheckFailed($"expected {expected}, got {exit} {cpu.Failure} at {state.Segments[1].Selector:x}:{state.Rip:x}, RFLAGS {state.Rflags:x}");
    }

    /// <summary>Runs until the guest writes 0xFF to port 0x80 (kernel controllers: HLT never shows).</summary>
    private static void RunToEnd(Guest g, Vcpu cpu, int seconds = 60)
    {
        var previous = g.Bus.OnPortWrite;
        bool done = false;
        g.Bus.OnPortWrite = (port, value, size) =>
        {
            previous(port, value, size);
            if (port == 0x80 && value == 0xFF)
            {
                done = true;
                cpu.Kick();
            }
        };
        var watchdog = g.Every(seconds * 1000, Timeout.Infinite, cpu.Kick);
        Expect(VcpuExit.Kicked, cpu);
        watchdog.Change(Timeout.Infinite, Timeout.Infinite);
        g.Bus.OnPortWrite = previous;
        Check.True(done, "the guest did not come to its end");
    }

    private static void End(Assembler a)
    {
        var loop = a.CreateLabel();
        a.mov(al, 0xFF);
        a.@out(0x80, al);
        a.Label(ref loop);
        a.hlt();
        a.jmp(loop);
    }

    private static void ProgramPic(Assembler a, int mask)
    {
        foreach (var (port, value) in new[] { (0x20, 0x11), (0xA0, 0x11), (0x21, 0x20), (0xA1, 0x28), (0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1), (0x21, mask), (0xA1, 0xFF) })
        {
            a.mov(al, (sbyte)value);
            a.@out((byte)port, al);
        }
    }

    /// <summary>Real-mode WRMSR of a small value.</summary>
    private static void WriteMsr(Assembler a, uint index, uint low, uint high = 0)
    {
        a.mov(ecx, index);
        a.mov(eax, low);
        a.mov(edx, high);
        a.wrmsr();
    }

    /// <summary>x2APIC on, software-enabled: usable from real mode.</summary>
    private static void EnableX2Apic(Assembler a, bool bootstrap)
    {
        WriteMsr(a, 0x1B, 0xFEE00C00 | (bootstrap ? 0x100u : 0));
        WriteMsr(a, 0x80F, 0x1FF);
    }

    private static void ApicHandler(Assembler a, byte tag)
    {
        a.push(eax);
        a.push(ecx);
        a.push(edx);
        a.mov(al, tag);
        a.@out(0x81, al);
        WriteMsr(a, 0x80B, 0);
        a.pop(edx);
        a.pop(ecx);
        a.pop(eax);
        a.iret();
    }

    private static void ExitCost()
    {
        using var g = Make(InterruptControllers.Kernel);
        const int Count = 3000;
        var cpu = g.Real(a =>
        {
            var loop = a.CreateLabel();
            a.mov(cx, Count);
            a.Label(ref loop);
            a.@out(0x70, al);
            a.dec(cx);
            a.jne(loop);
            End(a);
        });
        long start = Stopwatch.GetTimestamp();
        RunToEnd(g, cpu);
        Console.WriteLine($"  {Stopwatch.GetElapsedTime(start).TotalMicroseconds / Count:f2} us per port exit");
    }
}
