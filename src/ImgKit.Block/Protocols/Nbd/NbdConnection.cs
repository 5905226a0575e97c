using System.Buffers.Binary;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>A connection is broken (or the server broke the rules): nothing more can be had from it.</summary>
public sealed class NbdConnectionLostException(string message, Exception? inner = null) : IOException(message, inner);

/// <summary>
/// Requests on one connection. Any number of threads call <see cref="Execute"/>; each sends its own request and then, if nobody
/// else does, receives replies for all until its own has come: there is no thread in between, and a payload goes
/// from the socket into the memory of the one who asked.
/// </summary>
internal sealed unsafe class NbdConnection : IDisposable
{
    private const int SlotCount = 128;
    private const int MaxStatusPayload = 16 << 20;

    private readonly StreamTransport _transport;
    private readonly NbdAgreement _agreement;
    private readonly Slot[] _slots = new Slot[SlotCount];
    private readonly Stack<Slot> _free = new(SlotCount);
    private readonly Lock _sending = new();
    private int _receiving;
    private volatile Exception? _broken;

    public NbdConnection(StreamTransport transport, NbdAgreement agreement)
    {
        _transport = transport;
        _agreement = agreement;
        for (int i = SlotCount - 1; i >= 0; i--)
            _free.Push(_slots[i] = new Slot((uint)i));
    }

    /// <summary>No request can succeed any more.</summary>
    public bool IsBroken => _broken is not null;

    /// <summary>Requests that wait for replies, about.</summary>
    public int InFlight => SlotCount - _free.Count;

    /// <summary>What was agreed on.</summary>
    public NbdAgreement Agreement => _agreement;

    /// <summary>A request and its result.</summary>
    public ref struct Request
    {
        public NbdCommand Command;
        public NbdCommandFlags Flags;
        public long Offset;
        public long Length;

        /// <summary>Memory of a read or write; its lengths add up to <see cref="Length"/>.</summary>
        public ReadOnlySpan<IoBuffer> Buffers;

        /// <summary>The most of a read or write of one buffer that goes into a request, in bytes; 0: it is one request.</summary>
        public int Piece;

        /// <summary>Receives the extents of a block status.</summary>
        public List<NbdExtent>? Extents;
    }

    /// <summary>Carries a request out.</summary>
    /// <returns>0, or the error number that the server reported.</returns>
    /// <exception cref="NbdConnectionLostException">the connection is gone; whether the request was done is not known.</exception>
    public int Execute(scoped in Request request)
    {
        if (request.Piece > 0 && request.Length > request.Piece)
            return ExecutePieces(request);
        Span<byte> header = stackalloc byte[NbdWire.ExtendedRequestLength];
        var window = new SlotWindow();
        var slots = ((Span<Slot>)window)[..1];
        Take(slots);
        try
        {
            fixed (IoBuffer* buffers = request.Buffers)
            {
                int n = Begin(slots[0], request, buffers, header);
                Send(header[..n], request.Command == NbdCommand.Write ? request.Buffers : []);
                Wait(slots[0]);
                return ErrorOf(slots[0], 0) is var error and >= 0 ? error : throw Lost();
            }
        }
        finally
        {
            Release(slots);
        }
    }

    /// <summary>A long read or write as several requests, a few of them in flight at a time: a server need not hold it all
    /// at once, and starts on the next one while this one is on its way.</summary>
    private int ExecutePieces(scoped in Request request)
    {
        Span<byte> headers = stackalloc byte[NbdWire.ExtendedRequestLength * SlotWindow.Length];
        IoBuffer* buffers = stackalloc IoBuffer[SlotWindow.Length];
        byte* memory = (byte*)request.Buffers[0].Address;
        long pieces = (request.Length + request.Piece - 1) / request.Piece;
        var window = new SlotWindow();
        var slots = ((Span<Slot>)window)[..(int)Math.Min(pieces, SlotWindow.Length)];
        Take(slots);
        try
        {
            int error = 0, unsent = 0;
            long begun = 0, ended = 0;
            for (; begun < pieces && error == 0; begun++)
            {
                int index = (int)(begun % slots.Length);
                if (begun - ended == slots.Length)
                {
                    Send(headers[..unsent], []);
                    unsent = 0;
                    Wait(slots[index]);
                    error = ErrorOf(slots[index], error);
                    ended++;
                }
                long at = begun * request.Piece;
                int length = (int)Math.Min(request.Piece, request.Length - at);
                buffers[index] = new IoBuffer(memory + at, length);
                unsent += Begin(slots[index], new Request
                {
                    Command = request.Command,
                    Flags = request.Flags,
                    Offset = request.Offset + at,
                    Length = length,
                    Buffers = new ReadOnlySpan<IoBuffer>(buffers + index, 1),
                }, buffers + index, headers[unsent..]);
                if (request.Command != NbdCommand.Write)
                    continue;
                Send(headers[..unsent], new ReadOnlySpan<IoBuffer>(buffers + index, 1));
                unsent = 0;
            }
            Send(headers[..unsent], []);
            // Nobody may write into the memory any more when this returns: all are waited for, whatever became of the first.
            for (; ended < begun; ended++)
            {
                Wait(slots[(int)(ended % slots.Length)]);
                error = ErrorOf(slots[(int)(ended % slots.Length)], error);
            }
            return error >= 0 ? error : throw Lost();
        }
        finally
        {
            Release(slots);
        }
    }

