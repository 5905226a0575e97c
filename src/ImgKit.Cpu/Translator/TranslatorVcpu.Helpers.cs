using System.Runtime.InteropServices;
using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>What generated code calls. No exception leaves these methods: they return an <see cref="ExitReason"/>.</summary>
public sealed unsafe partial class TranslatorVcpu
{
    private Interpreter? _interpreter;

    private static TranslatorVcpu Of(CpuContext* c) => (TranslatorVcpu)GCHandle.FromIntPtr(c->Owner).Target!;

    /// <summary>One call: <paramref name="body"/> gets the site and what RBP had. <paramref name="madeFlags"/>: the host's flags are the
    /// guest's, whatever the site says.</summary>
    private static int Call(CpuContext* c, uint site, ulong value, delegate*<TranslatorVcpu, in Site, ulong, ExitReason> body,
        bool madeFlags = false)
    {
        var cpu = Of(c);
        try
        {
            ref readonly var at = ref cpu._translator.GetSite(site & (1 << Stubs.SiteBits) - 1);
            cpu.TakeFlags((at.Info & Site.Spared) != 0 && !madeFlags ? c->SparedFlags : c->HostFlags);
            var reason = body(cpu, at, value);
            if (reason == ExitReason.Redispatch && !cpu._stepping)
            {
                byte* code = cpu.FindNext();
                if (code != null)
                {
                    c->ResumeAt = (ulong)code;
                    reason = ExitReason.Resume;
                }
            }
            if (reason is ExitReason.Continue or ExitReason.Resume)
                c->LiveIf = (byte)(c->Rflags >> 9 & 1);
            return (int)reason;
        }
        catch (Exception e)
        {
            return cpu.Fail(e);
        }
    }

    [UnmanagedCallersOnly]
    internal static int InterpretHelper(CpuContext* c, uint site, ulong unused) => Call(c, site, unused, &Interpret);

    [UnmanagedCallersOnly]
    internal static int RaiseHelper(CpuContext* c, uint site, ulong unused) => Call(c, site, unused, &Raise);

    [UnmanagedCallersOnly]
    internal static int SlowAccessHelper(CpuContext* c, uint site, ulong linear) => Call(c, site, linear, &SlowAccess);

    [UnmanagedCallersOnly]
    internal static int SlowWindowHelper(CpuContext* c, uint site, ulong linear) => Call(c, site, linear, &SlowWindow);

    [UnmanagedCallersOnly]
    internal static int SlowSegmentHelper(CpuContext* c, uint site, ulong offset) => Call(c, site, offset, &SlowSegment);

    [UnmanagedCallersOnly]
    internal static int CompleteStoreHelper(CpuContext* c, uint site, ulong unused) => Call(c, site, unused, &CompleteStore, site >> Stubs.SiteBits != 0);

    private static ExitReason Interpret(TranslatorVcpu cpu, in Site at, ulong unused) => cpu.Interpret(at);

    private static ExitReason Raise(TranslatorVcpu cpu, in Site at, ulong unused)
    {
        cpu._c->Rip = at.Rip;
        cpu.DeliverFault((byte)at.Info, (at.Info & Site.ErrorCode) != 0 ? 0u : null);
        return ExitReason.Redispatch;
    }

    private static ExitReason SlowAccess(TranslatorVcpu cpu, in Site at, ulong linear) => cpu.SlowAccess(at, linear);

    private static ExitReason SlowWindow(TranslatorVcpu cpu, in Site at, ulong linear)
    {
        // What must be aligned and is not faults before its page is walked.
        bool bad = (at.Info & Site.Aligned) != 0 &&
            (linear + (at.Info >> Site.OpenerShift & 0xFF) & (1UL << (int)(at.Info >> Site.AlignmentShift & 15)) - 1) != 0;
        if (!bad && cpu.Memory.TryWindow(linear, (at.Info & Site.Write) != 0, out cpu._c->ResumeAt))
            return ExitReason.Continue;
        cpu._c->Rip = at.Rip;
        return ExitReason.Careful;
    }

    private static ExitReason SlowSegment(TranslatorVcpu cpu, in Site at, ulong offset)
    {
        int number = (int)(at.Info >> 12 & 7);
        if (!cpu.IsAllowed(number, offset, (int)(at.Info & 0xFF), (at.Info & Site.Write) != 0))
        {
            cpu._c->Rip = at.Rip;
            cpu.DeliverFault((byte)(number == 2 ? 12 : 13), 0);
            return ExitReason.Redispatch;
        }
        return cpu.SlowAccess(at, (uint)(offset + CpuContext.Segment(cpu._c, number)->Base));
    }

