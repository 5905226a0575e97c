using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

public sealed unsafe partial class TranslatorVcpu
{
    private const int MaxRetired = 16;

    private readonly Dictionary<ulong, CodePage> _pages = [];
    private readonly Dictionary<ulong, int> _modeSlots = [];
    private readonly ulong[] _slotOwner = new ulong[Layout.JumpCaches];
    private readonly bool[] _slotFilled = new bool[Layout.JumpCaches];
    private readonly bool[] _slotNonGlobal = new bool[Layout.JumpCaches];
    private TranslationMode _mode;
    private int _slotIndex;
    private int _otherSlot;
    private bool _stepping;
    private bool _faulted;

    /// <summary>Translated blocks so far, and flushes of the whole cache.</summary>
    internal long TranslatedBlocks { get; private set; }

    internal long CacheFlushes { get; private set; }

    /// <summary>Index in a jump cache; generated code computes the same (BlockTranslator.EmitJumpIndex).</summary>
    internal static int JumpIndex(ulong rip) => (int)(rip + (rip >> 12)) & Layout.JumpEntries - 1;

    private byte** JumpEntry(int slot, int index) => (byte**)(_block + Layout.Jump + slot * Layout.JumpCache) + index;

    /// <summary>Entries that were set, by slot: what a flush has to undo.</summary>
    private readonly List<int>[] _jumpsSet = [.. Enumerable.Range(0, Layout.JumpCaches).Select(_ => new List<int>())];

    private const int MaxJumpsSet = Layout.JumpEntries / 4;

    private void ClearJumpCache(int slot)
    {
        byte* lookup = CodeArena.Stubs.LookupRbp;
        var set = _jumpsSet[slot];
        if (_slotFilled[slot] && set.Count < MaxJumpsSet)
        {
            foreach (int index in set)
                *JumpEntry(slot, index) = lookup;
        }
        else
        {
            new Span<nint>(JumpEntry(slot, 0), Layout.JumpEntries).Fill((nint)lookup);
            _slotFilled[slot] = true;
        }
        set.Clear();
        _slotNonGlobal[slot] = false;
    }

    private void ClearJumpCaches()
    {
        for (int i = 0; i < Layout.JumpCaches; i++)
        {
            if (_slotFilled[i])
                ClearJumpCache(i);
        }
    }

    internal void FlushJumpCaches(bool includeGlobal)
    {
        for (int i = 0; i < Layout.JumpCaches; i++)
        {
            if (includeGlobal ? _jumpsSet[i].Count > 0 : _slotNonGlobal[i])
                ClearJumpCache(i);
        }
    }

    private void UpdateMode(bool step)
    {
        ResolvePointers();
        _codeSelector = _c->Cs.Selector;
        _stepping = step;
        bool watches = DebugRegisters.AnyDataBreakpoint(_c);
        if (watches != WatchesData)
        {
            WatchesData = watches;
            Memory.FlushTlb(true);
        }
        _mode = TranslationMode.From(_c, step);
        NoteCodeLimit();
        _c->ModeKey = _mode.Key;
        Memory.ModeIsCurrent();
        if (_slotOwner[_otherSlot] == _mode.Key)
        {
            // Two modes alternate: program and kernel.
            (_slotIndex, _otherSlot) = (_otherSlot, _slotIndex);
            return;
        }
        if (_slotOwner[_slotIndex] == _mode.Key)
            return;
        _otherSlot = _slotIndex;
        if (!_modeSlots.TryGetValue(_mode.Key, out _slotIndex))
        {
            _slotIndex = _modeSlots.Count % Layout.JumpCaches;
            _modeSlots.Add(_mode.Key, _slotIndex);
        }
        if (_slotOwner[_slotIndex] != _mode.Key)
        {
            ClearJumpCache(_slotIndex);
            _slotOwner[_slotIndex] = _mode.Key;
        }
    }

    private readonly Dictionary<ulong, List<uint>> _codeLimits = [];
    private uint _codeLimit;

    /// <summary>Code knows the limit of its segment: of those below 4 GiB that a mode has met, its key has the number.</summary>
    private void NoteCodeLimit()
    {
        _codeLimit = _c->Cs.Limit;
        if (_mode.Segment(1) is SegmentClass.Flat or SegmentClass.Based)
            return;
        if (!_codeLimits.TryGetValue(_mode.Key, out var known))
            _codeLimits.Add(_mode.Key, known = []);
        int number = known.IndexOf(_codeLimit);
        if (number < 0)
        {
            if (known.Count == TranslationMode.CodeLimits)
            {
                ForgetAllCode();
                known.Clear();
            }
            number = known.Count;
            known.Add(_codeLimit);
        }
        _mode = _mode.WithCodeLimit(number);
    }

