using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Firmware;

/// <summary>Builds the SMBIOS structures and their anchor. Source: DMTF DSP0134 (SMBIOS 2.8), chapters 5 to 7.</summary>
public static class SmbiosTables
{
    private const ushort NoErrorInformation = 0xFFFE;

    /// <summary>The structure table.</summary>
    /// <param name="sockets">processors that could be taken out.</param>
    /// <param name="cores">cores of each.</param>
    /// <param name="threads">threads of each core.</param>
    /// <param name="memory">RAM in bytes.</param>
    /// <param name="uuid">system UUID.</param>
    public static (byte[] Table, int Structures, int Longest) Build(int sockets, int cores, int threads, ulong memory, Guid uuid)
    {
        var all = new List<byte[]>();
        void Add(byte type, ushort handle, byte[] body, params string[] strings)
        {
            var s = new MemoryStream();
            s.Write([type, (byte)(4 + body.Length), (byte)handle, (byte)(handle >> 8)]);
            s.Write(body);
            foreach (string text in strings)
            {
                s.Write(Encoding.ASCII.GetBytes(text));
                s.WriteByte(0);
            }
            if (strings.Length == 0)
                s.WriteByte(0);
            s.WriteByte(0);
            all.Add(s.ToArray());
        }

        // Type 0, firmware: no characteristics told but those of the extension: targeted content distribution, virtual machine.
        Add(0, 0x0000, [1, 2, 0, 0xE8, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0xFF, 0xFF], "ImgKit", "1.0", "01/01/2026");
        var system = new byte[23];
        system[0] = 1;
        system[1] = 2;
        system[2] = 3;
        uuid.TryWriteBytes(system.AsSpan(4));
        system[20] = 6;
        Add(1, 0x0100, system, "ImgKit", "Standard PC (i440FX + PIIX, 1996)", "pc-i440fx");
        Add(3, 0x0300, [1, 1, 2, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0], "ImgKit", "pc-i440fx");
        for (int i = 0; i < sockets; i++)
        {
            var cpu = new byte[0x2A - 4];
            cpu[0] = 1;
            cpu[1] = 3;
            cpu[2] = 1;
            cpu[3] = 2;
            cpu[12] = 3;
            BinaryPrimitives.WriteUInt16LittleEndian(cpu.AsSpan(16), 2000);
            BinaryPrimitives.WriteUInt16LittleEndian(cpu.AsSpan(18), 2000);
            cpu[20] = 0x41;
            cpu[21] = 1;
            cpu.AsSpan(22, 6).Fill(0xFF);
            cpu[31] = cpu[32] = (byte)Math.Min(cores, 255);
            cpu[33] = (byte)Math.Min(cores * threads, 255);
            cpu[34] = 2;
            Add(4, (ushort)(0x0400 + i), cpu, $"CPU {i}", "ImgKit", "pc-i440fx");
        }
        ulong kilobytes = memory >> 10;
        var array = new byte[0x17 - 4];
        array[0] = 1;
        array[1] = 3;
        array[2] = 6;
        BinaryPrimitives.WriteUInt32LittleEndian(array.AsSpan(3), kilobytes < 0x8000_0000 ? (uint)kilobytes : 0x8000_0000);
        BinaryPrimitives.WriteUInt16LittleEndian(array.AsSpan(7), NoErrorInformation);
        array[9] = 1;
        BinaryPrimitives.WriteUInt64LittleEndian(array.AsSpan(11), kilobytes < 0x8000_0000 ? 0 : memory);
        Add(16, 0x1000, array);
        var module = new byte[0x28 - 4];
        module[1] = 0x10;
        BinaryPrimitives.WriteUInt16LittleEndian(module.AsSpan(2), NoErrorInformation);
        module[4] = module[5] = module[6] = module[7] = 0xFF;
        ulong megabytes = memory >> 20;
        BinaryPrimitives.WriteUInt16LittleEndian(module.AsSpan(8), megabytes < 0x7FFF ? (ushort)megabytes : (ushort)0x7FFF);
        module[10] = 9;
        module[12] = 1;
        module[14] = 7;
        module[15] = 2;
        module[19] = 2;
        BinaryPrimitives.WriteUInt32LittleEndian(module.AsSpan(0x1C - 4), (uint)megabytes);
        Add(17, 0x1100, module, "DIMM 0", "ImgKit");
        var mapped = new byte[0x1F - 4];
        BinaryPrimitives.WriteUInt32LittleEndian(mapped.AsSpan(4), (uint)Math.Min(kilobytes - 1, 0xFFFF_FFFE));
        mapped[8] = 0;
        mapped[9] = 0x10;
        mapped[10] = 1;
        Add(19, 0x1300, mapped);
        Add(32, 0x2000, [0, 0, 0, 0, 0, 0, 0]);
        Add(127, 0x7F00, []);
        return (all.SelectMany(s => s).ToArray(), all.Count, all.Max(s => s.Length));
    }

    /// <summary>The 32-bit entry point: 31 bytes, checksums made for that table address.</summary>
    public static byte[] Anchor(int tableLength, int structures, int longest, uint table)
    {
        var a = new byte[31];
        "_SM_"u8.CopyTo(a);
        a[5] = 31;
        a[6] = 2;
        a[7] = 8;
        BinaryPrimitives.WriteUInt16LittleEndian(a.AsSpan(8), (ushort)longest);
        "_DMI_"u8.CopyTo(a.AsSpan(16));
        BinaryPrimitives.WriteUInt16LittleEndian(a.AsSpan(22), (ushort)tableLength);
        BinaryPrimitives.WriteUInt32LittleEndian(a.AsSpan(24), table);
        BinaryPrimitives.WriteUInt16LittleEndian(a.AsSpan(28), (ushort)structures);
        a[30] = 0x28;
        a[21] = AcpiTables.Checksum(a.AsSpan(16));
        a[4] = AcpiTables.Checksum(a);
        return a;
    }
}
