using System.Buffers.Binary;
using System.Text;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>The replies of one thread to one client. They are held back while more requests are there, to send several at a
/// time.</summary>
internal sealed class NbdReplyWriter : IDisposable
{
    private const int BatchLength = 256 << 10;
    private const int MaxErrorText = 60;

    private readonly NbdServerConnection _connection;
    private readonly NbdSession _session;
    private readonly NativeBufferPool _buffers;
    private AlignedBuffer? _batch;
    private int _held;

    public NbdReplyWriter(NbdServerConnection connection)
    {
        _connection = connection;
        _session = connection.Session;
        _buffers = connection.Server.Buffers;
    }

    /// <summary>Bytes of a chunk's header.</summary>
    public int ChunkHeaderLength => _session.ExtendedHeaders ? NbdWire.ExtendedReplyLength : NbdWire.StructuredReplyLength;

    /// <summary>Sends the replies that are held back.</summary>
    public void Flush()
    {
        if (_held == 0)
            return;
        int n = _held;
        _held = 0;
        _connection.Send(_batch!.Span[..n]);
    }

    /// <summary>Sends a complete message, behind those that are held back.</summary>
    public void Send(ReadOnlySpan<byte> message)
    {
        Flush();
        _connection.Send(message);
    }

    /// <summary>Writes what stands in front of the data of a read.</summary>
    public void WriteDataHeader(Span<byte> message, in NbdRequest request, long offset, long length, bool last)
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

    /// <summary>Writes a chunk's header.</summary>
    /// <param name="message">its place, at the start.</param>
    /// <param name="request">that is replied to.</param>
    /// <param name="type">of the chunk.</param>
    /// <param name="length">of what follows, in bytes.</param>
    /// <param name="last">no chunk of this reply follows.</param>
    public void WriteChunkHeader(Span<byte> message, scoped in NbdRequest request, NbdChunkType type, long length, bool last)
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
    public void Reply(in NbdRequest request, int error, string text, bool hold)
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
            int head = ChunkHeaderLength;
            int body = 0;
            if (error != 0)
            {
                if (text.Length > MaxErrorText)
                    text = text[..MaxErrorText];
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

    /// <summary>Sends a message, or holds it back.</summary>
    public void Emit(ReadOnlySpan<byte> message, bool hold)
    {
        if (!hold)
        {
            Send(message);
            return;
        }
        message.CopyTo(Reserve(message.Length));
        Hold(message.Length);
    }

    /// <summary>Room behind the replies that are held back.</summary>
    public Span<byte> Reserve(int length)
    {
        _batch ??= _buffers.Rent(BatchLength);
        if (_held + length > _batch.Length)
            Flush();
        return _batch.Span.Slice(_held, length);
    }

    /// <summary>What has been put into the room that was reserved last is a message now.</summary>
    public void Hold(int length) => _held += length;

    public void Dispose()
    {
        if (_batch is not null)
            _buffers.Return(_batch);
        _batch = null;
    }
}
