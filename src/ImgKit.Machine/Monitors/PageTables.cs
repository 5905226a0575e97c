using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using ImgKit.Cpu;

namespace ImgKit.Machine.Monitors;

/// <summary>What a processor's page tables map: <c>info mem</c> and <c>info tlb</c>, in QEMU's words. Source: Intel SDM volume 3A, chapter 4.</summary>
internal sealed class PageTables
{
    private const ulong Present = 1, Writable = 2, User = 4, LargePage = 0x80, NoExecute = 1UL << 63, AddressMask = 0x000F_FFFF_FFFF_F000;

    // Tables may lead to themselves, so that a walk would take for ever: so many are looked at.
    private const int MostTables = 1 << 16;

    // What the characters of a page of `info tlb` stand for, in their order.
    private static readonly (ulong Bit, char Letter)[] Flags =
        [(NoExecute, 'X'), (0x100, 'G'), (LargePage, 'P'), (0x40, 'D'), (0x20, 'A'), (0x10, 'C'), (8, 'T'), (User, 'U'), (Writable, 'W')];

    private readonly MonitorMemory _memory;
    private readonly CpuState _state;
    private readonly bool _isLong, _isWide;
    private int _tables;

    private PageTables(Pc pc, int processor)
    {
        _memory = new MonitorMemory(pc, null);
        _state = Commands.StateOf(pc, processor);
        _isLong = (_state.Msrs.GetValueOrDefault(0xC000_0080u) & 0x400) != 0;
        _isWide = (_state.Cr4 & 0x20) != 0;
    }

    /// <summary>Ranges of pages that may be used alike.</summary>
    internal static string Ranges(Pc pc, int processor)
    {
        var tables = new PageTables(pc, processor);
        var text = new StringBuilder();
        ulong start = 0, end = 0, rights = 0;
        void Flush()
        {
            if (rights != 0)
                text.Append(CultureInfo.InvariantCulture, $"{start:x16}-{end:x16} {end - start:x16} {((rights & User) != 0 ? 'u' : '-')}r{((rights & Writable) != 0 ? 'w' : '-')}\n");
        }
        string? error = tables.Walk((virtualAddress, size, entry, above) =>
        {
            ulong now = entry & above & (User | Writable) | Present;
            if (now != rights || virtualAddress != end)
            {
                Flush();
                (start, rights) = (virtualAddress, now);
            }
            end = virtualAddress + size;
        });
        Flush();
        return text + error;
    }

    /// <summary>Each page.</summary>
    internal static string Pages(Pc pc, int processor)
    {
        var text = new StringBuilder();
        string? error = new PageTables(pc, processor).Walk((virtualAddress, size, entry, _) =>
        {
            // Bit 7 of a small page is something else.
            ulong flags = size == 4096 ? entry & ~LargePage : entry;
            text.Append(CultureInfo.InvariantCulture, $"{virtualAddress:x16}: {entry & AddressMask & ~(size - 1):x16} ");
            foreach (var (bit, letter) in Flags)
                text.Append((flags & bit) != 0 ? letter : '-');
            text.Append('\n');
        });
        return text + error;
    }

    private delegate void Visitor(ulong virtualAddress, ulong size, ulong entry, ulong above);

    private string? Walk(Visitor visit)
    {
        if (_state.Cr0 >> 31 == 0)
            return "PG disabled\n";
        bool complete = _isLong ? WalkTable(_state.Cr3 & AddressMask, 39, 0, ulong.MaxValue, visit)
            : _isWide ? WalkTable(_state.Cr3 & 0xFFFF_FFE0, 30, 0, ulong.MaxValue, visit)
            : WalkTable(_state.Cr3 & 0xFFFF_F000, 22, 0, ulong.MaxValue, visit);
        return complete ? null : "(there are more tables than are looked at)\n";
    }

    /// <param name="at">physical address of the table.</param>
    /// <param name="shift">of the part of the address that is its index.</param>
    /// <param name="start">first virtual address.</param>
    /// <param name="above">what all entries on the way allow.</param>
    /// <param name="visit">told of each page.</param>
    private bool WalkTable(ulong at, int shift, ulong start, ulong above, Visitor visit)
    {
        if (++_tables > MostTables)
            return false;
        int width = _isLong || _isWide ? 8 : 4;
        Span<byte> table = stackalloc byte[4096];
        table = table[..(shift == 30 && !_isLong ? 32 : 4096)];
        if (_memory.Read(at, table) < table.Length)
            return true;
        bool hasLarge = shift switch { 21 => true, 22 => (_state.Cr4 & 0x10) != 0, 30 => _isLong, _ => false };
        for (int i = 0; i < table.Length / width; i++)
        {
            ulong entry = width == 8 ? BinaryPrimitives.ReadUInt64LittleEndian(table[(8 * i)..]) : BinaryPrimitives.ReadUInt32LittleEndian(table[(4 * i)..]);
            if ((entry & Present) == 0)
                continue;
            ulong address = start | (ulong)i << shift;
            if (shift == 39 && i >= 256)
                address |= 0xFFFF_0000_0000_0000;
            // The top of the 32-bit form with PAE has no rights of its own.
            ulong rights = shift == 30 && !_isLong ? above : above & entry;
            if (shift == 12 || (hasLarge && (entry & LargePage) != 0))
                visit(address, 1UL << shift, entry, above);
            else if (!WalkTable(entry & AddressMask, width == 8 ? shift - 9 : 12, address, rights, visit))
                return false;
        }
        return true;
    }
}
