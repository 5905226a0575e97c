using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Devices.Storage;

// What the disk says of itself, and what of it the host can set.
public sealed partial class AtaDisk
{
    private void SetFeatures()
    {
        switch (Feature)
        {
            case 0x02:
                _writeCache = true;
                Finish();
                break;
            case 0x82:
                _writeCache = false;
                Start(DriveOperation.Flush);
                break;
            case 0x03 when Count >> 3 is 0 or 1:
                Finish();
                break;
            case 0x03 when Count >> 3 is 4 or 8 && (Count & 7) <= (Count >> 3 == 4 ? 2 : 5):
                _dmaMode = Count;
                Finish();
                break;
            case 0xAA or 0x55 or 0x05 or 0x85 or 0x69 or 0x67 or 0x96 or 0x9A or 0x42 or 0xC2 or 0x66 or 0xCC:
                Finish();
                break;
            default:
                Fail(Aborted);
                break;
        }
    }

    private void Identify()
    {
        var id = Buffer[..Sector];
        id.Clear();
        void W(Span<byte> to, int word, int value) => BinaryPrimitives.WriteUInt16LittleEndian(to[(2 * word)..], (ushort)value);
        W(id, 0, 0x0040);
        W(id, 1, Cylinders);
        W(id, 3, Heads);
        W(id, 4, Sector * SectorsPerTrack);
        W(id, 5, Sector);
        W(id, 6, SectorsPerTrack);
        Text(id, 10, 10, Encoding.ASCII.GetString(_serial));
        W(id, 20, 3);
        W(id, 21, 512);
        W(id, 22, 4);
        Text(id, 23, 4, Drive.Identity.Revision ?? "2.5+");
        // The peer's name, so that /dev/disk/by-id in a guest's configuration stays right.
        Text(id, 27, 20, Drive.Identity.Model ?? "QEMU HARDDISK");
        W(id, 47, 0x8000 | 16);
        W(id, 48, 1);
        W(id, 49, 0x0F00);          // IORDY, LBA, DMA
        W(id, 50, 0x4000);
        W(id, 51, 0x200);
        W(id, 52, 0x200);
        W(id, 53, 7);
        W(id, 54, Cylinders);
        W(id, 55, _heads);
        W(id, 56, _sectors);
        int chs = Cylinders * _heads * _sectors;
        W(id, 57, chs);
        W(id, 58, chs >> 16);
        if (_multiple != 0)
            W(id, 59, 0x100 | _multiple);
        long lba28 = Math.Min(Sectors, (1 << 28) - 1);
        W(id, 60, (int)lba28);
        W(id, 61, (int)(lba28 >> 16));
        W(id, 63, 7 | (_dmaMode >> 3 == 4 ? 0x100 << (_dmaMode & 7) : 0));
        W(id, 64, 3);
        for (int w = 65; w <= 68; w++)
            W(id, w, 120);
        if (CanTrim)
        {
            W(id, 69, 0x4000);      // reads after TRIM are deterministic
            W(id, 105, BufferSize / Sector);
            W(id, 169, 1);
        }
        W(id, 80, 0xF0);            // ATA-4 to ATA-7
        W(id, 81, 0x16);
        W(id, 82, 0x4021);          // NOP, write cache, SMART
        W(id, 83, 0x7400);          // FLUSH CACHE EXT, FLUSH CACHE, 48-bit
        W(id, 84, 0x4043);          // WRITE DMA FUA EXT; SMART logs and self-tests
        W(id, 85, 0x4000 | (_writeCache ? 0x20 : 0) | (_isSmartOn ? 1 : 0));
        W(id, 86, 0x3400);
        W(id, 87, 0x4043);
        W(id, 88, 0x3F | (_dmaMode >> 3 == 8 ? 0x100 << (_dmaMode & 7) : 0));
        W(id, 93, 0x6001 | (Index == 0 ? 0 : 0x0200));
        BinaryPrimitives.WriteInt64LittleEndian(id[200..], Sectors);
        W(id, 106, 0x6000 | Drive.Geometry.PhysicalExponent);
        if (Drive.Identity.WorldWideName is var name and not 0)
        {
            W(id, 84, 0x4143);
            W(id, 87, 0x4143);
            for (int w = 0; w < 4; w++)
                W(id, 108 + w, (int)(name >> (48 - 16 * w)) & 0xFFFF);
        }
        W(id, 217, Drive.Identity.RotationRate);
        id[510] = 0xA5;
        id[511] = Checksum(id[..511]);
    }

    private static byte Checksum(ReadOnlySpan<byte> data)
    {
        byte sum = 0;
        foreach (byte b in data)
            sum += b;
        return (byte)-sum;
    }

    /// <summary>An ATA string: bytes swapped in each word, padded with spaces.</summary>
    internal static void Text(Span<byte> id, int word, int words, string text)
    {
        text = text.PadRight(2 * words)[..(2 * words)];
        for (int i = 0; i < 2 * words; i++)
            id[2 * word + (i ^ 1)] = (byte)text[i];
    }
}
