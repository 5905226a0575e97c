using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>How a packet command goes on.</summary>
internal enum PacketAction
{
    /// <summary>Ended well, no data.</summary>
    Done,

    /// <summary>Ended with <see cref="MmcCommands.SenseKey"/>.</summary>
    Failed,

    /// <summary>The reply is in the buffer.</summary>
    Reply,

    /// <summary>Sectors are to be read: <see cref="MmcCommands.ReadAt"/>, <see cref="MmcCommands.ReadCount"/>.</summary>
    Read,

    /// <summary>The host sends parameters that are of no consequence: <see cref="MmcCommands.ReplyLength"/> bytes.</summary>
    Take,
}

/// <summary>
/// The commands of a CD/DVD drive, for ATAPI and SCSI alike. Sources: MMC-5 (T10/1675-D), chapter 6; SPC-3 for INQUIRY, sense data and
/// mode pages; SFF-8020i for the old TOC format.
/// </summary>
internal sealed partial class MmcCommands(Drive drive) : IStateful
{
    internal const int SectorSize = 2048;
    private bool _changed, _newMedia, _eject;
    private byte _senseKey, _additionalSense;

    /// <summary>For those who look at the device's identification.</summary>
    internal string SerialNumber { get; init; } = "";

    /// <summary>The drive is on a SCSI bus.</summary>
    internal bool IsScsi { get; init; }

    /// <summary>Sense key: 0 none, 2 not ready, 3 medium error, 5 illegal request, 6 unit attention.</summary>
    internal byte SenseKey => _senseKey;

    /// <summary>Additional sense code.</summary>
    internal byte AdditionalSense => _additionalSense;

    /// <summary>Bytes of the reply, already cut to what the host asked for.</summary>
    internal int ReplyLength { get; private set; }

    /// <summary>First sector to read.</summary>
    internal long ReadAt { get; private set; }

    /// <summary>Sectors to read.</summary>
    internal int ReadCount { get; private set; }

    /// <summary>Bytes a sector as the host wants them: 2048, or 2352 with synthetic headers.</summary>
    internal int RawSize { get; private set; }

    private bool HasMedia => drive.Media != null && !drive.IsTrayOpen;

    private long Sectors => drive.Length / SectorSize;

    /// <summary>The medium was changed by the user.</summary>
    internal void MediaChanged()
    {
        _changed = _newMedia = true;
        if (drive.Media == null || drive.IsTrayOpen)
            _newMedia = false;
    }

    /// <summary>The user wishes to take the medium out; the guest is asked.</summary>
    internal void EjectRequested() => _eject = true;

    internal PacketAction Fail(byte key, byte code)
    {
        _senseKey = key;
        _additionalSense = code;
        return PacketAction.Failed;
    }

    private PacketAction Reply(int length, int allocated)
    {
        ReplyLength = Math.Min(length, allocated);
        return ReplyLength == 0 ? PacketAction.Done : PacketAction.Reply;
    }

