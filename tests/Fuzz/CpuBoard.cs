using System.Runtime.InteropServices;
using ImgKit.Cpu;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;

namespace ImgKit.Fuzz;

/// <summary>A software processor with a megabyte of memory, whose handlers of exceptions halt. Nothing about it is random.</summary>
internal sealed unsafe class CpuBoard : IVcpuBus, IDisposable
{
    public const int RamSize = 1 << 20;
    public const ulong Code = 0x10000, Data = 0x20000, Hole = 0x50000, ReadOnly = 0x51000;
    private const ulong Idt = 0x1000, Handlers = 0x800, Gdt = 0x2000, Tables = 0x3000;
    private readonly PhysicalMemoryMap _map = new();
    private readonly TranslatorEngine _engine;
    private const int MaxAccesses = 20000;
    private ulong _time;
    private int _accesses;

    public CpuBoard(CpuModel model)
    {
        Ram = (byte*)NativeMemory.AlignedAlloc(RamSize, 4096);
        _map.Replace([new MemoryRegion(0, RamSize, (nint)Ram, MemoryKind.Ram)]);
        _engine = new TranslatorEngine(_map, model);
        Cpu = (TranslatorVcpu)_engine.CreateVcpu(0, this);
    }

    public byte* Ram { get; }

    public TranslatorVcpu Cpu { get; }

    public Span<byte> Memory => new(Ram, RamSize);

    /// <summary>Sets memory and registers for a program.</summary>
    public void Start(int bits, byte[] program, ulong seed, CpuState s)
    {
        var random = new Random((int)seed);
        Memory.Clear();
        random.NextBytes(new Span<byte>(Ram + Data, 0x30000));
        program.CopyTo(new Span<byte>(Ram + Code, program.Length));
        MakeTables(bits);
        _map.NotifyDeviceWrite(0, RamSize);
        _time = 0;
        _accesses = 0;
        Cpu.Reset();
        Cpu.GetState(s);
        for (int i = 0; i < 16; i++)
            s.Gpr[i] = random.Next(3) == 0 ? (ulong)random.Next(0x100) : (ulong)random.NextInt64(long.MinValue, long.MaxValue);
        // Pointers in the middle of pages, near their ends, and now and then near memory that is not there.
        foreach (int pointer in (ReadOnlySpan<int>)[3, 4, 5, 6, 7, 12])
        {
            ulong at = 0x4000 + (ulong)random.Next(0x20) * 4096 + (random.Next(2) == 0 ? 0x800UL : 0xFC0);
            if (random.Next(8) == 0)
                at = 0x30000 - 64;
            s.Gpr[pointer] = (bits == 16 ? at & 0xFFC0 : at + Data) + (ulong)(random.Next(16) == 0 ? random.Next(64) : 0);
        }
        random.NextBytes(s.Xsave.AsSpan(160, 256));
        random.NextBytes(s.Xsave.AsSpan(576, 256));
        random.NextBytes(s.Xsave.AsSpan(32, 128));
        s.Xsave[4] = 0xFF;
        for (int i = 0; i < 8; i++)
        {
            // Numbers; some processors answer what is none by what is left in them.
            s.Xsave[32 + 16 * i + 7] |= 0x80;
            s.Xsave[32 + 16 * i + 9] &= 0xBF;
            s.Xsave.AsSpan(32 + 16 * i + 10, 6).Clear();
        }
        s.Rflags = 2 | (ulong)random.Next() & 0x8D5;
        s.Halted = false;
        SetMode(bits, s);
        Cpu.SetState(s);
    }

    private void MakeTables(int bits)
    {
        for (ulong v = 0; v < 32; v++)
        {
            Ram[Handlers + v * 8] = 0xF4;
            ulong at = Handlers + v * 8;
            if (bits == 16)
                *(uint*)(Ram + v * 4) = (uint)at;
            else if (bits == 32)
                *(ulong*)(Ram + Idt + v * 8) = at | 8 << 16 | 0x8E00UL << 32;
            else
                *(ulong*)(Ram + Idt + v * 16) = at | 8 << 16 | 0x8E00UL << 32;
        }
        ulong* gdt = (ulong*)(Ram + Gdt);
        gdt[1] = bits == 64 ? 0x00AF9B000000FFFFUL : 0x00CF9B000000FFFF;
        gdt[2] = 0x00CF93000000FFFF;
        if (bits != 64)
            return;
        ulong* tables = (ulong*)(Ram + Tables);
        tables[0] = Tables + 0x1003;
        tables[512] = Tables + 0x2003;
        tables[1024] = Tables + 0x3003;
        for (int i = 0; i < RamSize >> 12; i++)
            tables[1536 + i] = (ulong)i << 12 | 3;
        tables[1536 + (int)(Hole >> 12)] = 0;
        tables[1536 + (int)(ReadOnly >> 12)] &= ~2UL;
    }

    private static void SetMode(int bits, CpuState s)
    {
        var data = bits == 16 ? new SegmentRegister(0x2000, Data, 0xFFFF, 0x93) : new SegmentRegister(0x10, 0, uint.MaxValue, 0xC093);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = data;
        s.Segments[1] = bits switch
        {
            16 => new SegmentRegister(0x1000, Code, 0xFFFF, 0x9B),
            32 => new SegmentRegister(8, 0, uint.MaxValue, 0xC09B),
            _ => new SegmentRegister(8, 0, uint.MaxValue, 0xA09B),
        };
        s.Rip = bits == 16 ? 0 : Code;
        s.Gdtr = (Gdt, 0xFF);
        s.Idtr = bits == 16 ? (0, (ushort)0x3FF) : (Idt, (ushort)0xFFF);
        s.Cr0 = bits switch { 16 => 0x32u, 32 => 0x33u, _ => 0x80010033 };
        s.Cr4 = 0x40600 | (bits == 64 ? 0x20u : 0);
        s.Xcr0 = 7;
        s.Cr3 = Tables;
        if (bits == 64)
            s.Msrs[0xC0000080] = 0x500;
    }

    /// <summary>The vector of the fault that ended a program; -1: none did.</summary>
    public static int VectorOf(CpuState s) => s.Rip - 1 - Handlers is var at and < 32 * 8 && s.Segments[1].Base + s.Rip < 0x1000 ? (int)(at / 8) : -1;

    public uint PortRead(ushort port, int size) => port;

    public void PortWrite(ushort port, uint value, int size)
    {
    }

    public ulong MmioRead(ulong physicalAddress, int size)
    {
        CountAccess();
        return physicalAddress & 0xFF;
    }

    public void MmioWrite(ulong physicalAddress, ulong value, int size) => CountAccess();

    // A repeated instruction may go through all of the address space.
    private void CountAccess()
    {
        if (++_accesses >= MaxAccesses)
            Cpu.Kick();
    }

    public int AcknowledgeInterrupt(Vcpu cpu) => -1;

    public byte GetTaskPriority(Vcpu cpu) => 0;

    public void SetTaskPriority(Vcpu cpu, byte value)
    {
    }

    public bool ReadMsr(Vcpu cpu, uint index, out ulong value)
    {
        value = 0;
        return false;
    }

    public bool WriteMsr(Vcpu cpu, uint index, ulong value) => false;

    public ulong ReadTimeStampCounter(Vcpu cpu) => ++_time;

    public void Dispose()
    {
        Cpu.Dispose();
        _engine.Dispose();
        NativeMemory.AlignedFree(Ram);
    }
}
