using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Devices.Storage.Scsi;

// INQUIRY and mode pages.
internal sealed partial class ScsiDisk
{
    protected override int MakeInquiry(int page)
    {
        if (page < 0)
            return MakeStandardInquiry(_drive.IsRemovable, _identity.Vendor, _identity.Product, _identity.Revision);
        var b = Buffer;
        b[..256].Clear();
        b[0] = PeripheralType;
        b[1] = (byte)page;
        int at = 4;
        switch (page)
        {
            case 0x00:
                ReadOnlySpan<byte> pages = _identity.Serial != null ? [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2] : [0x00, 0x83, 0xB0, 0xB1, 0xB2];
                pages.CopyTo(b[4..]);
                at += pages.Length;
                break;
            case 0x80 when _identity.Serial != null:
                at += Encoding.ASCII.GetBytes(_identity.Serial.AsSpan(0, Math.Min(36, _identity.Serial.Length)), b[4..]);
                break;
            case 0x83:
                at = _identity.PutDesignators(b);
                break;
            case 0xB0:
                // Block limits
                at = 64;
                b[4] = 1;           // WRITE SAME with a count of zero is not for all sizes
                var geometry = _drive.Geometry;
                BinaryPrimitives.WriteUInt16BigEndian(b[6..], (ushort)Math.Min(geometry.MinimumIo / _block, 0xFFFF));
                BinaryPrimitives.WriteInt32BigEndian(b[8..], 0x7FFFFFFF / _block);
                BinaryPrimitives.WriteInt32BigEndian(b[12..], geometry.OptimalIo / _block);
                if (CanDiscard)
                {
                    BinaryPrimitives.WriteUInt32BigEndian(b[20..], MostBlocks);
                    BinaryPrimitives.WriteUInt32BigEndian(b[24..], MostRanges - 1);
                    BinaryPrimitives.WriteUInt32BigEndian(b[28..], (uint)(geometry.DiscardGranularity < 0 ? Math.Max(4096, _block) : geometry.DiscardGranularity) / (uint)_block);
                }
                BinaryPrimitives.WriteUInt64BigEndian(b[36..], MostBlocks);
                break;
            case 0xB1:
                at = 64;
                BinaryPrimitives.WriteUInt16BigEndian(b[4..], _identity.RotationRate);
                break;
            case 0xB2:
                // Logical block provisioning: UNMAP, WRITE SAME (16) and (10)
                at = 8;
                b[5] = (byte)(CanDiscard ? 0xE0 : 0);
                b[6] = (byte)(CanDiscard ? 2 : 0);
                break;
            default:
                return -1;
        }
        BinaryPrimitives.WriteUInt16BigEndian(b[2..], (ushort)(at - 4));
        return at;
    }

    private const byte ErrorPage = 0x01, GeometryPage = 0x04, CachingPage = 0x08, ControlPage = 0x0A, AllPages = 0x3F;

    private int PutPage(Span<byte> to, byte page, bool changeable)
    {
        int length = page switch { ErrorPage => 12, GeometryPage => 24, CachingPage => 20, _ => 12 };
        to[..length].Clear();
        to[0] = page;
        to[1] = (byte)(length - 2);
        switch (page)
        {
            case CachingPage:
                to[2] = (byte)(changeable || _writeCache ? 4 : 0);
                break;
            case ErrorPage when !changeable:
                to[2] = 0x80;           // defects are reallocated
                break;
            case GeometryPage when !changeable:
                long cylinders = Math.Min(Blocks / (16 * 63), 0xFFFFFF);
                to[2] = (byte)(cylinders >> 16);
                to[3] = (byte)(cylinders >> 8);
                to[4] = (byte)cylinders;
                to[5] = 16;
                BinaryPrimitives.WriteUInt16BigEndian(to[20..], 5400);
                break;
        }
        return length;
    }

    private void ModeSense(int allocated, bool isLong)
    {
        byte page = (byte)(Cdb[2] & 0x3F), control = (byte)(Cdb[2] >> 6);
        bool withDescriptor = (Cdb[1] & 8) == 0;
        if (control == 3)
        {
            Fail(IllegalRequest, 0x39);
            return;
        }
        var b = Buffer;
        int at = isLong ? 8 : 4;
        b[..256].Clear();
        b[isLong ? 3 : 2] = (byte)((_drive.IsReadOnly ? 0x80 : 0) | 0x10);      // write protect; DPO and FUA are known
        if (withDescriptor)
        {
            b[isLong ? 7 : 3] = 8;
            BinaryPrimitives.WriteUInt32BigEndian(b[at..], (uint)(Blocks > 0xFFFFFF ? 0 : Blocks));
            BinaryPrimitives.WriteInt32BigEndian(b[(at + 4)..], _block);
            at += 8;
        }
        int start = at;
        ReadOnlySpan<byte> pages = [ErrorPage, GeometryPage, CachingPage, ControlPage];
        foreach (byte p in pages)
            if (page == p || page == AllPages)
                at += PutPage(b[at..], p, control == 1);
        if (at == start || (Cdb[3] != 0 && Cdb[3] != 0xFF))
        {
            Fail(IllegalRequest, 0x24);
            return;
        }
        if (isLong)
            BinaryPrimitives.WriteUInt16BigEndian(b, (ushort)(at - 2));
        else
            b[0] = (byte)(at - 1);
        Reply(at, allocated);
    }

    // Only the write cache can be changed; a page that would change anything else is refused as a whole.
    private void ModeSelect(ReadOnlySpan<byte> list)
    {
        if ((Cdb[1] & 0x11) != 0x10)
        {
            Fail(IllegalRequest, 0x24);         // pages in the standard format, not saved
            return;
        }
        bool isLong = Cdb[0] == 0x55;
        int head = isLong ? 8 : 4;
        if (list.Length == 0)
        {
            Succeed();
            return;
        }
        int descriptors = list.Length < head ? -1 : isLong ? BinaryPrimitives.ReadUInt16BigEndian(list[6..]) : list[3];
        if (descriptors < 0 || descriptors > list.Length - head)
        {
            Fail(IllegalRequest, 0x1A);
            return;
        }
        bool cache = _writeCache;
        var pages = list[(head + descriptors)..];
        Span<byte> present = stackalloc byte[32], mask = stackalloc byte[32];
        while (pages.Length > 0)
        {
            byte code = (byte)(pages[0] & 0x7F);
            int length = pages.Length < 2 ? int.MaxValue : pages[1] + 2;
            if (code is not (ErrorPage or GeometryPage or CachingPage or ControlPage))
            {
                Fail(IllegalRequest, 0x26);
                return;
            }
            if (length > pages.Length || PutPage(present, code, false) != length)
            {
                Fail(IllegalRequest, 0x1A);
                return;
            }
            PutPage(mask, code, true);
            for (int i = 2; i < length; i++)
                if (((pages[i] ^ present[i]) & ~mask[i]) != 0)
                {
                    Fail(IllegalRequest, 0x26);
                    return;
                }
            if (code == CachingPage)
                cache = (pages[2] & 4) != 0;
            pages = pages[length..];
        }
        bool flush = _writeCache && !cache;
        _writeCache = cache;
        if (flush)
            Work(DriveOperation.Flush, 0, 0);
        else
            Succeed();
    }
}
