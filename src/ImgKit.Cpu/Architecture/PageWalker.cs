using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>
/// Translation of linear addresses: 32-bit paging with PSE and PSE-36, PAE, 4-level and 5-level paging.
/// Source: Intel SDM volume 3A, chapter 4.
/// </summary>
public static unsafe class PageWalker
{
    private const ulong Present = 1, ReadWrite = 2, UserBit = 4, Accessed = 0x20, DirtyBit = 0x40, LargePage = 0x80, GlobalBit = 0x100;
    private const ulong NoExecute = 1UL << 63;
    private const ulong AddressMask = 0x000F_FFFF_FFFF_F000;

    private const uint ErrorPresent = 1, ErrorWrite = 2, ErrorUser = 4, ErrorReserved = 8, ErrorFetch = 16;

    private enum Outcome
    {
        Translated,
        Fault,
        Retry,
    }

    /// <summary>Walks the page tables for one access, and sets accessed and dirty bits when it is allowed.</summary>
    /// <param name="c">state.</param>
    /// <param name="s">the processor.</param>
    /// <param name="linear">linear address; canonical in long mode, below 4 GiB otherwise.</param>
    /// <param name="access">what for.</param>
    /// <param name="result">the translation, or the error code of the page fault.</param>
    /// <returns>false: page fault.</returns>
    public static bool Translate(CpuContext* c, CpuServices s, ulong linear, PageAccess access, out PageTranslation result)
    {
        if ((c->Cr0 & Cr0.Pg) == 0)
        {
            result = new PageTranslation((uint)linear, 12, true, true, true, false, 0);
            return true;
        }
        // An entry that changed under our hands (another processor's write) starts the walk anew.
        Outcome outcome;
        do
        {
            outcome = (c->Cr4 & Cr4.Pae) == 0
                ? Walk32(c, s, (uint)linear, access, out result)
                : Walk64(c, s, linear, access, out result);
        }
        while (outcome == Outcome.Retry);
        return outcome == Outcome.Translated;
    }

    /// <summary>Translates for a debugger, without side effects; -1 where nothing is mapped.</summary>
    public static long Peek(CpuContext* c, CpuServices s, ulong linear)
    {
        if ((c->Efer & Efer.Lma) != 0 && !IsCanonical(c, linear))
            return -1;
        // Rights do not matter to a debugger: what is forbidden to the supervisor by SMAP is open to the user.
        if (Translate(c, s, linear, PageAccess.Read | PageAccess.Probe, out var result)
            || Translate(c, s, linear, PageAccess.User | PageAccess.Probe, out result))
            return (long)result.Physical;
        return -1;
    }

    /// <summary>Whether an address is in canonical form for the paging mode in force.</summary>
    public static bool IsCanonical(CpuContext* c, ulong linear)
    {
        int shift = (c->Cr4 & Cr4.La57) != 0 ? 64 - 57 : 64 - 48;
        return (ulong)((long)(linear << shift) >> shift) == linear;
    }

    private static Outcome Walk32(CpuContext* c, CpuServices s, uint linear, PageAccess access, out PageTranslation result)
    {
        ulong directory = (c->Cr3 & 0xFFFFF000) | ((linear >> 20) & 0xFFC);
        ulong pde = s.ReadPhysical(directory, 4);
        if ((pde & Present) == 0)
            return Fault(c, access, 0, out result);
        if ((pde & LargePage) != 0 && (c->Cr4 & Cr4.Pse) != 0)
        {
            // PSE-36: bits 20..13 are address bits 39..32, as far as the processor has them; what is left below bit 22 is reserved.
            int width = s.Model.Has(CpuFeature.Pse36) ? Math.Min(s.Model.PhysicalAddressBits, 40) : 32;
            ulong reserved = 0x3FE000 & ~(((1UL << (width - 32)) - 1) << 13);
            if ((pde & reserved) != 0)
                return Fault(c, access, ErrorPresent | ErrorReserved, out result);
            ulong physical = (pde & 0xFFC00000) | ((pde & 0x1FE000) << 19) | (linear & 0x3FFFFF);
            return Finish(c, s, access, pde, pde, physical, 22, [new(directory, pde)], 4, out result);
        }
        ulong table = (pde & 0xFFFFF000) | ((linear >> 10) & 0xFFC);
        ulong pte = s.ReadPhysical(table, 4);
        if ((pte & Present) == 0)
            return Fault(c, access, 0, out result);
        return Finish(c, s, access, pde & pte, pte, (pte & 0xFFFFF000) | (linear & 0xFFF), 12, [new(directory, pde), new(table, pte)], 4, out result);
    }

