using System.Runtime.CompilerServices;
using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>The accesses that C# makes: linear and physical memory, block moves, instruction fetches.</summary>
internal sealed unsafe partial class MemoryUnit
{
    // ---- accesses of the C# semantics ----

    public override ulong ReadLinear(ulong linear, int size, LinearAccess access = LinearAccess.Program)
    {
        if (!IsLong)
            linear = (uint)linear;
        CheckAlignment(linear, size, access);
        if (TryHit(SetOf(access), linear, size, false, out byte* host))
            return Load(host, size);
        int first = (int)(4096 - (linear & 0xFFF));
        if (first >= size)
        {
            LocateOrThrow(linear, size, false, access, out var place);
            return place.Host != null ? Load(place.Host, size) : Bus.MmioRead(place.Physical, size);
        }
        RequireCanonical(NextPage(linear));
        LocateOrThrow(linear, first, false, access, out var low);
        LocateOrThrow(NextPage(linear), size - first, false, access, out var high);
        byte* buffer = stackalloc byte[8];
        ReadPlace(low, buffer);
        ReadPlace(high, buffer + first);
        return Load(buffer, size);
    }

    public override void WriteLinear(ulong linear, ulong value, int size, LinearAccess access = LinearAccess.Program)
    {
        if (!IsLong)
            linear = (uint)linear;
        CheckAlignment(linear, size, access);
        if (TryHit(SetOf(access), linear, size, true, out byte* host))
        {
            Store(host, value, size);
            return;
        }
        int first = (int)(4096 - (linear & 0xFFF));
        if (first >= size)
        {
            LocateOrThrow(linear, size, true, access, out var place);
            if (place.Host != null)
                Store(place.Host, value, size);
            else
                Bus.MmioWrite(place.Physical, value, size);
            StoreDone();
            return;
        }
        RequireCanonical(NextPage(linear));
        LocateOrThrow(linear, first, true, access, out var low);
        LocateOrThrow(NextPage(linear), size - first, true, access, out var high);
        byte* buffer = stackalloc byte[8];
        Store(buffer, value, 8);
        WritePlace(low, buffer);
        WritePlace(high, buffer + first);
        StoreDone();
    }

    /// <summary>Throws #AC where an operand of 1, 2, 4 or 8 bytes must be aligned and is not.</summary>
    public void CheckAlignment(ulong linear, int size, LinearAccess access = LinearAccess.Program)
    {
        if ((linear & (ulong)(size - 1)) != 0 && access == LinearAccess.Program && Mode.ChecksAlignment(_c))
            throw new GuestFault(17, 0);
    }

    public override void ProbeLinear(ulong linear, int size, bool write, LinearAccess access = LinearAccess.Program)
    {
        if (!IsLong)
            linear = (uint)linear;
        while (size > 0)
        {
            int part = Math.Min(size, (int)(4096 - (linear & 0xFFF)));
            ProbeOrThrow(linear, write, access);
            size -= part;
            linear = NextPage(linear);
        }
    }

    private void ProbeOrThrow(ulong linear, bool write, LinearAccess access)
    {
        if (IsLong && !IsCanonical(linear))
            throw new GuestFault(13, 0);
        if (PageWalker.Translate(_c, this, linear, AccessOf(write, access), out var t))
            return;
        _c->Cr2 = linear;
        throw new GuestFault(14, t.ErrorCode);
    }

    private void RequireCanonical(ulong linear)
    {
        if (IsLong && !IsCanonical(linear))
            throw new GuestFault(13, 0);
    }

    private void LocateOrThrow(ulong linear, int size, bool write, LinearAccess access, out Place place)
    {
        if (!Locate(linear, size, write, access, out place, out byte vector, out uint code))
            throw new GuestFault(vector, code);
    }

    /// <summary>For block moves: host memory from an address to the end of its page, or null where it is a device's. <see cref="StoreDone"/>
    /// comes after stores to it.</summary>
    /// <returns>false: fault.</returns>
    public bool TryBlock(ulong linear, int size, bool write, out byte* host, out ulong physical, out byte vector, out uint code)
    {
        physical = 0;
        vector = 0;
        code = 0;
        if (!IsLong)
            linear = (uint)linear;
        if (TryHit(CurrentSet, linear, 1, write, out host))
            return true;
        if (!Locate(linear, size, write, LinearAccess.Program, out var place, out vector, out code))
            return false;
        host = place.Host;
        physical = place.Physical;
        return true;
    }

