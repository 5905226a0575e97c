using System.Globalization;
using System.Text;
using Iced.Intel;

namespace ImgKit.Machine.Monitors;

/// <summary>Instructions as text, for <c>x /i</c>.</summary>
internal static class Disassembly
{
    internal static string Text(Pc pc, ulong address, int count, bool physical)
    {
        var state = Commands.StateOf(pc, 0);
        uint code = state.Segments[1].Attributes;
        bool longMode = (state.Msrs.GetValueOrDefault(0xC000_0080u) & 0x400) != 0;
        int bits = longMode && (code & 0x2000) != 0 ? 64 : (code & 0x4000) != 0 ? 32 : 16;
        count = Math.Min(count, 1000);
        byte[] bytes = physical ? Commands.ReadPhysical(pc, address, count * 15) : Commands.ReadVirtual(pc, 0, address, count * 15);
        var decoder = Iced.Intel.Decoder.Create(bits, bytes, address);
        var formatter = new GasFormatter();
        var output = new StringOutput();
        var text = new StringBuilder();
        for (int i = 0; i < count; i++)
        {
            int at = (int)(decoder.IP - address);
            decoder.Decode(out var instruction);
            formatter.Format(instruction, output);
            string hex = Convert.ToHexStringLower(bytes, at, instruction.Length);
            text.Append(CultureInfo.InvariantCulture, $"0x{instruction.IP:x8}:  {Spaced(hex),-24} {output.ToStringAndReset()}\n");
        }
        return text.ToString();
    }

    private static string Spaced(string hex) => string.Join(' ', Enumerable.Range(0, hex.Length / 2).Select(i => hex.Substring(2 * i, 2)));
}
