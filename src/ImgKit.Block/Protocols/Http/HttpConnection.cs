using System.Globalization;
using System.Text;
using ImgKit.Host;
using ImgKit.Host.Tls;

namespace ImgKit.Block.Protocols.Http;

/// <summary>The head of a response.</summary>
/// <param name="Status">for example 206.</param>
/// <param name="Length">bytes of the body, or -1.</param>
/// <param name="RangeStart">first byte of the resource that the body has, or -1.</param>
/// <param name="Total">bytes of the resource, or -1.</param>
/// <param name="Location">where it has moved to, or null.</param>
/// <param name="Close">the server closes the connection afterwards.</param>
internal sealed record HttpResponse(int Status, long Length, long RangeStart, long Total, string? Location, bool Close);

/// <summary>A connection to a web server: requests for ranges, one after the other (RFC 9110, 9112).</summary>
internal sealed class HttpConnection : IDisposable
{
    private const int MaxHead = 64 << 10;

    private readonly StreamTransport _transport;
    private readonly HttpAddress _address;
    private readonly string? _extraHeaders;

    private HttpConnection(StreamTransport transport, HttpAddress address, string? extraHeaders)
    {
        _transport = transport;
        _address = address;
        _extraHeaders = extraHeaders;
    }

    /// <summary>Connects.</summary>
    public static HttpConnection Open(HttpAddress address, TlsContext? tls, string? extraHeaders, TimeSpan timeout)
    {
        var transport = new StreamTransport(HostSocket.ConnectTcp(address.Host, address.Port.ToString(CultureInfo.InvariantCulture)));
        try
        {
            transport.SetTimeout(timeout);
            if (address.Tls)
                transport.StartTls(s => TlsConnection.Start(tls!, s, address.Host, timeout));
            return new HttpConnection(transport, address, extraHeaders);
        }
        catch
        {
            transport.Dispose();
            throw;
        }
    }

    /// <summary>Asks for a range; the body is to be received next.</summary>
    /// <param name="offset">first byte.</param>
    /// <param name="count">bytes, at least 1.</param>
    public HttpResponse Ask(long offset, long count)
    {
        string request = string.Create(CultureInfo.InvariantCulture, $"GET {_address.Path} HTTP/1.1\r\nHost: {_address.Authority}\r\n")
            + string.Create(CultureInfo.InvariantCulture, $"Range: bytes={offset}-{offset + count - 1}\r\n")
            + $"User-Agent: ImgKit\r\nAccept: */*\r\nAccept-Encoding: identity\r\n{_extraHeaders}\r\n";
        _transport.Send(Encoding.UTF8.GetBytes(request));
        return ReceiveHead();
    }

    /// <summary>Receives a body, or a part of it.</summary>
    public void Receive(Span<byte> destination) => _transport.Receive(destination);

    private HttpResponse ReceiveHead()
    {
        int budget = MaxHead;
        string status = ReceiveLine(ref budget);
        // HTTP/1.1 206 Partial Content
        if (!status.StartsWith("HTTP/1.", StringComparison.Ordinal) || status.Length < 12
            || !int.TryParse(status.AsSpan(9, 3), NumberStyles.None, CultureInfo.InvariantCulture, out int code))
            throw new IOException("the server does not speak HTTP/1.1");
        long length = -1, start = -1, total = -1;
        string? location = null;
        bool close = status.StartsWith("HTTP/1.0", StringComparison.Ordinal);
        while (ReceiveLine(ref budget) is { Length: > 0 } line)
        {
            int colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon < 0)
                continue;
            string value = line[(colon + 1)..].Trim();
            switch (line[..colon].Trim().ToLowerInvariant())
            {
                case "content-length":
                    if (!long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out length))
                        throw new IOException($"the server sent a length that is no number: '{value}'");
                    break;
                case "content-range":
                    ParseRange(value, out start, out total);
                    break;
                case "location":
                    location = value;
                    break;
                case "connection":
                    close = value.Contains("close", StringComparison.OrdinalIgnoreCase);
                    break;
                case "transfer-encoding":
                    // Without a length the connection cannot be used again; a range always has one.
                    close = true;
                    length = -1;
                    break;
            }
        }
        return new HttpResponse(code, length, start, total, location, close);
    }

    /// <summary><c>bytes 0-99/1234</c>.</summary>
    private static void ParseRange(string value, out long start, out long total)
    {
        start = total = -1;
        if (!value.StartsWith("bytes ", StringComparison.OrdinalIgnoreCase))
            return;
        string range = value["bytes ".Length..];
        int dash = range.IndexOf('-', StringComparison.Ordinal), slash = range.IndexOf('/', StringComparison.Ordinal);
        if (dash < 0 || slash < dash || !long.TryParse(range.AsSpan(0, dash), NumberStyles.None, CultureInfo.InvariantCulture, out start))
            start = -1;
        if (slash < 0 || !long.TryParse(range.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out total))
            total = -1;
    }

    private string ReceiveLine(ref int budget)
    {
        var line = new List<byte>(128);
        Span<byte> one = stackalloc byte[1];
        while (true)
        {
            _transport.Receive(one);
            if (--budget < 0)
                throw new IOException("the server's response has no end");
            if (one[0] == '\n')
                break;
            if (one[0] != '\r')
                line.Add(one[0]);
        }
        return Encoding.Latin1.GetString([.. line]);
    }

    public void Dispose() => _transport.Dispose();
}
