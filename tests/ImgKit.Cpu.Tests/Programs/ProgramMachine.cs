using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;

namespace ImgKit.Cpu.Tests.Programs;

/// <summary>A machine of memory, a text port and a port that ends the run; the program is its firmware.</summary>
internal sealed unsafe class ProgramMachine : IVcpuBus, IDisposable
{
    private const int RamSize = 16 << 20, RomSize = 64 << 10;

    private readonly byte* _memory;
    private readonly PhysicalMemoryMap _map = new();
    private readonly TranslatorEngine _engine;
    private readonly StringBuilder _text = new();
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private byte _port92 = 2, _taskPriority;
    private volatile bool _stop;
    private bool _abandoned;

    public ProgramMachine(byte[] firmware, string model)
    {
        _memory = (byte*)NativeMemory.AlignedAlloc(RamSize + RomSize, 4096);
        new Span<byte>(_memory, RamSize + RomSize).Clear();
        firmware.CopyTo(new Span<byte>(_memory + RamSize, RomSize));
        _map.Replace(
        [
            new MemoryRegion(0, 0xF0000, (nint)_memory, MemoryKind.Ram),
            new MemoryRegion(0xF0000, RomSize, (nint)(_memory + RamSize), MemoryKind.Rom),
            new MemoryRegion(0x100000, RamSize - 0x100000, (nint)(_memory + 0x100000), MemoryKind.Ram),
            new MemoryRegion(0xFFFF0000, RomSize, (nint)(_memory + RamSize), MemoryKind.Rom),
        ]);
        _engine = new TranslatorEngine(_map, CpuModel.Parse(model));
        Vcpu = _engine.CreateVcpu(0, this);
    }

    public Vcpu Vcpu { get; }

    /// <summary>Runs to the end of the program; what it printed, and how it ended if not by itself.</summary>
    public string Run(TimeSpan limit)
    {
        var thread = new Thread(RunToEnd) { IsBackground = true };
        thread.Start();
        if (!thread.Join(limit))
        {
            _stop = true;
            Vcpu.Kick();
            _abandoned = !thread.Join(TimeSpan.FromSeconds(2));
            lock (_text)
                _text.Append(_abandoned ? "\n[does not stop]" : "\n[still running]");
        }
        lock (_text)
            return _text.ToString();
    }

    private void RunToEnd()
    {
        while (!_stop)
        {
            var exit = Vcpu.Run();
            if (!_stop && exit is (VcpuExit.Shutdown or VcpuExit.InternalError or VcpuExit.Halted))
            {
                lock (_text)
                    _text.Append($"\n[{exit} {Vcpu.Failure}]");
                return;
            }
        }
    }

    public uint PortRead(ushort port, int size) => port == 0x92 ? _port92 : uint.MaxValue;

    public void PortWrite(ushort port, uint value, int size)
    {
        switch (port)
        {
            case 0xE9:
                lock (_text)
                    _text.Append((char)(byte)value);
                break;
            case 0x92:
                _port92 = (byte)value;
                _engine.SetA20((value & 2) != 0);
                break;
            case 0x501:
                _stop = true;
                Vcpu.Kick();
                break;
        }
    }

    public ulong MmioRead(ulong physicalAddress, int size) => ulong.MaxValue;

    public void MmioWrite(ulong physicalAddress, ulong value, int size)
    {
    }

    public int AcknowledgeInterrupt(Vcpu cpu) => -1;

    public byte GetTaskPriority(Vcpu cpu) => _taskPriority;

    public void SetTaskPriority(Vcpu cpu, byte value) => _taskPriority = value;

    public bool ReadMsr(Vcpu cpu, uint index, out ulong value)
    {
        value = 0xFEE00900;
        return index == 0x1B;
    }

    public bool WriteMsr(Vcpu cpu, uint index, ulong value) => index == 0x1B;

    public ulong ReadTimeStampCounter(Vcpu cpu) => (ulong)_clock.ElapsedTicks;

    public void Dispose()
    {
        // A processor that cannot be stopped still uses all of it.
        if (_abandoned)
            return;
        Vcpu.Dispose();
        _engine.Dispose();
        NativeMemory.AlignedFree(_memory);
    }
}
