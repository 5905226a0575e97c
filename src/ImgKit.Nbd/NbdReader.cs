using System.Buffers.Binary;
using System.Diagnostics;
using ImgKit.Block;
using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>Reads for one client on one thread: short ones in one message, holes without data, long ones in chunks.</summary>
internal sealed class NbdReader(NbdServerConnection connection, NbdReplyWriter replies)
{
    private const int MaxHeldData = 64 << 10;
    private const int MinSparseRead = 32 << 10;

    private readonly NbdServerConnection _connection = connection;
    private readonly NbdReplyWriter _replies = replies;
    private readonly NbdSession _session = connection.Session;
    private readonly NbdExport _export = connection.Session.Export!;
    private readonly BlockDevice _device = connection.Session.Export!.Device;
    private readonly NativeBufferPool _buffers = connection.Server.Buffers;

    /// <summary>Carries a read out and replies.</summary>
    public void Run(in NbdRequest request, bool mayHoldReply)
    {
        int length = (int)request.Length;
        if (_session.StructuredReplies && length >= MinSparseRead && TryReplyHole(request, mayHoldReply))
            return;
        if (length > NativeBufferPool.MaxPayload || (length == 0 && _session.StructuredReplies))
        {
            _replies.Flush();
            ReadLong(request);
            return;
        }
        int header = _session.DataHeaderLength;
        // Held replies stand one behind the other, where data cannot be aligned.
        bool hold = mayHoldReply && length <= MaxHeldData && _device.Limits.RequestAlignment <= 1;
        var buffer = hold ? null : _buffers.Rent(length + NativeBufferPool.Headroom);
        try
        {
            var message = hold ? _replies.Reserve(header + length) : buffer!.Span.Slice(NativeBufferPool.Headroom - header, header + length);
            long start = Stopwatch.GetTimestamp();
            try
            {
                _device.Read((long)request.Offset, message[header..]);
            }
            catch (Exception e)
            {
                _connection.NoteDuration(start);
                _replies.Reply(request, _connection.ErrorOf(request, e), e.Message, mayHoldReply);
                return;
            }
            _connection.NoteDuration(start);
            _replies.WriteDataHeader(message, request, (long)request.Offset, length, last: true);
            if (hold)
            {
                _replies.Hold(message.Length);
                return;
            }
            _replies.Send(message);
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
        int head = _replies.ChunkHeaderLength;
        Span<byte> message = stackalloc byte[NbdWire.ExtendedReplyLength + 12];
        message = message[..(head + 12)];
        _replies.WriteChunkHeader(message, request, NbdChunkType.OffsetHole, 12, last: true);
        BinaryPrimitives.WriteUInt64BigEndian(message[head..], request.Offset);
        BinaryPrimitives.WriteUInt32BigEndian(message[(head + 8)..], (uint)request.Length);
        _replies.Emit(message, mayHoldReply);
        return true;
    }

    /// <summary>A read that is longer than a buffer: in chunks, or, where it must be one piece, piece by piece under one header.</summary>
    private void ReadLong(NbdRequest request)
    {
        if (request.Length == 0)
        {
            _replies.Reply(request, 0, "", hold: false);
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
                        _replies.Reply(request, _connection.ErrorOf(request, e), e.Message, hold: false);
                        return;
                    }
                    _replies.WriteDataHeader(message, request, (long)(request.Offset + done), n, done + (ulong)n == request.Length);
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
                _replies.Reply(request, _connection.ErrorOf(request, e), e.Message, hold: false);
                return;
            }
            _replies.WriteDataHeader(first, request, (long)request.Offset, (long)request.Length, last: true);
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
}
