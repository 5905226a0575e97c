using Iced.Intel;

namespace ImgKit.Cpu.Translator;

// A window: several accesses of a block through the same registers that lie close together. The first looks the whole range up, and
// keeps its host address; the others take it from there, without a check. README.md says why that is right.
internal sealed unsafe partial class BlockTranslator
{
    private enum WindowRole : byte
    {
        None,
        First,
        Later,
    }

    private struct WindowPlan
    {
        public WindowRole Role;
        public bool Write;

        /// <summary>Instruction that opens the window; -1 for one that nothing joined.</summary>
        public int Opener;

        public int Base;
        public int Index;

        /// <summary>Where the access is, and for the opener the window's range, relative to the opener's address.</summary>
        public int At;

        public int Low;
        public int High;
    }

    private struct OpenWindow
    {
        public PlannedAccess Access;
        public int Opener;
        public long OpenerAt;
        public long Low;
        public long High;
    }

    private readonly record struct PlannedAccess(int Base, int Index, int Shift, long Displacement, int Size, bool Write)
    {
        public bool IsThrough(int guest) => Base == guest || Index == guest;

        public bool HasAddressOf(in PlannedAccess other) => Base == other.Base && Index == other.Index && Shift == other.Shift;
    }

    /// <summary>Bytes that a window may span: the more, the oftener it lies across two pages.</summary>
    private const int MaxWindow = 255;

    private readonly WindowPlan[] _plan = new WindowPlan[MaxInstructions];
    private readonly List<OpenWindow> _open = [];

    /// <summary>Openers whose code has been emitted, a bit each.</summary>
    private ulong _opened;

    /// <summary>Openers of the windows whose addresses RCX and RBP hold, -1 for none.</summary>
    private int _rcxWindow;

    private int _rbpWindow;

    /// <summary>The present instruction's code leaves RCX and RBP as the two fields above say.</summary>
    private bool _keepsWindows;

    private void ForgetWindowRegisters() => _rcxWindow = _rbpWindow = -1;

    /// <summary>Finds the block's windows. Registers of an address may change by known amounts in between.</summary>
    private void PlanWindows(int count, bool enabled)
    {
        Array.Clear(_plan, 0, count);
        _opened = 0;
        ForgetWindowRegisters();
        if (!enabled)
            return;
        Span<long> moved = stackalloc long[16];
        moved.Clear();
        _open.Clear();
        for (int i = 0; i < count; i++)
        {
            ref var instruction = ref _instructions[i];
            if (instruction.IsInvalid || IsInterpreted(instruction))
            {
                _open.Clear();
                continue;
            }
            var info = _infos.GetInfo(instruction);
            if (TryGetAccess(instruction, info, out var access))
            {
                long at = moved[access.Base] + access.Displacement + (access.Index < 0 ? 0 : moved[access.Index] << access.Shift);
                Join(i, access, at);
            }
            NoteChanges(instruction, info, moved);
        }
        for (int i = 0; i < count; i++)
        {
            if (_plan[i].Role == WindowRole.First && _plan[i].Opener < 0)
                _plan[i].Role = WindowRole.None;
        }
    }

    private void Join(int index, in PlannedAccess access, long at)
    {
        ref var plan = ref _plan[index];
        plan.Base = access.Base;
        plan.Index = access.Index;
        // A page that may be written may be read.
        if (TryJoin(index, access, at, true) || !access.Write && TryJoin(index, access, at, false))
            return;
        plan.Role = WindowRole.First;
        plan.Write = access.Write;
        plan.Opener = -1;
        plan.High = access.Size;
        for (int i = _open.Count - 1; i >= 0; i--)
        {
            if (_open[i].Access.HasAddressOf(access) && _open[i].Access.Write == access.Write)
                _open.RemoveAt(i);
        }
        _open.Add(new OpenWindow { Access = access, Opener = index, OpenerAt = at, Low = at, High = at + access.Size });
    }

