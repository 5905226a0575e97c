using System.Globalization;
using System.Text;
using ImgKit.Host;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>Where an NBD server is: a Unix socket's path, or host and port.</summary>
/// <param name="Path">of a Unix socket, or null.</param>
/// <param name="Host">name or address, with <paramref name="Port"/>.</param>
/// <param name="Port">number or service name.</param>
public sealed record NbdAddress(string? Path, string Host, string Port)
{
    /// <summary>A Unix socket.</summary>
    public static NbdAddress Unix(string path) => new(path, "", "");

    /// <summary>By TCP.</summary>
    public static NbdAddress Tcp(string host, string? port = null) => new(null, host, port ?? "10809");

    /// <summary>Connects.</summary>
    /// <exception cref="ImageException">nobody is there.</exception>
    public HostSocket Connect()
    {
        try
        {
            return Path is not null ? HostSocket.ConnectUnix(Path) : HostSocket.ConnectTcp(Host, Port);
        }
        catch (HostException e)
        {
            throw new ImageException(ImageErrorKind.Io, $"Failed to connect to '{this}': {e.Message}", inner: e) { Errno = e.Errno };
        }
        catch (AddressException e)
        {
            throw new ImageException(ImageErrorKind.NotFound, e.Message, inner: e) { Errno = 5 };
        }
    }

    /// <inheritdoc/>
    public override string ToString() => Path ?? $"{Host}:{Port}";

