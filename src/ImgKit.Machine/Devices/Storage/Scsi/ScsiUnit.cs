using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>
/// A logical unit: takes commands, moves their data straight between guest memory and its drive, keeps sense data. Commands with tags are worked on
/// together. Sources: SAM-3 for tasks, status and unit attention, SPC-3 (T10/1416-D) for the commands that all units have.
/// </summary>
internal abstract class ScsiUnit : IStateful
{
    internal const byte Good = 0, CheckCondition = 2, BusyStatus = 8, TaskSetFull = 0x28;

    /// <summary>Sense keys.</summary>
    protected const byte NotReady = 2, MediumError = 3, HardwareError = 4, IllegalRequest = 5, UnitAttention = 6, DataProtect = 7, AbortedCommand = 11;

    /// <summary>Bytes of the buffer for replies and parameters.</summary>
    protected const int BufferSize = ScsiTask.BufferSize;

    /// <summary>Tasks that a unit takes at a time.</summary>
    internal const int MostTasks = 64;

    private readonly Drive? _drive;
    private readonly List<ScsiTask> _tasks = [];        // in the order in which they came
    private readonly Stack<ScsiTask> _free = new();
    private byte _senseKey, _senseCode, _senseQualifier, _attentionCode = 0x29, _attentionQualifier;
    private ScsiTask _task;                             // the one that the methods for commands are about

    /// <summary>Makes a unit; without a drive it has nothing to read or write.</summary>
    protected ScsiUnit(MachineServices services, Drive? drive)
    {
        Services = services;
        _drive = drive;
        _task = new ScsiTask(this, services, drive);
        _free.Push(_task);
    }

    /// <summary>What the machine gives.</summary>
    protected MachineServices Services { get; }

    /// <summary>Told when a task has gone on by itself, under the machine lock.</summary>
    internal Action<ScsiTask>? Advanced { get; set; }

    /// <summary>The logical unit numbers of its target, for REPORT LUNS.</summary>
    internal Func<IReadOnlyList<int>>? Siblings { get; set; }

    /// <summary>Its place on the bus.</summary>
    internal int Target { get; set; }

    /// <summary>Its number in the target.</summary>
    internal int Number { get; set; }

    /// <summary>The command block.</summary>
    protected ReadOnlySpan<byte> Cdb => _task.Cdb;

    /// <summary>The command that is being worked on.</summary>
    protected ScsiTask Task => _task;

    /// <summary>Replies are made, and parameters arrive, here.</summary>
    protected Span<byte> Buffer => _task.Buffer;

    /// <summary>Peripheral device type (byte 0 of INQUIRY data).</summary>
    protected abstract byte PeripheralType { get; }

    /// <summary>Bytes of the medium.</summary>
    internal long MediumLength => _drive?.Length ?? 0;

    /// <summary>The tasks that have not ended for the initiator.</summary>
    internal IReadOnlyList<ScsiTask> Tasks => _tasks;

    /// <summary>Begins a command of up to 16 bytes.</summary>
    /// <param name="cdb">the command block.</param>
    /// <param name="tag">0 to 255; -1: none.</param>
    /// <param name="order">how it stands among the others.</param>
    internal ScsiTask Begin(ReadOnlySpan<byte> cdb, int tag = -1, ScsiTaskOrder order = ScsiTaskOrder.Simple)
    {
        bool overlaps = _tasks.Exists(t => t.Tag == tag), full = _tasks.Count >= MostTasks;
        if (!_free.TryPop(out _task!))
            _task = new ScsiTask(this, Services, _drive);
        _task.Reset(cdb, tag, order);
        _tasks.Add(_task);
        if (full)
            End(TaskSetFull);
        else if (overlaps)
            Fail(AbortedCommand, 0x4E);
        else if (MustWait(_task))
            _task.IsBlocked = true;
        else
            Start();
        return _task;
    }

