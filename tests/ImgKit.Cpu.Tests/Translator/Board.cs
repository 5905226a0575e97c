using System.Runtime.InteropServices;
using System.Text;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>The least machine: RAM, a port that prints, a port that ends.</summary>
internal sealed unsafe class Board : IVcpuBus, IDisposable
{
    public const ushort ExitPort = 0xF4;
    private readonly StringBuilder _output = new();

    public Board(long ramSize, string model = "max", params MemoryRegion[] more)
    {
        Ram = (byte*)NativeMemory.AlignedAlloc((nuint)ramSize, 4096);
        NativeMemory.Clear(Ram, (nuint)ramSize);
        Map = new PhysicalMemoryMap();
        Map.Replace([new MemoryRegion(0, (ulong)ramSize, (nint)Ram, MemoryKind.Ram), .. more]);
        MapInSmm = new PhysicalMemoryMap();
        MapInSmm.Replace(Map.Regions);
        Engine = new TranslatorEngine(Map, CpuModel.Parse(model), MapInSmm);
        Cpu = (TranslatorVcpu)Engine.CreateVcpu(0, this);
    }

    public byte* Ram { get; }

    public PhysicalMemoryMap Map { get; }

    public PhysicalMemoryMap MapInSmm { get; }

    public TranslatorEngine Engine { get; }

    public TranslatorVcpu Cpu { get; }

    public string Output => _output.ToString();

    public uint? ExitValue { get; private set; }

    public int PendingVector { get; set; } = -1;

    public List<(ulong Address, ulong Value, int Size)> MmioWrites { get; } = [];

    public uint PortRead(ushort port, int size) => port == 0x3FD ? 0x60 : uint.MaxValue >> (32 - 8 * size);

    public void PortWrite(ushort port, uint value, int size)
    {
        if (port == 0x3F8)
            _output.Append((char)value);
        if (port == 0xF0)
            Cpu.IgnoreFpuErrors();
        if (port == ExitPort)
        {
            ExitValue = value;
            Cpu.Kick();
        }
    }

    /// <summary>Vector of the interrupt that a numeric error raises; -1: none.</summary>
    public int FpuErrorVector { get; set; } = -1;

    public int FpuErrors { get; private set; }

    public void RaiseFpuError(Vcpu cpu)
    {
        FpuErrors++;
        if (FpuErrorVector < 0)
            return;
        PendingVector = FpuErrorVector;
        cpu.SetInterruptLine(true);
    }

    public ulong MmioRead(ulong physicalAddress, int size) => physicalAddress & 0xFF;

    /// <summary>Called by a device that is written to.</summary>
    public Action? DeviceWritten { get; set; }

    public void MmioWrite(ulong physicalAddress, ulong value, int size)
    {
        MmioWrites.Add((physicalAddress, value, size));
        DeviceWritten?.Invoke();
    }

    public int AcknowledgeInterrupt(Vcpu cpu)
    {
        int vector = PendingVector;
        PendingVector = -1;
        cpu.SetInterruptLine(false);
        return vector;
    }

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

    public ulong ReadTimeStampCounter(Vcpu cpu) => (ulong)System.Diagnostics.Stopwatch.GetTimestamp();

    public void Load(ulong address, ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(new Span<byte>(Ram + address, bytes.Length));
        Map.NotifyDeviceWrite(address, (ulong)bytes.Length);
    }

    public void Dispose()
    {
        Cpu.Dispose();
        Engine.Dispose();
        NativeMemory.AlignedFree(Ram);
    }
}
