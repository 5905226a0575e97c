using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using ImgKit.Block;
using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>Carries requests of one connection out on one thread, and holds replies back while more requests are there, to
/// send several at a time.</summary>
internal sealed unsafe class NbdRequestRunner : IDisposable
{
    private const int BatchLength = 256 << 10;
    private const int MaxHeldData = 64 << 10;
    private const int MinSparseRead = 32 << 10;
    private const int MaxExtents = 16 << 10;

    private readonly NbdServerConnection _connection;
    private readonly NbdSession _session;
    private readonly NbdExport _export;
    private readonly BlockDevice _device;
    private readonly NativeBufferPool _buffers;
    private AlignedBuffer? _batch;
    private int _held;

    public NbdRequestRunner(NbdServerConnection connection)
    {
        _connection = connection;
        _session = connection.Session;
        _export = _session.Export!;
        _device = _export.Device;
        _buffers = connection.Server.Buffers;
    }

    /// <summary>Sends the replies that are held back.</summary>
    public void FlushReplies()
    {
        if (_held == 0)
            return;
        int n = _held;
        _held = 0;
        _connection.Send(_batch!.Span[..n]);
    }

    public void Dispose()
    {
        if (_batch is not null)
            _buffers.Return(_batch);
        _batch = null;
    }

    /// <summary>Receives the payload of a request; one that is too long to be held is written as it comes.</summary>
    public void ReceivePayload(ref NbdRequest request, StreamTransport transport)
    {
        if (request.Length > NbdWire.MaxPayload)
        {
            // There is no telling where the next request would begin.
            FlushReplies();
            Reply(request, NbdError.Invalid, "payload too long", hold: false);
            throw new IOException($"request with a payload of {request.Length} bytes");
        }
        int length = (int)request.Length;
        if (transport.Buffered < length)
            FlushReplies();
        int error = request.Command == NbdCommand.Write ? CheckRange(request) : NbdError.Invalid;
        if (error != 0)
        {
            transport.Skip(length);
            request.Result = error;
            return;
        }
        if (length <= NativeBufferPool.MaxPayload)
        {
            var buffer = _buffers.Rent(length + NativeBufferPool.Headroom);
            try
            {
                transport.Receive(buffer.Span.Slice(NativeBufferPool.Headroom, length));
            }
            catch
            {
                _buffers.Return(buffer);
                throw;
            }
            request.Payload = buffer;
            return;
        }
        request.Result = WriteAsItComes(request, transport);
    }

    private int WriteAsItComes(in NbdRequest request, StreamTransport transport)
    {
        var buffer = _buffers.Rent(NativeBufferPool.MaxLength);
        int error = 0;
        try
        {
            long done = 0, length = (long)request.Length, offset = (long)request.Offset;
            while (done < length)
            {
                int n = (int)Math.Min(NativeBufferPool.MaxPayload, length - done);
                var piece = buffer.Span.Slice(NativeBufferPool.Headroom, n);
                transport.Receive(piece);
                if (error == 0)
                    error = Try(request, d => d.Write(offset + done, new ReadOnlySpan<byte>(buffer.Pointer + NativeBufferPool.Headroom, n)));
                done += n;
            }
            if (error == 0 && (request.Flags & NbdCommandFlags.Fua) != 0)
                error = Try(request, static d => d.Flush());
        }
        finally
        {
            _buffers.Return(buffer);
        }
        return error;
    }

    private int Try(in NbdRequest request, Action<BlockDevice> action)
    {
        try
        {
            action(_device);
            return 0;
        }
        catch (Exception e)
        {
            return ErrorOf(request, e);
        }
    }

