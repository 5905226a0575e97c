using System.Runtime.CompilerServices;
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

    /// <summary>Walks the page tables for one access, and sets accessed and dirty bits when it is allowed.</summary>
    /// <param name="services">the processor.</param>
    /// <param name="linear">linear address; canonical in long mode, below 4 GiB otherwise.</param>
    /// <param name="access">what for.</param>
    public static PageWalk Walk(CpuServices services, ulong linear, PageAccess access)
    {
        var c = services.Context;
        if ((c->Cr0 & Cr0.Pg) == 0)
        {
            return new PageWalk((uint)linear, 12, PageRights.Writable | PageRights.User | PageRights.Executable | PageRights.Dirty, false, 0);
        }
        PageWalk result;
        // An entry that changed under our hands (another processor's write) starts the walk anew.
        if ((c->Cr4 & Cr4.Pae) == 0)
        {
            while (!TryWalk32(services, (uint)linear, access, out result))
            {
            }
        }
        else
        {
            while (!TryWalk64(services, linear, access, out result))
            {
            }
        }
        return result;
    }

    /// <summary>Translates for a debugger: as a supervisor's read, without side effects. False where nothing is mapped.</summary>
    public static bool TryTranslate(CpuServices services, ulong linear, out ulong physical)
    {
        var c = services.Context;
        physical = 0;
        if ((c->Efer & Efer.Lma) != 0 && !IsCanonical(c, linear))
            return false;
        // Rights do not matter to a debugger, only that there is a page: ask with those rights that always pass.
        var walk = Walk(services, linear, PageAccess.Read | PageAccess.Probe);
        if (walk.Faulted && (walk.ErrorCode & (ErrorPresent | ErrorReserved)) == ErrorPresent)
            walk = Walk(services, linear, PageAccess.Read | PageAccess.Probe | PageAccess.User);
        physical = walk.Physical;
        return !walk.Faulted;
    }

    /// <summary>Whether an address is in canonical form for the paging mode in force.</summary>
    public static bool IsCanonical(CpuContext* c, ulong linear)
    {
        int shift = (c->Cr4 & Cr4.La57) != 0 ? 64 - 57 : 64 - 48;
        return (ulong)((long)(linear << shift) >> shift) == linear;
    }

    private static bool TryWalk32(CpuServices s, uint linear, PageAccess access, out PageWalk result)
    {
        var c = s.Context;
        ulong directory = (c->Cr3 & 0xFFFFF000) | ((linear >> 20) & 0xFFC);
        ulong pde = ReadEntry(s, directory, 4);
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
            return Finish(s, access, pde, pde, physical, 22, [new(directory, pde)], 4, out result);
        }
        ulong table = (pde & 0xFFFFF000) | ((linear >> 10) & 0xFFC);
        ulong pte = ReadEntry(s, table, 4);
        if ((pte & Present) == 0)
            return Fault(c, access, 0, out result);
        return Finish(s, access, pde & pte, pte, (pte & 0xFFFFF000) | (linear & 0xFFF), 12, [new(directory, pde), new(table, pte)], 4, out result);
    }

    private static bool TryWalk64(CpuServices s, ulong linear, PageAccess access, out PageWalk result)
    {
        var c = s.Context;
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
            ulong entry = ReadEntry(s, address, 8);
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
                return Finish(s, access, all | none, entry, physical, shift, path[..depth], 8, out result);
            }
            table = entry & AddressMask;
            shift -= 9;
        }
    }

    /// <summary>Checks rights, sets accessed and dirty bits. False: an entry changed meanwhile, walk again.</summary>
    /// <param name="s">the processor.</param>
    /// <param name="access">what for.</param>
    /// <param name="combined">R/W and U/S of all levels, and XD of any.</param>
    /// <param name="leaf">the entry that maps the page.</param>
    /// <param name="physical">the byte's address.</param>
    /// <param name="shift">log2 of the page's size.</param>
    /// <param name="path">entries used, the leaf last.</param>
    /// <param name="size">bytes of an entry.</param>
    /// <param name="result">the translation.</param>
    private static bool Finish(CpuServices s, PageAccess access, ulong combined, ulong leaf, ulong physical, int shift,
        ReadOnlySpan<Entry> path, int size, out PageWalk result)
    {
        var c = s.Context;
        if (!IsAllowed(c, access, combined))
            return Fault(c, access, ErrorPresent, out result);
        bool dirty = (leaf & DirtyBit) != 0 || (access & PageAccess.Write) != 0;
        if ((access & PageAccess.Probe) == 0)
        {
            for (int i = 0; i < path.Length; i++)
            {
                ulong set = Accessed | (i == path.Length - 1 && (access & PageAccess.Write) != 0 ? DirtyBit : 0);
                if ((path[i].Value & set) != set && !TrySet(s, path[i].Address, path[i].Value, path[i].Value | set, size))
                {
                    result = default;
                    return false;
                }
            }
        }
        var rights = PageRights.None;
        if ((combined & ReadWrite) != 0)
            rights |= PageRights.Writable;
        if ((combined & UserBit) != 0)
            rights |= PageRights.User;
        if ((combined & NoExecute) == 0)
            rights |= PageRights.Executable;
        if ((leaf & GlobalBit) != 0 && (c->Cr4 & Cr4.Pge) != 0)
            rights |= PageRights.Global;
        if (dirty)
            rights |= PageRights.Dirty;
        result = new PageWalk(physical, (byte)shift, rights, false, 0);
        return true;
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

    private static bool Fault(CpuContext* c, PageAccess access, uint error, out PageWalk result)
    {
        if ((access & PageAccess.Write) != 0)
            error |= ErrorWrite;
        if ((access & PageAccess.User) != 0)
            error |= ErrorUser;
        // The fetch bit is only reported where a fetch can be forbidden.
        bool fetchReported = (c->Cr4 & Cr4.Smep) != 0 || ((c->Cr4 & Cr4.Pae) != 0 && (c->Efer & Efer.Nxe) != 0);
        if ((access & PageAccess.Fetch) != 0 && fetchReported)
            error |= ErrorFetch;
        result = new PageWalk(0, 12, PageRights.None, true, error);
        return true;
    }

    private static ulong ReadEntry(CpuServices s, ulong address, int size)
    {
        nint host = s.HostAddress(address, write: false);
        if (host == 0)
            return s.ReadPhysical(address, size);
        return size == 4 ? Volatile.Read(ref Unsafe.AsRef<uint>((void*)host)) : Volatile.Read(ref Unsafe.AsRef<ulong>((void*)host));
    }

    private static bool TrySet(CpuServices s, ulong address, ulong expected, ulong value, int size)
    {
        nint host = s.HostAddress(address, write: true);
        if (host == 0)
        {
            // Tables in ROM keep their bits clear; those in a device's memory take a plain write.
            s.WritePhysical(address, value, size);
            return true;
        }
        return size == 4
            ? Interlocked.CompareExchange(ref Unsafe.AsRef<uint>((void*)host), (uint)value, (uint)expected) == (uint)expected
            : Interlocked.CompareExchange(ref Unsafe.AsRef<ulong>((void*)host), value, expected) == expected;
    }

    private readonly record struct Entry(ulong Address, ulong Value);
}
