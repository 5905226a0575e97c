using System.Globalization;
using System.Text;
using ImgKit.Cpu;
using ImgKit.Machine.Devices.Display;

namespace ImgKit.Machine.Monitors;

/// <summary>A command was given wrongly or could not be done; the message is for the monitor's user.</summary>
public sealed class CommandException(string message) : Exception(message);

/// <summary>What monitors do to a machine, whatever language the monitor speaks. On the control thread.</summary>
internal static class Commands
{
    internal static void ScreenDump(Pc pc, string file, string? format)
    {
        if (pc.Devices.OfType<IScreenSource>().FirstOrDefault() is not { } screen)
            throw new CommandException("There is no console to take a screendump from");
        ScreenImage image;
        lock (pc.Services.Lock)
            image = screen.Capture();
        bool png = (format ?? (file.EndsWith(".png", StringComparison.OrdinalIgnoreCase) ? "png" : "ppm")) == "png";
        WriteFile(file, png ? image.ToPng() : image.ToPpm());
    }

    internal static void WriteFile(string file, byte[] content)
    {
        try
        {
            File.WriteAllBytes(file, content);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not open '{file}': {Host.HostException.TextOf(e)}");
        }
    }

    internal static void SavePhysical(Pc pc, ulong address, ulong size, string file) =>
        WriteFile(file, ReadPhysical(pc, address, Bounded(size)));

    private static int Bounded(ulong size) => size <= 1 << 30 ? (int)size : throw new CommandException("size is above 1 GiB");

    internal static byte[] ReadPhysical(Pc pc, ulong address, int size)
    {
        var data = new byte[size];
        lock (pc.Services.Lock)
            if (!pc.Services.Memory.Read(address, data) && pc.Devices.OfType<IPhysicalWindow>().FirstOrDefault() is { } window)
                for (int i = 0; i < size; i++)
                    if (!pc.Services.Memory.Map.TryFind(address + (ulong)i, out _))
                        data[i] = window.Peek(address + (ulong)i) ?? data[i];
        return data;
    }

    /// <summary>Runs something while the processors stand, whose state it looks at.</summary>
    internal static T Standing<T>(Pc pc, Func<T> look) => pc.WithStandingProcessors(look);

    internal static byte[] ReadVirtual(Pc pc, int cpu, ulong address, int size) => Standing(pc, () =>
    {
        var vcpu = pc.Processors.ElementAtOrDefault(cpu) ?? throw new CommandException($"Invalid parameter type for 'cpu-index', expected: a CPU number");
        var data = new byte[size];
        for (int done = 0; done < size;)
        {
            long physical = vcpu.TranslateAddress(address + (ulong)done);
            if (physical < 0)
                throw new CommandException($"Invalid addr 0x{address + (ulong)done:x16}/size {size} specified");
            int n = (int)Math.Min(size - done, 4096 - (physical & 4095));
            ReadPhysical(pc, (ulong)physical, n).CopyTo(data, done);
            done += n;
        }
        return data;
    });

    internal static void SaveVirtual(Pc pc, int cpu, ulong address, ulong size, string file) =>
        WriteFile(file, ReadVirtual(pc, cpu, address, Bounded(size)));

    internal static CpuState StateOf(Pc pc, int cpu) => Standing(pc, () =>
    {
        var state = new CpuState();
        (pc.Processors.ElementAtOrDefault(cpu) ?? throw new CommandException("Invalid CPU index")).GetState(state);
        return state;
    });

    internal static void SendKeys(Pc pc, string keys, int holdMilliseconds)
    {
        var codes = new List<int>();
        foreach (string name in keys.Split('-'))
            codes.Add(KeyNames.Find(name) ?? throw new CommandException($"Unknown key: '{name}'"));
        SendKeys(pc, codes, holdMilliseconds);
    }

    internal static void SendKeys(Pc pc, IReadOnlyList<int> codes, int holdMilliseconds)
    {
        lock (pc.Services.Lock)
            foreach (int c in codes)
                pc.Keyboard.Keyboard.Key(c, true);
        pc.Services.Loop.After(holdMilliseconds, () =>
        {
            for (int i = codes.Count - 1; i >= 0; i--)
                pc.Keyboard.Keyboard.Key(codes[i], false);
        });
    }

    internal static string InfoPci(Pc pc)
    {
        if (pc.Pci == null)
            return "No PCI buses\n";
        var text = new StringBuilder();
        foreach (var f in pc.Pci.Functions)
        {
            text.Append(CultureInfo.InvariantCulture, $"  Bus  0, device {f.DeviceFunction >> 3,3}, function {f.DeviceFunction & 7}:\n");
            text.Append(CultureInfo.InvariantCulture, $"    Class {f.ClassId:x4}: PCI device {f.VendorId:x4}:{f.DeviceId:x4}\n");
            uint ids = f.ConfigRead(0x2C, 4);
            if (ids != 0)
                text.Append(CultureInfo.InvariantCulture, $"      PCI subsystem {ids & 0xFFFF:x4}:{ids >> 16:x4}\n");
            if (f.ConfigRead(0x3D, 1) is var pin and not 0)
                text.Append(CultureInfo.InvariantCulture, $"      IRQ {f.ConfigRead(0x3C, 1)}, pin {(char)('A' + pin - 1)}\n");
            for (int i = 0; i < 6; i++)
                if (f.DescribeBar(i) is { } bar)
                    text.Append($"      {bar}\n");
            text.Append($"      id \"{f.Id}\"\n");
        }
        return text.ToString();
    }

