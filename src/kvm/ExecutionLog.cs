using System.Globalization;
using System.Text.Unicode;
using ImgKit.Cpu;
using ImgKit.Cpu.Translator;
using ImgKit.Host;
using ImgKit.Machine;

namespace ImgKit.Programs.Kvm;

/// <summary>
/// The log item <c>exec</c>: a line for each instruction before it is executed: the processor, CS:RIP, and each register that is not as it was on the
/// processor's line before. Where two runs part, their logs do.
/// </summary>
internal sealed class ExecutionLog
{
    private const int BufferLength = 1 << 18;
    private static readonly string[] Names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rflags", "cr0", "cr3"];

    private readonly int _descriptor;
    private readonly Lock _lock = new();
    private readonly byte[] _buffer = new byte[BufferLength];
    private int _filled;
    private bool _failed;

    /// <summary>Begins. Throws <see cref="MachineException"/> where the processors run on the host's.</summary>
    internal ExecutionLog(int descriptor, Pc pc)
    {
        _descriptor = descriptor;
        foreach (var processor in pc.Processors)
        {
            if (processor is not TranslatorVcpu translator)
                throw new MachineException("-d exec: only the software CPU sees each instruction (-accel soft)");
            int index = processor.Index;
            var before = new ulong[Names.Length];
            var now = new ulong[Names.Length];
            translator.Trace = state =>
            {
                state.Gpr.CopyTo(now, 0);
                (now[16], now[17], now[18]) = (state.Rflags, state.Cr0, state.Cr3);
                lock (_lock)
                    Add(index, state, before, now);
                (before, now) = (now, before);
            };
        }
    }

    private void Add(int processor, CpuState state, ulong[] before, ulong[] now)
    {
        // The longest line has all registers.
        if (_filled > BufferLength - 64 - Names.Length * 24)
            WriteOut();
        Utf8.TryWrite(_buffer.AsSpan(_filled), CultureInfo.InvariantCulture, $"{processor} {state.Segments[1].Selector:x4}:{state.Rip:x16}", out int n);
        _filled += n;
        for (int i = 0; i < Names.Length; i++)
            if (now[i] != before[i])
            {
                Utf8.TryWrite(_buffer.AsSpan(_filled), CultureInfo.InvariantCulture, $" {Names[i]}={now[i]:x}", out n);
                _filled += n;
            }
        _buffer[_filled++] = (byte)'\n';
    }

    private void WriteOut()
    {
        try
        {
            if (!_failed)
                Descriptors.WriteAll(_descriptor, _buffer.AsSpan(0, _filled));
        }
        catch (IOException e)
        {
            // The guest goes on; one line says that the log does not.
            _failed = true;
            Program.Say($"-d exec: {e.Message}");
        }
        _filled = 0;
    }

    /// <summary>Writes what is left.</summary>
    internal void End()
    {
        lock (_lock)
            WriteOut();
    }
}
