using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Devices.Storage;

// INQUIRY (SPC-3, 6.4), as an ATAPI drive answers it; on SCSI the logical unit does.
internal sealed partial class MmcCommands
{
    private PacketAction Inquiry(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        if ((cdb[1] & 1) != 0)
        {
            int length = VitalPage(cdb[2], buffer);
            return length < 0 ? Fail(5, 0x24) : Reply(length, BinaryPrimitives.ReadUInt16BigEndian(cdb[3..]));
        }
        buffer[..36].Clear();
        buffer[0] = 5;
        buffer[1] = 0x80;
        buffer[3] = 0x21;
        buffer[4] = 31;
        "QEMU    QEMU DVD-ROM    2.5+"u8.CopyTo(buffer[8..]);
        return Reply(36, BinaryPrimitives.ReadUInt16BigEndian(cdb[3..]));
    }

    // Those that there are, and the device's identification: vendor, product and serial number (SPC-3, 7.6.3).
    private int VitalPage(byte page, Span<byte> buffer)
    {
        buffer[..128].Clear();
        buffer[0] = 5;
        buffer[1] = page;
        switch (page)
        {
            case 0:
                buffer[3] = 2;
                buffer[5] = 0x83;
                return 6;
            case 0x83:
                string serial = SerialNumber;
                var name = buffer[4..];
                name[0] = 2;        // ASCII
                name[3] = 20;
                AsciiField(name.Slice(4, 20), serial);
                name = name[24..];
                name[0] = 2;
                name[1] = 1;        // with the vendor in front
                name[3] = 68;
                AsciiField(name.Slice(4, 8), "ATA");
                AsciiField(name.Slice(12, 40), "QEMU DVD-ROM");
                AsciiField(name.Slice(52, 20), serial);
                buffer[3] = 24 + 72;
                return 4 + buffer[3];
            default:
                return -1;
        }
    }

    private static void AsciiField(Span<byte> field, string text)
    {
        field.Fill((byte)' ');
        Encoding.ASCII.GetBytes(text.AsSpan(0, Math.Min(text.Length, field.Length)), field);
    }
}