    /// <summary>Readies a slot for a request.</summary>
    /// <returns>the length of its header.</returns>
    private int Begin(Slot slot, scoped in Request request, IoBuffer* buffers, Span<byte> header)
    {
        slot.Begin(request, buffers);
        return WriteHeader(header, request, slot.Cookie);
    }

    private void Send(ReadOnlySpan<byte> headers, ReadOnlySpan<IoBuffer> payload)
    {
        if (headers.IsEmpty)
            return;
        try
        {
            lock (_sending)
            {
                if (_broken is null)
                    _transport.Send(headers, payload);
            }
        }
        catch (IOException e)
        {
            Break(e);
        }
    }

    /// <summary>The error so far or else that of a slot that is done; -1: the connection is lost.</summary>
    private static int ErrorOf(Slot slot, int error) => slot.Lost ? -1 : error != 0 ? error : slot.Error;

    private NbdConnectionLostException Lost() => new(_broken?.Message ?? "the connection is closed", _broken);

    private int WriteHeader(Span<byte> header, scoped in Request request, ulong cookie)
    {
        BinaryPrimitives.WriteUInt16BigEndian(header[6..], (ushort)request.Command);
        BinaryPrimitives.WriteUInt64BigEndian(header[8..], cookie);
        BinaryPrimitives.WriteUInt64BigEndian(header[16..], (ulong)request.Offset);
        var flags = request.Flags;
        if (_agreement.ExtendedHeaders)
        {
            if (request.Command == NbdCommand.Write)
                flags |= NbdCommandFlags.PayloadLength;
            BinaryPrimitives.WriteUInt32BigEndian(header, NbdWire.ExtendedRequestMagic);
            BinaryPrimitives.WriteUInt16BigEndian(header[4..], (ushort)flags);
            BinaryPrimitives.WriteUInt64BigEndian(header[24..], (ulong)request.Length);
            return NbdWire.ExtendedRequestLength;
        }
        BinaryPrimitives.WriteUInt32BigEndian(header, NbdWire.RequestMagic);
        BinaryPrimitives.WriteUInt16BigEndian(header[4..], (ushort)flags);
        BinaryPrimitives.WriteUInt32BigEndian(header[24..], checked((uint)request.Length));
        return NbdWire.RequestLength;
    }

    /// <summary>Takes slots, all at once: who held some and waited for more could wait for ever.</summary>
    private void Take(Span<Slot> slots)
    {
        lock (_free)
        {
            while (_free.Count < slots.Length)
                Monitor.Wait(_free);
            foreach (ref var s in slots)
                s = _free.Pop();
        }
    }

    private void Release(ReadOnlySpan<Slot> slots)
    {
        foreach (var s in slots)
            s.End();
        lock (_free)
        {
            foreach (var s in slots)
                _free.Push(s);
            Monitor.PulseAll(_free);
        }
    }

    /// <summary>Returns when the slot's request is done or lost.</summary>
    private void Wait(Slot slot)
    {
        while (true)
        {
            if (_broken is { } broken && !slot.IsDone && TryBecomeReceiver())
            {
                // Nobody receives, nobody will.
                LoseAll(broken);
                StopReceiving();
            }
            if (slot.IsDone)
                return;
            if (TryBecomeReceiver())
            {
                ReceiveFor(slot);
                StopReceiving();
                continue;
            }
            // Announce the wait, then look again: the receiver may have stopped in between, before it could see it.
            slot.AnnounceWait();
            if (!slot.IsDone && TryBecomeReceiver())
            {
                slot.CancelWait();
                ReceiveFor(slot);
                StopReceiving();
                continue;
            }
            slot.WaitForSignal();
        }
    }

