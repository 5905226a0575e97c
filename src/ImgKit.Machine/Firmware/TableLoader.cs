using System.Buffers.Binary;
using System.Text;
using ImgKit.Machine.Devices.Misc;

namespace ImgKit.Machine.Firmware;

/// <summary>Hands ACPI and SMBIOS tables to firmware: fw_cfg files and the script <c>etc/table-loader</c> that tells where to put and how to
/// link them. Layout of its 128-byte entries: SeaBIOS, src/fw/romfile_loader.h.</summary>
public static class TableLoader
{
    private const string TablesFile = "etc/acpi/tables", RsdpFile = "etc/acpi/rsdp";

    /// <summary>Puts the tables into the device.</summary>
    /// <param name="fwCfg">the device.</param>
    /// <param name="acpi">tables, for their layout.</param>
    /// <param name="current">makes the same tables when firmware reads them: by then it has decided where the power management ports are.</param>
    /// <param name="smbios">the SMBIOS tables.</param>
    public static void Provide(FwCfg fwCfg, AcpiTables acpi, Func<AcpiTables> current, (byte[] Table, int Structures, int Longest) smbios)
    {
        var script = new MemoryStream();
        script.Write(Allocate(RsdpFile, 16, 2));
        script.Write(Allocate(TablesFile, 64, 1));
        foreach (var p in acpi.Pointers)
            script.Write(AddPointer(TablesFile, TablesFile, p.At, 4));
        foreach (var t in acpi.Tables)
            script.Write(AddChecksum(TablesFile, t.Start + 9, t.Start, t.Length));
        script.Write(AddPointer(RsdpFile, TablesFile, 16, 4));
        script.Write(AddChecksum(RsdpFile, 8, 0, 20));
        fwCfg.SetFile(TablesFile, acpi.Blob, () => current().Blob);
        fwCfg.SetFile(RsdpFile, AcpiTables.Rsdp((uint)acpi.RsdtOffset));
        fwCfg.SetFile("etc/table-loader", script.ToArray());
        fwCfg.SetFile("etc/smbios/smbios-tables", smbios.Table);
        fwCfg.SetFile("etc/smbios/smbios-anchor", SmbiosTables.Anchor(smbios.Table.Length, smbios.Structures, smbios.Longest, 0));
    }

    private static byte[] Entry(uint command)
    {
        var e = new byte[128];
        BinaryPrimitives.WriteUInt32LittleEndian(e, command);
        return e;
    }

    private static byte[] Allocate(string file, uint align, byte zone)
    {
        var e = Entry(1);
        Encoding.ASCII.GetBytes(file, e.AsSpan(4));
        BinaryPrimitives.WriteUInt32LittleEndian(e.AsSpan(60), align);
        e[64] = zone;
        return e;
    }

    private static byte[] AddPointer(string at, string to, int offset, byte size)
    {
        var e = Entry(2);
        Encoding.ASCII.GetBytes(at, e.AsSpan(4));
        Encoding.ASCII.GetBytes(to, e.AsSpan(60));
        BinaryPrimitives.WriteInt32LittleEndian(e.AsSpan(116), offset);
        e[120] = size;
        return e;
    }

    private static byte[] AddChecksum(string file, int offset, int start, int length)
    {
        var e = Entry(3);
        Encoding.ASCII.GetBytes(file, e.AsSpan(4));
        BinaryPrimitives.WriteInt32LittleEndian(e.AsSpan(60), offset);
        BinaryPrimitives.WriteInt32LittleEndian(e.AsSpan(64), start);
        BinaryPrimitives.WriteInt32LittleEndian(e.AsSpan(68), length);
        return e;
    }
}
