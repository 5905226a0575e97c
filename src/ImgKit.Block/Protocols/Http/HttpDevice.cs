using ImgKit.Host;
using ImgKit.Host.Tls;

namespace ImgKit.Block.Protocols.Http;

/// <summary>What reading by HTTP can be told.</summary>
internal sealed record HttpSettings
{
    /// <summary>Bytes fetched at a time for small reads; a multiple of 512.</summary>
    public int ReadAhead { get; init; } = 256 << 10;

    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(5);

    public TlsContext? Tls { get; init; }

    /// <summary>Header lines, each with its end; or null.</summary>
    public string? ExtraHeaders { get; init; }
}

/// <summary>
/// A resource of a web server as a read-only disk. Small reads are served from blocks in memory, of which there is a limited number; who
/// reads one block after the other has several fetched at a time. Large reads go straight into the caller's memory.
/// </summary>
internal sealed class HttpDevice : BlockDevice
{
    private const long CacheBytes = 16 << 20;
    private const int BlocksAhead = 4;
    private const int MaxIdleConnections = 8;
    private const int MaxRedirections = 10;
    private const int Attempts = 3;

    private readonly HttpSettings _settings;
    private readonly HttpAddress _address;
    private readonly Stack<HttpConnection> _idle = new();
    private readonly Dictionary<long, LinkedListNode<(long Index, byte[] Data)>> _blocks = [];
    private readonly LinkedList<(long Index, byte[] Data)> _recent = new();
    private readonly Lock _gate = new();
    private long _lastBlock = -2;

    public HttpDevice(string url, HttpSettings settings)
    {
        _settings = settings;
        FileName = url;
        _address = HttpAddress.Parse(url);
        for (int i = 0; ; i++)
        {
            using var connection = Connect();
            var response = connection.Ask(0, 1);
            if (response.Status is 301 or 302 or 303 or 307 or 308 && response.Location is { } location && i < MaxRedirections)
            {
                bool wasTls = _address.Tls;
                _address = _address.Resolve(location);
                if (wasTls != _address.Tls)
                    throw Failed(wasTls ? "the server redirects from https to http" : $"the server redirects to https: use https://{_address.Authority}{_address.Path}");
                continue;
            }
            if (response.Status == 200)
                throw Failed("CURL: Error opening file: Server does not support 'range' (byte ranges).");
            // An empty resource has no first byte.
            if (response is { Status: 416, Total: 0 })
                return;
            if (response.Status != 206)
                throw Failed($"CURL: Error opening file: The requested URL returned error: {response.Status}", response.Status is 404 or 410 ? 2 : 5);
            Length = response.Total > 0 ? response.Total : throw Failed("CURL: Error opening file: Server didn't report file size.");
            return;
        }
    }

    public override string DriverName => _address.Tls ? "https" : "http";

    public override long Length { get; }

    public override bool IsReadOnly => true;

    public override BlockLimits Limits => new(1, 1 << 20, 0, 1);

    public override long AllocatedHostBytes => -1;

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        int block = _settings.ReadAhead;
        while (!destination.IsEmpty)
        {
            long index = offset / block;
            int skip = (int)(offset % block);
            if (skip == 0 && destination.Length >= 2 * block)
            {
                int whole = destination.Length / block * block;
                Fetch(offset, destination[..whole]);
                Note(index + whole / block - 1);
                offset += whole;
                destination = destination[whole..];
                continue;
            }
            byte[] data = GetBlock(index);
            int n = Math.Min(destination.Length, data.Length - skip);
            data.AsSpan(skip, n).CopyTo(destination);
            offset += n;
            destination = destination[n..];
        }
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) =>
        throw new ImageException(ImageErrorKind.ReadOnly, "what is read by HTTP cannot be written", FileName) { Errno = 30 };

    public override void Flush() { }

    private byte[] GetBlock(long index)
    {
        bool sequential;
        lock (_gate)
        {
            sequential = index == _lastBlock + 1;
            _lastBlock = index;
            if (_blocks.TryGetValue(index, out var node))
            {
                _recent.Remove(node);
                _recent.AddFirst(node);
                return node.Value.Data;
            }
        }
        int block = _settings.ReadAhead;
        long start = index * block;
        long count = Math.Min((long)block * (sequential ? BlocksAhead : 1), Length - start);
        byte[] data = new byte[count];
        Fetch(start, data);
        byte[] first = data;
        lock (_gate)
        {
            for (int at = 0, i = 0; at < data.Length; at += block, i++)
            {
                byte[] piece = data.Length <= block ? data : data[at..Math.Min(at + block, data.Length)];
                if (i == 0)
                    first = piece;
                if (!_blocks.ContainsKey(index + i))
                    _blocks[index + i] = _recent.AddFirst((index + i, piece));
            }
            while ((long)_blocks.Count * block > CacheBytes)
            {
                _blocks.Remove(_recent.Last!.Value.Index);
                _recent.RemoveLast();
            }
        }
        return first;
    }

    private void Note(long index)
    {
        lock (_gate)
            _lastBlock = index;
    }

    /// <summary>Fetches a range; a connection that the server has closed meanwhile is replaced.</summary>
    private void Fetch(long offset, Span<byte> destination)
    {
        for (int attempt = 1; ; attempt++)
        {
            HttpConnection? connection = null;
            try
            {
                // After a failure the idle ones are no better: the server may have closed them all.
                connection = attempt == 1 ? TakeConnection() : Connect();
                var response = connection.Ask(offset, destination.Length);
                if (response.Status != 206 || response.RangeStart != offset || response.Length != destination.Length || response.Total != Length)
                {
                    connection.Dispose();
                    throw Failed(response.Status == 206 ? "the server sent another range than it was asked for, or the file has changed"
                        : $"The requested URL returned error: {response.Status}");
                }
                connection.Receive(destination);
                GiveBack(connection, response.Close);
                return;
            }
            catch (IOException e)
            {
                connection?.Dispose();
                if (attempt == Attempts)
                    throw new ImageException(ImageErrorKind.Io, "Input/output error", FileName, offset, e)
                    {
                        Errno = 5,
                        Operation = $"read of {destination.Length} bytes: {e.Message}",
                    };
            }
        }
    }

    private HttpConnection TakeConnection()
    {
        lock (_gate)
            if (_idle.TryPop(out var c))
                return c;
        return Connect();
    }

    private void GiveBack(HttpConnection connection, bool close)
    {
        lock (_gate)
        {
            if (!close && _idle.Count < MaxIdleConnections)
            {
                _idle.Push(connection);
                return;
            }
        }
        connection.Dispose();
    }

    private HttpConnection Connect()
    {
        try
        {
            return HttpConnection.Open(_address, _settings.Tls, _settings.ExtraHeaders, _settings.Timeout);
        }
        catch (HostException e)
        {
            throw Failed($"CURL: Error opening file: Failed to connect to {_address.Host} port {_address.Port}: {e.Message}");
        }
        catch (AddressException)
        {
            throw Failed($"CURL: Error opening file: Could not resolve host: {_address.Host}");
        }
    }

    private ImageException Failed(string message, int errno = 5) => new(ImageErrorKind.Io, message, FileName) { Errno = errno };

    protected override void Dispose(bool disposing)
    {
        lock (_gate)
        {
            while (_idle.TryPop(out var c))
                c.Dispose();
            _settings.Tls?.Dispose();
        }
    }
}
