namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>A CD/DVD-ROM drive on SCSI: <see cref="MmcCommands"/> as a logical unit.</summary>
internal sealed class ScsiCdRom : ScsiUnit
{
    private const int MostRaw = BufferSize / 2352;

    private readonly Drive _drive;
    private readonly ScsiIdentity _identity;
    private readonly MmcCommands _commands;

    internal ScsiCdRom(MachineServices services, Drive drive, ScsiIdentity identity) : base(services, drive)
    {
        _drive = drive;
        _identity = identity;
        _commands = new MmcCommands(drive)
        {
            IsScsi = true,
            TrayMoved = open => services.Control.ReportTray(drive.Name, open),
        };
        drive.MediaChanged = _commands.MediaChanged;
        drive.EjectRequested = _commands.EjectRequested;
    }

    protected override byte PeripheralType => 5;

    internal override void Reset(byte qualifier)
    {
        base.Reset(qualifier);
        _drive.IsLocked = false;
    }

    protected override int MakeInquiry(int page)
    {
        if (page < 0)
            return MakeStandardInquiry(true, _identity.Vendor, _identity.Product, _identity.Revision);
        if (page is not (0 or 0x83) && (page != 0x80 || _identity.Serial == null))
            return -1;
        var b = Buffer;
        b[..256].Clear();
        b[0] = PeripheralType;
        b[1] = (byte)page;
        int n;
        if (page == 0)
        {
            n = _identity.Serial == null ? 2 : 3;
            b[n + 3] = 0x83;
            b[5] = (byte)(n == 3 ? 0x80 : 0x83);
        }
        else if (page == 0x83)
            n = _identity.PutDesignators(b) - 4;
        else
            n = System.Text.Encoding.ASCII.GetBytes(_identity.Serial!.AsSpan(0, Math.Min(36, _identity.Serial!.Length)), b[4..]);
        b[3] = (byte)n;
        return 4 + n;
    }

    protected override void Execute()
    {
        switch (_commands.Execute(Cdb, Buffer))
        {
            case PacketAction.Done:
                Succeed();
                break;
            case PacketAction.Failed:
                Fail(_commands.SenseKey, _commands.AdditionalSense);
                break;
            case PacketAction.Take:
                Take(_commands.ReplyLength);
                break;
            case PacketAction.Reply:
                Reply(_commands.ReplyLength, _commands.ReplyLength);
                break;
            case PacketAction.Read when _commands.RawSize == MmcCommands.SectorSize:
                ReadMedium(_commands.ReadAt * MmcCommands.SectorSize, (long)_commands.ReadCount * MmcCommands.SectorSize);
                break;
            default:
                Task.IsRaw = true;
                Task.At = _commands.ReadAt;
                Task.Left = _commands.ReadCount;
                ReadRaw();
                break;
        }
    }

    private void ReadRaw()
    {
        Task.Filled = (int)Math.Min(Task.Left, MostRaw);
        WorkOnBuffer(DriveOperation.Read, Task.At * MmcCommands.SectorSize, Task.Filled * MmcCommands.SectorSize);
    }

    // Sectors get their headers in the buffer, from the last to the first.
    protected override void WorkDone()
    {
        for (int i = Task.Filled - 1; i >= 0; i--)
        {
            Buffer.Slice(i * MmcCommands.SectorSize, MmcCommands.SectorSize).CopyTo(Buffer[(i * 2352 + 16)..]);
            MmcCommands.PutRawHeader(Buffer.Slice(i * 2352, 2352), Task.At + i);
        }
        Task.At += Task.Filled;
        Task.Left -= Task.Filled;
        Reply(Task.Filled * 2352, Task.Filled * 2352);
    }

    protected override void ReplyTaken()
    {
        if (Task.IsRaw && Task.Left > 0)
            ReadRaw();
        else
            Succeed();
    }

    public override void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Part("commands", _commands);
    }
}