    /// <summary>Instructions can be at an offset in the code segment.</summary>
    private bool IsInCode(ulong rip) => _mode.Is64 ? MemoryUnit.IsCanonical(rip) : rip <= _c->Cs.Limit;

    /// <summary>An indirect branch has gone where nothing can be: it faults instead, as if it had done nothing (Intel SDM 2, JMP, CALL, RET).</summary>
    private void RefuseBranch()
    {
        ref readonly var at = ref _translator.GetSite(_c->BranchSite);
        _c->Rip = at.Rip;
        ulong old = _c->Gpr[4], moved = old - (ulong)(int)at.Info;
        _c->Gpr[4] = _mode.Is64 ? moved : _mode.Stack32 ? (uint)moved : old & ~0xFFFFUL | (ushort)moved;
        DeliverFault(13, 0);
    }

    /// <summary>Code for the present RIP, entered with RIP in RBP: what the jump cache has may be for another RIP, and then comes back
    /// for <see cref="LookUpCode"/>.</summary>
    private byte* FindCode()
    {
        if (_mode.Is64 && !_stepping && MemoryUnit.IsCanonical(_c->Rip))
        {
            byte* entry = *JumpEntry(_slotIndex, JumpIndex(_c->Rip));
            if (entry != CodeArena.Stubs.LookupRbp)
                return entry;
        }
        return LookUpCode();
    }

    /// <summary>Code for the present RIP: known, or translated now; null when a fault was delivered instead.</summary>
    private byte* LookUpCode()
    {
        var block = FindBlock(out bool global);
        if (block == null)
            return null;
        if (block.SecondPage < 0 && !_stepping && !block.Uncached)
        {
            int index = JumpIndex(block.Rip);
            *JumpEntry(_slotIndex, index) = block.CheckedEntry;
            if (_jumpsSet[_slotIndex].Count < MaxJumpsSet)
                _jumpsSet[_slotIndex].Add(index);
            if (!global)
                _slotNonGlobal[_slotIndex] = true;
        }
        return block.Code;
    }

    private const int RecentPages = 256;
    private readonly (ulong Page, CodePage? Code)[] _recentPages = new (ulong, CodePage?)[RecentPages];

    private CodePage? FindPage(ulong page)
    {
        ref var recent = ref _recentPages[page >> 12 & RecentPages - 1];
        if (recent.Page == page && recent.Code != null)
            return recent.Code;
        if (_pages.TryGetValue(page, out var known))
            recent = (page, known);
        return known;
    }

    private Block? FindBlock(out bool global)
    {
        ulong rip = _c->Rip;
        ulong linear = rip + _c->Cs.Base;
        global = false;
        if (!_mode.Is64)
        {
            linear = (uint)linear;
            if (rip > _c->Cs.Limit)
            {
                FetchFault(13, 0);
                return null;
            }
        }
        if (!Memory.Fetch(linear, out byte* page, out global, out ulong physical, out byte vector, out uint code))
        {
            FetchFault(vector, code);
            return null;
        }
        if (page == null)
            return TranslateFromDevice(rip, physical);
        if (FindPage((ulong)page)?.Find(rip, _mode.Key) is { } block)
        {
            if (block.SecondPage < 0)
                return block;
            if (!Memory.Fetch((linear & ~0xFFFUL) + 4096, out byte* second, out _, out _, out vector, out code))
            {
                FetchFault(vector, code);
                return null;
            }
            if ((long)second == block.SecondPage)
                return block;
        }
        return Translate(rip, linear, page, BlockKind.Normal, false);
    }

    /// <summary>Code for the present RIP that looks at each access by itself.</summary>
    private Block? FindCareful()
    {
        ulong rip = _c->Rip;
        ulong linear = rip + _c->Cs.Base;
        if (!Memory.Fetch(linear, out byte* page, out _, out _, out byte vector, out uint code))
        {
            FetchFault(vector, code);
            return null;
        }
        if (page == null)
            return FindBlock(out _);
        return FindPage((ulong)page)?.Find(rip, _mode.Key | BlockTranslator.CarefulKey) ?? Translate(rip, linear, page, BlockKind.Normal, true);
    }

