using System.Runtime.CompilerServices;
using ImgKit.Cpu.Architecture;
using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Translator;

/// <summary>
/// Memory as one vCPU sees it: the soft TLB that generated code looks into, its refill by page walks, MMIO, and the accesses of
/// the C# semantics.
/// </summary>
internal sealed unsafe partial class MemoryUnit : CpuServices
{
    private readonly TranslatorEngine _engine;
    private readonly TranslatorVcpu _vcpu;
    private readonly CpuContext* _c;
    private readonly byte* _block;

    // Instruction fetches: linear page (with 1 in bit 0 for user), host page, global.
    private const int FetchEntries = 256;
    private readonly ulong[] _fetchTag = new ulong[FetchEntries];
    private readonly ulong[] _fetchHost = new ulong[FetchEntries];
    private readonly bool[] _fetchGlobal = new bool[FetchEntries];

    // The slow access under way.
    private ulong _pendingLinear;
    private bool _gateHeld;

    public MemoryUnit(TranslatorEngine engine, TranslatorVcpu vcpu, CpuModel model, IVcpuBus bus, byte* block)
    {
        _engine = engine;
        _vcpu = vcpu;
        _block = block;
        _c = (CpuContext*)block;
        Model = model;
        Bus = bus;
        ClearTlb();
        ClearSecond();
        *(uint**)(_block + Layout.CodeMasks) = engine.CodePages.Masks;
        Array.Fill(_fetchTag, ulong.MaxValue);
    }

    public override CpuContext* Context => _c;

    public override CpuModel Model { get; }

    public override IVcpuBus Bus { get; }

    public override Vcpu Vcpu => _vcpu;

    /// <summary>The memory that this CPU sees now. Whoever changes <see cref="CpuContext.InSmm"/> flushes the TLB.</summary>
    private PhysicalMemoryMap Map => _c->InSmm != 0 ? _engine.MemoryInSmm : _engine.Memory;

    /// <summary>Set when translations were dropped: the code under way must not go on to the next instruction by itself.</summary>
    public bool Flushed { get; set; }

    public bool ModeIsStale { get; private set; } = true;

    public override void ModeChanged() => ModeIsStale = true;

    public void ModeIsCurrent() => ModeIsStale = false;

    private bool IsLong => (_c->Efer & 1 << 10) != 0;

    internal static bool IsCanonical(ulong linear) => (ulong)((long)linear >> 47) + 1 <= 1;

    private PageAccess AccessOf(bool write, LinearAccess access) =>
        (write ? PageAccess.Write : PageAccess.Read) |
        (access == LinearAccess.System ? PageAccess.Implicit : _c->Cpl == 3 ? PageAccess.User : 0);

    /// <summary>Where one page's worth of an access goes: host memory, or a device (host null).</summary>
    private struct Place
    {
        public byte* Host;
        public ulong Physical;
        public int Size;
    }

    /// <summary>Finds the memory behind an access that does not cross a page.</summary>
    /// <returns>false: fault, in vector and code.</returns>
    private bool Locate(ulong linear, int size, bool write, LinearAccess access, out Place place, out byte vector, out uint code)
    {
        place = default;
        vector = 14;
        if (IsLong)
        {
            if (!IsCanonical(linear))
            {
                vector = 13;
                code = 0;
                return false;
            }
        }
        else
        {
            linear = (uint)linear;
        }
        if (!PageWalker.Translate(_c, this, linear, AccessOf(write, access), out var t))
        {
            _c->Cr2 = linear;
            code = t.ErrorCode;
            return false;
        }
        code = 0;
        if (access == LinearAccess.Program && _vcpu.WatchesData)
            _vcpu.NoteBreakpoint(DebugRegisters.MatchData(_c, linear, size, write));
        ulong physical = t.Physical & _c->A20Mask;
        place.Physical = physical;
        place.Size = size;
        if (!Map.TryFind(physical, out var region) || write && region.Kind != MemoryKind.Ram)
            return true;
        byte* host = (byte*)region.HostAddress + (physical - region.Start);
        place.Host = host;
        byte* hostPage = (byte*)((ulong)host & ~0xFFFUL);
        if (write)
        {
            if (region.DirtyLog != 0)
                *((byte*)region.DirtyLog + ((physical - region.Start) >> 12)) = 1;
            if (_engine.CodePages.Get((ulong)hostPage) != 0)
            {
                // Not through the TLB as long as there is code: each store is looked at.
                int start = (int)((ulong)host & 0xFFF);
                InvalidateCode((ulong)hostPage, start, start + size);
                return true;
            }
        }
        if (!_vcpu.WatchesData)
            Remember(SetOf(access), linear, hostPage, write, region, t);
        return true;
    }

