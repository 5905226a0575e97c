namespace ImgKit.Machine.Devices.Storage.Scsi;

// The SCSI bus as the adapter sees it: who is connected, what phase it is, and what messages go over it.
// Source: SPI-3 (T10/1302-D), chapters 10 (phases) and 16 (messages).
public sealed partial class Lsi53C895A
{
    private enum Phase : byte
    {
        DataOut = 0,
        DataIn = 1,
        Command = 2,
        Status = 3,
        MessageOut = 6,
        MessageIn = 7,
    }

    private ScsiUnit? _unit;
    private bool _isConnected, _hasPhase, _attention, _hasCommand, _statusSent, _isEnding;
    private byte _target, _lun, _messageCount, _commandCount;
    private Phase _phase;
    private readonly byte[] _messages = new byte[8];    // for the initiator
    private readonly byte[] _command = new byte[16];

    private byte ControlLines => (byte)(!_isConnected ? 0
        : 0x20 | (_hasPhase ? 0x80 : 0) | (_attention ? 8 : 0) | (byte)_phase);

    private bool Select(byte target, bool attention)
    {
        if (!Scsi.HasTarget(target))
            return false;
        _target = target;
        _lun = 0;
        _unit = Scsi.Find(target, 0);
        _isConnected = true;
        _attention = attention;
        _hasCommand = _statusSent = _isEnding = false;
        _messageCount = _commandCount = 0;
        // Firmware selects without ATN and sends a message all the same: the target asks for one.
        SetPhase(Phase.MessageOut);
        _r[Scntl1] |= 0x10;
        _r[Scntl2] |= DisconnectIsUnexpected;
        UpdateInterrupt();
        return true;
    }

    private void Disconnect()
    {
        if (_isConnected && !_isEnding)
            _unit!.Abandon();
        _isConnected = _hasPhase = _attention = _isEnding = false;
        _unit = null;
        _phase = Phase.DataOut;
        _r[Scntl1] &= unchecked((byte)~0x10);
        UpdateInterrupt();
    }

    private void SetPhase(Phase phase)
    {
        _phase = phase;
        _hasPhase = true;
    }

    /// <summary>The target goes to the phase that its state asks for.</summary>
    private void NextPhase()
    {
        if (!_isConnected || _isEnding)
        {
            _hasPhase = false;
            return;
        }
        if (_attention)
            SetPhase(Phase.MessageOut);
        else if (_messageCount > 0)
            SetPhase(Phase.MessageIn);
        else if (!_hasCommand)
            SetPhase(Phase.Command);
        else
            switch (_unit!.Stage)
            {
                case ScsiStage.DataIn:
                    SetPhase(Phase.DataIn);
                    break;
                case ScsiStage.DataOut:
                    SetPhase(Phase.DataOut);
                    break;
                case ScsiStage.Complete when !_statusSent:
                    SetPhase(Phase.Status);
                    break;
                case ScsiStage.Complete:
                    Say(0);         // command complete
                    SetPhase(Phase.MessageIn);
                    break;
                default:
                    _hasPhase = false;
                    break;
            }
    }

    private void UnitAdvanced()
    {
        if (!_isConnected || _unit!.IsMoving)
            return;
        bool waited = _wait is Wait.Phase or Wait.Move;
        if (_wait == Wait.Move)
            EndMove();
        NextPhase();
        if (waited)
            Continue();
    }

    private void Say(byte message)
    {
        if (_messageCount < _messages.Length)
            _messages[_messageCount++] = message;
    }

    /// <summary>The initiator's messages.</summary>
    private void TakeMessages(ReadOnlySpan<byte> m)
    {
        while (m.Length > 0)
        {
            byte first = m[0];
            int length = first switch { 1 => m.Length < 2 ? m.Length : 2 + (m[1] == 0 ? 256 : m[1]), >= 0x20 and <= 0x2F => 2, _ => 1 };
            switch (first)
            {
                case >= 0x80:
                    _lun = (byte)(first & 7);
                    _unit = Scsi.Find(_target, _lun);
                    break;
                case 0x20 or 0x21 or 0x22:      // tags: the target takes commands one after the other
                case 0x05 or 0x07 or 0x08 or 0x09:
                    break;
                case 0x06 or 0x0D or 0x0E:      // ABORT TASK SET, ABORT TASK, CLEAR TASK SET
                    _unit!.Abandon();
                    Leave();
                    return;
                case 0x0C:                      // TARGET RESET
                    Scsi.ResetTarget(_target, 3);
                    Leave();
                    return;
                case 0x17:                      // LOGICAL UNIT RESET
                    _unit!.Reset(3);
                    Leave();
                    return;
                default:
                    Say(7);                     // message reject: asynchronous and narrow, nothing else
                    break;
            }
            m = m[Math.Min(length, m.Length)..];
        }
    }

    /// <summary>The target leaves the bus by itself.</summary>
    private void Leave()
    {
        bool unexpected = (_r[Scntl2] & DisconnectIsUnexpected) != 0;
        _isEnding = true;
        Disconnect();
        if (unexpected && _wait != Wait.Disconnect)
            Interrupt(UnexpectedDisconnect, 0);
    }

    /// <summary>Bytes of a command; it begins when its group's length is there.</summary>
    private void TakeCommand(ReadOnlySpan<byte> bytes)
    {
        foreach (byte b in bytes)
            if (_commandCount < 16)
                _command[_commandCount++] = b;
        int needed = (_command[0] >> 5) switch { 0 => 6, 1 or 2 => 10, 4 => 16, 5 => 12, _ => 1 };
        if (_commandCount < needed)
            return;
        _hasCommand = true;
        _unit!.Begin(_command.AsSpan(0, _commandCount));
    }

    private void DescribeBus(StateVisitor state)
    {
        state.Field("connected", ref _isConnected);
        state.Field("has-phase", ref _hasPhase);
        state.Field("attention", ref _attention);
        state.Field("has-command", ref _hasCommand);
        state.Field("status-sent", ref _statusSent);
        state.Field("ending", ref _isEnding);
        state.Field("target", ref _target);
        state.Field("lun", ref _lun);
        state.Field("message-count", ref _messageCount);
        state.Field("command-count", ref _commandCount);
        byte phase = (byte)_phase;
        state.Field("phase", ref phase);
        _phase = (Phase)(phase & 7);
        state.Bytes("messages", _messages);
        state.Bytes("command", _command);
        _target &= 15;
        _lun &= 7;
        _messageCount = Math.Min(_messageCount, (byte)_messages.Length);
        _commandCount = Math.Min(_commandCount, (byte)16);
    }
}