    /// <summary>Carries a request out and replies.</summary>
    /// <param name="request">whose payload has come.</param>
    /// <param name="mayHoldReply">the reply may be sent together with those of the next requests.</param>
    public void Run(in NbdRequest request, bool mayHoldReply)
    {
        if (!mayHoldReply)
            FlushReplies();
        if (request.Result is { } result)
        {
            Reply(request, result, "", mayHoldReply);
            return;
        }
        int error = CheckFlags(request);
        if (error == 0 && request.Command != NbdCommand.Flush)
            error = CheckRange(request);
        if (error != 0)
        {
            if (request.Payload is { } p)
                _buffers.Return(p);
            Reply(request, error, "", mayHoldReply);
            return;
        }
        switch (request.Command)
        {
            case NbdCommand.Read:
                Read(request, mayHoldReply);
                return;
            case NbdCommand.Write:
                Write(request, mayHoldReply);
                return;
            case NbdCommand.BlockStatus:
                FlushReplies();
                BlockStatus(request);
                return;
        }
        // The others may take long: what is done already should not wait for them.
        FlushReplies();
        long start = Stopwatch.GetTimestamp();
        string text = "";
        try
        {
            Change(request);
        }
        catch (Exception e)
        {
            error = ErrorOf(request, e);
            text = e.Message;
        }
        _connection.NoteDuration(start);
        Reply(request, error, text, hold: false);
    }

    private int CheckFlags(in NbdRequest request)
    {
        var allowed = NbdCommandFlags.Fua;
        switch (request.Command)
        {
            case NbdCommand.Read when _session.StructuredReplies:
                allowed |= NbdCommandFlags.DontFragment;
                break;
            case NbdCommand.WriteZeroes:
                allowed |= NbdCommandFlags.NoHole | NbdCommandFlags.FastZero;
                break;
            case NbdCommand.BlockStatus:
                allowed |= NbdCommandFlags.RequestOne;
                break;
            case NbdCommand.Write when _session.ExtendedHeaders:
                allowed |= NbdCommandFlags.PayloadLength;
                break;
            case NbdCommand.Read or NbdCommand.Write or NbdCommand.Flush or NbdCommand.Trim or NbdCommand.Cache:
                break;
            default:
                return NbdError.Invalid;
        }
        return (request.Flags & ~allowed) == 0 ? 0 : NbdError.Invalid;
    }

    private int CheckRange(in NbdRequest request)
    {
        bool changes = request.Command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim;
        if (changes && _export.ReadOnly)
            return NbdError.NotPermitted;
        if (request.Command is NbdCommand.Read or NbdCommand.Write or NbdCommand.Cache && request.Length > NbdWire.MaxPayload)
            return NbdError.Invalid;
        ulong size = (ulong)_device.Length;
        if (request.Offset > size || request.Length > size - request.Offset)
            return request.Command is NbdCommand.Write or NbdCommand.WriteZeroes ? NbdError.NoSpace : NbdError.Invalid;
        return 0;
    }

    private void Change(in NbdRequest request)
    {
        long offset = (long)request.Offset, length = (long)request.Length;
        switch (request.Command)
        {
            case NbdCommand.Flush:
                _device.Flush();
                return;
            case NbdCommand.Trim:
                if (length > 0)
                    _device.Discard(offset, length);
                break;
            case NbdCommand.WriteZeroes:
                if (length > 0)
                    _device.WriteZeroes(offset, length, ((request.Flags & NbdCommandFlags.NoHole) == 0 ? ZeroOptions.MayUnmap : 0)
                        | ((request.Flags & NbdCommandFlags.FastZero) != 0 ? ZeroOptions.NoFallback : 0));
                break;
            case NbdCommand.Cache:
                Cache(offset, length);
                return;
        }
        if ((request.Flags & NbdCommandFlags.Fua) != 0)
            _device.Flush();
    }

    /// <summary>Reading brings it where reading again is fast.</summary>
    private void Cache(long offset, long length)
    {
        var buffer = _buffers.Rent(NativeBufferPool.MaxLength);
        try
        {
            while (length > 0)
            {
                int n = (int)Math.Min(length, NativeBufferPool.MaxPayload);
                _device.Read(offset, buffer.Span[..n]);
                offset += n;
                length -= n;
            }
        }
        finally
        {
            _buffers.Return(buffer);
        }
    }

