using System.Numerics;
using Iced.Intel;

namespace ImgKit.Cpu.Translator;

internal sealed unsafe partial class BlockTranslator
{
    /// <summary>A guest memory operand. Registers are guest numbers, -1 for none.</summary>
    private readonly record struct MemoryOperand(int Base, int Index, int Shift, long Displacement, int Segment, int AddressBits);

    /// <summary>Rounds after which a loop is translated as one.</summary>
    private const int LoopRounds = 16;

    private enum ColdKind
    {
        Access,
        SegmentAccess,
        Window,
        Chain,
        Loop,
        FarChain,
        Poll,
        PollRbp,
        Interpret,
        BadTarget,
    }

    private struct Cold
    {
        public ColdKind Kind;
        public byte* Fix;
        public byte* OpStart;
        public byte* OpEnd;
        public uint Site;

        /// <summary>Tag array whose entry has been added to RBP, 0 for none.</summary>
        public int Tag;

        /// <summary>Address that is not in RBP yet, where <see cref="IsConstant"/>.</summary>
        public ulong Address;
        public bool IsConstant;
        public int Span;
        public bool Write;
        public bool Faultable;
        public ulong Rip;

        /// <summary>What the place of a faultable instruction is marked with.</summary>
        public X87Note Note;

        /// <summary>The guest's flags are spared.</summary>
        public bool Spared;

        /// <summary>The instruction that makes the guest's flags again, from 1 on; 0 for none.</summary>
        public int Repeated;

        /// <summary>The operation makes all flags.</summary>
        public bool MakesFlags;
    }

    private readonly List<Cold> _cold = [];
    private int _openCold;

    /// <summary>C# executes the present instruction where its operand is not in the TLB.</summary>
    private bool _interpretMiss;

    /// <summary>Log2 of the alignment of the present instruction's operand, where checks are on; -1: it is as large as it is aligned.</summary>
    private int _alignment = -1;

    /// <summary><see cref="Site.Aligned"/>, or 0.</summary>
    private uint _demands;

    /// <summary>Elements that the mask leaves out do not fault.</summary>
    private static bool IsMaskedMove(in Instruction instruction) =>
        instruction.Mnemonic is Mnemonic.Vmaskmovps or Mnemonic.Vmaskmovpd or Mnemonic.Vpmaskmovd or Mnemonic.Vpmaskmovq;
    private Site[] _sites = new Site[4096];
    private int _siteCount;
    private Instruction[] _interpreted = new Instruction[1024];
    private int _interpretedCount;

    public ref readonly Site GetSite(uint index) => ref _sites[index];

    public ref readonly Instruction GetInterpreted(int index) => ref _interpreted[index];

    private uint NewSite(uint info, bool interpreted = false)
    {
        if (_siteCount == _sites.Length)
            Array.Resize(ref _sites, _siteCount * 2);
        ref var instruction = ref _instructions[_current];
        int index = -1;
        if (interpreted)
        {
            if (_interpretedCount == _interpreted.Length)
                Array.Resize(ref _interpreted, _interpretedCount * 2);
            index = _interpretedCount++;
            _interpreted[index] = instruction;
        }
        _sites[_siteCount] = new Site
        {
            Rip = instruction.IP & _mode.RipMask,
            NextRip = instruction.NextIP & _mode.RipMask,
            Info = _flagsSpared ? info | Site.Spared : info,
            Instruction = index,
        };
        return (uint)_siteCount++;
    }

