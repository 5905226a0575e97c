using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using ImgKit.Cpu;

namespace ImgKit.Machine.Monitors;

/// <summary>Registers of a processor as text, for <c>info registers</c>.</summary>
public static class Registers
{
    private static readonly string[] Names = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"];
    private static readonly string[] SegmentNames = ["ES ", "CS ", "SS ", "DS ", "FS ", "GS "];

    /// <summary>Many lines, the last one ended.</summary>
    public static string Text(CpuState s)
    {
        var t = new StringBuilder();
        bool is64 = (s.Msrs.GetValueOrDefault(0xC000_0080u) & 0x400) != 0;
        int[] order = [0, 3, 1, 2, 6, 7, 5, 4];
        for (int i = 0; i < 8; i++)
        {
            int r = order[i];
            if (is64)
                t.Append(CultureInfo.InvariantCulture, $"{Names[r]}={s.Gpr[r]:x16}");
            else
                t.Append(CultureInfo.InvariantCulture, $"E{Names[r][1..]}={(uint)s.Gpr[r]:x8}");
            t.Append((i & 3) == 3 ? '\n' : ' ');
        }
        if (is64)
            for (int i = 8; i < 16; i++)
                t.Append(CultureInfo.InvariantCulture, $"{("R" + i).PadRight(3)}={s.Gpr[i]:x16}").Append((i & 3) == 3 ? '\n' : ' ');
        string flags = string.Concat("DOSZAPC".Select((c, i) => (s.Rflags >> new[] { 10, 11, 7, 6, 4, 2, 0 }[i] & 1) != 0 ? c : '-'));
        int cpl = (int)(s.Segments[2].Attributes >> 5 & 3);
        string at = is64 ? $"RIP={s.Rip:x16} RFL={(uint)s.Rflags:x8}" : $"EIP={(uint)s.Rip:x8} EFL={(uint)s.Rflags:x8}";
        t.Append(CultureInfo.InvariantCulture, $"{at} [{flags}] CPL={cpl} II={(s.InterruptShadow ? 1 : 0)} A20=1 SMM={(s.InSmm ? 1 : 0)} HLT={(s.Halted ? 1 : 0)}\n");
        bool isProtected = (s.Cr0 & 1) != 0;
        for (int i = 0; i < 6; i++)
            Segment(t, SegmentNames[i], s.Segments[i], is64, isProtected);
        Segment(t, "LDT", s.Ldtr, is64, isProtected);
        Segment(t, "TR ", s.Tr, is64, isProtected);
        Table(t, "GDT", s.Gdtr.Base, s.Gdtr.Limit, is64);
        Table(t, "IDT", s.Idtr.Base, s.Idtr.Limit, is64);
        t.Append(CultureInfo.InvariantCulture, $"CR0={(uint)s.Cr0:x8} CR2={Wide(s.Cr2, is64)} CR3={Wide(s.Cr3, is64)} CR4={(uint)s.Cr4:x8}\n");
        for (int i = 0; i < 4; i++)
            t.Append(CultureInfo.InvariantCulture, $"DR{i}={s.Dr[i]:x16} ");
        t.Append(CultureInfo.InvariantCulture, $"\nDR6={s.Dr[6]:x16} DR7={s.Dr[7]:x16}\n");
        t.Append(CultureInfo.InvariantCulture, $"EFER={s.Msrs.GetValueOrDefault(0xC000_0080u):x16}\n");
        FloatingPoint(t, s.Xsave, is64 ? 16 : 8);
        return t.ToString();
    }

    // The legacy region of the XSAVE area. Its registers are ST(0).. by the top of the stack; these are R0..R7.
    private static void FloatingPoint(StringBuilder t, ReadOnlySpan<byte> x, int vectors)
    {
        ushort status = BinaryPrimitives.ReadUInt16LittleEndian(x[2..]);
        int top = status >> 11 & 7;
        t.Append(CultureInfo.InvariantCulture, $"FCW={BinaryPrimitives.ReadUInt16LittleEndian(x):x4} FSW={status:x4} [ST={top}] FTW={x[4]:x2} ");
        t.Append(CultureInfo.InvariantCulture, $"MXCSR={BinaryPrimitives.ReadUInt32LittleEndian(x[24..]):x8}\n");
        for (int i = 0; i < 8; i++)
        {
            var r = x[(32 + 16 * (i - top & 7))..];
            t.Append(CultureInfo.InvariantCulture, $"FPR{i}={BinaryPrimitives.ReadUInt64LittleEndian(r):x16} {BinaryPrimitives.ReadUInt16LittleEndian(r[8..]):x4}");
            t.Append((i & 1) == 1 ? '\n' : ' ');
        }
        for (int i = 0; i < vectors; i++)
        {
            var r = x[(160 + 16 * i)..];
            t.Append(CultureInfo.InvariantCulture, $"XMM{i:d2}={BinaryPrimitives.ReadUInt64LittleEndian(r[8..]):x16} {BinaryPrimitives.ReadUInt64LittleEndian(r):x16}");
            t.Append((i & 1) == 1 ? '\n' : ' ');
        }
    }

