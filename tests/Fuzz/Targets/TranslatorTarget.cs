using System.Text;
using ImgKit.Cpu;
using ImgKit.Cpu.Models;

namespace ImgKit.Fuzz.Targets;

/// <summary>Programs of random instructions run as they are translated, and one instruction at a time: all of the state is the same afterwards.</summary>
internal sealed class TranslatorTarget : IFuzzTarget, IDisposable
{
    private const int MaxSteps = 5000;

    private readonly CpuModel _model = CpuModel.Parse("max,-rdrand,-rdseed");
    private readonly CpuState _stepped = new(), _translated = new();
    private readonly Dictionary<int, ProgramMaker> _makers = [];
    private CpuBoard? _slow, _fast;
    private int _steps;

    public string Name => "translator";

    public IEnumerable<byte[]> Seeds()
    {
        var random = new Random(1);
        for (int i = 0; i < 60; i++)
        {
            byte[] seed = new byte[random.Next(40, 600)];
            random.NextBytes(seed);
            yield return seed;
        }
    }

    public void Run(byte[] input)
    {
        if (input.Length < 4)
            return;
        _slow ??= new CpuBoard(_model);
        _fast ??= new CpuBoard(_model);
        int bits = (input[0] & 3) switch { 0 => 16, 1 => 32, _ => 64 };
        if (!_makers.TryGetValue(bits, out var maker))
            _makers.Add(bits, maker = new ProgramMaker(bits, _model));
        // Now and then the bytes are the program.
        byte[] program = (input[0] & 0x38) == 0 ? [.. input.AsSpan(2, Math.Min(input.Length - 2, 3000)), 0xF4] : maker.Make(input[2..]);
        _slow.Start(bits, program, input[1], _stepped);
        _fast.Start(bits, program, input[1], _translated);
        _steps = 0;
        _slow.Cpu.Trace = _ =>
        {
            if (++_steps == MaxSteps)
                _slow.Cpu.Kick();
        };
        var exit = _slow.Cpu.Run();
        _slow.Cpu.GetState(_stepped);
        if (exit == VcpuExit.InternalError)
            throw new InvalidOperationException($"stepping: {_slow.Cpu.Failure} {_slow.Cpu.FailureDetail}");
        if (_steps >= MaxSteps || exit == VcpuExit.Kicked)
            return;
        var other = _fast.Cpu.Run();
        _fast.Cpu.GetState(_translated);
        string difference = other == exit ? Compare() : $"exit {other} {_fast.Cpu.Failure} {_fast.Cpu.FailureDetail}, not {exit}; ";
        if (difference.Length != 0)
            throw new InvalidOperationException($"{bits} bits, {_steps} instructions: {difference}\n{Convert.ToHexString(program)}");
    }

    private string Compare()
    {
        var text = new StringBuilder();
        CpuState s = _stepped, t = _translated;
        int vector = CpuBoard.VectorOf(s);
        for (int i = 0; i < 16; i++)
        {
            if (s.Gpr[i] != t.Gpr[i])
                text.Append($"register {i} {t.Gpr[i]:x} not {s.Gpr[i]:x}; ");
        }
        if (s.Rip != t.Rip || s.Rflags != t.Rflags || s.Cr2 != t.Cr2)
            text.Append($"rip {t.Rip:x} not {s.Rip:x}, flags {t.Rflags:x} not {s.Rflags:x}, cr2 {t.Cr2:x} not {s.Cr2:x}, vector {vector}; ");
        // The FPU's pointers are the host's business where no exception is pending.
        if ((s.Xsave[2] & 0x80) == 0)
        {
            s.Xsave.AsSpan(6, 18).Clear();
            t.Xsave.AsSpan(6, 18).Clear();
        }
        for (int i = 0; i < 832; i++)
        {
            if (i is < 416 or >= 576 && s.Xsave[i] != t.Xsave[i])
            {
                text.Append($"xsave {i}: {Convert.ToHexString(t.Xsave, i & ~15, 16)} not {Convert.ToHexString(s.Xsave, i & ~15, 16)}; ");
                break;
            }
        }
        int at = _slow!.Memory.CommonPrefixLength(_fast!.Memory);
        if (at != _slow.Memory.Length)
            text.Append($"memory at {at:x}: {_fast.Memory[at]:x} not {_slow.Memory[at]:x}; ");
        return text.ToString();
    }

    public void Dispose()
    {
        _slow?.Dispose();
        _fast?.Dispose();
    }
}
