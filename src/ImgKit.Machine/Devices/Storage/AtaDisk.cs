using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>A hard disk. Source: ATA/ATAPI-7 volume 1 (INCITS 397), chapter 6; DATA SET MANAGEMENT: ATA8-ACS, 7.10.</summary>
public sealed partial class AtaDisk : IdeUnit
{
    private const int Sector = 512;
    private readonly DriveRequest _request;
    private readonly byte[] _serial;
    private int _generation;
    private byte _multiple = 16, _heads, _sectors;
    private byte _dmaMode = 0x20;       // 0x20 + n: multiword DMA n; 0x40 + n: Ultra DMA n
    private bool _writeCache;

    // The command under way.
    private ulong _lba;
    private int _left, _block, _buffered, _bufferAt;
    private bool _isWrite, _isExtended;

    /// <summary>Makes a disk.</summary>
    public AtaDisk(IdeChannel channel, int index, Drive drive) : base(channel, index, drive)
    {
        _request = new DriveRequest(channel.Services, drive, Completed);
        _writeCache = drive.WriteCache;
        _serial = Encoding.ASCII.GetBytes(drive.Serial ?? $"QM{channel.Number * 2 + index + 1:D5}");
        (_heads, _sectors) = (Heads, SectorsPerTrack);
    }

    // Without discard=unmap nothing comes of it on the host, which the guest need not know.
    private bool CanTrim => Drive is { IsReadOnly: false, Geometry.DiscardGranularity: not 0 };

    private long Sectors => Drive.Length / Sector;

    private const byte Heads = 16, SectorsPerTrack = 63;

    // Firmware does not read from a disk without cylinders; the peer gives the smallest ones two.
    private int Cylinders => (int)Math.Clamp(Sectors / (Heads * SectorsPerTrack), 2, 16383);

    /// <inheritdoc/>
    protected override void PutSignature()
    {
        _multiple = 16;
        _generation++;
        _trimming = false;
        _transfer = null;
        PutSignature(0, 0, Ready | SeekDone);
    }

    private bool _trimming;
    private int _trimAt, _trimEnd;
    private DmaTransfer? _transfer;

    private bool TakeAddress(bool extended, out ulong lba, out int count)
    {
        count = extended ? Count16 == 0 ? 65536 : Count16 : Count == 0 ? 256 : Count;
        if (extended)
            lba = Lba48;
        else if ((Select & 0x40) != 0)
            lba = (ulong)(Select & 15) << 24 | (ulong)Lba2 << 16 | (ulong)Lba1 << 8 | Lba0;
        else
        {
            int cylinder = Lba2 << 8 | Lba1, head = Select & 15, sector = Lba0;
            lba = sector == 0 ? ulong.MaxValue : (ulong)((cylinder * _heads + head) * _sectors + sector - 1);
        }
        return lba < (ulong)Sectors && (ulong)count <= (ulong)Sectors - lba;
    }

    private void PutAddress(ulong lba)
    {
        if (_isExtended)
            Lba48 = lba;
        else if ((Select & 0x40) != 0)
        {
            Lba0 = (byte)lba;
            Lba1 = (byte)(lba >> 8);
            Lba2 = (byte)(lba >> 16);
            Select = (byte)(Select & 0xF0 | (byte)(lba >> 24) & 15);
        }
        else
        {
            ulong track = lba / _sectors, cylinder = track / _heads;
            Lba0 = (byte)(lba % _sectors + 1);
            Lba1 = (byte)cylinder;
            Lba2 = (byte)(cylinder >> 8);
            Select = (byte)(Select & 0xF0 | (byte)(track % _heads));
        }
    }

