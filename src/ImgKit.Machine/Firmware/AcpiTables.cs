using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Firmware;

/// <summary>What the ACPI tables say of a machine.</summary>
/// <param name="ApicIds">of each processor.</param>
/// <param name="PciHoleStart">first address below 4 GiB that PCI memory may use.</param>
/// <param name="HighMemoryEnd">address behind the last RAM above 4 GiB (4 GiB when there is none).</param>
/// <param name="HasHpet">there is an HPET.</param>
/// <param name="HasFloppy">there is a floppy controller.</param>
/// <param name="SerialPorts">how many of the four.</param>
/// <param name="HasParallel">there is a parallel port.</param>
/// <param name="HasPanicPort">there is a pvpanic port at 0x505.</param>
/// <param name="PmBase">first port of the power management block.</param>
public sealed record AcpiMachine(uint[] ApicIds, uint PciHoleStart, ulong HighMemoryEnd, bool HasHpet, bool HasFloppy, int SerialPorts,
    bool HasParallel, bool HasPanicPort, ushort PmBase = Piix4Pm.DefaultPmBase);

/// <summary>
/// Builds FACS, DSDT, FADT, MADT, HPET, RSDT and the RSDP. Source: ACPI 6.4, chapter 5. Tables refer to each other by offset in one
/// blob; <see cref="Pointers"/> lists what must be relocated, so the blob serves firmware and direct boots alike.
/// </summary>
public sealed class AcpiTables
{
    /// <summary>A 4-byte pointer at <paramref name="At"/> in the blob, that holds an offset into the blob.</summary>
    public readonly record struct Pointer(int At);

    /// <summary>A table whose checksum must be made after relocation.</summary>
    public readonly record struct Table(int Start, int Length);

    private readonly MemoryStream _blob = new();

    /// <summary>Makes the tables.</summary>
    public AcpiTables(AcpiMachine machine)
    {
        int facs = Align(64);
        _blob.Write(Facs());
        int dsdt = Add("DSDT", 1, Dsdt(machine));
        int fadt = Add("FACP", 3, Fadt(machine.PmBase));
        Pointers.Add(new Pointer(fadt + 36));
        Pointers.Add(new Pointer(fadt + 40));
        Patch(fadt + 36, facs);
        Patch(fadt + 40, dsdt);
        var roots = new List<int> { fadt, Add("APIC", 1, Madt(machine)) };
        if (machine.HasHpet)
            roots.Add(Add("HPET", 1, HpetTable()));
        var list = new byte[4 * roots.Count];
        int rsdt = Add("RSDT", 1, list);
        for (int i = 0; i < roots.Count; i++)
        {
            Pointers.Add(new Pointer(rsdt + 36 + 4 * i));
            Patch(rsdt + 36 + 4 * i, roots[i]);
        }
        RsdtOffset = rsdt;
        Blob = _blob.ToArray();
    }

    /// <summary>All tables but the RSDP, pointers as offsets, checksums zero.</summary>
    public byte[] Blob { get; }

    /// <summary>Where the RSDT is in the blob.</summary>
    public int RsdtOffset { get; }

    /// <summary>Pointers in the blob.</summary>
    public List<Pointer> Pointers { get; } = [];

    /// <summary>Tables with a checksum at offset 9.</summary>
    public List<Table> Tables { get; } = [];

    /// <summary>The RSDP of revision 0: 20 bytes with the RSDT's address at 16 and the checksum at 8 (zero here).</summary>
    public static byte[] Rsdp(uint rsdt)
    {
        var r = new byte[20];
        "RSD PTR "u8.CopyTo(r);
        "IMGKIT"u8.CopyTo(r.AsSpan(9));
        BinaryPrimitives.WriteUInt32LittleEndian(r.AsSpan(16), rsdt);
        return r;
    }

    /// <summary>The blob for a place in memory: pointers and checksums made.</summary>
    public byte[] Relocated(uint address)
    {
        byte[] b = [.. Blob];
        foreach (var p in Pointers)
            BinaryPrimitives.WriteUInt32LittleEndian(b.AsSpan(p.At), BinaryPrimitives.ReadUInt32LittleEndian(b.AsSpan(p.At)) + address);
        foreach (var t in Tables)
            b[t.Start + 9] = Checksum(b.AsSpan(t.Start, t.Length));
        return b;
    }

