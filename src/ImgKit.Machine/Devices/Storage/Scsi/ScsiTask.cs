using System.Runtime.InteropServices;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>What a task wants of the bus next.</summary>
internal enum ScsiStage : byte
{
    /// <summary>Nothing: it is being worked on, or has to wait for others.</summary>
    Working,

    /// <summary>It has data for the initiator.</summary>
    DataIn,

    /// <summary>It takes data from the initiator.</summary>
    DataOut,

    /// <summary>It has ended; <see cref="ScsiTask.Status"/> says how.</summary>
    Complete,
}

/// <summary>How a task stands among the others of its unit (SAM-3, 8.6: task attributes).</summary>
internal enum ScsiTaskOrder : byte
{
    /// <summary>At any time.</summary>
    Simple,

    /// <summary>After all before it, and before all behind it.</summary>
    Ordered,

    /// <summary>At once.</summary>
    HeadOfQueue,
}

/// <summary>A command and what has become of it. Reused by its unit.</summary>
internal sealed class ScsiTask : IStateful
{
    /// <summary>Bytes of the buffer for replies and parameters.</summary>
    internal const int BufferSize = 1 << 16;

    /// <summary>Pieces of memory that a transfer may have while the task is away from the bus.</summary>
    internal const int MostPieces = 4096;

    private readonly byte[] _cdb = new byte[16];
    private readonly List<DmaSegment> _pieces = [];
    private byte[]? _buffer;
    private ScsiStage _stage;
    private ScsiTaskOrder _order;
    private byte _status;
    private int _tag;

    internal ScsiTask(ScsiUnit unit, MachineServices services, Drive? drive)
    {
        Unit = unit;
        Services = services;
        if (drive != null)
            Request = new DriveRequest(services, drive, r => Unit.Completed(this, r));
    }

    internal ScsiUnit Unit { get; }

    private MachineServices Services { get; }

    /// <summary>Its request to the block layer; null for a unit without a medium.</summary>
    internal DriveRequest? Request { get; }

    /// <summary>The command block.</summary>
    internal Span<byte> Cdb => _cdb;

    /// <summary>Replies are made, and parameters arrive, here.</summary>
    internal byte[] Buffer => _buffer ??= GC.AllocateArray<byte>(BufferSize, pinned: true);

    /// <summary>What comes next.</summary>
    internal ScsiStage Stage
    {
        get => _stage;
        set => _stage = value;
    }

    /// <summary>How it ended.</summary>
    internal byte Status
    {
        get => _status;
        set => _status = value;
    }

    /// <summary>The initiator's tag; -1: it has none.</summary>
    internal int Tag
    {
        get => _tag;
        private set => _tag = value;
    }

    internal ScsiTaskOrder Order => _order;

    /// <summary>It waits for other tasks before it begins.</summary>
    internal bool IsBlocked;

    /// <summary>Forgotten by the initiator: what it has given to the block layer goes on.</summary>
    internal bool IsAborted;

    /// <summary>Data goes between the drive and memory, not through the buffer.</summary>
    internal bool IsDirect;

    /// <summary>The medium is flushed behind the data.</summary>
    internal bool FlushAtEnd;

    /// <summary>Place on the medium, bytes of data, and how many of them are moved.</summary>
    internal long Offset, Length, Done;

    /// <summary>Sense data for when it has failed.</summary>
    internal byte SenseKey, SenseCode, SenseQualifier;

    /// <summary>Progress of commands that take several requests.</summary>
    internal long At, Left;

    /// <summary>Progress of commands that take several requests.</summary>
    internal int Range, Ranges, Filled;

    /// <summary>Which of them it is.</summary>
    internal bool IsUnmapping, IsFilling, IsRaw;

    /// <summary>A <see cref="Move"/> is under way, for which the bus waits.</summary>
    internal bool IsMoving { get; private set; }

    /// <summary>Bytes that the last <see cref="Move"/> has moved: all, or none when it failed.</summary>
    internal long Moved { get; private set; }

    /// <summary>Bytes of data that it has still to move.</summary>
    internal long Remaining => Length - Done;