    private MemoryOperand OperandOf(in Instruction instruction)
    {
        int segment = SegmentNumber(instruction.MemorySegment);
        if (instruction.IsIPRelativeMemoryOperand)
        {
            long target = (long)instruction.IPRelativeMemoryAddress;
            return new MemoryOperand(-1, -1, 0, target, segment, 64);
        }
        int bits = instruction.MemoryBase != Register.None ? instruction.MemoryBase.GetSize() * 8 :
            instruction.MemoryIndex != Register.None ? instruction.MemoryIndex.GetSize() * 8 :
            instruction.MemoryDisplSize switch { 2 => 16, 4 => _mode.Is64 ? 64 : 32, 8 => 64, _ => _mode.CodeBits };
        int shift = instruction.MemoryIndexScale switch { 2 => 1, 4 => 2, 8 => 3, _ => 0 };
        return new MemoryOperand(
            instruction.MemoryBase == Register.None ? -1 : GuestNumber(instruction.MemoryBase),
            instruction.MemoryIndex == Register.None ? -1 : GuestNumber(instruction.MemoryIndex),
            shift, (long)instruction.MemoryDisplacement64, segment, bits);
    }

    private static int SegmentNumber(Register segment) => segment switch
    {
        Register.ES => 0,
        Register.CS => 1,
        Register.SS => 2,
        Register.DS => 3,
        Register.FS => 4,
        _ => 5,
    };

    /// <summary>Effective address (without segment base) to RBP; clobbers RCX, no flags.</summary>
    private void EmitEffectiveAddress(in MemoryOperand m)
    {
        bool wide = m.AddressBits == 64;
        int displacement = (int)m.Displacement;
        if (m.Base < 0 && m.Index < 0)
        {
            _e.MovImmediate(Host.Rbp, ConstantAddress(m));
            return;
        }
        int baseRegister = -1, index = -1;
        if (m.Base >= 0)
        {
            baseRegister = Host.OfGuest[m.Base];
            if (baseRegister == Host.Spilled)
            {
                _e.LoadGs(Host.Rbp, Layout.Gpr(m.Base));
                baseRegister = Host.Rbp;
            }
        }
        if (m.Index >= 0)
        {
            index = Host.OfGuest[m.Index];
            if (index == Host.Spilled)
            {
                _e.LoadGs(Host.Rcx, Layout.Gpr(m.Index));
                index = Host.Rcx;
            }
        }
        if (index < 0 && displacement == 0)
            _e.MovRr(Host.Rbp, baseRegister, wide);
        else if (baseRegister < 0)
            _e.LeaIndex(Host.Rbp, index, m.Shift, displacement, wide);
        else
            _e.Lea(Host.Rbp, baseRegister, index, m.Shift, displacement, wide);
        if (m.AddressBits == 16)
            _e.MovzxWord(Host.Rbp, Host.Rbp);
    }

    /// <summary>
    /// Makes <see cref="_at"/> ([RBP + RCX], mostly) the host address of a guest operand. What is emitted until
    /// <see cref="EndMemory"/> is the operation: it is position-independent, finishes the instruction, and is emitted a second time for stores on the slow path.
    /// Clobbers flags only where the guest's are dead.
    /// </summary>
    private void BeginMemory(in MemoryOperand m, int size, bool write, bool locked = false, bool leaves = false)
    {
        if (BeginWindow(m))
            return;
        if (m.Base < 0 && m.Index < 0 && BeginConstant(m, size, write, locked, leaves))
            return;
        EmitEffectiveAddress(m);
        BeginMemoryAtRbp(m.Segment, m.AddressBits, size, write, locked, leaves);
    }

    private void BeginMemoryAtRbp(int segment, int addressBits, int size, bool write, bool locked = false, bool leaves = false)
    {
        ForgetWindowRegisters();
        if (!_mode.ChecksAlignment)
            SpareFlags();
        uint site = NewAccessSite(segment, size, write, locked, leaves);
        _openCold = _cold.Count;
        EmitSegment(segment, addressBits, size, write, site);
        var cold = _interpretMiss
            ? new Cold { Kind = ColdKind.Interpret, Site = NewSite(0, interpreted: true) }
            : new Cold { Kind = ColdKind.Access, Site = site, Write = write };
        if (_mode.ChecksAlignment)
        {
            _at = (Host.Rbp, Host.Rcx, 0);
            cold.Fix = _e.JmpForward();
        }
        else
        {
            EmitLookup(ref cold, size, write);
        }
        _cold.Add(cold);
        for (int i = _openCold; i < _cold.Count; i++)
        {
            var item = _cold[i];
            item.OpStart = _e.P;
            _cold[i] = item;
        }
    }

