using System.Buffers.Binary;
using System.Diagnostics;
using ImgKit.Block;
using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>
/// A client. At any time at most one thread receives its requests. Whether that thread then carries the request out itself
/// before it receives the next one, or first has another thread receive, depends on how long requests took of late, and on
/// whether the client has sent more already; <see cref="NbdWatcher"/> corrects a wrong guess.
/// </summary>
internal sealed class NbdServerConnection
{
    private const int MaxWorkers = 16;

    // What the receiver's role is.
    private const int Free = 0;
    private const int Receiving = 1;
    private const int Lent = 2;

    /// <summary>Requests that take longer than this are worth waking a thread for, in nanoseconds.</summary>
    private const long SlowNanoseconds = 60_000;

    private readonly NbdServer _server;
    private readonly StreamTransport _transport;
    private readonly NbdSession _session = new();
    private readonly Lock _sending = new();
    private int _role = Receiving;
    private int _workers = 1;
    private long _averageNanoseconds;
    private uint _sequence;
    private uint _seenSequence;
    private volatile bool _closing;

    public NbdServerConnection(NbdServer server, HostSocket socket)
    {
        _server = server;
        _transport = new StreamTransport(socket);
    }

    public NbdServer Server => _server;

    public NbdSession Session => _session;

    /// <summary>Ends the connection from outside.</summary>
    public void Shutdown()
    {
        _closing = true;
        _transport.Shutdown();
    }

    /// <summary>Serves the client until it leaves; the first thread of a connection.</summary>
    public void Run()
    {
        try
        {
            if (new NbdNegotiation(_server, _transport).Run(_session))
            {
                Work();
                return;
            }
        }
        catch (Exception e)
        {
            Report("option negotiation failed", e);
        }
        _closing = true;
        Leave();
    }

    /// <summary>A thread that comes to help: receives if nobody does.</summary>
    private void Join()
    {
        if (TryTake(Free))
            Work();
        else
            Leave();
    }

    /// <summary>The thread has the receiver's role.</summary>
    private void Work()
    {
        using (var runner = new NbdRequestRunner(this))
        {
            try
            {
                Work(runner);
            }
            catch (Exception e)
            {
                // Whatever it is, it is this client's trouble and nobody else's.
                if (!_closing)
                    Report("connection lost", e);
                Shutdown();
            }
        }
        Leave();
    }

    private void Work(NbdRequestRunner runner)
    {
        while (!_closing)
        {
            if (_transport.Buffered < _session.RequestLength)
                runner.FlushReplies();
            if (!TryReceive(runner, out var request))
            {
                runner.FlushReplies();
                _closing = true;
                Interlocked.Exchange(ref _role, Free);
                return;
            }
            if (Volatile.Read(ref _averageNanoseconds) > SlowNanoseconds && MoreIsThere())
            {
                Interlocked.Exchange(ref _role, Free);
                StartAnother();
                runner.Run(request, mayHoldReply: false);
                if (!TryTake(Free))
                    return;
                continue;
            }
            _sequence++;
            // Seen by the watcher before it is asked whether it watches: a request that is not fast must not be passed over by both.
            Interlocked.Exchange(ref _role, Lent);
            _server.Watcher.Notice();
            runner.Run(request, mayHoldReply: true);
            if (Interlocked.CompareExchange(ref _role, Receiving, Lent) == Lent)
                continue;
            // It took long, and somebody else receives meanwhile.
            runner.FlushReplies();
            if (!TryTake(Free))
                return;
        }
    }

    private bool MoreIsThere() => _transport.Buffered >= _session.RequestLength || _transport.Socket.WaitReadable(0);

    private bool TryTake(int from) => Volatile.Read(ref _role) == from && Interlocked.CompareExchange(ref _role, Receiving, from) == from;

    private void StartAnother()
    {
        if (Interlocked.Increment(ref _workers) > MaxWorkers)
            Interlocked.Decrement(ref _workers);
        else
            _server.Workers.Start(Join);
    }

    /// <summary>Called every now and then from the watcher's thread.</summary>
    /// <returns>whether a request is being carried out by the thread that has the receiver's role.</returns>
    public bool Watch()
    {
        if (Volatile.Read(ref _role) != Lent)
            return false;
        uint sequence = _sequence;
        if (sequence == _seenSequence && !_closing && Interlocked.CompareExchange(ref _role, Free, Lent) == Lent)
            StartAnother();
        _seenSequence = sequence;
        return true;
    }

    /// <summary>Takes note of how long the device took.</summary>
    public void NoteDuration(long startTimestamp)
    {
        long ns = (long)Stopwatch.GetElapsedTime(startTimestamp).TotalNanoseconds;
        long average = Volatile.Read(ref _averageNanoseconds);
        // A request that waited for something must not count as much as a thousand that did not.
        Volatile.Write(ref _averageNanoseconds, average + (Math.Min(ns, 1_000_000) - average) / 16);
    }

    /// <summary>Receives a request, and a payload that is not too long to be held.</summary>
    /// <returns>false: the client leaves.</returns>
    private bool TryReceive(NbdRequestRunner runner, out NbdRequest request)
    {
        request = default;
        Span<byte> header = stackalloc byte[NbdWire.ExtendedRequestLength];
        header = header[.._session.RequestLength];
        if (!_transport.TryReceive(header))
            return false;
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(header);
        if (magic != (_session.ExtendedHeaders ? NbdWire.ExtendedRequestMagic : NbdWire.RequestMagic))
            throw new IOException($"invalid magic 0x{magic:x8} of a request");
        request = new NbdRequest
        {
            Flags = (NbdCommandFlags)BinaryPrimitives.ReadUInt16BigEndian(header[4..]),
            Command = (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(header[6..]),
            Cookie = BinaryPrimitives.ReadUInt64BigEndian(header[8..]),
            Offset = BinaryPrimitives.ReadUInt64BigEndian(header[16..]),
            Length = _session.ExtendedHeaders ? BinaryPrimitives.ReadUInt64BigEndian(header[24..]) : BinaryPrimitives.ReadUInt32BigEndian(header[24..]),
        };
        if (request.Command == NbdCommand.Disconnect)
            return false;
        bool payload = request.Command == NbdCommand.Write
            || (_session.ExtendedHeaders && (request.Flags & NbdCommandFlags.PayloadLength) != 0);
        if (payload)
            runner.ReceivePayload(ref request, _transport);
        return true;
    }

    /// <summary>Sends a complete message.</summary>
    public void Send(ReadOnlySpan<byte> message)
    {
        lock (_sending)
            _transport.Send(message);
    }

    /// <summary>Sends a message that comes in parts, none of others in between.</summary>
    public void SendParts(Action<StreamTransport> parts)
    {
        lock (_sending)
            parts(_transport);
    }

    /// <summary>The number on the wire for what went wrong with a request; it is logged, too.</summary>
    public int ErrorOf(in NbdRequest request, Exception e)
    {
        _server.Log?.Invoke($"{request.Command} of {request.Length} bytes at offset {request.Offset} failed: {e.Message}");
        return NbdError.ToWire(ErrorNumbers.Of(e));
    }

    public void Report(string what, Exception e) => _server.Log?.Invoke($"{what}: {e.Message}");

    private void Leave()
    {
        if (Interlocked.Decrement(ref _workers) > 0)
            return;
        if (!_closing && TryTake(Free))
        {
            // The last one out found the role free: nobody else would ever receive again.
            Interlocked.Increment(ref _workers);
            Work();
            return;
        }
        _transport.Shutdown();
        _transport.Dispose();
        _server.Left(this);
    }
}