    private static Outcome Walk64(CpuContext* c, CpuServices s, ulong linear, PageAccess access, out PageTranslation result)
    {
        bool longMode = (c->Efer & Efer.Lma) != 0;
        ulong reserved = AddressMask & ~((1UL << s.Model.PhysicalAddressBits) - 1);
        if ((c->Efer & Efer.Nxe) == 0)
            reserved |= NoExecute;
        // PAE has no protection keys and nothing ignored above the address.
        if (!longMode)
            reserved |= 0x7FF0_0000_0000_0000;
        Span<Entry> path = stackalloc Entry[5];
        int depth = 0;
        ulong table, all = ReadWrite | UserBit, none = 0;
        int shift;
        if (longMode)
        {
            table = c->Cr3 & AddressMask;
            shift = (c->Cr4 & Cr4.La57) != 0 ? 48 : 39;
        }
        else
        {
            // The four page-directory pointers are registers, loaded and checked with CR3.
            ulong pdpte = c->Pdpte[(int)((uint)linear >> 30)];
            if ((pdpte & Present) == 0)
                return Fault(c, access, 0, out result);
            table = pdpte & AddressMask;
            shift = 21;
            linear = (uint)linear;
        }
        while (true)
        {
            ulong address = table | ((linear >> shift) & 0x1FF) << 3;
            ulong entry = s.ReadPhysical(address, 8);
            if ((entry & Present) == 0)
                return Fault(c, access, 0, out result);
            bool leaf = shift == 12;
            ulong bad = reserved;
            if (!leaf && (entry & LargePage) != 0)
            {
                leaf = shift == 21 || (shift == 30 && s.Model.Has(CpuFeature.Pdpe1Gb));
                bad |= leaf ? ((1UL << shift) - 1) & ~0x1FFFUL : LargePage;
            }
            if ((entry & bad) != 0)
                return Fault(c, access, ErrorPresent | ErrorReserved, out result);
            all &= entry;
            none |= entry & NoExecute;
            path[depth++] = new Entry(address, entry);
            if (leaf)
            {
                ulong offset = (1UL << shift) - 1;
                ulong physical = (entry & AddressMask & ~offset) | (linear & offset);
                return Finish(c, s, access, all | none, entry, physical, shift, path[..depth], 8, out result);
            }
            table = entry & AddressMask;
            shift -= 9;
        }
    }

    /// <summary>Checks rights, sets accessed and dirty bits. Retry: an entry changed meanwhile.</summary>
    /// <param name="c">state.</param>
    /// <param name="s">the processor.</param>
    /// <param name="access">what for.</param>
    /// <param name="combined">R/W and U/S of all levels, and XD of any.</param>
    /// <param name="leaf">the entry that maps the page.</param>
    /// <param name="physical">the byte's address.</param>
    /// <param name="shift">log2 of the page's size.</param>
    /// <param name="path">entries used, the leaf last.</param>
    /// <param name="size">bytes of an entry.</param>
    /// <param name="result">the translation.</param>
    private static Outcome Finish(CpuContext* c, CpuServices s, PageAccess access, ulong combined, ulong leaf, ulong physical, int shift,
        ReadOnlySpan<Entry> path, int size, out PageTranslation result)
    {
        if (!IsAllowed(c, access, combined))
            return Fault(c, access, ErrorPresent, out result);
        bool dirty = (leaf & DirtyBit) != 0 || (access & PageAccess.Write) != 0;
        if ((access & PageAccess.Probe) == 0)
        {
            for (int i = 0; i < path.Length; i++)
            {
                ulong set = Accessed | (i == path.Length - 1 && (access & PageAccess.Write) != 0 ? DirtyBit : 0);
                if ((path[i].Value & set) != set && !s.CompareExchangePhysical(path[i].Address, path[i].Value, path[i].Value | set, size))
                {
                    result = default;
                    return Outcome.Retry;
                }
            }
        }
        result = new PageTranslation(
            physical,
            (byte)shift,
            (combined & UserBit) != 0,
            dirty && IsAllowed(c, access & ~PageAccess.Fetch | PageAccess.Write, combined),
            IsAllowed(c, access & ~PageAccess.Write | PageAccess.Fetch, combined),
            (leaf & GlobalBit) != 0 && (c->Cr4 & Cr4.Pge) != 0,
            0);
        return Outcome.Translated;
    }

    // Intel SDM 3A 4.6.1.
    private static bool IsAllowed(CpuContext* c, PageAccess access, ulong combined)
    {
        bool userPage = (combined & UserBit) != 0;
        bool write = (access & PageAccess.Write) != 0, fetch = (access & PageAccess.Fetch) != 0;
        if (fetch && (combined & NoExecute) != 0)
            return false;
        if ((access & PageAccess.User) != 0)
            return userPage && (!write || (combined & ReadWrite) != 0);
        if (userPage)
        {
            if (fetch)
                return (c->Cr4 & Cr4.Smep) == 0;
            bool overridden = (c->Rflags & Flags.Ac) != 0 && (access & PageAccess.Implicit) == 0;
            if ((c->Cr4 & Cr4.Smap) != 0 && !overridden)
                return false;
        }
        return !write || (combined & ReadWrite) != 0 || (c->Cr0 & Cr0.Wp) == 0;
    }

    private static Outcome Fault(CpuContext* c, PageAccess access, uint error, out PageTranslation result)
    {
        if ((access & PageAccess.Write) != 0)
            error |= ErrorWrite;
        if ((access & PageAccess.User) != 0)
            error |= ErrorUser;
        // The fetch bit is only reported where a fetch can be forbidden.
        bool fetchReported = (c->Cr4 & Cr4.Smep) != 0 || ((c->Cr4 & Cr4.Pae) != 0 && (c->Efer & Efer.Nxe) != 0);
        if ((access & PageAccess.Fetch) != 0 && fetchReported)
            error |= ErrorFetch;
        result = new PageTranslation(0, 12, false, false, false, false, error);
        return Outcome.Fault;
    }

    private readonly record struct Entry(ulong Address, ulong Value);
}