    private bool TryBecomeReceiver() => Volatile.Read(ref _receiving) == 0 && Interlocked.CompareExchange(ref _receiving, 1, 0) == 0;

    /// <summary>Gives the receiver's role back, and wakes somebody who waits, to take it.</summary>
    private void StopReceiving()
    {
        Interlocked.Exchange(ref _receiving, 0);
        foreach (var s in _slots)
            if (s.TryWakeWaiting())
                return;
    }

    private void ReceiveFor(Slot own)
    {
        try
        {
            while (!own.IsDone && _broken is null)
                ReceiveReply();
        }
        catch (IOException e)
        {
            Break(e);
        }
        if (_broken is { } broken)
            LoseAll(broken);
    }

    private void Break(Exception e)
    {
        Interlocked.CompareExchange(ref _broken, e, null);
        // Wakes a receiver that waits in the socket; it then tells all others.
        _transport.Shutdown();
    }

    private void LoseAll(Exception e)
    {
        foreach (var s in _slots)
            s.Lose();
    }

    private void ReceiveReply()
    {
        Span<byte> header = stackalloc byte[NbdWire.ExtendedReplyLength];
        _transport.Receive(header[..4]);
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(header);
        if (magic == NbdWire.SimpleReplyMagic && !_agreement.ExtendedHeaders)
        {
            _transport.Receive(header[4..NbdWire.SimpleReplyLength]);
            ReceiveSimple(header);
        }
        else if (magic == NbdWire.StructuredReplyMagic && _agreement.StructuredReplies && !_agreement.ExtendedHeaders)
        {
            _transport.Receive(header[4..NbdWire.StructuredReplyLength]);
            ReceiveChunk(header, BinaryPrimitives.ReadUInt32BigEndian(header[16..]));
        }
        else if (magic == NbdWire.ExtendedReplyMagic && _agreement.ExtendedHeaders)
        {
            _transport.Receive(header[4..]);
            ulong length = BinaryPrimitives.ReadUInt64BigEndian(header[24..]);
            ReceiveChunk(header, length <= uint.MaxValue ? (uint)length : throw Broken($"chunk of {length} bytes"));
        }
        else
        {
            throw Broken($"invalid magic 0x{magic:x8} in a reply");
        }
    }

    private Slot Find(ulong cookie)
    {
        uint index = (uint)cookie;
        if (index >= SlotCount || !_slots[index].IsWaitingFor(cookie))
            throw Broken("reply to a request that was not made");
        return _slots[index];
    }

    private void ReceiveSimple(ReadOnlySpan<byte> header)
    {
        uint error = BinaryPrimitives.ReadUInt32BigEndian(header[4..]);
        var slot = Find(BinaryPrimitives.ReadUInt64BigEndian(header[8..]));
        if (error != 0)
        {
            slot.Fail(NbdError.FromWire(error));
        }
        else if (slot.Command == NbdCommand.Read)
        {
            if (_agreement.StructuredReplies)
                throw Broken("simple reply to a read, though structured ones were agreed on");
            ReceiveInto(slot, 0, slot.Length);
        }
        else if (slot.Command == NbdCommand.BlockStatus)
        {
            throw Broken("simple reply to a block status request");
        }
        slot.Complete();
    }

    private void ReceiveChunk(ReadOnlySpan<byte> header, uint length)
    {
        bool last = (BinaryPrimitives.ReadUInt16BigEndian(header[4..]) & 1) != 0;
        var type = (NbdChunkType)BinaryPrimitives.ReadUInt16BigEndian(header[6..]);
        var slot = Find(BinaryPrimitives.ReadUInt64BigEndian(header[8..]));
        switch (type)
        {
            case NbdChunkType.None:
                if (length != 0 || !last)
                    throw Broken("empty chunk that is not empty or not the last");
                break;
            case NbdChunkType.OffsetData when slot.Command == NbdCommand.Read:
                if (length <= 8)
                    throw Broken("data chunk without data");
                ReceiveInto(slot, TakeOffset(slot, length - 8), length - 8);
                break;
            case NbdChunkType.OffsetHole when slot.Command == NbdCommand.Read:
                if (length != 12)
                    throw Broken("hole chunk of a wrong length");
                ulong at = _transport.ReceiveUInt64();
                uint hole = _transport.ReceiveUInt32();
                slot.Zero(CheckPart(slot, at, hole), hole);
                break;
            case NbdChunkType.BlockStatus when slot.Command == NbdCommand.BlockStatus && !_agreement.ExtendedHeaders:
                ReceiveStatus(slot, length, extended: false);
                break;
            case NbdChunkType.BlockStatusExtended when slot.Command == NbdCommand.BlockStatus && _agreement.ExtendedHeaders:
                ReceiveStatus(slot, length, extended: true);
                break;
            case NbdChunkType.Error or NbdChunkType.ErrorOffset:
                ReceiveError(slot, type, length);
                break;
            default:
                if ((ushort)type < 0x8000)
                    throw Broken($"unexpected chunk of type {(ushort)type}");
                ReceiveError(slot, NbdChunkType.Error, length);
                break;
        }
        if (!last)
            return;
        if (slot.Error == 0 && slot.Command == NbdCommand.Read && !slot.IsCovered)
            throw Broken("the reply to a read lacks data");
        if (slot.Error == 0 && slot.Command == NbdCommand.BlockStatus && slot.Extents is { Count: 0 })
            throw Broken("the reply to a block status request tells no extent");
        slot.Complete();
    }