    private void Remember(int set, ulong linear, byte* hostPage, bool write, in MemoryRegion region, in PageTranslation t)
    {
        Fill(set, linear, hostPage, write);
        if (region.DirtyLog != 0)
        {
            // Once more, now that the entry is there: who clears the mark from here on drops the entry, too.
            if (write)
                Volatile.Write(ref *((byte*)region.DirtyLog + ((t.Physical & _c->A20Mask) - region.Start >> 12)), 1);
            return;
        }
        ulong tag = linear & ~0xFFFUL | *Generation;
        for (int i = 0; i < (t.Writable && region.Kind == MemoryKind.Ram ? 2 : 1); i++)
        {
            ulong* entry = SecondEntry(set, i != 0, linear);
            entry[0] = tag;
            entry[1] = (ulong)hostPage;
        }
        _large.Note(linear, t.PageShift);
    }

    /// <summary>Host address in a page whose accesses need no further look. What is false here is found out, and faults,
    /// access by access.</summary>
    public bool TryWindow(ulong linear, bool write, out ulong address)
    {
        address = 0;
        if (TryRefill(CurrentSet, linear, write, out byte* refilled))
        {
            address = (ulong)refilled;
            return true;
        }
        if (_vcpu.WatchesData || IsLong && !IsCanonical(linear) ||
            !PageWalker.Translate(_c, this, linear, AccessOf(write, LinearAccess.Program), out var t))
        {
            return false;
        }
        ulong physical = t.Physical & _c->A20Mask;
        if (!Map.TryFind(physical, out var region) || write && region.Kind != MemoryKind.Ram)
            return false;
        byte* host = (byte*)region.HostAddress + (physical - region.Start);
        byte* hostPage = (byte*)((ulong)host & ~0xFFFUL);
        if (write)
        {
            if (_engine.CodePages.Get((ulong)hostPage) != 0)
                return false;
            if (region.DirtyLog != 0)
                *((byte*)region.DirtyLog + ((physical - region.Start) >> 12)) = 1;
        }
        Remember(CurrentSet, linear, hostPage, write, region, t);
        address = (ulong)host;
        return true;
    }

    /// <summary>The linear address that an access of generated code was for; the host address may have lost its upper half. False: no
    /// such host address is the guest's memory.</summary>
    public bool TryFindLinear(ulong host, int set, out ulong linear)
    {
        linear = 0;
        ulong mask = host >> 32 == 0 ? uint.MaxValue : ulong.MaxValue, bounce = (ulong)(_block + Layout.BounceBuffer);
        if ((host - bounce & mask) < BounceSize)
        {
            linear = _bounced + (host - bounce & mask);
            return true;
        }
        bool isMemory = false;
        foreach (var region in Map.Regions)
            isMemory |= (host - (ulong)region.HostAddress & mask) < region.Length;
        if (!isMemory)
            return false;
        ulong page = host & ~0xFFFUL;
        for (int write = 0; write < 2; write++)
        {
            long* tags = Tags(set, write != 0), hosts = Hosts(set, write != 0);
            for (int i = 0; i < Layout.TlbEntries; i++)
            {
                if (((ulong)hosts[i] & mask) != page || tags[i] == NoTag(i))
                    continue;
                linear = (ulong)-tags[i] + (host & 0xFFF);
                return true;
            }
            ulong* entries = (ulong*)(_block + Layout.SecondOf(set, write != 0));
            for (int i = 0; i < Layout.SecondEntries; i++)
            {
                if ((entries[2 * i + 1] & mask) != page || (entries[2 * i] & 0xFFF) != *Generation)
                    continue;
                linear = entries[2 * i] & ~0xFFFUL | host & 0xFFF;
                return true;
            }
        }
        // Forgotten by both levels: better no address than a wrong one.
        return true;
    }

    private const int BounceSize = 512;

    /// <summary>What the first byte of the bounce buffer stands for.</summary>
    private ulong _bounced;

    private bool TryHit(int set, ulong linear, int size, bool write, out byte* host)
    {
        int index = (int)(linear >> 12) & Layout.TlbEntries - 1;
        ulong offset = linear + (ulong)Tags(set, write)[index];
        if (offset <= (ulong)(4096 - size))
        {
            host = (byte*)Hosts(set, write)[index] + offset;
            return true;
        }
        host = null;
        return 4096 - (int)(linear & 0xFFF) >= size && TryRefill(set, linear, write, out host);
    }

