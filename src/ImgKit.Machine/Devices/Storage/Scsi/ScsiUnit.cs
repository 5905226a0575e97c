using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>What a logical unit wants of the bus next.</summary>
internal enum ScsiStage : byte
{
    /// <summary>Nothing: no command, or one that is being worked on.</summary>
    Working,

    /// <summary>It has data for the initiator.</summary>
    DataIn,

    /// <summary>It takes data from the initiator.</summary>
    DataOut,

    /// <summary>The command has ended; <see cref="ScsiUnit.Status"/> says how.</summary>
    Complete,
}

/// <summary>
/// A logical unit: takes commands, moves their data straight between guest memory and its drive, keeps sense data. One command at a time; it
/// never leaves the bus in the middle of one. Sources: SAM-3 for status and unit attention, SPC-3 (T10/1416-D) for the commands that all units have.
/// </summary>
internal abstract class ScsiUnit : IStateful
{
    internal const byte Good = 0, CheckCondition = 2, BusyStatus = 8;

    /// <summary>Sense keys.</summary>
    protected const byte NotReady = 2, MediumError = 3, HardwareError = 4, IllegalRequest = 5, UnitAttention = 6, DataProtect = 7;

    /// <summary>Bytes of the buffer for replies and parameters.</summary>
    protected const int BufferSize = 1 << 16;

    private readonly byte[] _buffer = GC.AllocateArray<byte>(BufferSize, pinned: true);
    private readonly DriveRequest? _request;
    private readonly byte[] _cdb = new byte[16];
    private byte _senseKey, _senseCode, _senseQualifier, _attentionCode = 0x29, _attentionQualifier, _status;
    private ScsiStage _stage;
    private bool _isDirect, _flushAtEnd;
    private int _generation;
    private long _offset, _length, _done;

    /// <summary>Makes a unit; without a drive it has nothing to read or write.</summary>
    protected ScsiUnit(MachineServices services, Drive? drive)
    {
        Services = services;
        if (drive != null)
            _request = new DriveRequest(services, drive, Completed);
    }

    /// <summary>What the machine gives.</summary>
    protected MachineServices Services { get; }

    /// <summary>Told when <see cref="Stage"/> has changed by itself, under the machine lock.</summary>
    internal Action? Advanced { get; set; }

    /// <summary>The logical unit numbers of its target, for REPORT LUNS.</summary>
    internal Func<IReadOnlyList<int>>? Siblings { get; set; }

    /// <summary>What comes next.</summary>
    internal ScsiStage Stage => _stage;

    /// <summary>The status of the command that ended.</summary>
    internal byte Status => _status;

    /// <summary>Bytes of data that the command has still to move.</summary>
    internal long Remaining => _length - _done;

    /// <summary>The command block.</summary>
    protected ReadOnlySpan<byte> Cdb => _cdb;

    /// <summary>Replies are made, and parameters arrive, here.</summary>
    protected Span<byte> Buffer => _buffer;

    /// <summary>The buffer for a request on a worker.</summary>
    protected byte[] PinnedBuffer => _buffer;

    /// <summary>Peripheral device type (byte 0 of INQUIRY data).</summary>
    protected abstract byte PeripheralType { get; }