    private uint NewAccessSite(int segment, int size, bool write, bool locked, bool leaves)
    {
        int alignment = _alignment >= 0 ? _alignment : BitOperations.Log2((uint)size);
        return NewSite((uint)size | (write ? Site.Write : 0) | (locked ? Site.Locked : 0) | (leaves ? Site.Leaves : 0) |
            (uint)segment << 12 | (uint)alignment << Site.AlignmentShift | _demands);
    }

    /// <summary>Looks the linear address in RBP up: <see cref="_at"/> is RBP + RCX then.</summary>
    private void EmitLookup(ref Cold cold, int span, bool write)
    {
        int tag = Layout.TlbTag(_mode.TlbSet, write);
        _at = (Host.Rbp, Host.Rcx, 0);
        if (!_flagsLive[_current])
        {
            _e.PageIndex(Host.Rcx, Host.Rbp);
            _e.GsIndexed(0x03, Host.Rbp, Host.Rcx, true, tag, true);
            _e.CmpImmediate(Host.Rbp, 4096 - span, true);
            cold.Fix = _e.JccForward(7);
            cold.Tag = tag;
            _e.GsIndexed(0x8B, Host.Rcx, Host.Rcx, true, Layout.TlbHost(_mode.TlbSet, write), true);
            return;
        }
        _e.ShiftPage(Host.Rcx, Host.Rbp);
        _e.MovzxByte(Host.Rcx, Host.Rcx);
        _e.GsIndexed(0x8B, Host.Rcx, Host.Rcx, true, tag, true);
        _e.Lea(Host.Rcx, Host.Rcx, Host.Rbp, 0, span - 1, true);
        _e.ShiftPage(Host.Rcx, Host.Rcx);
        JumpUnlessRcxIsZero(ref cold);
        _e.ShiftPage(Host.Rcx, Host.Rbp);
        _e.MovzxByte(Host.Rcx, Host.Rcx);
        _e.GsIndexed(0x8B, Host.Rcx, Host.Rcx, true, Layout.TlbAddend(_mode.TlbSet, write), true);
    }

    private void JumpUnlessRcxIsZero(ref Cold cold)
    {
        byte* hit = _e.JrcxzForward();
        cold.Fix = _e.JmpForward();
        _e.FixShortHere(hit);
    }

    /// <summary>An address that is known, so that its TLB entry is, and that it lies in one page.</summary>
    private bool BeginConstant(in MemoryOperand m, int size, bool write, bool locked, bool leaves)
    {
        ulong address = ConstantAddress(m), page = address & ~0xFFFUL;
        int offset = (int)(address & 0xFFF), entry = (int)(address >> 12) & Layout.TlbEntries - 1;
        bool throughCode = !_mode.Is64 && m.Segment == 1 && write;
        if (_mode.Segment(m.Segment) != SegmentClass.Flat || throughCode || offset + size > 4096 || _mode.ChecksAlignment)
            return false;
        ForgetWindowRegisters();
        SpareFlags();
        int tag = Layout.TlbTag(_mode.TlbSet, write) + entry * 8;
        var cold = _interpretMiss
            ? new Cold { Kind = ColdKind.Interpret, Site = NewSite(0, interpreted: true) }
            : new Cold { Kind = ColdKind.Access, Site = NewAccessSite(m.Segment, size, write, locked, leaves), Write = write };
        cold.Address = address;
        cold.IsConstant = true;
        bool isShort = (long)page == (int)page && (int)page != int.MinValue;
        if (!isShort)
            _e.MovImmediate(Host.Rbp, page);
        if (_flagsLive[_current])
        {
            _e.LoadGs(Host.Rcx, tag);
            if (isShort)
                _e.Lea(Host.Rcx, Host.Rcx, -1, 0, (int)page, true);
            else
                _e.Lea(Host.Rcx, Host.Rcx, Host.Rbp, 0, 0, true);
            JumpUnlessRcxIsZero(ref cold);
        }
        else if (isShort)
        {
            _e.Gs(0x81, 7, tag, true); // cmp qword gs:[tag],imm32
            _e.Int32(-(int)page);
            cold.Fix = _e.JccForward(5);
        }
        else
        {
            _e.Gs(0x03, Host.Rbp, tag, true);
            cold.Fix = _e.JccForward(5);
        }
        _e.LoadGs(Host.Rbp, Layout.TlbHost(_mode.TlbSet, write) + entry * 8);
        cold.OpStart = _e.P;
        _at = (Host.Rbp, -1, offset);
        _openCold = _cold.Count;
        _cold.Add(cold);
        return true;
    }

