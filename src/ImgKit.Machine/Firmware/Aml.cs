using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Firmware;

/// <summary>Encodes ACPI Machine Language: each method gives the bytes of one term. Source: ACPI 6.4, chapter 20 (AML grammar) and
/// section 6.4 (resource descriptors).</summary>
internal static class Aml
{
    internal static byte[] Join(params byte[][] parts)
    {
        int length = 0, at = 0;
        foreach (var p in parts)
            length += p.Length;
        var all = new byte[length];
        foreach (var p in parts)
        {
            p.CopyTo(all, at);
            at += p.Length;
        }
        return all;
    }

    // PkgLength counts itself; its own size decides its encoding (20.2.4).
    private static byte[] Packaged(byte[] content)
    {
        for (int size = 1; ; size++)
        {
            int n = content.Length + size;
            if (size == 1 ? n > 63 : n >= 1 << (4 + 8 * (size - 1)))
                continue;
            var lead = new byte[size];
            if (size == 1)
                lead[0] = (byte)n;
            else
            {
                lead[0] = (byte)((size - 1) << 6 | n & 15);
                for (int i = 1; i < size; i++)
                    lead[i] = (byte)(n >> (4 + 8 * (i - 1)));
            }
            return Join(lead, content);
        }
    }

    /// <summary>A name path: <c>\_SB_.PCI0</c>, segments padded with underscores.</summary>
    internal static byte[] Path(string path)
    {
        var prefix = new List<byte>();
        while (path.StartsWith('\\') || path.StartsWith('^'))
        {
            prefix.Add((byte)path[0]);
            path = path[1..];
        }
        string[] segments = path.Length == 0 ? [] : path.Split('.');
        byte[] lead = segments.Length switch { 0 => [0], 1 => [], 2 => [0x2E], _ => [0x2F, (byte)segments.Length] };
        return Join([.. prefix], lead, Encoding.ASCII.GetBytes(string.Concat(segments.Select(s => s.PadRight(4, '_')))));
    }