    /// <inheritdoc/>
    protected override void Command(byte command)
    {
        // A TRIM that still waited for its list is over.
        _trimming = false;
        switch (command)
        {
            case 0x00:
                Fail(Aborted);
                break;
            case 0x06:
                if ((Feature & 1) != 0 && CanTrim)
                    BeginTrim();
                else
                    Fail(Aborted);
                break;
            case >= 0x10 and <= 0x1F or 0x70:
                Finish();
                break;
            case 0x20 or 0x21:
                BeginPio(false, false, 1);
                break;
            case 0x24:
                BeginPio(false, true, 1);
                break;
            case 0xC4 or 0x29:
                if (_multiple == 0)
                    Fail(Aborted);
                else
                    BeginPio(false, command == 0x29, _multiple);
                break;
            case 0x30 or 0x31 or 0x3C:
                BeginPio(true, false, 1);
                break;
            case 0x34:
                BeginPio(true, true, 1);
                break;
            case 0xC5 or 0x39 or 0xCE:
                if (_multiple == 0)
                    Fail(Aborted);
                else
                    BeginPio(true, command != 0xC5, _multiple, command == 0xCE);
                break;
            case 0xC8 or 0xC9:
                BeginDma(false, false);
                break;
            case 0x25:
                BeginDma(false, true);
                break;
            case 0xCA or 0xCB:
                BeginDma(true, false);
                break;
            case 0x35 or 0x3D:
                BeginDma(true, true, command == 0x3D);
                break;
            case 0x40 or 0x41:
                Verify(false);
                break;
            case 0x42:
                Verify(true);
                break;
            case 0x27:
                _isExtended = true;
                PutAddress((ulong)Sectors - 1);
                Finish();
                break;
            case 0xF8:
                _isExtended = false;
                Select |= 0x40;
                PutAddress((ulong)Math.Min(Sectors, 1 << 28) - 1);
                Finish();
                break;
            case 0x91:
                _heads = (byte)((Select & 15) + 1);
                _sectors = Count == 0 ? SectorsPerTrack : Count;
                Finish();
                break;
            case 0xC6:
                if (Count > 128 || (Count & (Count - 1)) != 0)
                    Fail(Aborted);
                else
                {
                    _multiple = Count;
                    Finish();
                }
                break;
            case 0xE0 or 0xE1 or 0xE2 or 0xE3 or 0xE6 or 0x94 or 0x95 or 0x96 or 0x97 or 0x99 or 0xF5:
                Finish();
                break;
            case 0xE5 or 0x98:
                Count = 0xFF;
                Finish();
                break;
            case 0xE7 or 0xEA:
                Start(DriveOperation.Flush);
                break;
            case 0xEC:
                Identify();
                OfferData(0, Sector);
                _left = 0;
                _buffered = 0;
                break;
            case 0xB0:
                Smart();
                break;
            case 0xEF:
                SetFeatures();
                break;
            default:
                Fail(Aborted);
                break;
        }
    }

    private void Start(DriveOperation operation)
    {
        SetBusy();
        _request.Tag = _generation;
        _request.ThenFlush = false;
        _request.Submit(operation, 0, 0L);
    }

    private void Verify(bool extended)
    {
        if (TakeAddress(extended, out _, out _))
            Finish();
        else
            Fail(NotFound);
    }

    private bool Begin(bool write, bool extended)
    {
        if (!TakeAddress(extended, out _lba, out _left))
        {
            Fail(NotFound);
            return false;
        }
        if (_request.IsBusy || (write && Drive.IsReadOnly))
        {
            Fail(Aborted);
            return false;
        }
        _isWrite = write;
        _isExtended = extended;
        return true;
    }

    private void BeginPio(bool write, bool extended, int block, bool force = false)
    {
        if (!Begin(write, extended))
            return;
        _block = block;
        _request.ThenFlush = write && (force || !_writeCache);
        _buffered = _bufferAt = 0;
        if (write)
            RequestData(0, Math.Min(_block, _left) * Sector, false);
        else
            FillBuffer();
    }

    private void FillBuffer()
    {
        SetBusy();
        _buffered = Math.Min(_left, BufferSize / Sector);
        _bufferAt = 0;
        SubmitBuffer(DriveOperation.Read, _buffered);
    }

    private void SubmitBuffer(DriveOperation operation, int sectors)
    {
        _request.Tag = _generation;
        _request.Submit(operation, (long)_lba * Sector, PinnedBuffer, 0, sectors * Sector);
    }

    /// <inheritdoc/>
    protected override void TransferDone(bool written)
    {
        if (written)
        {
            SetBusy();
            _buffered = Math.Min(_block, _left);
            SubmitBuffer(DriveOperation.Write, _buffered);
            return;
        }
        int done = Math.Min(_block, _buffered);
        if (done == 0)
            return;         // IDENTIFY
        _lba += (uint)done;
        _left -= done;
        _buffered -= done;
        _bufferAt += done;
        if (_left == 0)
            PutAddress(_lba - 1);
        else if (_buffered > 0)
            OfferData(_bufferAt * Sector, Math.Min(_block, _buffered) * Sector);
        else
            FillBuffer();
    }

