using System.Runtime.InteropServices;
using ImgKit.Cpu.Architecture;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Translator;

/// <summary>A virtual CPU that runs by binary translation. Made by <see cref="TranslatorEngine.CreateVcpu"/>.</summary>
public sealed unsafe partial class TranslatorVcpu : Vcpu
{
    private readonly TranslatorEngine _engine;
    private readonly IVcpuBus _bus;
    private readonly CpuContext* _c;
    private const int MapSize = Layout.Total + (2 << 20);
    private readonly nint _map;
    private readonly byte* _block;
    private readonly byte* _slot;
    private readonly BlockTranslator _translator;
    private GCHandle _self;
    private string _failure = "";
    private bool _disposed;

    // Requests from other threads; KeepRunning is cleared after one is made.
    private int _kicked;
    private int _nmi;
    private int _smi;
    private int _init;
    private int _startup = -1;
    private int _flush;
    private int _a20 = -1;
    private int _hasInvalidations;
    private readonly Queue<(ulong Page, int Start, int End)> _invalidations = new();

    internal TranslatorVcpu(TranslatorEngine engine, CpuModel model, IVcpuBus bus, int index)
    {
        _engine = engine;
        _bus = bus;
        Index = index;
        Model = model;
        _slot = CodeArena.Take();
        _map = NativeMethods.Map(0, MapSize, NativeMethods.ProtRead | NativeMethods.ProtWrite,
            NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve, -1, 0);
        if (_map == -1)
            throw new PlatformNotSupportedException("no memory for the state of a processor");
        _block = CodeArena.AlignForHugePages((byte*)_map, Layout.Total);
        _c = (CpuContext*)_block;
        _self = GCHandle.Alloc(this, GCHandleType.Weak);
        _c->Self = _c;
        _c->Owner = GCHandle.ToIntPtr(_self);
        _c->XsaveArea = _block + Layout.XsaveArea;
        _c->A20Mask = ulong.MaxValue;
        _c->KeepRunning = 1;
        Memory = new MemoryUnit(engine, this, model, bus, _block);
        _translator = new BlockTranslator(this, _slot);
        ClearJumpCaches();
        Reset();
    }

    /// <inheritdoc/>
    public override int Index { get; }

    internal CpuModel Model { get; }

    internal MemoryUnit Memory { get; }

    /// <summary>No other vCPU shares the memory.</summary>
    internal bool IsAlone => _engine.Vcpus.Length <= 1;

    /// <summary>A data breakpoint is set: every access is looked at.</summary>
    internal bool WatchesData { get; private set; }

    /// <inheritdoc/>
    public override string Failure => _failure;

    /// <summary>Called before each instruction with the state, when set: the trace mode. Every instruction then is a block of its own.</summary>
    public Action<CpuState>? Trace { get; set; }

    private void Ask()
    {
        Volatile.Write(ref _c->KeepRunning, 0);
    }

    /// <inheritdoc/>
    public override void Kick()
    {
        Volatile.Write(ref _kicked, 1);
        Ask();
    }

    /// <inheritdoc/>
    public override void SetInterruptLine(bool asserted)
    {
        Volatile.Write(ref _c->InterruptLine, (byte)(asserted ? 1 : 0));
        if (asserted)
            Ask();
    }

    /// <inheritdoc/>
    public override void RaiseNmi()
    {
        Volatile.Write(ref _nmi, 1);
        Ask();
    }

    /// <inheritdoc/>
    public override void RaiseSmi()
    {
        Volatile.Write(ref _smi, 1);
        Ask();
    }

    /// <inheritdoc/>
    public override void RaiseInit()
    {
        Volatile.Write(ref _init, 1);
        Ask();
    }

    /// <inheritdoc/>
    public override void RaiseStartup(byte vector)
    {
        Volatile.Write(ref _startup, vector);
        Ask();
    }

    internal void SetA20(bool enabled)
    {
        Volatile.Write(ref _a20, enabled ? 1 : 0);
        Ask();
    }

    internal void PostFlush()
    {
        Volatile.Write(ref _flush, 1);
        Ask();
    }

    internal void PostInvalidation(ulong hostPage, int start, int end)
    {
        lock (_invalidations)
            _invalidations.Enqueue((hostPage, start, end));
        Volatile.Write(ref _hasInvalidations, 1);
        Ask();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        ResetState.PowerOn(_c, Memory, Index == 0);
        _c->Shutdown = 0;
        _nmi = _smi = _init = 0;
        _startup = -1;
        _ignoresErrors = false;
        _heldErrors = 0;
        Memory.FlushTlb(true);
        Memory.ModeChanged();
    }

    /// <inheritdoc/>
    public override bool IsWaitingForStartup => _c->WaitingForStartup != 0;

