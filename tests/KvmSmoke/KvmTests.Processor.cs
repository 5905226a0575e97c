using System.Runtime.InteropServices;
using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;
using ImgKit.Cpu.Models;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.KvmSmoke;

internal sealed unsafe partial class KvmTests
{
    private static uint[] GuestCpuid(Guest g, int index, uint function, uint sub)
    {
        g.Load(64, Guest.CodeAddress, a =>
        {
            a.mov(eax, function);
            a.mov(ecx, sub);
            a.cpuid();
            a.mov(__[0x4000], eax);
            a.mov(__[0x4004], ebx);
            a.mov(__[0x4008], ecx);
            a.mov(__[0x400C], edx);
            a.hlt();
        });
        Guest.Change(g[index], s =>
        {
            s.Rip = Guest.CodeAddress;
            s.Halted = false;
        });
        Expect(VcpuExit.Halted, g[index]);
        uint* r = (uint*)(g.Ram + 0x4000);
        return [r[0], r[1], r[2], r[3]];
    }

    private static string Name(uint[] r) => string.Concat(MemoryMarshal.AsBytes(r.AsSpan(1, 3)).ToArray().Select(b => b == 0 ? ' ' : (char)b)).TrimEnd();

    private static void Cpuid()
    {
        using var g = Make(InterruptControllers.Machine);
        g.Long(a => a.hlt());
        var second = g.AddCpu();
        Check.True((GuestCpuid(g, 0, 1, 0)[2] & 1u << 31) != 0, "hypervisor bit");
        Check.Equal("KVMKVMKVM", Name(GuestCpuid(g, 0, 0x40000000, 0)), "signature");
        Check.Equal(0u, GuestCpuid(g, 0, 1, 0)[1] >> 24, "APIC id 0");
        var state = new CpuState();
        g[0].GetState(state);
        second.SetState(state);
        Check.Equal(1u, GuestCpuid(g, 1, 1, 0)[1] >> 24, "APIC id 1");
        Check.Equal(2u, GuestCpuid(g, 1, 1, 0)[1] >> 16 & 0xFF, "processors of the package");
    }

    private static void HyperVLeaves()
    {
        using var g = Make(InterruptControllers.Machine, new KvmOptions
        {
            InterruptControllers = InterruptControllers.Machine,
            HyperV = HyperVFeatures.Relaxed | HyperVFeatures.Time | HyperVFeatures.ProcessorIndex | HyperVFeatures.Crash,
        });
        g.Long(a => a.hlt());
        Check.Equal("Microsoft Hv", Name(GuestCpuid(g, 0, 0x40000000, 0)), "signature");
        Check.Equal(0x31237648u, GuestCpuid(g, 0, 0x40000001, 0)[0], "interface");
        Check.Equal(1u << 10, GuestCpuid(g, 0, 0x40000003, 0)[3], "crash registers");
        Check.Equal("KVMKVMKVM", Name(GuestCpuid(g, 0, 0x40000100, 0)), "KVM's leaves move up");
    }

    private static void SyntheticTimers()
    {
        using var g = Make(InterruptControllers.Kernel, new KvmOptions
        {
            HyperV = HyperVFeatures.Time | HyperVFeatures.ProcessorIndex | HyperVFeatures.SyntheticInterrupts | HyperVFeatures.SyntheticTimers
                | HyperVFeatures.DirectTimers,
        });
        foreach (byte vector in new byte[] { 0x55, 0x56 })
        {
            g.Vector(vector, vector * 0x40);
            g.Load(16, vector * 0x40u, a => ApicHandler(a, vector));
        }
        // TLFS 11.8 and 12.4: message page, SINT2, controller; timer 0 to SINT2 with a message, timer 1 direct; both at times past
        var cpu = g.Real(a =>
        {
            var wait = a.CreateLabel();
            EnableX2Apic(a, true);
            WriteMsr(a, 0x40000000, 1, 0x81000000); // guest OS id
            WriteMsr(a, 0x40000083, 0x5000 | 1);
            WriteMsr(a, 0x40000092, 0x55);
            WriteMsr(a, 0x40000080, 1);
            a.sti();
            WriteMsr(a, 0x400000B0, 2 << 16 | 1 << 3);
            WriteMsr(a, 0x400000B1, 1);
            WriteMsr(a, 0x400000B2, 1 << 12 | 0x56 << 4 | 1 << 3);
            WriteMsr(a, 0x400000B3, 1);
            a.Label(ref wait);
            a.pause();
            a.cmp(__dword_ptr[0x5200], 0);
            a.je(wait);
            a.mov(al, 1);
            a.@out(0x80, al);
            End(a);
        });
        RunToEnd(g, cpu);
        Check.Equal(0x80000010u, *(uint*)(g.Ram + 0x5200), "message of an expired timer");
        Check.Sequence([0x55u, 0x56u], g.Bus.Written(0x81).Order(), "interrupts");
    }

