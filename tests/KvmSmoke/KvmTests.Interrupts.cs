using System.Diagnostics;
using Iced.Intel;
using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.KvmSmoke;

internal sealed unsafe partial class KvmTests
{
    private static void KernelPic()
    {
        using var g = Make(InterruptControllers.Kernel);
        g.Vector(0x24, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.mov(__word_ptr[0x4000], 1);
            a.mov(al, 0x24);
            a.@out(0x81, al);
            a.mov(al, 0x20);
            a.@out(0x20, al);
            a.iret();
        });
        var cpu = g.Real(a =>
        {
            var wait = a.CreateLabel();
            ProgramPic(a, 0xEF);
            a.mov(al, 1);
            a.@out(0x80, al);
            a.sti();
            a.Label(ref wait);
            a.hlt();
            a.cmp(__word_ptr[0x4000], 1);
            a.jne(wait);
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
            {
                g.After(20, () =>
                {
                    g.Engine.SetInterruptLine(4, true);
                    g.Engine.SetInterruptLine(4, false);
                });
            }
        };
        RunToEndOrNudge(g, cpu);
        Check.Sequence([1u, 0x24u, 0xFFu], g.Bus.PortWrites.Where(w => w.Port >= 0x80).Select(w => w.Value), "order");
        Check.True(g.Bus.PortWrites.All(w => w.Port is 0x80 or 0x81), "the PIC's ports stay in the kernel");
    }

    // Vector 0x20 counts in the word at 0x4000.
    private static void CountTicks(Guest g)
    {
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
    }

    private static void KernelPit()
    {
        using var g = Make(InterruptControllers.Kernel);
        var cpu = TickEachMillisecond(g, (a, again) =>
        {
            a.cmp(__word_ptr[0x4000], 20);
            a.jb(again);
        });
        RunToEnd(g, cpu);
        Check.True(*(ushort*)(g.Ram + 0x4000) >= 20, "ticks");
    }

    // Counts a tick each millisecond, and after each asks `go` whether to wait again.
    private static Vcpu TickEachMillisecond(Guest g, Action<Assembler, Label> go)
    {
        CountTicks(g);
        return g.Real(a =>
        {
            var again = a.CreateLabel();
            ProgramPic(a, 0xFE);
            a.mov(al, 0x34);
            a.@out(0x43, al);
            a.mov(al, 0xA9);
            a.@out(0x40, al);
            a.mov(al, 0x04);
            a.@out(0x40, al); // 1193: 1 kHz
            a.sti();
            a.Label(ref again);
            a.hlt();
            go(a, again);
            End(a);
        });
    }