    private static ulong ConstantAddress(in MemoryOperand m) => m.AddressBits switch
    {
        16 => (ushort)m.Displacement,
        32 => (uint)m.Displacement,
        _ => (ulong)m.Displacement,
    };

    /// <summary>Limit check and base of a segment; RBP from offset to linear address.</summary>
    private void EmitSegment(int segment, int addressBits, int size, bool write, uint site)
    {
        var kind = _mode.Segment(segment);
        if (!_mode.Is64 && segment == 1 && write && _mode.Protected)
        {
            _cold.Add(new Cold { Kind = ColdKind.SegmentAccess, Site = site, Write = write, Fix = _e.JmpForward() });
        }
        else if (kind == SegmentClass.Checked || kind == SegmentClass.Based64K && (addressBits != 16 || size > 1))
        {
            if (kind == SegmentClass.Based64K && addressBits == 16)
            {
                // Only an access that starts below 64 KiB and ends above can be outside.
                _e.Lea(Host.Rcx, Host.Rbp, -1, 0, size - 1 - 0x10000, true);
            }
            else
            {
                _e.LoadGs(Host.Rcx, Layout.SegmentCheck(segment));
                _e.Lea(Host.Rcx, Host.Rcx, Host.Rbp, 0, size - 1, true);
            }
            _e.Rorx(Host.Rcx, Host.Rcx, 48, true);
            _e.MovzxWord(Host.Rcx, Host.Rcx);
            byte* bad = _e.JrcxzForward();
            byte* good = _e.JmpShortForward();
            _e.FixShortHere(bad);
            _cold.Add(new Cold { Kind = ColdKind.SegmentAccess, Site = site, Write = write, Fix = _e.JmpForward() });
            _e.FixShortHere(good);
        }
        if (kind != SegmentClass.Flat)
        {
            _e.LoadGs(Host.Rcx, Layout.SegmentBase(segment), _mode.Is64);
            _e.Lea(Host.Rbp, Host.Rbp, Host.Rcx, 0, 0, _mode.Is64);
        }
    }

    /// <summary>The operand that <see cref="BeginMemory"/> opened, in host registers.</summary>
    private (int Base, int Index, int Displacement) _at;

    /// <summary>Folds the operand's address into RBP alone, so that RCX is free.</summary>
    private void FoldMemory()
    {
        ForgetWindowRegisters();
        _e.Lea(Host.Rbp, _at.Base, _at.Index, 0, _at.Displacement, true);
        _at = (Host.Rbp, -1, 0);
    }

