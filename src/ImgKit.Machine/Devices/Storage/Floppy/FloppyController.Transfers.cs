namespace ImgKit.Machine.Devices.Storage.Floppy;

// The commands that move data: READ, WRITE, VERIFY, READ TRACK, FORMAT. A side's sectors are one request to the drive; what goes to and from the host
// goes by DMA or byte by byte.
public sealed partial class FloppyController
{
    // Status register 1
    private const byte EndOfCylinder = 0x80, DataError = 0x20, NoData = 0x04, NotWritable = 0x02, MissingAddress = 0x01;

    // Status register 2
    private const byte ControlMark = 0x40, BadCylinder = 0x10;

    private const int Sector = 512, MostSectors = 64;

    private readonly byte[] _data = GC.AllocateArray<byte>(MostSectors * Sector, pinned: true);
    private int _generation, _dataAt, _dataLength, _formatAt;
    private byte _cylinder, _head, _side, _sector, _lastSector, _lastSectors;
    private bool _isWrite, _isFormat, _terminal;

    private void Abandon()
    {
        _generation++;
        _dataAt = _dataLength = 0;
    }

    private FloppyDrive Active => _drives[_fifo[1] & 3]!;

    private bool IsMultiTrack => (_fifo[0] & 0x80) != 0 && (_fifo[0] & 0x1F) != 0x02;

    private bool IsVerify => (_fifo[0] & 0x1F) == 0x16;

    /// <summary>Ends with status and the sector's place. Bits of status 0 below IC are filled in here.</summary>
    private void End(byte status0, byte status1, byte status2)
    {
        _generation++;
        byte select = (byte)(_fifo[1] & 3 | _side << 2);
        Reply([(byte)(status0 | select), status1, status2, _cylinder, _head, _sector, (byte)(_isFormat ? _fifo[2] : _fifo[5])], true);
    }

    private void BeginTransfer()
    {
        byte operation = (byte)(_fifo[0] & 0x1F);
        _isWrite = operation is 0x05 or 0x09;
        _isFormat = _terminal = false;
        _cylinder = _fifo[2];
        _head = (byte)(_fifo[3] & 1);
        _side = (byte)(_fifo[1] >> 2 & 1);
        _sector = _fifo[4];
        _lastSector = _lastSectors = _fifo[6];
        if (operation == 0x02)
            _sector = 1;
        var d = Selected;
        if (d is { HasMedia: true } && (_config & 0x40) != 0 && d.DiskTrack != _cylinder)
            d.Seek(d.Kind != FloppyDriveKind.Kind360 && d.Format.Tracks == 40 ? _cylinder * 2 : _cylinder);      // implied seek
        if (d == null || !IsReadable(d, _fifo[1] >> 2 & 1))
            End(Abnormal, MissingAddress, 0);
        else if (_requests[_fifo[1] & 3]!.IsBusy)
            End(Abnormal, DataError, 0);
        else if (d.DiskTrack != _cylinder)
            End(Abnormal, NoData, BadCylinder);
        else if (_fifo[5] != 2 || _sector == 0 || _sector > d.Format.Sectors || (_fifo[3] & 1) != (_fifo[1] >> 2 & 1))
            End(Abnormal, NoData, 0);
        else if (_isWrite && d.Drive.IsReadOnly)
            End(Abnormal, NotWritable, 0);
        else
            BeginSide();
    }

    /// <summary>The sectors from the present one to the last of this side.</summary>
    private void BeginSide()
    {
        int last = Math.Min(Math.Max(_lastSector, _sector), Active.Format.Sectors);
        _side = _head;
        _dataAt = 0;
        _dataLength = Math.Min(last - _sector + 1, MostSectors) * Sector;
        if (!_isWrite)
        {
            // Deleted data is never on a disk image: READ DELETED DATA finds sectors of the other kind.
            if ((_fifo[0] & 0x1F) == 0x0C && (_fifo[0] & 0x20) != 0)
            {
                End(Abnormal, NoData, 0);
                return;
            }
            Submit(DriveOperation.Read, _dataLength);
        }
        else if (IsDma)
        {
            _phase = Phase.Dma;
            DmaReady(Channel);
        }
        else
        {
            // One sector at a time
            _dataLength = Sector;
            _phase = Phase.DataOut;
            SetInterrupt(true);
        }
    }