    /// <summary>The jump from a loop's end to its head: after some rounds the block is translated anew, with several rounds in it.</summary>
    private byte* LinkLoop(byte* data)
    {
        byte* fix = data - *(int*)data;
        int* rounds = (int*)(data + 12);
        _c->Rip = *(ulong*)(data + 4);
        long flushes = CacheFlushes;
        var block = FindBlock(out _);
        if (block == null)
            return null;
        if (block.SecondPage >= 0 || block.Uncached || --*rounds > 0)
            return block.Code;
        if (!block.IsLoop)
        {
            Retire(block, _pages[block.PhysicalPage]);
            _pages[block.PhysicalPage].Remove([block]);
            block = Translate(block.Rip, block.Rip + _c->Cs.Base, (byte*)block.PhysicalPage, BlockKind.Loop, false);
            if (block == null)
                return null;
        }
        if (flushes == CacheFlushes && !block.Uncached)
            Emitter.Fix(fix, block.Code);
        return block.Code;
    }

    private byte* LinkCareful(byte* data)
    {
        byte* fix = data - *(int*)data;
        _c->Rip = *(ulong*)(data + 4);
        long flushes = CacheFlushes;
        var block = FindCareful();
        if (block == null)
            return null;
        if (flushes == CacheFlushes && block.SecondPage < 0 && !block.Uncached)
            Emitter.Fix(fix, block.Code);
        return block.Code;
    }

    private void FetchFault(byte vector, uint code)
    {
        _faulted = true;
        Exceptions.Deliver(_c, Memory, vector, code);
    }

    private Block? Translate(ulong rip, ulong linear, byte* page, BlockKind kind, bool careful)
    {
        if (_translator.IsFull)
            ForgetAllCode();
        bool keep = ProtectCode(page);
        int offset = (int)(linear & 0xFFF);
        int available = 4096 - offset;
        if (!_mode.Is64)
            available = (int)Math.Min((ulong)available, (ulong)_c->Cs.Limit - rip + 1);
        var block = _translator.Translate(
            rip, _mode, _codeLimit, _slotIndex, page + offset, available, (ulong)page, offset, keep ? kind : BlockKind.Alone, careful);
        if (block == null)
        {
            // The instruction goes on in the next page.
            if (available < 4096 - offset)
            {
                FetchFault(13, 0);
                return null;
            }
            ulong nextLinear = linear - (ulong)offset + 4096;
            if (!_mode.Is64)
                nextLinear = (uint)nextLinear;
            if (!Memory.Fetch(nextLinear, out byte* second, out _, out ulong physical, out byte vector, out uint code))
            {
                FetchFault(vector, code);
                return null;
            }
            if (second != null)
                keep &= ProtectCode(second);
            byte* bytes = stackalloc byte[32];
            new ReadOnlySpan<byte>(page + offset, available).CopyTo(new Span<byte>(bytes, 16));
            if (second != null)
                new ReadOnlySpan<byte>(second, 16).CopyTo(new Span<byte>(bytes + available, 16));
            else
                ReadDevice(physical & ~0xFFFUL, bytes + available);
            block = _translator.Translate(rip, _mode, _codeLimit, _slotIndex, bytes, available + 16, (ulong)page, offset, BlockKind.Alone, careful);
            if (block == null)
            {
                FetchFault(13, 0);
                return null;
            }
            block.SecondPage = (long)second;
            if (second != null && keep)
                Register((ulong)second, block);
        }
        block.Uncached = !keep;
        if (keep)
            Register((ulong)page, block);
        TranslatedBlocks++;
        return block;
    }

    private void ReadDevice(ulong physical, byte* to)
    {
        for (int i = 0; i < 16; i++)
            to[i] = (byte)_bus.MmioRead(physical + (ulong)i, 1);
    }

    /// <summary>Code in a device's memory: read and translated each time.</summary>
    private Block? TranslateFromDevice(ulong rip, ulong physical)
    {
        if (_translator.IsFull)
            ForgetAllCode();
        byte* bytes = stackalloc byte[16];
        ReadDevice(physical, bytes);
        var block = _translator.Translate(rip, _mode, _codeLimit, _slotIndex, bytes, 16, ulong.MaxValue, (int)(physical & 0xFFF),
            BlockKind.Alone, false);
        if (block == null)
            FetchFault(13, 0);
        else
            block.Uncached = true;
        return block;
    }

