using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>The soft TLB in both its levels: filled, looked into and flushed.</summary>
internal sealed unsafe partial class MemoryUnit
{
    private long* Tags(int set, bool write) => (long*)(_block + Layout.TlbTag(set, write));

    private long* Addends(int set, bool write) => (long*)(_block + Layout.TlbAddend(set, write));

    private long* Hosts(int set, bool write) => (long*)(_block + Layout.TlbHost(set, write));

    /// <summary>A tag that no address of the entry's index can match.</summary>
    private static long NoTag(int index) => -((long)(index ^ 0x80) << 12);

    private void ClearTlb()
    {
        for (int set = 0; set < Layout.TlbSets; set++)
        {
            long* read = Tags(set, false), write = Tags(set, true);
            for (int i = 0; i < Layout.TlbEntries; i++)
                read[i] = write[i] = NoTag(i);
        }
    }

    private void ClearSecond()
    {
        new Span<byte>(_block + Layout.Second, 2 * Layout.TlbSets * Layout.SecondTable).Clear();
        *Generation = 1;
    }

    public override void FlushTlb(bool includeGlobal)
    {
        ClearTlb();
        if (++*Generation == 4096)
            ClearSecond();
        _large.Clear();
        for (int i = 0; i < FetchEntries; i++)
        {
            if (includeGlobal || !_fetchGlobal[i])
                _fetchTag[i] = ulong.MaxValue;
        }
        Array.Clear(_fetched);
        if (includeGlobal)
        {
            Array.Clear(_fetchedGlobal);
            _largeGlobal.Clear();
        }
        _vcpu.FlushJumpCaches(includeGlobal);
        Flushed = true;
    }

    /// <summary>Which 2 MiB stretches (modulo 8 GiB) and 1 GiB stretches (modulo 64 GiB) are of large pages.</summary>
    private sealed class LargePages
    {
        private readonly ulong[] _mega = new ulong[64];
        private ulong _giga;

        public void Clear()
        {
            Array.Clear(_mega);
            _giga = 0;
        }

        public void Note(ulong linear, int shift)
        {
            if (shift > 12)
                _mega[linear >> 27 & 63] |= 1UL << (int)(linear >> 21);
            if (shift > 22)
                _giga |= 1UL << (int)(linear >> 30);
        }

        /// <summary>4 MiB pages cover two stretches.</summary>
        public bool Has(ulong linear) =>
            (_mega[linear >> 27 & 63] & (1UL << (int)(linear >> 21) | 1UL << (int)(linear >> 21 ^ 1))) != 0 ||
            (_giga >> (int)(linear >> 30) & 1) != 0;
    }

    // What may be in the TLBs; of global pages that code ran from, which outlive a flush of the others; small pages (modulo 4096) that code
    // ran from.
    private readonly LargePages _large = new();
    private readonly LargePages _largeGlobal = new();
    private readonly ulong[] _fetched = new ulong[64];
    private readonly ulong[] _fetchedGlobal = new ulong[64];

    private void NoteFetch(ulong linear, in PageTranslation t)
    {
        (t.Global ? _largeGlobal : _large).Note(linear, t.PageShift);
        if (t.PageShift == 12)
            (t.Global ? _fetchedGlobal : _fetched)[linear >> 18 & 63] |= 1UL << (int)(linear >> 12);
    }

    private bool WasFetched(ulong linear)
    {
        ulong seen = _fetched[linear >> 18 & 63] | _fetchedGlobal[linear >> 18 & 63];
        return (seen >> (int)(linear >> 12) & 1) != 0;
    }

