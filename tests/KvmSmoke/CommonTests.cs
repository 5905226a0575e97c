using System.Runtime.InteropServices;
using Iced.Intel;
using ImgKit.Cpu;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.KvmSmoke;

/// <summary>Guests that any engine must run alike; the machine holds the interrupt controllers.</summary>
/// <param name="create">makes the engine.</param>
/// <param name="createOther">makes the engine that a running guest is carried to; may be of the same kind.</param>
internal sealed unsafe partial class CommonTests(Func<PhysicalMemoryMap, CpuEngine> create, Func<PhysicalMemoryMap, CpuEngine> createOther)
{
    private Guest Make(nint dirtyLog = 0) => new(create, dirtyLog);

    private Guest MakeOther() => new(createOther);

    public IEnumerable<(string Name, Action Run)> All => Tests.Select(t => (t.Name, t.Run));

    /// <summary>Those that carry a guest from one engine to the other.</summary>
    public IEnumerable<(string Name, Action Run)> Carrying => Tests.Where(t => t.Run == Carry || t.Run == ToAndFro || t.Run == FpuState || t.Run == AvxState);

    private IEnumerable<(string Name, Action Run)> Tests =>
    [
        ("port I/O in real mode", PortIo),
        ("string port I/O", StringPortIo),
        ("memory-mapped I/O of all sizes", Mmio),
        ("ROM reads directly and reports writes", Rom),
        ("guest goes to protected and long mode by itself", Modes),
        ("interrupt wakes a halted CPU", InterruptWakes),
        ("interrupt waits for STI", InterruptWindow),
        ("interrupts one after another", ManyInterrupts),
        ("NMI", Nmi),
        ("INIT and start-up of a second CPU", StartUp),
        ("triple fault", TripleFault),
        ("kick from another thread and before run", Kick),
        ("dirty log", DirtyLog),
        ("state round trip", StateRoundTrip),
        ("state carries a running guest to another machine", Carry),
        ("memory map changes under a running guest", MapChanges),
        ("address translation", Translation),
        ("reset", Reset),
        ("a running guest goes to and fro between two machines", ToAndFro),
        ("SSE and x87 state", FpuState),
        .. HostHasAvx ? [("AVX state", AvxState)] : Array.Empty<(string, Action)>(),
    ];

    private static void RunToHalt(Vcpu cpu) => Expect(VcpuExit.Halted, cpu);

    private static void Expect(VcpuExit expected, Vcpu cpu)
    {
        var exit = cpu.Run();
        Check.True(exit == expected, $"expected {expected}, got {exit} {cpu.Failure}");
    }

    private void PortIo()
    {
        using var g = Make();
        g.Bus.OnPortRead = (port, size) => port switch { 0x60 => 0x1C, 0x62 => 0xBEEF, 0x64 => 0xCAFEBABE, _ => uint.MaxValue };
        var cpu = g.Real(a =>
        {
            a.@in(al, 0x60);
            a.add(al, 2);
            a.@out(0x80, al);
            a.@in(ax, 0x62);
            a.@out(0x82, ax);
            a.@in(eax, 0x64);
            a.mov(dx, 0x3F8);
            a.@out(dx, eax);
            a.@in(al, 0x70);
            a.@out(0x80, al);
            a.hlt();
        });
        RunToHalt(cpu);
        Check.Sequence([(0x80, 0x1Eu, 1), (0x82, 0xBEEFu, 2), (0x3F8, 0xCAFEBABE, 4), (0x80, 0xFFu, 1)],
            g.Bus.PortWrites.Select(w => ((int)w.Port, w.Value, w.Size)), "port writes");
        Check.True(cpu.IsHalted, "not halted");
    }

    private void StringPortIo()
    {
        using var g = Make();
        uint next = 0;
        g.Bus.OnPortRead = (_, _) => ++next;
        var cpu = g.Real(a =>
        {
            a.cld();
            a.mov(di, 0x3000);
            a.mov(cx, 5000);
            a.mov(dx, 0x1F0);
            a.rep.insw();
            a.mov(si, 0x3000);
            a.mov(cx, 3);
            a.mov(dx, 0x80);
            a.rep.outsw();
            a.hlt();
        });
        RunToHalt(cpu);
        for (int i = 0; i < 5000; i++)
            Check.Equal((ushort)(i + 1), ((ushort*)(g.Ram + 0x3000))[i], $"word {i}");
        Check.Sequence([1u, 2u, 3u], g.Bus.Written(0x80), "outs");
    }