    private void Submit(DriveOperation operation, int length)
    {
        _phase = Phase.Working;
        var f = Active.Format;
        long block = ((long)_cylinder * f.Heads + _head) * f.Sectors + _sector - 1;
        var request = _requests[_fifo[1] & 3]!;
        // A file may be shorter than its format.
        long at = block * Sector, have = Active.Drive.Length;
        if (at + length > have)
        {
            if (at >= have)
            {
                End(Abnormal, NoData, 0);
                return;
            }
            length = (int)(have - at) & ~(Sector - 1);
            if (length == 0)
            {
                End(Abnormal, NoData, 0);
                return;
            }
            _dataLength = Math.Min(_dataLength, length);
        }
        request.Tag = _generation;
        request.ThenFlush = false;
        request.Submit(operation, at, _data, 0, length);
    }

    private void Completed(DriveRequest request)
    {
        if (request.Tag != _generation || _phase != Phase.Working)
            return;
        if (request.Failure != null)
        {
            End(Abnormal, DataError, _isWrite ? (byte)0 : DataError);
            return;
        }
        if (_isFormat)
        {
            FormatNext();
            return;
        }
        if (_isWrite)
        {
            Passed((int)(request.Length / Sector));
            return;
        }
        if (IsVerify)
        {
            // Nothing goes to the host; the count of sectors (with EC) or the end of track ends it.
            int sectors = _dataLength / Sector;
            if ((_fifo[1] & 0x80) != 0 && _fifo[8] > 0)
            {
                sectors = Math.Min(sectors, _fifo[8]);
                _fifo[8] -= (byte)sectors;
                _terminal = _fifo[8] == 0;
            }
            else
                _terminal = true;
            Passed(sectors);
            return;
        }
        if (IsDma)
        {
            _phase = Phase.Dma;
            DmaReady(Channel);
        }
        else
        {
            _phase = Phase.DataIn;
            SetInterrupt(true);
        }
    }

    /// <inheritdoc/>
    public void DmaReady(int channel)
    {
        if (_phase != Phase.Dma)
            return;
        int n = _dma.Transfer(Channel, _data.AsSpan(_dataAt, _dataLength - _dataAt), !_isWrite, out _terminal);
        if (n == 0)
            return;         // the channel is not programmed yet
        _dataAt += n;
        if (_dataAt < _dataLength && !_terminal)
            return;
        int sectors = (_dataAt + Sector - 1) / Sector;
        if (_isFormat)
            BeginFormatting();
        else if (_isWrite)
        {
            // What is missing of the last sector is written as zeroes.
            _data.AsSpan(_dataAt, sectors * Sector - _dataAt).Clear();
            Submit(DriveOperation.Write, sectors * Sector);
        }
        else
            Passed(sectors);
    }

    private byte ReadData()
    {
        byte value = _data[_dataAt++];
        SetInterrupt(_dataAt % Sector == 0);
        if (_dataAt >= _dataLength)
            Passed(_dataLength / Sector);
        return value;
    }

    private void WriteData(byte value)
    {
        _data[_dataAt++] = value;
        SetInterrupt(false);
        if (_dataAt < _dataLength)
            return;
        if (_isFormat)
            BeginFormatting();
        else
            Submit(DriveOperation.Write, Sector);
    }