    // The guest tells each tick that it has seen at port 0x80, and ends when the word at 0x4004 says so.
    private static void ReplacedPit()
    {
        using var g = Make(InterruptControllers.Kernel);
        var cpu = TickEachMillisecond(g, (a, again) =>
        {
            a.mov(ax, __word_ptr[0x4000]);
            a.@out(0x80, ax);
            a.cmp(__word_ptr[0x4004], 0);
            a.je(again);
        });
        int phase = 0, taken = 0, stood = int.MaxValue;
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port != 0x80)
                return;
            if (phase == 0 && value >= 20)
            {
                phase = 1;
                g.Engine.SetTimerReplaced(true);
                taken = (int)value;
                g.After(100, () =>
                {
                    Volatile.Write(ref stood, *(ushort*)(g.Ram + 0x4000));
                    g.Engine.SetInterruptLine(0, true);
                    g.Engine.SetInterruptLine(0, false);
                });
            }
            else if (phase == 1 && value > Volatile.Read(ref stood))
            {
                phase = 2;
                g.Engine.SetTimerReplaced(false);
            }
            else if (phase == 2 && value > stood + 20)
            {
                *(ushort*)(g.Ram + 0x4004) = 1;
            }
        };
        RunToEnd(g, cpu);
        Check.True(stood <= taken + 1, $"{stood - taken} ticks while the line was the HPET's"); // one may have been on its way
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
        g.Every(300, 300, bsp.RaiseNmi);
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
            a.mov(__word_ptr[0x4000], 1);
            a.mov(al, 0x28);
            a.@out(0x81, al);
            a.iret();
        });
        var cpu = g.Real(a =>
        {
            var wait = a.CreateLabel();
            a.mov(al, 1);
            a.@out(0x80, al);
            a.sti();
            a.Label(ref wait);
            a.hlt();
            a.cmp(__word_ptr[0x4000], 1);
            a.jne(wait);
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
                g.After(20, () => g.Bus.Interrupt(cpu, 0x28));
        };
        RunToEndOrNudge(g, cpu);
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
        g.Every(300, 300, cpu.RaiseNmi);
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
        long exits = cpu.Exits.Sum(e => e.Count);
        Check.True(exits < 20, $"{exits} exits");
    }

    // A tick every 55 ms, as slow as the timer goes; nobody takes them for two seconds.
    private static void LostTicks(bool reinject)
    {
        using var g = Make(InterruptControllers.Kernel, new KvmOptions { ReinjectPitTicks = reinject });
        CountTicks(g);
        var cpu = g.Real(a =>
        {
            var loop = a.CreateLabel();
            a.cli();
            ProgramPic(a, 0xFE);
            a.mov(al, 0x34);
            a.@out(0x43, al);
            a.mov(al, 0);
            a.@out(0x40, al);
            a.@out(0x40, al); // 65536
            a.mov(al, 1);
            a.@out(0x80, al);
            a.sti();
            a.Label(ref loop);
            a.hlt();
            a.jmp(loop);
        });
        long start = 0;
        var kick = g.Every(Timeout.Infinite, Timeout.Infinite, cpu.Kick);
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port != 0x80)
                return;
            Thread.Sleep(2000);
            start = Stopwatch.GetTimestamp();
            kick.Change(500, 500);
        };
        double due;
        int ticks, slices = 0;
        do
        {
            Expect(VcpuExit.Kicked, cpu);
            due = Stopwatch.GetElapsedTime(start).TotalMilliseconds / 55;
            ticks = *(ushort*)(g.Ram + 0x4000);
        }
        while (reinject && ticks < due + 18 && ++slices < 20); // a slow host may need a while for them
        Check.True(reinject ? ticks >= due + 18 : ticks < due + 6, $"{ticks} ticks where {due:f0} came and about 36 had been lost");
    }

    private static void Resample()
    {
        using var g = Make(InterruptControllers.Kernel);
        g.Vector(0x25, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.mov(__word_ptr[0x4000], 1);
            a.mov(al, 0x25);
            a.@out(0x81, al);
            a.mov(al, 0x20);
            a.@out(0x20, al);
            a.iret();
        });
        int raise = TestFd.Create(), ended = TestFd.Create();
        Check.True(g.Engine.AttachInterruptEvent(raise, 5, ended), "irqfd with resampling");
        // the kernel hands it over when its worker comes to it
        var cpu = g.Real(a =>
        {
            var wait = a.CreateLabel();
            a.mov(dx, 0x4D0);
            a.mov(al, 0x20);
            a.@out(dx, al); // level-triggered
            ProgramPic(a, 0xDF);
            a.sti();
            a.mov(al, 1);
            a.@out(0x80, al);
            a.Label(ref wait);
            a.pause();
            a.cmp(__word_ptr[0x4000], 1);
            a.jne(wait);
            End(a);
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
                TestFd.Signal(raise);
        };
        RunToEndOrNudge(g, cpu);
        Check.Sequence([0x25u], g.Bus.Written(0x81), "handler");
        Check.Equal(1ul, TestFd.Take(ended), "ends of interrupt");
        g.Engine.DetachInterruptEvent(raise, 5);
        TestFd.Close(raise);
        TestFd.Close(ended);
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
}
