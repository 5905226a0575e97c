namespace ImgKit.Machine.Devices.Storage.Floppy;

// The commands that move no data (data sheet, section 5.2).
public sealed partial class FloppyController
{
    // Status register 0
    private const byte Abnormal = 0x40, Invalid = 0x80, SeekEnd = 0x20, EquipmentCheck = 0x10;

    private static byte CommandLength(byte first) => (first & 0x1F) switch
    {
        0x02 or 0x05 or 0x06 or 0x09 or 0x0C or 0x16 => 9,
        0x03 => 3,
        0x04 or 0x07 or 0x0A => 2,
        0x0D => 6,
        0x0F => 3,
        0x12 when first == 0x12 => 2,
        0x13 when first == 0x13 => 4,
        _ => 1,
    };

    private FloppyDrive? Selected => _drives[_fifo[1] & 3];

    private void Execute()
    {
        byte command = _fifo[0];
        if (command != 0x08)
        {
            // Any command but SENSE INTERRUPT STATUS gives up what a reset or a seek wanted to tell.
            if (_pollsLeft > 0 || _seekDone)
                SetInterrupt(false);
            _pollsLeft = 0;
            _seekDone = false;
        }
        switch (command & 0x1F)
        {
            case 0x06 or 0x0C or 0x05 or 0x09 or 0x02 or 0x16:
                BeginTransfer();
                break;
            case 0x0D:
                BeginFormat();
                break;
            case 0x0A:
                ReadIdentifier();
                break;
            case 0x03 when command == 0x03:
                (_specify0, _specify1) = (_fifo[1], _fifo[2]);
                Done();
                break;
            case 0x04 when command == 0x04:
                Reply([DriveStatus], false);
                break;
            case 0x07 when command == 0x07:
                SeekTo(0);
                break;
            case 0x0F:
                Seek(command);
                break;
            case 0x08 when command == 0x08:
                SenseInterrupt();
                break;
            case 0x0E when command == 0x0E:
                Reply([Track(0), Track(1), 0, 0, _specify0, _specify1, _lastSectors,
                    (byte)((_locked ? 0x80 : 0) | _perpendicular & 0x3F), _config, _precompensation], false);
                break;
            case 0x10 when command == 0x10:
                Reply([0x90], false);       // an enhanced controller
                break;
            case 0x12 when command == 0x12:
                _perpendicular = (byte)((_fifo[1] & 0x80) != 0 ? _fifo[1] & 0x3F : _perpendicular & 0x3C | _fifo[1] & 3);
                Done();
                break;
            case 0x13 when command == 0x13:
                _config = (byte)(_fifo[2] & 0x7F);
                _precompensation = _fifo[3];
                Done();
                break;
            case 0x14 when command is 0x14 or 0x94:
                _locked = command == 0x94;
                Reply([(byte)(_locked ? 0x10 : 0)], false);
                break;
            default:
                Reply([Invalid], false);
                break;
        }
    }

    private byte Track(int unit) => _drives[unit]?.Track ?? 0;

    private byte DriveStatus
    {
        get
        {
            var d = Selected;
            return (byte)(0x28 | _fifo[1] & 7 | (d is { Track: 0 } ? 0x10 : 0) | (d is { Drive.IsReadOnly: true } ? 0x40 : 0));
        }
    }

    private void Seek(byte command)
    {
        if ((command & 0x80) == 0)
        {
            SeekTo(_fifo[2]);
            return;
        }
        // Relative: 0xCF goes in, 0x8F goes out.
        int track = Track(_fifo[1] & 1);
        SeekTo((command & 0x40) != 0 ? track + _fifo[2] : Math.Max(0, track - _fifo[2]));
    }

    private void SeekTo(int track)
    {
        byte select = (byte)(_fifo[1] & 3);
        byte head = (byte)(_fifo[0] == 0x07 ? 0 : _fifo[1] & 4);
        var d = Selected;
        d?.Seek(track);
        // Without a drive, RECALIBRATE never sees track 0.
        bool failed = d == null && _fifo[0] == 0x07;
        _seekStatus = (byte)(SeekEnd | head | select | (failed ? Abnormal | EquipmentCheck : 0));
        _seekDone = true;
        Done();
        SetInterrupt(true);
    }

    private void SenseInterrupt()
    {
        if (_pollsLeft > 0)
        {
            byte unit = (byte)(4 - _pollsLeft--);
            SetInterrupt(false);
            Reply([(byte)(0xC0 | unit), Track(unit & 1)], false);
        }
        else if (_seekDone)
        {
            _seekDone = false;
            SetInterrupt(false);
            Reply([_seekStatus, _drives[_seekStatus & 3]?.Track ?? 0], false);
        }
        else
            Reply([Invalid], false);
    }

    private void ReadIdentifier()
    {
        byte select = (byte)(_fifo[1] & 7);
        var d = Selected;
        int head = select >> 2;
        if (d == null || !IsReadable(d, head))
        {
            Reply([(byte)(Abnormal | select), MissingAddress, 0, 0, 0, 0, 0], true);
            return;
        }
        Reply([select, 0, 0, (byte)d.DiskTrack, (byte)head, d.NextSector(), 2], true);
    }

    // The head sees something at all: a formatted side at a rate that the disk was written with, in MFM.
    private bool IsReadable(FloppyDrive d, int head) => d.HasMedia && head < d.Format.Heads && d.DiskTrack < d.Format.Tracks
        && (_fifo[0] & 0x40) != 0 && (!ChecksRate || (d.Format.Rates >> _rate & 1) != 0);
}