    private long TakeOffset(Slot slot, long length) => CheckPart(slot, _transport.ReceiveUInt64(), length);

    /// <summary>The place in the request of a part of the export that a chunk tells of.</summary>
    private static long CheckPart(Slot slot, ulong offset, long length)
    {
        long relative = unchecked((long)(offset - (ulong)slot.Offset));
        if (length == 0 || relative < 0 || relative > slot.Length - length || !slot.Cover(relative, length))
            throw Broken("chunk outside of what was asked for, or told twice");
        return relative;
    }

    private void ReceiveInto(Slot slot, long at, long length)
    {
        while (length > 0)
        {
            var piece = slot.Memory(at, length);
            _transport.Receive(piece);
            at += piece.Length;
            length -= piece.Length;
        }
    }

    private void ReceiveError(Slot slot, NbdChunkType type, uint length)
    {
        int tail = type == NbdChunkType.ErrorOffset ? 8 : 0;
        if (length < 6 + tail || length > 6 + NbdWire.MaxString + 8)
            throw Broken("error chunk of a wrong length");
        uint error = _transport.ReceiveUInt32();
        ushort text = _transport.ReceiveUInt16();
        if (text > length - 6 - tail || error == 0)
            throw Broken("malformed error chunk");
        _transport.Skip(length - 6);
        slot.Fail(NbdError.FromWire(error));
    }

    private void ReceiveStatus(Slot slot, uint length, bool extended)
    {
        int entry = extended ? 16 : 8;
        int head = extended ? 8 : 4;
        if (length < head + entry || (length - head) % entry != 0 || length > MaxStatusPayload)
            throw Broken("block status chunk of a wrong length");
        if (_transport.ReceiveUInt32() != _agreement.AllocationContext)
            throw Broken("block status for a context that was not agreed on");
        long count = (length - head) / entry;
        if (extended && _transport.ReceiveUInt32() != count)
            throw Broken("block status chunk whose count does not fit");
        var extents = slot.Extents;
        if (extents is null || extents.Count > 0)
            throw Broken("block status told twice");
        long total = 0;
        for (long i = 0; i < count; i++)
        {
            ulong n = extended ? _transport.ReceiveUInt64() : _transport.ReceiveUInt32();
            ulong flags = extended ? _transport.ReceiveUInt64() : _transport.ReceiveUInt32();
            if (n == 0 || n > long.MaxValue)
                throw Broken("extent of an impossible length");
            // The last one may reach further than asked for; those behind are none of ours.
            if (total >= slot.Length)
                continue;
            long take = Math.Min((long)n, slot.Length - total);
            extents.Add(new NbdExtent(take, (uint)flags));
            total += take;
        }
    }

    private static NbdConnectionLostException Broken(string what) => new($"the NBD server broke the protocol: {what}");

    public void Dispose()
    {
        try
        {
            if (_broken is null)
            {
                Span<byte> header = stackalloc byte[NbdWire.ExtendedRequestLength];
                header.Clear();
                int n = WriteHeader(header, new Request { Command = NbdCommand.Disconnect }, 0);
                lock (_sending)
                    _transport.Send(header[..n]);
            }
        }
        catch (IOException)
        {
            // It is gone already, which is what was wanted.
            _broken = new EndOfStreamException();
        }
        _transport.Dispose();
    }
}

/// <summary>A part of a block status reply.</summary>
/// <param name="Length">bytes.</param>
/// <param name="Flags">of the context.</param>
internal readonly record struct NbdExtent(long Length, uint Flags);
