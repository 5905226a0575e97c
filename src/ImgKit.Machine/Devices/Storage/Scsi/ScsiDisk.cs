using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>A direct-access disk. Sources: SBC-3 (T10/1799-D), chapter 5 for commands and 6.3, 6.4 for parameters; SPC-3 for mode pages and vital
/// product data.</summary>
internal sealed partial class ScsiDisk : ScsiUnit
{
    /// <summary>The most blocks that UNMAP and WRITE SAME take in one go: 1 GiB, so that no command works for ever.</summary>
    private const int MostBlocks = 1 << 21, MostRanges = 256;

    private readonly Drive _drive;

    /// <summary>Bytes a block.</summary>
    private readonly int _block;

    private readonly ScsiIdentity _identity;
    private bool _writeCache;

    internal ScsiDisk(MachineServices services, Drive drive, ScsiIdentity identity) : base(services, drive)
    {
        _drive = drive;
        _block = drive.Geometry.LogicalBlock;
        _writeCache = drive.WriteCache;
        _identity = identity;
        _reportedLength = drive.Length;
        drive.MediaChanged = () =>
        {
            // The size has changed (SPC-3: capacity data has changed).
            if (drive.Length != _reportedLength)
                SetAttention(0x2A, 9);
            _reportedLength = drive.Length;
        };
    }

    private long _reportedLength;

    private long Blocks => _drive.Length / _block;

    protected override byte PeripheralType => 0;

    internal override void Reset(byte qualifier)
    {
        base.Reset(qualifier);
        _writeCache = _drive.WriteCache;
        _drive.IsLocked = false;
    }

    private ushort Cdb16(int at) => BinaryPrimitives.ReadUInt16BigEndian(Cdb[at..]);

    private uint Cdb32(int at) => BinaryPrimitives.ReadUInt32BigEndian(Cdb[at..]);

    private ulong Cdb64(int at) => BinaryPrimitives.ReadUInt64BigEndian(Cdb[at..]);

    protected override void Execute()
    {
        var cdb = Cdb;
        switch (cdb[0])
        {
            case 0x00:          // TEST UNIT READY
            case 0x01:          // REZERO UNIT
            case 0x0B:          // SEEK (6)
            case 0x16 or 0x17:  // RESERVE, RELEASE: one initiator
            case 0x2B:          // SEEK (10)
            case 0x56 or 0x57:
                Succeed();
                break;
            case 0x04:          // FORMAT UNIT: nothing to do, and nothing to lose
                if ((cdb[1] & 0x10) != 0)
                    Take(4);
                else
                    Succeed();
                break;
            case 0x08:
                Read((uint)(cdb[1] & 0x1F) << 16 | Cdb16(2), cdb[4] == 0 ? 256u : cdb[4]);
                break;
            case 0x0A:
                Write((uint)(cdb[1] & 0x1F) << 16 | Cdb16(2), cdb[4] == 0 ? 256u : cdb[4], false);
                break;
            case 0x28:
                Read(Cdb32(2), Cdb16(7));
                break;
            case 0x2A or 0x2E:  // WRITE, WRITE AND VERIFY: what was verified must be on the medium
                Write(Cdb32(2), Cdb16(7), cdb[0] == 0x2E || (cdb[1] & 8) != 0);
                break;
            case 0xA8:
                Read(Cdb32(2), Cdb32(6));
                break;
            case 0xAA or 0xAE:
                Write(Cdb32(2), Cdb32(6), cdb[0] == 0xAE || (cdb[1] & 8) != 0);
                break;
            case 0x88:
                Read(Cdb64(2), Cdb32(10));
                break;
            case 0x8A or 0x8E:
                Write(Cdb64(2), Cdb32(10), cdb[0] == 0x8E || (cdb[1] & 8) != 0);
                break;
            case 0x2F:
                Verify(Cdb32(2), Cdb16(7));
                break;
            case 0xAF:
                Verify(Cdb32(2), Cdb32(6));
                break;
            case 0x8F:
                Verify(Cdb64(2), Cdb32(10));
                break;
            case 0x35 or 0x91:  // SYNCHRONIZE CACHE
                Work(DriveOperation.Flush, 0, 0);
                break;
            case 0x41:
                WriteSame(Cdb32(2), Cdb16(7));
                break;
            case 0x93:
                WriteSame(Cdb64(2), Cdb32(10));
                break;
            case 0x42:
                if (!CanDiscard || (cdb[1] & 1) != 0)
                    Fail(IllegalRequest, CanDiscard ? (byte)0x24 : (byte)0x20);
                else if (_drive.IsReadOnly)
                    Fail(DataProtect, 0x27);
                else
                    Take(Cdb16(7));
                break;
            case 0x15:
                Take(cdb[4]);
                break;
            case 0x55:
                Take(Cdb16(7));
                break;
            case 0x1A:
                ModeSense(cdb[4], false);
                break;
            case 0x5A:
                ModeSense(Cdb16(7), true);
                break;
            case 0x1B:          // START STOP UNIT
            case 0x1D:          // SEND DIAGNOSTIC: the self-test passes
                Succeed();
                break;
            case 0x1E:          // PREVENT ALLOW MEDIUM REMOVAL
                _drive.IsLocked = (cdb[4] & 1) != 0;
                Succeed();
                break;
            case 0x25:
                ReadCapacity();
                break;
            case 0x9E when (cdb[1] & 0x1F) == 0x10:
                ReadCapacity16();
                break;
            default:
                Fail(IllegalRequest, 0x20);
                break;
        }
    }

