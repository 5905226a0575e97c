using System.Globalization;

namespace ImgKit.Block.Protocols.Http;

/// <summary>An <c>http://</c> or <c>https://</c> URL, in the parts that a request needs.</summary>
internal sealed record HttpAddress(bool Tls, string Host, int Port, string Path)
{
    /// <summary>As the <c>Host</c> header has it.</summary>
    public string Authority
    {
        get
        {
            string host = Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]" : Host;
            return Port == (Tls ? 443 : 80) ? host : string.Create(CultureInfo.InvariantCulture, $"{host}:{Port}");
        }
    }

    /// <summary>Parses a URL; credentials in it are not part of the result.</summary>
    /// <exception cref="ImageException">it is none.</exception>
    public static HttpAddress Parse(string url)
    {
        var invalid = new ImageException(ImageErrorKind.InvalidArgument, "No valid URL specified", url);
        bool tls = url.StartsWith("https://", StringComparison.OrdinalIgnoreCase);
        if (!tls && !url.StartsWith("http://", StringComparison.OrdinalIgnoreCase))
            throw invalid;
        string rest = url[(tls ? 8 : 7)..];
        int end = rest.AsSpan().IndexOfAny('/', '?', '#');
        string authority = end < 0 ? rest : rest[..end];
        string path = end < 0 ? "/" : rest[end] == '/' ? rest[end..] : "/" + rest[end..];
        int fragment = path.IndexOf('#', StringComparison.Ordinal);
        if (fragment >= 0)
            path = path[..fragment];
        authority = authority[(authority.LastIndexOf('@') + 1)..];
        int port = tls ? 443 : 80;
        int bracket = authority.LastIndexOf(']');
        int colon = authority.LastIndexOf(':');
        string host = authority;
        if (colon > bracket)
        {
            host = authority[..colon];
            if (!ushort.TryParse(authority[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out ushort p))
                throw invalid;
            port = p;
        }
        host = host.Trim('[', ']');
        // What would end a line of the request must not come out of a URL.
        if (host.Length == 0 || path.AsSpan().IndexOfAnyInRange('\0', ' ') >= 0 || host.AsSpan().IndexOfAnyInRange('\0', ' ') >= 0)
            throw invalid;
        return new HttpAddress(tls, host, port, path);
    }

    /// <summary>Where a redirection leads.</summary>
    public HttpAddress Resolve(string location)
    {
        if (location.Contains("://", StringComparison.Ordinal))
            return Parse(location);
        string scheme = Tls ? "https" : "http";
        if (location.StartsWith("//", StringComparison.Ordinal))
            return Parse($"{scheme}:{location}");
        string path = location.StartsWith('/') ? location : Path[..(Path.Split('?')[0].LastIndexOf('/') + 1)] + location;
        return Parse($"{scheme}://{Authority}{path}");
    }
}
