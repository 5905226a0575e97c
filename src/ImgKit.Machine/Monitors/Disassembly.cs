using System.Globalization;
using System.Text;
using Iced.Intel;

namespace ImgKit.Machine.Monitors;

/// <summary>Instructions as text, for <c>x /i</c>.</summary>
internal static class Disassembly
{
    private const int LongestInstruction = 15;

    internal static string Text(MonitorMemory memory, ulong address, int count)
    {
        var state = Commands.StateOf(memory.Pc, memory.Processor);
        uint code = state.Segments[1].Attributes;
        bool longMode = (state.Msrs.GetValueOrDefault(0xC000_0080u) & 0x400) != 0;
        int bits = longMode && (code & 0x2000) != 0 ? 64 : (code & 0x4000) != 0 ? 32 : 16;
        count = Math.Min(count, 1000);
        byte[] bytes = new byte[count * LongestInstruction];
        int readable = memory.Read(address, bytes);
        var decoder = Iced.Intel.Decoder.Create(bits, bytes, address);
        var formatter = new GasFormatter();
        var output = new StringOutput();
        var text = new StringBuilder();
        for (int i = 0; i < count; i++)
        {
            int at = (int)(decoder.IP - address);
            decoder.Decode(out var instruction);
            if (at + instruction.Length > readable)
                return text.Append(CultureInfo.InvariantCulture, $"0x{address + (ulong)at:x8}: unable to read memory\n").ToString();
            formatter.Format(instruction, output);
            string hex = Convert.ToHexStringLower(bytes, at, instruction.Length);
            text.Append(CultureInfo.InvariantCulture, $"0x{instruction.IP:x8}:  {Spaced(hex),-24} {output.ToStringAndReset()}\n");
        }
        return text.ToString();
    }

    private static string Spaced(string hex) => string.Join(' ', Enumerable.Range(0, hex.Length / 2).Select(i => hex.Substring(2 * i, 2)));
}