    private void Write(in NbdRequest request, bool mayHoldReply)
    {
        int error = 0;
        string text = "";
        long start = Stopwatch.GetTimestamp();
        try
        {
            _device.Write((long)request.Offset, request.Payload!.Span.Slice(NativeBufferPool.Headroom, (int)request.Length));
            if ((request.Flags & NbdCommandFlags.Fua) != 0)
                _device.Flush();
        }
        catch (Exception e)
        {
            error = ErrorOf(request, e);
            text = e.Message;
        }
        _buffers.Return(request.Payload!);
        _connection.NoteDuration(start);
        Reply(request, error, text, mayHoldReply);
    }

    private void Read(in NbdRequest request, bool mayHoldReply)
    {
        int length = (int)request.Length;
        if (_session.StructuredReplies && length >= MinSparseRead && TryReplyHole(request, mayHoldReply))
            return;
        if (length > NativeBufferPool.MaxPayload || (length == 0 && _session.StructuredReplies))
        {
            FlushReplies();
            ReadLong(request);
            return;
        }
        int header = _session.DataHeaderLength;
        // Held replies stand one behind the other, where data cannot be aligned.
        bool hold = mayHoldReply && length <= MaxHeldData && _device.Limits.RequestAlignment <= 1;
        var buffer = hold ? null : _buffers.Rent(length + NativeBufferPool.Headroom);
        try
        {
            var message = hold ? Reserve(header + length) : buffer!.Span.Slice(NativeBufferPool.Headroom - header, header + length);
            long start = Stopwatch.GetTimestamp();
            try
            {
                _device.Read((long)request.Offset, message[header..]);
            }
            catch (Exception e)
            {
                _connection.NoteDuration(start);
                Reply(request, ErrorOf(request, e), e.Message, mayHoldReply);
                return;
            }
            _connection.NoteDuration(start);
            WriteDataHeader(message, request, (long)request.Offset, length, last: true);
            if (hold)
            {
                _held += message.Length;
                return;
            }
            FlushReplies();
            _connection.Send(message);
        }
        finally
        {
            if (buffer is not null)
                _buffers.Return(buffer);
        }
    }

    /// <summary>A read of nothing but zeroes need not carry them.</summary>
    private bool TryReplyHole(in NbdRequest request, bool mayHoldReply)
    {
        try
        {
            var (length, flags) = _export.GetStatus(NbdExport.AllocationId, (long)request.Offset, (long)request.Length);
            if (length < (long)request.Length || (flags & (uint)NbdAllocation.Zero) == 0)
                return false;
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            // Reading it will tell what is wrong.
            return false;
        }
        int head = _session.ExtendedHeaders ? NbdWire.ExtendedReplyLength : NbdWire.StructuredReplyLength;
        Span<byte> message = stackalloc byte[NbdWire.ExtendedReplyLength + 12];
        message = message[..(head + 12)];
        WriteChunkHeader(message, request, NbdChunkType.OffsetHole, 12, last: true);
        BinaryPrimitives.WriteUInt64BigEndian(message[head..], request.Offset);
        BinaryPrimitives.WriteUInt32BigEndian(message[(head + 8)..], (uint)request.Length);
        Emit(message, mayHoldReply);
        return true;
    }

    /// <summary>A read that is longer than a buffer: in chunks, or, where it must be one piece, piece by piece under one header.</summary>
    private void ReadLong(NbdRequest request)
    {
        if (request.Length == 0)
        {
            Reply(request, 0, "", hold: false);
            return;
        }
        var buffer = _buffers.Rent(NativeBufferPool.MaxLength);
        try
        {
            int header = _session.DataHeaderLength;
            if (_session.StructuredReplies && (request.Flags & NbdCommandFlags.DontFragment) == 0)
            {
                for (ulong done = 0; done < request.Length;)
                {
                    int n = (int)Math.Min(NativeBufferPool.MaxPayload, request.Length - done);
                    var message = buffer.Span.Slice(NativeBufferPool.Headroom - header, header + n);
                    try
                    {
                        _device.Read((long)(request.Offset + done), message[header..]);
                    }
                    catch (Exception e)
                    {
                        Reply(request, ErrorOf(request, e), e.Message, hold: false);
                        return;
                    }
                    WriteDataHeader(message, request, (long)(request.Offset + done), n, done + (ulong)n == request.Length);
                    _connection.Send(message);
                    done += (ulong)n;
                }
                return;
            }
            var first = buffer.Span.Slice(NativeBufferPool.Headroom - header, header + NativeBufferPool.MaxPayload);
            try
            {
                _device.Read((long)request.Offset, first[header..]);
            }
            catch (Exception e)
            {
                Reply(request, ErrorOf(request, e), e.Message, hold: false);
                return;
            }
            WriteDataHeader(first, request, (long)request.Offset, (long)request.Length, last: true);
            _connection.SendParts(transport => SendLong(transport, request, buffer, header));
        }
        finally
        {
            _buffers.Return(buffer);
        }
    }