    private static void Crash()
    {
        using var g = Make(InterruptControllers.Kernel, new KvmOptions { HyperV = HyperVFeatures.Crash });
        var cpu = g.Real(a =>
        {
            for (uint i = 0; i < 5; i++)
                WriteMsr(a, 0x40000100 + i, 0x10 + i, i << 28);
            a.mov(al, 1);
            a.@out(0x80, al);
            WriteMsr(a, 0x40000105, 0, 1u << 31);
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) => Check.True(port != 0x80 || value != 1 || g.Bus.Crash is null, "no crash before it says so");
        RunToEnd(g, cpu);
        Check.True(g.Bus.Crash is not null, "a crash");
        Check.Sequence<ulong>([0x10, 0x1000000000000011, 0x2000000000000012, 0x3000000000000013, 0x4000000000000014], g.Bus.Crash!, "its values");
    }

    private static void UnknownMsr()
    {
        using var g = Make(InterruptControllers.Machine);
        g.Bus.Msrs[0x12345] = 0x1122334455667788;
        g.Vector(13, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.mov(al, 13);
            a.@out(0x81, al);
            a.hlt();
        });
        var cpu = g.Real(a =>
        {
            a.mov(ecx, 0x12345);
            a.rdmsr();
            a.inc(eax);
            a.wrmsr();
            a.mov(ecx, 0x12346);
            a.rdmsr();
            a.hlt();
        });
        Expect(VcpuExit.Halted, cpu);
        Check.Equal(0x1122334455667789ul, g.Bus.Msrs[0x12345], "read and written");
        Check.Sequence([13u], g.Bus.Written(0x81), "an MSR that nobody has: #GP");
    }

    private static void GuestDebug()
    {
        using var g = Make(InterruptControllers.Machine);
        var cpu = (KvmVcpu)g.Long(a =>
        {
            a.@out(0x80, al); // 1000, 2 bytes
            a.nop();
            a.nop();
            a.nop();
            a.hlt();
        });
        // The code's page is there before the first step: Bochs 2.7 has a step pending where the fetch left the guest for nested paging.
        g.Bus.OnPortWrite = (_, _, _) => cpu.Kick();
        Expect(VcpuExit.Kicked, cpu);
        var state = new CpuState();
        cpu.SetGuestDebug(true, false);
        for (uint i = 1; i <= 2; i++)
        {
            Expect(VcpuExit.Debug, cpu);
            cpu.GetState(state);
            Check.Equal(0x1002ul + i, state.Rip, "RIP after a step");
        }
        cpu.SetGuestDebug(false, false);
        Expect(VcpuExit.Halted, cpu);
    }

    /// <summary>QEMU's TCG neither arms the debug registers of a nested guest nor intercepts its INT3: only on other hosts.</summary>
    private static void Breakpoints()
    {
        using var g = Make(InterruptControllers.Machine);
        var cpu = (KvmVcpu)g.Long(a =>
        {
            a.nop();
            a.mov(__byte_ptr[0x4000], 1); // 1001, 8 bytes
            a.int3(); // 1009
            a.hlt();
        });
        cpu.SetGuestDebug(false, false, new HardwareBreakpoint(0x4000, 1, 1));
        Expect(VcpuExit.Debug, cpu);
        var state = new CpuState();
        cpu.GetState(state);
        Check.Equal(0x1009ul, state.Rip, "RIP after the watched write");
        cpu.SetGuestDebug(false, true);
        Expect(VcpuExit.Debug, cpu);
        Check.Equal((3, 0x1009ul), (cpu.DebugEvent.Vector, cpu.DebugEvent.Address), "INT3");
        Guest.Change(cpu, s => s.Rip++);
        cpu.SetGuestDebug(false, false);
        Expect(VcpuExit.Halted, cpu);
    }

    // QEMU's TCG does not arm the debug registers of a nested guest; nor does a KVM that emulates its guests.
    private static bool ArmsDebugRegisters => !IsOnTcg() && KvmHost.Probe().IsHardware;

