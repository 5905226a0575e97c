using System.Buffers.Binary;
using ImgKit.Host;
using ImgKit.Host.Tls;

namespace ImgKit.Block.Protocols;

/// <summary>
/// A connection: bytes in both directions, in clear or through TLS. Receiving is buffered, yet long payloads go straight
/// into the memory of the one who wants them. One thread may receive while another sends.
/// </summary>
public sealed unsafe class StreamTransport : IDisposable
{
    private const int BufferLength = 16 << 10;

    private readonly HostSocket _socket;
    private readonly AlignedBuffer _buffer = new(BufferLength);
    private TlsConnection? _tls;
    private TimeSpan _timeout;
    private int _at;
    private int _end;

    /// <param name="socket">connected; owned.</param>
    public StreamTransport(HostSocket socket)
    {
        _socket = socket;
    }

    /// <summary>The socket below.</summary>
    public HostSocket Socket => _socket;

    /// <summary>Whether TLS is on.</summary>
    public bool IsEncrypted => _tls is not null;

    /// <summary>Bytes that have been received and not been taken.</summary>
    public int Buffered => _end - _at;

    /// <summary>Limits how long one receive and one send may wait; zero: no limit.</summary>
    public void SetTimeout(TimeSpan limit)
    {
        _timeout = limit;
        _socket.SetTimeout(limit);
        if (_tls is not null)
            _tls.Timeout = limit == TimeSpan.Zero ? -1 : (int)limit.TotalMilliseconds;
    }

    /// <summary>Everything from here on goes through TLS.</summary>
    /// <param name="start">does the handshake on the socket given.</param>
    /// <exception cref="IOException">the peer sent more before it was asked to: an attempt to smuggle it in.</exception>
    public void StartTls(Func<HostSocket, TlsConnection> start)
    {
        if (_at != _end)
            throw new IOException("data before the TLS handshake");
        _tls = start(_socket);
        SetTimeout(_timeout);
    }

    /// <summary>Fills all of <paramref name="destination"/>.</summary>
    /// <returns>false: the stream ended before the first byte.</returns>
    /// <exception cref="EndOfStreamException">it ended later.</exception>
    public bool TryReceive(Span<byte> destination)
    {
        bool first = true;
        while (!destination.IsEmpty)
        {
            if (_at == _end)
            {
                int n;
                if (destination.Length >= BufferLength)
                {
                    n = ReceiveSome(destination);
                    if (n > 0)
                        destination = destination[n..];
                }
                else
                {
                    _at = 0;
                    _end = 0;
                    n = ReceiveSome(_buffer.Span);
                    _end = n;
                }
                if (n == 0)
                    return first ? false : throw new EndOfStreamException("the connection was closed in the middle of a message");
                first = false;
                continue;
            }
            int have = Math.Min(_end - _at, destination.Length);
            _buffer.Span.Slice(_at, have).CopyTo(destination);
            _at += have;
            destination = destination[have..];
            first = false;
        }
        return true;
    }

    /// <summary>Fills all of <paramref name="destination"/>.</summary>
    /// <exception cref="EndOfStreamException">the stream ended.</exception>
    public void Receive(Span<byte> destination)
    {
        if (!TryReceive(destination))
            throw new EndOfStreamException("the connection was closed");
    }

    /// <summary>Receives and forgets.</summary>
    public void Skip(long count)
    {
        Span<byte> scratch = stackalloc byte[4096];
        while (count > 0)
        {
            int n = (int)Math.Min(count, scratch.Length);
            Receive(scratch[..n]);
            count -= n;
        }
    }

    /// <summary>A 16-bit number.</summary>
    public ushort ReceiveUInt16()
    {
        Span<byte> b = stackalloc byte[2];
        Receive(b);
        return BinaryPrimitives.ReadUInt16BigEndian(b);
    }

    /// <summary>A 32-bit number.</summary>
    public uint ReceiveUInt32()
    {
        Span<byte> b = stackalloc byte[4];
        Receive(b);
        return BinaryPrimitives.ReadUInt32BigEndian(b);
    }

    /// <summary>A 64-bit number.</summary>
    public ulong ReceiveUInt64()
    {
        Span<byte> b = stackalloc byte[8];
        Receive(b);
        return BinaryPrimitives.ReadUInt64BigEndian(b);
    }

    private int ReceiveSome(Span<byte> destination) => _tls is null ? _socket.Receive(destination) : _tls.Receive(destination);

    /// <summary>Sends.</summary>
    public void Send(ReadOnlySpan<byte> data)
    {
        if (_tls is null)
            _socket.Send(data);
        else
            _tls.Send(data);
    }

    /// <summary>Sends a header and what follows it.</summary>
    public void Send(ReadOnlySpan<byte> header, ReadOnlySpan<byte> payload)
    {
        if (_tls is null)
        {
            _socket.Send(header, payload);
            return;
        }
        _tls.Send(header);
        if (!payload.IsEmpty)
            _tls.Send(payload);
    }

    /// <summary>Sends a header and the pieces of memory that follow it.</summary>
    public void Send(ReadOnlySpan<byte> header, ReadOnlySpan<IoBuffer> payload)
    {
        if (_tls is not null)
        {
            _tls.Send(header);
            foreach (var b in payload)
                _tls.Send(b.Span);
            return;
        }
        while (payload.Length > 32)
        {
            SendPieces(header, payload[..32]);
            header = default;
            payload = payload[32..];
        }
        SendPieces(header, payload);
    }

    private void SendPieces(ReadOnlySpan<byte> header, ReadOnlySpan<IoBuffer> payload)
    {
        Span<(nint, int)> pieces = stackalloc (nint, int)[payload.Length];
        for (int i = 0; i < payload.Length; i++)
            pieces[i] = ((nint)payload[i].Address, payload[i].Length);
        _socket.SendVector(header, pieces);
    }

    /// <summary>Ends the connection: whoever waits in it gets an end of stream.</summary>
    public void Shutdown() => _socket.Shutdown();

    /// <inheritdoc/>
    public void Dispose()
    {
        _tls?.Dispose();
        _socket.Dispose();
        _buffer.Dispose();
    }
}