    /// <summary>Begins a command of up to 16 bytes.</summary>
    internal void Begin(ReadOnlySpan<byte> cdb)
    {
        _cdb.AsSpan().Clear();
        cdb[..Math.Min(cdb.Length, 16)].CopyTo(_cdb);
        _stage = ScsiStage.Working;
        _length = _done = 0;
        _isDirect = _flushAtEnd = false;
        if (_request is { IsBusy: true })
        {
            // A request of a command that was aborted is still under way.
            End(BusyStatus);
            return;
        }
        byte op = _cdb[0];
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

    /// <summary>The unit or its bus was reset: the command is forgotten, and the next one is told.</summary>
    internal virtual void Reset(byte qualifier)
    {
        Abandon();
        _senseKey = 0;
        _attentionCode = 0x29;
        _attentionQualifier = qualifier;
    }

    /// <summary>Forgets the command; what it has given to the block layer goes on.</summary>
    internal void Abandon()
    {
        _generation++;
        IsMoving = false;
        _stage = ScsiStage.Working;
        _length = _done = 0;
    }

    /// <summary>Has the next command fail with a unit attention.</summary>
    protected void SetAttention(byte code, byte qualifier)
    {
        _attentionCode = code;
        _attentionQualifier = qualifier;
    }

    private void End(byte status)
    {
        _status = status;
        _stage = ScsiStage.Complete;
    }

    /// <summary>Ends the command well.</summary>
    protected void Succeed() => End(Good);

    /// <summary>Ends the command with sense data.</summary>
    protected void Fail(byte key, byte code, byte qualifier = 0)
    {
        _senseKey = key;
        _senseCode = code;
        _senseQualifier = qualifier;
        End(CheckCondition);
    }

    /// <summary>Offers bytes of the buffer, cut to what the initiator allows.</summary>
    protected void Reply(int length, long allocated)
    {
        _length = Math.Min(length, allocated);
        _done = 0;
        _isDirect = false;
        if (_length == 0)
            ReplyTaken();
        else
            _stage = ScsiStage.DataIn;
    }

    /// <summary>Asks for parameters into the buffer.</summary>
    protected void Take(int length)
    {
        if (length > BufferSize)
        {
            Fail(IllegalRequest, 0x24);
            return;
        }
        _length = length;
        if (length == 0)
            ParametersTaken(0);
        else
            _stage = ScsiStage.DataOut;
    }

    /// <summary>Reads the medium: the data goes straight to the initiator's memory.</summary>
    protected void ReadMedium(long offset, long length)
    {
        (_offset, _length, _isDirect) = (offset, length, true);
        if (length == 0)
            Succeed();
        else
            _stage = ScsiStage.DataIn;
    }

    /// <summary>Writes the medium.</summary>
    protected void WriteMedium(long offset, long length, bool flush)
    {
        (_offset, _length, _isDirect, _flushAtEnd) = (offset, length, true, flush);
        if (length == 0)
            Succeed();
        else
            _stage = ScsiStage.DataOut;
    }

    /// <summary>Gives a request without data of the initiator to the block layer; goes on at <see cref="WorkDone"/>.</summary>
    protected void Work(DriveOperation operation, long offset, long length, bool mayUnmap = false)
    {
        _stage = ScsiStage.Working;
        _request!.Tag = _generation;
        _request.ThenFlush = false;
        _request.MayUnmap = mayUnmap;
        _request.Submit(operation, offset, length);
    }

    /// <summary>As <see cref="Work"/>, with the first bytes of the buffer.</summary>
    protected void WorkOnBuffer(DriveOperation operation, long offset, int length)
    {
        _stage = ScsiStage.Working;
        _request!.Tag = _generation;
        _request.ThenFlush = false;
        _request.Submit(operation, offset, _buffer, 0, length);
    }

    /// <summary>A <see cref="Move"/> is under way.</summary>
    internal bool IsMoving { get; private set; }

    /// <summary>Bytes that the last <see cref="Move"/> has moved: all, or none when it failed.</summary>
    internal long Moved { get; private set; }

    /// <summary>Moves the next data of the command. When <see cref="IsMoving"/> is true afterwards, <see cref="Advanced"/> tells the end.</summary>
    /// <param name="segments">guest memory, not longer than <see cref="Remaining"/>.</param>
    internal void Move(List<DmaSegment> segments)
    {
        bool toGuest = _stage == ScsiStage.DataIn;
        long total = 0;
        foreach (var s in segments)
            total += s.Length;
        if (_isDirect)
        {
            _stage = ScsiStage.Working;
            IsMoving = true;
            Moved = 0;
            _request!.Tag = _generation;
            _request.ThenFlush = _flushAtEnd && total == Remaining;
            _request.Submit(toGuest ? DriveOperation.Read : DriveOperation.Write, _offset + _done, segments);
            return;
        }
        foreach (var s in segments)
        {
            var part = _buffer.AsSpan((int)_done, s.Length);
            if (toGuest)
            {
                part.CopyTo(s.Span);
                Services.Memory.Written(s.Guest, s.Length);
            }
            else
                s.Span.CopyTo(part);
            _done += s.Length;
        }
        Moved = total;
        if (Remaining > 0)
            return;
        if (toGuest)
            ReplyTaken();
        else
            ParametersTaken((int)_length);
    }

    private void Completed(DriveRequest request)
    {
        if (request.Tag != _generation)
            return;
        bool moved = IsMoving;
        IsMoving = false;
        if (request.Failure is { } failure)
        {
            bool isRead = request.Operation == DriveOperation.Read;
            if (!isRead && Drive.IsNoSpace(failure))
                Fail(DataProtect, 0x27, 7);     // space allocation failed
            else
                Fail(MediumError, isRead ? (byte)0x11 : (byte)0x0C);
        }
        else if (!moved)
            WorkDone();
        else
        {
            Moved = request.Length;
            _done += request.Length;
            if (Remaining == 0)
                Succeed();
            else
                _stage = request.Operation == DriveOperation.Read ? ScsiStage.DataIn : ScsiStage.DataOut;
        }
        if (_stage != ScsiStage.Working)
            Advanced?.Invoke();
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
        if ((_cdb[1] & 1) != 0)
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
        Reply(length, _cdb[4]);
    }

    private void Inquiry()
    {
        bool vital = (_cdb[1] & 1) != 0;
        int length = !vital && _cdb[2] != 0 ? -1 : MakeInquiry(vital ? _cdb[2] : -1);
        if (length < 0)
            Fail(IllegalRequest, 0x24);
        else
            Reply(length, BinaryPrimitives.ReadUInt16BigEndian(_cdb.AsSpan(3)));
    }

    private void ReportUnits()
    {
        var units = Siblings?.Invoke() ?? [];
        uint allocated = BinaryPrimitives.ReadUInt32BigEndian(_cdb.AsSpan(6));
        if (_cdb[2] > 2 || allocated < 16)
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
        state.Bytes("buffer", _buffer);
        state.Bytes("cdb", _cdb);
        state.Field("sense-key", ref _senseKey);
        state.Field("sense-code", ref _senseCode);
        state.Field("sense-qualifier", ref _senseQualifier);
        state.Field("attention-code", ref _attentionCode);
        state.Field("attention-qualifier", ref _attentionQualifier);
        state.Field("status", ref _status);
        // A transfer that is under way begins again.
        byte stage = (byte)(!IsMoving ? _stage : _request!.Operation == DriveOperation.Read ? ScsiStage.DataIn : ScsiStage.DataOut);
        state.Field("stage", ref stage);
        if (state.IsLoading)
            _stage = (ScsiStage)Math.Min(stage, (byte)ScsiStage.Complete);
        state.Field("direct", ref _isDirect);
        state.Field("flush-at-end", ref _flushAtEnd);
        state.Field("offset", ref _offset);
        state.Field("length", ref _length);
        state.Field("done", ref _done);
        // What comes from a file is not trusted with the buffer's bounds.
        if (state.IsLoading && (_done < 0 || _length < _done || (!_isDirect && _length > BufferSize)))
            Abandon();
    }
}