    private static ExitReason CompleteStore(TranslatorVcpu cpu, in Site at, ulong unused)
    {
        var c = cpu._c;
        bool device = (c->PendingStore & 1) != 0, leave = (c->PendingStore & 2) != 0;
        cpu.Memory.CompleteStore();
        // A device's register may have moved memory or raised an interrupt.
        leave |= device && Volatile.Read(ref c->KeepRunning) == 0;
        if (!leave || (at.Info & Site.Leaves) != 0)
            return ExitReason.Continue;
        c->Rip = at.NextRip;
        return ExitReason.Redispatch;
    }

    /// <summary>Where <see cref="Failure"/> came from, for reports of defects.</summary>
    public string FailureDetail { get; private set; } = "";

    private int Fail(Exception e)
    {
        _failure = $"{e.GetType().Name}: {e.Message} (guest instruction at 0x{_c->Rip:x})";
        FailureDetail = e.ToString();
        return (int)ExitReason.Failed;
    }

    private void DeliverFault(byte vector, uint? code)
    {
        _faulted = true;
        Memory.AbandonStore();
        Exceptions.Deliver(_c, Memory, vector, code);
    }

    internal void DeliverFromInterpreter(byte vector, uint code) => DeliverFault(vector, code);

    /// <summary>No single-step trap after this instruction: it has entered a handler.</summary>
    internal void SuppressTrap() => _trapSuppressed = true;

    /// <summary>SYSCALL and SYSRET trap when TF is set behind them, whatever it was before, and at once.</summary>
    internal void AfterSystemCall()
    {
        SuppressTrap();
        if ((_c->Rflags & Flags.Tf) != 0)
            DebugRegisters.Raise(_c, Memory, DebugRegisters.Dr6Step);
    }

    /// <summary>The breakpoints that were hit, for an instruction that is a debug exception itself.</summary>
    internal ulong TakeBreakpoints()
    {
        ulong bits = _matched;
        _matched = 0;
        return bits;
    }

    private ExitReason SlowAccess(in Site at, ulong linear)
    {
        bool demanded = (at.Info & Site.Aligned) != 0;
        if ((demanded || _mode.ChecksAlignment) && (linear & (1UL << (int)(at.Info >> Site.AlignmentShift & 15)) - 1) != 0 &&
            !(demanded && AllowsMisalignedVectors))
        {
            _c->Rip = at.Rip;
            DeliverFault((byte)(demanded ? 13 : 17), 0);
            return ExitReason.Redispatch;
        }
        bool write = (at.Info & Site.Write) != 0;
        int fault = Memory.SlowAccess(linear, (int)(at.Info & 0xFF), write, (at.Info & Site.Locked) != 0, out uint code);
        if (fault == 0)
            return ExitReason.Continue;
        _c->Rip = at.Rip;
        // A non-canonical stack address is a stack fault.
        byte vector = (byte)(fault - 1);
        if (vector == 13 && (at.Info >> 12 & 7) == 2)
            vector = 12;
        DeliverFault(vector, code);
        return ExitReason.Redispatch;
    }

    /// <summary>MXCSR.MM: the host decides which instructions may, still.</summary>
    private bool AllowsMisalignedVectors => (*(uint*)(_c->XsaveArea + 24) & 1 << 17) != 0;

    /// <summary>Segment checks of one access in 16- and 32-bit code.</summary>
    internal bool IsAllowed(int number, ulong offset, int size, bool write)
    {
        var s = CpuContext.Segment(_c, number);
        if (Mode.Is64Bit(_c))
            return true;
        if (Mode.IsParagraph(_c))
            return offset + (ulong)size - 1 <= s->Limit;
        uint type = s->Attributes & 15;
        if ((s->Attributes & 1 << 16) != 0 || (s->Attributes & 0x90) != 0x90)
            return false;
        bool code = (type & 8) != 0;
        if (write ? code || (type & 2) == 0 : code && (type & 2) == 0)
            return false;
        return Segments.IsWithin(s->ToRegister(), offset, size);
    }