    /// <summary>What makes the sum of the bytes zero.</summary>
    internal static byte Checksum(ReadOnlySpan<byte> data)
    {
        byte sum = 0;
        foreach (byte d in data)
            sum += d;
        return (byte)-sum;
    }

    private int Align(int to)
    {
        while (_blob.Length % to != 0)
            _blob.WriteByte(0);
        return (int)_blob.Length;
    }

    private int Add(string signature, byte revision, byte[] body)
    {
        int at = Align(16);
        var h = new byte[36];
        Encoding.ASCII.GetBytes(signature).CopyTo(h, 0);
        BinaryPrimitives.WriteInt32LittleEndian(h.AsSpan(4), 36 + body.Length);
        h[8] = revision;
        "IMGKITPC      "u8.CopyTo(h.AsSpan(10));
        BinaryPrimitives.WriteUInt32LittleEndian(h.AsSpan(24), 1);
        "IMGK"u8.CopyTo(h.AsSpan(28));
        BinaryPrimitives.WriteUInt32LittleEndian(h.AsSpan(32), 1);
        _blob.Write(h);
        _blob.Write(body);
        Tables.Add(new Table(at, 36 + body.Length));
        return at;
    }

    private void Patch(int at, int value)
    {
        Span<byte> b = stackalloc byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(b, value);
        long end = _blob.Position;
        _blob.Position = at;
        _blob.Write(b);
        _blob.Position = end;
    }

    private static byte[] Facs()
    {
        var f = new byte[64];
        "FACS"u8.CopyTo(f);
        f[4] = 64;
        f[32] = 1;
        return f;
    }

    private static byte[] Fadt(uint pmBase)
    {
        var f = new byte[244 - 36];
        void U16(int at, int v) => BinaryPrimitives.WriteUInt16LittleEndian(f.AsSpan(at - 36), (ushort)v);
        void U32(int at, uint v) => BinaryPrimitives.WriteUInt32LittleEndian(f.AsSpan(at - 36), v);
        void Gas(int at, int bits, uint port)
        {
            f[at - 36] = 1;
            f[at - 35] = (byte)bits;
            U32(at + 4, port);
        }
        f[45 - 36] = 1;             // preferred profile: desktop
        U16(46, 9);                 // SCI
        U32(48, 0xB2);              // SMI command port, ACPI enable and disable
        f[52 - 36] = 0xF1;
        f[53 - 36] = 0xF0;
        U32(56, pmBase);
        U32(64, pmBase + 4);
        U32(76, pmBase + 8);
        U32(80, Piix4Pm.GpeBase);
        f[88 - 36] = 4;
        f[89 - 36] = 2;
        f[91 - 36] = 4;
        f[92 - 36] = 4;
        U16(96, 0xFFF);             // no C2, no C3
        U16(98, 0xFFF);
        f[108 - 36] = 0x32;         // century in CMOS
        U16(109, 3);                // 8042, legacy devices
        U32(112, 0x000084A5);       // WBINVD, C1, no sleep button, RTC wakes from S4, reset register, platform clock
        Gas(116, 8, 0xCF9);
        f[128 - 36] = 6;
        Gas(148, 32, pmBase);
        Gas(172, 16, pmBase + 4);
        Gas(208, 32, pmBase + 8);
        Gas(220, 32, Piix4Pm.GpeBase);
        return f;
    }

    private static byte[] Madt(AcpiMachine machine)
    {
        var m = new MemoryStream();
        void U32(uint v)
        {
            Span<byte> b = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(b, v);
            m.Write(b);
        }
        U32(0xFEE0_0000);
        U32(1);                     // there are 8259s, too
        for (int i = 0; i < machine.ApicIds.Length; i++)
        {
            if (machine.ApicIds[i] < 255)
            {
                m.Write([0, 8, (byte)i, (byte)machine.ApicIds[i]]);
                U32(1);
            }
            else
            {
                m.Write([9, 16, 0, 0]);
                U32(machine.ApicIds[i]);
                U32(1);
                U32((uint)i);
            }
        }
        m.Write([1, 12, 0, 0]);
        U32((uint)IoApic.Address);
        U32(0);
        // Line 0 is on input 2; the lines that PCI uses are level-triggered and active high.
        m.Write([2, 10, 0, 0]);
        U32(2);
        m.Write([0, 0]);
        foreach (byte line in (ReadOnlySpan<byte>)[5, 9, 10, 11])
        {
            m.Write([2, 10, 0, line]);
            U32(line);
            m.Write([0x0D, 0]);
        }
        m.Write([4, 6, 0xFF, 0, 0, 1]);     // NMI on LINT1 of all
        return m.ToArray();
    }

