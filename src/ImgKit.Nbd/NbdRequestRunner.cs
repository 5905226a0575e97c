using System.Diagnostics;
using ImgKit.Block;
using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;

namespace ImgKit.Nbd;

/// <summary>Carries requests of one connection out on one thread.</summary>
internal sealed unsafe class NbdRequestRunner : IDisposable
{
    private readonly NbdServerConnection _connection;
    private readonly NbdReplyWriter _replies;
    private readonly NbdReader _reader;
    private readonly NbdStatusReporter _status;
    private readonly NbdSession _session;
    private readonly NbdExport _export;
    private readonly BlockDevice _device;
    private readonly NativeBufferPool _buffers;

    public NbdRequestRunner(NbdServerConnection connection)
    {
        _connection = connection;
        _session = connection.Session;
        _export = _session.Export!;
        _device = _export.Device;
        _buffers = connection.Server.Buffers;
        _replies = new NbdReplyWriter(connection);
        _reader = new NbdReader(connection, _replies);
        _status = new NbdStatusReporter(connection, _replies);
    }

    /// <summary>Sends the replies that are held back.</summary>
    public void FlushReplies() => _replies.Flush();

    public void Dispose() => _replies.Dispose();

    /// <summary>Receives the payload of a request; one that is too long to be held is written as it comes.</summary>
    public void ReceivePayload(ref NbdRequest request, StreamTransport transport)
    {
        if (request.Length > NbdWire.MaxPayload)
        {
            // There is no telling where the next request would begin.
            _replies.Flush();
            _replies.Reply(request, NbdError.Invalid, "payload too long", hold: false);
            throw new IOException($"request with a payload of {request.Length} bytes");
        }
        int length = (int)request.Length;
        if (transport.Buffered < length)
            _replies.Flush();
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
            return _connection.ErrorOf(request, e);
        }
    }

    /// <summary>Carries a request out and replies.</summary>
    /// <param name="request">whose payload has come.</param>
    /// <param name="mayHoldReply">the reply may be sent together with those of the next requests.</param>
    public void Run(in NbdRequest request, bool mayHoldReply)
    {
        if (!mayHoldReply)
            _replies.Flush();
        if (request.Result is { } result)
        {
            _replies.Reply(request, result, "", mayHoldReply);
            return;
        }
        int error = CheckFlags(request);
        if (error == 0 && request.Command != NbdCommand.Flush)
            error = CheckRange(request);
        if (error != 0)
        {
            if (request.Payload is { } p)
                _buffers.Return(p);
            _replies.Reply(request, error, "", mayHoldReply);
            return;
        }
        switch (request.Command)
        {
            case NbdCommand.Read:
                _reader.Run(request, mayHoldReply);
                return;
            case NbdCommand.Write:
                Write(request, mayHoldReply);
                return;
            case NbdCommand.BlockStatus:
                _replies.Flush();
                _status.Run(request);
                return;
        }
        // The others may take long: what is done already should not wait for them.
        _replies.Flush();
        long start = Stopwatch.GetTimestamp();
        string text = "";
        try
        {
            Change(request);
        }
        catch (Exception e)
        {
            error = _connection.ErrorOf(request, e);
            text = e.Message;
        }
        _connection.NoteDuration(start);
        _replies.Reply(request, error, text, hold: false);
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
            error = _connection.ErrorOf(request, e);
            text = e.Message;
        }
        _buffers.Return(request.Payload!);
        _connection.NoteDuration(start);
        _replies.Reply(request, error, text, mayHoldReply);
    }
}