    // Without discard=unmap nothing comes of it on the host, which the guest need not know.
    private bool CanDiscard => _drive.Geometry.DiscardGranularity != 0;

    private bool InRange(ulong block, uint count)
    {
        if (block <= (ulong)Blocks && count <= (ulong)Blocks - block)
            return true;
        Fail(IllegalRequest, 0x21);
        return false;
    }

    private void Read(ulong block, uint count)
    {
        if ((Cdb[0] != 0x08 && (Cdb[1] & 0xE0) != 0))
            Fail(IllegalRequest, 0x24);         // no protection information
        else if (InRange(block, count))
            ReadMedium((long)block * _block, (long)count * _block);
    }

    private void Write(ulong block, uint count, bool flush)
    {
        if ((Cdb[0] != 0x0A && (Cdb[1] & 0xE0) != 0))
            Fail(IllegalRequest, 0x24);
        else if (_drive.IsReadOnly)
            Fail(DataProtect, 0x27);
        else if (InRange(block, count))
            WriteMedium((long)block * _block, (long)count * _block, flush || !_writeCache);
    }

    private void Verify(ulong block, uint count)
    {
        // Only that the blocks can be read; comparing with data (BYTCHK) is not offered.
        if ((Cdb[1] & 6) != 0)
            Fail(IllegalRequest, 0x24);
        else if (InRange(block, count))
            Succeed();
    }

    private void WriteSame(ulong block, uint count)
    {
        byte flags = Cdb[1];
        bool unmap = (flags & 8) != 0, noData = (flags & 1) != 0 && Cdb[0] == 0x93;
        if ((flags & 0xE6) != 0 || (unmap && !CanDiscard) || count > MostBlocks)
        {
            Fail(IllegalRequest, 0x24);
            return;
        }
        if (_drive.IsReadOnly)
        {
            Fail(DataProtect, 0x27);
            return;
        }
        if (!InRange(block, count))
            return;
        // Zero means: to the end.
        if (count == 0)
        {
            if ((ulong)Blocks - block > MostBlocks)
            {
                Fail(IllegalRequest, 0x24);
                return;
            }
            count = (uint)((ulong)Blocks - block);
        }
        Task.At = (long)block * _block;
        Task.Left = (long)count * _block;
        if (noData)
        {
            Buffer[.._block].Clear();
            Fill();
        }
        else
            Take(_block);
    }

