using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>A CD/DVD-ROM drive on IDE: the PACKET protocol around <see cref="MmcCommands"/>. Source: ATA/ATAPI-7 volume 2, sections 9.8 to
/// 9.10, and volume 1, section 6.17 (IDENTIFY PACKET DEVICE).</summary>
public sealed class AtapiDrive : IdeUnit
{
    private const byte ReasonCommand = 1, ReasonIn = 2;
    private const int PacketSize = 12;

    private enum Phase : byte
    {
        Idle,
        Packet,
        Data,
        Sectors,
        Parameters,
    }

    private readonly MmcCommands _commands;
    private readonly DriveRequest _request;
    private readonly string _serial;
    private int _generation, _left, _bufferAt, _buffered, _raw, _sectorsInBuffer;
    private long _lba;
    private Phase _phase;
    private bool _useDma;
    private byte _dmaMode = 0x20;
    private DmaTransfer? _transfer;

    /// <summary>Makes a drive.</summary>
    public AtapiDrive(IdeChannel channel, int index, Drive drive) : base(channel, index, drive)
    {
        _serial = drive.Serial ?? $"QM{channel.Number * 2 + index + 1:D5}";
        _commands = new MmcCommands(drive)
        {
            SerialNumber = _serial,
            TrayMoved = open => channel.Services.Control.ReportTray(drive.Name, open),
        };
        _request = new DriveRequest(channel.Services, drive, Completed);
        drive.MediaChanged = _commands.MediaChanged;
        drive.EjectRequested = _commands.EjectRequested;
    }

    /// <inheritdoc/>
    protected override void PutSignature()
    {
        _generation++;
        _phase = Phase.Idle;
        _transfer = null;
        // Not ready until spoken to (9.12): status 0.
        PutSignature(0x14, 0xEB, 0);
    }

    /// <inheritdoc/>
    protected override void Command(byte command)
    {
        switch (command)
        {
            case 0x08:
                byte select = Select;
                Reset();
                Select = select;
                break;
            case 0xA0:
                _useDma = (Feature & 1) != 0;
                if ((Feature & 2) != 0)
                {
                    Fail(Aborted);
                    break;
                }
                _phase = Phase.Packet;
                Count = ReasonCommand;
                RequestData(0, PacketSize, false);
                break;
            case 0xA1:
                Identify();
                _phase = Phase.Idle;
                _left = 0;
                OfferData(0, 512);
                break;
            case 0xEC:
                // A packet device refuses, and shows its signature.
                byte keep = Select;
                PutSignature();
                Select = keep;
                Fail(Aborted);
                break;
            case 0xEF when Feature == 3 && Count >> 3 is 0 or 1:
                Finish();
                break;
            case 0xEF when Feature == 3 && Count >> 3 is 4 or 8 && (Count & 7) <= (Count >> 3 == 4 ? 2 : 5):
                _dmaMode = Count;
                Finish();
                break;
            case 0xE0 or 0xE1 or 0xE2 or 0xE3 or 0xE6 or 0xE7 or 0xEA:
                Finish();
                break;
            case 0xE5:
                Count = 0xFF;
                Finish();
                break;
            default:
                Fail(Aborted);
                break;
        }
    }

    private void EndCommand()
    {
        _phase = Phase.Idle;
        Count = ReasonCommand | ReasonIn;
        Finish();
    }

    private void FailCommand()
    {
        _phase = Phase.Idle;
        Count = ReasonCommand | ReasonIn;
        Fail((byte)(_commands.SenseKey << 4 | (_commands.SenseKey == 5 ? Aborted : 0)));
    }

    private int Limit
    {
        get
        {
            int limit = Lba2 << 8 | Lba1;
            if (limit is 0 or 0xFFFF)
                limit = 0xFFFE;
            return limit;
        }
    }

    // The next piece of what is in the buffer, as many bytes as the host takes at a time.
    private void Offer()
    {
        int n = Math.Min(_buffered, Limit);
        // Only the last piece may be odd.
        if (n < _buffered)
            n &= ~1;
        Lba1 = (byte)n;
        Lba2 = (byte)(n >> 8);
        Count = ReasonIn;
        _offered = n;
        OfferData(_bufferAt, n);
    }

    private int _offered;

    /// <inheritdoc/>
    protected override void TransferDone(bool written)
    {
        switch (_phase)
        {
            case Phase.Packet:
                SetBusy();
                Run();
                break;
            case Phase.Parameters:
                EndCommand();
                break;
            case Phase.Data or Phase.Sectors:
                _bufferAt += _offered;
                _buffered -= _offered;
                if (_buffered > 0)
                    Offer();
                else if (_phase == Phase.Sectors && _left > 0)
                    ReadMore();
                else
                    EndCommand();
                break;
        }
    }