    private static ulong Load(byte* at, int size) => size switch
    {
        1 => *at,
        2 => Unsafe.ReadUnaligned<ushort>(at),
        4 => Unsafe.ReadUnaligned<uint>(at),
        _ => Unsafe.ReadUnaligned<ulong>(at),
    };

    private static void Store(byte* at, ulong value, int size)
    {
        switch (size)
        {
            case 1:
                *at = (byte)value;
                break;
            case 2:
                Unsafe.WriteUnaligned(at, (ushort)value);
                break;
            case 4:
                Unsafe.WriteUnaligned(at, (uint)value);
                break;
            default:
                Unsafe.WriteUnaligned(at, value);
                break;
        }
    }

    public override ulong ReadPhysical(ulong physicalAddress, int size)
    {
        physicalAddress &= _c->A20Mask;
        return Map.TryFind(physicalAddress, out var region)
            ? Load((byte*)region.HostAddress + (physicalAddress - region.Start), size)
            : Bus.MmioRead(physicalAddress, size);
    }

    public override void WritePhysical(ulong physicalAddress, ulong value, int size)
    {
        physicalAddress &= _c->A20Mask;
        if (!Map.TryFind(physicalAddress, out var region) || region.Kind != MemoryKind.Ram)
        {
            Bus.MmioWrite(physicalAddress, value, size);
            return;
        }
        byte* host = NoteWrite(region, physicalAddress, size);
        Store(host, value, size);
        StoreDone();
    }

    private byte* NoteWrite(in MemoryRegion region, ulong physical, int size)
    {
        byte* host = (byte*)region.HostAddress + (physical - region.Start);
        if (region.DirtyLog != 0)
            *((byte*)region.DirtyLog + ((physical - region.Start) >> 12)) = 1;
        int start = (int)((ulong)host & 0xFFF);
        if (_engine.CodePages.Get((ulong)host & ~0xFFFUL) != 0)
            InvalidateCode((ulong)host & ~0xFFFUL, start, start + size);
        return host;
    }

    public override bool CompareExchangePhysical(ulong physicalAddress, ulong expected, ulong value, int size)
    {
        physicalAddress &= _c->A20Mask;
        if (!Map.TryFind(physicalAddress, out var region) || region.Kind != MemoryKind.Ram)
            return true;
        byte* host = NoteWrite(region, physicalAddress, size);
        bool done = size == 8
            ? Interlocked.CompareExchange(ref *(ulong*)host, value, expected) == expected
            : Interlocked.CompareExchange(ref *(uint*)host, (uint)value, (uint)expected) == (uint)expected;
        StoreDone();
        return done;
    }

    // ---- instruction fetch ----

    /// <summary>Host address of the page of a code address; null where it is no memory.</summary>
    /// <returns>false: fault.</returns>
    public bool Fetch(ulong linear, out byte* hostPage, out bool global, out ulong physical, out byte vector, out uint code)
    {
        bool user = _c->Cpl == 3;
        ulong tag = linear & ~0xFFFUL | (user ? 1u : 0u);
        int index = (int)(linear >> 12) & FetchEntries - 1;
        physical = 0;
        vector = 14;
        code = 0;
        if (_fetchTag[index] == tag)
        {
            hostPage = (byte*)_fetchHost[index];
            global = _fetchGlobal[index];
            return true;
        }
        hostPage = null;
        global = false;
        if (IsLong && !IsCanonical(linear))
        {
            vector = 13;
            return false;
        }
        if (!PageWalker.Translate(_c, this, linear, PageAccess.Fetch | (user ? PageAccess.User : 0), out var t))
        {
            _c->Cr2 = linear;
            code = t.ErrorCode;
            return false;
        }
        physical = t.Physical & _c->A20Mask;
        if (!Map.TryFind(physical, out var region))
            return true;
        hostPage = (byte*)((ulong)region.HostAddress + (physical & ~0xFFFUL) - region.Start);
        global = t.Global;
        _fetchTag[index] = tag;
        NoteFetch(linear, t);
        _fetchHost[index] = (ulong)hostPage;
        _fetchGlobal[index] = global;
        return true;
    }
}
