using Iced.Intel;

namespace ImgKit.Cpu.Translator;

// A window: several accesses of a block through one base register that lie close together. The first looks the whole range up, and
// keeps host minus guest address; the others take it from there, without a check. README.md says why that is right.
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
        public int Base;

        /// <summary>Instruction that opens the window.</summary>
        public int Opener;

        /// <summary>Range relative to the opener's address.</summary>
        public int Low;

        public int High;
    }

    private struct OpenWindow
    {
        public int Opener;
        public long OpenerAt;
        public long Low;
        public long High;
    }

    private readonly record struct PlannedAccess(int Base, long Displacement, int Size, bool Write);

    /// <summary>Bytes that a window may span: the more, the oftener it lies across two pages.</summary>
    private const int MaxWindow = 255;

    private readonly WindowPlan[] _plan = new WindowPlan[MaxInstructions];

    /// <summary>By base register, reads and then writes: the opener whose code has been emitted, -1 for none.</summary>
    private readonly int[] _opened = new int[32];

    /// <summary>Finds the block's windows. Base registers may change by known amounts in between.</summary>
    private void PlanWindows(int count, bool enabled)
    {
        Array.Clear(_plan, 0, count);
        Array.Fill(_opened, -1);
        if (!enabled)
            return;
        bool writes = _owner.IsAlone;
        Span<OpenWindow> open = stackalloc OpenWindow[32];
        Span<long> moved = stackalloc long[16];
        foreach (ref var window in open)
            window.Opener = -1;
        moved.Clear();
        for (int i = 0; i < count; i++)
        {
            ref var instruction = ref _instructions[i];
            if (instruction.IsInvalid || IsInterpreted(instruction))
            {
                foreach (ref var window in open)
                    window.Opener = -1;
                continue;
            }
            var info = _infos.GetInfo(instruction);
            if (TryGetAccess(instruction, info, out var access) && (writes || !access.Write))
                Join(i, access, moved[access.Base] + access.Displacement, open);
            NoteChanges(instruction, info, open, moved);
        }
        for (int i = 0; i < count; i++)
        {
            if (_plan[i].Role == WindowRole.First && _plan[i].Opener < 0)
                _plan[i].Role = WindowRole.None;
        }
    }

    private void Join(int index, in PlannedAccess access, long at, Span<OpenWindow> open)
    {
        ref var plan = ref _plan[index];
        plan.Base = access.Base;
        // A page that may be written may be read.
        if (TryJoin(ref open[16 + access.Base], index, access, at))
        {
            plan.Write = true;
            return;
        }
        if (!access.Write && TryJoin(ref open[access.Base], index, access, at))
            return;
        plan.Role = WindowRole.First;
        plan.Write = access.Write;
        plan.Opener = -1;
        plan.High = access.Size;
        open[access.Write ? 16 + access.Base : access.Base] =
            new OpenWindow { Opener = index, OpenerAt = at, Low = at, High = at + access.Size };
    }

    private bool TryJoin(ref OpenWindow window, int index, in PlannedAccess access, long at)
    {
        if (window.Opener < 0)
            return false;
        long low = Math.Min(window.Low, at), high = Math.Max(window.High, at + access.Size);
        if (high - low > MaxWindow)
            return false;
        window.Low = low;
        window.High = high;
        ref var opener = ref _plan[window.Opener];
        opener.Opener = window.Opener;
        opener.Low = (int)(low - window.OpenerAt);
        opener.High = (int)(high - window.OpenerAt);
        _plan[index].Role = WindowRole.Later;
        _plan[index].Opener = window.Opener;
        return true;
    }

    /// <summary>The one access of an instruction whose code <see cref="BeginMemory"/> begins with a plain base register.</summary>
    private static bool TryGetAccess(in Instruction instruction, in InstructionInfo info, out PlannedAccess access)
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
                access = new PlannedAccess(4, -size, size, true);
                return true;
            }
            case Mnemonic.Pop when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsGPR():
                access = new PlannedAccess(4, 0, instruction.StackPointerIncrement, false);
                return true;
            case Mnemonic.Popfq:
                access = new PlannedAccess(4, 0, 8, false);
                return true;
            case Mnemonic.Ret when instruction.Code is Code.Retnq or Code.Retnq_imm16:
                access = new PlannedAccess(4, 0, 8, false);
                return true;
            case Mnemonic.Push or Mnemonic.Pop or Mnemonic.Lea:
                return false;
        }
        if (instruction.FlowControl != FlowControl.Next || instruction.IsVsib || IsMaskedMove(instruction) || !instruction.MemoryBase.IsGPR64() ||
            instruction.MemoryIndex != Register.None || SegmentNumber(instruction.MemorySegment) >= 4)
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
            access = new PlannedAccess(GuestNumber(instruction.MemoryBase), displacement, size,
                kind is OpAccess.Write or OpAccess.ReadWrite or OpAccess.CondWrite or OpAccess.ReadCondWrite);
            return kind is not (OpAccess.None or OpAccess.NoMemAccess);
        }
        return false;
    }

    /// <summary>What an instruction does to base registers: moves one by a constant, or ends its windows.</summary>
    private static void NoteChanges(in Instruction instruction, in InstructionInfo info, Span<OpenWindow> open, Span<long> moved)
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
            open[guest].Opener = -1;
            open[16 + guest].Opener = -1;
        }
    }

    /// <summary>Opens the current instruction's operand by its window, if it has one.</summary>
    private bool BeginWindow(in MemoryOperand m)
    {
        ref var plan = ref _plan[_current];
        if (plan.Role == WindowRole.None || plan.Base != m.Base)
            return false;
        int key = (plan.Write ? 16 : 0) + plan.Base, slot = Layout.Windows + key * 8;
        int guestBase = Host.OfGuest[m.Base];
        if (plan.Role == WindowRole.Later)
        {
            if (_opened[key] != plan.Opener)
                return false;
            _openCold = _cold.Count;
            _e.LoadGs(Host.Rcx, slot);
        }
        else
        {
            _opened[key] = _current;
            int span = plan.High - plan.Low, tag = Layout.TlbTag(_mode.TlbSet, plan.Write);
            EmitEffectiveAddress(m with { Displacement = m.Displacement + plan.Low });
            var cold = new Cold
            {
                Kind = ColdKind.Window,
                Site = NewSite((uint)span | (plan.Write ? Site.Write : 0)),
                Span = span,
                Write = plan.Write,
                Rip = _instructions[_current].IP & _mode.RipMask,
            };
            if (_flagsLive[_current])
            {
                _e.ShiftPage(Host.Rcx, Host.Rbp);
                _e.MovzxByte(Host.Rcx, Host.Rcx);
                _e.GsIndexed(0x8B, Host.Rcx, Host.Rcx, true, tag, true);
                _e.Lea(Host.Rcx, Host.Rcx, Host.Rbp, 0, span - 1, true);
                _e.ShiftPage(Host.Rcx, Host.Rcx);
                byte* hit = _e.JrcxzForward();
                cold.Fix = _e.JmpForward();
                _e.FixShortHere(hit);
                _e.ShiftPage(Host.Rcx, Host.Rbp);
                _e.MovzxByte(Host.Rcx, Host.Rcx);
            }
            else
            {
                _e.PageIndex(Host.Rcx, Host.Rbp);
                _e.GsIndexed(0x03, Host.Rbp, Host.Rcx, true, tag, true);
                _e.CmpImmediate(Host.Rbp, 4096 - span, true);
                cold.Fix = _e.JccForward(7);
                cold.Tag = tag;
            }
            _e.GsIndexed(0x8B, Host.Rcx, Host.Rcx, true, Layout.TlbAddend(_mode.TlbSet, plan.Write), true);
            cold.OpStart = _e.P;
            _cold.Add(cold);
            _openCold = _cold.Count;
            _e.StoreGs(slot, Host.Rcx);
        }
        if (guestBase == Host.Spilled)
        {
            _e.LoadGs(Host.Rbp, Layout.Gpr(m.Base));
            guestBase = Host.Rbp;
        }
        _at = (guestBase, Host.Rcx, (int)m.Displacement);
        return true;
    }

    /// <summary>The lookup of a window failed: across two pages it goes on in a block without windows; otherwise C# fills the TLB.</summary>
    private void EmitColdWindow(in Cold item)
    {
        if (item.Tag != 0)
            _e.GsIndexed(0x2B, Host.Rbp, Host.Rcx, true, item.Tag, true);
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
        _e.MovRr(Host.Rcx, Host.Rbp);
        _e.Jmp(item.OpStart);
        _e.FixHere(careful);
        _e.Call(_stubs.ChainCareful);
        _e.Int32((int)(_e.P - careful));
        _e.Int64(item.Rip);
    }
}