    /// <summary>Runs a command block of 12 bytes or more; replies of up to 64 KiB go to <paramref name="buffer"/>.</summary>
    internal PacketAction Execute(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        byte op = cdb[0];
        // A change of the medium is told once, by every command but those that must always work.
        if (_changed && op is not (0x12 or 0x03 or 0x4A or 0x46))
        {
            _changed = false;
            if (HasMedia)
                return Fail(6, 0x28);
        }
        bool needsMedia = op is 0x00 or 0x25 or 0x28 or 0xA8 or 0x2B or 0x42 or 0x43 or 0xAD or 0xBE or 0xB9 or 0x51 or 0x2F or 0x44 or 0x4B or 0x45;
        if (needsMedia && !HasMedia)
            return Fail(2, 0x3A);
        if (op != 0x03)
            _senseKey = _additionalSense = 0;
        switch (op)
        {
            case 0x00:
            case 0x1D or 0x2B or 0x2F or 0x35 or 0xBB or 0x4B or 0x4E:
                return PacketAction.Done;
            case 0x03:
                return RequestSense(cdb, buffer);
            case 0x12:
                return Inquiry(cdb, buffer);
            case 0x15:
                ReplyLength = cdb[4];
                return ReplyLength == 0 ? PacketAction.Done : PacketAction.Take;
            case 0x55:
                ReplyLength = BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]);
                return ReplyLength == 0 ? PacketAction.Done : PacketAction.Take;
            case 0x1A:
                return ModeSense(cdb[2], cdb[4], false, buffer);
            case 0x5A:
                return ModeSense(cdb[2], BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]), true, buffer);
            case 0x1B:
                return StartStop(cdb[4]);
            case 0x1E:
                drive.IsLocked = (cdb[4] & 1) != 0;
                return PacketAction.Done;
            case 0x25:
                BinaryPrimitives.WriteUInt32BigEndian(buffer, (uint)Math.Max(0, Sectors - 1));
                BinaryPrimitives.WriteUInt32BigEndian(buffer[4..], SectorSize);
                return Reply(8, 8);
            case 0x28:
                return Read(BinaryPrimitives.ReadUInt32BigEndian(cdb[2..]), BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]), SectorSize);
            case 0xA8:
                return Read(BinaryPrimitives.ReadUInt32BigEndian(cdb[2..]), BinaryPrimitives.ReadUInt32BigEndian(cdb[6..]), SectorSize);
            case 0xBE:
                return ReadCd(cdb);
            case 0x42:
                buffer[..4].Clear();
                buffer[1] = 0x15;       // no audio status
                return Reply(4, BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]));
            case 0x43:
                return ReadToc(cdb, buffer);
            case 0x46:
                return GetConfiguration(cdb, buffer);
            case 0x4A:
                return EventStatus(cdb, buffer);
            case 0x51:
                return DiscInformation(cdb, buffer);
            case 0xAD:
                return DvdStructure(cdb, buffer);
            case 0xBD:
                buffer[..8].Clear();
                buffer[5] = 1;
                return Reply(8, BinaryPrimitives.ReadUInt16BigEndian(cdb[8..]));
            default:
                return Fail(5, 0x20);
        }
    }

    private PacketAction RequestSense(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        if (_changed && HasMedia && _senseKey == 0)
        {
            _changed = false;
            _senseKey = 6;
            _additionalSense = 0x28;
        }
        buffer[..18].Clear();
        buffer[0] = 0x70;
        buffer[2] = _senseKey;
        buffer[7] = 10;
        buffer[12] = _additionalSense;
        _senseKey = _additionalSense = 0;
        return Reply(18, cdb[4]);
    }

    /// <summary>Fixed-format sense data, for transports that send it along.</summary>
    internal void PutSense(Span<byte> sense)
    {
        sense[..18].Clear();
        sense[0] = 0x70;
        sense[2] = _senseKey;
        sense[7] = 10;
        sense[12] = _additionalSense;
    }

    private PacketAction ModeSense(byte page, int allocated, bool long10, Span<byte> buffer)
    {
        if (page >> 6 == 3)
            return Fail(5, 0x39);
        int head = long10 ? 8 : 4, at = head;
        buffer[..128].Clear();
        int code = page & 0x3F;
        if (code is 0x01 or 0x3F)
        {
            buffer[at] = 1;
            buffer[at + 1] = 6;
            buffer[at + 3] = 5;
            at += 8;
        }
        if (code is 0x0E or 0x3F)
        {
            buffer[at] = 0x0E;
            buffer[at + 1] = 0x0E;
            at += 16;
        }
        if (code is 0x2A or 0x3F)
        {
            var c = buffer[at..];
            c[0] = 0x2A;
            c[1] = 0x12;
            c[2] = 0x3B;        // reads CD-R, CD-RW, DVD-ROM
            c[4] = 0x70;        // mode 2, multisession
            c[5] = 3;
            c[6] = (byte)(0x29 | (drive.IsLocked ? 2 : 0));
            BinaryPrimitives.WriteUInt16BigEndian(c[8..], 706);
            c[11] = 2;
            BinaryPrimitives.WriteUInt16BigEndian(c[12..], 512);
            BinaryPrimitives.WriteUInt16BigEndian(c[14..], 706);
            at += 20;
        }
        if (at == head)
            return Fail(5, 0x24);
        byte medium = (byte)(!HasMedia ? drive.IsTrayOpen ? 0x71 : 0x70 : 1);
        if (long10)
        {
            BinaryPrimitives.WriteUInt16BigEndian(buffer, (ushort)(at - 2));
            buffer[2] = medium;
        }
        else
        {
            buffer[0] = (byte)(at - 1);
            buffer[1] = medium;
        }
        return Reply(at, allocated);
    }

    private PacketAction StartStop(byte how)
    {
        if ((how & 2) == 0 || (how & 0xF0) != 0)
            return PacketAction.Done;
        bool load = (how & 1) != 0;
        if (!load && drive.IsLocked)
            return HasMedia ? Fail(5, 0x53) : Fail(2, 0x53);
        if (drive.IsTrayOpen == load)
        {
            drive.IsTrayOpen = !load;
            TrayMoved?.Invoke(!load);
            if (load && drive.Media != null)
                MediaChanged();
        }
        return PacketAction.Done;
    }

    /// <summary>Told when the guest opens (true) or closes the tray.</summary>
    internal Action<bool>? TrayMoved { get; set; }

    private PacketAction Read(uint lba, uint count, int raw)
    {
        if (count == 0)
            return PacketAction.Done;
        if (lba >= Sectors || count > Sectors - lba)
            return Fail(5, 0x21);
        if (count > int.MaxValue / 2352)
            return Fail(5, 0x24);
        ReadAt = lba;
        ReadCount = (int)count;
        RawSize = raw;
        return PacketAction.Read;
    }

    private PacketAction ReadCd(ReadOnlySpan<byte> cdb)
    {
        uint lba = BinaryPrimitives.ReadUInt32BigEndian(cdb[2..]);
        uint count = (uint)(cdb[6] << 16 | cdb[7] << 8 | cdb[8]);
        return (cdb[9] & 0xF8) switch
        {
            _ when count == 0 => PacketAction.Done,
            0 => PacketAction.Done,
            0x10 => Read(lba, count, SectorSize),
            0xF8 => Read(lba, count, 2352),
            _ => Fail(5, 0x24),
        };
    }

    private static void Msf(Span<byte> to, long lba)
    {
        lba += 150;
        to[0] = (byte)(lba / 75 / 60);
        to[1] = (byte)(lba / 75 % 60);
        to[2] = (byte)(lba % 75);
    }

    /// <summary>Makes a raw mode 1 sector of 2352 bytes around user data at offset 16.</summary>
    internal static void PutRawHeader(Span<byte> sector, long lba)
    {
        sector[..16].Clear();
        sector[1..11].Fill(0xFF);
        Msf(sector[12..], lba);
        sector[15] = 1;
        sector[(16 + SectorSize)..2352].Clear();
    }

    private PacketAction ReadToc(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        bool msf = (cdb[1] & 2) != 0;
        int format = cdb[2] & 15, start = cdb[6], allocated = BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]);
        if (format == 0)
            format = cdb[9] >> 6;
        buffer[..64].Clear();
        void Address(Span<byte> to, long lba)
        {
            if (msf)
                Msf(to[1..], lba);
            else
                BinaryPrimitives.WriteUInt32BigEndian(to, (uint)lba);
        }
        int at = 4;
        switch (format)
        {
            case 0:
                if (start is > 1 and not 0xAA)
                    return Fail(5, 0x24);
                buffer[2] = buffer[3] = 1;
                if (start <= 1)
                {
                    buffer[at + 1] = 0x14;
                    buffer[at + 2] = 1;
                    Address(buffer[(at + 4)..], 0);
                    at += 8;
                }
                buffer[at + 1] = 0x16;
                buffer[at + 2] = 0xAA;
                Address(buffer[(at + 4)..], Sectors);
                at += 8;
                break;
            case 1:
                buffer[2] = buffer[3] = 1;
                at = 12;
                break;
            case 2:
                buffer[2] = buffer[3] = 1;
                ReadOnlySpan<byte> points = [0xA0, 0xA1, 0xA2, 1];
                foreach (byte point in points)
                {
                    buffer[at] = 1;
                    buffer[at + 1] = 0x14;
                    buffer[at + 3] = point;
                    if (point is 0xA0 or 0xA1)
                        buffer[at + 8] = 1;
                    else
                        Address(buffer[(at + 7)..], point == 1 ? 0 : Sectors);
                    at += 11;
                }
                break;
            default:
                return Fail(5, 0x24);
        }
        BinaryPrimitives.WriteUInt16BigEndian(buffer, (ushort)(at - 2));
        return Reply(at, allocated);
    }

    // More than a CD holds is a DVD.
    private bool IsDvd => Sectors > 400_000;

    private PacketAction GetConfiguration(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        int allocated = BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]), at = 8;
        buffer[..64].Clear();
        ushort profile = HasMedia ? IsDvd ? (ushort)0x10 : (ushort)8 : (ushort)0;
        BinaryPrimitives.WriteUInt16BigEndian(buffer[6..], profile);
        // Profile list, core, removable medium.
        buffer[at + 2] = 3;
        buffer[at + 3] = 8;
        buffer[at + 5] = 0x10;
        buffer[at + 6] = (byte)(profile == 0x10 ? 1 : 0);
        buffer[at + 9] = 8;
        buffer[at + 10] = (byte)(profile == 8 ? 1 : 0);
        at += 12;
        buffer[at + 1] = 1;
        buffer[at + 2] = 0x0B;
        buffer[at + 3] = 8;
        buffer[at + 7] = (byte)(IsScsi ? 1 : 2);
        buffer[at + 8] = 1;
        at += 12;
        buffer[at + 1] = 3;
        buffer[at + 2] = 0x0B;
        buffer[at + 3] = 4;
        buffer[at + 4] = 0x29;
        at += 8;
        BinaryPrimitives.WriteInt32BigEndian(buffer, at - 4);
        return Reply(at, allocated);
    }

    private PacketAction EventStatus(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        if ((cdb[1] & 1) == 0)
            return Fail(5, 0x24);
        int allocated = BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]);
        buffer[..8].Clear();
        buffer[3] = 0x10;
        if ((cdb[4] & 0x10) == 0)
        {
            buffer[2] = 0x80;
            BinaryPrimitives.WriteUInt16BigEndian(buffer, 2);
            return Reply(4, allocated);
        }
        buffer[2] = 4;
        BinaryPrimitives.WriteUInt16BigEndian(buffer, 6);
        if (_eject)
        {
            buffer[4] = 1;
            _eject = false;
        }
        else if (_newMedia)
        {
            buffer[4] = 2;
            _newMedia = false;
        }
        buffer[5] = (byte)(drive.IsTrayOpen ? 1 : drive.Media != null ? 2 : 0);
        return Reply(8, allocated);
    }

    private PacketAction DiscInformation(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        if ((cdb[1] & 7) != 0)
            return Fail(5, 0x24);
        buffer[..34].Clear();
        buffer[1] = 32;
        buffer[2] = 0x0E;
        buffer[3] = buffer[4] = buffer[5] = buffer[6] = 1;
        buffer[7] = 0x20;
        return Reply(34, BinaryPrimitives.ReadUInt16BigEndian(cdb[7..]));
    }

    private PacketAction DvdStructure(ReadOnlySpan<byte> cdb, Span<byte> buffer)
    {
        if (cdb[7] != 0 || !IsDvd)
            return Fail(5, 0x30);
        buffer[..24].Clear();
        BinaryPrimitives.WriteUInt16BigEndian(buffer, 22);
        buffer[4] = 1;
        buffer[5] = 0x0F;
        buffer[6] = 1;
        buffer[9] = 3;
        long last = Sectors - 1 + 0x30000;
        buffer[13] = (byte)(last >> 16);
        buffer[14] = (byte)(last >> 8);
        buffer[15] = (byte)last;
        return Reply(24, BinaryPrimitives.ReadUInt16BigEndian(cdb[8..]));
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        state.Field("changed", ref _changed);
        state.Field("new-media", ref _newMedia);
        state.Field("eject", ref _eject);
        state.Field("sense-key", ref _senseKey);
        state.Field("additional-sense", ref _additionalSense);
    }
}
