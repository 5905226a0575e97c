using System.Runtime.InteropServices;
using Iced.Intel;
using ImgKit.Cpu;

namespace ImgKit.KvmSmoke;

/// <summary>A guest: RAM from 0, code at 0x1000, vCPUs on an engine.</summary>
internal sealed unsafe class Guest : IDisposable
{
    public const int CodeAddress = 0x1000;
    public const int RamSize = 4 << 20;

    private readonly List<Vcpu> _vcpus = [];
    private readonly List<Thread> _threads = [];
    private readonly List<Timer> _timers = [];

    public Guest(Func<PhysicalMemoryMap, CpuEngine> create, nint dirtyLog = 0)
    {
        Ram = (byte*)NativeMemory.AlignedAlloc(RamSize, 2 << 20);
        NativeMemory.Clear(Ram, RamSize);
        Map = new PhysicalMemoryMap();
        Map.Replace([new MemoryRegion(0, RamSize, (nint)Ram, MemoryKind.Ram, dirtyLog)]);
        Engine = create(Map);
    }

    public byte* Ram { get; }

    public PhysicalMemoryMap Map { get; }

    public CpuEngine Engine { get; }

    public TestBus Bus { get; } = new();

    public Vcpu this[int index] => _vcpus[index];

    /// <summary>Puts code at an address.</summary>
    public void Load(int bitness, ulong address, Action<Assembler> write)
    {
        var a = new Assembler(bitness);
        write(a);
        var bytes = new MemoryStream();
        a.Assemble(new StreamCodeWriter(bytes), address);
        bytes.ToArray().CopyTo(new Span<byte>(Ram + address, (int)bytes.Length));
    }

    /// <summary>Makes the next vCPU; processor 0 is set to run at <see cref="CodeAddress"/> in real mode with all segments 0, stack at 0x8000.</summary>
    public Vcpu AddCpu()
    {
        var cpu = Engine.CreateVcpu(_vcpus.Count, Bus);
        _vcpus.Add(cpu);
        if (cpu.Index == 0)
            Change(cpu, state =>
            {
                for (int i = 0; i < 6; i++)
                    state.Segments[i] = new SegmentRegister(0, 0, 0xFFFF, i == 1 ? 0x9Bu : 0x93u);
                state.Rip = CodeAddress;
                state.Gpr[4] = 0x8000;
                state.Rflags = 2;
            });
        return cpu;
    }

    /// <summary>Makes processor 0 with real-mode code.</summary>
    public Vcpu Real(Action<Assembler> write)
    {
        Load(16, CodeAddress, write);
        return AddCpu();
    }

    /// <summary>Processor 0 in 64-bit mode, the first 4 MiB and the 2 MiB at 0xFEE00000 mapped to themselves.</summary>
    public Vcpu Long(Action<Assembler> write)
    {
        Load(64, CodeAddress, write);
        ulong* Table(int at) => (ulong*)(Ram + at);
        Table(0x100000)[0] = 0x101000 | 7;
        Table(0x101000)[0] = 0x102000 | 7;
        Table(0x101000)[3] = 0x103000 | 7;
        Table(0x102000)[0] = 0x83 | 4;
        Table(0x102000)[1] = 0x200000 | 0x83 | 4;
        Table(0x103000)[0xFEE00000 >> 21 & 511] = 0xFEE00000 | 0x83;
        var cpu = AddCpu();
        Change(cpu, state =>
        {
            var data = new SegmentRegister(0x10, 0, 0xFFFFFFFF, 0xC093);
            for (int i = 0; i < 6; i++)
                state.Segments[i] = data;
            state.Segments[1] = new SegmentRegister(8, 0, 0xFFFFFFFF, 0xA09B);
            state.Cr0 = 0x80000033;
            state.Cr3 = 0x100000;
            state.Cr4 = 0x620;
            state.Msrs[0xC0000080] = 0x500;
            state.Gpr[4] = 0x80000;
            state.Gdtr = (0x2000, 0x17);
        });
        Table(0x2000)[1] = 0x00AF9B000000FFFF;
        Table(0x2000)[2] = 0x00CF93000000FFFF;
        return cpu;
    }

    /// <summary>Sets an entry of the real-mode interrupt table.</summary>
    public void Vector(int vector, int address) => ((uint*)Ram)[vector] = (uint)address;

    /// <summary>Does something in a while, on a thread of its own that the guest does not go without.</summary>
    public void After(int milliseconds, Action action)
    {
        var thread = new Thread(() =>
        {
            Thread.Sleep(milliseconds);
            action();
        });
        _threads.Add(thread);
        thread.Start();
    }

    /// <summary>Does something again and again, while the guest is there.</summary>
    public Timer Every(int first, int period, Action action)
    {
        var timer = new Timer(_ => action(), null, first, period);
        _timers.Add(timer);
        return timer;
    }

    public static void Change(Vcpu cpu, Action<CpuState> change)
    {
        var state = new CpuState();
        cpu.GetState(state);
        change(state);
        cpu.SetState(state);
    }

    public void Dispose()
    {
        foreach (var thread in _threads)
            thread.Join();
        foreach (var timer in _timers)
        {
            using var over = new ManualResetEvent(false);
            if (timer.Dispose(over))
                over.WaitOne();
        }
        foreach (var cpu in _vcpus)
            cpu.Dispose();
        Engine.Dispose();
        NativeMemory.AlignedFree(Ram);
    }
}