    private bool TryJoin(int index, in PlannedAccess access, long at, bool write)
    {
        for (int i = 0; i < _open.Count; i++)
        {
            var window = _open[i];
            if (window.Access.Write != write || !window.Access.HasAddressOf(access))
                continue;
            window.Low = Math.Min(window.Low, at);
            window.High = Math.Max(window.High, at + access.Size);
            if (window.High - window.Low > MaxWindow)
                continue;
            _open[i] = window;
            ref var opener = ref _plan[window.Opener];
            opener.Opener = window.Opener;
            opener.Low = (int)(window.Low - window.OpenerAt);
            opener.High = (int)(window.High - window.OpenerAt);
            ref var plan = ref _plan[index];
            plan.Role = WindowRole.Later;
            plan.Write = write;
            plan.Opener = window.Opener;
            plan.At = (int)(at - window.OpenerAt);
            return true;
        }
        return false;
    }

    /// <summary>The one access of an instruction whose code <see cref="BeginMemory"/> begins with a plain base register.</summary>
    private bool TryGetAccess(in Instruction instruction, in InstructionInfo info, out PlannedAccess access)
    {
        access = default;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Push when instruction.Op0Kind != OpKind.Memory &&
                !(instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsSegmentRegister()):
            case Mnemonic.Call when instruction.IsCallNear:
            case Mnemonic.Pushfq:
            {
                int size = -instruction.StackPointerIncrement;
                access = new PlannedAccess(4, -1, 0, -size, size, true);
                return true;
            }
            case Mnemonic.Pop when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsGPR():
                access = new PlannedAccess(4, -1, 0, 0, instruction.StackPointerIncrement, false);
                return true;
            case Mnemonic.Popfq:
                access = new PlannedAccess(4, -1, 0, 0, 8, false);
                return true;
            case Mnemonic.Ret when instruction.Code is Code.Retnq or Code.Retnq_imm16:
                access = new PlannedAccess(4, -1, 0, 0, 8, false);
                return true;
            case Mnemonic.Push or Mnemonic.Pop or Mnemonic.Lea:
            case Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc when instruction.Op1Kind == OpKind.Register:
                return false;
        }
        if (instruction.FlowControl != FlowControl.Next || instruction.IsVsib || IsMaskedMove(instruction) || !instruction.MemoryBase.IsGPR64() ||
            instruction.MemoryIndex != Register.None && !instruction.MemoryIndex.IsGPR64() || SegmentNumber(instruction.MemorySegment) >= 4)
        {
            return false;
        }
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) != OpKind.Memory)
                continue;
            int size = instruction.MemorySize.GetSize();
            long displacement = (long)instruction.MemoryDisplacement64;
            if (size is 0 or > 64 || Math.Abs(displacement) > 1 << 30)
                return false;
            var kind = info.GetOpAccess(i);
            var m = OperandOf(instruction);
            access = new PlannedAccess(m.Base, m.Index, m.Shift, displacement, size,
                kind is OpAccess.Write or OpAccess.ReadWrite or OpAccess.CondWrite or OpAccess.ReadCondWrite);
            return kind is not (OpAccess.None or OpAccess.NoMemAccess);
        }
        return false;
    }

    /// <summary>What an instruction does to registers of addresses: moves one by a constant, or ends its windows.</summary>
    private void NoteChanges(in Instruction instruction, in InstructionInfo info, Span<long> moved)
    {
        int known = -1;
        if (instruction.Mnemonic is Mnemonic.Push or Mnemonic.Pop or Mnemonic.Pushfq or Mnemonic.Popfq)
        {
            if (instruction.Op0Kind != OpKind.Register || instruction.Op0Register != Register.RSP || instruction.Mnemonic == Mnemonic.Push)
            {
                known = 4;
                moved[4] += instruction.StackPointerIncrement;
            }
        }
        else if (instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsGPR64())
        {
            int guest = GuestNumber(instruction.Op0Register);
            long? step = instruction.Mnemonic switch
            {
                Mnemonic.Inc => 1,
                Mnemonic.Dec => -1,
                Mnemonic.Add when instruction.Op1Kind >= OpKind.Immediate8 && instruction.Op1Kind <= OpKind.Immediate32to64 =>
                    (long)instruction.GetImmediate(1),
                Mnemonic.Sub when instruction.Op1Kind >= OpKind.Immediate8 && instruction.Op1Kind <= OpKind.Immediate32to64 =>
                    -(long)instruction.GetImmediate(1),
                Mnemonic.Lea when instruction.MemoryBase == instruction.Op0Register && instruction.MemoryIndex == Register.None =>
                    (long)instruction.MemoryDisplacement64,
                _ => null,
            };
            if (step is { } by && Math.Abs(by) < 1 << 28)
            {
                known = guest;
                moved[guest] += by;
            }
        }
        foreach (var used in info.GetUsedRegisters())
        {
            if (!used.Register.IsGPR() || used.Access is OpAccess.Read or OpAccess.CondRead or OpAccess.None or OpAccess.NoMemAccess)
                continue;
            int guest = GuestNumber(used.Register);
            if (guest == known)
                continue;
            for (int i = _open.Count - 1; i >= 0; i--)
            {
                if (_open[i].Access.IsThrough(guest))
                    _open.RemoveAt(i);
            }
        }
    }

    /// <summary>Opens the current instruction's operand by its window, if it has one.</summary>
    private bool BeginWindow(in MemoryOperand m)
    {
        ref var plan = ref _plan[_current];
        if (plan.Role == WindowRole.None || plan.Base != m.Base || plan.Index != m.Index)
            return false;
        int slot = Layout.Windows + (plan.Role == WindowRole.Later ? plan.Opener : _current) * 8;
        if (plan.Role == WindowRole.Later)
        {
            if ((_opened >> plan.Opener & 1) == 0)
                return false;
            _openCold = _cold.Count;
            _at = (WindowRegister(plan.Opener, slot), -1, plan.At - _plan[plan.Opener].Low);
            return true;
        }
        _opened |= 1UL << _current;
        int span = plan.High - plan.Low;
        SpareFlags();
        EmitEffectiveAddress(m with { Displacement = m.Displacement + plan.Low });
        var cold = new Cold
        {
            Kind = ColdKind.Window,
            Site = NewSite((uint)span | (plan.Write ? Site.Write : 0) | (_demands == 0 ? 0 :
                _demands | (uint)_alignment << Site.AlignmentShift | (uint)-plan.Low << Site.OpenerShift)),
            Span = span,
            Write = plan.Write,
            Rip = _instructions[_current].IP & _mode.RipMask,
            Spared = _flagsSpared,
            Repeated = _flagsRepeated + 1,
        };
        EmitLookup(ref cold, span, plan.Write);
        FoldMemory();
        cold.OpStart = _e.P;
        _openCold = _cold.Count;
        _cold.Add(cold);
        _openCold++;
        _e.StoreGs(slot, Host.Rbp);
        _at = (Host.Rbp, -1, -plan.Low);
        _rbpWindow = _current;
        _rcxWindow = -1;
        return true;
    }

    /// <summary>A scratch register with the host address of a window that is open.</summary>
    private int WindowRegister(int opener, int slot)
    {
        if (_rcxWindow == opener)
            return Host.Rcx;
        if (_rbpWindow == opener)
            return Host.Rbp;
        bool rcx = _rcxWindow < 0 || _rbpWindow >= 0;
        int register = rcx ? Host.Rcx : Host.Rbp;
        _e.LoadGs(register, slot);
        (rcx ? ref _rcxWindow : ref _rbpWindow) = opener;
        return register;
    }

    /// <summary>The lookup of a window failed: across two pages it goes on in a block without windows; otherwise C# fills the TLB.</summary>
    private void EmitColdWindow(in Cold item)
    {
        UndoTag(item);
        if (item.Repeated > 0)
            EmitFlagsOf(item);
        // Offset in the page, without touching flags.
        _e.Rorx(Host.Rcx, Host.Rbp, 12, true);
        _e.ShiftPage(Host.Rcx, Host.Rcx);
        _e.Rorx(Host.Rcx, Host.Rcx, 40, true);
        _e.MovzxWord(Host.Rcx, Host.Rcx);
        _e.Lea(Host.Rcx, Host.Rcx, -1, 0, item.Span - 1, true);
        _e.ShiftPage(Host.Rcx, Host.Rcx);
        byte* within = _e.JrcxzForward();
        byte* careful = _e.JmpForward();
        _e.FixShortHere(within);
        _e.MovImmediate(Host.Rcx, item.Site);
        _e.Call((byte*)_stubs.SlowWindow[_mode.TlbSet * 2 + (item.Write ? 1 : 0)]);
        _e.Jmp(item.OpStart);
        _e.FixHere(careful);
        if (item.Spared)
        {
            EmitTakeSpared();
            careful = _e.JmpForward();
            _e.FixHere(careful);
        }
        _e.Call(_stubs.ChainCareful);
        _e.Int32((int)(_e.P - careful));
        _e.Int64(item.Rip);
    }
}