    private void Mmio()
    {
        using var g = Make();
        g.Bus.OnMmioRead = (address, size) => 0x8877665544332211 >> (int)(address & 7) * 8 & ulong.MaxValue >> (64 - 8 * size);
        var cpu = g.Long(a =>
        {
            a.mov(rbx, 0xFEE00100);
            a.mov(rax, __[rbx]);
            a.mov(__[0x4000], rax);
            a.movzx(eax, __byte_ptr[rbx + 3]);
            a.mov(__[0x4008], rax);
            a.movsx(rax, __word_ptr[rbx + 6]);
            a.mov(__[0x4010], rax);
            a.mov(eax, __dword_ptr[rbx + 4]);
            a.mov(__[0x4018], rax);
            a.mov(__dword_ptr[rbx], 0x12345678);
            a.mov(__byte_ptr[rbx + 9], 0x55);
            a.mov(__word_ptr[rbx + 10], 0x6677);
            a.mov(rax, 0x1122334455667788);
            a.mov(__qword_ptr[rbx + 16], rax);
            a.or(__dword_ptr[rbx], 0xF);
            a.hlt();
        });
        RunToHalt(cpu);
        ulong* seen = (ulong*)(g.Ram + 0x4000);
        Check.Equal(0x8877665544332211ul, seen[0], "8 bytes");
        Check.Equal(0x44ul, seen[1], "1 byte");
        Check.Equal(0xFFFFFFFFFFFF8877ul, seen[2], "2 bytes, sign");
        Check.Equal(0x88776655ul, seen[3], "4 bytes");
        Check.Sequence(
            [(0xFEE00100ul, 0x12345678ul, 4), (0xFEE00109ul, 0x55ul, 1), (0xFEE0010Aul, 0x6677ul, 2), (0xFEE00110ul, 0x1122334455667788ul, 8), (0xFEE00100ul, 0x4433221Ful, 4)],
            g.Bus.MmioWrites, "writes");
    }

    private void Rom()
    {
        using var g = Make();
        byte* rom = (byte*)NativeMemory.AlignedAlloc(4096, 4096);
        new Span<byte>(rom, 4096).Fill(0x5A);
        g.Map.Replace([.. g.Map.Regions.Select(r => r with { Length = 0xC0000 }), new MemoryRegion(0xC0000, 4096, (nint)rom, MemoryKind.Rom),
            new MemoryRegion(0x100000, 0x300000, (nint)g.Ram + 0x100000, MemoryKind.Ram)]);
        var cpu = g.Real(a =>
        {
            a.mov(ax, 0xC000);
            a.mov(ds, ax);
            a.mov(al, __byte_ptr[0x10]);
            a.@out(0x80, al);
            a.mov(__byte_ptr[0x10], 0x77);
            a.mov(al, __byte_ptr[0x10]);
            a.@out(0x80, al);
            a.hlt();
        });
        RunToHalt(cpu);
        Check.Sequence([0x5Au, 0x5Au], g.Bus.Written(0x80), "reads");
        Check.Sequence([(0xC0010ul, 0x77ul, 1)], g.Bus.MmioWrites, "write");
        NativeMemory.AlignedFree(rom);
    }