    private void SendLong(StreamTransport transport, NbdRequest request, AlignedBuffer buffer, int header)
    {
        transport.Send(buffer.Span.Slice(NativeBufferPool.Headroom - header, header + NativeBufferPool.MaxPayload));
        for (ulong done = NativeBufferPool.MaxPayload; done < request.Length;)
        {
            int n = (int)Math.Min(NativeBufferPool.MaxPayload, request.Length - done);
            var piece = buffer.Span.Slice(NativeBufferPool.Headroom, n);
            // After the header there is no way to report an error but to end the connection.
            _device.Read((long)(request.Offset + done), piece);
            transport.Send(piece);
            done += (ulong)n;
        }
    }

    private void BlockStatus(in NbdRequest request)
    {
        if (_session.Contexts.Count == 0 || request.Length == 0)
        {
            Reply(request, NbdError.Invalid, "no metadata context was agreed on, or no range given", hold: false);
            return;
        }
        var buffer = _buffers.Rent(MaxExtents * 16 + NativeBufferPool.Headroom);
        long start = Stopwatch.GetTimestamp();
        try
        {
            for (int i = 0; i < _session.Contexts.Count; i++)
            {
                Span<byte> message;
                try
                {
                    message = StatusChunk(request, _session.Contexts[i], buffer.Span, i == _session.Contexts.Count - 1);
                }
                catch (Exception e)
                {
                    Reply(request, ErrorOf(request, e), e.Message, hold: false);
                    return;
                }
                _connection.Send(message);
            }
        }
        finally
        {
            _connection.NoteDuration(start);
            _buffers.Return(buffer);
        }
    }

    private Span<byte> StatusChunk(scoped in NbdRequest request, uint context, Span<byte> buffer, bool last)
    {
        bool extended = _session.ExtendedHeaders;
        int head = extended ? NbdWire.ExtendedReplyLength : NbdWire.StructuredReplyLength;
        int entry = extended ? 16 : 8;
        int first = head + (extended ? 8 : 4);
        int count = 0;
        long offset = (long)request.Offset, end = offset + (long)request.Length;
        // A length has 32 bits, whole blocks.
        long maxLength = extended ? long.MaxValue : uint.MaxValue & ~0xffffL;
        int max = (request.Flags & NbdCommandFlags.RequestOne) != 0 ? 1 : MaxExtents / 2;
        long pending = 0;
        uint pendingFlags = 0;
        while (offset < end)
        {
            var (length, flags) = _export.GetStatus(context, offset, Math.Min(end - offset, maxLength));
            if (pending > 0 && (flags != pendingFlags || pending > maxLength - length))
            {
                Put(buffer);
                if (count == max)
                    break;
            }
            pendingFlags = flags;
            pending += length;
            offset += length;
        }
        if (pending > 0)
            Put(buffer);
        var message = buffer[..(first + entry * count)];
        WriteChunkHeader(message, request, extended ? NbdChunkType.BlockStatusExtended : NbdChunkType.BlockStatus, message.Length - head, last);
        BinaryPrimitives.WriteUInt32BigEndian(message[head..], context);
        if (extended)
            BinaryPrimitives.WriteUInt32BigEndian(message[(head + 4)..], (uint)count);
        return message;

        void Put(Span<byte> b)
        {
            var e = b[(first + entry * count)..];
            if (extended)
            {
                BinaryPrimitives.WriteUInt64BigEndian(e, (ulong)pending);
                BinaryPrimitives.WriteUInt64BigEndian(e[8..], pendingFlags);
            }
            else
            {
                BinaryPrimitives.WriteUInt32BigEndian(e, (uint)pending);
                BinaryPrimitives.WriteUInt32BigEndian(e[4..], pendingFlags);
            }
            count++;
            pending = 0;
        }
    }