    // An ordered task waits for all before it, and all behind it wait for it. One without a tag is for itself.
    private bool MustWait(ScsiTask task)
    {
        if (task.Tag < 0 || task.Order == ScsiTaskOrder.HeadOfQueue)
            return false;
        foreach (var t in _tasks)
        {
            if (t == task)
                break;
            if (t.Stage != ScsiStage.Complete && (task.Order == ScsiTaskOrder.Ordered || t.Order == ScsiTaskOrder.Ordered || t.IsBlocked))
                return true;
        }
        return false;
    }

    private void StartBlocked()
    {
        for (int i = 0; i < _tasks.Count; i++)
        {
            var task = _tasks[i];
            if (!task.IsBlocked || MustWait(task))
                continue;
            task.IsBlocked = false;
            _task = task;
            Start();
            if (task.Stage != ScsiStage.Working)
                Advanced?.Invoke(task);
        }
    }

    private void Start()
    {
        byte op = _task.Cdb[0];
        if (op == 0x03)
        {
            RequestSense();
            return;
        }
        _senseKey = _senseCode = _senseQualifier = 0;
        if (op == 0x12)
            Inquiry();
        else if (op == 0xA0)
            ReportUnits();
        else if (_attentionCode != 0)
        {
            (byte code, byte qualifier) = (_attentionCode, _attentionQualifier);
            _attentionCode = _attentionQualifier = 0;
            Fail(UnitAttention, code, qualifier);
        }
        else
            Execute();
    }

    /// <summary>Whether a task's status may be told: the sense data of another has not been asked for yet.</summary>
    internal bool MayTell(ScsiTask task) => task.Status != CheckCondition || _senseKey == 0 || task.Stage != ScsiStage.Complete;

    /// <summary>The initiator has got the status: the sense data is there for it.</summary>
    internal void StatusTaken(ScsiTask task)
    {
        if (task.Status == CheckCondition)
            (_senseKey, _senseCode, _senseQualifier) = (task.SenseKey, task.SenseCode, task.SenseQualifier);
        Remove(task);
    }

    private void Remove(ScsiTask task)
    {
        if (!_tasks.Remove(task))
            return;
        task.IsAborted = true;
        if (task.Request is not { IsBusy: true })
            _free.Push(task);
        StartBlocked();
    }

    /// <summary>Runs the command in <see cref="Cdb"/>: ends with one of the methods below.</summary>
    protected abstract void Execute();

    /// <summary>Fills the buffer with INQUIRY data or a page of vital product data. Returns its length, or -1 when there is no such page.</summary>
    /// <param name="page">page; -1: standard data.</param>
    protected abstract int MakeInquiry(int page);

    /// <summary>All parameters (<see cref="Take"/>) are in the buffer.</summary>
    /// <param name="length">bytes.</param>
    protected virtual void ParametersTaken(int length) => Succeed();

    /// <summary>A request that is not a data transfer (<see cref="Work"/>) went well.</summary>
    protected virtual void WorkDone() => Succeed();

    /// <summary>All of the reply was fetched by the initiator.</summary>
    protected virtual void ReplyTaken() => Succeed();

    /// <summary>The unit or its bus was reset: all commands are forgotten, and the next one is told.</summary>
    internal virtual void Reset(byte qualifier)
    {
        AbortAll();
        _senseKey = 0;
        _attentionCode = 0x29;
        _attentionQualifier = qualifier;
    }

    /// <summary>Forgets a command; what it has given to the block layer goes on.</summary>
    internal void Abort(ScsiTask task) => Remove(task);

    /// <summary>Forgets the command of a tag (-1: the one without).</summary>
    internal void Abort(int tag)
    {
        if (_tasks.Find(t => t.Tag == tag) is { } task)
            Remove(task);
    }

    /// <summary>Forgets all commands.</summary>
    internal void AbortAll()
    {
        foreach (var task in _tasks)
        {
            task.IsAborted = true;
            if (task.Request is not { IsBusy: true })
                _free.Push(task);
        }
        _tasks.Clear();
    }