    private static byte[] HpetTable()
    {
        var h = new byte[20];
        BinaryPrimitives.WriteUInt32LittleEndian(h, unchecked((uint)Hpet.Capabilities));
        BinaryPrimitives.WriteUInt32LittleEndian(h.AsSpan(8), (uint)Hpet.Address);
        return h;
    }

    private static byte[] Dsdt(AcpiMachine m) => Aml.Join(
        Aml.Scope("\\_SB", PciRoot(m), Aml.Join([.. m.ApicIds.Select((_, i) => Processor(i))]), Links(), m.HasHpet ? HpetDevice() : []),
        Aml.Scope("\\_GPE", Aml.Name("_HID", Aml.Text("ACPI0006"))),
        Aml.Name("\\_S5", Aml.Package(Aml.Integer(0), Aml.Integer(0), Aml.Integer(0), Aml.Integer(0))));

    private static byte[] Processor(int index) => Aml.Device($"C{index:X3}",
        Aml.Name("_HID", Aml.Text("ACPI0007")),
        Aml.Name("_UID", Aml.Integer((ulong)index)));

    private static byte[] HpetDevice() => Aml.Device("HPET",
        Aml.Name("_HID", Aml.EisaId("PNP0103")),
        Aml.Name("_UID", Aml.Integer(0)),
        Aml.Name("_STA", Aml.Integer(15)),
        Aml.Name("_CRS", Aml.Resources(Aml.Memory32((uint)Hpet.Address, 0x400, false))));

    private static byte[] PciRoot(AcpiMachine m)
    {
        var windows = new List<byte[]>
        {
            Aml.Word(2, 0, 0xFF),
            Aml.Io(0xCF8, 8),
            Aml.Word(1, 0, 0x0CF7),
            Aml.Word(1, 0x0D00, 0xFFFF),
            Aml.Dword(0xA0000, 0xBFFFF),
            Aml.Dword(m.PciHoleStart, 0xFEBF_FFFF),
        };
        ulong high = (m.HighMemoryEnd + (1UL << 30) - 1) & ~((1UL << 30) - 1);
        windows.Add(Aml.Qword(high, high + (1UL << 35) - 1));
        return Aml.Device("PCI0",
            Aml.Name("_HID", Aml.EisaId("PNP0A03")),
            Aml.Name("_ADR", Aml.Integer(0)),
            Aml.Name("_UID", Aml.Integer(0)),
            Aml.Name("_CRS", Aml.Resources([.. windows])),
            Aml.Name("_PRT", Routing()),
            FirmwareConfiguration(),
            IsaBridge(m));
    }

    // Drivers of guests find the configuration by this name (QEMU's docs/specs/fw_cfg, ACPI interface).
    private static byte[] FirmwareConfiguration() => Aml.Device("FWCF",
        Aml.Name("_HID", Aml.Text("QEMU0002")),
        Aml.Name("_STA", Aml.Integer(0x0B)),
        Aml.Name("_CRS", Aml.Resources(Aml.Io(0x510, 12))));

    // Pin p of device d is on wire (d - 1 + p) mod 4; device 1's pin A (the PM function) is wired to line 9 alone.
    private static byte[] Routing()
    {
        var rows = new List<byte[]>();
        for (int device = 0; device < 32; device++)
            for (int pin = 0; pin < 4; pin++)
            {
                string link = device == 1 && pin == 0 ? "LNKS" : $"LNK{(char)('A' + ((device - 1 + pin) & 3))}";
                rows.Add(Aml.Package(Aml.Integer((ulong)device << 16 | 0xFFFF), Aml.Integer((ulong)pin),
                    Aml.Path("\\_SB." + link), Aml.Integer(0)));
            }
        return Aml.Package([.. rows]);
    }