    /// <summary>Executes one instruction in C#, and says whether generated code goes on behind it.</summary>
    private ExitReason Interpret(in Site at)
    {
        ulong next = at.NextRip;
        _c->Rip = at.Rip;
        _c->PendingStore = 0;
        var interpreter = _interpreter ??= new Interpreter(this, _c, Memory, _bus);
        try
        {
            switch (at.Info & 0xFF)
            {
                case Site.Syscall:
                    Syscalls.Syscall(_c, Memory, next);
                    AfterSystemCall();
                    return ExitReason.Redispatch;
                case Site.Sysret:
                    Syscalls.Sysret(_c, Memory, true);
                    AfterSystemCall();
                    return ExitReason.Redispatch;
                case Site.ReadTimeStamp when !_stepping:
                    ulong time = Msrs.ReadTimeStamp(_c, Memory);
                    _c->Gpr[0] = (uint)time;
                    _c->Gpr[2] = time >> 32;
                    return ExitReason.Continue;
            }
            interpreter.Execute(_translator.GetInterpreted(at.Instruction), next);
        }
        catch (GuestFault fault)
        {
            DeliverFault(fault.Vector, fault.ErrorCode);
            return ExitReason.Redispatch;
        }
        if (interpreter.Faulted)
            return ExitReason.Redispatch;
        bool left = _c->Rip != next || (_c->PendingStore & 2) != 0 || Memory.Flushed || _c->Halted != 0 || _stepping ||
            Volatile.Read(ref _c->KeepRunning) == 0 || Memory.ModeIsStale && HasModeChanged();
        _c->PendingStore = 0;
        if (_c->InterruptShadow != 0)
        {
            if (_c->InterruptLine != 0 || _nmi != 0 || _c->NmiPending != 0)
                left = true;
            else if (!_stepping)
                _c->InterruptShadow = 0;
        }
        else if (CanInterrupt || _c->NmiPending > _c->NmiBlocked)
        {
            // IRET may go to the next instruction, and lets an NMI in that waited.
            left = true;
        }
        return left ? ExitReason.Redispatch : ExitReason.Continue;
    }

    private bool HasModeChanged()
    {
        bool trap = (_c->Rflags & 1 << 8) != 0 || DebugRegisters.AnyEnabled(_c);
        if (trap || TranslationMode.From(_c, _stepping).Key != _mode.KeyWithoutCodeLimit || _c->Cs.Limit != _codeLimit)
            return true;
        Memory.ModeIsCurrent();
        return false;
    }

    /// <summary>Before a lone instruction. True: an exception was delivered instead.</summary>
    private bool BeforeStep(bool breakpoints)
    {
        _matched = _held;
        _held = 0;
        _trapSuppressed = false;
        if (breakpoints && (_c->Rflags & 1 << 16) == 0)
        {
            ulong hit = DebugRegisters.MatchCode(_c, Mode.Is64Bit(_c) ? _c->Rip : (uint)(_c->Rip + _c->Cs.Base));
            if (hit != 0)
            {
                DebugRegisters.Raise(_c, Memory, hit | TakeBreakpoints());
                return true;
            }
        }
        if (Trace != null)
        {
            GetState(_traced);
            Trace(_traced);
        }
        _c->InterruptShadow = 0;
        _keepResumeFlag = false;
        return false;
    }

    /// <summary>Value of <see cref="CpuContext.InterruptShadow"/> after MOV SS and POP SS, which hold back debug traps, too.</summary>
    internal const byte StackShadow = 2;

    private bool _keepResumeFlag;

    /// <summary>This instruction loaded RF: it is for the next one.</summary>
    internal void KeepResumeFlag() => _keepResumeFlag = true;

    private readonly CpuState _traced = new();
    private ulong _matched, _held;
    private bool _trapSuppressed;

    /// <summary>A data access or port access hit these breakpoints.</summary>
    internal void NoteBreakpoint(ulong bits) => _matched |= bits;

    private void AfterStep(bool trap)
    {
        if (_ignoresErrors && !_retries)
            AfterIgnoredError();
        _retries = false;
        ulong bits = TakeBreakpoints();
        if (_faulted)
            return;
        if (!_keepResumeFlag && !_trapSuppressed)
            _c->Rflags &= ~(1UL << 16);
        if (_c->InterruptShadow == StackShadow)
        {
            // Breakpoints of the load itself wait as long; the single step does not.
            _held = bits;
            return;
        }
        if (trap && !_trapSuppressed)
            bits |= DebugRegisters.Dr6Step;
        if (bits != 0)
            DebugRegisters.Raise(_c, Memory, bits);
    }
}
