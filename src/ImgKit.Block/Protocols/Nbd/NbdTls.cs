using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>
/// TLS credentials: object <c>tls-creds-x509</c>, or a folder. The folder holds the files that QEMU's and GnuTLS' users
/// have: <c>ca-cert.pem</c>, and <c>server-cert.pem</c>, <c>server-key.pem</c> or <c>client-cert.pem</c>, <c>client-key.pem</c>.
/// </summary>
public sealed class NbdTls
{
    private readonly X509Certificate2? _certificate;
    private readonly X509Certificate2Collection _authorities;
    private readonly bool _isServer;
    private readonly bool _verifyPeer;

    private NbdTls(X509Certificate2? certificate, X509Certificate2Collection authorities, bool isServer, bool verifyPeer)
    {
        _certificate = certificate;
        _authorities = authorities;
        _isServer = isServer;
        _verifyPeer = verifyPeer;
    }

    /// <summary>The credentials of an object.</summary>
    /// <param name="objects">where it is defined.</param>
    /// <param name="id">its name.</param>
    /// <param name="server">for a server, not for a client.</param>
    public static NbdTls FromObject(BlockObjects objects, string id, bool server)
    {
        var options = objects.Find(id) ?? throw Invalid($"No TLS credentials with id '{id}'");
        if (options.TakeString("qom-type") != "tls-creds-x509")
            throw Invalid($"Object with id '{id}' is not TLS credentials");
        string endpoint = options.TakeString("endpoint") ?? "client";
        if (endpoint != (server ? "server" : "client"))
            throw Invalid(server ? "Expecting TLS credentials with a server endpoint" : "Expecting TLS credentials with a client endpoint");
        string folder = options.TakeString("dir") ?? throw Invalid("Missing 'dir' property value");
        bool verify = options.TakeBool("verify-peer") ?? true;
        _ = options.TakeString("sanity-check");
        foreach (var (name, _) in options.Entries)
            throw Invalid(name is "passwordid" or "priority"
                ? $"TLS credentials with '{name}' are not supported" : $"Property 'tls-creds-x509.{name}' not found");
        return FromFolder(folder, server, verify);
    }

    /// <summary>The credentials in a folder.</summary>
    public static NbdTls FromFolder(string folder, bool server, bool verifyPeer = true)
    {
        var authorities = new X509Certificate2Collection();
        string authority = Path.Combine(folder, "ca-cert.pem");
        string certificate = Path.Combine(folder, server ? "server-cert.pem" : "client-cert.pem");
        string key = Path.Combine(folder, server ? "server-key.pem" : "client-key.pem");
        try
        {
            if (System.IO.File.Exists(authority))
                authorities.ImportFromPemFile(authority);
            else if (!server)
                throw Invalid($"Unable to access credentials {authority}: No such file or directory");
            X509Certificate2? own = null;
            if (System.IO.File.Exists(certificate))
                own = X509Certificate2.CreateFromPemFile(certificate, key);
            else if (server)
                throw Invalid($"Unable to access credentials {certificate}: No such file or directory");
            return new NbdTls(own, authorities, server, verifyPeer);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or System.Security.Cryptography.CryptographicException)
        {
            throw Invalid($"Unable to load credentials from {folder}: {e.Message}");
        }
    }

    /// <summary>A client without credentials of its own that trusts what the system trusts.</summary>
    public static NbdTls SystemClient() => new(null, [], false, true);

    /// <summary>Does the handshake.</summary>
    /// <param name="inner">the connection.</param>
    /// <param name="hostName">the name that the server's certificate must have (client only).</param>
    /// <exception cref="ImageException">no agreement, or no trust.</exception>
    public SslStream Start(Stream inner, string hostName)
    {
        var stream = new SslStream(inner, leaveInnerStreamOpen: true);
        try
        {
            if (_isServer)
                stream.AuthenticateAsServer(new SslServerAuthenticationOptions
                {
                    ServerCertificate = _certificate,
                    ClientCertificateRequired = _verifyPeer,
                    EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                    RemoteCertificateValidationCallback = ValidateClient,
                    AllowRenegotiation = false,
                });
            else
                stream.AuthenticateAsClient(new SslClientAuthenticationOptions
                {
                    TargetHost = hostName,
                    ClientCertificates = _certificate is null ? null : [_certificate],
                    EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                    RemoteCertificateValidationCallback = ValidateServer,
                });
            return stream;
        }
        catch (Exception e) when (e is AuthenticationException or InvalidOperationException)
        {
            stream.Dispose();
            throw new ImageException(ImageErrorKind.Denied, $"TLS handshake failed: {e.Message}", inner: e) { Errno = 5 };
        }
    }

    /// <summary>The subject of the peer's certificate, for authorization; null when it sent none.</summary>
    public static string? PeerName(SslStream stream) => stream.RemoteCertificate?.Subject;

    private bool ValidateClient(object sender, System.Security.Cryptography.X509Certificates.X509Certificate? certificate, X509Chain? chain,
        SslPolicyErrors errors) => !_verifyPeer || (certificate is not null && IsTrusted(certificate));

    private bool ValidateServer(object sender, System.Security.Cryptography.X509Certificates.X509Certificate? certificate, X509Chain? chain,
        SslPolicyErrors errors)
    {
        if (certificate is null || (errors & (SslPolicyErrors.RemoteCertificateNotAvailable | SslPolicyErrors.RemoteCertificateNameMismatch)) != 0)
            return false;
        return _authorities.Count == 0 ? errors == SslPolicyErrors.None : IsTrusted(certificate);
    }

    private bool IsTrusted(System.Security.Cryptography.X509Certificates.X509Certificate certificate)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(_authorities);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.DisableCertificateDownloads = true;
        return chain.Build(new X509Certificate2(certificate));
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