    private static byte[] IsaBridge(AcpiMachine m)
    {
        var devices = new List<byte[]>
        {
            Aml.Name("_ADR", Aml.Integer(0x10000)),
            Aml.Region("P40C", 2, 0x60, 4),
            Aml.Field("P40C", ("PRQ0", 8), ("PRQ1", 8), ("PRQ2", 8), ("PRQ3", 8)),
            IsaDevice("RTC", "PNP0B00", Aml.Io(0x70, 8), Aml.IrqNoFlags(8)),
            IsaDevice("KBD", "PNP0303", Aml.Io(0x60, 1), Aml.Io(0x64, 1), Aml.IrqNoFlags(1)),
            IsaDevice("MOU", "PNP0F13", Aml.IrqNoFlags(12)),
        };
        if (m.HasFloppy)
            devices.Add(IsaDevice("FDC0", "PNP0700", Aml.Io(0x3F2, 4), Aml.Io(0x3F7, 1), Aml.IrqNoFlags(6), Aml.DmaChannel(2)));
        if (m.HasParallel)
            devices.Add(IsaDevice("LPT1", "PNP0400", Aml.Io(0x378, 8), Aml.IrqNoFlags(7)));
        ReadOnlySpan<ushort> ports = [0x3F8, 0x2F8, 0x3E8, 0x2E8];
        for (int i = 0; i < m.SerialPorts; i++)
            devices.Add(IsaDevice($"COM{i + 1}", "PNP0501", i + 1, Aml.Io(ports[i], 8), Aml.IrqNoFlags((i & 1) == 0 ? 4 : 3)));
        if (m.HasPanicPort)
            devices.Add(Aml.Device("PEVT", Aml.Name("_HID", Aml.Text("QEMU0001")),
                Aml.Name("_STA", Aml.Integer(15)), Aml.Name("_CRS", Aml.Resources(Aml.Io(0x505, 1)))));
        return Aml.Device("ISA", [.. devices]);
    }

    private static byte[] IsaDevice(string name, string id, params byte[][] resources) => IsaDevice(name, id, 0, resources);

    private static byte[] IsaDevice(string name, string id, int unit, params byte[][] resources) => Aml.Device(name,
        Aml.Name("_HID", Aml.EisaId(id)),
        Aml.Name("_UID", Aml.Integer((ulong)unit)),
        Aml.Name("_STA", Aml.Integer(15)),
        Aml.Name("_CRS", Aml.Resources(resources)));

    private static byte[] Links()
    {
        var links = new List<byte[]>
        {
            // The status of a link: present, and enabled unless bit 7 of its route is set.
            Aml.Method("IQST", 1, false,
                Aml.If(Aml.And(Aml.Integer(0x80), Aml.Argument(0)), Aml.Return(Aml.Integer(9))),
                Aml.Return(Aml.Integer(11))),
            Aml.Method("IQCR", 1, true,
                Aml.Name("PRR0", Aml.Resources(Aml.Interrupts(0))),
                Aml.CreateDwordField(Aml.Path("PRR0"), 5, "PRRI"),
                Aml.If(Aml.Less(Aml.Argument(0), Aml.Integer(0x80)), Aml.Store(Aml.Argument(0), Aml.Path("PRRI"))),
                Aml.Return(Aml.Path("PRR0"))),
        };
        for (int i = 0; i < 4; i++)
        {
            byte[] route = Aml.Path($"\\_SB.PCI0.ISA.PRQ{i}");
            links.Add(Aml.Device($"LNK{(char)('A' + i)}",
                Aml.Name("_HID", Aml.EisaId("PNP0C0F")),
                Aml.Name("_UID", Aml.Integer((ulong)i)),
                Aml.Name("_PRS", Aml.Resources(Aml.Interrupts(5, 10, 11))),
                Aml.Method("_STA", 0, false, Aml.Return(Aml.Join(Aml.Path("IQST"), route))),
                Aml.Method("_DIS", 0, false, Aml.Or(route, Aml.Integer(0x80), route)),
                Aml.Method("_CRS", 0, false, Aml.Return(Aml.Join(Aml.Path("IQCR"), route))),
                Aml.Method("_SRS", 1, false,
                    Aml.CreateDwordField(Aml.Argument(0), 5, "PRRI"),
                    Aml.Store(Aml.Path("PRRI"), route))));
        }
        links.Add(Aml.Device("LNKS",
            Aml.Name("_HID", Aml.EisaId("PNP0C0F")),
            Aml.Name("_UID", Aml.Integer(4)),
            Aml.Name("_PRS", Aml.Resources(Aml.Interrupts(9))),
            Aml.Name("_CRS", Aml.Resources(Aml.Interrupts(9))),
            Aml.Method("_STA", 0, false, Aml.Return(Aml.Integer(11))),
            Aml.Method("_DIS", 0, false),
            Aml.Method("_SRS", 1, false)));
        return Aml.Join([.. links]);
    }
}