    // The block of a WRITE SAME is in the buffer.
    private void Fill()
    {
        if (!Buffer[.._block].ContainsAnyExcept((byte)0))
        {
            (long at, long left) = (Task.At, Task.Left);
            Task.Left = 0;
            Work(DriveOperation.WriteZeroes, at, left, mayUnmap: (Cdb[1] & 8) != 0);
            return;
        }
        Task.Filled = (int)Math.Min(Task.Left, BufferSize);
        for (int at = _block; at < Task.Filled; at += _block)
            Buffer[.._block].CopyTo(Buffer[at..]);
        Task.IsFilling = true;
        FillMore();
    }

    private void FillMore()
    {
        int n = (int)Math.Min(Task.Left, Task.Filled);
        long at = Task.At;
        Task.At += n;
        Task.Left -= n;
        WorkOnBuffer(DriveOperation.Write, at, n);
    }

    protected override void ParametersTaken(int length)
    {
        switch (Cdb[0])
        {
            case 0x41 or 0x93:
                Fill();
                break;
            case 0x42:
                BeginUnmap(length);
                break;
            case 0x15 or 0x55:
                ModeSelect(Buffer[..length]);
                break;
            default:
                Succeed();
                break;
        }
    }

    private void BeginUnmap(int length)
    {
        if (length == 0)
        {
            Succeed();
            return;
        }
        int listed = length >= 8 ? BinaryPrimitives.ReadUInt16BigEndian(Buffer[2..]) : -1;
        if (listed < 0 || listed > length - 8 || listed % 16 != 0 || listed / 16 > MostRanges)
        {
            Fail(IllegalRequest, length < 8 ? (byte)0x1A : (byte)0x26);
            return;
        }
        Task.Ranges = listed / 16;
        Task.Range = 0;
        Task.IsUnmapping = true;
        // Nothing is unmapped unless everything can be.
        for (int i = 0; i < Task.Ranges; i++)
        {
            var (block, count) = Range(i);
            if (count > MostBlocks)
            {
                Fail(IllegalRequest, 0x26);
                return;
            }
            if (!InRange(block, count))
                return;
        }
        UnmapMore();
    }

    private (ulong Block, uint Count) Range(int i)
    {
        var entry = Buffer[(8 + 16 * i)..];
        return (BinaryPrimitives.ReadUInt64BigEndian(entry), BinaryPrimitives.ReadUInt32BigEndian(entry[8..]));
    }

    private void UnmapMore()
    {
        while (Task.Range < Task.Ranges)
        {
            var (block, count) = Range(Task.Range++);
            if (count == 0)
                continue;
            Work(DriveOperation.Discard, (long)block * _block, (long)count * _block);
            return;
        }
        Succeed();
    }

    protected override void WorkDone()
    {
        if (Task.IsUnmapping)
            UnmapMore();
        else if (Task.IsFilling && Task.Left > 0)
            FillMore();
        else
            Succeed();
    }

    private void ReadCapacity()
    {
        if ((Cdb[8] & 1) == 0 && Cdb32(2) != 0)
        {
            Fail(IllegalRequest, 0x24);
            return;
        }
        BinaryPrimitives.WriteUInt32BigEndian(Buffer, (uint)Math.Min(Math.Max(0, Blocks - 1), uint.MaxValue));
        BinaryPrimitives.WriteInt32BigEndian(Buffer[4..], _block);
        Reply(8, 8);
    }

    private void ReadCapacity16()
    {
        Buffer[..32].Clear();
        BinaryPrimitives.WriteInt64BigEndian(Buffer, Math.Max(0, Blocks - 1));
        BinaryPrimitives.WriteInt32BigEndian(Buffer[8..], _block);
        Buffer[13] = (byte)_drive.Geometry.PhysicalExponent;
        if (CanDiscard)
            Buffer[14] = 0x80;
        Reply(32, Cdb32(10));
    }

    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("write-cache", ref _writeCache);
    }
}