    /// <summary>Begins anew.</summary>
    internal void Reset(ReadOnlySpan<byte> cdb, int tag, ScsiTaskOrder order)
    {
        _cdb.AsSpan().Clear();
        cdb[..Math.Min(cdb.Length, 16)].CopyTo(_cdb);
        Tag = tag;
        _order = order;
        _stage = ScsiStage.Working;
        _status = 0;
        Offset = Length = Done = Moved = At = Left = 0;
        Range = Ranges = Filled = 0;
        IsBlocked = IsAborted = IsDirect = FlushAtEnd = IsMoving = IsUnmapping = IsFilling = IsRaw = false;
        SenseKey = SenseCode = SenseQualifier = 0;
        _pieces.Clear();
    }

    /// <summary>Gives a request to the block layer.</summary>
    internal void Submit(DriveOperation operation, long offset, long length, bool mayUnmap) => Submit(operation, offset, length, false, mayUnmap);

    /// <summary>As the other one, with the first bytes of the buffer.</summary>
    internal void Submit(DriveOperation operation, long offset, int length) => Submit(operation, offset, length, true, false);

    private void Submit(DriveOperation operation, long offset, long length, bool withBuffer, bool mayUnmap)
    {
        _stage = ScsiStage.Working;
        (_operation, _requestOffset, _requestLength, _requestHasBuffer, _mayUnmap) = ((byte)operation, offset, length, withBuffer, mayUnmap);
        Submitted = Services.Clock.Now;
        Request!.ThenFlush = false;
        Request.MayUnmap = mayUnmap;
        if (withBuffer)
            Request.Submit(operation, offset, Buffer, 0, (int)length);
        else
            Request.Submit(operation, offset, length);
    }

    /// <summary>When its last request was made.</summary>
    internal long Submitted { get; private set; }

    // The last request without memory of the initiator.
    private byte _operation;
    private long _requestOffset, _requestLength;
    private bool _requestHasBuffer, _mayUnmap;

    /// <summary>Makes the request again that was under way when its state was saved.</summary>
    internal void Restart()
    {
        if (Request == null)
            return;
        if (!IsDirect)
        {
            Submit((DriveOperation)_operation, _requestOffset, _requestLength, _requestHasBuffer, _mayUnmap);
            return;
        }
        Request.ThenFlush = FlushAtEnd;
        Request.Submit(_isRead ? DriveOperation.Read : DriveOperation.Write, Offset, _pieces);
    }

    private bool _isRead;

    /// <summary>Moves the next data of the command. When <see cref="IsMoving"/> is true afterwards, the unit tells the end.</summary>
    /// <param name="segments">guest memory, not longer than <see cref="Remaining"/>.</param>
    /// <param name="mayLeave">the bus need not wait: data of the medium is moved by and by, before the command ends, once all of its memory is known.</param>
    internal void Move(List<DmaSegment> segments, bool mayLeave)
    {
        bool toGuest = _stage == ScsiStage.DataIn;
        long total = 0;
        foreach (var s in segments)
            total += s.Length;
        if (IsDirect)
        {
            long pending = 0;
            foreach (var s in _pieces)
                pending += s.Length;
            _pieces.AddRange(segments);
            bool all = total == Remaining;
            if (mayLeave && !all && _pieces.Count < MostPieces)
            {
                Done += total;
                Moved = total;
                return;
            }
            long start = Offset + Done - pending;
            _isRead = toGuest;
            _stage = ScsiStage.Working;
            IsMoving = !mayLeave || !all;
            Moved = IsMoving ? 0 : total;
            Submitted = Services.Clock.Now;
            Request!.ThenFlush = FlushAtEnd && all;
            Request.Submit(toGuest ? DriveOperation.Read : DriveOperation.Write, start, _pieces);
            if (IsMoving)
                _pieces.Clear();
            else
                Done += total;
            _moving = total;
            return;
        }
        foreach (var s in segments)
        {
            var part = Buffer.AsSpan((int)Done, s.Length);
            if (toGuest)
            {
                part.CopyTo(s.Span);
                Services.Memory.Written(s.Guest, s.Length);
            }
            else
                s.Span.CopyTo(part);
            Done += s.Length;
        }
        Moved = total;
        if (Remaining == 0)
            Unit.DataEnded(this, toGuest);
    }