    /// <summary>Has the next command fail with a unit attention.</summary>
    protected void SetAttention(byte code, byte qualifier)
    {
        _attentionCode = code;
        _attentionQualifier = qualifier;
    }

    private void End(byte status)
    {
        _task.Status = status;
        _task.Stage = ScsiStage.Complete;
    }

    /// <summary>Ends the command well.</summary>
    protected void Succeed() => End(Good);

    /// <summary>Ends the command with sense data.</summary>
    protected void Fail(byte key, byte code, byte qualifier = 0)
    {
        (_task.SenseKey, _task.SenseCode, _task.SenseQualifier) = (key, code, qualifier);
        End(CheckCondition);
    }

    /// <summary>Offers bytes of the buffer, cut to what the initiator allows.</summary>
    protected void Reply(int length, long allocated)
    {
        _task.Length = Math.Min(length, allocated);
        _task.Done = 0;
        _task.IsDirect = false;
        if (_task.Length == 0)
            ReplyTaken();
        else
            _task.Stage = ScsiStage.DataIn;
    }

    /// <summary>Asks for parameters into the buffer.</summary>
    protected void Take(int length)
    {
        if (length > BufferSize)
        {
            Fail(IllegalRequest, 0x24);
            return;
        }
        _task.Length = length;
        if (length == 0)
            ParametersTaken(0);
        else
            _task.Stage = ScsiStage.DataOut;
    }

    /// <summary>Reads the medium: the data goes straight to the initiator's memory.</summary>
    protected void ReadMedium(long offset, long length)
    {
        (_task.Offset, _task.Length, _task.IsDirect) = (offset, length, true);
        if (length == 0)
            Succeed();
        else
            _task.Stage = ScsiStage.DataIn;
    }

    /// <summary>Writes the medium.</summary>
    protected void WriteMedium(long offset, long length, bool flush)
    {
        (_task.Offset, _task.Length, _task.IsDirect, _task.FlushAtEnd) = (offset, length, true, flush);
        if (length == 0)
            Succeed();
        else
            _task.Stage = ScsiStage.DataOut;
    }

    /// <summary>Gives a request without data of the initiator to the block layer; goes on at <see cref="WorkDone"/>.</summary>
    protected void Work(DriveOperation operation, long offset, long length, bool mayUnmap = false) => _task.Submit(operation, offset, length, mayUnmap);

    /// <summary>As <see cref="Work"/>, with the first bytes of the buffer.</summary>
    protected void WorkOnBuffer(DriveOperation operation, long offset, int length) => _task.Submit(operation, offset, length);

    /// <summary>All data of a reply or of parameters has been moved.</summary>
    internal void DataEnded(ScsiTask task, bool toGuest)
    {
        _task = task;
        if (toGuest)
            ReplyTaken();
        else
            ParametersTaken((int)task.Length);
    }

    /// <summary>A task's request has ended.</summary>
    internal void Completed(ScsiTask task, DriveRequest request)
    {
        if (task.IsAborted)
        {
            _free.Push(task);
            return;
        }
        _task = task;
        bool isRead = request.Operation == DriveOperation.Read, moved = task.IsDirect && request.Operation is DriveOperation.Read or DriveOperation.Write;
        task.EndMove(request.Failure != null);
        if (request.Failure is { } failure)
        {
            if (!isRead && Drive.IsNoSpace(failure))
                Fail(DataProtect, 0x27, 7);     // space allocation failed
            else
                Fail(MediumError, isRead ? (byte)0x11 : (byte)0x0C);
        }
        else if (!moved)
            WorkDone();
        else if (task.Remaining == 0)
            Succeed();
        else
            task.Stage = isRead ? ScsiStage.DataIn : ScsiStage.DataOut;
        if (task.Stage == ScsiStage.Working)
            return;
        Advanced?.Invoke(task);
        if (task.Stage == ScsiStage.Complete)
            StartBlocked();
    }