    /// <inheritdoc/>
    public override bool IsHalted
    {
        get
        {
            if (_kicked != 0 || _init != 0 || _smi != 0)
                return false;
            if (_c->WaitingForStartup != 0)
                return _startup < 0;
            return _c->Halted != 0 && !CanInterrupt && !((_nmi != 0 || _c->NmiPending != 0) && _c->NmiBlocked == 0);
        }
    }

    private bool CanInterrupt => Volatile.Read(ref _c->InterruptLine) != 0 && (_c->Rflags & 1 << 9) != 0 && _c->InterruptShadow == 0;

    /// <inheritdoc/>
    public override void GetState(CpuState state)
    {
        AfterIgnoredError();
        MaterialiseFpu();
        StateTransfer.ToState(_c, Memory, state);
    }

    /// <inheritdoc/>
    public override void SetState(CpuState state) => StateTransfer.FromState(_c, Memory, state);

    /// <inheritdoc/>
    public override long TranslateAddress(ulong linear) => PageWalker.Peek(_c, Memory, linear);

    /// <inheritdoc/>
    public override VcpuExit Run()
    {
        EnterRounds();
        try
        {
            return RunRounds();
        }
        finally
        {
            LeaveRounds();
        }
    }

    private VcpuExit RunRounds()
    {
        while (true)
        {
            Volatile.Write(ref _rounds, _rounds + 1);
            Volatile.Write(ref _c->KeepRunning, 1);
            Interlocked.MemoryBarrier();
            if (HandleRequests() is { } exit)
                return exit;
            if (_c->Shutdown != 0)
                return VcpuExit.Shutdown;
            if (_c->WaitingForStartup != 0 || _c->Halted != 0)
                return VcpuExit.Halted;
            if (Execute() is { } failed)
                return failed;
        }
    }

    private VcpuExit? HandleRequests()
    {
        if (_flush != 0)
        {
            _flush = 0;
            Memory.FlushTlb(true);
        }
        if (_hasInvalidations != 0)
            DrainInvalidations();
        if (_ignoreRequested != 0)
            TakeIgnoreRequest();
        if (_a20 >= 0)
        {
            _c->A20Mask = Interlocked.Exchange(ref _a20, -1) != 0 ? ulong.MaxValue : ~(1UL << 20);
            Memory.FlushTlb(true);
        }
        if (_init != 0)
        {
            _init = 0;
            ResetState.Init(_c, Memory, Index == 0);
            Memory.FlushTlb(true);
            Memory.ModeChanged();
        }
        if (_startup >= 0)
        {
            int vector = Interlocked.Exchange(ref _startup, -1);
            if (_c->WaitingForStartup != 0)
                ResetState.Startup(_c, Memory, (byte)vector);
            Memory.ModeChanged();
        }
        if (Interlocked.Exchange(ref _kicked, 0) != 0)
            return VcpuExit.Kicked;
        if (_c->WaitingForStartup != 0)
            return null;
        if (_smi != 0 && _c->InSmm == 0 && _c->InterruptShadow == 0)
        {
            _smi = 0;
            Smm.Enter(_c, Memory);
            return null;
        }
        if (_nmi != 0)
        {
            _nmi = 0;
            _c->NmiPending = 1;
        }
        if (_c->NmiPending != 0 && _c->NmiBlocked == 0 && _c->InterruptShadow == 0)
        {
            Exceptions.DeliverNmi(_c, Memory);
        }
        else if (CanInterrupt)
        {
            int vector = _bus.AcknowledgeInterrupt(this);
            if (vector >= 0)
                Exceptions.DeliverInterrupt(_c, Memory, (byte)vector);
        }
        return null;
    }

    private void DrainInvalidations()
    {
        lock (_invalidations)
        {
            _hasInvalidations = 0;
            while (_invalidations.TryDequeue(out var item))
                InvalidateCode(item.Page, item.Start, item.End);
        }
    }