    internal static byte[] Integer(ulong value)
    {
        switch (value)
        {
            case 0:
                return [0x00];
            case 1:
                return [0x01];
            case <= 0xFF:
                return [0x0A, (byte)value];
            case <= 0xFFFF:
                return [0x0B, (byte)value, (byte)(value >> 8)];
            case <= 0xFFFF_FFFF:
            {
                byte[] d = [0x0C, 0, 0, 0, 0];
                BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(1), (uint)value);
                return d;
            }
            default:
            {
                byte[] q = [0x0E, 0, 0, 0, 0, 0, 0, 0, 0];
                BinaryPrimitives.WriteUInt64LittleEndian(q.AsSpan(1), value);
                return q;
            }
        }
    }

    internal static byte[] Text(string value) => Join([0x0D], Encoding.ASCII.GetBytes(value), [0]);

    /// <summary>A compressed EISA ID, such as PNP0A03 (19.6.37).</summary>
    internal static byte[] EisaId(string id)
    {
        int letters = (id[0] - 0x40) << 10 | (id[1] - 0x40) << 5 | (id[2] - 0x40);
        int number = Convert.ToInt32(id[3..], 16);
        return [0x0C, (byte)(letters >> 8), (byte)letters, (byte)(number >> 8), (byte)number];
    }

    internal static byte[] Name(string name, byte[] value) => Join([0x08], Path(name), value);

    internal static byte[] Scope(string name, params byte[][] terms) => Join([0x10], Packaged(Join(Path(name), Join(terms))));

    internal static byte[] Device(string name, params byte[][] terms) => Join([0x5B, 0x82], Packaged(Join(Path(name), Join(terms))));

    internal static byte[] Method(string name, int arguments, bool serialized, params byte[][] terms) =>
        Join([0x14], Packaged(Join(Path(name), [(byte)(arguments | (serialized ? 8 : 0))], Join(terms))));

    internal static byte[] Package(params byte[][] elements) => Join([0x12], Packaged(Join([(byte)elements.Length], Join(elements))));

    internal static byte[] Buffer(byte[] data) => Join([0x11], Packaged(Join(Integer((ulong)data.Length), data)));

    internal static byte[] Return(byte[] value) => Join([0xA4], value);

    internal static byte[] Store(byte[] value, byte[] to) => Join([0x70], value, to);

    internal static byte[] And(byte[] a, byte[] b, byte[]? to = null) => Join([0x7B], a, b, to ?? [0]);

    internal static byte[] Or(byte[] a, byte[] b, byte[]? to = null) => Join([0x7D], a, b, to ?? [0]);

    internal static byte[] If(byte[] condition, params byte[][] terms) => Join([0xA0], Packaged(Join(condition, Join(terms))));

    internal static byte[] Less(byte[] a, byte[] b) => Join([0x95], a, b);

    internal static byte[] Argument(int n) => [(byte)(0x68 + n)];

    internal static byte[] Local(int n) => [(byte)(0x60 + n)];

    internal static byte[] CreateDwordField(byte[] buffer, ulong offset, string name) =>
        Join([0x8A], buffer, Integer(offset), Path(name));

    /// <summary>OperationRegion: space 1 is I/O ports, 2 PCI configuration.</summary>
    internal static byte[] Region(string name, byte space, ulong offset, ulong length) =>
        Join([0x5B, 0x80], Path(name), [space], Integer(offset), Integer(length));

    /// <summary>Field of byte access, without a lock, preserving; named units with their bits.</summary>
    internal static byte[] Field(string region, params (string Name, int Bits)[] units) =>
        Join([0x5B, 0x81], Packaged(Join(Path(region), [1],
            Join([.. units.Select(u => Join(Encoding.ASCII.GetBytes(u.Name.PadRight(4, '_')), FieldLength(u.Bits)))]))));

    private static byte[] FieldLength(int bits) => bits < 64 ? [(byte)bits] : [(byte)(0x40 | bits & 15), (byte)(bits >> 4)];

    /// <summary>A resource template: descriptors and the end tag.</summary>
    internal static byte[] Resources(params byte[][] descriptors) => Buffer(Join(Join(descriptors), [0x79, 0]));

    /// <summary>Fixed I/O ports (6.4.2.5), decoded with 16 bits.</summary>
    internal static byte[] Io(ushort port, byte count) =>
        [0x47, 1, (byte)port, (byte)(port >> 8), (byte)port, (byte)(port >> 8), 1, count];

    /// <summary>An ISA interrupt line, edge-triggered, active high, exclusive (6.4.2.1).</summary>
    internal static byte[] IrqNoFlags(int line) => [0x22, (byte)(1 << line), (byte)((1 << line) >> 8)];

    /// <summary>An ISA DMA channel (6.4.2.2).</summary>
    internal static byte[] DmaChannel(int channel) => [0x2A, (byte)(1 << channel), 0];

    /// <summary>Extended interrupts, level-triggered, active high, shared (6.4.3.6).</summary>
    internal static byte[] Interrupts(params int[] numbers)
    {
        var d = new byte[5 + 4 * numbers.Length];
        d[0] = 0x89;
        d[1] = (byte)(d.Length - 3);
        d[3] = 0x09;        // consumer, level, active high, shared
        d[4] = (byte)numbers.Length;
        for (int i = 0; i < numbers.Length; i++)
            BinaryPrimitives.WriteInt32LittleEndian(d.AsSpan(5 + 4 * i), numbers[i]);
        return d;
    }

    /// <summary>A fixed 32-bit memory range (6.4.3.4).</summary>
    internal static byte[] Memory32(uint start, uint length, bool writable = true)
    {
        var d = new byte[12];
        d[0] = 0x86;
        d[1] = 9;
        d[3] = (byte)(writable ? 1 : 0);
        BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(4), start);
        BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(8), length);
        return d;
    }

    /// <summary>A window of a bridge, 16-bit numbers (6.4.3.5.3). Kind 0 memory, 1 I/O, 2 bus numbers.</summary>
    internal static byte[] Word(byte kind, ushort first, ushort last)
    {
        var d = new byte[16];
        d[0] = 0x88;
        d[1] = 13;
        d[3] = kind;
        d[4] = 0x0C;        // minimum and maximum are fixed
        d[5] = (byte)(kind == 1 ? 3 : 0);
        BinaryPrimitives.WriteUInt16LittleEndian(d.AsSpan(8), first);
        BinaryPrimitives.WriteUInt16LittleEndian(d.AsSpan(10), last);
        BinaryPrimitives.WriteUInt16LittleEndian(d.AsSpan(14), (ushort)(last - first + 1));
        return d;
    }

    /// <summary>A memory window of a bridge, 32-bit (6.4.3.5.2).</summary>
    internal static byte[] Dword(uint first, uint last)
    {
        var d = new byte[26];
        d[0] = 0x87;
        d[1] = 23;
        d[4] = 0x0C;
        d[5] = 1;           // not cacheable, read and write
        BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(10), first);
        BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(14), last);
        BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(22), last - first + 1);
        return d;
    }

    /// <summary>A memory window of a bridge, 64-bit (6.4.3.5.1).</summary>
    internal static byte[] Qword(ulong first, ulong last)
    {
        var d = new byte[46];
        d[0] = 0x8A;
        d[1] = 43;
        d[4] = 0x0C;
        d[5] = 1;
        BinaryPrimitives.WriteUInt64LittleEndian(d.AsSpan(14), first);
        BinaryPrimitives.WriteUInt64LittleEndian(d.AsSpan(22), last);
        BinaryPrimitives.WriteUInt64LittleEndian(d.AsSpan(38), last - first + 1);
        return d;
    }
}