    /// <summary>A host pointer for an access that misses the TLB in generated code.</summary>
    /// <returns>0: <see cref="CpuContext.ResumeAt"/> is set; otherwise the vector + 1 of a fault, with its code.</returns>
    public int SlowAccess(ulong linear, int size, bool write, bool locked, out uint code)
    {
        int first = (int)(4096 - (linear & 0xFFF));
        if (first >= size)
        {
            if (TryRefill(CurrentSet, linear, write, out byte* refilled))
            {
                _c->ResumeAt = (ulong)refilled;
                code = 0;
                return 0;
            }
            if (!Locate(linear, size, write, LinearAccess.Program, out var place, out byte vector, out code))
                return vector + 1;
            if (place.Host != null)
            {
                _c->ResumeAt = (ulong)place.Host;
                return 0;
            }
            return Bounce(linear, size, write, locked, place, default);
        }
        // All of an access must be canonical before any of it is translated.
        if (IsLong && !IsCanonical(NextPage(linear)))
        {
            code = 0;
            return 13 + 1;
        }
        if (!Locate(linear, first, write, LinearAccess.Program, out var low, out byte v, out code) ||
            !Locate(NextPage(linear), size - first, write, LinearAccess.Program, out var high, out v, out code))
        {
            return v + 1;
        }
        // Pages that follow each other on the host, too, are one piece of memory: a locked access of it is atomic by itself.
        if (low.Host != null && low.Host + first == high.Host)
        {
            _c->ResumeAt = (ulong)low.Host;
            return 0;
        }
        return Bounce(linear, size, write, locked, low, high);
    }

    private ulong NextPage(ulong linear)
    {
        ulong next = (linear & ~0xFFFUL) + 4096;
        return IsLong ? next : (uint)next;
    }

    private Place _low, _high;

    /// <summary>Generated code works on the bounce buffer (at the same offset in a line of 64, for aligned vectors).</summary>
    private int Bounce(ulong linear, int size, bool write, bool locked, in Place low, in Place high)
    {
        // What was bounced before may be the FPU's last operand.
        _vcpu.ResolvePointers();
        byte* buffer = _block + Layout.BounceBuffer + (linear & 63);
        _bounced = linear & ~63UL;
        if (locked && !_gateHeld)
        {
            _engine.AtomicGate.Enter();
            _gateHeld = true;
        }
        ReadPlace(low, buffer);
        if (high.Size != 0)
            ReadPlace(high, buffer + low.Size);
        _c->ResumeAt = (ulong)buffer;
        if (write)
        {
            _low = low;
            _high = high;
            _pendingLinear = linear;
            _c->PendingStore |= 1;
        }
        return 0;
    }

    // Stores under way to pages with code: at most two, of an access across two pages.
    private readonly List<(ulong Page, int Start, int End)> _codeStores = [];

    /// <summary>Before a store to a page with code; <see cref="StoreDone"/> comes after it.</summary>
    private void InvalidateCode(ulong hostPage, int start, int end)
    {
        _engine.InvalidateCode(hostPage, start, end, _vcpu);
        if (_engine.Vcpus.Length == 1)
            return;
        _codeStores.Add((hostPage, start, end));
        _c->PendingStore |= 4;
    }

    /// <summary>After a store: another vCPU may have translated what was there before it, again.</summary>
    public void StoreDone()
    {
        if (_codeStores.Count == 0)
            return;
        foreach (var (page, start, end) in _codeStores)
            _engine.InvalidateOthers(page, start, end, _vcpu);
        _codeStores.Clear();
    }

    /// <summary>After a store to the bounce buffer, or to a page with code.</summary>
    public void CompleteStore()
    {
        byte* buffer = _block + Layout.BounceBuffer + (_pendingLinear & 63);
        if ((_c->PendingStore & 1) != 0)
        {
            WritePlace(_low, buffer);
            if (_high.Size != 0)
                WritePlace(_high, buffer + _low.Size);
        }
        StoreDone();
        _c->PendingStore = 0;
        ReleaseGate();
    }

    /// <summary>Drops a store that will not be completed (a fault in between).</summary>
    public void AbandonStore()
    {
        _codeStores.Clear();
        _c->PendingStore = 0;
        ReleaseGate();
    }

    private void ReleaseGate()
    {
        if (!_gateHeld)
            return;
        _gateHeld = false;
        _engine.AtomicGate.Exit();
    }

    private void ReadPlace(in Place place, byte* to)
    {
        if (place.Host != null)
        {
            Unsafe.CopyBlockUnaligned(to, place.Host, (uint)place.Size);
            return;
        }
        for (int done = 0; done < place.Size;)
        {
            int part = PartOf(place.Physical + (ulong)done, place.Size - done);
            ulong value = Bus.MmioRead(place.Physical + (ulong)done, part);
            for (int i = 0; i < part; i++)
                to[done + i] = (byte)(value >> (8 * i));
            done += part;
        }
    }

    private void WritePlace(in Place place, byte* from)
    {
        if (place.Host != null)
        {
            Unsafe.CopyBlockUnaligned(place.Host, from, (uint)place.Size);
            return;
        }
        for (int done = 0; done < place.Size;)
        {
            int part = PartOf(place.Physical + (ulong)done, place.Size - done);
            ulong value = 0;
            for (int i = 0; i < part; i++)
                value |= (ulong)from[done + i] << (8 * i);
            Bus.MmioWrite(place.Physical + (ulong)done, value, part);
            done += part;
        }
    }

    /// <summary>Devices see powers of two.</summary>
    private static int PartOf(ulong address, int left)
    {
        if (left is 1 or 2 or 4 or 8)
            return left;
        int part = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        return part;
    }
}