    /// <summary>The value of a register by its name in expressions. Throws <see cref="CommandException"/>.</summary>
    public static ulong Value(CpuState s, string name)
    {
        int segment = Array.FindIndex(SegmentNames, n => n.TrimEnd().Equals(name, StringComparison.OrdinalIgnoreCase));
        if (segment >= 0)
            return s.Segments[segment].Selector;
        string plain = name.Length == 3 && name[0] is 'r' or 'e' ? name[1..] : name;
        int i = Array.FindIndex(Names, n => n[1..].Equals(plain, StringComparison.OrdinalIgnoreCase));
        if (i >= 0)
            return s.Gpr[i];
        if (name.StartsWith('r') && int.TryParse(name.AsSpan(1), NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n is >= 8 and < 16)
            return s.Gpr[n];
        return name switch
        {
            // The instruction's place, as x wants it.
            "eip" or "rip" or "pc" => s.Segments[1].Base + s.Rip,
            "eflags" or "rflags" => s.Rflags,
            "cr0" => s.Cr0,
            "cr2" => s.Cr2,
            "cr3" => s.Cr3,
            "cr4" => s.Cr4,
            _ => throw new CommandException("unknown register"),
        };
    }

    /// <summary>What each processor has left the guest for, a line each.</summary>
    public static string Exits(IEnumerable<Vcpu> processors)
    {
        var t = new StringBuilder();
        foreach (var cpu in processors)
        {
            var exits = cpu.Exits.ToList();
            if (exits.Count == 0)
                continue;
            t.Append(CultureInfo.InvariantCulture, $"CPU {cpu.Index}: {exits.Sum(e => e.Count)} exits");
            string separator = ": ";
            foreach (var (name, count) in exits)
            {
                t.Append(CultureInfo.InvariantCulture, $"{separator}{name} {count}");
                separator = ", ";
            }
            t.Append('\n');
        }
        return t.ToString();
    }

    private static string Wide(ulong value, bool is64) => is64 ? value.ToString("x16", CultureInfo.InvariantCulture)
        : ((uint)value).ToString("x8", CultureInfo.InvariantCulture);

    private static void Segment(StringBuilder t, string name, SegmentRegister r, bool is64, bool isProtected)
    {
        // Bits 8..23 of the descriptor's second word, as it was loaded.
        bool isPaged = (r.Attributes & 0x8000) != 0;
        uint flags = (r.Attributes & 0xF0FF) << 8 | (isPaged ? r.Limit >> 28 : r.Limit >> 16 & 15) << 16;
        t.Append(CultureInfo.InvariantCulture, $"{name}={r.Selector:x4} {Wide(r.Base, is64)} {r.Limit:x8} {flags:x8}");
        if (isProtected && (r.Attributes & 0x80) != 0)
            t.Append(CultureInfo.InvariantCulture, $" DPL={r.Attributes >> 5 & 3} {Kind(r.Attributes, is64)}");
        t.Append('\n');
    }

    private static string Kind(uint a, bool is64)
    {
        bool accessed = (a & 1) != 0, second = (a & 2) != 0, third = (a & 4) != 0;
        if ((a & 0x10) == 0)
            return (a & 15) switch
            {
                1 => "TSS16-avl",
                2 => "LDT",
                3 => "TSS16-busy",
                9 => is64 ? "TSS64-avl" : "TSS32-avl",
                11 => is64 ? "TSS64-busy" : "TSS32-busy",
                _ => "Reserved",
            };
        return (a & 8) != 0
            ? $"{((a & 0x2000) != 0 ? "CS64" : (a & 0x4000) != 0 ? "CS32" : "CS16")} [{(third ? 'C' : '-')}{(second ? 'R' : '-')}{(accessed ? 'A' : '-')}]"
            : $"{((a & 0x4000) != 0 || is64 ? "DS  " : "DS16")} [{(third ? 'E' : '-')}{(second ? 'W' : '-')}{(accessed ? 'A' : '-')}]";
    }

    private static void Table(StringBuilder t, string name, ulong at, ushort limit, bool is64) =>
        t.Append(CultureInfo.InvariantCulture, $"{name}=     {Wide(at, is64)} {limit:x8}\n");
}