    /// <summary>Some sectors are done: to the place after them, and on where there is more.</summary>
    private void Passed(int sectors)
    {
        int last = _sector + sectors - 1;
        bool atEnd = last >= _lastSector, beyond = !atEnd && last >= Active.Format.Sectors;
        byte mark = (byte)((_fifo[0] & 0x1F) == 0x0C ? ControlMark : 0);
        if (!atEnd)
            _sector = (byte)(last + 1);
        else if (IsMultiTrack && _head == 0)
        {
            _sector = 1;
            _head = 1;
        }
        else
        {
            _sector = 1;
            if (IsMultiTrack)
                _head = 0;
            _cylinder++;
            if (_terminal)
                End(0, 0, mark);
            else
                // The host wanted more than the track has. Without DMA nobody says that it is enough, and all commands end so.
                End(Abnormal, EndOfCylinder, mark);
            return;
        }
        if (_terminal || mark != 0)
            End(0, 0, mark);
        else if (beyond || _head >= Active.Format.Heads)
            End(Abnormal, NoData, 0);
        else
            BeginSide();
    }

    // --- FORMAT TRACK: four bytes a sector come from the host

    private void BeginFormat()
    {
        _isWrite = _isFormat = true;
        _terminal = false;
        _head = _side = (byte)(_fifo[1] >> 2 & 1);
        _sector = 1;
        _lastSectors = _fifo[3];
        var d = Selected;
        _cylinder = (byte)(d?.DiskTrack ?? 0);
        if (d == null || !IsReadable(d, _head))
            End(Abnormal, MissingAddress, 0);
        else if (_requests[_fifo[1] & 3]!.IsBusy)
            End(Abnormal, DataError, 0);
        else if (d.Drive.IsReadOnly)
            End(Abnormal, NotWritable, 0);
        else if (_fifo[2] != 2 || _fifo[3] == 0 || _fifo[3] > d.Format.Sectors)
            End(Abnormal, NoData, 0);       // an image has the sectors that it has
        else
        {
            _dataAt = _formatAt = 0;
            _dataLength = _fifo[3] * 4;
            _phase = IsDma ? Phase.Dma : Phase.DataOut;
            if (IsDma)
                DmaReady(Channel);
            else
                SetInterrupt(true);
        }
    }

    // The identifiers are in the buffer; they move out of the way of the data.
    private readonly byte[] _identifiers = new byte[256];

    private void BeginFormatting()
    {
        _dataLength = Math.Min(_dataAt, _identifiers.Length) & ~3;
        _data.AsSpan(0, _dataLength).CopyTo(_identifiers);
        _data.AsSpan(0, Sector).Fill(_fifo[5]);
        _formatAt = 0;
        FormatNext();
    }

    private void FormatNext()
    {
        if (_formatAt >= _dataLength)
        {
            _sector = 1;
            End(0, 0, 0);
            return;
        }
        var id = _identifiers.AsSpan(_formatAt, 4);
        _formatAt += 4;
        _sector = id[2];
        if (id[0] != Active.DiskTrack || id[1] != _head || id[2] == 0 || id[2] > Active.Format.Sectors || id[3] != 2)
            End(Abnormal, NoData, 0);
        else
            Submit(DriveOperation.Write, Sector);
    }

    private void DescribeTransfer(StateVisitor state)
    {
        state.Bytes("data", _data);
        state.Bytes("identifiers", _identifiers);
        state.Field("data-at", ref _dataAt);
        state.Field("data-length", ref _dataLength);
        state.Field("format-at", ref _formatAt);
        state.Field("cylinder", ref _cylinder);
        state.Field("head", ref _head);
        state.Field("side", ref _side);
        state.Field("sector", ref _sector);
        state.Field("last-sector", ref _lastSector);
        state.Field("last-sectors", ref _lastSectors);
        state.Field("is-write", ref _isWrite);
        state.Field("is-format", ref _isFormat);
        state.Field("terminal", ref _terminal);
        _dataLength = Math.Clamp(_dataLength, 0, _data.Length);
        _dataAt = Math.Clamp(_dataAt, 0, _dataLength);
        _formatAt = Math.Clamp(_formatAt, 0, _identifiers.Length) & ~3;
        _head &= 1;
        _side &= 1;
        if (state.IsLoading && _phase is Phase.Working or Phase.Dma or Phase.DataIn or Phase.DataOut && Selected == null)
            Done();
        if (state.IsLoading && _phase is Phase.DataIn or Phase.DataOut && _dataAt >= _dataLength)
            Done();
    }
}