    /// <summary>Runs generated code until it comes back, and does what it asks for.</summary>
    private VcpuExit? Execute()
    {
        bool shadow = _c->InterruptShadow != 0;
        bool trap = (_c->Rflags & 1 << 8) != 0;
        bool breakpoints = DebugRegisters.AnyEnabled(_c);
        bool step = shadow || trap || breakpoints || _ignoresErrors || Trace != null;
        // Nothing looks at RF then, and the first instruction would clear it.
        if (!breakpoints)
            _c->Rflags &= ~(1UL << 16);
        if (Memory.ModeIsStale || step != _stepping)
            UpdateMode(step);
        if (step && BeforeStep(breakpoints))
            return null;
        byte* code = FindCode();
        if (code == null)
            return _failure.Length != 0 ? VcpuExit.InternalError : null;
        _faulted = false;
        Memory.Flushed = false;
        byte* enter = CodeArena.Stubs.Enter;
        while (true)
        {
            _c->LiveIf = (byte)(_c->Rflags >> 9 & 1);
            int reason = ((delegate* unmanaged<CpuContext*, byte*, int>)enter)(_c, code);
            enter = CodeArena.Stubs.EnterAgain;
            if ((ExitReason)reason is not (ExitReason.Redispatch or ExitReason.Careful or ExitReason.Failed))
                TakeFlags(_c->HostFlags);
            if (reason >= (int)ExitReason.BranchLookup)
            {
                if (!IsInCode(_c->Rip))
                {
                    RefuseBranch();
                    break;
                }
                reason = reason switch
                {
                    (int)ExitReason.BranchLookup => (int)ExitReason.Lookup,
                    (int)ExitReason.BranchPoll => (int)ExitReason.Poll,
                    _ => (int)ExitReason.Step,
                };
            }
            switch ((ExitReason)reason)
            {
                case ExitReason.Chain:
                    code = Link((byte*)_c->ExitArgument);
                    if (code != null && _c->KeepRunning != 0)
                        continue;
                    break;
                case ExitReason.ChainLoop:
                    code = LinkLoop((byte*)_c->ExitArgument);
                    if (code != null && _c->KeepRunning != 0)
                        continue;
                    break;
                case ExitReason.ChainCareful:
                    code = LinkCareful((byte*)_c->ExitArgument);
                    if (code != null && _c->KeepRunning != 0)
                        continue;
                    break;
                case ExitReason.Careful:
                    var careful = FindCareful();
                    code = careful == null ? null : careful.Code;
                    if (code != null && _c->KeepRunning != 0)
                        continue;
                    break;
                case ExitReason.Lookup:
                    if (_c->KeepRunning != 0 && !step)
                    {
                        code = LookUpCode();
                        if (code != null)
                            continue;
                    }
                    break;
                case ExitReason.Signal:
                    HandleSignal();
                    break;
                case ExitReason.Redispatch:
                case ExitReason.Poll:
                case ExitReason.Step:
                    break;
                default:
                    if (_failure.Length == 0)
                        _failure = $"generated code returned {reason}";
                    break;
            }
            break;
        }
        if (_failure.Length != 0)
            return VcpuExit.InternalError;
        if (step)
            AfterStep(trap);
        return null;
    }

    /// <summary>Code to go on with after what has ended a block; null where <see cref="Run"/> must look first.</summary>
    private byte* FindNext()
    {
        if (!MayGoOn())
            return null;
        if (Memory.ModeIsStale)
            UpdateMode(false);
        _faulted = false;
        Memory.Flushed = false;
        return FindCode();
    }

    /// <summary>Nothing happened that <see cref="Run"/> would look at between two instructions.</summary>
    private bool MayGoOn()
    {
        var c = _c;
        if (Volatile.Read(ref c->KeepRunning) == 0 ||
            (c->Shutdown | c->Halted | c->WaitingForStartup | c->InterruptShadow | c->NmiPending) != 0 || _smi != 0 || (c->Rflags & 1 << 8) != 0 || DebugRegisters.AnyEnabled(c) || CanInterrupt)
        {
            return false;
        }
        c->Rflags &= ~(1UL << 16);
        return true;
    }

    /// <summary>Arithmetic flags (<paramref name="host"/>, of LAHF and SETO) and IF as generated code left them to RFLAGS.</summary>
    private void TakeFlags(ulong host)
    {
        _c->Rflags = _c->Rflags & ~(ulong)(Stubs.ArithmeticFlags | 1 << 9) | host >> 8 & 0xD5 | (host & 1) << 11 |
            (ulong)_c->LiveIf << 9;
    }

    private void HandleSignal()
    {
        Memory.AbandonStore();
        if (!_translator.TryFindGuestAddress(_c->FaultPc, out ulong rip, out var note))
        {
            _failure = $"host trap {_c->FaultTrap} at 0x{_c->FaultPc:x} in generated code";
            return;
        }
        _c->Rip = rip;
        _faulted = true;
        if (note.Spared)
            TakeFlags(_c->SparedFlags);
        const ulong divide = 0, undefined = 6, protection = 13, floatingPoint = 16, alignment = 17, simd = 19;
        switch (_c->FaultTrap)
        {
            case divide:
                Exceptions.Deliver(_c, Memory, 0, null);
                break;
            case undefined:
                Exceptions.Deliver(_c, Memory, 6, null);
                break;
            case protection:
                Exceptions.Deliver(_c, Memory, 13, 0);
                break;
            case floatingPoint:
                OnNumericError();
                break;
            case alignment:
                Exceptions.Deliver(_c, Memory, 17, 0);
                break;
            case simd:
                Exceptions.Deliver(_c, Memory, (byte)((_c->Cr4 & 1 << 10) != 0 ? 19 : 6), null);
                break;
            default:
                _failure = $"host trap {_c->FaultTrap} (error 0x{_c->FaultError:x}) for the guest instruction at 0x{rip:x}";
                break;
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _engine.Remove(this);
        ForgetAllCode();
        CodeArena.Return(_slot);
        _ = NativeMethods.Unmap(_map, MapSize);
        _self.Free();
    }
}