    private static bool IsOnTcg()
    {
        var (_, ebx, _, _) = System.Runtime.Intrinsics.X86.X86Base.CpuId(0x40000000, 0);
        return ebx == 0x54474354; // "TCGTCGTCGTCG"
    }

    private static void Smm()
    {
        var smmMap = new PhysicalMemoryMap();
        byte* smram = (byte*)NativeMemory.AlignedAlloc(0x20000, 0x1000);
        NativeMemory.Clear(smram, 0x20000);
        byte* code = smram + 0x8000; // SMBASE 0xA0000: mov al,53; out 82,al; rsm
        new byte[] { 0xB0, 0x53, 0xE6, 0x82, 0x0F, 0xAA }.CopyTo(new Span<byte>(code, 6));
        using var g = new Guest(map =>
        {
            smmMap.Replace([.. map.Regions.Select(r => r with { Length = 0xA0000 }), new MemoryRegion(0xA0000, 0x20000, (nint)smram, MemoryKind.Ram)]);
            return new KvmVm(map, new KvmOptions { InterruptControllers = InterruptControllers.Machine, SystemManagementMemory = smmMap });
        });
        if (!g.Engine.HasSystemManagementMode)
            throw new CheckFailed("this KVM has no SMM");
        var cpu = g.Real(a =>
        {
            a.mov(al, 1);
            a.@out(0x80, al);
            a.mov(al, 2);
            a.@out(0x80, al);
            a.hlt();
        });
        Guest.Change(cpu, s => s.Msrs[0x9E] = 0xA0000);
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
                cpu.RaiseSmi();
        };
        Expect(VcpuExit.Halted, cpu);
        Check.Sequence([1u, 0x53u, 2u], g.Bus.PortWrites.Select(w => w.Value), "SMM handler runs in between");
        NativeMemory.AlignedFree(smram);
    }

    private static void MachineCheck()
    {
        using var g = Make(InterruptControllers.Machine);
        g.Vector(18, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.mov(ecx, 0x17A); // MCG_STATUS
            a.rdmsr();
            a.@out(0x81, eax);
            a.hlt();
        });
        var cpu = (KvmVcpu)g.Real(a =>
        {
            a.mov(eax, cr4);
            a.or(al, 0x40);
            a.mov(cr4, eax);
            WriteMsr(a, 0x17B, uint.MaxValue, uint.MaxValue);
            WriteMsr(a, 0x404, uint.MaxValue, uint.MaxValue);
            a.mov(al, 1);
            a.hlt();
        });
        Expect(VcpuExit.Halted, cpu);
        const ulong Valid = 1ul << 63, Uncorrected = 1ul << 61, Enabled = 1ul << 60, AddressValid = 1ul << 58;
        cpu.InjectMachineCheck(1, Valid | Uncorrected | Enabled | AddressValid | 0x134, 5, 0x5000, 0);
        Guest.Change(cpu, s => s.Halted = false);
        Expect(VcpuExit.Halted, cpu);
        Check.Sequence([5u], g.Bus.Written(0x81), "#MC with MCG_STATUS");
    }

    private static void InternalError()
    {
        using var g = Make(InterruptControllers.Machine);
        var cpu = g.Long(a =>
        {
            a.mov(rax, 0xFEE00000);
            a.jmp(rax); // nothing to fetch there
        });
        Expect(VcpuExit.InternalError, cpu);
        Check.True(cpu.Failure.StartsWith("KVM: internal error 1 (an instruction could not be emulated)", StringComparison.Ordinal), cpu.Failure);
        var state = new CpuState();
        cpu.GetState(state);
        Check.Equal(0xFEE00000ul, state.Rip, "RIP");
    }

    private static void Clock()
    {
        using var g = Make(InterruptControllers.Kernel);
        var vm = (KvmVm)g.Engine;
        g.Real(a => a.hlt());
        ulong before = vm.GetClock();
        Thread.Sleep(20);
        Check.True(vm.GetClock() - before >= 15_000_000, "it goes");
        vm.OnStopped();
        ulong stopped = vm.GetClock();
        Thread.Sleep(300);
        vm.OnResumed();
        ulong after = vm.GetClock();
        Check.True(after - stopped < 250_000_000, $"it went on for {after - stopped} ns while stopped");
    }

    private static void NamedModel()
    {
        var model = new KvmCpuModel("qemu64,-sse3,-cx16,+svm,-svm,family=16,tsc-frequency=0", CpuTopology.Single);
        using var g = Make(InterruptControllers.Machine, new KvmOptions
        {
            InterruptControllers = InterruptControllers.Machine, SelectCpuid = model.Select, HasOwnTopology = model.HasOwnTopology,
        });
        Check.Equal(null, model.Check(((KvmVm)g.Engine).SupportedCpuid), "what is not offered");
        g.Long(a => a.hlt());
        Check.Equal("AuthcAMDenti", Name(GuestCpuid(g, 0, 0, 0)), "vendor, in the order EBX ECX EDX");
        uint[] leaf = GuestCpuid(g, 0, 1, 0);
        Check.Equal(0x00160FB1u & 0xFFF00000 | 0x60FB1u, leaf[0], "signature");
        if (KvmHost.Probe().IsHardware) // else the instruction may be the host's own
            Check.Equal(1u << 31, leaf[2] & (1u << 31 | 1u << 13 | 1u), "hypervisor, but neither SSE3 nor CX16");
        Check.Equal(0u, GuestCpuid(g, 0, 0x80000001, 0)[2] & 4, "SVM");
        Check.Equal("KVMKVMKVM", Name(GuestCpuid(g, 0, 0x40000000, 0)), "signature of the hypervisor");
        try
        {
            new KvmCpuModel("qemu64,+avx512-4vnniw", CpuTopology.Single).Check(((KvmVm)g.Engine).SupportedCpuid);
            throw new CheckFailed("a flag that no host here has was taken");
        }
        catch (CpuModelException e)
        {
            Check.Equal("-cpu qemu64: this host's KVM does not offer avx512-4vnniw", e.Message, "the error");
        }
    }

    private static void ClockPage()
    {
        using var g = Make(InterruptControllers.Kernel);
        var cpu = g.Real(a =>
        {
            WriteMsr(a, 0x4B564D01, 0x4000 | 1); // MSR_KVM_SYSTEM_TIME_NEW
            a.mov(al, 1);
            a.@out(0x80, al);
            End(a);
        });
        RunToEnd(g, cpu);
        // struct pvclock_vcpu_time_info: version, pad, tsc_timestamp, system_time, tsc_to_system_mul
        uint version = *(uint*)(g.Ram + 0x4000);
        Check.True(version != 0 && (version & 1) == 0, $"version {version}");
        Check.True(*(ulong*)(g.Ram + 0x4010) != 0, "system time");
        Check.True(*(uint*)(g.Ram + 0x4018) != 0, "scale");
    }

    private static void DebugRegisters()
    {
        using var g = Make(InterruptControllers.Machine);
        var cpu = g.Long(a =>
        {
            a.mov(rax, 0x123456789);
            a.mov(dr0, rax);
            a.mov(rax, 0x5000);
            a.mov(dr3, rax);
            a.@out(0x80, al); // out of the guest and in again
            a.mov(rbx, dr0);
            a.mov(__[0x4000], rbx);
            a.mov(rbx, dr3);
            a.mov(__[0x4008], rbx);
            a.hlt();
        });
        Expect(VcpuExit.Halted, cpu);
        Check.Sequence([0x123456789ul, 0x5000ul], [*(ulong*)(g.Ram + 0x4000), *(ulong*)(g.Ram + 0x4008)], "what the guest reads");
        var state = new CpuState();
        cpu.GetState(state);
        Check.Sequence([0x123456789ul, 0x5000ul], [state.Dr[0], state.Dr[3]], "what the state has");
        if (!ArmsDebugRegisters)
            return;
        g.Vector(1, 0x1800);
        Guest.Change(cpu, s =>
        {
            s.Dr[0] = 0x4000;
            s.Dr[7] = 0x402 | 1 << 16;
            s.Idtr = (0x6000, 0xFFF);
            s.Rip = Guest.CodeAddress + 0x200;
            s.Halted = false;
        });
        ((ulong*)(g.Ram + 0x6000))[2] = 0x8E00_0008_0000 | 0x1800 | 0x8E00ul << 32; // gate of vector 1: selector 8, offset 0x1800
        g.Load(64, 0x1800, a =>
        {
            a.mov(rax, dr6);
            a.mov(__[0x4010], rax);
            a.iretq();
        });
        g.Load(64, Guest.CodeAddress + 0x200, a =>
        {
            a.mov(__qword_ptr[0x4000], 7);
            a.hlt();
        });
        Expect(VcpuExit.Halted, cpu);
        Check.Equal(1ul, *(ulong*)(g.Ram + 0x4010) & 15, "DR6 in the guest's handler");
    }
}
