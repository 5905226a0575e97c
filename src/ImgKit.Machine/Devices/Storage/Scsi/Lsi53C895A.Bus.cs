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

    private const byte SavePointer = 2, DisconnectMessage = 4, SimpleTag = 0x20;

    private const byte RespondsToReselection = 0x40;    // SCID

    private readonly List<ScsiTask> _ready = [];        // tasks that are away from the bus and have something to say
    private ScsiUnit? _unit;
    private ScsiTask? _task;                            // the one that is connected, once its command is there
    private bool _isConnected, _hasPhase, _attention, _hasCommand, _statusSent, _isEnding, _isLeaving, _mayDisconnect;
    private byte _target, _lun, _messageCount, _commandCount, _tagKind;
    private int _tag = -1;
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
        _hasCommand = _statusSent = _isEnding = _isLeaving = _mayDisconnect = false;
        _messageCount = _commandCount = 0;
        _task = null;
        _tag = -1;
        // Firmware selects without ATN and sends a message all the same: the target asks for one.
        SetPhase(Phase.MessageOut);
        _r[Scntl1] |= 0x10;
        _r[Scntl2] |= DisconnectIsUnexpected;
        UpdateInterrupt();
        return true;
    }

    private void Disconnect()
    {
        if (_task is { } task)
        {
            if (!_isEnding)
                _unit!.Abort(task);
            else if (_isLeaving && task.Stage != ScsiStage.Working)
                _ready.Add(task);
        }
        _isConnected = _hasPhase = _attention = _isEnding = _isLeaving = false;
        _unit = null;
        _task = null;
        _phase = Phase.DataOut;
        _r[Scntl1] &= unchecked((byte)~0x10);
        UpdateInterrupt();
    }

    /// <summary>The task may leave the bus while it is worked on: it has a tag by which the initiator knows it again, and may disconnect.</summary>
    private bool MayLeave => _tag >= 0 && _mayDisconnect && (_r[Scid] & RespondsToReselection) != 0;

    /// <summary>How long a task may take, in nanoseconds, for its target to stay on the bus meanwhile, as far as the last ones tell: leaving and coming back
    /// is work for the script, and pays when others can be worked on in that time.</summary>
    internal long Patience { get; set; } = 150_000;

    private long _serviceTime;          // of the last tasks, on average

    private bool Leaves => MayLeave && _serviceTime >= Patience;

    /// <summary>A target with something to say takes the bus. False when there is none, or the bus is not free.</summary>
    private bool TryReselect()
    {
        int at = _isConnected ? -1 : _ready.FindIndex(static t => t.Unit.MayTell(t));
        if (at < 0)
            return false;
        var task = _ready[at];
        _ready.RemoveAt(at);
        _task = task;
        _unit = task.Unit;
        _target = (byte)_unit.Target;
        _lun = (byte)_unit.Number;
        _tag = task.Tag;
        _isConnected = _hasCommand = _mayDisconnect = true;
        _attention = _statusSent = _isEnding = _isLeaving = false;
        _messageCount = 0;
        _r[Ssid] = (byte)(0x80 | _target);
        _r[Scntl1] |= 0x10;
        _r[Scntl2] |= DisconnectIsUnexpected;
        Say((byte)(0x80 | _lun));
        Say(SimpleTag);
        Say((byte)_tag);
        SetPhase(Phase.MessageIn);
        UpdateInterrupt();
        if ((_r[Sien0] & Reselected) != 0)
            Interrupt(Reselected, 0);
        return true;
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
            switch (_task!.Stage)
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
                case ScsiStage.Working when !_task.IsMoving && (Leaves || (MayLeave && _task.IsBlocked)):
                    Say(SavePointer);
                    Say(DisconnectMessage);
                    SetPhase(Phase.MessageIn);
                    break;
                default:
                    _hasPhase = false;
                    break;
            }
    }

    private void TaskAdvanced(ScsiTask task)
    {
        _serviceTime += (Services.Clock.Now - task.Submitted - _serviceTime) / 8;
        if (task != _task)
        {
            if (!_ready.Contains(task))
                _ready.Add(task);
            if (_wait == Wait.Reselect && !_isConnected)
                Continue();
            return;
        }
        // One that is about to leave comes back.
        if (_messageCount > 0 || _isEnding)
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
                    if (_task != null)
                        break;
                    _lun = (byte)(first & 7);
                    _mayDisconnect = (first & 0x40) != 0;
                    _unit = Scsi.Find(_target, _lun);
                    break;
                case >= SimpleTag and <= 0x22 when m.Length > 1:
                    if (_task == null)
                        (_tagKind, _tag) = (first, m[1]);
                    break;
                case 0x05 or 0x07 or 0x08 or 0x09:
                    break;
                case 0x06 or 0x0E:              // ABORT TASK SET, CLEAR TASK SET
                    _unit!.AbortAll();
                    LeaveAborted();
                    return;
                case 0x0D:                      // ABORT TASK
                    _unit!.Abort(_tag);
                    LeaveAborted();
                    return;
                case 0x0C:                      // TARGET RESET
                    Scsi.ResetTarget(_target, 3);
                    LeaveAborted();
                    return;
                case 0x17:                      // LOGICAL UNIT RESET
                    _unit!.Reset(3);
                    LeaveAborted();
                    return;
                default:
                    Say(7);                     // message reject: asynchronous and narrow, nothing else
                    break;
            }
            m = m[Math.Min(length, m.Length)..];
        }
    }

    private void LeaveAborted()
    {
        _ready.RemoveAll(static t => t.IsAborted);
        _task = null;
        Leave();
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
        _task = _unit!.Begin(_command.AsSpan(0, _commandCount), _tag,
            _tagKind switch { 0x21 => ScsiTaskOrder.HeadOfQueue, 0x22 => ScsiTaskOrder.Ordered, _ => ScsiTaskOrder.Simple });
    }

    private void DescribeBus(StateVisitor state)
    {
        state.Field("connected", ref _isConnected);
        state.Field("has-phase", ref _hasPhase);
        state.Field("attention", ref _attention);
        state.Field("has-command", ref _hasCommand);
        state.Field("status-sent", ref _statusSent);
        state.Field("ending", ref _isEnding);
        state.Field("leaving", ref _isLeaving);
        state.Field("may-disconnect", ref _mayDisconnect);
        state.Field("tag", ref _tag);
        state.Field("tag-kind", ref _tagKind);
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

    private void ForgetTasks()
    {
        _ready.Clear();
        _task = null;
    }

    /// <summary>Finds what is connected, and who waits, from what was loaded; the units are loaded already.</summary>
    private void FindTasks()
    {
        _ready.Clear();
        _unit = _isConnected && Scsi.HasTarget(_target) ? Scsi.Find(_target, _lun) : null;
        _task = _hasCommand ? _unit?.Tasks.FirstOrDefault(t => t.Tag == _tag) : null;
        // Without its command there is nothing that could go on.
        _isConnected = _unit != null && (!_hasCommand || _task != null || _isEnding || _statusSent);
        foreach (var unit in Scsi.All)
            foreach (var task in unit.Tasks)
                if (task != _task && task is { Stage: not ScsiStage.Working })
                    _ready.Add(task);
    }
}