    private void WriteDataHeader(Span<byte> message, in NbdRequest request, long offset, long length, bool last)
    {
        if (!_session.StructuredReplies)
        {
            BinaryPrimitives.WriteUInt32BigEndian(message, NbdWire.SimpleReplyMagic);
            BinaryPrimitives.WriteUInt32BigEndian(message[4..], 0);
            BinaryPrimitives.WriteUInt64BigEndian(message[8..], request.Cookie);
            return;
        }
        WriteChunkHeader(message, request, NbdChunkType.OffsetData, length + 8, last);
        BinaryPrimitives.WriteUInt64BigEndian(message[(_session.DataHeaderLength - 8)..], (ulong)offset);
    }

    private void WriteChunkHeader(Span<byte> message, scoped in NbdRequest request, NbdChunkType type, long length, bool last)
    {
        BinaryPrimitives.WriteUInt32BigEndian(message, _session.ExtendedHeaders ? NbdWire.ExtendedReplyMagic : NbdWire.StructuredReplyMagic);
        BinaryPrimitives.WriteUInt16BigEndian(message[4..], (ushort)(last ? 1 : 0));
        BinaryPrimitives.WriteUInt16BigEndian(message[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(message[8..], request.Cookie);
        if (_session.ExtendedHeaders)
        {
            BinaryPrimitives.WriteUInt64BigEndian(message[16..], request.Offset);
            BinaryPrimitives.WriteUInt64BigEndian(message[24..], (ulong)length);
        }
        else
        {
            BinaryPrimitives.WriteUInt32BigEndian(message[16..], (uint)length);
        }
    }

    /// <summary>A reply without data.</summary>
    private void Reply(in NbdRequest request, int error, string text, bool hold)
    {
        Span<byte> message = stackalloc byte[256];
        int length;
        bool structured = _session.ExtendedHeaders || (_session.StructuredReplies
            && (request.Command is NbdCommand.Read or NbdCommand.BlockStatus || error != 0));
        if (!structured)
        {
            BinaryPrimitives.WriteUInt32BigEndian(message, NbdWire.SimpleReplyMagic);
            BinaryPrimitives.WriteUInt32BigEndian(message[4..], (uint)error);
            BinaryPrimitives.WriteUInt64BigEndian(message[8..], request.Cookie);
            length = NbdWire.SimpleReplyLength;
        }
        else
        {
            int head = _session.ExtendedHeaders ? NbdWire.ExtendedReplyLength : NbdWire.StructuredReplyLength;
            int body = 0;
            if (error != 0)
            {
                if (text.Length > 60)
                    text = text[..60];
                int n = Encoding.UTF8.GetBytes(text, message[(head + 6)..]);
                BinaryPrimitives.WriteUInt32BigEndian(message[head..], (uint)error);
                BinaryPrimitives.WriteUInt16BigEndian(message[(head + 4)..], (ushort)n);
                body = 6 + n;
            }
            WriteChunkHeader(message, request, error == 0 ? NbdChunkType.None : NbdChunkType.Error, body, last: true);
            length = head + body;
        }
        Emit(message[..length], hold);
    }

    private void Emit(ReadOnlySpan<byte> message, bool hold)
    {
        if (!hold)
        {
            FlushReplies();
            _connection.Send(message);
            return;
        }
        message.CopyTo(Reserve(message.Length));
        _held += message.Length;
    }

    /// <summary>Room behind the replies that are held back.</summary>
    private Span<byte> Reserve(int length)
    {
        _batch ??= _buffers.Rent(BatchLength);
        if (_held + length > _batch.Length)
            FlushReplies();
        return _batch.Span.Slice(_held, length);
    }

    private int ErrorOf(in NbdRequest request, Exception e)
    {
        _connection.Server.Log?.Invoke($"{request.Command} of {request.Length} bytes at offset {request.Offset} failed: {e.Message}");
        return NbdError.ToWire(ErrorNumbers.Of(e));
    }
}
