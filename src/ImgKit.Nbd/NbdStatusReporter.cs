using System.Buffers.Binary;
using System.Diagnostics;
using ImgKit.Block.Protocols.Nbd;

namespace ImgKit.Nbd;

/// <summary>Tells a client the status of ranges in the contexts that were agreed on.</summary>
internal sealed class NbdStatusReporter(NbdServerConnection connection, NbdReplyWriter replies)
{
    private const int MaxExtents = 16 << 10;

    private readonly NbdServerConnection _connection = connection;
    private readonly NbdReplyWriter _replies = replies;
    private readonly NbdSession _session = connection.Session;
    private readonly NbdExport _export = connection.Session.Export!;
    private readonly NativeBufferPool _buffers = connection.Server.Buffers;

    /// <summary>Replies to a block status request: a chunk for each context that was agreed on.</summary>
    public void Run(in NbdRequest request)
    {
        if (_session.Contexts.Count == 0 || request.Length == 0)
        {
            _replies.Reply(request, NbdError.Invalid, "no metadata context was agreed on, or no range given", hold: false);
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
                    _replies.Reply(request, _connection.ErrorOf(request, e), e.Message, hold: false);
                    return;
                }
                _replies.Send(message);
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
        int head = _replies.ChunkHeaderLength;
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
        _replies.WriteChunkHeader(message, request, extended ? NbdChunkType.BlockStatusExtended : NbdChunkType.BlockStatus, message.Length - head, last);
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
}