    private void Run()
    {
        Span<byte> cdb = stackalloc byte[PacketSize];
        Buffer[..PacketSize].CopyTo(cdb);
        var action = _commands.Execute(cdb, Buffer);
        switch (action)
        {
            case PacketAction.Done:
                EndCommand();
                break;
            case PacketAction.Failed:
                FailCommand();
                break;
            case PacketAction.Take:
                _phase = Phase.Parameters;
                Count = 0;
                int length = Math.Min(_commands.ReplyLength, Limit);
                Lba1 = (byte)length;
                Lba2 = (byte)(length >> 8);
                RequestData(0, length, true);
                break;
            case PacketAction.Reply:
                _phase = Phase.Data;
                _bufferAt = 0;
                _buffered = _commands.ReplyLength;
                if (_useDma)
                    WaitForDma(true);
                else
                    Offer();
                break;
            default:
                if (_request.IsBusy)
                {
                    _commands.Fail(2, 4);
                    FailCommand();
                    break;
                }
                _phase = Phase.Sectors;
                _lba = _commands.ReadAt;
                _left = _commands.ReadCount;
                _raw = _commands.RawSize;
                if (_useDma)
                    WaitForDma(true);
                else
                    ReadMore();
                break;
        }
    }

    private void ReadMore()
    {
        SetBusy();
        _sectorsInBuffer = Math.Min(_left, 32);
        _request.Tag = _generation;
        _request.Submit(DriveOperation.Read, _lba * MmcCommands.SectorSize, PinnedBuffer, 0, _sectorsInBuffer * MmcCommands.SectorSize);
    }

    /// <inheritdoc/>
    protected override void DmaStarted(DmaTransfer transfer)
    {
        if (_phase == Phase.Data)
        {
            bool ok = transfer.Collect(_buffered);
            if (ok)
                transfer.Fill(Buffer[.._buffered]);
            transfer.End(!ok);
            if (ok)
                EndCommand();
            else
                Fail(Aborted);
            return;
        }
        if (_raw != MmcCommands.SectorSize || !transfer.Collect((long)_left * MmcCommands.SectorSize))
        {
            // Raw sectors by DMA go piece by piece through the buffer only in PIO; hosts use PIO for them.
            transfer.End(true);
            _commands.Fail(5, 0x24);
            FailCommand();
            return;
        }
        _transfer = transfer;
        _request.Tag = _generation;
        _request.Submit(DriveOperation.Read, _lba * MmcCommands.SectorSize, transfer.Segments);
    }

    private void Completed(DriveRequest request)
    {
        if (request.Tag != _generation)
            return;
        var transfer = _transfer;
        _transfer = null;
        transfer?.End(request.Failure != null);
        if (request.Failure != null)
        {
            _commands.Fail(3, 0x11);
            FailCommand();
            return;
        }
        if (transfer != null)
        {
            _left = 0;
            EndCommand();
            return;
        }
        if (_raw != MmcCommands.SectorSize)
            for (int i = _sectorsInBuffer - 1; i >= 0; i--)
            {
                Buffer.Slice(i * MmcCommands.SectorSize, MmcCommands.SectorSize).CopyTo(Buffer[(i * _raw + 16)..]);
                MmcCommands.PutRawHeader(Buffer.Slice(i * _raw, _raw), _lba + i);
            }
        _lba += _sectorsInBuffer;
        _left -= _sectorsInBuffer;
        _bufferAt = 0;
        _buffered = _sectorsInBuffer * _raw;
        Offer();
    }

    private void Identify()
    {
        var id = Buffer[..512];
        id.Clear();
        void W(Span<byte> to, int word, int value) => BinaryPrimitives.WriteUInt16LittleEndian(to[(2 * word)..], (ushort)value);
        W(id, 0, 0x85C0);           // ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets
        AtaDisk.Text(id, 10, 10, _serial);
        W(id, 20, 3);
        W(id, 21, 512);
        W(id, 22, 4);
        AtaDisk.Text(id, 23, 4, "2.5+");
        AtaDisk.Text(id, 27, 20, "QEMU DVD-ROM");
        W(id, 48, 1);
        W(id, 49, 0x0F00);
        W(id, 53, 7);
        W(id, 63, 7 | (_dmaMode >> 3 == 4 ? 0x100 << (_dmaMode & 7) : 0));
        W(id, 64, 3);
        for (int w = 65; w <= 68; w++)
            W(id, w, 0xB4);
        W(id, 71, 30);
        W(id, 72, 30);
        W(id, 80, 0x1E);
        W(id, 88, 0x3F | (_dmaMode >> 3 == 8 ? 0x100 << (_dmaMode & 7) : 0));
        W(id, 93, 0x6001 | (Index == 0 ? 0 : 0x0200));
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        byte phase = (byte)_phase;
        state.Field("phase", ref phase);
        _phase = (Phase)Math.Min(phase, (byte)Phase.Parameters);
        state.Part("commands", _commands);
        state.Field("left", ref _left);
        state.Field("buffer-at", ref _bufferAt);
        state.Field("buffered", ref _buffered);
        state.Field("offered", ref _offered);
        state.Field("raw", ref _raw);
        state.Field("lba", ref _lba);
        state.Field("use-dma", ref _useDma);
        state.Field("dma-mode", ref _dmaMode);
    }
}