    public override void InvalidatePage(ulong linear)
    {
        if (!IsLong)
            linear = (uint)linear;
        // Of a large page, other parts may be cached, too.
        if (_large.Has(linear) || _largeGlobal.Has(linear))
        {
            FlushTlb(true);
            return;
        }
        int index = (int)(linear >> 12) & Layout.TlbEntries - 1;
        for (int i = 0; i < 2 * Layout.TlbSets; i++)
        {
            Tags(i >> 1, (i & 1) != 0)[index] = NoTag(index);
            ulong* entry = SecondEntry(i >> 1, (i & 1) != 0, linear);
            if ((entry[0] ^ linear) < 4096)
                entry[0] = 0;
        }
        index = (int)(linear >> 12) & FetchEntries - 1;
        _fetchTag[index] = ulong.MaxValue;
        if (WasFetched(linear))
        {
            _vcpu.FlushJumpCaches(true);
            Array.Clear(_fetched);
            Array.Clear(_fetchedGlobal);
        }
        Flushed = true;
    }

    /// <summary>Any thread: no store may go to a page of host memory without the slow path.</summary>
    public void DropWriteEntries(ulong hostPage)
    {
        for (int set = 0; set < Layout.TlbSets; set++)
        {
            long* write = Tags(set, true), host = Hosts(set, true);
            for (int i = 0; i < Layout.TlbEntries; i++)
            {
                if ((ulong)host[i] == hostPage)
                    Volatile.Write(ref write[i], NoTag(i));
            }
        }
    }

    /// <summary>Any thread: stores to pages with a dirty log are marked anew.</summary>
    public void DropLoggedWriteEntries()
    {
        foreach (var region in _engine.Memory.Regions.Concat(_engine.MemoryInSmm.Regions))
        {
            if (region.DirtyLog == 0)
                continue;
            for (int set = 0; set < Layout.TlbSets; set++)
            {
                long* write = Tags(set, true), host = Hosts(set, true);
                for (int i = 0; i < Layout.TlbEntries; i++)
                {
                    if ((ulong)host[i] - (ulong)region.HostAddress < region.Length)
                        Volatile.Write(ref write[i], NoTag(i));
                }
            }
        }
    }

    private int CurrentSet => _c->Cpl == 3 ? 1 : (_c->Cr4 & 1 << 21) != 0 && (_c->Rflags & 1 << 18) != 0 ? 2 : 0;

    /// <summary>The set that an access of the processor itself uses is the supervisor's, whatever CPL and AC are.</summary>
    private int SetOf(LinearAccess access) => access == LinearAccess.System ? 0 : CurrentSet;

    private void Fill(int set, ulong linear, byte* hostPage, bool write)
    {
        int index = (int)(linear >> 12) & Layout.TlbEntries - 1;
        long page = (long)(linear & ~0xFFFUL);
        long* tags = Tags(set, write);
        tags[index] = NoTag(index);
        Addends(set, write)[index] = (long)hostPage - page;
        Hosts(set, write)[index] = (long)hostPage;
        Volatile.Write(ref tags[index], -page);
        if (!write)
            return;
        Interlocked.MemoryBarrier();
        if (_engine.CodePages.Get((ulong)hostPage) != 0)
            tags[index] = NoTag(index);
    }

    // ---- second level: what a page walk found, for when the first level has forgotten ----

    private ulong* Generation => (ulong*)(_block + Layout.SecondGeneration);

    private static int SecondIndex(ulong linear) => (int)((linear >> 12) ^ (linear >> 24)) & Layout.SecondEntries - 1;

    private ulong* SecondEntry(int set, bool write, ulong linear) =>
        (ulong*)(_block + Layout.SecondOf(set, write)) + SecondIndex(linear) * 2;

    /// <summary>Refills the first level from the second, as generated code does first (Stubs.EmitRefill). False: a walk is needed (or a
    /// device, a dirty log, a page of code).</summary>
    private bool TryRefill(int set, ulong linear, bool write, out byte* host)
    {
        ulong* entry = SecondEntry(set, write, linear);
        host = null;
        if (entry[0] != (linear & ~0xFFFUL | *Generation) || write && _engine.CodePages.Get(entry[1]) != 0)
            return false;
        host = (byte*)entry[1] + (linear & 0xFFF);
        Fill(set, linear, (byte*)entry[1], write);
        return true;
    }
}
