using System.Text;
using ImgKit.Host.Tls;

namespace ImgKit.Block.Protocols.Http;

/// <summary>Images on web servers, for reading: <c>http://</c>, <c>https://</c>.</summary>
public static class HttpProtocol
{
    private const int MaxReadAhead = 16 << 20;

    /// <summary><c>http</c>.</summary>
    public static BlockDriver Http { get; } = Make("http");

    /// <summary><c>https</c>.</summary>
    public static BlockDriver Https { get; } = Make("https");

    private static BlockDriver Make(string name) => new()
    {
        Name = name,
        Kind = DriverKind.Protocol,
        Description = "A file of a web server, for reading",
        FileNamePrefixes = [name + ":"],
        ParseFileName = (url, options) => options.Set("url", url),
        Open = context => Open(context, name),
        OpenOptions =
        [
            new("url", OptionType.String, "the URL"),
            new("readahead", OptionType.Size, "Readahead size", "256k"),
            new("sslverify", OptionType.Bool, "Verify SSL certificate", "on"),
            new("timeout", OptionType.Number, "Timeout in seconds", "5"),
            new("cookie", OptionType.String, "Pass the cookie or list of cookies with each request"),
            new("username", OptionType.String, "Username for HTTP auth"),
            new("password-secret", OptionType.String, "ID of secret used as password for HTTP auth"),
        ],
    };

    private static HttpDevice Open(OpenContext context, string scheme)
    {
        var o = context.Options;
        _ = o.TakeString("filename");
        string url = o.TakeString("url") ?? throw Invalid("Parameter 'url' is missing");
        if (!url.StartsWith(scheme + "://", StringComparison.OrdinalIgnoreCase))
            throw Invalid($"{scheme} curl driver cannot handle the URL '{url}' (does not start with '{scheme}://')");
        if (!context.Settings.ReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "curl block device does not support writes", url) { Errno = 30 };
        long readAhead = o.TakeSize("readahead") ?? 256 << 10;
        if (readAhead is < 512 or > MaxReadAhead || readAhead % 512 != 0)
            throw Invalid("HTTP_READAHEAD_SIZE " + readAhead + " is not a multiple of 512, or is too large");
        bool verify = o.TakeBool("sslverify") ?? true;
        long timeout = o.TakeNumber("timeout") ?? 5;
        if (timeout is < 1 or > 10000)
            throw Invalid("timeout parameter is too large or negative");
        return new HttpDevice(url, new HttpSettings
        {
            ReadAhead = (int)readAhead,
            Timeout = TimeSpan.FromSeconds(timeout),
            Tls = scheme == "https" ? Trust(verify) : null,
            ExtraHeaders = Headers(o, context.Opener.Objects),
        });
    }

    private static TlsContext Trust(bool verify)
    {
        try
        {
            return TlsContext.WithCertificates(false, null, null, null, verify);
        }
        catch (TlsException e)
        {
            throw Invalid(e.Message);
        }
    }

    private static string? Headers(BlockOptions o, BlockObjects objects)
    {
        var s = new StringBuilder();
        if (o.TakeString("cookie") is { } cookie)
            s.Append("Cookie: ").Append(Line(cookie)).Append("\r\n");
        string? user = o.TakeString("username"), secret = o.TakeString("password-secret");
        if (user is not null || secret is not null)
        {
            string password = "";
            if (secret is not null)
            {
                var definition = objects.Find(secret) ?? throw Invalid($"No secret with id '{secret}'");
                password = definition.TakeString("data")
                    ?? (definition.TakeString("file") is { } file ? System.IO.File.ReadAllText(file) : throw Invalid("Either 'file' or 'data' must be provided"));
            }
            s.Append("Authorization: Basic ").Append(Convert.ToBase64String(Encoding.UTF8.GetBytes($"{user}:{password}"))).Append("\r\n");
        }
        return s.Length == 0 ? null : s.ToString();
    }

    private static string Line(string value) =>
        value.AsSpan().IndexOfAny('\r', '\n') < 0 ? value : throw Invalid("a cookie cannot have several lines");

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