    private long _moving;

    /// <summary>The bus need not wait any more. Returns whether it has waited.</summary>
    internal bool EndMove(bool failed)
    {
        bool was = IsMoving;
        IsMoving = false;
        _pieces.Clear();
        if (was && !failed)
        {
            Moved = _moving;
            Done += _moving;
        }
        return was;
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        state.Bytes("cdb", _cdb);
        state.Field("tag", ref _tag);
        byte order = (byte)_order, stage = (byte)_stage;
        // A transfer that the bus waits for begins again.
        if (IsMoving)
            stage = (byte)(Request!.Operation == DriveOperation.Read ? ScsiStage.DataIn : ScsiStage.DataOut);
        state.Field("order", ref order);
        state.Field("stage", ref stage);
        state.Field("status", ref _status);
        state.Field("blocked", ref IsBlocked);
        state.Field("direct", ref IsDirect);
        state.Field("flush-at-end", ref FlushAtEnd);
        state.Field("offset", ref Offset);
        state.Field("length", ref Length);
        state.Field("done", ref Done);
        state.Field("sense-key", ref SenseKey);
        state.Field("sense-code", ref SenseCode);
        state.Field("sense-qualifier", ref SenseQualifier);
        state.Field("at", ref At);
        state.Field("left", ref Left);
        state.Field("range", ref Range);
        state.Field("ranges", ref Ranges);
        state.Field("filled", ref Filled);
        state.Field("unmapping", ref IsUnmapping);
        state.Field("filling", ref IsFilling);
        state.Field("raw", ref IsRaw);
        state.Field("is-read", ref _isRead);
        state.Field("operation", ref _operation);
        state.Field("request-offset", ref _requestOffset);
        state.Field("request-length", ref _requestLength);
        state.Field("request-has-buffer", ref _requestHasBuffer);
        state.Field("may-unmap", ref _mayUnmap);
        bool hasBuffer = _buffer != null;
        state.Field("has-buffer", ref hasBuffer);
        if (hasBuffer)
            state.Bytes("buffer", Buffer);
        if (!state.IsLoading)
        {
            DescribePieces(state);
            return;
        }
        _order = (ScsiTaskOrder)Math.Min(order, (byte)ScsiTaskOrder.HeadOfQueue);
        _stage = (ScsiStage)Math.Min(stage, (byte)ScsiStage.Complete);
        IsMoving = false;
        DescribePieces(state);
        // What comes from a file is not trusted with the buffer's bounds.
        Ranges = Math.Clamp(Ranges, 0, BufferSize / 16 - 1);
        Range = Math.Clamp(Range, 0, Ranges);
        Filled = Math.Clamp(Filled, 0, BufferSize);
        long medium = Unit.MediumLength;
        IsAborted |= Offset < 0 || Done < 0 || Length < Done || (!IsDirect && Length > BufferSize) || (IsDirect && Offset > medium - Length)
            || _operation > (byte)DriveOperation.WriteZeroes || _requestOffset < 0 || _requestLength < 0 || _requestOffset > medium - _requestLength
            || (_requestHasBuffer && _requestLength > BufferSize);
    }

    // The memory that an unfinished transfer is for: places and lengths.
    private void DescribePieces(StateVisitor state)
    {
        int count = _pieces.Count;
        state.Field("pieces", ref count);
        var places = new ulong[2 * Math.Clamp(count, 0, 2 * MostPieces)];
        for (int i = 0; i < _pieces.Count && !state.IsLoading; i++)
            (places[2 * i], places[2 * i + 1]) = (_pieces[i].Guest, (ulong)_pieces[i].Length);
        state.Bytes("memory", MemoryMarshal.AsBytes(places.AsSpan()));
        if (!state.IsLoading)
            return;
        _pieces.Clear();
        for (int i = 0; i < places.Length; i += 2)
            IsAborted |= places[i + 1] > int.MaxValue || !Services.Memory.TryAdd(_pieces, places[i], (long)places[i + 1], _isRead);
        long total = 0;
        foreach (var piece in _pieces)
            total += piece.Length;
        IsAborted |= _pieces.Count > 0 && total != Done;
    }
}
