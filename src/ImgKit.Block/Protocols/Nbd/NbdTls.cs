using ImgKit.Host;
using ImgKit.Host.Tls;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>
/// TLS credentials: objects <c>tls-creds-x509</c> and <c>tls-creds-psk</c>, or a folder. The folder holds the files that QEMU's and
/// GnuTLS' users have: <c>ca-cert.pem</c>, and <c>server-cert.pem</c>, <c>server-key.pem</c> or <c>client-cert.pem</c>,
/// <c>client-key.pem</c>; or <c>keys.psk</c>, lines <c>username:hexadecimal key</c>.
/// </summary>
public sealed class NbdTls
{
    private readonly TlsContext _context;
    private readonly bool _needsHostName;

    /// <param name="context">the credentials.</param>
    /// <param name="needsHostName">a client that trusts by certificate: without a name anybody's would do.</param>
    private NbdTls(TlsContext context, bool needsHostName)
    {
        _context = context;
        _needsHostName = needsHostName;
    }

    /// <summary>The credentials of an object.</summary>
    /// <param name="objects">where it is defined.</param>
    /// <param name="id">its name.</param>
    /// <param name="server">for a server, not for a client.</param>
    public static NbdTls FromObject(BlockObjects objects, string id, bool server)
    {
        var options = objects.Find(id) ?? throw Invalid($"No TLS credentials with id '{id}'");
        string type = options.TakeString("qom-type") ?? "";
        if (type is not ("tls-creds-x509" or "tls-creds-psk"))
            throw Invalid($"Object with id '{id}' is not TLS credentials");
        string endpoint = options.TakeString("endpoint") ?? "client";
        if (endpoint != (server ? "server" : "client"))
            throw Invalid(server ? "Expecting TLS credentials with a server endpoint" : "Expecting TLS credentials with a client endpoint");
        string folder = options.TakeString("dir") ?? throw Invalid("Missing 'dir' property value");
        bool verify = options.TakeBool("verify-peer") ?? true;
        string user = options.TakeString("username") ?? "qemu";
        _ = options.TakeString("sanity-check");
        foreach (var (name, _) in options.Entries)
            throw Invalid(name is "passwordid" or "priority"
                ? $"TLS credentials with '{name}' are not supported" : $"Property '{type}.{name}' not found");
        return type == "tls-creds-x509" ? FromFolder(folder, server, verify) : FromKeys(folder, server, user);
    }

    /// <summary>The certificates in a folder.</summary>
    public static NbdTls FromFolder(string folder, bool server, bool verifyPeer = true)
    {
        string authority = Path.Combine(folder, "ca-cert.pem");
        string certificate = Path.Combine(folder, server ? "server-cert.pem" : "client-cert.pem");
        string key = Path.Combine(folder, server ? "server-key.pem" : "client-key.pem");
        bool hasAuthority = System.IO.File.Exists(authority), hasCertificate = System.IO.File.Exists(certificate);
        if (!hasAuthority && (verifyPeer || !server))
            throw Invalid($"Unable to access credentials {authority}: No such file or directory");
        if (!hasCertificate && server)
            throw Invalid($"Unable to access credentials {certificate}: No such file or directory");
        return new NbdTls(Make(() => TlsContext.WithCertificates(server, hasAuthority ? authority : null,
            hasCertificate ? certificate : null, hasCertificate ? key : null, verifyPeer)), !server && verifyPeer);
    }

    /// <summary>The keys in a folder's <c>keys.psk</c>.</summary>
    public static NbdTls FromKeys(string folder, bool server, string user)
    {
        string path = Path.Combine(folder, "keys.psk");
        var keys = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        try
        {
            foreach (string line in System.IO.File.ReadLines(path))
                if (line.IndexOf(':', StringComparison.Ordinal) is var colon and > 0)
                    keys[line[..colon]] = Convert.FromHexString(line[(colon + 1)..].Trim());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Invalid($"Unable to access credentials {path}: No such file or directory");
        }
        catch (FormatException)
        {
            throw Invalid($"{path} has a key that is not hexadecimal");
        }
        if (server)
            return new NbdTls(Make(() => TlsContext.WithKeys(keys.GetValueOrDefault)), false);
        if (!keys.TryGetValue(user, out byte[]? key))
            throw Invalid($"Username '{user}' is not in {path}");
        return new NbdTls(Make(() => TlsContext.WithKey(user, key)), false);
    }

    /// <summary>A client without credentials of its own that trusts what the system trusts.</summary>
    public static NbdTls SystemClient() => new(Make(() => TlsContext.WithCertificates(false, null, null, null, true)), true);

    private static TlsContext Make(Func<TlsContext> make)
    {
        try
        {
            return make();
        }
        catch (TlsException e)
        {
            throw Invalid(e.Message);
        }
    }

    /// <summary>Does the handshake.</summary>
    /// <param name="socket">the connection.</param>
    /// <param name="hostName">the name that the server's certificate must have; null or empty: any, where trust is not by certificate.</param>
    /// <param name="limit">for the handshake.</param>
    /// <exception cref="ImageException">no agreement, or no trust.</exception>
    public TlsConnection Start(HostSocket socket, string? hostName, TimeSpan limit)
    {
        if (_needsHostName && string.IsNullOrEmpty(hostName))
            throw new ImageException(ImageErrorKind.Denied, "No hostname for certificate validation") { Errno = 22 };
        try
        {
            return TlsConnection.Start(_context, socket, hostName, limit);
        }
        catch (TlsException e)
        {
            throw new ImageException(ImageErrorKind.Denied, e.Message, inner: e) { Errno = 5 };
        }
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
