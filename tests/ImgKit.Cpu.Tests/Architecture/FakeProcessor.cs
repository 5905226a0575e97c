using System.Runtime.InteropServices;
using ImgKit.Cpu.Architecture;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Tests.Architecture;

/// <summary>A processor that executes nothing: 4 MiB of memory, translated by the walker under test, and no TLB.</summary>
internal sealed unsafe class FakeProcessor : CpuServices, IDisposable
{
    public const int MemorySize = 4 << 20;

    private readonly CpuContext* _context;

    public FakeProcessor(string model = "qemu64")
    {
        Model = CpuModel.Parse(model);
        _context = (CpuContext*)NativeMemory.AlignedAlloc((nuint)sizeof(CpuContext), 64);
        *_context = default;
        _context->XsaveArea = (byte*)NativeMemory.AlignedAlloc(4096, 64);
        _context->A20Mask = ulong.MaxValue;
        FakeBus = new FakeBus();
        Vcpu = new FakeVcpu();
        ResetState.PowerOn(_context, this, true);
    }

    public byte[] Memory { get; } = new byte[MemorySize];

    public FakeBus FakeBus { get; }

    public List<string> Notices { get; } = [];

    public override CpuContext* Context => _context;

    public override CpuModel Model { get; }

    public override IVcpuBus Bus => FakeBus;

    public override Vcpu Vcpu { get; }

    /// <summary>When set, called before each compare-exchange (another processor interferes).</summary>
    public Action? BeforeExchange { get; set; }

    public override ulong ReadLinear(ulong linear, int size, LinearAccess access = LinearAccess.Program)
    {
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= (ulong)Memory[Locate(linear + (uint)i, access, PageAccess.Read)] << (i * 8);
        return value;
    }

    public override void WriteLinear(ulong linear, ulong value, int size, LinearAccess access = LinearAccess.Program)
    {
        ProbeLinear(linear, size, true, access);
        for (int i = 0; i < size; i++)
            Memory[Locate(linear + (uint)i, access, PageAccess.Write)] = (byte)(value >> (i * 8));
    }

    public override void ProbeLinear(ulong linear, int size, bool write, LinearAccess access = LinearAccess.Program)
    {
        Locate(linear, access, write ? PageAccess.Write : PageAccess.Read);
        Locate(linear + (uint)size - 1, access, write ? PageAccess.Write : PageAccess.Read);
    }

    private int Locate(ulong linear, LinearAccess access, PageAccess kind)
    {
        if (!Mode.IsLong(_context))
            linear = (uint)linear;
        else if (!PageWalker.IsCanonical(_context, linear))
            throw new GuestFault(13, 0);
        if (access == LinearAccess.System)
            kind |= PageAccess.Implicit;
        else if (_context->Cpl == 3)
            kind |= PageAccess.User;
        if (PageWalker.Translate(_context, this, linear, kind, out var t))
            return (int)(t.Physical % MemorySize);
        _context->Cr2 = linear;
        throw new GuestFault(14, t.ErrorCode);
    }

    public override ulong ReadPhysical(ulong physicalAddress, int size)
    {
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= (ulong)Memory[(physicalAddress + (uint)i) % MemorySize] << (i * 8);
        return value;
    }

    public override void WritePhysical(ulong physicalAddress, ulong value, int size)
    {
        for (int i = 0; i < size; i++)
            Memory[(physicalAddress + (uint)i) % MemorySize] = (byte)(value >> (i * 8));
    }

    public override bool CompareExchangePhysical(ulong physicalAddress, ulong expected, ulong value, int size)
    {
        BeforeExchange?.Invoke();
        if (ReadPhysical(physicalAddress, size) != expected)
            return false;
        WritePhysical(physicalAddress, value, size);
        return true;
    }

    public override void FlushTlb(bool includeGlobal) => Notices.Add(includeGlobal ? "flush all" : "flush");

    public override void InvalidatePage(ulong linear) => Notices.Add($"invalidate {linear:x}");

    public override void ModeChanged() => Notices.Add("mode");

    public void Dispose()
    {
        NativeMemory.AlignedFree(_context->XsaveArea);
        NativeMemory.AlignedFree(_context);
    }
}

/// <summary>A machine with an APIC base register, and counters of what happened.</summary>
internal sealed class FakeBus : IVcpuBus
{
    public ulong TimeStamp { get; set; } = 1000;

    public byte TaskPriority { get; set; }

    public ulong ApicBase { get; set; } = 0xFEE00900;

    public uint PortRead(ushort port, int size) => uint.MaxValue;

    public void PortWrite(ushort port, uint value, int size)
    {
    }

    public ulong MmioRead(ulong physicalAddress, int size) => ulong.MaxValue;

    public void MmioWrite(ulong physicalAddress, ulong value, int size)
    {
    }

    public int AcknowledgeInterrupt(Vcpu cpu) => -1;

    public byte GetTaskPriority(Vcpu cpu) => TaskPriority;

    public void SetTaskPriority(Vcpu cpu, byte value) => TaskPriority = value;

    public bool ReadMsr(Vcpu cpu, uint index, out ulong value)
    {
        value = ApicBase;
        return index == 0x1B;
    }

    public bool WriteMsr(Vcpu cpu, uint index, ulong value)
    {
        ApicBase = value;
        return index == 0x1B;
    }

    public ulong ReadTimeStampCounter(Vcpu cpu) => TimeStamp;
}

internal sealed class FakeVcpu : Vcpu
{
    public override int Index => 0;

    public override bool IsWaitingForStartup => false;

    public override bool IsHalted => false;

    public override VcpuExit Run() => VcpuExit.Kicked;

    public override void Kick()
    {
    }

    public override void SetInterruptLine(bool asserted)
    {
    }

    public override void RaiseNmi()
    {
    }

    public override void RaiseSmi()
    {
    }

    public override void RaiseInit()
    {
    }

    public override void RaiseStartup(byte vector)
    {
    }

    public override void Reset()
    {
    }

    public override void GetState(CpuState state)
    {
    }

    public override void SetState(CpuState state)
    {
    }

    public override long TranslateAddress(ulong linear) => (long)linear;

    public override void Dispose()
    {
    }
}