    private void Register(ulong page, Block block)
    {
        if (!_pages.TryGetValue(page, out var codePage))
            _pages.Add(page, codePage = new CodePage());
        var key = (block.Rip, block.ModeKey);
        CoverBy(codePage, page, block);
        if (page == block.PhysicalPage)
        {
            codePage.Add(block);
            if (block.SecondPage < 0 && codePage.HasRetired && codePage.Retired.TryGetValue(key, out var retired))
            {
                foreach (var old in retired)
                    Redirect(old, block.Code);
            }
        }
        else
        {
            codePage.Crossing.RemoveAll(b => b.Rip == block.Rip && b.ModeKey == block.ModeKey);
            codePage.Crossing.Add(block);
        }
    }

    private static void CoverBy(CodePage codePage, ulong page, Block block)
    {
        if (page == block.PhysicalPage)
            codePage.Cover(block.Start, block.End);
        else
            codePage.Cover(0, block.End - 4096);
    }

    private static void Redirect(Block block, byte* to)
    {
        *block.Code = 0xE9;
        Emitter.Fix(block.Code + 1, to);
    }

    internal Block? FindKnownBlock(ulong page, ulong rip, ulong modeKey) =>
        FindPage(page)?.Find(rip, modeKey) is { SecondPage: < 0 } block ? block : null;

    /// <summary>Resolves a direct jump and patches it. <paramref name="data"/> lies behind the call of the chain stub.</summary>
    private byte* Link(byte* data)
    {
        byte* fix = data - *(int*)data;
        ulong rip = *(ulong*)(data + 4);
        _c->Rip = rip;
        long flushes = CacheFlushes;
        var block = FindBlock(out _);
        if (block == null)
            return null;
        if (flushes == CacheFlushes && block.SecondPage < 0 && !block.Uncached && !_stepping)
            Emitter.Fix(fix, block.Code);
        return block.Code;
    }

    /// <summary>Drops the blocks that bytes of a page belong to.</summary>
    internal void InvalidateCode(ulong page, int start, int end)
    {
        if (!_pages.TryGetValue(page, out var known))
        {
            _engine.CodePages.Clear(page, Index);
            return;
        }
        if (!known.IsCovered(start, end))
            return;
        List<Block>? hit = null;
        foreach (var block in known.All())
        {
            bool overlaps = block.PhysicalPage == page ? block.Start < end && block.End > start : start < block.End - 4096;
            if (overlaps)
                (hit ??= []).Add(block);
        }
        if (hit == null)
            return;
        foreach (var block in hit)
        {
            if (_pages.TryGetValue(block.PhysicalPage, out var first))
            {
                if (first != known)
                    first.Remove([block]);
                Retire(block, first);
            }
            if (block.SecondPage > 0 && _pages.TryGetValue((ulong)block.SecondPage, out var second))
                second.Crossing.Remove(block);
        }
        known.Remove(hit);
        known.ClearCover();
        foreach (var block in known.All())
            CoverBy(known, page, block);
        if (!known.All().Any())
            _engine.CodePages.Clear(page, Index);
        _c->PendingStore |= 2;
    }

    /// <summary>Sends a block's entry to its retired end, until the same is translated again.</summary>
    private void Retire(Block block, CodePage page)
    {
        Redirect(block, block.Retired);
        if (_modeSlots.TryGetValue(block.ModeKey, out int slot))
        {
            byte** entry = JumpEntry(slot, JumpIndex(block.Rip));
            if (*entry == block.CheckedEntry)
                *entry = CodeArena.Stubs.LookupRbp;
        }
        var key = (block.Rip, block.ModeKey);
        if (!page.Retired.TryGetValue(key, out var list))
            page.Retired.Add(key, list = []);
        // What was retired long ago goes on by way of what replaced it.
        if (list.Count == MaxRetired)
            list.RemoveAt(0);
        list.Add(block);
    }

    /// <summary>Empties the code cache.</summary>
    private void ForgetAllCode()
    {
        ResolvePointers();
        CacheFlushes++;
        foreach (ulong page in _pages.Keys)
            _engine.CodePages.Clear(page, Index);
        _pages.Clear();
        Array.Clear(_recentPages);
        ClearJumpCaches();
        _translator.Reset();
    }
}
