using System.Diagnostics;
using System.Runtime.InteropServices;
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
        ("kernel local APIC: SMP start-up and IPI", () => ApicStartUp(InterruptControllers.Kernel)),
        ("split: SMP start-up and IPI", () => ApicStartUp(InterruptControllers.Split)),
        ("split: the machine's PIC interrupts", SplitPic),
        ("split: level interrupt tells its end", SplitEndOfInterrupt),
        ("message and irqfd", Messages),
        ("ioeventfd", IoEvents),
        ("coalesced ports and memory", Coalesced),
        ("CPUID: hypervisor leaves, APIC id, topology", Cpuid),
        ("Hyper-V leaves", HyperV),
        ("unknown MSR goes to the machine", UnknownMsr),
        ("single step", GuestDebug),
        .. IsOnTcg() ? Array.Empty<(string, Action)>() : [("hardware breakpoint and INT3", Breakpoints)],
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
        string registers = exit == VcpuExit.InternalError ? "" : ((KvmVcpu)cpu).DescribeRegisters();
        throw new CheckFailed($"expected {expected}, got {exit} {cpu.Failure}{registers}");
    }

    /// <summary>Runs until the guest writes 0xFF to port 0x80 (kernel controllers: HLT never shows).</summary>
    private static void RunToEnd(Guest g, Vcpu cpu, double seconds = 60)
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
        using var watchdog = new Timer(_ => cpu.Kick(), null, TimeSpan.FromSeconds(seconds), Timeout.InfiniteTimeSpan);
        Expect(VcpuExit.Kicked, cpu);
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

    private static void KernelPic()
    {
        using var g = Make(InterruptControllers.Kernel);
        g.Vector(0x24, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.mov(al, 0x24);
            a.@out(0x81, al);
            a.mov(al, 0x20);
            a.@out(0x20, al);
            a.iret();
        });
        var cpu = g.Real(a =>
        {
            ProgramPic(a, 0xEF);
            a.mov(al, 1);
            a.@out(0x80, al);
            a.sti();
            a.hlt();
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
            {
                new Thread(() =>
                {
                    Thread.Sleep(20);
                    g.Engine.SetInterruptLine(4, true);
                    g.Engine.SetInterruptLine(4, false);
                }).Start();
            }
        };
        RunToEnd(g, cpu);
        Check.Sequence([1u, 0x24u, 0xFFu], g.Bus.PortWrites.Where(w => w.Port >= 0x80).Select(w => w.Value), "order");
        Check.True(g.Bus.PortWrites.All(w => w.Port is 0x80 or 0x81), "the PIC's ports stay in the kernel");
    }

    private static void KernelPit()
    {
        using var g = Make(InterruptControllers.Kernel);
        g.Vector(0x20, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.inc(__word_ptr[0x4000]);
            a.push(ax);
            a.mov(al, 0x20);
            a.@out(0x20, al);
            a.pop(ax);
            a.iret();
        });
        var cpu = g.Real(a =>
        {
            var loop = a.CreateLabel();
            ProgramPic(a, 0xFE);
            a.mov(al, 0x34);
            a.@out(0x43, al);
            a.mov(al, 0xA9);
            a.@out(0x40, al);
            a.mov(al, 0x04);
            a.@out(0x40, al); // 1193: 1 kHz
            a.sti();
            a.Label(ref loop);
            a.hlt();
            a.cmp(__word_ptr[0x4000], 20);
            a.jb(loop);
            End(a);
        });
        RunToEnd(g, cpu);
        Check.True(*(ushort*)(g.Ram + 0x4000) >= 20, "ticks");
    }

    private static void ApicStartUp(InterruptControllers controllers)
    {
        using var g = Make(controllers);
        g.Vector(0x40, 0x1900);
        g.Load(16, 0x1900, a => ApicHandler(a, 0x40));
        g.Load(16, 0x5000, a =>
        {
            var loop = a.CreateLabel();
            a.xor(ax, ax);
            a.mov(ds, ax);
            a.mov(ss, ax);
            a.mov(sp, 0x7000);
            EnableX2Apic(a, false);
            a.mov(ecx, 0x802);
            a.rdmsr();
            a.mov(__[0x4004], eax);
            a.mov(__word_ptr[0x4000], 1);
            WriteMsr(a, 0x830, 0x4040, 0); // fixed, vector 0x40, to processor 0
            a.Label(ref loop);
            a.hlt();
            a.jmp(loop);
        });
        var bsp = g.Real(a =>
        {
            var wait = a.CreateLabel();
            EnableX2Apic(a, true);
            WriteMsr(a, 0x830, 0xC4500); // INIT, all but self
            WriteMsr(a, 0x830, 0xC4605); // SIPI 5
            a.sti();
            a.Label(ref wait);
            a.pause();
            a.cmp(__word_ptr[0x4000], 1);
            a.jne(wait);
            a.hlt();
            End(a);
        });
        // the IPI may come before the HLT: an NMI now and then gets it out
        var ap = g.AddCpu();
        bool stop = false;
        var thread = new Thread(() =>
        {
            while (!Volatile.Read(ref stop))
                ap.Run();
        });
        thread.Start();
        using var nudge = new Timer(_ => bsp.RaiseNmi(), null, 300, 300);
        g.Vector(2, 0x1A00);
        g.Load(16, 0x1A00, a => a.iret());
        RunToEnd(g, bsp);
        Volatile.Write(ref stop, true);
        ap.Kick();
        thread.Join();
        Check.Equal(1u, *(uint*)(g.Ram + 0x4004), "x2APIC id of the second CPU");
        Check.Sequence([0x40u], g.Bus.Written(0x81), "IPI taken");
    }

    private static void SplitPic()
    {
        using var g = Make(InterruptControllers.Split);
        g.Vector(0x28, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.mov(al, 0x28);
            a.@out(0x81, al);
            a.iret();
        });
        var cpu = g.Real(a =>
        {
            a.mov(al, 1);
            a.@out(0x80, al);
            a.sti();
            a.hlt();
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
            {
                new Thread(() =>
                {
                    Thread.Sleep(20);
                    g.Bus.Interrupt(cpu, 0x28);
                }).Start();
            }
        };
        RunToEnd(g, cpu);
        Check.Sequence([1u, 0x28u, 0xFFu], g.Bus.PortWrites.Select(w => w.Value), "order");
    }

    private static void SplitEndOfInterrupt()
    {
        using var g = Make(InterruptControllers.Split);
        g.Vector(0x50, 0x1800);
        g.Load(16, 0x1800, a => ApicHandler(a, 0x50));
        const uint Level = 0x8000 | 0x4000 | 0x50;
        g.Engine.SetIoApicRoute(5, 0xFEE00000, Level, false);
        var cpu = g.Real(a =>
        {
            EnableX2Apic(a, true);
            a.mov(al, 1);
            a.@out(0x80, al);
            a.sti();
            a.hlt();
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
                g.Engine.SignalMessage(0xFEE00000, Level);
        };
        RunToEndOrNudge(g, cpu);
        Check.Sequence([0x50u], g.Bus.Written(0x81), "handler");
        Check.Sequence([(byte)0x50], g.Bus.EndedVectors, "end of interrupt");
    }

    /// <summary>As RunToEnd where an interrupt may come before the guest's HLT: an NMI now and then gets it out.</summary>
    private static void RunToEndOrNudge(Guest g, Vcpu cpu)
    {
        g.Vector(2, 0x1A00);
        g.Load(16, 0x1A00, a => a.iret());
        using var nudge = new Timer(_ => cpu.RaiseNmi(), null, 300, 300);
        RunToEnd(g, cpu);
    }

    private static void Messages()
    {
        using var g = Make(InterruptControllers.Kernel);
        g.Vector(0x51, 0x1800);
        g.Load(16, 0x1800, a => ApicHandler(a, 0x51));
        g.Vector(0x52, 0x1840);
        g.Load(16, 0x1840, a => ApicHandler(a, 0x52));
        g.Vector(0x53, 0x1880);
        g.Load(16, 0x1880, a => ApicHandler(a, 0x53));
        var cpu = g.Real(a =>
        {
            EnableX2Apic(a, true);
            a.sti();
            for (int i = 1; i <= 3; i++)
            {
                a.mov(al, (sbyte)i);
                a.@out(0x80, al);
                a.nop();
                a.nop();
            }
            End(a);
        });
        int fd = TestFd.Create();
        int gsi = g.Engine.AddMessageRoute(0xFEE00000, 0x52);
        Check.True(gsi >= 24, "a GSI for a message");
        Check.True(g.Engine.AttachInterruptEvent(fd, gsi), "irqfd");
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port != 0x80)
                return;
            if (value == 1)
                g.Engine.SignalMessage(0xFEE00000, 0x51);
            else if (value <= 3)
                TestFd.Signal(fd);
            if (value == 2)
            {
                Thread.Sleep(50);
                g.Engine.UpdateMessageRoute(gsi, 0xFEE00000, 0x53);
            }
            else if (value == 3)
            {
                Thread.Sleep(50);
            }
        };
        RunToEnd(g, cpu);
        Check.Sequence([0x51u, 0x52u, 0x53u], g.Bus.Written(0x81), "MSI, irqfd, irqfd with a new message");
        g.Engine.DetachInterruptEvent(fd, gsi);
        g.Engine.RemoveMessageRoute(gsi);
        TestFd.Close(fd);
    }

    private static void IoEvents()
    {
        using var g = Make(InterruptControllers.Machine);
        int port = TestFd.Create(), match = TestFd.Create(), memory = TestFd.Create();
        var events = new[] { new IoEvent(0x500, 2, true, null, port), new IoEvent(0x504, 2, true, 7, match), new IoEvent(0xFEE00500, 0, false, null, memory) };
        foreach (var e in events)
            Check.True(g.Engine.AttachIoEvent(e), $"{e}");
        var cpu = g.Long(a =>
        {
            a.mov(edx, 0x500);
            a.mov(eax, 3);
            a.@out(dx, ax);
            a.@out(dx, ax);
            a.mov(edx, 0x504);
            a.@out(dx, ax);
            a.mov(eax, 7);
            a.@out(dx, ax);
            a.mov(rbx, 0xFEE00500);
            a.mov(__word_ptr[rbx], ax);
            a.mov(__dword_ptr[rbx], eax);
            a.hlt();
        });
        Expect(VcpuExit.Halted, cpu);
        Check.Sequence([(0x504, 3u)], g.Bus.PortWrites.Select(w => ((int)w.Port, w.Value)), "only what matches nothing comes through");
        Check.Equal(0, g.Bus.MmioWrites.Count, "memory writes that come through");
        Check.Sequence([2ul, 1ul, 2ul], [TestFd.Take(port), TestFd.Take(match), TestFd.Take(memory)], "event counts");
        foreach (var e in events)
            g.Engine.DetachIoEvent(e);
        Guest.Change(cpu, s =>
        {
            s.Rip = Guest.CodeAddress;
            s.Halted = false;
        });
        Expect(VcpuExit.Halted, cpu);
        Check.Equal(5, g.Bus.PortWrites.Count, "all writes come through afterwards");
        Check.Equal(2, g.Bus.MmioWrites.Count, "memory writes, too");
    }

    private static void Coalesced()
    {
        using var g = Make(InterruptControllers.Machine);
        Check.True(g.Engine.AddCoalescedRange(0xFEE00000, 0x1000, false), "memory");
        Check.True(g.Engine.AddCoalescedRange(0x300, 4, true), "ports");
        var cpu = (KvmVcpu)g.Long(a =>
        {
            var loop = a.CreateLabel();
            a.mov(rbx, 0xFEE00000);
            a.xor(ecx, ecx);
            a.Label(ref loop);
            a.mov(__dword_ptr[rbx + rcx * 4], ecx);
            a.inc(ecx);
            a.cmp(ecx, 100);
            a.jb(loop);
            a.mov(edx, 0x300);
            a.mov(al, 0x77);
            a.@out(dx, al);
            a.mov(al, 1);
            a.@out(0x80, al);
            a.hlt();
        });
        int seen = -1;
        g.Bus.OnPortWrite = (port, _, _) =>
        {
            if (port == 0x80)
                seen = g.Bus.MmioWrites.Count;
        };
        Expect(VcpuExit.Halted, cpu);
        Check.Equal(100, seen, "writes handed over before the next exit's own");
        Check.Sequence(Enumerable.Range(0, 100).Select(i => (0xFEE00000ul + (ulong)i * 4, (ulong)i, 4)), g.Bus.MmioWrites, "writes in order");
        Check.Sequence([(0x300, 0x77u), (0x80, 1u)], g.Bus.PortWrites.Select(w => ((int)w.Port, w.Value)), "ports in order");
        Check.True(cpu.ExitCount < 20, $"{cpu.ExitCount} exits");
    }

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

    private static void HyperV()
    {
        using var g = Make(InterruptControllers.Machine, new KvmOptions
        {
            InterruptControllers = InterruptControllers.Machine,
            HyperV = HyperVFeatures.Relaxed | HyperVFeatures.Time | HyperVFeatures.ProcessorIndex,
        });
        g.Long(a => a.hlt());
        Check.Equal("Microsoft Hv", Name(GuestCpuid(g, 0, 0x40000000, 0)), "signature");
        Check.Equal(0x31237648u, GuestCpuid(g, 0, 0x40000001, 0)[0], "interface");
        Check.Equal("KVMKVMKVM", Name(GuestCpuid(g, 0, 0x40000100, 0)), "KVM's leaves move up");
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
            a.nop(); // 1000
            a.nop();
            a.nop();
            a.hlt();
        });
        var state = new CpuState();
        cpu.SetGuestDebug(true, false);
        for (uint i = 1; i <= 2; i++)
        {
            Expect(VcpuExit.Debug, cpu);
            cpu.GetState(state);
            Check.Equal(0x1000ul + i, state.Rip, "RIP after a step");
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
        Check.True(cpu.Failure.Contains("RIP=00000000fee00000", StringComparison.Ordinal), cpu.Failure);
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

    private static void KernelReset()
    {
        using var g = Make(InterruptControllers.Kernel);
        var cpu = g.Real(a =>
        {
            ProgramPic(a, 0x5A);
            EnableX2Apic(a, true);
            a.@in(al, 0x21);
            a.@out(0x81, al);
            End(a);
        });
        RunToEnd(g, cpu);
        g.Engine.ResetInterruptControllers();
        cpu.Reset();
        Guest.Change(cpu, s =>
        {
            s.Segments[1] = new SegmentRegister(0, 0, 0xFFFF, 0x9B);
            s.Rip = 0x1600;
        });
        g.Load(16, 0x1600, a =>
        {
            a.@in(al, 0x21);
            a.@out(0x81, al);
            a.mov(ecx, 0x1B);
            a.rdmsr();
            a.@out(0x82, eax);
            End(a);
        });
        RunToEnd(g, cpu);
        Check.Sequence([0x5Au, 0u], g.Bus.Written(0x81), "mask before and after");
        Check.Sequence([0xFEE00900u], g.Bus.Written(0x82), "APIC base");
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