    /// <summary>The export's name as a URI: <c>nbd://host:port/export</c>, <c>nbd+unix:///export?socket=path</c>. As the peer's it
    /// does not say whether TLS is used.</summary>
    public string ToUri(string export)
    {
        string path = export.Length > 0 ? "/" + export : "";
        if (Path is not null)
            return $"nbd+unix://{path}?socket={Path}";
        string host = Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]" : Host;
        return $"nbd://{host}:{Port}{path}";
    }

    /// <summary>Turns any spelling of a file name into the options <c>server.*</c>, <c>export</c> and <c>tls-creds</c>.</summary>
    /// <exception cref="ImageException">it is none.</exception>
    public static void ParseFileName(string name, BlockOptions options)
    {
        foreach (string o in (ReadOnlySpan<string>)["host", "port", "path"])
            if (options.Contains(o))
                throw new ImageException(ImageErrorKind.InvalidArgument, "host/port/path and file names may not be used at the same time", name);
        if (name.Contains("://", StringComparison.Ordinal))
            ParseUri(name, options);
        else
            ParseOldName(name, options);
    }

    private static void ParseUri(string name, BlockOptions options)
    {
        var invalid = new ImageException(ImageErrorKind.InvalidArgument, "No valid URL specified", name);
        int at = name.IndexOf("://", StringComparison.Ordinal);
        string scheme = name[..at];
        string rest = name[(at + 3)..];
        bool unix = scheme is "nbd+unix" or "nbds+unix";
        bool tls = scheme is "nbds" or "nbds+tcp" or "nbds+unix";
        if (!unix && !tls && scheme is not ("nbd" or "nbd+tcp"))
            throw invalid;
        int fragment = rest.IndexOf('#', StringComparison.Ordinal);
        if (fragment >= 0)
            rest = rest[..fragment];
        int question = rest.IndexOf('?', StringComparison.Ordinal);
        string query = question >= 0 ? rest[(question + 1)..] : "";
        if (question >= 0)
            rest = rest[..question];
        int slash = rest.IndexOf('/', StringComparison.Ordinal);
        string authority = slash >= 0 ? rest[..slash] : rest;
        // One slash is the separator; what follows is the name, which may begin with another.
        string export = Unescape(slash >= 0 ? rest[(slash + 1)..] : "");
        string? socket = null, tlsCredentials = null;
        foreach (string pair in query.Split(['&', ';'], StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = pair.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? pair : pair[..equals];
            string value = Unescape(equals < 0 ? "" : pair[(equals + 1)..]);
            if (key == "socket" && socket is null && unix)
                socket = value;
            else if (key == "tls-certificates" && tls)
                tlsCredentials = value;
            else
                throw invalid;
        }
        if (export.Length > 0)
            options.Set("export", export);
        if (unix)
        {
            if (authority.Length > 0 || string.IsNullOrEmpty(socket))
                throw invalid;
            options.Set("server.type", "unix");
            options.Set("server.path", socket);
        }
        else
        {
            int user = authority.LastIndexOf('@');
            if (user >= 0)
                authority = authority[(user + 1)..];
            var (host, port) = SplitAuthority(authority, invalid);
            options.Set("server.type", "inet");
            options.Set("server.host", host);
            options.Set("server.port", port ?? "10809");
        }
        if (tls)
            options.Set("tls", true);
        if (tlsCredentials is not null)
            options.Set("tls-certificates", tlsCredentials);
    }

    private static (string Host, string? Port) SplitAuthority(string authority, ImageException invalid)
    {
        string host = authority;
        string? port = null;
        if (authority.StartsWith('['))
        {
            int close = authority.IndexOf(']', StringComparison.Ordinal);
            if (close < 0)
                throw invalid;
            host = authority[1..close];
            if (close + 1 < authority.Length)
                port = authority[close + 1] == ':' ? authority[(close + 2)..] : throw invalid;
        }
        else if (authority.LastIndexOf(':') is var colon and >= 0)
        {
            host = authority[..colon];
            port = authority[(colon + 1)..];
        }
        if (host.Length == 0 || (port is not null && !ushort.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out _)))
            throw invalid;
        return (Unescape(host), port);
    }

    private static void ParseOldName(string name, BlockOptions options)
    {
        string rest = name["nbd:".Length..];
        const string exportMark = ":exportname=";
        int mark = rest.IndexOf(exportMark, StringComparison.Ordinal);
        if (mark >= 0)
        {
            options.Set("export", rest[(mark + exportMark.Length)..]);
            rest = rest[..mark];
        }
        if (rest.StartsWith("unix:", StringComparison.Ordinal))
        {
            options.Set("server.type", "unix");
            options.Set("server.path", rest["unix:".Length..]);
            return;
        }
        var invalid = new ImageException(ImageErrorKind.InvalidArgument, $"error parsing address '{rest}'", name);
        string host, port;
        if (rest.StartsWith('['))
        {
            int close = rest.IndexOf("]:", StringComparison.Ordinal);
            if (close < 0)
                throw invalid;
            (host, port) = (rest[1..close], rest[(close + 2)..]);
        }
        else
        {
            int colon = rest.IndexOf(':', StringComparison.Ordinal);
            if (colon < 0)
                throw invalid;
            (host, port) = (rest[..colon], rest[(colon + 1)..]);
        }
        if (port.Length == 0)
            throw invalid;
        options.Set("server.type", "inet");
        options.Set("server.host", host);
        options.Set("server.port", port);
    }

    /// <summary>Takes <c>server.*</c> (or the older <c>host</c>, <c>port</c>, <c>path</c>) out of options.</summary>
    /// <exception cref="ImageException">missing or contradictory.</exception>
    public static NbdAddress Take(BlockOptions options)
    {
        string? path = options.TakeString("path"), host = options.TakeString("host"), port = options.TakeString("port");
        if (path is not null || host is not null || port is not null)
        {
            if (path is not null && host is not null)
                throw Invalid("path and host may not be used at the same time");
            if (path is not null && port is not null)
                throw Invalid("port may not be used without host");
            if (options.ContainsChild("server"))
                throw Invalid("'server' and path/host/port cannot be used at the same time");
            if (host is null && port is not null)
                throw Invalid("port may not be used without host");
            return path is not null ? Unix(path) : Tcp(host!, port);
        }
        if (!options.ContainsChild("server"))
            throw Invalid("NBD server address missing");
        var server = options.TakeChild("server");
        string type = server.TakeString("type") ?? throw Invalid("Parameter 'server.type' is missing");
        NbdAddress address;
        switch (type)
        {
            case "unix":
                address = Unix(server.TakeString("path") ?? throw Invalid("Parameter 'path' is missing"));
                _ = server.TakeString("abstract");
                break;
            case "inet":
                host = server.TakeString("host") ?? throw Invalid("Parameter 'host' is missing");
                address = Tcp(host, server.TakeString("port") ?? throw Invalid("Parameter 'port' is missing"));
                break;
            case "vsock" or "fd":
                throw new ImageException(ImageErrorKind.Unsupported, $"NBD servers of type '{type}' are not supported");
            default:
                throw Invalid($"Parameter 'type' does not accept value '{type}'");
        }
        return server.IsEmpty ? address : throw Invalid($"Parameter '{server.Entries[0].Key}' is unexpected");
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);

    private static string Unescape(string text)
    {
        if (!text.Contains('%', StringComparison.Ordinal))
            return text;
        byte[] bytes = new byte[Encoding.UTF8.GetMaxByteCount(text.Length)];
        int n = 0;
        for (int i = 0; i < text.Length; i++)
        {
            if (text[i] == '%' && i + 2 < text.Length && char.IsAsciiHexDigit(text[i + 1]) && char.IsAsciiHexDigit(text[i + 2]))
            {
                bytes[n++] = byte.Parse(text.AsSpan(i + 1, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
                i += 2;
            }
            else
            {
                n += Encoding.UTF8.GetBytes(text.AsSpan(i, 1), bytes.AsSpan(n));
            }
        }
        return Encoding.UTF8.GetString(bytes, 0, n);
    }
}