    private void Modes()
    {
        using var g = Make();
        ulong* gdt = (ulong*)(g.Ram + 0x2000);
        gdt[1] = 0x00CF9B000000FFFF; // 32-bit code
        gdt[2] = 0x00CF93000000FFFF; // data
        gdt[3] = 0x00AF9B000000FFFF; // 64-bit code
        *(ushort*)(g.Ram + 0x2100) = 0x1F;
        *(uint*)(g.Ram + 0x2102) = 0x2000;
        ((ulong*)(g.Ram + 0x100000))[0] = 0x101003;
        ((ulong*)(g.Ram + 0x101000))[0] = 0x102003;
        ((ulong*)(g.Ram + 0x102000))[0] = 0x83;
        g.Load(32, 0x1200, a =>
        {
            a.mov(eax, 0x10);
            a.mov(ds, eax);
            a.mov(ss, eax);
            a.mov(esp, 0x80000);
            a.mov(eax, 0x32323232);
            a.@out(0x80, eax);
            a.mov(eax, cr4);
            a.or(eax, 0x20);
            a.mov(cr4, eax);
            a.mov(eax, 0x100000);
            a.mov(cr3, eax);
            a.mov(ecx, 0xC0000080);
            a.rdmsr();
            a.or(eax, 0x100);
            a.wrmsr();
            a.mov(eax, cr0);
            a.or(eax, unchecked((int)0x80000000));
            a.mov(cr0, eax);
            a.db(0xEA, 0x00, 0x14, 0x00, 0x00, 0x18, 0x00); // jmp 18:1400
        });
        g.Load(64, 0x1400, a =>
        {
            a.mov(r9, 0x6464646464646464);
            a.mov(rax, r9);
            a.shr(rax, 16);
            a.@out(0x80, eax);
            a.push(r9);
            a.pop(rbx);
            a.mov(__[0x4000], rbx);
            a.hlt();
        });
        var cpu = g.Real(a =>
        {
            a.cli();
            a.db(0x0F, 0x01, 0x16, 0x00, 0x21); // lgdt [0x2100]
            a.mov(eax, cr0);
            a.or(al, 1);
            a.mov(cr0, eax);
            a.db(0x66, 0xEA, 0x00, 0x12, 0x00, 0x00, 0x08, 0x00); // jmp dword 8:1200
        });
        RunToHalt(cpu);
        Check.Sequence([0x32323232u, 0x64646464u], g.Bus.Written(0x80), "both modes");
        Check.Equal(0x6464646464646464ul, *(ulong*)(g.Ram + 0x4000), "64-bit store");
        var state = new CpuState();
        cpu.GetState(state);
        Check.Equal(0x500ul, state.Msrs[0xC0000080] & 0x500, "EFER.LMA LME");
        Check.Equal(0x2000u, state.Segments[1].Attributes & 0x2000, "CS.L");
    }

    private static void InterruptHandler(Assembler a, byte tag)
    {
        a.push(ax);
        a.mov(al, tag);
        a.@out(0x81, al);
        a.pop(ax);
        a.iret();
    }

    private void InterruptWakes()
    {
        using var g = Make();
        g.Vector(0x20, 0x1800);
        g.Load(16, 0x1800, a => InterruptHandler(a, 0x20));
        var cpu = g.Real(a =>
        {
            a.sti();
            a.hlt();
            a.mov(al, 1);
            a.@out(0x80, al);
            a.cli();
            a.hlt();
        });
        RunToHalt(cpu);
        Check.True(cpu.IsHalted, "halted");
        RunToHalt(cpu);
        g.Bus.Interrupt(cpu, 0x20);
        Check.True(!cpu.IsHalted, "an interrupt is deliverable");
        RunToHalt(cpu);
        Check.Sequence([(0x81, 0x20u), (0x80, 1u)], g.Bus.PortWrites.Select(w => ((int)w.Port, w.Value)), "handler, then go on");
        g.Bus.Interrupt(cpu, 0x20);
        Check.True(cpu.IsHalted, "CLI HLT stays halted");
        RunToHalt(cpu);
        Check.Equal(2, g.Bus.PortWrites.Count, "no delivery with IF clear");
    }

