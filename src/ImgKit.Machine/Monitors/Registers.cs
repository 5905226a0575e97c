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
        for (int i = 0; i < 6; i++)
            Segment(t, SegmentNames[i], s.Segments[i], is64);
        Segment(t, "LDT", s.Ldtr, is64);
        Segment(t, "TR ", s.Tr, is64);
        Table(t, "GDT", s.Gdtr.Base, s.Gdtr.Limit, is64);
        Table(t, "IDT", s.Idtr.Base, s.Idtr.Limit, is64);
        t.Append(CultureInfo.InvariantCulture, $"CR0={(uint)s.Cr0:x8} CR2={Wide(s.Cr2, is64)} CR3={Wide(s.Cr3, is64)} CR4={(uint)s.Cr4:x8}\n");
        t.Append(CultureInfo.InvariantCulture, $"DR0={Wide(s.Dr[0], is64)} DR1={Wide(s.Dr[1], is64)} DR2={Wide(s.Dr[2], is64)} DR3={Wide(s.Dr[3], is64)}\n");
        t.Append(CultureInfo.InvariantCulture, $"DR6={Wide(s.Dr[6], is64)} DR7={Wide(s.Dr[7], is64)}\n");
        t.Append(CultureInfo.InvariantCulture, $"EFER={s.Msrs.GetValueOrDefault(0xC000_0080u):x16}\n");
        return t.ToString();
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

    private static void Segment(StringBuilder t, string name, SegmentRegister r, bool is64) =>
        t.Append(CultureInfo.InvariantCulture, $"{name}={r.Selector:x4} {Wide(r.Base, is64)} {r.Limit:x8} {(r.Attributes & 0xFFFF) << 8:x8}\n");

    private static void Table(StringBuilder t, string name, ulong at, ushort limit, bool is64) =>
        t.Append(CultureInfo.InvariantCulture, $"{name}=     {Wide(at, is64)} {limit:x8}\n");
}