    private void RequestSense()
    {
        if (_senseKey == 0 && _attentionCode != 0)
        {
            (_senseKey, _senseCode, _senseQualifier) = (UnitAttention, _attentionCode, _attentionQualifier);
            _attentionCode = _attentionQualifier = 0;
        }
        var b = Buffer;
        int length;
        if ((Cdb[1] & 1) != 0)
        {
            // Descriptor format
            length = 8;
            b[..length].Clear();
            b[0] = 0x72;
            b[1] = _senseKey;
            b[2] = _senseCode;
            b[3] = _senseQualifier;
        }
        else
        {
            length = 18;
            b[..length].Clear();
            b[0] = 0x70;
            b[2] = _senseKey;
            b[7] = 10;
            b[12] = _senseCode;
            b[13] = _senseQualifier;
        }
        _senseKey = _senseCode = _senseQualifier = 0;
        Reply(length, Cdb[4]);
    }

    private void Inquiry()
    {
        bool vital = (Cdb[1] & 1) != 0;
        int length = !vital && Cdb[2] != 0 ? -1 : MakeInquiry(vital ? Cdb[2] : -1);
        if (length < 0)
            Fail(IllegalRequest, 0x24);
        else
            Reply(length, BinaryPrimitives.ReadUInt16BigEndian(Cdb[3..]));
    }

    private void ReportUnits()
    {
        var units = Siblings?.Invoke() ?? [];
        uint allocated = BinaryPrimitives.ReadUInt32BigEndian(Cdb[6..]);
        if (Cdb[2] > 2 || allocated < 16)
        {
            Fail(IllegalRequest, 0x24);
            return;
        }
        int length = 8 + 8 * units.Count;
        Buffer[..length].Clear();
        BinaryPrimitives.WriteInt32BigEndian(Buffer, length - 8);
        for (int i = 0; i < units.Count; i++)
            Buffer[8 + 8 * i + 1] = (byte)units[i];
        Reply(length, allocated);
    }

    /// <summary>The standard INQUIRY data that all units share.</summary>
    protected int MakeStandardInquiry(bool removable, string vendor, string product, string revision)
    {
        var b = Buffer[..36];
        b.Clear();
        b[0] = PeripheralType;
        b[1] = (byte)(removable ? 0x80 : 0);
        b[2] = 5;               // SPC-3
        b[3] = 0x12;            // hierarchical addressing, format 2
        b[4] = 31;
        b[7] = 0x02;            // tagged commands
        b[8..].Fill((byte)' ');
        System.Text.Encoding.ASCII.GetBytes(vendor.AsSpan(0, Math.Min(8, vendor.Length)), b[8..]);
        System.Text.Encoding.ASCII.GetBytes(product.AsSpan(0, Math.Min(16, product.Length)), b[16..]);
        System.Text.Encoding.ASCII.GetBytes(revision.AsSpan(0, Math.Min(4, revision.Length)), b[32..]);
        return 36;
    }

    /// <inheritdoc/>
    public virtual void Describe(StateVisitor state)
    {
        state.Field("sense-key", ref _senseKey);
        state.Field("sense-code", ref _senseCode);
        state.Field("sense-qualifier", ref _senseQualifier);
        state.Field("attention-code", ref _attentionCode);
        state.Field("attention-qualifier", ref _attentionQualifier);
        int count = _tasks.Count;
        state.Field("tasks", ref count);
        if (state.IsLoading)
        {
            AbortAll();
            for (int i = 0; i < Math.Min(count, MostTasks + 1); i++)
                _tasks.Add(new ScsiTask(this, Services, _drive));
        }
        for (int i = 0; i < _tasks.Count; i++)
            state.Part($"task-{i}", _tasks[i]);
        if (!state.IsLoading)
            return;
        _tasks.RemoveAll(t => t.IsAborted);
        foreach (var task in _tasks.Where(t => t is { Stage: ScsiStage.Working, IsBlocked: false }))
            task.Restart();
        _task = _tasks.Count > 0 ? _tasks[0] : _task;
    }
}