    private void InterruptWindow()
    {
        using var g = Make();
        g.Vector(0x21, 0x1800);
        g.Load(16, 0x1800, a => InterruptHandler(a, 0x21));
        var cpu = g.Real(a =>
        {
            a.cli();
            a.mov(al, 1);
            a.@out(0x80, al);
            a.mov(al, 2);
            a.@out(0x80, al);
            a.sti();
            a.nop();
            a.nop();
            a.mov(al, 3);
            a.@out(0x80, al);
            a.hlt();
        });
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port == 0x80 && value == 1)
                g.Bus.Interrupt(cpu, 0x21);
        };
        RunToHalt(cpu);
        Check.Sequence([1u, 2u, 0x21u, 3u], g.Bus.PortWrites.Select(w => w.Value), "order");
    }

    private void ManyInterrupts()
    {
        using var g = Make();
        g.Vector(0x30, 0x1800);
        g.Load(16, 0x1800, a =>
        {
            a.inc(__word_ptr[0x4000]);
            a.iret();
        });
        var cpu = g.Real(a =>
        {
            var loop = a.CreateLabel();
            a.sti();
            a.Label(ref loop);
            a.hlt();
            a.cmp(__word_ptr[0x4000], 200);
            a.jb(loop);
            a.cli();
            a.hlt();
        });
        using var stop = new CancellationTokenSource();
        var source = new Thread(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                if (g.Bus.Vectors.Count < 2)
                    g.Bus.Interrupt(cpu, 0x30);
                Thread.Sleep(1);
            }
        });
        source.Start();
        var limit = System.Diagnostics.Stopwatch.StartNew();
        while (*(ushort*)(g.Ram + 0x4000) < 200 && limit.Elapsed.TotalSeconds < 60)
        {
            RunToHalt(cpu);
            Thread.Sleep(0);
        }
        stop.Cancel();
        source.Join();
        Check.True(*(ushort*)(g.Ram + 0x4000) is >= 200 and <= 202, $"{*(ushort*)(g.Ram + 0x4000)} interrupts taken"); // two may come before the CLI
    }

    private void Nmi()
    {
        using var g = Make();
        g.Vector(2, 0x1800);
        g.Load(16, 0x1800, a => InterruptHandler(a, 2));
        var cpu = g.Real(a =>
        {
            a.cli();
            a.hlt();
            a.mov(al, 9);
            a.@out(0x80, al);
            a.hlt();
        });
        RunToHalt(cpu);
        cpu.RaiseNmi();
        RunToHalt(cpu);
        Check.Sequence([2u, 9u], g.Bus.PortWrites.Select(w => w.Value), "NMI handler, then go on");
    }

    private void StartUp()
    {
        using var g = Make();
        g.Load(16, 0x5000, a =>
        {
            a.mov(ax, cs);
            a.mov(dx, 0x90);
            a.@out(dx, ax);
            a.xor(ax, ax);
            a.mov(ds, ax);
            a.@lock.inc(__word_ptr[0x4000]);
            a.cli();
            a.hlt();
        });
        var bsp = g.Real(a =>
        {
            var wait = a.CreateLabel();
            a.sti(); // see Kick
            a.mov(al, 1);
            a.@out(0x80, al);
            a.Label(ref wait);
            a.pause();
            a.cmp(__word_ptr[0x4000], 1);
            a.jne(wait);
            a.mov(al, 2);
            a.@out(0x80, al);
            a.hlt();
        });
        var ap = g.AddCpu();
        Check.True(ap.IsWaitingForStartup, "a second CPU waits");
        Check.True(ap.Run() == VcpuExit.Halted, "waiting shows as halted");
        using var wake = new SemaphoreSlim(0);
        g.Bus.OnPortWrite = (port, value, _) =>
        {
            if (port != 0x80 || value != 1)
                return;
            ap.RaiseInit();
            ap.RaiseStartup(5);
            wake.Release();
        };
        var thread = new Thread(() =>
        {
            wake.Wait(20000);
            ap.Run();
        });
        thread.Start();
        RunToHalt(bsp);
        thread.Join();
        Check.Sequence([(0x80, 1u), (0x90, 0x500u), (0x80, 2u)], g.Bus.PortWrites.Select(w => ((int)w.Port, w.Value)), "order");
        Check.True(!ap.IsWaitingForStartup, "it runs");
        ap.RaiseInit();
        Check.True(ap.Run() == VcpuExit.Halted && ap.IsWaitingForStartup, "INIT makes it wait again");
    }

    private void TripleFault()
    {
        using var g = Make();
        var cpu = g.Long(a =>
        {
            a.lidt(__[0x4000]); // limit 0
            a.ud2();
        });
        Expect(VcpuExit.Shutdown, cpu);
    }

    private void Kick()
    {
        using var g = Make();
        var cpu = g.Real(a =>
        {
            var loop = a.CreateLabel();
            // Bochs 2.7's VT-x leaves no guest for the host's interrupts while the guest, as the host that entered it, has them off.
            a.sti();
            a.Label(ref loop);
            a.inc(ebx);
            a.jmp(loop);
        });
        cpu.Kick();
        Expect(VcpuExit.Kicked, cpu);
        for (int i = 0; i < 20; i++)
        {
            var thread = new Thread(() =>
            {
                Thread.Sleep(5);
                cpu.Kick();
            });
            thread.Start();
            Expect(VcpuExit.Kicked, cpu);
            thread.Join();
        }
        var state = new CpuState();
        cpu.GetState(state);
        Check.True(state.Gpr[3] > 1000, "it ran meanwhile");
    }
}