    /// <summary>Memory as <c>x /FMT</c> prints it.</summary>
    internal static string Dump(Pc pc, string format, ulong address, bool physical)
    {
        int at = 0, count = 0;
        while (at < format.Length && char.IsAsciiDigit(format[at]) && count < 100000)
            count = count * 10 + format[at++] - '0';
        if (count == 0)
            count = 1;
        char kind = 'x';
        int size = 4;
        foreach (char c in format[at..])
            switch (c)
            {
                case 'b':
                    size = 1;
                    break;
                case 'h':
                    size = 2;
                    break;
                case 'w':
                    size = 4;
                    break;
                case 'g':
                    size = 8;
                    break;
                case 'x' or 'd' or 'u' or 'o' or 'c' or 'i':
                    kind = c;
                    break;
                default:
                    throw new CommandException($"invalid char in format: '{c}'");
            }
        if (kind == 'i')
            return Disassembly.Text(pc, address, count, physical);
        if (kind == 'c')
            size = 1;
        count = Math.Min(count, 65536);
        byte[] data = physical ? ReadPhysical(pc, address, count * size) : ReadVirtual(pc, 0, address, count * size);
        int perLine = kind == 'c' ? 16 : size switch { 1 => 8, 2 => 8, 4 => 4, _ => 2 };
        var text = new StringBuilder();
        for (int i = 0; i < count; i++)
        {
            if (i % perLine == 0)
                text.Append(i > 0 ? "\n" : "").Append(CultureInfo.InvariantCulture, $"{address + (ulong)(i * size):x16}:");
            ulong v = 0;
            for (int b = size - 1; b >= 0; b--)
                v = v << 8 | data[i * size + b];
            long signed = size == 8 ? (long)v : (long)(v << (64 - 8 * size)) >> (64 - 8 * size);
            text.Append(' ').Append(kind switch
            {
                'd' => signed.ToString(CultureInfo.InvariantCulture),
                'u' => v.ToString(CultureInfo.InvariantCulture),
                'o' => "0" + Convert.ToString((long)v, 8),
                'c' => v is >= 32 and < 127 ? $"'{(char)v}'" : $"'\\x{v:x2}'",
                _ => "0x" + v.ToString("x" + 2 * size, CultureInfo.InvariantCulture),
            });
        }
        return text.Append('\n').ToString();
    }

    /// <summary>A number, or an expression of numbers and registers with + and -.</summary>
    internal static ulong Number(Pc pc, string text)
    {
        ulong value = 0;
        int at = 0;
        bool minus = false;
        text = text.Replace(" ", "", StringComparison.Ordinal);
        while (at < text.Length)
        {
            int end = at;
            while (end < text.Length && text[end] is not ('+' or '-'))
                end++;
            string term = text[at..end];
            ulong v;
            if (term.StartsWith('$'))
                v = Register(pc, term[1..]);
            else if (term.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
                ? !ulong.TryParse(term.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out v)
                : !ulong.TryParse(term, NumberStyles.None, CultureInfo.InvariantCulture, out v))
                throw new CommandException($"invalid char '{(term.Length > 0 ? term[0] : ' ')}' in expression");
            value = minus ? value - v : value + v;
            if (end < text.Length)
                minus = text[end] == '-';
            at = end + 1;
        }
        return value;
    }

    private static ulong Register(Pc pc, string name)
    {
        var s = StateOf(pc, 0);
        string[] names = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
        string plain = name.Length == 3 && name[0] is 'r' or 'e' ? name[1..] : name;
        int i = Array.IndexOf(names, plain);
        if (i >= 0)
            return s.Gpr[i];
        if (plain is "ip" or "pc")
            return s.Segments[1].Base + s.Rip;
        if (name is "eflags" or "rflags")
            return s.Rflags;
        if (name.StartsWith('r') && int.TryParse(name.AsSpan(1), out int n) && n is >= 8 and < 16)
            return s.Gpr[n];
        return name switch
        {
            "cr0" => s.Cr0,
            "cr2" => s.Cr2,
            "cr3" => s.Cr3,
            "cr4" => s.Cr4,
            _ => throw new CommandException("unknown register"),
        };
    }
}

/// <summary>Memory of a device that is not in the flat map, such as the VGA window: for looking at it without side effects.</summary>
public interface IPhysicalWindow
{
    /// <summary>The byte at a physical address; null where the device has none.</summary>
    byte? Peek(ulong address);
}