    private void BeginDma(bool write, bool extended, bool force = false)
    {
        if (!Begin(write, extended))
            return;
        _block = 0;
        _request.ThenFlush = write && (force || !_writeCache);
        WaitForDma(!write);
    }

    /// <inheritdoc/>
    protected override void DmaStarted(DmaTransfer transfer)
    {
        if (!transfer.Collect((long)_left * Sector))
        {
            transfer.End(true);
            _trimming = false;
            Fail(Aborted);
            return;
        }
        if (_trimming)
        {
            transfer.Gather(Buffer);
            transfer.End();
            Trim();
            return;
        }
        _transfer = transfer;
        _request.Tag = _generation;
        _request.Submit(_isWrite ? DriveOperation.Write : DriveOperation.Read, (long)_lba * Sector, transfer.Segments);
    }

    private void BeginTrim()
    {
        // Ranges come by DMA, as blocks of 512 bytes.
        _left = Count16 == 0 ? 65536 : Count16;
        if (_left * Sector > BufferSize)
        {
            Fail(Aborted);
            return;
        }
        _trimming = true;
        _isWrite = true;
        _block = -1;
        WaitForDma(false);
    }

    private void Trim()
    {
        SetBusy();
        _trimAt = 0;
        _trimEnd = _left * Sector / 8;
        NextTrim();
    }

    // One range at a time; each entry is a 48-bit LBA and a 16-bit count.
    private void NextTrim()
    {
        while (_trimAt < _trimEnd)
        {
            ulong entry = BinaryPrimitives.ReadUInt64LittleEndian(Buffer[(_trimAt++ * 8)..]);
            ulong lba = entry & 0xFFFF_FFFF_FFFF, count = entry >> 48;
            if (count == 0)
                continue;
            if (lba > (ulong)Sectors || count > (ulong)Sectors - lba)
            {
                _trimming = false;
                Fail(Aborted);
                return;
            }
            _request.Tag = _generation;
            _request.Submit(DriveOperation.Discard, (long)lba * Sector, (long)count * Sector);
            return;
        }
        _trimming = false;
        Finish();
    }

    private void Completed(DriveRequest request)
    {
        if (request.Tag != _generation)
            return;         // the drive was reset meanwhile
        var transfer = _transfer;
        _transfer = null;
        transfer?.End(request.Failure != null);
        if (request.Failure != null)
        {
            _trimming = false;
            PutAddress(_lba);
            Fail(request.Operation == DriveOperation.Read ? Uncorrectable : Aborted);
            return;
        }
        if (request.Operation == DriveOperation.Discard)
            NextTrim();
        else if (transfer != null)
        {
            PutAddress(_lba + (uint)_left - 1);
            _left = 0;
            Count = 0;
            Finish();
        }
        else if (request.Operation == DriveOperation.Read)
            OfferData(0, Math.Min(_block, _buffered) * Sector);
        else if (request.Operation == DriveOperation.Write)
        {
            _lba += (uint)_buffered;
            _left -= _buffered;
            if (_left > 0)
                RequestData(0, Math.Min(_block, _left) * Sector, true);
            else
            {
                PutAddress(_lba - 1);
                Finish();
            }
        }
        else
            Finish();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Field("multiple", ref _multiple);
        state.Field("heads", ref _heads);
        state.Field("sectors", ref _sectors);
        state.Field("dma-mode", ref _dmaMode);
        state.Field("write-cache", ref _writeCache);
        state.Field("lba", ref _lba);
        state.Field("left", ref _left);
        state.Field("block", ref _block);
        state.Field("buffered", ref _buffered);
        state.Field("buffer-at", ref _bufferAt);
        state.Field("is-write", ref _isWrite);
        state.Field("is-extended", ref _isExtended);
        state.Field("trimming", ref _trimming);
        state.Field("smart-on", ref _isSmartOn);
        state.Field("saves-attributes", ref _savesAttributes);
        state.Bytes("self-tests", _tests);
        state.Field("self-test-count", ref _testCount);
        state.Field("last-self-test", ref _lastTest);
        if (state.IsLoading)
            (_testCount, _lastTest) = (Math.Min(_testCount, (byte)MostTests), Math.Min(_lastTest, (byte)MostTests));
    }
}
