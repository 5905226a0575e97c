using System.Globalization;
using System.Text;
using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Monitors;

/// <summary>The state of the interrupt controllers, where the machine has them: <c>info pic</c>, in QEMU's words.</summary>
internal static class InterruptInfo
{
    private static readonly string[] Modes = ["fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT"];

    internal static string Text(Pc pc)
    {
        var text = new StringBuilder();
        lock (pc.Services.Lock)
        {
            if (pc.Devices.OfType<IoApic>().FirstOrDefault() is { } io)
                Append(text, io);
            if (pc.Devices.OfType<Pic>().FirstOrDefault() is { } pic)
                for (int chip = 1; chip >= 0; chip--)
                    text.Append($"pic{chip}: {pic.Describe(chip)}\n");
        }
        return text.Length > 0 ? text.ToString() : "the kernel has the interrupt controllers\n";
    }

    private static void Append(StringBuilder text, IoApic io)
    {
        var (id, selected, pending) = io.Registers;
        text.Append(CultureInfo.InvariantCulture, $"ioapic0: ver=0x{IoApic.Version:x} id=0x{id:x2} sel=0x{selected:x2}");
        if (selected >= 0x10)
            text.Append(CultureInfo.InvariantCulture, $" (redir[{(selected - 0x10) >> 1}])");
        text.Append('\n');
        uint remote = 0;
        for (int i = 0; i < io.Entries.Length; i++)
        {
            ulong e = io.Entries[i];
            bool Is(int bit) => (e >> bit & 1) != 0;
            text.Append(CultureInfo.InvariantCulture, $"  pin {i,-2} 0x{e:x16} dest={e >> 56:X} vec={e & 0xFF,-3} {(Is(13) ? "active-lo" : "active-hi")} ")
                .Append($"{(Is(15) ? "level" : "edge ")} {(Is(16) ? "masked" : "      ")} {Modes[e >> 8 & 7],-6} {(Is(11) ? "logical " : "physical")}".TrimEnd()).Append('\n');
            if (Is(15) && Is(14))
                remote |= 1u << i;
        }
        text.Append($"  IRR      {Lines(pending)}\n  Remote IRR {Lines(remote)}\n");
    }

    private static string Lines(uint set) => set == 0 ? "(none)"
        : string.Join(' ', Enumerable.Range(0, 32).Where(i => (set >> i & 1) != 0));
}