    private void EndMemory(bool faultable = false)
    {
        for (int i = _openCold; i < _cold.Count; i++)
        {
            var item = _cold[i];
            item.OpEnd = _e.P;
            item.Faultable = faultable;
            item.Rip = _instructions[_current].IP & _mode.RipMask;
            item.Note = faultable ? NoteHere : default;
            item.Repeated = _flagsRepeated + 1;
            item.MakesFlags = _flagEffects[_current] == FlagEffect.All;
            _cold[i] = item;
        }
    }

    /// <summary>RBP as it was before the lookup.</summary>
    private void UndoTag(in Cold item)
    {
        if (item.Tag != 0)
            _e.GsIndexed(0x2B, Host.Rbp, Host.Rcx, true, item.Tag, true);
        else if (item.IsConstant)
            _e.MovImmediate(Host.Rbp, item.Address);
    }

    private void EmitCold()
    {
        for (int i = 0; i < _cold.Count; i++)
        {
            var item = _cold[i];
            _e.FixHere(item.Fix);
            switch (item.Kind)
            {
                case ColdKind.Access:
                case ColdKind.SegmentAccess:
                    UndoTag(item);
                    EmitFlagsOf(item);
                    if (item.Kind == ColdKind.Access && _mode.ChecksAlignment)
                    {
                        _e.MovImmediate(Host.Rcx, item.Site);
                        _e.Call(_stubs.CheckedAccess);
                    }
                    else if (item.Kind == ColdKind.Access)
                    {
                        _e.MovImmediate(Host.Rcx, item.Site | ((_sites[item.Site].Info & 0xFF) - 1) << Stubs.SiteBits);
                        _e.Call((byte*)_stubs.SlowAccess[_mode.TlbSet * 2 + (item.Write ? 1 : 0)]);
                    }
                    else
                    {
                        _e.MovImmediate(Host.Rcx, item.Site);
                        _e.Call(_stubs.SlowSegment);
                    }
                    if (item.IsConstant)
                        _e.Lea(Host.Rbp, Host.Rbp, -1, 0, -(int)(item.Address & 0xFFF), true);
                    if (!item.Write)
                    {
                        _e.Jmp(item.OpStart);
                        break;
                    }
                    if (item.Faultable)
                        MarkFaultable(_e.P, item.Rip, item.Note);
                    _e.Bytes(new ReadOnlySpan<byte>(item.OpStart, (int)(item.OpEnd - item.OpStart)));
                    _e.MovImmediate(Host.Rcx, item.Site | (item.MakesFlags ? 1u << Stubs.SiteBits : 0));
                    _e.Call(_stubs.CompleteStore);
                    _e.Jmp(item.OpEnd);
                    break;
                case ColdKind.Window:
                    EmitColdWindow(item);
                    break;
                case ColdKind.Chain:
                    _e.Call(_stubs.Chain);
                    _e.Int32((int)(_e.P - item.Fix));
                    _e.Int64(item.Rip);
                    break;
                case ColdKind.Loop:
                    _e.Call(_stubs.ChainLoop);
                    _e.Int32((int)(_e.P - item.Fix));
                    _e.Int64(item.Rip);
                    _e.Int32(LoopRounds);
                    break;
                case ColdKind.FarChain:
                    EmitLookupConstant(item.Rip);
                    break;
                case ColdKind.Poll:
                    EmitFlagsOf(item);
                    EmitDataCall(_stubs.Poll, item.Rip);
                    break;
                case ColdKind.PollRbp:
                    _e.Jmp(_stubs.PollRbp);
                    break;
                case ColdKind.BadTarget:
                    _e.MovImmediate(Host.Rcx, item.Site);
                    _e.Call(_stubs.Raise);
                    break;
                case ColdKind.Interpret:
                    EmitFlagsOf(item);
                    _e.MovImmediate(Host.Rcx, item.Site);
                    _e.Call(_stubs.Interpret);
                    _e.Jmp(item.OpEnd);
                    break;
            }
        }
    }

    private void EmitDataCall(byte* stub, ulong rip)
    {
        _e.Call(stub);
        _e.Int64(rip);
    }
}
