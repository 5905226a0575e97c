using Iced.Intel;
using ImgKit.Cpu.Translator;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>
/// Catches the signals of code in a range of addresses: a handler in machine code writes down what happened and lets the thread go on
/// somewhere else, with the registers as they were. Other signals go to whom they went before.
/// </summary>
internal sealed unsafe class NativeFaults : IDisposable
{
    /// <summary>Trap number while nothing has happened.</summary>
    public const ulong None = ulong.MaxValue;

    // What of ucontext_t of x86-64 the handler needs: the registers of struct sigcontext from byte 40 on.
    private const int Rip = 40 + 16 * 8, Flags = 40 + 17 * 8, Cs = 40 + 18 * 8, Error = 40 + 19 * 8, TrapNumber = 40 + 20 * 8, Cr2 = 40 + 22 * 8;
    private const int SigTrap = 5, SigIll = 4, SigBus = 7, SigFpe = 8, SigSegv = 11;

    private static readonly int[] Signals = [SigTrap, SigIll, SigBus, SigFpe, SigSegv];

    private readonly NativeMethods.SignalAction[] _old = new NativeMethods.SignalAction[Signals.Length];
    private readonly ulong* _record;

    /// <param name="code">writable and executable memory for the handlers.</param>
    /// <param name="record">64 bytes.</param>
    /// <param name="start">faults of code here count.</param>
    /// <param name="size">bytes.</param>
    /// <param name="resume">where the thread goes on, in 64-bit mode.</param>
    public NativeFaults(ulong code, ulong record, ulong start, int size, ulong resume)
    {
        _record = (ulong*)record;
        for (int i = 0; i < Signals.Length; i++)
        {
            NativeMethods.SignalAction old;
            if (NativeMethods.SetSignalAction(Signals[i], null, &old) != 0)
                throw new InvalidOperationException("cannot read the signal handlers");
            _old[i] = old;
            ulong at = code + (ulong)(i * 256);
            Emit(at, (ulong)old.Handler, record, start, size, resume);
            var action = old;
            action.Handler = (nint)at;
            action.Flags = NativeMethods.SaSigInfo | NativeMethods.SaOnStack | NativeMethods.SaNoDefer;
            if (NativeMethods.SetSignalAction(Signals[i], &action, null) != 0)
                throw new InvalidOperationException("cannot set a signal handler");
        }
    }

    public ulong Trap => _record[0];

    public ulong FaultRip => _record[1];

    public ulong FaultError => _record[2];

    public ulong FaultCr2 => _record[3];

    public ulong FaultFlags => _record[4];

    public void Clear() => _record[0] = None;

    private static void Emit(ulong at, ulong old, ulong record, ulong start, int size, ulong resume)
    {
        var a = new Assembler(64);
        var other = a.CreateLabel();
        a.mov(rax, __qword_ptr[rdx + Rip]);
        a.mov(rcx, rax);
        a.mov(r8, start);
        a.sub(rcx, r8);
        a.cmp(rcx, size);
        a.jae(other);
        a.mov(r8, record);
        a.mov(__qword_ptr[r8 + 8], rax);
        foreach (var (from, to) in new[] { (TrapNumber, 0), (Error, 16), (Cr2, 24), (Flags, 32) })
        {
            a.mov(rax, __qword_ptr[rdx + from]);
            a.mov(__qword_ptr[r8 + to], rax);
        }
        a.and(__qword_ptr[rdx + Flags], ~0x40500);
        a.mov(rax, resume);
        a.mov(__qword_ptr[rdx + Rip], rax);
        a.mov(__word_ptr[rdx + Cs], 0x33);
        a.ret();
        a.Label(ref other);
        a.mov(rax, old);
        a.jmp(rax);
        var bytes = new MemoryStream();
        a.Assemble(new StreamCodeWriter(bytes), at);
        bytes.ToArray().CopyTo(new Span<byte>((void*)at, 256));
    }

    public void Dispose()
    {
        for (int i = 0; i < Signals.Length; i++)
        {
            var old = _old[i];
            _ = NativeMethods.SetSignalAction(Signals[i], &old, null);
        }
    }
}
